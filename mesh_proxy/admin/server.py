"""The admin HTTP server: the proxy's own HTTP/1.1 codec behind a socket, with narrow limits."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

from mesh_codecs.events import ConnectionEnded, ConnectionFailed, Data, Event, RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.dates import http_date
from mesh_proxy.stats.groups import HttpStats, ListenerHttpStats, ListenerStats
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo
from mesh_proxy.tasks import create_task

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
"""forms and nothing more"""
MAX_CONNECTIONS: Final = 64
"""probes, scrapers and a few people"""
REQUEST_TIMEOUT_S: Final = 5.0
"""from the first byte (or the connection) to the end of a request"""
IDLE_TIMEOUT_S: Final = 60.0
"""between requests"""
WRITE_TIMEOUT_S: Final = 30.0
"""how long a reader may refuse to take more"""
PIECE_BYTES: Final = 64 * 1024

_log = logging.getLogger("admin")

Answer = Callable[[AdminRequest], Awaitable[AdminResponse]]
AccessLog = Callable[[StreamInfo], None]
"""called when an answer is complete"""


class AdminStats:
    """`http.admin.*` and `listener.admin.*`."""

    def __init__(self) -> None:
        self.http = HttpStats("http.admin.")
        self.listener = ListenerStats("listener.admin.")
        self.listener_http = ListenerHttpStats("listener.admin.http.admin.")

    @property
    def groups(self) -> tuple[HttpStats, ListenerStats, ListenerHttpStats]:
        """What is published."""
        return self.http, self.listener, self.listener_http


class AdminServer:
    """Accepts on a bound socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Answer, *, access_log: AccessLog | None = None) -> None:
        self.stats = AdminStats()
        self.connections: set[AdminConnection] = set()
        self.loop = loop
        self.answer = answer
        self.access_log = access_log
        self.settings = Http1Settings(
            max_head_bytes=MAX_HEAD_BYTES, farewell_fields=lambda: b"server: envoy\r\n", accept_http_10=True
        )
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on the socket, which becomes the server's."""
        if sock.family == socket.AF_UNIX:
            # Since Python 3.13 a server removes its path, which may be the next process's by then.
            options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            self._server = await self.loop.create_unix_server(lambda: AdminConnection(self), sock=sock, **options)
        else:
            self._server = await self.loop.create_server(lambda: AdminConnection(self), sock=sock)

    def stop_accepting(self) -> None:
        """Give the socket up. Idle connections end, and the others with their answer."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.end()

    async def ended(self, timeout_s: float) -> None:
        """Wait for the connections that are open, so long at most."""
        deadline = self.loop.time() + timeout_s
        while self.connections and self.loop.time() < deadline:  # noqa: ASYNC110 - for this one moment an event is not worth it
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Stop and cut what is open."""
        self.stop_accepting()
        for connection in list(self.connections):
            connection.abort()


class AdminConnection(asyncio.Protocol):
    """One connection; one request at a time."""

    _transport: asyncio.Transport
    _connection: ConnectionInfo
    """for the access log, if there is one"""

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        self._codec = DownstreamHttp1(server.settings)
        self._timer: asyncio.TimerHandle | None = None
        self._head: RequestHeaders | None = None
        self._body = bytearray()
        self._pieces: Iterator[bytes] | None = None
        self._response = AdminResponse()
        self._response_head: ResponseHeaders | None = None
        self._sent = 0
        self._began = 0.0
        self._paused = False
        self._reading_request = True
        self._counted = False
        self._closed_by_us = False
        self._no_more = False
        """the peer has closed its sending side"""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        if len(server.connections) >= MAX_CONNECTIONS:
            server.stats.listener.downstream_cx_overflow += 1
            self._transport.abort()
            return
        self._counted = True
        server.connections.add(self)
        if server.access_log is not None:
            self._connection = _connection_info(transport)
        for stats in (server.stats.http, server.stats.listener):
            stats.downstream_cx_total += 1
            stats.downstream_cx_active += 1
        server.stats.http.downstream_cx_http1_total += 1
        server.stats.http.downstream_cx_http1_active += 1
        self._transport.set_write_buffer_limits(PIECE_BYTES, PIECE_BYTES // 4)
        self._arm(REQUEST_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        self._server.stats.http.downstream_cx_rx_bytes_total += len(data)
        if not self._reading_request:
            self._reading_request = True
            self._arm(REQUEST_TIMEOUT_S)
        self._feed(data)

    def eof_received(self) -> bool:
        self._no_more = True
        return self._head is not None  # an answer may still be under way; otherwise the transport closes itself

    def pause_writing(self) -> None:
        self._paused = True
        self._arm(WRITE_TIMEOUT_S)

    def resume_writing(self) -> None:
        self._paused = False
        self._disarm()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._pieces = None
        if self._counted:
            stats = self._server.stats
            self._server.connections.discard(self)
            for group in (stats.http, stats.listener):
                group.downstream_cx_active -= 1
                group.downstream_cx_destroy += 1
            if self._closed_by_us:
                stats.http.downstream_cx_destroy_local += 1
            else:
                stats.http.downstream_cx_destroy_remote += 1
            stats.http.downstream_cx_http1_active -= 1

    def end(self) -> None:
        """After the answer in progress, or the first one, or now if one was given before."""
        self._codec.shutdown()
        if not self._reading_request:
            self._closed_by_us = True
            self._transport.close()

    def abort(self) -> None:
        """Cut it."""
        self._closed_by_us = True
        self._transport.abort()

    # Requests

    def _feed(self, data: bytes) -> None:
        self._handle(self._codec.receive_data(data))

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestHeaders():
                    self._head = event
                    self._body.clear()
                    self._began = time.monotonic()
                    stats = self._server.stats.http
                    stats.downstream_rq_total += 1
                    stats.downstream_rq_http1_total += 1
                    stats.downstream_rq_active += 1
                    if event.end_stream:
                        self._dispatch(event)
                case Data() if self._head is not None:
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        self._codec.shutdown()
                        self._start_response(text("the body is too large\n", 413))
                    elif event.end_stream:
                        self._dispatch(self._head)
                case ConnectionFailed():
                    self._server.stats.http.downstream_cx_protocol_error += 1
                case StreamReset() | ConnectionEnded():
                    pass
                case _:
                    pass
        self._flush()

    def _dispatch(self, head: RequestHeaders) -> None:
        self._disarm()
        if not head.authority and head.http_version == b"HTTP/1.1":
            self._start_response(text("Host is missing\n", 400))
            return
        peer = self._transport.get_extra_info("peername")
        request = request_of(head, bytes(self._body), str(peer[0]) if isinstance(peer, tuple) else "")
        create_task(self._run(request), name=f"admin {request.path}")

    async def _run(self, request: AdminRequest) -> None:
        try:
            response = await self._server.answer(request)
        except Exception:
            _log.exception("admin request %s failed", request.path)
            response = text("internal error, see the log\n", 500)
        if not self._transport.is_closing():
            self._start_response(response)
        if response.then is not None:
            response.then()

    def _start_response(self, response: AdminResponse) -> None:
        head = self._head
        assert head is not None
        self._response = response
        pairs = [
            (b"content-type", response.content_type.encode()),
            (b"cache-control", b"no-cache, max-age=0"),
            (b"x-content-type-options", b"nosniff"),
            (b"date", http_date(int(time.time()))),
            (b"server", b"envoy"),
        ]
        body = response.body
        if isinstance(body, bytes):
            pairs.append((b"content-length", b"%d" % len(body)))
            body = iter((body,) if body else ())
        self._sent = 0
        self._pieces = body
        self._response_head = ResponseHeaders(head.stream_id, response.status, Headers(pairs), False)
        self._codec.send(self._response_head)
        self._pump()

    def _pump(self) -> None:
        """Send the next piece; the loop turns between two of them."""
        if self._pieces is None or self._head is None or self._paused:
            return
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
            self._codec.send(Data(self._head.stream_id, b"", True))
            self._finish()
            return
        if piece and self._head.method != b"HEAD":
            self._sent += len(piece)
            self._codec.send(Data(self._head.stream_id, piece, False))
        self._flush()
        self._server.loop.call_soon(self._pump)

    def _stream_info(self, head: RequestHeaders, took: float) -> StreamInfo:
        """What an access log may ask for."""
        info = StreamInfo(self._connection, self._began)
        info.request = head
        info.protocol = head.http_version
        info.response = self._response_head
        info.response_code = self._response.status
        info.bytes_received = len(self._body)
        info.bytes_sent = self._sent
        info.request_end_time = self._began
        info.end_time = self._began + took
        return info

    def _finish(self) -> None:
        head, self._head = self._head, None
        stats = self._server.stats
        stats.http.downstream_rq_active -= 1
        for group in (stats.http, stats.listener_http):
            group.downstream_rq_completed += 1
            group.codes[self._response.status] = group.codes.get(self._response.status, 0) + 1
        took = time.monotonic() - self._began
        stats.http.downstream_rq_time.record(took * 1000)
        if self._server.access_log is not None and head is not None:
            self._server.access_log(self._stream_info(head, took))
        self._reading_request = False
        self._arm(IDLE_TIMEOUT_S)
        self._flush()
        if self._no_more and not self._codec.pending_bytes:
            self._transport.close()
        elif self._codec.pending_bytes and not self._codec.closed:
            self._feed(b"")

    def _flush(self) -> None:
        chunks = self._codec.data_to_send()
        if chunks:
            data = b"".join(chunks)
            self._server.stats.http.downstream_cx_tx_bytes_total += len(data)
            self._transport.write(data)  # asyncio's own writelines forgot pause_writing in 3.12 and 3.13
        if self._codec.closed and self._pieces is None:
            self._closed_by_us = True
            self._transport.close()

    # Time

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._server.loop.call_later(seconds, self._on_timeout)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        stats = self._server.stats.http
        if self._paused or not self._reading_request:
            stats.downstream_cx_idle_timeout += 1
        else:
            stats.downstream_rq_header_timeout += 1
        self.abort()


def _connection_info(transport: asyncio.BaseTransport) -> ConnectionInfo:
    info = ConnectionInfo(0, time.monotonic(), time.time())
    info.local_address, info.local_ip, info.local_port = _address(transport.get_extra_info("sockname"))
    info.remote_address, info.remote_ip, info.remote_port = _address(transport.get_extra_info("peername"))
    info.direct_remote_address = info.remote_address
    return info


def _address(name: object) -> tuple[bytes, bytes, int]:
    """(printed address, IP, port); of a unix socket its path alone."""
    if isinstance(name, tuple):
        config = AddressConfig(host=str(name[0]), port=int(name[1]))
        return str(config).encode(), config.host.encode(), config.port
    return str(name or "").encode(), b"", 0


def request_of(head: RequestHeaders, body: bytes, peer: str = "") -> AdminRequest:
    """Path, query and form of a request."""
    path, _, query = head.path.decode("latin-1").partition("?")
    fields = dict(parse_qsl(query, keep_blank_values=True))
    content_type = head.headers.get(b"content-type") or b""
    if body and content_type.startswith(b"application/x-www-form-urlencoded"):
        fields |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    origin = head.headers.get(b"origin")
    return AdminRequest(
        method=head.method.decode("latin-1"),
        path=unquote(path),
        query=fields,
        host=head.authority.decode("latin-1"),
        origin=None if origin is None else origin.decode("latin-1"),
        peer=peer,
        body=body,
    )
