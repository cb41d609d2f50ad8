"""The gate: upgrade after upgrade under eight kinds of load at once, and not one request is lost.

MESH_PROXY_UPGRADES and MESH_PROXY_UPGRADE_REQUESTS (in all) make it longer: `make soak`. Then the last process is weighed, too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from e2e_support.backends import Backends
from e2e_support.gate import LISTENERS, configuration
from e2e_support.mixed_load import MixedLoad
from e2e_support.upgrades import Chain

pytestmark = pytest.mark.slow

UPGRADES = int(os.environ.get("MESH_PROXY_UPGRADES", "10"))
REQUESTS = int(os.environ.get("MESH_PROXY_UPGRADE_REQUESTS", "31000"))
SOAK = 50
"""upgrades from which on the processes are weighed"""
GROWTH = 1.05
EACH = 20
"""requests of every kind between two upgrades, at least"""


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as one:
        yield one


def test_nothing_is_lost(backends: Backends, chain: Chain) -> None:
    proxy = chain(configuration(backends.ports), concurrency=2)
    in_flight: list[int] = []
    weights: list[tuple[int, int, int]] = []
    part = REQUESTS // (UPGRADES + 1) + 1
    began = time.monotonic()
    with MixedLoad({name: proxy.port(name) for name in LISTENERS}) as load:
        load.wait_for(part, EACH)
        for number in range(UPGRADES):
            load.lowest = load.in_flight
            workers = 1 if number % 3 == 1 else 2
            proxy.launch(concurrency=workers).wait_live()
            in_flight.append(load.lowest)
            load.wait_for(part, EACH)
            weights.append((workers, *proxy.newest.weight()))
        load.stop()
    took = time.monotonic() - began
    print(f"{UPGRADES} upgrades in {took:.0f} s, {load.done} requests; fewest in flight during each: {in_flight}")
    print(load.report())
    print(f"(workers, open files, kB) of each new process under load: {weights}")
    assert not load.failures()
    assert not load.reconnects()
    assert load.done >= REQUESTS
    assert min(in_flight) >= 100
    if UPGRADES >= SOAK:
        (_, files, memory), *_, (_, last_files, last_memory) = [one for one in weights if one[0] == 2]
        print(f"first and last process with two workers: {files} and {last_files} files, {memory} and {last_memory} kB (PSS)")
        assert last_files <= files * GROWTH
        assert last_memory <= memory * GROWTH
    for one in proxy.generations[:-1]:
        assert one.wait_exit() == 0
    assert proxy.stats()["hot_restart.upgrades"] == UPGRADES
    assert proxy.stats()["hot_restart.connections_cut"] == 0


def test_without_the_hand_over_requests_are_lost(backends: Backends, chain: Chain) -> None:
    """The negative control: the same load, the same two processes, one after the other."""
    proxy = chain(configuration(backends.ports), flags=("--disable-hot-restart", "--drain-time-s", "2"))
    with MixedLoad({name: proxy.port(name) for name in LISTENERS}) as load:
        load.wait_for(200, EACH)
        before = proxy.newest
        os.kill(before.pid, signal.SIGTERM)
        before.wait_exit()
        proxy.launch().wait_live()
        load.wait_for(200, EACH)
        load.stop()
    print(load.report())
    assert load.failures()
    assert load.reconnects()
