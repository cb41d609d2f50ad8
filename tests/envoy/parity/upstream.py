"""The recording upstream: threads that read strictly what the proxy sends, keep it, and answer as told.

One `Upstream` belongs to one proxy. It has named endpoints, each a socket of its own; an HTTP endpoint answers
`hello from <name>` unless the case says otherwise (`Upstream.begin`), a TCP endpoint greets and echoes.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .patience import taken
from .wire import REQUEST_LINE, EarlyEnd, Fields, Head, Stream, WireError, content_length, is_chunked, read_head, values

IDLE_SECONDS = 30.0
"""An endpoint's connection that says nothing for so long is closed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How an HTTP endpoint answers one request."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """None: `hello from <endpoint>`."""
    framing: str = "length"
    """`length`, `chunked`, `close` (the end of the connection ends the body) or `none` (no framing header, no body)."""
    trailers: tuple[tuple[str, str], ...] = ()
    """Sent after a chunked body."""
    informational: tuple[tuple[int, tuple[tuple[str, str], ...]], ...] = ()
    """1xx heads sent before the answer."""
    early: bool = False
    """Answer at once after the head, before the request's body."""
    delay: float = 0.0
    """Seconds before the head."""
    held: bool = False
    """Not before `Upstream.release` is called."""
    body_delay: float = 0.0
    """Seconds between the head and the body."""
    ending: str = "keep"
    """`keep`; `close` after the answer; `close_before`/`reset_before` instead of it;
    `close_middle`/`reset_middle` after half the body."""
    raw: bytes | None = None
    """Exact bytes instead of all the above."""
    h2: str = ""
    """For HTTP/2 endpoints (`parity/http2.py`): what goes wrong, perhaps with a code: `reset 8`, `goaway`, `reset_after 0`, …"""
    expect_continue: bool = True
    """Whether `Expect: 100-continue` is answered with 100."""


@dataclass(slots=True)
class Received:
    """One request as an endpoint saw it."""

    endpoint: str
    method: str = ""
    target: str = ""
    version: str = ""
    headers: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    outcome: str = ""
    """`answered`, `aborted` (the proxy went away first), or what was wrong with the request."""
    connection: int = 0
    """Ordinal of the connection over the life of the upstream."""
    peer: str = ""
    """The proxy's own address of that connection."""
    done: threading.Event = field(default_factory=threading.Event, repr=False)


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def render_head(status: int, headers: Fields) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{n}: {v}" for n, v in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


REASONS = {
    100: "Continue",
    101: "Switching Protocols",
    103: "Early Hints",
    200: "OK",
    204: "No Content",
    503: "Service Unavailable",
}


class Upstream:
    """All endpoints of one proxy, and what they saw since `begin`."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.connections = 0
        self.received: list[Received] = []
        self.tcp: list[tuple[str, bytes]] = []
        """(endpoint, all bytes received) of each finished raw connection."""
        self._replies: list[Reply] = [Reply()]
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._raw_open = 0
        self._raw_done = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    # What the harness calls

    def begin(self, replies: tuple[Reply, ...] = ()) -> None:
        """Forget what was seen; answer the coming requests with `replies` in turn, the last one from then on."""
        with self._lock:
            self.received = []
            self.tcp = []
            self.released.clear()
            self._replies = list(replies) or [Reply()]

    def finish(self, timeout: float = 10.0) -> list[Received]:
        """What was seen since `begin`, when every request has been read and answered (or `timeout` s have passed)."""
        with self._lock:
            seen = list(self.received)
        for one in seen:
            one.done.wait(timeout)
        with self._raw_done:
            self._raw_done.wait_for(lambda: not self._raw_open, timeout)
        return seen

    def release(self) -> None:
        """Let the replies go that are held until now."""
        self.released.set()

    def reached(self, count: int, timeout: float = 20.0) -> None:
        """Wait until so many requests have come since `begin`."""
        deadline = time.monotonic() + timeout
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.005)

    def http(self, name: str, family: int = socket.AF_INET, path: Path | None = None) -> None:
        self._listen(name, self._serve_http, family, path)

    def http2(self, name: str) -> None:
        from . import http2

        self._listen(name, lambda *args: http2.serve(self, *args), socket.AF_INET, None)

    def raw(self, name: str) -> None:
        self._listen(name, self._serve_raw, socket.AF_INET, None)

    def listen(self, name: str, serve: Callable[[str, socket.socket, int], None]) -> None:
        """An endpoint of any other protocol: `serve(name, socket, ordinal)` for each connection."""
        self._listen(name, serve, socket.AF_INET, None)

    def stop(self) -> None:
        self._stopping = True
        with self._lock:
            open_sockets = list(self._sockets)
        for sock in open_sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was not connected any more
        for thread in self._threads:
            thread.join(5)
        for sock in open_sockets:
            sock.close()

    # Accepting

    def _listen(self, name: str, serve: Callable[[str, socket.socket, int], None], family: int, path: Path | None) -> None:
        sock = socket.socket(socket.AF_UNIX if path else family)
        if path:
            sock.bind(str(path))
        else:
            sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
            self.ports[name] = sock.getsockname()[1]
        sock.listen(256)
        self._sockets.add(sock)
        self._start(f"accept-{name}", lambda: self._accept(name, sock, serve))

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, name: str, listener: socket.socket, serve: Callable[[str, socket.socket, int], None]) -> None:
        while not self._stopping:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                ordinal = self.connections
                self._sockets.add(sock)
            self._start(f"{name}-{ordinal}", lambda s=sock, o=ordinal: self._run(name, s, o, serve))  # type: ignore[misc]

    def _run(self, name: str, sock: socket.socket, ordinal: int, serve: Callable[[str, socket.socket, int], None]) -> None:
        try:
            serve(name, sock, ordinal)
        except (OSError, WireError):
            pass  # the proxy went away, or was told off in the record already
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    # Serving

    def _serve_raw(self, name: str, sock: socket.socket, ordinal: int) -> None:
        stream = Stream(sock, IDLE_SECONDS)
        with self._raw_done:
            self._raw_open += 1
        try:
            sock.sendall(f"{name}:".encode())
            while data := stream.some():
                sock.sendall(data)
            if stream.ended == "closed":
                sock.sendall(b":bye")
        finally:
            self.tcp.append((name, bytes(stream.raw)))
            with self._raw_done:
                self._raw_open -= 1
                self._raw_done.notify_all()

    def _serve_http(self, name: str, sock: socket.socket, ordinal: int) -> None:
        stream = Stream(sock, IDLE_SECONDS)
        peer = sock.getpeername()
        while True:
            try:
                head = read_head(stream, REQUEST_LINE)
            except EarlyEnd:
                return
            except WireError as error:
                if stream.raw:
                    self.record(Received(name, outcome=str(error)))[0].done.set()
                return
            one = Received(
                name,
                head.first[1].decode(),
                head.first[2].decode(),
                head.first[3].decode(),
                head.fields,
                connection=ordinal,
                peer=f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "",
            )
            _, reply = self.record(one)
            try:
                if not self._answer(sock, stream, head, one, reply):
                    return
            finally:
                one.done.set()

    def record(self, one: Received) -> tuple[Received, Reply]:
        """Keep a request and say how to answer it."""
        with self._lock:
            reply = self._replies[min(len(self.received), len(self._replies) - 1)]
            self.received.append(one)
        return one, reply

    def _read_body(self, sock: socket.socket, stream: Stream, head: Head, one: Received, reply: Reply) -> bool:
        try:
            if reply.expect_continue and values(head.fields, "expect") == ["100-continue"]:
                sock.sendall(render_head(100, []))
            if is_chunked(head.fields):
                one.body, one.trailers = stream.chunked()
            elif length := content_length(head.fields):
                one.body = stream.exactly(length)
        except WireError as error:
            one.outcome = str(error)
            return False
        return True

    def _answer(self, sock: socket.socket, stream: Stream, head: Head, one: Received, reply: Reply) -> bool:
        """Read the body and answer; False when the connection is finished."""
        if not reply.early and not self._read_body(sock, stream, head, one, reply):
            return False
        for status, fields in reply.informational:
            sock.sendall(render_head(status, list(fields)))
        if reply.delay and stream.wait_end(reply.delay) != "open":
            one.outcome = "aborted"
            return False
        if reply.held:
            self.released.wait(IDLE_SECONDS)
        one.outcome = "answered"
        if reply.ending == "reset_before":
            reset(sock)
            return False
        if reply.ending == "close_before":
            return False
        if reply.raw is not None:
            sock.sendall(reply.raw)
            return reply.ending == "keep"
        upgrade = values(head.fields, "upgrade")
        if reply.status == 101 or (one.method == "CONNECT" and reply.status == 200):
            self._tunnel(sock, stream, one, reply, upgrade)
            return False
        body = f"hello from {one.endpoint}".encode() if reply.body is None else reply.body
        headers = list(reply.headers)
        if reply.framing == "length":
            headers.append(("content-length", str(len(body))))
        elif reply.framing == "chunked":
            headers.append(("transfer-encoding", "chunked"))
        if one.method == "HEAD" or reply.framing == "none":
            body = b""
        payload = body
        if reply.framing == "chunked" and one.method != "HEAD":
            trailer_lines = "".join(f"{n}: {v}\r\n" for n, v in reply.trailers).encode("latin-1")
            payload = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n" + trailer_lines + b"\r\n"
        if reply.ending in ("close_middle", "reset_middle"):
            sock.sendall(render_head(reply.status, headers) + payload[: len(payload) // 2])
            if reply.body_delay:
                stream.wait_end(reply.body_delay)
            if reply.ending == "reset_middle":
                taken(sock)  # a reset drops what the proxy has not read
                reset(sock)
            return False
        if reply.body_delay:
            sock.sendall(render_head(reply.status, headers))
            if stream.wait_end(reply.body_delay) != "open":
                one.outcome = "aborted"
                return False
            sock.sendall(payload)
        else:
            sock.sendall(render_head(reply.status, headers) + payload)
        if reply.early and not self._read_body(sock, stream, head, one, reply):
            return False
        return reply.ending == "keep" and reply.framing != "close"

    def _tunnel(self, sock: socket.socket, stream: Stream, one: Received, reply: Reply, upgrade: list[str]) -> None:
        """Switch protocols and echo bytes until the proxy ends its side."""
        headers = list(reply.headers)
        if reply.status == 101:
            headers += [("connection", "upgrade"), ("upgrade", upgrade[0] if upgrade else "none")]
        sock.sendall(render_head(reply.status, headers))
        tunnelled = bytearray()
        while data := stream.some():
            tunnelled += data
            sock.sendall(data)
        one.body = bytes(tunnelled)
