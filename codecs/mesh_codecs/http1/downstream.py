"""The side that calls us: requests in, responses out.

One request at a time (RFC 9112, 9.3.2). Its life, as `_input` tells it:

    HEAD ──head──▶ BODY ──last byte──▶ HOLD ──response sent──▶ HEAD …
      └─head without body─────────────▲ └──101, or 2xx to CONNECT──▶ BODY (raw, to the end of the connection)

In HOLD whatever arrives is kept unparsed: pipelined requests, or the first bytes of a tunnel. `pending_bytes` tells how much,
so that the shell can stop reading. A response that ends while the request is still in BODY ends the connection: nobody will
read the rest. The states are ints and not a table of transitions, as they are compared for every read.
"""

from __future__ import annotations

from typing import Final, final

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
from mesh_codecs.http1.grammar import LOW_VERSION, REQUEST_HEAD, HeadBuffer, check_count, parse_fields, parse_request_line
from mesh_codecs.http1.serialise import NOT_SENT, declared_length, reason, render_fields, status_line, without_hop_by_hop
from mesh_codecs.http1.settings import UNLIMITED_WINDOW, Http1Settings, UnderscoreAction

_HEAD: Final = 0
_BODY: Final = 1
_HOLD: Final = 2

_HEAD_END: Final = b"\r\n\r\n"

_STATE_VERSION: Final = 1
"""first octet of an exported state; another version is not understood and the connection is drained instead"""
_STATE_BYTES: Final = 10
"""version, drain flag, stream counter (8 octets, big-endian); the unparsed bytes follow"""


@final
class DownstreamHttp1:
    """The server side of one HTTP/1.1 connection. See `mesh_codecs.codec.Codec` for what the shell owes it."""

    __slots__ = (
        "_body",
        "_buffer",
        "_check_underscores",
        "_closed",
        "_draining",
        "_head_sent",
        "_held",
        "_input",
        "_keep_alive",
        "_later",
        "_max_count",
        "_max_head",
        "_method",
        "_minor",
        "_out",
        "_partial",
        "_pos",
        "_protocol",
        "_resumable",
        "_settings",
        "_stream",
        "_streams",
        "_writer",
    )

    def __init__(self, settings: Http1Settings) -> None:
        self._settings = settings
        self._max_head = settings.max_head_bytes
        self._max_count = settings.max_header_count
        self._check_underscores = settings.headers_with_underscores_action is not UnderscoreAction.ALLOW
        self._input = _HEAD
        self._buffer = HeadBuffer(REQUEST_HEAD, settings.max_head_bytes, settings.max_header_count)
        self._partial = False
        """`_buffer` holds an incomplete head"""
        self._held = b""
        self._pos = 0
        """`_held[_pos:]` is the unparsed rest of the read in which the request ended; it comes before `_later`"""
        self._later = bytearray()
        """what came in HOLD"""
        self._resumable = False
        """unparsed bytes wait for `receive_data(b"")`"""
        self._body = BodyReader(settings, settings.headers_with_underscores_action)
        self._writer = BodyWriter(settings.enable_trailers)
        self._out: list[bytes] = []
        self._streams = 0
        self._stream = 0
        """the stream in progress, or 0"""
        self._method = b""
        self._protocol = b""
        self._minor = 1
        self._keep_alive = True
        self._head_sent = False
        self._draining = False
        self._closed = False

    def __repr__(self) -> str:
        state = "CLOSED" if self._closed else ("HEAD", "BODY", "HOLD")[self._input]
        return f"<DownstreamHttp1 {state} stream={self._stream} pending={self.pending_bytes}>"

    @property
    def closed(self) -> bool:
        """The connection must be closed once the output is flushed."""
        return self._closed

    @property
    def pending_bytes(self) -> int:
        """Bytes that are kept unparsed until the response in progress is finished. The shell stops reading when they are many."""
        if self._input == _HOLD or self._resumable:
            return len(self._held) - self._pos + len(self._later)
        return 0

    @property
    def head_started(self) -> bool:
        """A request head has begun and is not complete: what a request-header time-out watches."""
        return self._input == _HEAD and len(self._buffer) > 0

    # Receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """See `Codec`. Call it with `b""` after a response was finished while `pending_bytes` was positive."""
        events: list[Event] = []
        if self._closed:
            return events
        try:
            if (
                self._input == _HEAD
                and data.endswith(_HEAD_END)
                and not (self._resumable or self._partial)
                and len(data) <= self._max_head
                and data[0] != 13
            ):
                # The commonest case: the read is one head and nothing else. If it is more, it has an empty line within, which
                # is no header field: then the end is searched for, once per read.
                try:
                    self._receive_head(data, 0, len(data) - 4, events)
                    return events
                except RemoteProtocolError:
                    if data.find(_HEAD_END) == len(data) - 4:
                        raise
            self._receive(data, events)
        except RemoteProtocolError as error:
            self._fail(error, events)
        return events

    def _receive(self, data: bytes, events: list[Event]) -> None:
        if self._input == _HOLD:
            self._later += data
            return
        pos = 0
        if self._resumable:
            self._resumable = False
            if self._later or data:
                data = b"".join((self._held[self._pos :], self._later, data))
                self._later = bytearray()
            else:
                data = self._held
                pos = self._pos
            self._held = b""
            self._pos = 0
        if self._input == _HEAD:
            end = data.find(_HEAD_END, pos)
            # A CR at the start is an empty line before the head.
            if end < 0 or end + 4 - pos > self._max_head or data[pos] == 13 or self._partial:
                whole = self._buffer.add(data[pos:])
                self._partial = whole is None
                if whole is None:
                    return
                data = whole
                pos = 0
                end = data.find(_HEAD_END)
            pos = self._receive_head(data, pos, end, events)
        if self._input == _BODY:
            left = self._body.feed(self._stream, data, pos, events)
            if self._body.mode != NO_BODY:
                return
            self._input = _HOLD
            pos = len(data) - left
        if pos < len(data):
            self._held = data
            self._pos = pos

    def _receive_head(self, data: bytes, pos: int, end: int, events: list[Event]) -> int:
        """One event, two if a short body follows at once; returns where the rest of `data` begins."""
        lines = data[pos:end].split(b"\r\n")
        method, target, minor = parse_request_line(lines.pop(0))
        if len(lines) > self._max_count:
            check_count(lines, self._max_count)
        pairs = parse_fields(lines)
        # From here on the grammar of all lines is known to be good.
        if not minor and not self._settings.accept_http_10:
            raise RemoteProtocolError(LOW_VERSION, 426, "HTTP/1.0")
        if self._check_underscores:
            pairs = fields.apply_underscore_action(pairs, self._settings.headers_with_underscores_action)
        headers = Headers(pairs)
        first = headers.first
        if headers.more is not None:
            fields.check_repeats(headers)
        flags = 0 if fields.HOP_BY_HOP.isdisjoint(first) else fields.take_hop_by_hop(headers)
        length = 0
        mode = NO_BODY
        if flags & fields.CHUNKED:
            if b"content-length" in first:
                raise RemoteProtocolError(fields.BOTH_LENGTHS, 400, "Content-Length and Transfer-Encoding")
            if not minor:
                raise RemoteProtocolError(fields.INVALID_TRANSFER_ENCODING, 400, "Transfer-Encoding in HTTP/1.0")
            mode = CHUNKS
        elif b"content-length" in first:
            length = fields.parse_content_length(first[b"content-length"])
            if length:
                mode = LENGTH
        scheme = protocol = b""
        host = first.pop(b"host", None)
        if host is None:
            authority = b"" if minor else self._settings.default_host_for_http_10
        else:
            if host not in fields.known_authorities:
                fields.check_authority(host)
            authority = host
        path = target
        if target[0] != 47 or method == b"CONNECT":
            scheme, authority, path = self._special_target(method, target, host, authority)
            if method == b"CONNECT":
                fields.check_connect_framing(headers, mode)
        end_stream = mode == NO_BODY
        if end_stream:
            if flags & fields.UPGRADE:
                protocol = fields.take_upgrade(headers) if minor else b""
            end_stream = not protocol and method != b"CONNECT"
        if flags & fields.UPGRADE:
            # With a body, or in HTTP/1.0, an upgrade is ignored (RFC 9110, 7.8 allows that always).
            headers.remove(b"upgrade")
        self._method = method
        self._protocol = protocol
        self._minor = minor
        self._keep_alive = not flags & fields.CLOSE and (minor == 1 or flags & fields.KEEP_ALIVE != 0)
        self._streams = self._stream = stream = self._streams + 1
        events.append(
            RequestHeaders(
                stream, method, scheme, authority, path, headers, end_stream, protocol, b"HTTP/1.1" if minor else b"HTTP/1.0"
            )
        )
        pos = end + 4
        if mode == NO_BODY:
            self._input = _HOLD
        elif mode == LENGTH and len(data) - pos >= length:
            events.append(Data(stream, data[pos : pos + length], True, length))
            self._input = _HOLD
            pos += length
        else:
            self._body.begin(mode, length)
            self._input = _BODY
        return pos

    def _special_target(self, method: bytes, target: bytes, host: bytes | None, authority: bytes) -> tuple[bytes, bytes, bytes]:
        """Scheme, authority and path where the target is no plain path."""
        if method == b"CONNECT":
            fields.check_connect_target(target)
            return b"", target, b""
        if target == b"*":
            if method != b"OPTIONS":
                raise RemoteProtocolError(fields.INVALID_URL, 400, "`*` is for OPTIONS only")
            return b"", authority, target
        if not self._settings.allow_absolute_url:
            fields.split_absolute(target, None)
            return b"", authority, target
        return fields.split_absolute(target, host)

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> None:
        """The connection ends with an answer of ours, if the request has none yet."""
        events.append(ConnectionFailed(self._stream, error))
        self.refuse(error.status, reason(error.status))

    def refuse(self, status: int, text: bytes) -> None:
        """Answer the request in progress, or the head that never became one, with a plain text and end the connection."""
        self._closed = True
        if self._head_sent:
            return
        server = self._settings.server_name
        self._out.append(
            b"%b\r\ncontent-length: %d\r\ncontent-type: text/plain\r\n%bconnection: close\r\n\r\n%b"
            % (
                status_line(status, 1),
                len(text),
                b"server: %b\r\n" % server if server else b"",
                b"" if self._stream and self._method == b"HEAD" else text,
            )
        )

    def receive_eof(self) -> list[Event]:
        """See `Codec`. A client that closes its sending side while it waits for a response is taken as gone, as Envoy does."""
        if self._closed:
            return []
        if not self._stream:
            self._closed = True
            return [ConnectionEnded()]
        if self._body.mode == RAW:
            # The other direction of a tunnel goes on.
            self._body.stop()
            self._input = _HOLD
            return [Data(self._stream, b"", True)]
        self._closed = True
        return [StreamReset(self._stream, ResetReason.CONNECTION_TERMINATION)]

    # Sending

    def send(self, event: Event) -> None:
        """See `Codec`. Once `closed`, events are dropped: the stream above may not know yet."""
        if self._closed:
            return
        if isinstance(event, GoAway):
            self.shutdown()
            return
        if event.stream_id != self._stream or not self._stream:
            raise LocalProtocolError("http1.unknown_stream", 500, f"stream {event.stream_id} is not in progress")
        if isinstance(event, Data) and self._head_sent:
            self._writer.data(self._out, event.data, event.end_stream)
            if event.end_stream:
                self._finish()
        elif isinstance(event, ResponseHeaders) and not self._head_sent:
            self._send_head(event)
        elif isinstance(event, Trailers) and self._head_sent:
            self._writer.trailers(self._out, event.headers)
            self._finish()
        elif isinstance(event, InformationalHeaders) and not self._head_sent:
            self._send_informational(event)
        elif isinstance(event, StreamReset):
            self._closed = True  # HTTP/1 has no other way to say it
        else:
            raise LocalProtocolError("http1.wrong_state", 500, f"{type(event).__name__} does not fit here")

    def _send_head(self, event: ResponseHeaders) -> None:
        status = event.status
        headers = event.headers
        keep = self._keep_alive and not self._draining
        if not NOT_SENT.isdisjoint(headers.first):
            headers, close = without_hop_by_hop(headers)
            keep = keep and not close
        extra = b""
        length = 0
        if status < 200 or self._protocol or self._method == b"CONNECT":
            if self._send_tunnel_head(status, headers, event.end_stream):
                return
            # Refused. What came early was meant for the tunnel and must not be read as a request.
            keep = keep and self._method != b"CONNECT" and not self.pending_bytes
        if self._method == b"HEAD" or status == 204 or status == 304:
            mode = NO_BODY
            if status == 204 and b"content-length" in headers.first:
                headers = headers.copy()
                headers.remove(b"content-length")
        else:
            length = declared_length(headers)
            if event.end_stream:
                mode = NO_BODY
                if length < 0:
                    extra = b"\r\ncontent-length: 0"
                elif length:
                    raise LocalProtocolError("http1.body_length", 500, "content-length of a response without a body")
            elif length >= 0:
                mode = LENGTH
            elif self._minor:
                mode = CHUNKS
                extra = b"\r\ntransfer-encoding: chunked"
            else:
                mode = RAW
                keep = False
        if event.end_stream and self._input == _BODY:
            keep = False
        if not keep:
            extra += b"\r\nconnection: close"
        elif not self._minor:
            extra += b"\r\nconnection: keep-alive"
        self._write_head(status, headers, extra)
        self._keep_alive = keep
        self._writer.begin(mode, length)
        if event.end_stream:
            self._finish()

    def _write_head(self, status: int, headers: Headers, extra: bytes) -> None:
        block = render_fields(headers)
        line = status_line(status, self._minor)
        self._out.append(b"%b\r\n%b%b\r\n\r\n" % (line, block, extra) if block else b"%b%b\r\n\r\n" % (line, extra))
        self._head_sent = True

    def _send_tunnel_head(self, status: int, headers: Headers, end_stream: bool) -> bool:
        """True if the response makes a tunnel of the connection: 101 to an upgrade, 2xx to CONNECT (RFC 9110, 9.3.6)."""
        if status == 101 and self._protocol:
            extra = b"\r\nconnection: Upgrade\r\nupgrade: " + self._protocol
        elif 200 <= status < 300 and self._method == b"CONNECT":
            extra = b""
        elif status < 200:
            raise LocalProtocolError("http1.invalid_status", 500, f"{status} ends no request here")
        else:
            return False
        if b"content-length" in headers.first:
            headers = headers.copy()
            headers.remove(b"content-length")
        self._write_head(status, headers, extra)
        self._writer.begin(RAW, 0)
        self._body.begin(RAW, 0)
        self._input = _BODY
        self._resumable = len(self._held) > self._pos or len(self._later) > 0
        if end_stream:
            self._finish()
        return True

    def _send_informational(self, event: InformationalHeaders) -> None:
        if not 100 <= event.status < 200 or event.status == 101:
            raise LocalProtocolError("http1.wrong_state", 500, f"{event.status} does not fit here")
        if not self._minor:
            return  # HTTP/1.0 does not know them (RFC 9110, 15.2)
        headers = event.headers
        if not NOT_SENT.isdisjoint(headers.first):
            headers = without_hop_by_hop(headers)[0]
        self._write_head(event.status, headers, b"")
        self._head_sent = False

    def _finish(self) -> None:
        """The response is complete: the next request may come, if the connection persists."""
        if not self._keep_alive or self._input == _BODY or self._writer.mode == RAW:
            self._closed = True
            return
        self._input = _HEAD
        self._stream = 0
        self._head_sent = False
        self._resumable = len(self._held) > self._pos or len(self._later) > 0

    def data_to_send(self) -> list[bytes]:
        """See `Codec`."""
        out = self._out
        if out:
            self._out = []
        return out

    def open_stream(self) -> int | None:
        """Never: it is the client who asks."""
        return None

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Nothing to do: TCP carries the credit."""

    def send_window(self, stream_id: int) -> int:
        """No limit but the transport's."""
        return UNLIMITED_WINDOW

    def shutdown(self) -> None:
        """The response in progress, or the next one, carries `connection: close`."""
        self._draining = True

    def next_timer(self) -> float | None:
        """None: idle and header time-outs are the shell's."""
        return None

    def handle_timer(self, now: float) -> list[Event]:
        """Nothing to do."""
        return []

    # Moving a connection to another process

    def export_state(self) -> bytes | None:
        """What another process needs to go on, or None unless the connection is between two messages.

        Output must have been taken and written first. The unparsed bytes are part of the state.
        """
        if self._closed or self._stream or self._out:
            return None
        rest = self._held[self._pos :] + self._later + self._buffer.peek()
        return bytes((_STATE_VERSION, int(self._draining))) + self._streams.to_bytes(8, "big") + rest

    @classmethod
    def import_state(cls, settings: Http1Settings, state: bytes) -> DownstreamHttp1:
        """The codec that goes on where the exporting one stopped. Call `receive_data(b"")` once if `pending_bytes` is positive.

        Raises:
            LocalProtocolError: the state is of a version that this one does not understand.
        """
        if len(state) < _STATE_BYTES or state[0] != _STATE_VERSION:
            raise LocalProtocolError("http1.unknown_state", 500, "exported state of another version")
        codec = cls(settings)
        codec._draining = state[1] != 0
        codec._streams = int.from_bytes(state[2:_STATE_BYTES], "big")
        codec._held = state[_STATE_BYTES:]
        codec._resumable = len(codec._held) > 0
        return codec
