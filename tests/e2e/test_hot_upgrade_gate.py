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
from e2e_support import http_listener, static_cluster, tcp_listener
from e2e_support.backends import Backends
from e2e_support.mixed_load import MixedLoad
from e2e_support.sidecar import memory_kb, open_files
from e2e_support.upgrades import Upgrades
from parity.config import bootstrap
from parity.dubbo import dubbo

pytestmark = pytest.mark.slow

UPGRADES = int(os.environ.get("MESH_PROXY_UPGRADES", "10"))
REQUESTS = int(os.environ.get("MESH_PROXY_UPGRADE_REQUESTS", "20"))
HTTP2 = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""
LISTENERS = ("http", "grpc", "dubbo", "bytes")


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as one:
        yield one


@pytest.fixture
def start(backends: Backends) -> Iterator[Callable[..., Upgrades]]:
    """A proxy with a listener for each kind of load."""
    made: list[Upgrades] = []

    def begin(**options: Any) -> Upgrades:
        ports = backends.ports
        config = bootstrap(
            [
                http_listener("http", "web", timeout="0s"),
                http_listener("grpc", "grpc", timeout="0s"),
                dubbo("dubbo", "[{name: r, interface: '*', routes: [{match: {}, route: {cluster: dubbo}}]}]"),
                tcp_listener("bytes", "bytes"),
            ],
            [
                static_cluster("web", ports["http1"]),
                static_cluster("grpc", ports["grpc"], HTTP2),
                static_cluster("dubbo", ports["dubbo"]),
                static_cluster("bytes", ports["bytes"]),
            ],
        )
        made.append(Upgrades(config, **options))
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
