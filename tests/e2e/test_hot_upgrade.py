"""A new process takes over from a running one: listening sockets, roll-back, refusals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
from e2e_support import Load, Peer, head_of, one_listener, static_cluster, tcp_listener, until
from e2e_support.peers import connect
from e2e_support.upgrades import Chain, Upgrades
from parity.config import bootstrap

pytestmark = pytest.mark.slow


class Watch:
    """Asks the admin interface all the time, as a scraper would, and keeps what it said."""

    def __init__(self, proxy: Upgrades, name: str, gauge: str) -> None:
        self.values: list[int] = []
        self.gauges: list[int] = []
        self.generations: set[int] = set()
        self._proxy = proxy
        self._name = name
        self._gauge = gauge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            stats = self._proxy.stats()
            self.values.append(stats.get(self._name, 0))
            self.gauges.append(stats.get(self._gauge, 0))
            self.generations.add(stats["server.hot_restart_generation"])


def test_kept_connections_move(chain: Chain) -> None:
    """Keep-alive connections, and one for each request, over workers 1 → 2 → 1 → 2: nothing fails, no connection is made anew,
    counters go on, gauges do not double."""
    proxy = chain(one_listener("back"))
    kept = 12
    with (
        Load(proxy.port("in"), kept=kept, fresh=2, pause=0.005) as load,
        Watch(proxy, "http.in.downstream_rq_completed", "http.in.downstream_cx_active") as watch,
    ):
        load.wait_for(100, 60)
        for workers in (2, 1, 2):
            proxy.upgrade(concurrency=workers)
            load.wait_for(100, 60)
        load.stop()
        total = len(load.outcomes)
        until("all are counted", lambda: proxy.settled({"http.in.downstream_rq_completed": total}))
    print(load.summary())
    assert not load.failed()
    assert not any(one.close for one in load.outcomes)
    again = [one for one in load.outcomes if not one.first]
    assert len({one.local_port for one in again}) == kept
    assert watch.values == sorted(watch.values)
    assert watch.generations == {1, 2, 3, 4}
    print(f"active connections as seen: {watch.gauges}")
    assert max(watch.gauges) < 2 * kept  # those that moved are counted once, at any moment
    until(
        "nothing is active", lambda: proxy.settled({"http.in.downstream_cx_active": 0, "http.in.downstream_cx_http1_active": 0})
    )
    stats = proxy.stats()
    fresh = sum(one.first for one in load.outcomes)
    assert stats["http.in.downstream_cx_total"] == stats["http.in.downstream_cx_destroy"] == fresh
    assert stats["hot_restart.upgrades"] == 3
    assert stats["hot_restart.last_duration_ms"] > 0
    assert (stats["server.hot_restart_epoch"], stats["server.hot_restart_generation"]) == (3, 4)
    line = r"took over from pid \d+ in \d+\.\d{3} s: \d+ connections moved, \d+ drained, 0 cut"
    for one in proxy.generations[1:]:
        one.wait_log(line)
        assert len(re.findall(line, one.log())) == 1
    assert stats["hot_restart.connections_moved"] >= 3 * kept
    assert stats["hot_restart.connections_cut"] == 0
    assert stats["cluster.back.membership_total"] == 1


def test_sighup_upgrades_and_the_first_process_stays(chain: Chain, tmp_path: Path) -> None:
    """The process that was started first is there as long as any successor; it takes the signals for all of them, and is the only
    one that speaks to a service manager (sd_notify)."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "manager"))
    manager.settimeout(60)
    proxy = chain(one_listener("back"), concurrency=2, start=False)
    first = proxy.launch(env={"NOTIFY_SOCKET": str(tmp_path / "manager")}).wait_live()
    assert manager.recv(100) == b"READY=1"
    good = proxy.config_file.read_text()
    with Load(proxy.port("in"), kept=6, fresh=2, pause=0.01) as load:
        load.wait_for(30, 60)
        os.kill(first.pid, signal.SIGHUP)
        first.wait_log("staying as the guardian")
        load.wait_for(30, 60)
        os.kill(first.pid, signal.SIGHUP)
        until("the third generation", lambda: proxy.settled({"server.hot_restart_generation": 3}), 60)
        first.wait_log(r"ended with exit code 0")
        proxy.config_file.write_text("no: configuration")
        os.kill(first.pid, signal.SIGHUP)
        first.wait_log("ended with exit code 1")
        proxy.config_file.write_text(good)
        load.wait_for(30, 60)
        os.kill(first.pid, signal.SIGHUP)
        until("the fourth generation", lambda: proxy.settled({"server.hot_restart_generation": 4}), 60)
        load.wait_for(30, 60)
        load.stop()
    assert not load.failed()
    until("all are counted", lambda: proxy.settled({"hot_restart.upgrades": 3, "hot_restart.upgrades_failed": 1}))
    assert first.process.poll() is None
    below = [pid for pid in first.tree() if pid != first.pid]
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait_exit() == 0
    until("everybody has gone", lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()])
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    manager.close()


def test_what_does_not_end_is_cut_when_its_time_is_over(chain: Chain) -> None:
    """A byte stream goes on in the old process (so do websockets and CONNECT) until --parent-shutdown-time-s."""
    config = bootstrap([tcp_listener("bytes", "raw")], [static_cluster("raw", 1)])

    def echo(sock: socket.socket) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    with Peer(echo) as peer:
        config["static_resources"]["clusters"][0] = static_cluster("raw", peer.port)
        proxy = chain(config, flags=("--parent-shutdown-time-s", "5"))
        first = proxy.newest
        with connect(proxy.port("bytes"), timeout=60) as stream:
            stream.sendall(b"one")
            assert stream.recv(100) == b"one"
            proxy.launch().wait_live()
            stream.sendall(b"two")
            assert stream.recv(100) == b"two"
            assert stream.recv(100) == b""
        assert first.wait_exit() == 0
        proxy.newest.wait_log("0 connections moved, 0 drained, 1 cut")
        until("it is counted", lambda: proxy.settled({"hot_restart.connections_cut": 1, "hot_restart.connections_moved": 0}))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_who_waits_in_an_accept_queue_is_served_by_the_next(chain: Chain, before: int, after: int) -> None:
    """Old workers that do not accept, for they are stopped; the new ones take all queues, however many they are."""
    proxy = chain(one_listener("back"), concurrency=before)
    first = proxy.newest
    stopped = proxy.workers()
    assert len(stopped) == before
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    callers = []
    for _ in range(20):
        callers.append(connect(proxy.port("in"), timeout=60))
        callers[-1].sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    proxy.launch(concurrency=after).wait_live()
    for caller in callers:
        assert head_of(caller).startswith(b"HTTP/1.1 200")
        caller.close()
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):  # killed, as it did not answer
            os.kill(pid, signal.SIGCONT)
    assert first.wait_exit() == 0
