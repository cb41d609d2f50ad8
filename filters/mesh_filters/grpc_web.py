"""`envoy.filters.http.grpc_web`: gRPC for browsers, which can neither read trailers nor, in the text form, binary bodies.

A request with `application/grpc-web[-text][+proto]` goes on as gRPC; of the response, the trailers become a last message of the
body, and a response that is no gRPC at all becomes a status and a message in its head (grpc: doc/PROTOCOL-WEB.md; Envoy:
http/grpc_web/grpc_web_filter.cc).
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Final

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.grpc import encode_message, frame, is_grpc_content_type, status_of_http
from mesh_codecs.grpc.messages import PREFIX_SIZE, TRAILERS
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.grpc_call_stats import CallStats, CallStatsTable, service_and_method

BINARY: Final = frozenset({b"application/grpc-web", b"application/grpc-web+proto"})
TEXT: Final = frozenset({b"application/grpc-web-text", b"application/grpc-web-text+proto"})
MAX_PLAIN_BODY: Final = 16_384
"""bytes of a body that is no gRPC which become `grpc-message`"""
_CONTINUE: Final = FilterStatus.CONTINUE


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcWebConfig:
    """`GrpcWeb`; nothing can be set."""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it holds parts of messages."""
        table = CallStatsTable(context, "grpc-web")
        return lambda: GrpcWebFilter(table)


class TextDecoder:
    """Base64 in any cutting. Several encoded pieces, each with its padding, may follow each other."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, end: bool) -> bytes:
        """The bytes that are complete.

        Raises:
            ValueError: this is not base64.
        """
        data = self._rest + data
        whole = len(data) & ~3
        if end and whole != len(data):
            raise ValueError("cut off")
        self._rest = data[whole:]
        data = data[:whole]
        if b"=" not in data[:-2]:
            return binascii.a2b_base64(data, strict_mode=True) if data else b""
        pieces = []
        start = 0
        while start < whole:
            # Padding ends a piece, at a multiple of four.
            padding = data.find(b"=", start)
            stop = whole if padding < 0 else (padding & ~3) + 4
            pieces.append(binascii.a2b_base64(data[start:stop], strict_mode=True))
            start = stop
        return b"".join(pieces)


class TextEncoder:
    """Base64 of each message by itself, as far as it has come: at most two bytes wait for the next piece."""

    __slots__ = ("_left", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0
        """bytes of the current message that are not encoded yet; 0 between messages"""

    def feed(self, data: bytes, end: bool) -> bytes:
        """What can be sent."""
        data = self._rest + data
        size = len(data)
        out = []
        at = 0
        while at < size:
            if not self._left:
                if size - at < PREFIX_SIZE:
                    break
                self._left = PREFIX_SIZE + int.from_bytes(data[at + 1 : at + PREFIX_SIZE], "big")
            take = min(self._left, size - at)
            if take < self._left:
                take -= take % 3
            if not take:
                break
            out.append(binascii.b2a_base64(data[at : at + take], newline=False))
            at += take
            self._left -= take
        self._rest = data[at:]
        if end:
            if self._rest:
                out.append(binascii.b2a_base64(self._rest, newline=False))
            self._rest = b""
            self._left = 0
        return b"".join(out)


class GrpcWebFilter(Filter):
    """Translates one call."""

    __slots__ = ("_active", "_decoder", "_encoder", "_plain", "_plain_body", "_stats", "_table")

    def __init__(self, table: CallStatsTable) -> None:
        self._table = table
        self._active = False
        self._decoder: TextDecoder | None = None
        """the request's body is text"""
        self._encoder: TextEncoder | None = None
        """the response's body is to be text"""
        self._stats: CallStats | None = None
        self._plain: ResponseHeaders | None = None
        """a response that is no gRPC: its head, while the body is collected"""
        self._plain_body = b""

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Make gRPC of it."""
        headers = event.headers
        first = headers.first
        kind = first.get(b"content-type")
        if kind not in BINARY and kind not in TEXT:
            return _CONTINUE
        self._active = True
        stream.plain_replies = True
        headers.remove(b"content-length")
        self._stats = self._table.of(stream.target_cluster(), service_and_method(event.path))
        if kind in TEXT:
            self._decoder = TextDecoder()
        if first.get(b"accept") in TEXT:
            self._encoder = TextEncoder()
        headers.set(b"content-type", b"application/grpc")
        headers.set(b"te", b"trailers")
        headers.setdefault(b"grpc-accept-encoding", b"identity")
        return _CONTINUE

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """Decode."""
        if self._decoder is not None:
            try:
                event.data = self._decoder.feed(event.data, event.end_stream)
            except ValueError as error:
                cut = str(error) == "cut off"
                stream.send_local_reply(
                    400,
                    b"Bad gRPC-web request, invalid base64 data.",
                    details="grpc_base_64_decode_failed_bad_size" if cut else "grpc_base_64_decode_failed",
                )
                return FilterStatus.STOP
        return _CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Say that it is gRPC-Web, which an answer of another kind has yet to become."""
        if not self._active:
            return _CONTINUE
        headers = event.headers
        first = headers.first
        if self._stats is not None:
            self._stats.charge(first.get(b"grpc-status"))
        plain = not event.end_stream and not _is_grpc(event.status, first.get(b"content-type"))
        headers.remove(b"content-length")
        text = self._encoder is not None
        headers.set(b"content-type", b"application/grpc-web-text+proto" if text else b"application/grpc-web+proto")
        if plain:
            self._plain = event
            return FilterStatus.STOP_AND_BUFFER
        return _CONTINUE

    def on_response_data(self, stream: Stream, event: Data) -> FilterStatus:
        """Encode; or collect what is no gRPC."""
        if self._plain is not None:
            if len(self._plain_body) < MAX_PLAIN_BODY:
                self._plain_body += event.data
            event.data = b""
            if not event.end_stream:
                return FilterStatus.STOP_AND_BUFFER
            self._end_plain()
        elif self._encoder is not None:
            event.data = self._encoder.feed(event.data, event.end_stream)
        return _CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """They become the last message of the body."""
        if not self._active:
            return _CONTINUE
        headers = event.headers
        if self._stats is not None:
            self._stats.charge(headers.first.get(b"grpc-status"))
        if self._plain is not None:
            self._end_plain()
            return _CONTINUE
        block = b"".join(b"%b:%b\r\n" % pair for pair in headers.items())
        message = frame(block, TRAILERS)
        encoder = self._encoder
        stream.add_response_data(self, message if encoder is None else encoder.feed(b"", True) + encoder.feed(message, True))
        event.headers = Headers()
        return _CONTINUE

    def _end_plain(self) -> None:
        response, self._plain = self._plain, None
        assert response is not None
        headers = response.headers
        headers.set(b"grpc-message", encode_message(self._plain_body))
        headers.set(b"grpc-status", b"%d" % status_of_http(response.status))
        headers.set(b"content-length", b"0")
        self._plain_body = b""


def _is_grpc(status: int, content_type: bytes | None) -> bool:
    """A response with a body that is gRPC, or gRPC-Web in binary already."""
    if status != 200 or content_type is None:
        return False
    return is_grpc_content_type(content_type) or content_type.partition(b";")[0].rstrip().lower() in BINARY
