"""An HTTP/2 upstream whose every frame a test decides, on the `h2` library and a blocking socket.

`h2` is strict: a proxy that breaks a rule (too many streams, a window overdrawn, a malformed head) ends the connection with
`ProtocolError`, which the peer keeps as `fault`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e_support.peers import Peer
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

Pairs = list[tuple[bytes, bytes]]
MAX_STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
WINDOW = SettingCodes.INITIAL_WINDOW_SIZE
CONNECT = SettingCodes.ENABLE_CONNECT_PROTOCOL


@dataclass(slots=True)
class Request:
    """One request as it arrives."""

    stream_id: int
    headers: Pairs
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    """the code of the RST_STREAM that the proxy sent"""
    unread: int = 0
    """bytes whose credit was withheld"""

    def get(self, name: bytes) -> bytes:
        """The first value of a field, empty if there is none."""
        return next((v for n, v in self.headers if n == name), b"")

    @property
    def path(self) -> bytes:
        return self.get(b":path")


class PeerConnection:
    """One connection; the calls block until what they wait for has come."""

    def __init__(self, sock: socket.socket, settings: dict[SettingCodes, int] | None = None, *, credit: bool = True) -> None:
        self.sock = sock
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        settings = dict(settings or {})
        window = settings.pop(WINDOW, None)
        self.h2.local_settings = Settings(client=False, initial_values={MAX_STREAMS: 100, **settings})
        self.credit = credit
        """bodies are acknowledged as they come"""
        self.requests: dict[int, Request] = {}
        self.fresh: deque[Request] = deque()
        """heads that `head` has not returned yet"""
        self.goaway: int | None = None
        """the code of the proxy's GOAWAY"""
        self.settled = False
        """the proxy acknowledged our SETTINGS"""
        self.pings = 0
        """answers to our PINGs"""
        self.closed = False
        self.fault = ""
        """the rule that the proxy broke"""
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({WINDOW: window})  # h2 holds a first SETTINGS against a proxy that cannot know it yet
        self.flush()

    # -- reading

    def step(self) -> bool:
        """Read once and note what came; False at the end of the connection."""
        if self.closed:
            return False
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        return self.take(data)

    def take(self, data: bytes) -> bool:
        """Note what some bytes mean; False when the proxy broke a rule."""
        try:
            events = self.h2.receive_data(data)
        except ProtocolError as error:
            self.fault = str(error)
            self.flush()
            self.closed = True
            return False
        for event in events:
            self._note(event)
        self.flush()
        return True

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id is not None
            request = self.requests[event.stream_id] = Request(event.stream_id, list(event.headers or ()))
            self.fresh.append(request)
        elif isinstance(event, DataReceived):
            request = self.requests[event.stream_id]
            request.body += event.data or b""
            size = event.flow_controlled_length or 0
            if self.credit and size:
                self.h2.acknowledge_received_data(size, event.stream_id)
            else:
                request.unread += size
        elif isinstance(event, TrailersReceived):
            self.requests[event.stream_id].trailers = list(event.headers or ())
        elif isinstance(event, StreamEnded):
            self.requests[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            if event.stream_id in self.requests:
                self.requests[event.stream_id].reset = int(event.error_code or 0)
        elif isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
        elif isinstance(event, SettingsAcknowledged):
            self.settled = True
        elif isinstance(event, PingAckReceived):
            self.pings += 1
        elif isinstance(event, WindowUpdated):
            pass

    def wait(self, ready: Callable[[], object]) -> bool:
        """Read until something is so; False when the connection ended before."""
        while not ready():
            if not self.step():
                return bool(ready())
        return True

    def head(self) -> Request | None:
        """The next request as soon as its head is here; None at the end."""
        self.wait(lambda: self.fresh)
        return self.fresh.popleft() if self.fresh else None

    def request(self) -> Request | None:
        """The next request when it is complete; None at the end."""
        request = self.head()
        if request is not None:
            self.wait(lambda: request.ended or request.reset is not None)
        return request

    # -- writing

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            try:
                self.sock.sendall(data)
            except OSError:
                self.closed = True

    def headers(self, request: Request, status: int = 200, fields: Pairs | None = None, *, end: bool = False) -> None:
        self.h2.send_headers(request.stream_id, [(b":status", b"%d" % status), *(fields or [])], end_stream=end)
        self.flush()

    def data(self, request: Request, data: bytes, *, end: bool = False) -> bool:
        """Send a body, waiting for windows; False when the request ended meanwhile."""
        while data:
            stream_id = request.stream_id

            def ready(stream_id: int = stream_id) -> object:
                return request.reset is not None or self.h2.local_flow_control_window(stream_id) > 0

            if not self.wait(ready) or request.reset is not None:
                return False
            size = min(len(data), self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            piece, data = data[:size], data[size:]
            self.h2.send_data(stream_id, piece, end_stream=end and not data)
            self.flush()
            if end and not data:
                return True
        if end:
            self.h2.send_data(request.stream_id, b"", end_stream=True)
            self.flush()
        return True

    def trailers(self, request: Request, fields: Pairs) -> None:
        self.h2.send_headers(request.stream_id, fields, end_stream=True)
        self.flush()

    def answer(self, request: Request, body: bytes = b"ok", status: int = 200, fields: Pairs | None = None) -> None:
        """A whole response."""
        head = [(b"content-length", b"%d" % len(body)), *(fields or [])]
        self.headers(request, status, head, end=not body)
        if body:
            self.data(request, body, end=True)

    def reset(self, request: Request, code: int = ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(request.stream_id, code)
        self.flush()

    def refuse(self, request: Request) -> None:
        self.reset(request, ErrorCodes.REFUSED_STREAM)

    def go_away(self, last_stream_id: int, code: int = ErrorCodes.NO_ERROR) -> None:
        """GOAWAY as bytes: `h2` itself would take nothing more on the connection."""
        payload = last_stream_id.to_bytes(4, "big") + int(code).to_bytes(4, "big")
        self.sock.sendall(len(payload).to_bytes(3, "big") + b"\x07\x00\x00\x00\x00\x00" + payload)

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def update_settings(self, values: dict[SettingCodes, int]) -> None:
        self.h2.update_settings(values)
        self.flush()

    def grant(self, request: Request) -> None:
        """Give back all credit that was withheld for a request."""
        if request.unread:
            self.h2.acknowledge_received_data(request.unread, request.stream_id)
            request.unread = 0
            self.flush()

    def drain(self) -> None:
        """Read until the proxy closes."""
        while self.step():
            pass


Serve = Callable[[PeerConnection], None]


class Http2Peer(Peer):
    """An upstream on a free port; `serve` is called for each connection in a thread of its own."""

    def __init__(
        self, serve: Serve, settings: dict[SettingCodes, int] | None = None, *, credit: bool = True, receive_buffer: int = 0
    ) -> None:
        self.faults: list[str] = []
        self.connections: list[PeerConnection] = []

        def run(sock: socket.socket) -> None:
            connection = PeerConnection(sock, settings, credit=credit)
            self.connections.append(connection)
            try:
                serve(connection)
            finally:
                if connection.fault:
                    self.faults.append(connection.fault)

        super().__init__(run, receive_buffer=receive_buffer)


def answering(body: bytes = b"ok") -> Serve:
    """Answer every request when it is complete."""

    def serve(connection: PeerConnection) -> None:
        while (request := connection.request()) is not None:
            if request.reset is None:
                connection.answer(request, body)

    return serve
