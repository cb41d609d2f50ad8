"""RING_HASH and MAGLEV. That the tables are Envoy's own is tested against Envoy in tests/envoy/test_hashing.py."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from upstream_support import Bench, cluster, endpoint, hosts, locality, with_endpoints

from mesh_proxy.config.model import ClusterConfig
from mesh_proxy.upstream.cluster import Cluster, LbContext
from mesh_proxy.upstream.xxhash64 import xxhash64

POLICIES = ["RING_HASH", "MAGLEV"]


def made(config: ClusterConfig, **options: Any) -> tuple[Bench, Cluster]:
    bench = Bench(**options)
    bench.apply(config)
    found = bench.manager.get("c")
    assert found is not None
    return bench, found


def hashed(value: int | None) -> LbContext:
    context = LbContext()
    context.hash = value
    return context


def address(one: Cluster, value: int | None) -> str:
    found = one.pick(hashed(value))
    assert found is not None
    return found.address


VALUES = [xxhash64(b"%d" % i) for i in range(2000)]


@pytest.mark.parametrize(
    ("data", "seed", "value"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        (b"", 1, 0xD5AFBA1336A3BE4B),
    ],
)
def test_xxhash64(data: bytes, seed: int, value: int) -> None:
    assert xxhash64(data, seed) == value


@pytest.mark.parametrize("policy", POLICIES)
def test_a_hash_always_finds_the_same_endpoint(policy: str) -> None:
    _, one = made(cluster("c", *hosts(5), lb_policy=policy))
    assert one.needs_context
    first = [address(one, value) for value in VALUES]
    assert [address(one, value) for value in VALUES] == first
    counted = Counter(first)
    assert len(counted) == 5
    assert min(counted.values()) > 250


@pytest.mark.parametrize(("policy", "most"), [("RING_HASH", 0.15), ("MAGLEV", 0.06)])
def test_few_move_when_one_leaves(policy: str, most: float) -> None:
    config = cluster("c", *hosts(5), lb_policy=policy)
    bench, one = made(config)
    before = {value: address(one, value) for value in VALUES}
    bench.apply(with_endpoints(config, *hosts(5)[:4]))
    stayed = [value for value in VALUES if before[value] != "10.0.0.5:80"]
    moved = sum(1 for value in stayed if address(one, value) != before[value])
    assert moved <= most * len(stayed)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_the_endpoints_does_not_matter(policy: str) -> None:
    config = cluster("c", *hosts(5), lb_policy=policy)
    bench, one = made(config)
    before = [address(one, value) for value in VALUES]
    bench.apply(with_endpoints(config, *reversed(hosts(5))))
    same = sum(a == address(one, value) for a, value in zip(before, VALUES, strict=True))
    assert same > 0.97 * len(VALUES)


@pytest.mark.parametrize("policy", POLICIES)
def test_weights(policy: str) -> None:
    _, one = made(cluster("c", endpoint("10.0.0.1:80", weight=1), endpoint("10.0.0.2:80", weight=3), lb_policy=policy))
    assert 0.68 < sum(address(one, value) == "10.0.0.2:80" for value in VALUES) / len(VALUES) < 0.82


@pytest.mark.parametrize("policy", POLICIES)
def test_locality_weights(policy: str) -> None:
    parts = (
        locality([endpoint("10.0.1.1:80")], weight=1, region="a"),
        locality([endpoint("10.0.2.1:80"), endpoint("10.0.2.2:80")], weight=1, region="b"),
    )
    _, one = made(cluster("c", *parts, lb_policy=policy, locality_weighted=True))
    assert 0.43 < sum(address(one, value) == "10.0.1.1:80" for value in VALUES) / len(VALUES) < 0.57
    unweighted = [locality(part.endpoints, region=part.locality.region) for part in parts]
    _, one = made(cluster("c", *unweighted, lb_policy=policy, locality_weighted=True))
    assert 0.26 < sum(address(one, value) == "10.0.1.1:80" for value in VALUES) / len(VALUES) < 0.41


@pytest.mark.parametrize("policy", POLICIES)
def test_requests_without_a_hash_go_anywhere(policy: str) -> None:
    _, one = made(cluster("c", *hosts(4), lb_policy=policy), uniform=random.Random(5).random)
    counted = Counter(address(one, None) for _ in range(2000))
    assert min(counted.values()) > 350
    assert one.pick() is not None
    address(one, 7)
    assert len({found.address for _ in range(50) if (found := one.pick())}) == 4  # the last hash is not remembered


@pytest.mark.parametrize("policy", POLICIES)
def test_a_retry_goes_elsewhere(policy: str) -> None:
    _, one = made(cluster("c", *hosts(3), lb_policy=policy))
    for value in VALUES[:50]:
        context = hashed(value)
        first = one.pick(context)
        assert first is not None
        context.avoid = {first}
        context.attempts = 10
        second = one.pick(context)
        assert second is not first
        assert one.pick(hashed(value)) is first


@pytest.mark.parametrize("policy", POLICIES)
def test_unhealthy_ones_are_not_in_the_table(policy: str) -> None:
    _, one = made(cluster("c", *hosts(3), endpoint("10.0.0.9:80", health_status="UNHEALTHY"), lb_policy=policy))
    assert {address(one, value) for value in VALUES} == {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}


def test_priorities_are_chosen_by_the_hash_too() -> None:
    parts = (locality([endpoint("10.0.1.1:80"), endpoint("10.0.1.2:80", health_status="UNHEALTHY")]),)
    _, one = made(cluster("c", *parts, locality([endpoint("10.0.2.1:80")], priority=1), lb_policy="RING_HASH"))
    assert [address(one, value) for value in (0, 69, 70, 99, 169)] == ["10.0.1.1:80"] * 2 + ["10.0.2.1:80"] * 2 + ["10.0.1.1:80"]


@pytest.mark.parametrize("policy", POLICIES)
def test_other_keys(policy: str) -> None:
    named = [endpoint("10.0.0.1:80", hostname="a"), endpoint("10.0.0.2:80", hostname="b")]
    swapped = [endpoint("10.0.0.1:80", hostname="b"), endpoint("10.0.0.2:80", hostname="a")]
    _, one = made(cluster("c", *named, lb_policy=policy, hash_by_hostname=True))
    _, two = made(cluster("c", *swapped, lb_policy=policy, hash_by_hostname=True))
    assert {address(one, value) != address(two, value) for value in VALUES[:100]} == {True}
    keyed = [
        endpoint("10.0.0.3:80", metadata={"envoy.lb": {"hash_key": "a"}}),
        endpoint("10.0.0.4:80", metadata={"envoy.lb": {"hash_key": "b"}}),
    ]
    _, three = made(cluster("c", *keyed, lb_policy=policy))
    assert {address(one, value)[-4] + address(three, value)[-4] for value in VALUES[:100]} == {"13", "24"}


def test_ring_sizes() -> None:
    _, one = made(cluster("c", *hosts(2), lb_policy="RING_HASH", ring_hash_minimum_size=1, ring_hash_maximum_size=2))
    assert len(one._choose.__self__._places) == 2  # type: ignore[attr-defined]
    _, one = made(cluster("c", *hosts(3), lb_policy="RING_HASH"))
    assert len(one._choose.__self__._places) == 1026  # type: ignore[attr-defined]


def test_the_policy_may_change() -> None:
    config = cluster("c", *hosts(3), lb_policy="RING_HASH")
    bench, one = made(config)
    bench.apply(cluster("c", *hosts(3)))
    assert not one.needs_context
    assert len({found.address for _ in range(3) if (found := one.pick())}) == 3
    bench.apply(config)
    assert one.needs_context
