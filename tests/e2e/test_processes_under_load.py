"""What happens to requests in flight when processes die, drain, stop and reopen their logs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import Load, Outcome, Peer, Sidecar, head_of, http_listener, one_listener, static_cluster, until
from e2e_support.peers import connect
from e2e_support.sidecar import sockets_of
from parity.config import bootstrap, file_log
from parity.wire import Stream, read_response

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
SOON_S = 10.0
"""At once, on a machine that is slow and busy with other things: far from any time-out."""


def peers_of(pid: int, port: int) -> set[int]:
    """Remote ports of the connections on local `port` that a process holds, from the kernel."""
    inodes = sockets_of(pid)
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        local, remote, inode = words[1], words[2], words[9]
        if inode in inodes and int(local.split(":")[1], 16) == port and words[3] != "0A":
            found.add(int(remote.split(":")[1], 16))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_worker(start: Start, workers: int) -> None:
    """Only the dead worker's connections fail; new ones are served soon; what was counted stays counted."""
    sidecar = start(one_listener("back"), concurrency=workers)
    port = sidecar.port("in")
    with Load(port, kept=12, fresh=4, pause=0.002) as load:
        load.wait_for(500)
        counted = "http.in.downstream_rq_completed"
        before = until("a count", lambda: sidecar.stats().get(counted))
        victim = max(sidecar.workers(), key=lambda pid: len(peers_of(pid, port)))
        os.kill(victim, signal.SIGSTOP)  # so that the list of its connections is complete
        its_own = peers_of(victim, port)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until("a new worker", lambda: len(set(sidecar.workers()) - {victim}) == workers)
        goal = len(load.outcomes) + 500
        first_new = until("a new connection served", lambda: next(filter(served_after(killed), load.outcomes), None))
        counts = [before]
        while len(load.outcomes) < goal:
            counts.append(sidecar.stats()[counted])
        load.stop()
    assert counts == sorted(counts)
    failed = load.failed()
    strangers = [one for one in failed if one.local_port not in its_own]
    slowest = max(one.ended - one.began for one in load.outcomes if one.began > killed)
    print(
        f"{load.summary()}; {len(its_own)} connections died with the worker; first new one served after "
        f"{(first_new.ended - killed) * 1000:.0f} ms; slowest request afterwards {slowest * 1000:.0f} ms"
    )
    assert not strangers
    assert len(failed) <= len(its_own)
    assert first_new.ended - killed < SOON_S
    assert slowest < SOON_S
    assert sidecar.stats()[counted] >= sum(one.status == 200 and one.began > killed for one in load.outcomes)


@pytest.mark.parametrize("workers", [1, 2])
def test_terminated_under_load(start: Start, workers: int) -> None:
    """SIGTERM: what is in progress is answered, kept connections are told to close, new ones are refused, exit code 0."""
    sidecar = start(one_listener("back"), concurrency=workers)
    with Load(sidecar.port("in"), kept=16, fresh=4, pause=0.01) as load:
        load.wait_for(300)
        told = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait_exit(60) == 0
        took = time.monotonic() - told
    lost = [one for one in load.failed() if one.error != "refused"]
    said = len({one.local_port for one in load.outcomes if one.close and one.ended > told})
    print(f"{load.summary()}; drained in {took:.2f} s, {said} answers said connection: close")
    assert not lost
    assert said >= 12  # sixteen are kept, and now and then one is just being opened
    assert took < 50


def test_terminated_with_a_slow_answer(start: Start) -> None:
    """A request that takes longer than everything else is still answered, and an idle connection does not hold the end up."""
    release = threading.Event()

    def serve(sock: socket.socket) -> None:
        while head_of(sock):
            assert release.wait(60)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")

    with Peer(serve) as peer:
        sidecar = start(one_listener(peer.port, "drain_timeout: 0.2s"))
        with connect(sidecar.port("in")) as busy, connect(sidecar.port("in")) as idle:
            busy.sendall(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
            until("the request is upstream", lambda: peer.accepted)
            sidecar.signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                sidecar.wait_exit(0.5)
            release.set()
            answer = read_response(Stream(busy, 30.0), "GET")
            assert (answer.status, answer.body) == (200, b"slow")
            assert ("connection", "close") in answer.headers
            assert idle.recv(1) == b""
            assert sidecar.wait_exit(30) == 0


def test_interrupted(start: Start) -> None:
    """SIGINT waits for nobody, and leaves no process behind."""
    sidecar = start(one_listener("back"), concurrency=2)
    everybody = [pid for pids in sidecar.children().values() for pid in pids]
    assert len(everybody) == 4
    with connect(sidecar.port("in")) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: shop\r\n")  # a request that never ends
        told = time.monotonic()
        sidecar.signal(signal.SIGINT)
        assert sidecar.wait_exit(30) == 0
        took = time.monotonic() - told
        until("all processes are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in everybody))
    print(f"stopped in {took * 1000:.0f} ms")
    assert took < SOON_S


def test_logs_reopened_under_load(start: Start) -> None:
    """The usual rotation: rename, SIGUSR1. Every line is in one of the two files, whole."""
    sidecar = start(one_listener("back"), concurrency=2)
    log, old = sidecar.dir / "in.log", sidecar.dir / "in.log.1"
    with Load(sidecar.port("in"), kept=4, fresh=2, pause=0.002) as load:
        load.wait_for(200)
        until("lines", lambda: log.exists() and log.stat().st_size)
        log.rename(old)
        load.wait_for(100)
        sidecar.signal(signal.SIGUSR1)
        until("a new file", log.exists)
        load.wait_for(100)
        renamed = old.read_bytes().count(b"\n")
        load.wait_for(100)
        load.stop()
    assert not load.failed()
    total = len(load.outcomes)
    until("all lines", lambda: count_lines(old, log) >= total)
    lines = (old.read_bytes() + log.read_bytes()).splitlines()
    assert len(lines) == total
    assert all(line.startswith(b"method=GET\tpath=/load\t") for line in lines)
    assert log.read_bytes().count(b"\n") >= 100
    assert old.read_bytes().count(b"\n") == renamed


def served_after(moment: float) -> Callable[[Outcome], bool]:
    return lambda one: one.first and one.began > moment and one.status == 200


def count_lines(*paths: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths)


@pytest.mark.parametrize("where", ["full", "pipe"])
def test_logs_that_take_nothing_cost_no_request(start: Start, where: str) -> None:
    """A full disk, or a pipe that nobody reads: lines are lost and counted, requests are not."""
    fifo = ""
    if where == "pipe":
        fifo = "$(dir)/blocked"
    log = file_log(fifo or "/dev/full")
    config = bootstrap([http_listener("in", "back", f"access_log: [{to_yaml(log)}]")], [static_cluster("back", "back")])
    held: list[int] = []
    try:
        sidecar = start(config, before=lambda sidecar: held.append(make_pipe(sidecar.dir / "blocked")) if fifo else None)
        with Load(sidecar.port("in"), kept=8, fresh=2) as load:
            load.wait_for(2000, 120)
        slowest = max(one.ended - one.began for one in load.outcomes)
        print(f"{load.summary()}; slowest {slowest * 1000:.0f} ms")
        assert not load.failed()
        assert slowest < SOON_S
        if where == "full":
            until("failures are counted", lambda: sidecar.stats().get("filesystem.write_failed"))
    finally:
        for fd in held:
            os.close(fd)


def to_yaml(tree: object) -> str:
    return json.dumps(tree)


def make_pipe(path: Path) -> int:
    """A FIFO with a reader that never reads."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
