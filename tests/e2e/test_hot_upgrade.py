"""A new process takes over from a running one: listening sockets, roll-back, refusals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from e2e_support import Load, head_of, one_listener, until
from e2e_support.peers import connect
from e2e_support.upgrades import Chain, Upgrades
from parity.proxy import ROOT

pytestmark = pytest.mark.slow


def test_fresh_connections_over_three_upgrades(chain: Chain) -> None:
    """A connection for each request, workers 1 → 2 → 1: none is refused or reset."""
    proxy = chain(one_listener("back"))
    with Load(proxy.port("in"), kept=0, fresh=4, pause=0.002) as load:
        load.wait_for(50, 60)
        for workers in (2, 1, 1):
            proxy.upgrade(concurrency=workers)
            load.wait_for(50, 60)
    print(load.summary())
    assert not load.failed()
    assert until("statistics", proxy.stats)["server.hot_restart_generation"] == 4
    assert proxy.stats()["server.hot_restart_epoch"] == 3


class Watch:
    """Asks the admin interface all the time, as a scraper would, and keeps what it said."""

    def __init__(self, proxy: Upgrades, name: str) -> None:
        self.values: list[int] = []
        self.generations: set[int] = set()
        self._proxy = proxy
        self._name = name
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
            self.generations.add(stats["server.hot_restart_generation"])


def test_kept_connections_move(chain: Chain) -> None:
    """Keep-alive connections under load: nothing fails, no connection is made anew, counters go on, gauges do not double."""
    proxy = chain(one_listener("back"))
    kept = 12
    with (
        Load(proxy.port("in"), kept=kept, fresh=2, pause=0.005) as load,
        Watch(proxy, "http.in.downstream_rq_completed") as watch,
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
    until(
        "nothing is active", lambda: proxy.settled({"http.in.downstream_cx_active": 0, "http.in.downstream_cx_http1_active": 0})
    )
    stats = proxy.stats()
    fresh = sum(one.first for one in load.outcomes)
    assert stats["http.in.downstream_cx_total"] == stats["http.in.downstream_cx_destroy"] == fresh
    assert stats["hot_restart.upgrades"] == 3
    assert stats["hot_restart.connections_moved"] >= 3 * kept
    assert stats["hot_restart.connections_cut"] == 0
    assert stats["cluster.back.membership_total"] == 1


def test_sighup_upgrades_and_the_first_process_stays(chain: Chain) -> None:
    """The process that was started first is there as long as any successor; it takes the signals for all of them."""
    proxy = chain(one_listener("back"), concurrency=2)
    first = proxy.newest
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
    assert proxy.settled({"hot_restart.upgrades": 3, "hot_restart.upgrades_failed": 1})
    assert first.process.poll() is None
    below = [pid for pid in first.tree() if pid != first.pid]
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait_exit() == 0
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_who_waits_in_an_accept_queue_is_served_by_the_next(chain: Chain) -> None:
    """Two workers that do not accept, for they are stopped; one new worker, which takes both queues."""
    proxy = chain(one_listener("back"), concurrency=2)
    first = proxy.newest
    stopped = proxy.workers()
    assert len(stopped) == 2
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    callers = []
    for _ in range(20):
        callers.append(connect(proxy.port("in"), timeout=60))
        callers[-1].sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    proxy.launch(concurrency=1).wait_live()
    for caller in callers:
        assert head_of(caller).startswith(b"HTTP/1.1 200")
        caller.close()
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):  # killed, as it did not answer
            os.kill(pid, signal.SIGCONT)
    assert first.wait_exit() == 0


def test_the_hook_of_a_sidecar_set(chain: Chain) -> None:
    """Two containers: the versions in the environment say which takes over, and the hook waits until it has."""
    proxy = chain(one_listener("back"), start=False)
    admin = f"127.0.0.1:{proxy.ports['port.admin']}"

    def versions(own: int, other: int) -> dict[str, str]:
        return {"SIDECARSET_VERSION": str(own), "SIDECARSET_VERSION_ALT": str(other)}

    def hook(own: int, other: int, timeout: str = "60") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mesh_proxy", "migrate", "--admin", admin, "--timeout", timeout]
        env = {**os.environ, **versions(own, other)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)

    empty = proxy.launch(env=versions(0, 1))
    empty.wait_log("the empty one")
    first = proxy.launch(env=versions(1, 0))
    assert (hook(1, 0).returncode, hook(0, 1).returncode) == (0, 0)
    early = hook(2, 1, "0.2")
    assert early.returncode == 1
    assert "version 1 still serves, not 2" in early.stderr
    os.kill(empty.pid, signal.SIGTERM)
    assert empty.wait_exit() == 0
    proxy.launch(env=versions(2, 1))
    done = hook(2, 1)
    assert (done.returncode, done.stdout) == (0, "version 2 serves alone\n")
    assert first.wait_exit() == 0
    older = proxy.launch(env=versions(1, 2))
    older.wait_log("was replaced")
    assert hook(1, 2).returncode == 0
    os.kill(older.pid, signal.SIGTERM)
    assert older.wait_exit() == 0
    assert proxy.admin("/ready").status == 200
