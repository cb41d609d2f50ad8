"""A peer may vanish at any byte. Afterwards nothing is left of it: every gauge and circuit-breaker count is back at zero."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from e2e_support import Peer, Sidecar, head_of, http_listener, static_cluster, tcp_listener, until
from e2e_support.peers import abort, connect, drain
from parity import bootstrap
from parity.wire import Stream, read_response

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
AT_ONCE = 16
BODY = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n"
REQUEST = b"POST /up HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n" + BODY
LAST_CHUNK = b"\r\n0\r\n\r\n"
"""What an upstream sees of the end: trailers are not passed on unless configured."""
RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + BODY
SETTLE_S = 0.003
"""Long enough for the sidecar to see the bytes before the end, so that it does not come with them."""

GAUGES = (
    "downstream_cx_active",
    "downstream_cx_http1_active",
    "downstream_rq_active",
    "upstream_cx_active",
    "upstream_rq_active",
    "upstream_rq_pending_active",
    "cx_open",
    "rq_open",
    "rq_pending_open",
    "rq_retry_open",
)
BREAKERS = """
circuit_breakers:
  thresholds: [{max_connections: 1000, max_pending_requests: 1000, max_requests: 1000, max_retries: 1000, track_remaining: true}]
"""
RETRY = {"retry_policy": {"retry_on": "reset,5xx,connect-failure", "num_retries": 2}}
SAME_LENGTH = """
http_filters:
- name: envoy.filters.http.router
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}
"""
"""Without the milliseconds that the upstream took, which have now one digit and now three, each answer has as many bytes."""
TUNNEL = "upgrade_configs: [{upgrade_type: websocket}]"


def configuration(port: int) -> dict[str, Any]:
    return bootstrap(
        [
            http_listener("plain", "back", SAME_LENGTH),
            http_listener("retried", "back", SAME_LENGTH, retry_policy=RETRY["retry_policy"]),
            http_listener("tunnel", "back", TUNNEL),
            tcp_listener("bytes", "back"),
        ],
        [static_cluster("back", port, BREAKERS)],
    )


def idle(sidecar: Sidecar) -> None:
    """Wait until nothing is counted as open, upstream keep-alive connections included: their peer must have gone."""

    def left() -> dict[str, int]:
        found = {
            name: value
            for name, value in sidecar.gauges(GAUGES).items()
            if not name.startswith(("http.admin.", "listener.admin.", "listener_manager", "server."))
        }
        for name, value in sidecar.stats().items():
            if ".circuit_breakers.default.remaining_" in name and value != 1000 and not name.endswith("_pools"):
                found[name] = value
        return found

    try:
        until("everything back at zero", lambda: not left(), interval=0.05)
    except AssertionError:
        pytest.fail(f"left over: {left()}")


def for_every(offsets: range, *ways: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for job in [pool.submit(way, offset) for offset in offsets for way in ways]:
            job.result()


def whole_answer(sock: socket.socket) -> None:
    """Read a request with the body of REQUEST, answer it."""
    while data := head_of(sock):
        while not data.endswith(LAST_CHUNK):
            piece = sock.recv(65536)
            if not piece:
                return
            data += piece
        sock.sendall(RESPONSE)


def still_serves(sidecar: Sidecar, *listeners: str) -> None:
    for listener in listeners:
        with connect(sidecar.port(listener)) as sock:
            sock.sendall(REQUEST)
            answer = read_response(Stream(sock, 30.0), "POST")
            assert (answer.status, answer.body, answer.error) == (200, b"hello world", ""), listener


@pytest.mark.parametrize("listener", ["plain", "retried"])
def test_caller_ends_within_the_request(start: Start, listener: str) -> None:
    with Peer(whole_answer) as peer:
        sidecar = start(configuration(peer.port))
        port = sidecar.port(listener)

        def crash(offset: int) -> None:
            sock = connect(port)
            sock.sendall(REQUEST[:offset])
            abort(sock)

        def crash_later(offset: int) -> None:
            sock = connect(port)
            sock.sendall(REQUEST[:offset])
            time.sleep(SETTLE_S)
            abort(sock)

        def leave(offset: int) -> None:
            with connect(port) as sock:
                sock.sendall(REQUEST[:offset])
                sock.shutdown(socket.SHUT_WR)
                drain(sock)

        for_every(range(len(REQUEST) + 1), crash, crash_later, leave)
        still_serves(sidecar, listener)
        peer.close()
        idle(sidecar)


@pytest.mark.parametrize("listener", ["plain", "retried"])
def test_caller_ends_within_the_answer(start: Start, listener: str) -> None:
    with Peer(whole_answer) as peer:
        sidecar = start(configuration(peer.port))
        port = sidecar.port(listener)
        with connect(port) as sock:
            sock.sendall(REQUEST)
            stream = Stream(sock, 30.0)
            assert read_response(stream, "POST").status == 200

        def crash(offset: int) -> None:
            sock = connect(port)
            sock.sendall(REQUEST)
            while offset and (piece := sock.recv(offset)):
                offset -= len(piece)
            abort(sock)

        for_every(range(len(stream.raw) + 1), crash)
        still_serves(sidecar, listener)
        peer.close()
        idle(sidecar)


@pytest.mark.parametrize("listener", ["plain", "retried"])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_upstream_ends_within_the_request(start: Start, listener: str, end: str) -> None:
    """The upstream reads some of the request and goes, its kernel refusing the rest."""

    def serve(sock: socket.socket) -> None:
        offset = -1
        data = b""
        while (offset < 0 or len(data) < offset) and not data.endswith(LAST_CHUNK):
            piece = sock.recv(1)
            if not piece:
                return
            data += piece
            if offset < 0 and data.endswith(b"\r\n"):
                offset = int(data.split(b" ")[1][1:])
        (abort if end == "reset" else socket.socket.close)(sock)

    statuses: list[int] = []

    with Peer(serve) as peer:
        sidecar = start(configuration(peer.port))
        port = sidecar.port(listener)

        def ask(offset: int) -> None:
            with connect(port) as sock:
                request = REQUEST.replace(b"/up", b"/%d" % offset)
                half = len(request) // 2
                sock.sendall(request[:half])
                time.sleep(SETTLE_S)
                try:
                    sock.sendall(request[half:])
                except ConnectionError:
                    pass  # answered and closed meanwhile
                answer = read_response(Stream(sock, 30.0), "POST")
                statuses.append(answer.status)

        for_every(range(0, len(REQUEST) + 300, 2), ask)
        peer.close()
        idle(sidecar)
    assert set(statuses) == {503}


@pytest.mark.parametrize("listener", ["plain", "retried"])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_upstream_ends_within_the_answer(start: Start, listener: str, end: str) -> None:
    """A cut answer must never look whole: the caller sees 503, or that it is cut."""

    def serve(sock: socket.socket) -> None:
        head = head_of(sock)
        if not head:
            return  # a connection that was not needed in the end
        offset = int(head.split(b" ")[1][1:])
        while not head.endswith(LAST_CHUNK):
            piece = sock.recv(65536)
            if not piece:
                return
            head += piece
        sock.sendall(RESPONSE[:offset])
        if end == "reset":
            time.sleep(SETTLE_S)
            abort(sock)

    wrong: list[str] = []
    with Peer(serve) as peer:
        sidecar = start(configuration(peer.port))
        port = sidecar.port(listener)

        def ask(offset: int) -> None:
            with connect(port) as sock:
                sock.sendall(REQUEST.replace(b"/up", b"/%d" % offset))
                answer = read_response(Stream(sock, 30.0), "POST")
                whole = (answer.status, answer.body, answer.error) == (200, b"hello world", "")
                if offset == len(RESPONSE) and end == "close":
                    good = whole
                else:  # the reset may overtake the last bytes
                    good = answer.status == 503 or answer.error != "" or (whole and offset == len(RESPONSE))
                if not good:
                    wrong.append(f"{offset}: {answer}")

        for_every(range(len(RESPONSE) + 1), ask)
        peer.close()
        idle(sidecar)
    assert not wrong, "\n".join(wrong)


def test_tunnels_end_anywhere(start: Start) -> None:
    """An upgraded connection and a TCP proxy's: either side ends with FIN or RST, before, at and after the handshake."""
    upgrade = b"GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    accept = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    talk = b"0123456789"

    def serve(sock: socket.socket) -> None:
        """The first byte after the handshake says what to do."""
        data = sock.recv(65536)
        if data.startswith(b"GET"):
            while not data.endswith(b"\r\n\r\n"):
                data += sock.recv(65536)
            sock.sendall(accept)
            data = sock.recv(1)
        if not data:
            return
        sock.sendall(talk[: data[0]])
        if data[0] % 2:
            time.sleep(SETTLE_S)
            abort(sock)
        elif data[0] == 4:
            drain(sock)

    with Peer(serve) as peer:
        sidecar = start(configuration(peer.port))

        def upgraded(offset: int) -> None:
            with connect(sidecar.port("tunnel")) as sock:
                sock.sendall(upgrade)
                head = head_of(sock)
                assert head.startswith(b"HTTP/1.1 101"), head
                sock.sendall(bytes([offset]))
                drain_or_abort(sock, offset)

        def plain(offset: int) -> None:
            with connect(sidecar.port("bytes")) as sock:
                sock.sendall(bytes([offset]))
                drain_or_abort(sock, offset)

        def early(offset: int) -> None:
            for listener, data in (("tunnel", upgrade), ("bytes", b"")):
                sock = connect(sidecar.port(listener))
                sock.sendall(data[: offset * 8])
                abort(sock)

        for _ in range(3):
            for_every(range(11), upgraded, plain, early)
        peer.close()
        idle(sidecar)


def drain_or_abort(sock: socket.socket, offset: int) -> None:
    if offset == 4:
        sock.recv(2)
        abort(sock)
    else:
        drain(sock)


def test_upstream_refuses(start: Start) -> None:
    """Nobody listens: every request is answered, the line is empty afterwards."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sidecar = start(configuration(closed.getsockname()[1]))
        statuses = []

        def ask(_: int) -> None:
            for listener in ("plain", "retried", "tunnel"):
                with connect(sidecar.port(listener)) as sock:
                    sock.sendall(REQUEST)
                    statuses.append(read_response(Stream(sock, 30.0), "POST").status)
            with connect(sidecar.port("bytes")) as sock:
                sock.sendall(b"hello")
                assert drain(sock) == b""

        for_every(range(50), ask)
        assert set(statuses) == {503}
        idle(sidecar)
