"""Both ends of the proxy by hand: blocking sockets without delay, and upstreams made of one function."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from parity.wire import Response, Stream, read_response

TIMEOUT_S = 30.0
Serve = Callable[[socket.socket], None]


def connect(port: int, timeout: float = TIMEOUT_S, receive_buffer: int = 0) -> socket.socket:
    """A connection to the proxy on which every send is a segment of its own."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def abort(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive_until(sock: socket.socket, mark: bytes, limit: int = 1 << 20) -> bytes:
    """Bytes up to and with `mark`; what there is if the peer ends before."""
    data = b""
    while mark not in data and len(data) < limit:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


def head_of(sock: socket.socket) -> bytes:
    return receive_until(sock, b"\r\n\r\n")


def drain(sock: socket.socket) -> bytes:
    """Everything up to the end, however it ends."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return bytes(data)


def read_answer(sock: socket.socket, method: str = "GET", timeout: float = TIMEOUT_S) -> Response:
    """One strictly read response. Nothing may be read from the socket behind it."""
    return read_response(Stream(sock, timeout), method)


class Peer:
    """An upstream on a free port: a thread and a call of `serve` for each connection; every socket is closed at the end."""

    def __init__(self, serve: Serve, *, receive_buffer: int = 0) -> None:
        self._serve = serve
        self._listener = socket.socket()
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(512)
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, name="peer", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), name="peer connection", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            self._serve(sock)
        except OSError:
            pass  # the proxy went away
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def close(self) -> None:
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()
