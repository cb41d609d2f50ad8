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
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.http1.body import BodyReader, BodyWriter
from mesh_codecs.http1.fields import LENGTH, NO_BODY, RAW
from mesh_codecs.http1.grammar import REQUEST_HEAD, HeadBuffer
from mesh_codecs.http1.head_table import UNKNOWN
from mesh_codecs.http1.heads import farewell, informational_head, response_head, tunnel_head
from mesh_codecs.http1.requests import KnownRequest, known_request, read_request_head
from mesh_codecs.http1.serialise import reason
from mesh_codecs.http1.settings import UNLIMITED_WINDOW, Http1Settings

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
        "_closed",
        "_draining",
        "_head_sent",
        "_held",
        "_input",
        "_keep_alive",
        "_later",
        "_max_head",
        "_method",
        "_minor",
        "_out",
        "_partial",
        "_plain",
        "_pos",
        "_protocol",
        "_resumable",
        "_settings",
        "_stream",
        "_streams",
        "_unknown",
        "_writer",
        "head_bytes",
        "head_bytes_sent",
    )

    def __init__(self, settings: Http1Settings) -> None:
        self._settings = settings
        self._max_head = settings.max_head_bytes
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
        self._unknown = 0
        """heads in a row that did not come before"""
        self._plain = False
        """the request in progress came by `receive_known`, is no HEAD, and the connection persists after it"""
        self._method = b""
        self._protocol = b""
        self._minor = 1
        self._keep_alive = True
        self._head_sent = False
        self._draining = False
        self._closed = False
        self.head_bytes = 0
        """length of the latest request head, as it came"""
        self.head_bytes_sent = 0
        """length of the latest response head"""

    def __repr__(self) -> str:
        state = "CLOSED" if self._closed else ("HEAD", "BODY", "HOLD")[self._input]
        return f"<DownstreamHttp1 {state} stream={self._stream} pending={self.pending_bytes}>"

    @property
    def stream(self) -> int:
        """Id of the request in progress, or 0."""
        return self._stream

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

    def receive_known(self, data: bytes) -> KnownRequest | None:
        """The shortest way for the commonest read: one request that is all head, and a head that came before. Then the request is
        complete and `stream` its id. None: nothing has happened, and the read is for `receive_data`."""
        if (
            self._input != _HEAD
            or self._unknown > UNKNOWN
            or not data.endswith(_HEAD_END)
            or self._resumable
            or self._partial
            or self._closed
            or len(data) > self._max_head
        ):
            return None
        known = known_request(data[:-4], self._settings)
        if known is None:
            self._unknown += 1
            return None
        self._unknown = 0
        self._streams = self._stream = self._streams + 1
        self._method = known.method
        self._protocol = b""
        self._minor = 1
        self._keep_alive = known.keep
        self._plain = known.keep and known.method != b"HEAD"
        self.head_bytes = len(data)
        self._input = _HOLD
        return known

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
        stream = self._streams + 1
        head, mode, length, keep = read_request_head(stream, data[pos:end], self._settings)
        events.append(head)
        self._streams = self._stream = stream
        self._plain = False
        self._method = head.method
        self._protocol = head.protocol
        if head.known is not None:
            self._unknown = 0
        self._minor = 0 if head.http_version == b"HTTP/1.0" else 1
        self._keep_alive = keep
        self.head_bytes = end + 4 - pos
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

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> None:
        events.append(ConnectionFailed(self._stream, error))
        self.refuse(error.status, reason(error.status))

    def refuse(self, status: int, text: bytes) -> None:
        """Answer the request in progress, or the head that never became one, with a plain text, and end the connection.

        If a response is under way, the connection just ends.
        """
        self._closed = True
        if not self._head_sent:
            with_body = not self._stream or self._method != b"HEAD"
            self._out.append(farewell(status, text, self._settings.farewell_fields(), with_body))

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

    def send_whole(self) -> bool:
        """A whole response is about to be written, made by `plain_response_head`: the request in progress ends with it. False:
        nothing has happened, it has to go by `send`."""
        if not self._plain or self._input != _HOLD or self._draining or self._head_sent or self._closed or self._out:
            return False
        self._plain = False
        self._input = _HEAD
        self._stream = 0
        self._resumable = len(self._held) > self._pos or len(self._later) > 0
        return True

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
        keep = self._keep_alive and not self._draining
        if self._protocol or self._method == b"CONNECT":
            if event.status == 101 if self._protocol else 200 <= event.status < 300:
                self._open_tunnel(event)
                return
            # Refused. What came early was meant for the tunnel and must not be read as a request.
            keep = keep and self._method != b"CONNECT" and not self.pending_bytes
        head, mode, length, keep = response_head(event, self._method, self._minor, keep, self._input == _BODY)
        self._out.append(head)
        self.head_bytes_sent = len(head)
        self._head_sent = True
        self._keep_alive = keep
        self._writer.begin(mode, length)
        if event.end_stream:
            self._finish()

    def _open_tunnel(self, event: ResponseHeaders) -> None:
        self._out.append(tunnel_head(event, self._protocol, self._minor))
        self._head_sent = True
        self._writer.begin(RAW, 0)
        self._body.begin(RAW, 0)
        self._input = _BODY
        self._resumable = len(self._held) > self._pos or len(self._later) > 0
        if event.end_stream:
            self._finish()

    def _send_informational(self, event: InformationalHeaders) -> None:
        head = informational_head(event)
        if self._minor:  # HTTP/1.0 does not know them (RFC 9110, 15.2)
            self._out.append(head)

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
