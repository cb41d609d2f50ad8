"""Ten thousand idle connections, descriptors that run out, and what the processes weigh."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from e2e_support import Load, Sidecar, forward, one_listener, static_cluster, tcp_listener, until
from e2e_support.peers import connect
from e2e_support.sidecar import memory_kb, open_files
from parity.config import bootstrap, http
from parity.wire import Stream, read_response

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
MANY = 10_000
SPARE = 1_500
"""Descriptors beside those connections, on either side; accepting pauses when nine tenths are used."""
GET = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many descriptors in this process as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + SPARE:
        pytest.skip(f"only {hard} descriptors are allowed here (ulimit -Hn), {MANY + SPARE} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY + SPARE), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_idle_connections(start: Start) -> None:
    """Each has had a request. Others are served meanwhile; idle_timeout closes them all; their memory is what it may be."""
    idle_s = 45
    pong = {"match": {"path": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "pong"}}}
    config = bootstrap(
        [http("in", [pong, forward("back")], f"common_http_protocol_options: {{idle_timeout: {idle_s}s}}\naccess_log: []")],
        [static_cluster("back", "back")],
    )
    sidecar = start(config, files=MANY + SPARE)
    (worker,) = sidecar.workers()
    port = sidecar.port("in")
    with Load(port, kept=4, fresh=2) as load:  # what is loaded or grown once is not the connections'
        load.wait_for(300)
    before = memory_kb(worker)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(MANY):
            sock = stack.enter_context(connect(port))
            sock.sendall(GET)
            socks.append(sock)
        for sock in socks:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        opened = time.monotonic()
        with Load(port, kept=4, fresh=2) as load:
            load.wait_for(300)
        assert not load.failed()
        slowest = max(one.ended - one.began for one in load.outcomes)
        assert time.monotonic() - began < idle_s, "this machine is too slow to hold them all at once"
        each = (memory_kb(worker) - before) / MANY
        assert sidecar.stats()["http.in.downstream_cx_active"] >= MANY
        for sock in socks:
            sock.settimeout(idle_s + 30)
            assert sock.recv(1) == b""
        closed = time.monotonic()
    print(
        f"{MANY} connections opened in {opened - began:.1f} s, {each:.2f} KB each (PSS of the worker); others served meanwhile, "
        f"slowest {slowest * 1000:.0f} ms; all closed {closed - opened:.1f} s after the last answer"
    )
    assert each < 16
    assert slowest < 10
    until("all counted as gone", lambda: sidecar.settled({"http.in.downstream_cx_active": 0}))
    assert sidecar.stats()["http.in.downstream_cx_idle_timeout"] >= MANY


def test_descriptors_run_out(start: Start) -> None:
    """Nobody is accepted only to be thrown away: who cannot be served now waits in the kernel's queue until others leave."""
    sidecar = start(one_listener("back"), files=256)
    for _ in range(2):
        served, waited = crowd(sidecar, 300)
        print(f"{served} of 300 served at first, {waited} after those had left")
        until("all is idle", lambda: sidecar.settled({"http.in.downstream_cx_active": 0, "http.in.downstream_rq_active": 0}))
    stats = sidecar.stats()
    assert stats["http.in.downstream_rq_2xx"] == stats["http.in.downstream_rq_total"] == 2 * (300 + 5)
    assert sidecar.log().count("accepting pauses") <= 20


def crowd(sidecar: Sidecar, count: int) -> tuple[int, int]:
    """So many callers at once, each with a request. How many were served before accepting paused, and how many after."""
    (worker,) = sidecar.workers()
    port = sidecar.port("in")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(port)) for _ in range(count)]
        for sock in socks:
            sock.sendall(GET)
            sock.settimeout(0)
        served = until("accepting pauses", lambda: answered_of(socks) if settled_at(worker) else None)
        assert 50 < len(served) < 256
        assert open_files(worker) <= 256
        for sock in served[:5]:  # who was served is served again
            sock.sendall(GET)
            assert read_response(Stream(sock, 30.0), "GET").status == 200
        waiting = [sock for sock in socks if sock not in served]
        for sock in served:
            sock.close()
        for sock in waiting:
            answer = read_response(Stream(sock, 30.0), "GET")
            assert (answer.status, answer.error) == (200, "")
            sock.close()
        return len(served), len(waiting)


def answered_of(socks: list[socket.socket]) -> list[socket.socket]:
    """Those with an answer waiting. It is taken."""
    found = []
    for sock in socks:
        with contextlib.suppress(BlockingIOError):
            if sock.recv(65536):
                found.append(sock)
    return found


def settled_at(pid: int) -> bool:
    """The process has stopped opening descriptors."""
    before = open_files(pid)
    time.sleep(0.3)
    return open_files(pid) == before


def test_memory(start: Start) -> None:
    """Supervisor, spawner and one worker together, after traffic."""
    sidecar = start(one_listener("back"))
    with Load(sidecar.port("in"), kept=32, fresh=4) as load:
        load.wait_for(3000, 120)
    assert not load.failed()
    sidecar.stats()
    by_role = {role: sum(memory_kb(pid) for pid in pids) for role, pids in sidecar.children().items()}
    total = sum(by_role.values()) / 1024
    print(f"{total:.1f} MB PSS: " + ", ".join(f"{role} {kb / 1024:.1f}" for role, kb in by_role.items()))
    assert total <= 60


def test_descriptors_run_out_for_tcp(start: Start) -> None:
    """A proxied byte stream needs two descriptors at once and cannot wait for the second: so it is not accepted without."""
    config = bootstrap([tcp_listener("in", "back")], [static_cluster("back", "tcp.back")])
    sidecar = start(config, files=256)
    (worker,) = sidecar.workers()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(sidecar.port("in"))) for _ in range(200)]
        until("accepting pauses", lambda: settled_at(worker))
        waiting = list(socks)
        while waiting:
            for sock in waiting:
                sock.settimeout(0)
            served = answered_of(waiting)
            for sock in served:
                sock.settimeout(30)
                sock.sendall(b"hello")
                assert sock.recv(5) == b"hello"
                sock.close()
            waiting = [sock for sock in waiting if sock not in served]
    until("all is closed", lambda: sidecar.settled({"cluster.back.upstream_cx_active": 0}))
    stats = sidecar.stats()
    assert stats["cluster.back.upstream_cx_connect_fail"] == 0
    assert stats["cluster.back.upstream_cx_total"] == 200
