"""What one worker's health checks are to the others: two workers, virtual time, and probes that find what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from upstream_support import Bench, FakeResolver, VirtualTimeLoop, cluster, endpoint, hosts, with_endpoints

from mesh_proxy.config.model import ClusterConfig
from mesh_proxy.config.model.health import HealthCheckConfig, TcpCheckConfig
from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.health import board as board_module
from mesh_proxy.upstream.health import checker
from mesh_proxy.upstream.health.board import HealthBoard, table_size
from mesh_proxy.upstream.health.flags import EXCLUDED, FAILED, PENDING, REMOVAL
from mesh_proxy.upstream.health.probes import Finding
from mesh_proxy.worker.shared import SharedTables

CHECK = HealthCheckConfig(
    check=TcpCheckConfig(), timeout_s=1.0, interval_s=2.0, unhealthy_threshold=2, healthy_threshold=3,
    no_traffic_interval_s=20.0, no_traffic_healthy_interval_s=30.0,
    unhealthy_interval_s=4.0, unhealthy_edge_interval_s=0.5, healthy_edge_interval_s=0.25,
)  # fmt: skip
CONFIG = cluster("c", *hosts(3), health_check=CHECK)


class FakeProbe:
    """Finds what stands in `findings`."""

    def __init__(self, asked: list[tuple[float, str]], findings: dict[str, Finding], endpoint: Endpoint) -> None:
        self.asked = asked
        self.findings = findings
        self.endpoint = endpoint

    async def ask(self) -> Finding:
        address = self.endpoint.address.partition(":")[0]
        self.asked.append((asyncio.get_running_loop().time(), address))
        finding = self.findings.get(address, Finding.GOOD)
        if finding is Finding.SILENCE:
            await asyncio.Event().wait()
        if finding is Finding.NETWORK:
            raise ConnectionRefusedError
        return finding

    def close(self) -> None: ...


class Sidecar:
    def __init__(self, loop: VirtualTimeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.asked: list[tuple[float, str]] = []
        self.findings: dict[str, Finding] = {}
        monkeypatch.setattr(
            checker, "make_probe", lambda cluster, endpoint, config, stats: FakeProbe(self.asked, self.findings, endpoint)
        )
        self.shared = SharedTables({board_module.TABLE_NAME: table_size(2)}, worker_count=2)
        self.resolver = FakeResolver(loop)
        self.workers = [self.start(0), self.start(1)]

    def start(self, index: int) -> Bench:
        return Bench(self.loop, health_board=HealthBoard.of(self.shared, index), resolver=self.resolver)

    def apply(self, config: ClusterConfig) -> None:
        async def both() -> None:
            for worker in self.workers:
                worker.apply(config)

        self.loop.run_until_complete(both())

    def cluster(self, index: int) -> Cluster:
        found = self.workers[index].manager.get("c")
        assert found is not None
        return found

    def health(self, *indexes: int) -> list[list[int]]:
        return [[one.health for one in self.cluster(i).endpoints] for i in indexes or (0, 1)]

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    loop = VirtualTimeLoop()
    made = Sidecar(loop, monkeypatch)
    yield made
    for worker in made.workers:
        worker.manager.close()
    loop.run_until_complete(asyncio.sleep(0))
    assert not [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    loop.close()


def test_one_worker_needs_no_board() -> None:
    assert table_size(1) == 0
    assert HealthBoard.of(None, 0) is None


def test_one_checks_and_both_know(sidecar: Sidecar) -> None:
    sidecar.findings["10.0.0.2"] = Finding.BAD
    sidecar.apply(CONFIG)
    assert sidecar.health() == [[FAILED] * 3] * 2, "nobody is called before it was checked"
    sidecar.run(0.5)
    assert sidecar.health() == [[0, FAILED, 0]] * 2
    assert len(sidecar.asked) == 3, "once each, not once per worker"
    for worker in sidecar.workers:
        assert worker.stat("cluster.c.membership_healthy") == 2
    assert sidecar.workers[0].stat("cluster.c.health_check.failure") == 1


def test_the_start_waits_for_the_first_checks(sidecar: Sidecar) -> None:
    sidecar.findings["10.0.0.1"] = Finding.SILENCE
    sidecar.apply(CONFIG)

    async def warm() -> list[float]:
        before = sidecar.loop.time()
        await asyncio.gather(*(worker.manager.warm(10.0) for worker in sidecar.workers))
        return [sidecar.loop.time() - before]

    (waited,) = sidecar.loop.run_until_complete(warm())
    assert 1.0 <= waited <= 1.0 + 2 * board_module.POLL_S
    assert sidecar.health()[1] == sidecar.health()[0]


def test_intervals(sidecar: Sidecar) -> None:
    """Rare without traffic, also when it is another worker's; after that by state, quicker while a verdict is near."""
    one = with_endpoints(CONFIG, endpoint("10.0.0.1:80"))
    sidecar.apply(one)
    sidecar.run(61.0)
    times = [round(at - 1000.0, 1) for at, _ in sidecar.asked]
    assert times == [0.0, 30.0, 60.0]
    sidecar.cluster(1).stats.upstream_cx_total += 1
    sidecar.run(33.5)  # 90 still came from the long interval, then every 2 s
    times = [round(at - 1000.0, 1) for at, _ in sidecar.asked]
    assert times[3:] == [90.0, 92.0, 94.0]
    sidecar.findings["10.0.0.1"] = Finding.NETWORK
    sidecar.run(7.0)  # 96 fails, 96.5 fails and ends trust, then every 4 s
    sidecar.findings.clear()
    sidecar.run(4.0)  # 104.5 is good, 104.75, 105 makes it healthy, then every 2 s
    times = [round(at - 1000.0, 2) for at, _ in sidecar.asked]
    assert times[6:] == [96.0, 96.5, 100.5, 104.5, 104.75, 105.0]
    assert sidecar.health() == [[0]] * 2


def test_jitter_and_the_limits_of_the_runtime() -> None:
    loop = VirtualTimeLoop()
    bench = Bench(loop, uniform=lambda: 0.5, runtime={"health_check.min_interval": 3000})
    config = replace(CHECK, interval_jitter_s=1.0, interval_jitter_percent=50)
    subject = checker.HealthChecker.__new__(checker.HealthChecker)
    subject.config = config
    subject.environment = bench.manager._environment
    assert subject.jittered_s(4.0, 1.0) == 4.0 + 1.0 + 0.5
    assert subject.jittered_s(1.0, 0.0) == 3.0
    bench.manager.close()
    loop.close()


def test_bad_answers_and_broken_connections(sidecar: Sidecar) -> None:
    """An answer that says no ends trust at once; retriable ones, silence and broken connections count up."""
    for finding, immediately in ((Finding.BAD, True), (Finding.RETRIABLE, False), (Finding.NETWORK, False)):
        sidecar.findings.clear()
        sidecar.apply(with_endpoints(CONFIG, endpoint("10.0.0.1:80")))
        sidecar.run(0.5)
        sidecar.findings["10.0.0.1"] = finding
        sidecar.cluster(0).stats.upstream_cx_total += 1
        seen = len(sidecar.asked)
        while len(sidecar.asked) == seen:
            sidecar.run(0.1)
        assert (sidecar.health(0) == [[FAILED]]) is immediately, finding
        sidecar.run(1.0)
        assert sidecar.health() == [[FAILED]] * 2, finding
        for worker in sidecar.workers:
            worker.apply()


def test_immediate_failure_that_another_worker_saw(sidecar: Sidecar) -> None:
    sidecar.apply(CONFIG)
    sidecar.run(0.5)
    other = sidecar.cluster(1)
    assert other.health is not None
    other.health.immediate_failure(other.endpoints[2])
    sidecar.run(0.5)
    assert sidecar.health() == [[0, 0, FAILED | EXCLUDED]] * 2
    assert sidecar.workers[0].stat("cluster.c.health_check.passive_failure") == 1


def test_a_new_checker_goes_on_with_what_is_known(sidecar: Sidecar) -> None:
    sidecar.findings["10.0.0.2"] = Finding.BAD
    sidecar.apply(CONFIG)
    sidecar.run(0.5)
    sidecar.workers[0].manager._environment.health_board = None  # it died without taking leave
    sidecar.findings = {"10.0.0.1": Finding.NETWORK}
    sidecar.workers.append(replacement := sidecar.start(0))
    sidecar.loop.run_until_complete(_apply(replacement, CONFIG))
    found = replacement.manager.get("c")
    assert found is not None
    assert [one.health for one in found.endpoints] == [0, FAILED, 0], "before any check of its own"
    sidecar.run(0.5)
    assert sidecar.health(1) == [[0, FAILED, 0]], "one network failure, one success: both below the threshold"


async def _apply(worker: Bench, config: ClusterConfig) -> None:
    worker.apply(config)


def test_new_endpoints_may_wait_apart(sidecar: Sidecar) -> None:
    sidecar.findings["10.0.0.1"] = Finding.SILENCE
    sidecar.apply(replace(CONFIG, ignore_new_until_checked=True))
    assert sidecar.health() == [[FAILED | PENDING] * 3] * 2
    assert sidecar.workers[0].stat("cluster.c.membership_excluded") == 3
    sidecar.run(1.5)
    assert [state & PENDING for state in sidecar.health()[1]] == [0, 0, 0]


def test_what_discovery_drops_stays_while_it_is_well(sidecar: Sidecar) -> None:
    for ignore in (False, True):
        named = cluster("c", endpoint("svc:80"), kind="STRICT_DNS", health_check=CHECK, ignore_health_on_removal=ignore)
        sidecar.findings.clear()
        sidecar.resolver.answers["svc"] = ["10.0.0.1", "10.0.0.2"]
        sidecar.apply(named)
        sidecar.run(1.0)
        sidecar.resolver.answers["svc"] = ["10.0.0.2"]
        sidecar.run(6.0)
        assert sidecar.health() == [[0] if ignore else [0, REMOVAL]] * 2
        sidecar.findings["10.0.0.1"] = Finding.BAD
        sidecar.cluster(0).stats.upstream_cx_total += 1
        sidecar.run(40.0)
        assert sidecar.health() == [[0]] * 2
        assert [one.host for one in sidecar.cluster(1).endpoints] == ["10.0.0.2"]
        for worker in sidecar.workers:
            worker.apply()


def test_more_endpoints_than_the_board_holds(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "ROWS", 2)
    sidecar.findings["10.0.0.1"] = Finding.BAD
    sidecar.apply(CONFIG)
    sidecar.run(0.5)
    assert sidecar.health() == [[FAILED, 0, 0]] * 2, "who is missing is taken for healthy"


def test_rows_are_used_again(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "ROWS", 3)
    for first in (1, 4, 7):
        sidecar.apply(with_endpoints(CONFIG, *(endpoint(f"10.0.0.{first + i}:80") for i in range(3))))
        sidecar.run(0.5)
        assert sidecar.health() == [[0, 0, 0]] * 2
    board: Any = sidecar.workers[0].manager._environment.health_board
    assert not board._memory[board_module._OVERFLOW]
