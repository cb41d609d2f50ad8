import random
from collections import Counter
from dataclasses import replace

import pytest
from upstream_support import Bench, cluster, endpoint, hosts, locality, with_endpoints

from mesh_proxy.config.model import ThresholdsConfig
from mesh_proxy.config.model.tls import CommonTlsConfig, UpstreamTlsConfig
from mesh_proxy.upstream.cluster import Cluster, LbContext


def addresses(one: Cluster, picks: int) -> list[str]:
    return [found.address if (found := one.pick()) else "-" for _ in range(picks)]


def made(bench: Bench, name: str = "c") -> Cluster:
    found = bench.manager.get(name)
    assert found is not None
    return found


def test_round_robin_goes_around() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(cluster("c", *hosts(3)))
    assert addresses(made(bench), 4) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]
    assert bench.stat("cluster.c.membership_total") == 3
    assert bench.stat("cluster.c.membership_healthy") == 3
    assert bench.stat("cluster.c.membership_change") == 1


def test_unhealthy_ones_are_left_out() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(
        cluster(
            "c", *hosts(3), endpoint("10.0.0.9:80", health_status="UNHEALTHY"), endpoint("[::1]:80", health_status="DRAINING")
        )
    )
    assert set(addresses(made(bench), 10)) == {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
    assert bench.stat("cluster.c.membership_total") == 5
    assert bench.stat("cluster.c.membership_healthy") == 3
    assert bench.stat("cluster.c.lb_healthy_panic") == 0


def test_nobody_there_is_counted() -> None:
    bench = Bench()
    bench.apply(cluster("c"))
    assert made(bench).pick() is None
    assert made(bench).pick(LbContext()) is None
    assert bench.stat("cluster.c.upstream_cx_none_healthy") == 2
    assert bench.stat("cluster.c.membership_change") == 0


def test_panic_calls_everybody_and_counts() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(cluster("c", endpoint("10.0.0.1:80"), *hosts(4, health_status="UNHEALTHY")[1:]))
    assert len(set(addresses(made(bench), 4))) == 4
    assert bench.stat("cluster.c.lb_healthy_panic") == 4


def test_without_panic_nobody_unhealthy_is_called() -> None:
    bench = Bench()
    bench.apply(cluster("c", *hosts(4, health_status="UNHEALTHY"), panic_threshold_percent=0.0))
    assert made(bench).pick() is None
    assert bench.stat("cluster.c.upstream_cx_none_healthy") == 1
    assert bench.stat("cluster.c.lb_healthy_panic") == 0


def test_runtime_overrides_the_panic_threshold() -> None:
    bench = Bench(runtime={"upstream.healthy_panic_threshold": 0})
    bench.apply(cluster("c", *hosts(2, health_status="UNHEALTHY")))
    assert made(bench).pick() is None


def test_health_changes_count_after_refresh() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(cluster("c", *hosts(3)))
    one = made(bench)
    one.endpoints[0].ejected = True
    one.refresh()
    assert set(addresses(one, 6)) == {"10.0.0.2:80", "10.0.0.3:80"}
    assert bench.stat("cluster.c.membership_healthy") == 2
    one.endpoints[0].ejected = False
    one.refresh()
    assert len(set(addresses(one, 6))) == 3


def test_priorities_share_by_health() -> None:
    bench = Bench()
    first = hosts(2) + [endpoint(f"10.0.1.{i}:80", health_status="UNHEALTHY") for i in range(2)]
    second = [endpoint(f"10.0.2.{i}:80") for i in range(4)]
    bench.apply(cluster("c", locality(first), locality(second, priority=1)))
    counted = Counter(address.split(".")[2] for address in addresses(made(bench), 10_000))
    assert abs(counted["0"] - 7000) < 200  # 50 % healthy * 1.4
    assert counted["1"] == 0
    assert abs(counted["2"] - 3000) < 200


def test_only_the_next_priority_when_the_first_is_gone() -> None:
    bench = Bench()
    bench.apply(cluster("c", locality(hosts(2, health_status="TIMEOUT")), locality([endpoint("10.0.9.9:80")], priority=1)))
    assert set(addresses(made(bench), 20)) == {"10.0.9.9:80"}


def test_degraded_endpoints_take_the_rest() -> None:
    bench = Bench()
    bench.apply(cluster("c", endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80", health_status="DEGRADED")))
    counted = Counter(addresses(made(bench), 5000))
    assert abs(counted["10.0.0.1:80"] - 3500) < 150
    assert bench.stat("cluster.c.membership_degraded") == 1
    assert bench.stat("cluster.c.membership_healthy") == 1


def test_locality_weights_only_when_asked_for() -> None:
    parts = (
        locality([endpoint("10.0.1.1:80")], weight=1, region="a"),
        locality([endpoint("10.0.2.1:80"), endpoint("10.0.2.2:80")], weight=3, region="b"),
    )
    bench = Bench()
    bench.apply(cluster("c", *parts), cluster("w", *parts, locality_weighted=True))
    counted = Counter(addresses(made(bench), 400))
    assert max(counted.values()) - min(counted.values()) <= 1
    counted = Counter(addresses(made(bench, "w"), 400))
    assert counted == {"10.0.1.1:80": 100, "10.0.2.1:80": 150, "10.0.2.2:80": 150}


def test_a_locality_that_is_down_gives_its_load_away() -> None:
    bench = Bench()
    sick = [endpoint("10.0.1.1:80"), endpoint("10.0.1.2:80", health_status="UNHEALTHY")]
    bench.apply(
        cluster(
            "c",
            locality(sick, weight=1, region="a"),
            locality([endpoint("10.0.2.1:80")], weight=1, region="b"),
            locality([endpoint("10.0.3.1:80")], region="no weight, no load"),
            locality_weighted=True,
        )
    )
    counted = Counter(addresses(made(bench), 1700))
    assert abs(counted["10.0.1.1:80"] - 700) <= 2  # 1 * min(1, 1.4 * 1/2) against 1
    assert abs(counted["10.0.2.1:80"] - 1000) <= 2


def test_localities_without_weights_are_one() -> None:
    bench = Bench()
    bench.apply(cluster("c", locality(hosts(2)), locality_weighted=True))
    assert len(set(addresses(made(bench), 4))) == 2


def test_tried_endpoints_are_avoided_a_few_times() -> None:
    bench = Bench(uniform=lambda: 0.0)
    bench.apply(cluster("c", *hosts(3)))
    one = made(bench)
    context = LbContext()
    context.avoid = {one.endpoints[0], one.endpoints[1]}
    context.attempts = 2
    assert one.pick(context) is one.endpoints[2]
    context.attempts = 1
    assert one.pick(context) is one.endpoints[1]  # the last choice stands
    context.avoid = None
    assert one.pick(context) is one.endpoints[2]


class TestUpdate:
    def test_an_address_that_stays_keeps_its_endpoint(self) -> None:
        bench = Bench()
        config = cluster("c", *hosts(3))
        bench.apply(config)
        one = made(bench)
        first, second, third = one.endpoints
        second.stats.rq_total = 7
        bench.apply(with_endpoints(config, endpoint("10.0.0.2:80", weight=5), endpoint("10.0.0.4:80")))
        assert made(bench) is one
        assert one.endpoints[0] is second
        assert (second.weight, second.stats.rq_total, second.removed) == (5, 7, False)
        assert bench.removed == [first, third]
        assert first.removed
        assert third.removed
        assert Counter(addresses(one, 12)) == {"10.0.0.2:80": 10, "10.0.0.4:80": 2}
        assert bench.stat("cluster.c.membership_change") == 2
        assert bench.stat("cluster.c.membership_total") == 2

    def test_an_equal_configuration_touches_nothing(self) -> None:
        bench = Bench()
        bench.apply(cluster("c", *hosts(3)))
        one = made(bench)
        before, chooser = one.endpoints, one._choose
        bench.apply(cluster("c", *hosts(3)))
        assert one.endpoints is before
        assert one._choose is chooser
        assert bench.stat("cluster.c.membership_change") == 1

    def test_health_and_weight_alone_are_no_membership_change(self) -> None:
        bench = Bench()
        config = cluster("c", *hosts(2))
        bench.apply(config)
        bench.apply(with_endpoints(config, *hosts(2, health_status="UNHEALTHY")))
        assert bench.stat("cluster.c.membership_change") == 1
        assert bench.stat("cluster.c.membership_healthy") == 0
        assert bench.removed == []

    @pytest.mark.parametrize(
        "change",
        [
            {"connect_timeout_s": 1.0},
            {"upstream_protocol": "HTTP2"},
            {"transport_socket": UpstreamTlsConfig(common=CommonTlsConfig())},
        ],
    )
    def test_what_connections_depend_on_makes_endpoints_new(self, change: dict[str, object]) -> None:
        bench = Bench()
        config = cluster("c", *hosts(2))
        bench.apply(config)
        one = made(bench)
        before = one.endpoints
        bench.apply(replace(config, **change))
        assert made(bench) is one
        assert bench.removed == list(before)
        assert not set(before) & set(one.endpoints)

    def test_limits_change_under_the_requests_in_flight(self) -> None:
        bench = Bench()
        config = cluster("c", *hosts(1))
        bench.apply(config)
        one = made(bench)
        before = one.endpoints
        one.default.add_request()
        bench.apply(replace(config, thresholds=ThresholdsConfig(max_requests=1)))
        assert not one.default.can_create_request()
        assert one.endpoints == before

    def test_a_removed_cluster_lets_go_of_everything(self) -> None:
        bench = Bench()
        bench.apply(cluster("c", *hosts(2)), cluster("d", *hosts(1)))
        one = made(bench)
        endpoints = one.endpoints
        bench.apply(cluster("d", *hosts(1)))
        assert bench.manager.get("c") is None
        assert bench.removed == list(endpoints)
        assert one.pick() is None
        assert {group.prefix.split(".")[1] for group in bench.registry} == {"d"}

    def test_another_kind_is_another_cluster(self) -> None:
        bench = Bench()
        config = cluster("c", *hosts(2))
        bench.apply(config)
        one = made(bench)
        bench.apply(replace(config, kind="EDS"))
        assert made(bench) is not one
        assert len(bench.removed) == 2

    def test_another_stat_name_moves_the_statistics(self) -> None:
        bench = Bench()
        config = cluster("c", *hosts(2))
        bench.apply(config)
        bench.apply(replace(config, alt_stat_name="a:b"))
        assert bench.stat("cluster.a_b.membership_total") == 2
        assert not [group for group in bench.registry if group.prefix.startswith("cluster.c.")]


def test_static_keeps_an_address_that_is_listed_twice_and_eds_does_not() -> None:
    bench = Bench()
    twice = [endpoint("10.0.0.1:80"), endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")]
    static = cluster("static", *twice)
    bench.apply(static, cluster("eds", *twice, kind="EDS"))
    assert Counter(addresses(made(bench, "static"), 9))["10.0.0.1:80"] == 6
    assert len(made(bench, "eds").endpoints) == 2
    one = made(bench, "static")
    before = one.endpoints
    bench.apply(replace(static, lb_policy="RANDOM"), cluster("eds", *twice, kind="EDS"))
    assert one.endpoints == before


def test_distribution_over_restarts_is_even() -> None:
    """Every refresh begins anew at a random place, so that frequent updates favour nobody."""
    bench = Bench(uniform=random.Random(11).random)
    bench.apply(cluster("c", *hosts(4)))
    one = made(bench)
    counted: Counter[str] = Counter()
    for _ in range(4000):
        one.refresh()
        counted.update(addresses(one, 1))
    assert max(counted.values()) < 1150
