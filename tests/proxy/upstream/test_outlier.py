"""Counts and decisions as Envoy 1.40 made them for the same sequences of answers; times are virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from upstream_support import Bench, VirtualTimeLoop, cluster, hosts, with_endpoints

from mesh_proxy.config.model import OutlierDetectionConfig
from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.outlier import ejection_threshold
from mesh_proxy.upstream.ticker import Ticker


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    yield made
    made.close()


class OutlierBench(Bench):
    def __init__(self, loop: VirtualTimeLoop, count: int = 2, runtime: dict[str, object] | None = None, **fields: object) -> None:
        super().__init__(loop, runtime=runtime)
        self.loop = loop
        fields.setdefault("max_ejection_percent", 50)
        self.config = cluster("c", *hosts(count), outlier_detection=OutlierDetectionConfig(**fields))  # type: ignore[arg-type]
        self.apply(self.config)

    @property
    def cluster(self) -> Cluster:
        found = self.manager.get("c")
        assert found is not None
        return found

    def answers(self, index: int, *statuses: int) -> None:
        endpoint = self.cluster.endpoints[index]
        for status in statuses:
            self.cluster.on_result(endpoint, status)

    def ejected(self) -> list[int]:
        return [i for i, endpoint in enumerate(self.cluster.endpoints) if endpoint.ejected]

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def count(self, name: str) -> int:
        return self.stat(f"cluster.c.outlier_detection.ejections_{name}")


def test_a_cluster_without_it_tracks_nothing(loop: VirtualTimeLoop) -> None:
    bench = Bench(loop)
    bench.apply(cluster("c", *hosts(1)))
    one = bench.manager.get("c")
    assert one is not None
    assert not one.tracks_results
    one.on_result(one.endpoints[0], 500)
    assert one.describe_outlier() is None


def test_5xx_in_a_row_eject(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=3)
    assert bench.cluster.tracks_results
    bench.answers(0, 500, 500, 200, 500, 500)
    assert bench.ejected() == []
    bench.answers(0, 500)
    assert bench.ejected() == [0]
    assert {found.address for _ in range(6) if (found := bench.cluster.pick())} == {"10.0.0.2:80"}
    for name in ("consecutive_5xx", "detected_consecutive_5xx", "enforced_consecutive_5xx", "enforced_total", "total", "active"):
        assert bench.count(name) == 1, name
    assert bench.stat("cluster.c.membership_healthy") == 1
    assert bench.manager.describe()[0]["endpoints"][0]["health_flags"] == ["failed_outlier_check"]
    bench.answers(0, 500, 500, 500, 500)  # those that were under way
    assert bench.count("detected_consecutive_5xx") == 1


def test_gateway_failures_are_noticed_but_not_enforced_by_default(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop)
    bench.answers(0, 503, 502, 504, 503, 500, 503)
    assert bench.count("detected_consecutive_gateway_failure") == 0
    assert bench.ejected() == [0]  # five 5xx
    bench.answers(1, 503, 503, 503, 503, 503)
    assert bench.count("detected_consecutive_gateway_failure") == 1
    assert bench.count("enforced_consecutive_gateway_failure") == 0


def test_gateway_failures_enforced(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, enforcing_consecutive_gateway_failure=100)
    bench.answers(0, 503, 503, 503, 503, 503)
    assert bench.ejected() == [0]
    assert bench.count("enforced_consecutive_gateway_failure") == 1
    assert bench.count("detected_consecutive_5xx") == 0
    assert bench.count("total") == 0


def test_not_too_many_at_once(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=3, max_ejection_percent=10)
    bench.answers(0, *[500] * 12)
    assert bench.ejected() == []
    assert bench.count("overflow") == 4
    assert bench.count("detected_consecutive_5xx") == 4
    assert bench.count("total") == 0


def test_ten_percent_of_ten_is_one(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, count=10, consecutive_5xx=1, max_ejection_percent=10)
    bench.answers(3, 500)
    bench.answers(4, 500)
    assert bench.ejected() == [3]
    assert bench.count("overflow") == 1


def test_always_one_if_asked_for(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=1, max_ejection_percent=1, always_eject_one_host=True)
    bench.answers(0, 500)
    bench.answers(1, 500)
    assert bench.ejected() == [0]


def test_enforcement_by_percentage(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=1, enforcing_consecutive_5xx=40)
    bench.manager._environment.random = lambda: 0.4
    bench.answers(0, 500)
    assert bench.ejected() == []
    assert bench.count("total") == 1
    bench.manager._environment.random = lambda: 0.39
    bench.answers(0, 500)
    assert bench.ejected() == [0]


def test_runtime_overrides(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, runtime={"outlier_detection.consecutive_5xx": 2, "outlier_detection.enforcing_consecutive_5xx": 0})
    bench.answers(0, 500, 500)
    assert bench.count("detected_consecutive_5xx") == 1
    assert bench.ejected() == []


def test_the_time_out_grows_with_every_ejection_and_shrinks_with_good_behaviour(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=1, interval_s=1.0, base_ejection_time_s=3.0)
    bench.run(0.5)
    bench.answers(0, 500)
    bench.run(3.25)  # ticks at 1, 2, 3: out for 2.5 s
    assert bench.ejected() == [0]
    bench.run(0.5)  # the tick at 4
    assert bench.ejected() == []
    assert bench.count("active") == 0
    assert bench.stat("cluster.c.membership_healthy") == 2
    bench.answers(0, 500)  # at 4.25: twice the time
    bench.run(6.0)
    assert bench.ejected() == [0]
    bench.run(1.0)  # back at the tick at 11
    assert bench.ejected() == []
    assert bench.cluster.endpoints[0].monitor.backoff == 2
    bench.run(5.0)
    assert bench.cluster.endpoints[0].monitor.backoff == 0


def test_the_time_out_has_a_limit(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=1, interval_s=1.0, base_ejection_time_s=4.0, max_ejection_time_s=5.0)
    bench.cluster.endpoints[0].monitor.backoff = 2
    bench.answers(0, 500)
    assert bench.cluster.endpoints[0].monitor.backoff == 3  # 2 * 4 < 5 + 4
    bench.run(4.5)
    assert bench.ejected() == [0]
    bench.run(1.0)
    assert bench.ejected() == []


def test_coming_back_starts_the_count_anew(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=2, interval_s=1.0, base_ejection_time_s=1.0)
    bench.answers(0, 500, 500, 500)
    bench.run(1.5)
    assert bench.ejected() == []
    bench.answers(0, 500)
    assert bench.ejected() == []
    bench.answers(0, 500)
    assert bench.ejected() == [0]


def test_success_rate_outliers(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, count=5, consecutive_5xx=1000)
    for i in range(4):
        bench.answers(i, *[200] * 100)
    bench.answers(4, *[200] * 50, *[500] * 50)
    bench.run(10.5)
    assert bench.ejected() == [4]
    assert bench.count("enforced_success_rate") == 1
    assert bench.count("success_rate") == 1
    described = bench.cluster.describe_outlier()
    assert described is not None
    assert described["success_rate_average"] == pytest.approx(90.0)
    assert described["success_rate_ejection_threshold"] == pytest.approx(52.0)  # 90 - 1.9 * 20
    rates = [endpoint["success_rate"] for endpoint in bench.manager.describe()[0]["endpoints"]]
    assert rates == [100.0, 100.0, 100.0, 100.0, 50.0]
    bench.run(10.0)
    assert bench.cluster.endpoints[0].monitor.success_rate == -1.0
    assert bench.cluster.describe_outlier() == dict.fromkeys(described, -1.0)


def test_success_rate_needs_hosts_and_requests(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, count=5, consecutive_5xx=1000)
    for i in range(4):
        bench.answers(i, *[200] * 99)
    bench.answers(4, *[500] * 200)
    bench.run(10.5)
    assert bench.ejected() == []
    few = OutlierBench(loop, count=4, consecutive_5xx=1000)
    for i in range(3):
        few.answers(i, *[200] * 100)
    few.answers(3, *[500] * 200)
    few.run(10.5)
    assert few.ejected() == []


def test_failure_percentage(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, count=5, consecutive_5xx=1000, enforcing_failure_percentage=100)
    for i in range(3):
        bench.answers(i, *[200] * 50)
    bench.answers(3, *[200] * 8, *[500] * 42)  # 84 %
    bench.answers(4, *[200] * 7, *[500] * 43)  # 86 %
    bench.run(10.5)
    assert bench.ejected() == [4]
    assert bench.count("enforced_failure_percentage") == 1


def test_the_threshold_formula() -> None:
    assert ejection_threshold([100, 100, 100, 100, 50], 1.9) == (90.0, pytest.approx(52.0))


def test_membership_changes(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=1)
    bench.answers(0, 500)
    gone = bench.cluster.endpoints[0]
    bench.apply(with_endpoints(bench.config, *hosts(3)[1:]))
    assert bench.count("active") == 0
    assert bench.ejected() == []
    bench.cluster.on_result(gone, 500)  # a request that was still under way
    bench.answers(1, 500)
    assert bench.ejected() == [1]


def test_configuration_changes(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop, consecutive_5xx=2)
    bench.answers(0, 500)
    assert bench.config.outlier_detection is not None
    bench.apply(replace(bench.config, outlier_detection=replace(bench.config.outlier_detection, consecutive_5xx=3)))
    bench.answers(0, 500)
    assert bench.ejected() == []
    bench.answers(0, 500)
    assert bench.ejected() == [0]
    bench.apply(replace(bench.config, outlier_detection=None))
    assert bench.ejected() == []
    assert not bench.cluster.tracks_results
    assert bench.stat("cluster.c.membership_healthy") == 2
    bench.run(30.0)  # no tick of a closed detector
    bench.apply(bench.config)
    assert bench.cluster.tracks_results
    bench.answers(0, 500, 500)
    assert bench.ejected() == [0]
    bench.apply(replace(bench.config, alt_stat_name="x"))
    assert bench.stat("cluster.x.outlier_detection.ejections_active") == 0
    assert bench.ejected() == []


def test_removal_ends_the_timer(loop: VirtualTimeLoop) -> None:
    bench = OutlierBench(loop)
    bench.apply()
    with pytest.raises(RuntimeError, match="nothing left"):
        loop.run_forever()
    assert len(bench.registry) == 0


def test_one_timer_for_many_jobs(loop: VirtualTimeLoop) -> None:
    ticker = Ticker(loop)
    start = loop.time()
    seen: list[tuple[str, float]] = []
    ticker.every(3.0, lambda: seen.append(("slow", loop.time() - start)))
    fast = ticker.every(2.0, lambda: seen.append(("fast", loop.time() - start)))
    assert len([handle for handle in loop._scheduled if not handle.cancelled()]) == 1  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(4.5))
    assert seen == [("fast", 2.0), ("slow", 3.0), ("fast", 4.0)]
    fast.stop()
    loop.run_until_complete(asyncio.sleep(2.0))
    assert seen[3:] == [("slow", 6.0)]
    ticker.close()
    assert not [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
