"""dubbo-go with itself and with Java, on both sides of the sidecar: the same answers as without it.

dubbo-go differs from Java in bytes: a null more at the end of each response, heartbeats from both sides, no READONLY.
"""

from __future__ import annotations

import pytest
from interop_support.config import in_front_of
from interop_support.dubbo_go import GoPeers

from .conftest import Cast

pytestmark = pytest.mark.slow

HEARTBEATS = {"heartbeat_interval": "1s", "heartbeat_timeout": "4s"}
IDLE = {"idle": 9_000}
"""sessions of dubbo-go end when they were silent for four seconds"""


@pytest.mark.parametrize("provider", ["go", "v27", "v33"])
def test_consumer_in_go(cast: Cast, go: GoPeers, provider: str) -> None:
    server = cast.keep(go.provider("provider")) if provider == "go" else cast.provider(provider, heartbeat=1000)
    sidecar = cast.sidecar(in_front_of(server.port, cluster_options=HEARTBEATS))
    results = [cast.keep(go.consumer(port)).run("calls,concurrent,idle", **IDLE) for port in (server.port, sidecar.port("dubbo"))]
    assert results[0] == results[1]
    assert ("concurrent", "800") in results[0]
    assert len(results[0]) > 15
    stats = sidecar.stats()
    assert stats["cluster.providers.upstream_cx_total"] == 1
    assert stats["dubbo.dubbo.request_event"] > 3


@pytest.mark.parametrize("consumer", ["v27", "v33"])
def test_provider_in_go(cast: Cast, go: GoPeers, consumer: str) -> None:
    server, client = cast.keep(go.provider("provider")), cast.consumer(consumer)
    sidecar = cast.sidecar(in_front_of(server.port, cluster_options=HEARTBEATS))
    options = {"heartbeat": 1000, "serialization": "hessian2"} | IDLE
    direct, through = (client.run("common,idle", port, **options) for port in (server.port, sidecar.port("dubbo")))
    assert direct == through
    assert ("hessian2 after", '"provider greets idle"') in direct
    assert len(direct) > 12
    assert sidecar.stats()["cluster.providers.upstream_cx_total"] == 1
