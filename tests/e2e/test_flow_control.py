"""Who reads slowly slows only himself: the other side is no longer read, the proxy holds no more than its water marks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from e2e_support import Peer, Sidecar, head_of, one_listener, until
from e2e_support.peers import connect

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
GET = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"


def respond_with(delay: float = 0.0) -> Callable[[socket.socket], None]:
    """An upstream that answers `/N` with N bytes, `delay` seconds after the head."""
    piece = bytes(65536)

    def serve(sock: socket.socket) -> None:
        while head := head_of(sock):
            left = int(head.split(b" ")[1][1:])
            time.sleep(delay)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
            while left:
                left -= sock.send(piece[: min(left, 65536)])

    return serve


def take(sock: socket.socket, size: int) -> None:
    """Read one answer with a body of so many bytes, and not a byte more."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    while size:
        piece = sock.recv(min(size, 65536))
        assert piece, "the answer is cut"
        size -= len(piece)


def test_the_next_request_while_the_last_answer_is_not_taken(start: Start) -> None:
    """Two requests in one go, and nothing read: the rest of the first answer still waits here when the second one begins.

    The sizes are spread so that, whatever the kernel's buffers take, some answer has come here whole and could not leave.
    """
    sizes = range(2_000_000, 3_600_000, 80_000)
    with Peer(respond_with(0.2)) as peer:
        sidecar = start(one_listener(peer.port, timeout="300s"))  # they are taken one after the other
        socks = [connect(sidecar.port("in"), receive_buffer=4096) for _ in sizes]
        for sock, size in zip(socks, sizes, strict=True):
            sock.sendall(b"GET /%d HTTP/1.1\r\nhost: shop\r\n\r\n" % size * 2)
        time.sleep(0.3)
        for sock, size in zip(socks, sizes, strict=True):
            take(sock, size)
            take(sock, size)
            sock.sendall(b"GET /9 HTTP/1.1\r\nhost: shop\r\n\r\n")
            take(sock, 9)
            sock.close()
        idle = {"http.in.downstream_rq_active": 0, "http.in.downstream_cx_active": 0, "cluster.back.upstream_rq_active": 0}
        until("all is idle", lambda: sidecar.settled(idle))
        stats = sidecar.stats()
        held = stats["http.in.downstream_flow_control_paused_reading_total"]
        assert held == stats["http.in.downstream_flow_control_resumed_reading_total"] > 0
