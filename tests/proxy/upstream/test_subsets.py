"""Subsets as members come, go and fall ill. What routes get is compared with Envoy in tests/envoy/test_subsets.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from upstream_support import Bench, cluster, endpoint

from mesh_proxy.config.model import ClusterConfig, EndpointConfig, SubsetConfig, SubsetSelectorConfig
from mesh_proxy.upstream.cluster import Cluster, LbContext
from mesh_proxy.upstream.subsets import freeze


def member(number: int, health: str = "UNKNOWN", **labels: Any) -> EndpointConfig:
    return endpoint(f"10.0.0.{number}:80", metadata={"envoy.lb": labels}, health_status=health)


def config(*members: EndpointConfig, policy: str = "NO_FALLBACK", **more: Any) -> ClusterConfig:
    subsets = SubsetConfig(selectors=(SubsetSelectorConfig(keys=("v",), **more),), fallback_policy=policy)
    return cluster("c", *members, subsets=subsets)


def made(bench: Bench) -> Cluster:
    found = bench.manager.get("c")
    assert found is not None
    return found


def ask(one: Cluster, picks: int = 4, **match: Any) -> set[str]:
    context = LbContext()
    context.metadata_match = match or None
    return {"-" if (found := one.pick(context)) is None else found.host[-1] for _ in range(picks)}


def test_members_change() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(config(member(1, v="a"), member(2, v="a"), member(3, v="b")))
    assert ask(made(bench), v="a") == {"1", "2"}
    assert bench.stat("cluster.c.lb_subsets_active") == 2
    bench.apply(config(member(1, v="b"), member(3, v="b")))
    assert ask(made(bench), v="a") == {"-"}
    assert ask(made(bench), v="b") == {"1", "3"}
    assert bench.stat("cluster.c.lb_subsets_active") == 1
    assert bench.stat("cluster.c.lb_subsets_removed") == 1


def test_a_retry_avoids_within_the_subset() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(config(member(1, v="a"), member(2, v="a"), member(3, v="b")))
    one = made(bench)
    context = LbContext()
    context.metadata_match = {"v": "a"}
    first = one.pick(context)
    assert first is not None
    context.avoid, context.attempts = {first}, 3
    assert {found.host for _ in range(6) if (found := one.pick(context)) is not None} == {"10.0.0.1", "10.0.0.2"} - {first.host}


def test_health_within_a_subset() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(config(member(1, v="a"), member(2, "UNHEALTHY", v="a"), member(3, v="b")))
    one = made(bench)
    assert one.subsets is not None
    assert one.subsets.health({"v": "a"}) == (1, 2)
    assert one.subsets.health({"v": "z"}) == (0, 0)
    assert one.subsets.health({"w": "a"}) == (0, 0)
    one.endpoints[0].ejected = True
    one.refresh()
    assert one.subsets.health({"v": "a"}) == (0, 2)
    assert ask(one, v="a") == {"1", "2"}, "panic within the subset"


def test_the_configuration_of_subsets_changes() -> None:
    bench = Bench(uniform=lambda: 0.0)
    members = (member(1, v="a"), member(2, v="b"))
    bench.apply(replace(config(*members), subsets=None))
    one = made(bench)
    assert not one.needs_context
    bench.apply(config(*members))
    assert one.needs_context
    assert ask(one, v="a") == {"1"}
    assert ask(one) == {"-"}
    bench.apply(config(*members, policy="ANY_ENDPOINT"))
    assert ask(one) == {"1", "2"}
    assert one.pick() is not None, "who brings no context gets the fallback"
    assert bench.stat("cluster.c.lb_subsets_fallback") == 5


def test_one_endpoint_per_value() -> None:
    bench = Bench()
    bench.apply(config(member(1, v="a"), member(2, v="a"), single_host_per_subset=True))
    assert ask(made(bench), v="a") == {"1"}


def test_values_are_equal_only_with_their_types() -> None:
    values = [1, 1.5, True, False, 0, "1", "", None, [1], ["1"], {"a": 1}, {"a": True}]
    assert len({freeze(value) for value in values}) == len(values)
    assert freeze(1) == freeze(1.0)
