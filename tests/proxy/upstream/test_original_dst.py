from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from upstream_support import Bench, VirtualTimeLoop

from mesh_codecs.headers import Headers
from mesh_proxy.config.model import ClusterConfig
from mesh_proxy.upstream.cluster import Cluster, LbContext
from mesh_proxy.upstream.original_dst import parse_address


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    yield made
    made.close()


def original(**fields: object) -> ClusterConfig:
    return ClusterConfig(name="od", kind="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", **fields)  # type: ignore[arg-type]


def to(host: str, port: int = 80, header: bytes | None = None) -> LbContext:
    context = LbContext()
    context.original_destination = (host, port) if host else None
    context.headers = Headers([(b"x-envoy-original-dst-host", header)] if header is not None else [])
    return context


def made(bench: Bench) -> Cluster:
    found = bench.manager.get("od")
    assert found is not None
    return found


def run(loop: VirtualTimeLoop, seconds: float) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def test_one_endpoint_per_destination(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original())
    one = made(bench)
    assert one.needs_context
    first = one.pick(to("10.1.1.1"))
    assert first is not None
    assert (first.address, first.hostname) == ("10.1.1.1:80", "od10.1.1.1:80")
    assert one.pick(to("10.1.1.1")) is first
    other = one.pick(to("::1", 81))
    assert other is not None
    assert other.address == "[::1]:81"
    assert bench.stat("cluster.od.membership_total") == 2
    assert bench.stat("cluster.od.membership_change") == 2
    bench.manager.close()


def test_nowhere_to_go(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original())
    assert made(bench).pick() is None
    assert made(bench).pick(to("")) is None
    assert bench.stat("cluster.od.upstream_cx_none_healthy") == 2


def test_the_header_names_the_destination(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original(original_dst_http_header="x-envoy-original-dst-host"))
    one = made(bench)
    found = one.pick(to("10.1.1.1", header=b"10.2.2.2:90"))
    assert found is not None
    assert found.address == "10.2.2.2:90"
    assert one.pick(to("", header=b"nonsense")) is None
    assert bench.stat("cluster.od.original_dst_host_invalid") == 1
    found = one.pick(to("10.1.1.1", header=b"nonsense"))
    assert found is not None
    assert found.address == "10.1.1.1:80"
    bench.manager.close()


def test_the_header_is_ignored_unless_configured(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original())
    assert made(bench).pick(to("", header=b"10.2.2.2:90")) is None


def test_idle_endpoints_go_after_a_whole_interval(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original(cleanup_interval_s=2.0))
    one = made(bench)
    idle, busy, chosen = one.pick(to("10.1.1.1")), one.pick(to("10.1.1.2")), one.pick(to("10.1.1.3"))
    assert idle is not None
    assert busy is not None
    busy.stats.cx_active = 1
    run(loop, 2.5)
    assert len(one.endpoints) == 3  # all were chosen in the first interval
    assert one.pick(to("10.1.1.3")) is chosen
    run(loop, 2.0)
    assert bench.removed == [idle]
    assert idle.removed
    busy.stats.cx_active = 0
    run(loop, 4.0)
    assert one.endpoints == ()
    assert bench.stat("cluster.od.membership_total") == 0
    assert one.pick(to("10.1.1.1")) is not idle
    bench.manager.close()


def test_updates(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(original())
    found = made(bench).pick(to("10.1.1.1"))
    bench.apply(original(cleanup_interval_s=9.0))
    assert made(bench).pick(to("10.1.1.1")) is found
    bench.apply(original(connect_timeout_s=9.0))
    assert bench.removed == [found]
    assert made(bench).pick(to("10.1.1.1")) is not found
    bench.manager.close()
    assert len(bench.removed) == 2


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"1.2.3.4:80", ("1.2.3.4", 80)),
        (b"[::1]:65535", ("::1", 65535)),
        (b"1.2.3.4", None),
        (b"1.2.3.4:", None),
        (b"1.2.3.4:65536", None),
        (b"1.2.3.4:-1", None),
        (b"1.2.3.4:8\xb2", None),
        (b"::1:80", None),
        (b"[1.2.3.4]:80", None),
        (b"name:80", None),
        (b"", None),
    ],
)
def test_addresses(text: bytes, address: tuple[str, int] | None) -> None:
    assert parse_address(text) == address
