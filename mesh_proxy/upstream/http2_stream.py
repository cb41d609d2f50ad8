"""One request on an HTTP/2 connection: what the router holds in its hand.

Bodies go out within the windows that the endpoint grants; what does not fit waits here, and the router hears of it when that is
too much. Credit for the response's body goes back to the endpoint piece by piece as the router takes it; while the router has
paused, it is withheld, so that an endpoint can send at most one stream window ahead of the caller.

A request that the endpoint has certainly not looked at, because its GOAWAY names an earlier stream as the last one, moves to
another connection without the router's knowledge (RFC 9113, 6.8). For that the head and a body of up to REPLAY_LIMIT bytes are
kept until the response begins.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2.taker import Taker
from mesh_proxy.network.transport import WATERMARK_HIGH, WATERMARK_LOW

if TYPE_CHECKING:
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.http2_connection import Http2UpstreamConnection

REPLAY_LIMIT: Final = 65_536
"""bytes of request body kept for a move to another connection; a longer request fails as refused"""
WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""see RFC 6455, 1.3"""
MOST_MOVES: Final = 3
"""connections that may leave a request behind before it fails as refused"""


class Http2UpstreamStream(Taker):
    """`UpstreamHandle` of one request."""

    __slots__ = (
        "__dict__",
        "_pauses",
        "_queue",
        "_request",
        "_sent",
        "_sent_size",
        "callbacks",
        "connection",
        "request_ended",
        "response_begun",
        "stream_id",
        "withheld",
    )

    protocol: bytes = b"HTTP/2"

    # What few requests need is an attribute of the class until somebody sets it.
    _held: bool = False
    """the head waits for the endpoint's SETTINGS"""
    _queued: int = 0
    """bytes in the queue"""
    _offset: int = 0
    """bytes of its first piece that are sent"""
    _trailers: Any = None
    """what follows the queue: trailers (Headers), the bare end (True), or more data (None)"""
    _blocked: bool = False
    """the router was told to wait"""
    _moves: int = 0

    def __init__(self, connection: Http2UpstreamConnection, stream_id: int, callbacks: UpstreamCallbacks) -> None:
        self.connection: Http2UpstreamConnection = connection
        self.stream_id = stream_id
        """on its connection; 0 while it waits for another one"""
        self.callbacks: UpstreamCallbacks | None = callbacks
        """the router, until either side has ended the request"""
        self.request_ended = False
        """the codec has the whole request"""
        self.response_begun = False
        self._request: RequestHeaders | None = None
        self._pauses = 0
        self.withheld = 0
        """bytes of the response that the router got while it had paused: their credit is still to be returned"""
        self._queue: deque[bytes] | None = None
        """body that waits for the window; its last piece is followed by `_trailers` or the end, if `_queued_end`"""
        self._sent: list[bytes] | None = None
        """the body so far, for a move; None: nothing so far, or too much"""
        self._sent_size = 0

    @property
    def endpoint(self) -> Endpoint:
        """Where the request goes."""
        return self.connection.endpoint

    @property
    def local_address(self) -> bytes:
        """Our end of the connection, as logs print it."""
        return self.connection.local_address

    # -- the request

    def send_request(self, request: RequestHeaders) -> None:
        """Send the head."""
        connection = self.connection
        request.stream_id = self.stream_id
        self._request = request
        if request.protocol and not connection.settled:
            # Whether the endpoint knows extended CONNECT is in its SETTINGS (RFC 8441, 3).
            self._held = True
            if self._queue is None:
                self._queue = deque()
            connection.await_settings(self)
            return
        connection.codec.send_request(request)
        self.request_ended = request.end_stream
        if not connection.dirty:
            connection.touch()

    def settings_arrived(self) -> None:
        """Send the head that waited for the endpoint's SETTINGS, and what came after it."""
        request = self._request
        if self.callbacks is None or request is None:
            return
        self._held = False
        try:
            self.connection.codec.send_request(request)
        except LocalProtocolError as error:
            self.connection.give_up(self, ResetReason.PROTOCOL_ERROR, error.code)
            return
        self.connection.touch()
        self.pump()

    def send_data(self, data: bytes, end_stream: bool) -> None:
        """Send a piece of the body, as far as the window allows."""
        size = len(data)
        if not self.response_begun:
            self._remember(data, size)
        connection = self.connection
        if self._queue is None and not connection.write_blocked:
            try:
                connection.codec.send_data(self.stream_id, data, end_stream)
            except LocalProtocolError as error:
                if error.code != "http2.beyond_send_window":
                    raise
            else:
                self.request_ended = end_stream
                if not connection.dirty:
                    connection.touch()
                return
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        if data:
            queue.append(data)
            self._queued += size
        if end_stream:
            self._trailers = True
        self.pump()
        if self._queued > WATERMARK_HIGH and not self._blocked and self.callbacks is not None:
            self._blocked = True
            connection.stats.upstream_flow_control_backed_up_total += 1
            self.callbacks.on_upstream_writable(False)

    def _remember(self, data: bytes, size: int) -> None:
        """Keep a piece of the body for a move, unless it is too much."""
        self._sent_size = size = self._sent_size + size
        if size > REPLAY_LIMIT:
            self._sent = None
        elif self._sent is None:
            self._sent = [data]
        else:
            self._sent.append(data)

    def send_trailers(self, headers: Headers) -> None:
        """Send trailers and end the request."""
        self._trailers = headers
        if self._queue is None:
            self.connection.codec.send_trailers(self.stream_id, headers)
            self.request_ended = True
            self.connection.touch()

    def pump(self) -> None:
        """Send of the queue what the windows and the transport take now."""
        queue = self._queue
        connection = self.connection
        if queue is None or self._held or connection.write_blocked or not self.stream_id:
            return
        codec = connection.codec
        stream_id = self.stream_id
        offset = self._offset
        while queue:
            window = codec.send_window(stream_id)
            if not window:
                break
            piece = queue[0]
            left = len(piece) - offset
            if left > window:
                codec.send_data(stream_id, piece[offset : offset + window], False)
                offset += window
                self._queued -= window
                continue
            queue.popleft()
            self._queued -= left
            end = self._trailers is True and not queue
            codec.send_data(stream_id, piece[offset:] if offset else piece, end)
            offset = 0
            if end:
                self.request_ended = True
        self._offset = offset
        if not queue and not self.request_ended and self._trailers is not None:
            if self._trailers is True:
                codec.send_data(stream_id, b"", True)
            else:
                assert isinstance(self._trailers, Headers)
                codec.send_trailers(stream_id, self._trailers)
            self.request_ended = True
        if not queue:
            self._queue = None
        connection.touch()
        if self._blocked and self._queued <= WATERMARK_LOW:
            self._blocked = False
            connection.stats.upstream_flow_control_drained_total += 1
            if self.callbacks is not None:
                self.callbacks.on_upstream_writable(True)

    @property
    def waits(self) -> bool:
        """There is body that a window or the transport holds back."""
        return self._queue is not None

    def reset(self) -> None:
        """Give the request up. No callback follows."""
        if self.callbacks is not None:
            self.connection.abandon(self)
            self.callbacks = None

    # -- the response

    def begin_response(self, event: ResponseHeaders) -> None:
        """The endpoint answers: it has processed the request, which must not go anywhere else now."""
        self.response_begun = True
        if event.status == 101 and self._request is not None:
            _complete_handshake(self._request, event)
        self._request = None
        self._sent = None

    def delivered(self, size: int) -> None:
        """The router got so many bytes (`Data.flow_size`): return the credit, unless it has paused."""
        if self._pauses:
            self.withheld += size
        else:
            self.connection.codec.acknowledge(self.stream_id, size)

    def return_credit(self) -> None:
        """Return what was withheld."""
        self.connection.codec.acknowledge(self.stream_id, self.withheld)
        self.withheld = 0

    def pause_reading(self) -> None:
        """Counted: several blockers may hold the stream. The connection is read on for the others."""
        self._pauses += 1
        if self._pauses == 1:
            self.connection.stats.upstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._pauses -= 1
        if self._pauses == 0:
            self.connection.stats.upstream_flow_control_resumed_reading_total += 1
            if self.withheld:
                self.return_credit()
                self.connection.touch()

    # -- moving to another connection

    @property
    def can_move(self) -> bool:
        """The whole request so far is still here."""
        return self._request is not None and self._sent_size <= REPLAY_LIMIT and self._moves < MOST_MOVES

    def left_behind(self) -> None:
        """Its connection will not carry it: it waits for another one."""
        self._moves += 1
        self.stream_id = 0
        queue: deque[bytes] = deque(self._sent or ())
        self._queued = sum(map(len, queue))
        self._offset = 0
        if self.request_ended and self._trailers is None:
            self._trailers = True
        self._queue = queue
        self.request_ended = False

    def move(self, connection: Http2UpstreamConnection, stream_id: int) -> None:
        """Begin anew on another connection."""
        self.connection = connection
        self.stream_id = stream_id
        request = self._request
        assert request is not None
        if request.end_stream:
            self._queue = self._trailers = None
        self.send_request(request)
        self.pump()

    def __repr__(self) -> str:
        return f"<Http2UpstreamStream {self.stream_id} of {self.connection!r} queued={self._queued} pauses={self._pauses}>"


def _complete_handshake(request: RequestHeaders, response: ResponseHeaders) -> None:
    """Answer the key of a websocket caller over HTTP/1: extended CONNECT has no such answer (RFC 8441, 5), and a caller that
    gets none does not believe in the websocket (RFC 6455, 4.1)."""
    key = request.headers.first.get(b"sec-websocket-key")
    if key is not None and b"sec-websocket-accept" not in response.headers.first:
        proof = sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest()
        response.headers.set(b"sec-websocket-accept", b64encode(proof))
