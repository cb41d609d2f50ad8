"""Byte streams through the sidecar: TCP proxy, websocket upgrade, CONNECT ended here and CONNECT passed on."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from e2e_support import Peer, Sidecar, drain, forward, one_listener, static_cluster, tcp_listener, until
from e2e_support.peers import Serve, connect
from e2e_support.sidecar import memory_kb
from parity.config import bootstrap, http
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect as websocket_client
from websockets.sync.server import Server, ServerConnection, serve

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
LARGE = os.urandom(1 << 20) * 24
DIGEST = hashlib.sha256(LARGE).digest()
KINDS = ("tcp", "upgrade", "connect", "passed")
UPGRADE = b"GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n"


def configuration(port: int, extra: str = "") -> dict[str, Any]:
    allowed = "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]"
    ended_here = {"cluster": "back", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    passed_on = {"cluster": "back"}
    return bootstrap(
        [
            tcp_listener("tcp", "back", extra),
            http("upgrade", [forward("back")], allowed),
            http("connect", [{"match": {"connect_matcher": {}}, "route": ended_here}], allowed),
            http("passed", [{"match": {"connect_matcher": {}}, "route": passed_on}], allowed),
        ],
        [static_cluster("back", port)],
    )


def open_tunnel(sidecar: Sidecar, kind: str, early: bytes = b"") -> socket.socket:
    """A connection through which bytes flow; `early` is sent in one segment with the request."""
    sock = connect(sidecar.port(kind), timeout=20)
    if kind == "tcp":
        sock.sendall(early)
        return sock
    sock.sendall((UPGRADE if kind == "upgrade" else CONNECT) + early)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, head
        head += piece
    assert head.startswith(b"HTTP/1.1 101" if kind == "upgrade" else b"HTTP/1.1 200"), head
    return sock


def behind(inner: Serve) -> Serve:
    """`inner` on the bytes of the tunnel: the handshake, if one comes, is answered."""

    def serve(sock: socket.socket) -> None:
        start = sock.recv(4, socket.MSG_PEEK)
        if start in (b"GET ", b"CONN"):
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += sock.recv(1)
            sock.sendall(SWITCHING if start == b"GET " else b"HTTP/1.1 200 OK\r\n\r\n")
        inner(sock)

    return serve


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1 << 18):
        sock.sendall(data)


def digest_of(sock: socket.socket) -> bytes:
    """Of everything up to the end."""
    return hashlib.sha256(drain(sock)).digest()


@pytest.mark.parametrize("kind", KINDS)
def test_caller_ends_first(start: Start, kind: str) -> None:
    """The caller has said everything; the answer comes after his end, and is large."""

    def inner(sock: socket.socket) -> None:
        assert digest_of(sock) == DIGEST
        sock.sendall(LARGE)

    with Peer(behind(inner)) as peer:
        sidecar = start(configuration(peer.port))
        with open_tunnel(sidecar, kind) as sock:
            sock.sendall(LARGE)
            sock.shutdown(socket.SHUT_WR)
            assert digest_of(sock) == DIGEST
        until("nothing is left", lambda: sidecar.settled({"cluster.back.upstream_cx_active": 0}))


def test_upstream_ends_first(start: Start) -> None:
    """A byte stream has two directions: the upstream's end does not stop the caller. (HTTP's tunnels end there, as in Envoy.)"""
    received: list[bytes] = []

    def inner(sock: socket.socket) -> None:
        sock.sendall(LARGE)
        sock.shutdown(socket.SHUT_WR)
        received.append(digest_of(sock))

    with Peer(inner) as peer:
        sidecar = start(configuration(peer.port))
        with open_tunnel(sidecar, "tcp") as sock:
            assert digest_of(sock) == DIGEST
            sock.sendall(LARGE)
            sock.shutdown(socket.SHUT_WR)
            assert drain(sock) == b""
        until("the upstream has it all", lambda: received)
        until("nothing is left", lambda: sidecar.settled({"cluster.back.upstream_cx_active": 0}))
    assert received == [DIGEST]


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_at_once(start: Start, kind: str) -> None:
    """An echo of much, written and read at the same time."""
    with Peer(behind(echo)) as peer:
        sidecar = start(configuration(peer.port))
        with open_tunnel(sidecar, kind) as sock:

            def write() -> None:
                sock.sendall(LARGE)
                sock.shutdown(socket.SHUT_WR)

            writer = threading.Thread(target=write)
            writer.start()
            assert digest_of(sock) == DIGEST
            writer.join()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 300_000])
def test_first_bytes_come_with_the_request(start: Start, kind: str, size: int) -> None:
    """Whoever does not wait for the tunnel to open is served all the same."""
    early = LARGE[:size]

    def answer(sock: socket.socket) -> None:
        got = b""
        while len(got) < size:
            got += sock.recv(1 << 18)
        sock.sendall(b"good" if got == early else b"evil")

    with Peer(behind(answer)) as peer:
        sidecar = start(configuration(peer.port))
        with open_tunnel(sidecar, kind, early) as sock:
            assert drain(sock) == b"good"


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_speaks_first(start: Start, kind: str) -> None:
    """As in SMTP or MySQL: the caller sends nothing before he is greeted."""

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 welcome\r\n")
        assert sock.recv(100) == b"QUIT\r\n"
        sock.sendall(b"221 bye\r\n")

    with Peer(greet if kind in ("tcp", "connect") else behind(greet)) as peer:
        sidecar = start(configuration(peer.port))
        with open_tunnel(sidecar, kind) as sock:
            assert sock.recv(100) == b"220 welcome\r\n"
            sock.sendall(b"QUIT\r\n")
            assert drain(sock) == b"221 bye\r\n"


@pytest.mark.parametrize("kind", KINDS)
def test_slow_reader(start: Start, kind: str) -> None:
    """Who does not read holds up the sender and nobody else, in both directions."""
    stop = threading.Event()

    def flood(sock: socket.socket) -> None:
        sock.sendall(LARGE * 3)
        assert stop.wait(60)

    with Peer(behind(flood)) as peer:
        sidecar = start(configuration(peer.port))
        (worker,) = sidecar.workers()
        open_tunnel(sidecar, kind, b"x").close()
        before = memory_kb(worker)
        slow = [open_tunnel(sidecar, kind, b"x") for _ in range(4)]
        backed_up = (
            "upstream_flow_control_paused_reading_total" if kind != "tcp" else "downstream_flow_control_paused_reading_total"
        )
        until("the senders stand still", lambda: total(sidecar, backed_up) >= 4)
        time.sleep(0.2)
        grown = memory_kb(worker) - before
        for sock in slow:
            sock.close()
        stop.set()
        until("nothing is left", lambda: sidecar.settled({"cluster.back.upstream_cx_active": 0}))
    print(f"4 tunnels of {3 * len(LARGE) >> 20} MB stand still: the worker grew by {grown} KB")
    assert grown < 8 * 1024


def total(sidecar: Sidecar, last_word: str) -> int:
    return sum(value for name, value in sidecar.stats().items() if name.endswith(last_word))


def test_nobody_there(start: Start) -> None:
    """Refused at once, or silent until connect_timeout: the caller's connection ends without a byte, and the log says why."""
    config = bootstrap(
        [tcp_listener("refused", "refused"), tcp_listener("silent", "silent")],
        [static_cluster("refused", "refused.r"), static_cluster("silent", "blackhole.b", "connect_timeout: 1s")],
    )
    sidecar = start(config)
    for name, least in (("refused", 0.0), ("silent", 0.9)):
        began = time.monotonic()
        with connect(sidecar.port(name)) as sock:
            sock.sendall(b"hello")
            assert drain(sock) == b""
        assert time.monotonic() - began >= least
        (line,) = sidecar.new_lines(f"{name}.log", 1)
        assert set(line.split("flags=")[1].split("\t")[0].split(",")) == {"UF", "URX"}
    until(
        "counted",
        lambda: sidecar.settled({"cluster.silent.upstream_cx_connect_timeout": 1, "cluster.silent.upstream_cx_active": 0}),
    )


def test_much_is_sent_before_the_upstream_answers(start: Start) -> None:
    """The upstream's accept queue is full for a moment. What the caller sends meanwhile waits here up to a limit, then with him;
    in the end it is all there."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        listener.settimeout(30)
        fillers = [stack.enter_context(socket.socket()) for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        sidecar = start(bootstrap([tcp_listener("tcp", "back")], [slow_to_connect(listener.getsockname()[1])]))
        sock = stack.enter_context(open_tunnel(sidecar, "tcp"))

        def write() -> None:
            sock.sendall(LARGE)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.3)
        assert writer.is_alive()  # he is held up
        for filler in fillers:
            filler.close()
        data = b""
        while not data:
            accepted, _ = listener.accept()  # the fillers first, who say nothing; then, when its SYN is sent again, the sidecar
            with accepted:
                accepted.settimeout(30)
                data = drain(accepted)
        writer.join()
    assert hashlib.sha256(data).digest() == DIGEST


def slow_to_connect(port: int) -> dict[str, Any]:
    return static_cluster("back", port, "connect_timeout: 30s")


def test_idle_tunnels(start: Start) -> None:
    """Bytes in either direction keep a stream alive; without any it ends after idle_timeout."""
    with Peer(echo) as peer:
        sidecar = start(configuration(peer.port, "idle_timeout: 2s"))
        with open_tunnel(sidecar, "tcp") as sock:
            for _ in range(6):
                time.sleep(0.4)
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            began = time.monotonic()
            assert sock.recv(1) == b""
            assert time.monotonic() - began > 1.5
    until("all closed", lambda: sidecar.settled({"tcp.tcp.idle_timeout": 1, "cluster.back.upstream_cx_active": 0}))


def test_the_rest_is_never_taken(start: Start) -> None:
    """One side has ended, and the other one does not read what is left for it: idle_timeout without progress ends it."""
    with Peer(lambda sock: sock.sendall(LARGE)) as sender, Peer(lambda sock: time.sleep(15), receive_buffer=4096) as sleeper:
        config = bootstrap(
            [tcp_listener("down", "sender", "idle_timeout: 0.5s"), tcp_listener("up", "sleeper", "idle_timeout: 0.5s")],
            [static_cluster("sender", sender.port), static_cluster("sleeper", sleeper.port)],
        )
        sidecar = start(config)
        with connect(sidecar.port("down"), receive_buffer=4096), connect(sidecar.port("up"), timeout=0.3) as sock:
            with pytest.raises(TimeoutError):
                sock.sendall(LARGE)
            sock.shutdown(socket.SHUT_WR)
            gone = {f"listener.127.0.0.1_{sidecar.port(name)}.downstream_cx_active": 0 for name in ("down", "up")}
            gone |= {f"cluster.{name}.upstream_cx_active": 0 for name in ("sender", "sleeper")}
            until("both are open", lambda: sidecar.stats()["cluster.sender.upstream_cx_total"] == 1)
            until("both are given up", lambda: sidecar.settled(gone), 12)


@pytest.fixture
def chat() -> Iterator[Server]:
    """A websocket server that echoes, and ends when it is told `bye`."""

    def handle(connection: ServerConnection) -> None:
        for message in connection:
            if message == "bye":
                connection.close(4001, "as you wish")
                return
            connection.send(message)

    with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_websocket(start: Start, chat: Server) -> None:
    """A browser-like client: texts, large binaries, fragments, pings, the closing handshake, many at once."""
    port = chat.socket.getsockname()[1]
    sidecar = start(one_listener(port, "upgrade_configs: [{upgrade_type: websocket}]", timeout="1s"))
    url = f"ws://127.0.0.1:{sidecar.port('in')}/chat?room=1"
    with websocket_client(url, origin="http://shop", max_size=None) as socket_:  # type: ignore[arg-type]
        socket_.send("hello")
        assert socket_.recv() == "hello"
        socket_.send(LARGE[: 4 << 20])
        assert socket_.recv() == LARGE[: 4 << 20]
        socket_.send(["in ", "three ", "pieces"])
        assert socket_.recv() == "in three pieces"
        assert socket_.ping().wait(30)
        time.sleep(1.2)  # the route's time-out is for requests
        socket_.send("still there?")
        assert socket_.recv() == "still there?"
        socket_.send("bye")
        with pytest.raises(Exception, match="4001"):
            socket_.recv()

    def talk(number: int) -> None:
        with websocket_client(url) as one:
            for turn in range(20):
                one.send(f"{number}.{turn}")
                assert one.recv() == f"{number}.{turn}"
            one.close()
            with pytest.raises(ConnectionClosedOK):
                one.recv()

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    idle = {"http.in.downstream_rq_active": 0, "cluster.back.upstream_cx_active": 0, "http.in.downstream_cx_active": 0}
    until("all is over", lambda: sidecar.settled(idle))
    assert sidecar.stats()["http.in.downstream_cx_upgrades_total"] == 21
