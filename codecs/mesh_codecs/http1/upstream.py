"""The side we call: requests out, responses in.

One request at a time, never pipelined. Its life, as `_input` tells it:

    IDLE ──request head sent──▶ HEAD ──final head──▶ BODY ──last byte──▶ IDLE …
                                 └─head without body───────────────────▲
                                 └─101 to an upgrade, 2xx to CONNECT──▶ BODY (raw, to the end of the connection)

Whatever comes in IDLE answers nothing we asked, and ends the connection. A response that ends before its request does as well:
the upstream will not read the rest as what it is.
"""

from __future__ import annotations

from typing import Any, Final, final

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError, ResetReason
from mesh_codecs.events import (
    ConnectionEnded,
    ConnectionFailed,
    Data,
    Event,
    GoAway,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import fields
from mesh_codecs.http1.body import BodyReader, BodyWriter
from mesh_codecs.http1.fields import CHUNKS, LENGTH, NO_BODY, RAW
from mesh_codecs.http1.grammar import NOT_KEPT, RESPONSE_HEAD, HeadBuffer, check_count, parse_fields, parse_status_line
from mesh_codecs.http1.head_table import UNKNOWN, Cut, HeadTable, cut
from mesh_codecs.http1.heads import known_head, request_head
from mesh_codecs.http1.settings import (
    MAX_EARLY_TUNNEL_BYTES,
    MAX_INFORMATIONAL,
    UNLIMITED_WINDOW,
    Http1Settings,
    UnderscoreAction,
)

_IDLE: Final = 0
_HEAD: Final = 1
_BODY: Final = 2

_TIME: Final = b"x-envoy-upstream-service-time"
_TIME_LINE: Final = b"\r\nx-envoy-upstream-service-time: "
_DIGITS: Final = b"0123456789"
UNIQUE: Final = NOT_KEPT - {b"date", b"last-modified", b"etag", b"expires", b"location", _TIME}
"""fields that are new with every response, or secret; `date` holds for a second, the others for one resource"""


class KnownResponse:
    """A response head that came before, byte for byte, on any connection: final, HTTP/1.1, persistent, with a content-length. If
    it has the time that another sidecar's endpoint took, that one differs."""

    __slots__ = ("count", "first", "has_body", "length", "note", "size", "status", "time_at")

    def __init__(self, status: int, first: dict[bytes, bytes], length: int, count: int, head: bytes, parts: Cut | None) -> None:
        self.status = status
        self.first = first
        """the fields; `fields` gives those of one response"""
        self.length = length
        """content-length"""
        self.has_body = length > 0 and status != 204 and status != 304
        """in answer to anything but HEAD"""
        self.count = count
        """number of fields"""
        self.size = len(head) + 4
        """bytes of the head with the empty line and without that time"""
        self.time_at = 0
        """where that time begins; 0 without one"""
        if parts is not None:
            before, after = parts
            self.time_at = len(before)
            self.size = len(before) + len(after) + 4
            first[_TIME] = b""
        self.note: dict[object, Any] | None = None
        """what receivers worked out of it, for the next time: each under a key of its own"""

    def time(self, data: bytes, size: int) -> bytes:
        """The time, where there is one, of a head of this kind, which has `size` bytes and begins `data`."""
        return data[self.time_at : self.time_at + size - self.size]

    def fields(self, data: bytes, size: int) -> dict[bytes, bytes]:
        """The fields of a head of this kind, which has `size` bytes and begins `data`. The caller's own."""
        first = self.first.copy()
        if self.time_at:
            first[_TIME] = self.time(data, size)
        return first


_table: Final = HeadTable[KnownResponse]()


def _known_but_for_time(head: bytes) -> KnownResponse | None:
    parts = cut(head, _TIME_LINE, _DIGITS)
    return None if parts is None else _table.entries.get(parts)


@final
class UpstreamHttp1:
    """The client side of one HTTP/1.1 connection. See `mesh_codecs.codec.Codec` for what the shell owes it."""

    __slots__ = (
        "_body",
        "_buffer",
        "_closed",
        "_early",
        "_early_end",
        "_early_size",
        "_eof_wanted",
        "_informational",
        "_input",
        "_keep_alive",
        "_max_count",
        "_max_head",
        "_method",
        "_out",
        "_partial",
        "_protocol",
        "_request_done",
        "_stream",
        "_streams",
        "_tunnel_asked",
        "_tunnel_refused",
        "_unknown",
        "_writer",
    )

    def __init__(self, settings: Http1Settings) -> None:
        self._max_head = settings.max_head_bytes
        self._max_count = settings.max_header_count
        self._buffer = HeadBuffer(RESPONSE_HEAD, settings.max_head_bytes, settings.max_header_count)
        self._partial = False
        """`_buffer` holds an incomplete head"""
        self._body = BodyReader(settings, UnderscoreAction.ALLOW)
        self._writer = BodyWriter(settings.enable_trailers)
        self._out: list[bytes] = []
        self._input = _IDLE
        self._streams = 0
        self._stream = 0
        """the stream in progress, or 0"""
        self._method = b""
        self._protocol = b""
        self._tunnel_asked = False
        """an upgrade or CONNECT that is not answered yet"""
        self._tunnel_refused = False
        self._early: list[bytes] = []
        """what was sent for the tunnel before it was accepted"""
        self._early_size = 0
        self._early_end = False
        self._request_done = True
        self._informational = 0
        self._unknown = 0
        """heads in a row that did not come before"""
        self._keep_alive = True
        self._eof_wanted = False
        self._closed = False

    def __repr__(self) -> str:
        state = "CLOSED" if self._closed else ("IDLE", "HEAD", "BODY")[self._input]
        return f"<UpstreamHttp1 {state} stream={self._stream} requests={self._streams}>"

    @property
    def closed(self) -> bool:
        """The connection must be closed once the output is flushed."""
        return self._closed

    @property
    def keep_alive(self) -> bool:
        """As far as is known, the connection outlives the request in progress."""
        return self._keep_alive and not self._closed

    @property
    def can_reuse(self) -> bool:
        """Another request can be opened now."""
        return not self._stream and self._keep_alive and not self._closed

    @property
    def eof_wanted(self) -> bool:
        """Our direction of a tunnel is over: the shell closes its sending side after flushing, and reads on."""
        return self._eof_wanted

    # Receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """See `Codec`."""
        events: list[Event] = []
        if self._closed:
            return events
        try:
            self._receive(data, events)
        except RemoteProtocolError as error:
            # Whatever was wrong, to the one who asked it is a bad gateway.
            self._fail(RemoteProtocolError(error.code, 502, error.detail), events)
        return events

    def receive_whole(self, data: bytes) -> KnownResponse | None:
        """The shortest way for the commonest read in answer to `send_known`: all of one response, which has a body and whose head
        is known. Then the response is complete, the connection can be reused, and the body is the last `length` bytes of `data`.
        None: nothing has happened, and the read is for `receive_data`."""
        if self._input != _HEAD or self._unknown > UNKNOWN or self._partial or not self._keep_alive or self._closed:
            return None
        end = data.find(b"\r\n\r\n")
        known = _table.entries.get(data[:end])
        if known is None:
            known = _known_but_for_time(data[:end])
            if known is None or end < 0:
                self._unknown += 1
                return None
            size = end + 4
        else:
            size = known.size
        if not known.has_body or size + known.length != len(data) or known.count > self._max_count or size > self._max_head:
            return None
        _table.hits += 1
        self._unknown = 0
        self._input = _IDLE
        self._stream = 0
        return known

    def _receive(self, data: bytes, events: list[Event]) -> None:
        pos = 0
        while self._input == _HEAD:
            end = data.find(b"\r\n\r\n", pos)
            if end < 0 or end + 4 - pos > self._max_head or self._partial:
                whole = self._buffer.add(data[pos:])
                self._partial = whole is None
                if whole is None:
                    return
                data = whole
                pos = 0
                end = data.find(b"\r\n\r\n")
            pos = self._receive_head(data, pos, end, events)
        if self._input == _BODY:
            left = self._body.feed(self._stream, data, pos, events)
            if self._body.mode != NO_BODY:
                return
            pos = len(data) - left
            self._finish()
        if pos < len(data) and not self._closed:
            raise RemoteProtocolError("http1.unsolicited_response", 502, "bytes that answer no request")

    def _receive_head(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """One event, two if a short body follows at once; returns where the rest of `data` begins."""
        head = data[pos:end]
        known = _table.entries.get(head) or _known_but_for_time(head)
        if known is not None and known.count <= self._max_count and not self._tunnel_asked:
            _table.hits += 1
            self._unknown = 0
            headers = Headers((), known.fields(head, len(head) + 4))
            return self._plain_response(known.status, headers, known.length, data, end + 4, events)
        lines = head.split(b"\r\n")
        status, minor = parse_status_line(lines.pop(0))
        if len(lines) > self._max_count:
            check_count(lines, self._max_count)
        headers = Headers(parse_fields(lines))
        first = headers.first
        if headers.more is not None:
            fields.check_repeats(headers)
        flags = 0 if fields.HOP_BY_HOP.isdisjoint(first) else fields.take_hop_by_hop(headers)
        if flags & fields.CHUNKED:
            if b"content-length" in first:
                raise RemoteProtocolError(fields.BOTH_LENGTHS, 502, "Content-Length and Transfer-Encoding")
            if not minor:
                raise RemoteProtocolError(fields.INVALID_TRANSFER_ENCODING, 502, "Transfer-Encoding in HTTP/1.0")
        pos = end + 4
        stream = self._stream
        if status < 200 and status != 101:
            if flags & fields.UPGRADE:
                headers.remove(b"upgrade")
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise RemoteProtocolError("http1.too_many_informational", 502, "1xx without end")
            events.append(InformationalHeaders(stream, status, headers))
            return pos
        version = b"HTTP/1.1" if minor else b"HTTP/1.0"
        if self._tunnel_asked or status == 101:
            if self._accepts_tunnel(status, flags, headers):
                events.append(ResponseHeaders(stream, status, headers, False, version))
                self._open_tunnel()
                return pos
            self._early = []
            self._tunnel_asked = False
            self._tunnel_refused = True
            self._request_done = True
        elif flags & fields.UPGRADE:
            headers.remove(b"upgrade")
        if flags & fields.CLOSE or not (minor or flags & fields.KEEP_ALIVE):
            self._keep_alive = False
        length = -1 if b"content-length" not in first else fields.parse_content_length(first[b"content-length"])
        if length >= 0 and minor and not flags & ~fields.KEEP_ALIVE and headers.more is None and UNIQUE.isdisjoint(first):
            parts = cut(head, _TIME_LINE, _DIGITS) if _TIME in first else None
            if parts is not None or _TIME not in first:
                _table.store(head, KnownResponse(status, first.copy(), length, len(lines), head, parts), parts)
        if self._method == b"HEAD" or status == 204 or status == 304 or length == 0:
            events.append(ResponseHeaders(stream, status, headers, True, version))
            self._finish()
            return pos
        events.append(ResponseHeaders(stream, status, headers, False, version))
        if length > 0:
            if len(data) - pos >= length:
                events.append(Data(stream, data[pos : pos + length], True, length))
                self._finish()
                return pos + length
            self._body.begin(LENGTH, length)
        elif flags & fields.CHUNKED:
            self._body.begin(CHUNKS, 0)
        else:
            self._keep_alive = False
            self._body.begin(RAW, 0)
        self._input = _BODY
        return pos

    def _plain_response(self, status: int, headers: Headers, length: int, data: bytes, pos: int, events: list[Event]) -> int:
        """A head that was seen before: final, HTTP/1.1, persistent, with a content-length."""
        stream = self._stream
        if self._method == b"HEAD" or status == 204 or status == 304 or length == 0:
            events.append(ResponseHeaders(stream, status, headers, True))
            self._finish()
            return pos
        events.append(ResponseHeaders(stream, status, headers, False))
        if len(data) - pos >= length:
            events.append(Data(stream, data[pos : pos + length], True, length))
            self._finish()
            return pos + length
        self._body.begin(LENGTH, length)
        self._input = _BODY
        return pos

    def _accepts_tunnel(self, status: int, flags: int, headers: Headers) -> bool:
        protocol = self._protocol
        if status == 101:
            if not protocol or not flags & fields.UPGRADE or fields.take_upgrade(headers) != protocol:
                raise RemoteProtocolError("http1.unexpected_upgrade", 502, "an upgrade that was not asked for")
        elif protocol or not 200 <= status < 300:
            headers.remove(b"upgrade")
            return False
        headers.remove(b"content-length")
        return True

    def _open_tunnel(self) -> None:
        self._tunnel_asked = False
        self._keep_alive = False
        self._request_done = False
        self._writer.begin(RAW, 0)
        self._body.begin(RAW, 0)
        self._input = _BODY
        self._out += self._early
        self._early = []
        if self._early_end:
            self._end_request()

    def _finish(self) -> None:
        """The response is complete."""
        self._input = _IDLE
        if self._keep_alive and self._request_done:
            self._stream = 0
        else:
            self._closed = True

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> None:
        self._closed = True
        events.append(ConnectionFailed(self._stream, error))

    def receive_eof(self) -> list[Event]:
        """See `Codec`."""
        if self._closed:
            return []
        self._closed = True
        if not self._stream:
            return [ConnectionEnded()]
        if self._body.mode == RAW:
            return [Data(self._stream, b"", True)]
        return [StreamReset(self._stream, ResetReason.CONNECTION_TERMINATION)]

    # Sending

    def open_stream(self) -> int | None:
        """The id for the next request, or None while one is in progress or when there can be no more."""
        if self._stream or not self._keep_alive or self._closed:
            return None
        self._streams = self._stream = stream = self._streams + 1
        self._request_done = False
        return stream

    def send(self, event: Event) -> None:
        """See `Codec`. Once `closed`, events are dropped: the stream above may not know yet."""
        if self._closed:
            return
        if isinstance(event, GoAway):
            self.shutdown()
            return
        if event.stream_id != self._stream or not self._stream:
            raise LocalProtocolError("http1.unknown_stream", 500, f"stream {event.stream_id} is not in progress")
        if isinstance(event, RequestHeaders) and self._input == _IDLE:
            self._send_head(event)
        elif isinstance(event, (Data, Trailers)) and self._input != _IDLE:
            self._send_body(event)
        elif isinstance(event, StreamReset):
            if self._input == _IDLE:
                self._stream = 0  # nothing was written for it yet
            else:
                self._closed = True
        else:
            raise LocalProtocolError("http1.wrong_state", 500, f"{type(event).__name__} does not fit here")

    def send_known(self, event: RequestHeaders) -> bytes | None:
        """Open a stream and send a request that is all head, and like one that was sent before: what to write. None: nothing has
        happened, and the request is for `open_stream` and `send`."""
        if self._stream or not self._keep_alive or self._closed or self._out or event.method == b"HEAD":
            return None
        known = known_head(event)
        if known is None:
            return None
        self._streams = self._stream = event.stream_id = self._streams + 1
        self._method = event.method
        self._protocol = b""
        self._tunnel_asked = self._tunnel_refused = False
        self._informational = 0
        self._input = _HEAD
        self._request_done = True
        return known

    def _send_body(self, event: Data | Trailers) -> None:
        if self._tunnel_asked:
            self._send_early(event)
        elif self._request_done:
            if not self._tunnel_refused:  # else it was meant for the tunnel
                raise LocalProtocolError("http1.wrong_state", 500, "the request is complete")
        elif isinstance(event, Data):
            self._writer.data(self._out, event.data, event.end_stream)
            if event.end_stream:
                self._end_request()
        else:
            self._writer.trailers(self._out, event.headers)
            self._end_request()

    def _end_request(self) -> None:
        self._request_done = True
        self._eof_wanted = self._writer.mode == RAW

    def _send_early(self, event: Data | Trailers) -> None:
        """The upstream may still refuse the tunnel: nothing may reach it that it could read as the next request."""
        if isinstance(event, Data) and event.data:
            if self._early_size + len(event.data) > MAX_EARLY_TUNNEL_BYTES:
                raise LocalProtocolError("http1.early_tunnel_data", 500, "too much for a tunnel that is not accepted yet")
            self._early.append(event.data)
            self._early_size += len(event.data)
        if isinstance(event, Trailers) or event.end_stream:
            self._early_end = True

    def _send_head(self, event: RequestHeaders) -> None:
        head, method, mode, length = request_head(event)
        self._out.append(head)
        self._method = method
        self._protocol = event.protocol
        self._tunnel_asked = mode == RAW
        self._tunnel_refused = False
        self._early_size = 0
        self._early_end = False
        self._informational = 0
        self._input = _HEAD
        self._request_done = event.end_stream
        self._writer.begin(mode, length)

    def data_to_send(self) -> list[bytes]:
        """See `Codec`."""
        out = self._out
        if out:
            self._out = []
        return out

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Nothing to do: TCP carries the credit."""

    def send_window(self, stream_id: int) -> int:
        """No limit but the transport's."""
        return UNLIMITED_WINDOW

    def shutdown(self) -> None:
        """No request after the one in progress; without one the connection can be closed at once."""
        self._keep_alive = False
        if not self._stream:
            self._closed = True

    def next_timer(self) -> float | None:
        """None: response time-outs are the shell's."""
        return None

    def handle_timer(self, now: float) -> list[Event]:
        """Nothing to do."""
        return []
