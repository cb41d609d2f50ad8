"""The gate: upgrade after upgrade under eight kinds of load at once, and not one request is lost.

MESH_PROXY_UPGRADES and MESH_PROXY_UPGRADE_REQUESTS (of each kind, between two upgrades) make it longer: `make soak`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support.backends import Backends
from e2e_support.gate import LISTENERS, configuration
from e2e_support.mixed_load import MixedLoad
from e2e_support.sidecar import memory_kb, open_files
from e2e_support.upgrades import Upgrades

pytestmark = pytest.mark.slow

UPGRADES = int(os.environ.get("MESH_PROXY_UPGRADES", "10"))
REQUESTS = int(os.environ.get("MESH_PROXY_UPGRADE_REQUESTS", "20"))


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as one:
        yield one


@pytest.fixture
def start(backends: Backends) -> Iterator[Callable[..., Upgrades]]:
    """A proxy with a listener for each kind of load."""
    made: list[Upgrades] = []

    def begin(**options: Any) -> Upgrades:
        made.append(Upgrades(configuration(backends.ports), **options))
        made[-1].start()
        return made[-1]

    yield begin
    logs = []
    for one in made:
        one.stop(keep=True)
        logs.append(one.log())
        one.remove()
    for log in logs:
        print(log[-6000:])
        assert "Traceback" not in log


def test_nothing_is_lost(start: Callable[..., Upgrades]) -> None:
    proxy = start(concurrency=2)
    in_flight: list[int] = []
    weights: list[tuple[int, int]] = []
    began = time.monotonic()
    with MixedLoad({name: proxy.port(name) for name in LISTENERS}) as load:
        load.wait_for_all(REQUESTS)
        for number in range(UPGRADES):
            in_flight.append(load.in_flight)
            proxy.launch(concurrency=1 if number % 3 == 1 else 2).wait_live()
            load.wait_for_all(REQUESTS)
            tree = [pid for pid in proxy.newest.tree() if Path(f"/proc/{pid}").exists()]
            weights.append((sum(map(open_files, tree)), sum(map(memory_kb, tree))))
        load.stop()
    print(f"{UPGRADES} upgrades in {time.monotonic() - began:.0f} s, {load.done} requests; in flight at each: {in_flight}")
    print(load.report())
    print(f"(open files, kB) of the newest process: {weights}")
    assert not load.failures()
    assert not load.reconnects()
    assert min(in_flight) >= 50
    for one in proxy.generations[:-1]:
        assert one.wait_exit() == 0
    assert proxy.stats()["hot_restart.upgrades"] == UPGRADES
    assert proxy.stats()["hot_restart.connections_cut"] == 0


def test_without_the_hand_over_requests_are_lost(start: Callable[..., Upgrades]) -> None:
    """The negative control: the same load, the same two processes, one after the other."""
    proxy = start(flags=("--disable-hot-restart", "--drain-time-s", "5"))
    with MixedLoad({name: proxy.port(name) for name in LISTENERS}) as load:
        load.wait_for_all(REQUESTS)
        before = proxy.newest
        os.kill(before.pid, signal.SIGTERM)
        before.wait_exit()
        proxy.launch().wait_live()
        load.wait_for_all(REQUESTS)
        load.stop()
    print(load.report())
    assert load.failures()
    assert load.reconnects()
