from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from upstream_support import Bench, VirtualTimeLoop, cluster, hosts, with_endpoints

from mesh_proxy.config.model import OutlierDetectionConfig
from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.ejection_board import TABLE_NAME, EjectionBoard, table_size, tag
from mesh_proxy.worker.shared import SharedTables

OUTLIERS = OutlierDetectionConfig(consecutive_5xx=1, max_ejection_percent=100, interval_s=2.0, base_ejection_time_s=5.0)
CONFIG = cluster("c", *hosts(3), outlier_detection=OUTLIERS)


class Sidecar:
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.shared = SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)
        self.workers = [self.start(0), self.start(1)]
        for worker in self.workers:
            worker.apply(CONFIG)

    def start(self, index: int) -> Bench:
        return Bench(self.loop, board=EjectionBoard.of(self.shared, index))

    def cluster(self, index: int) -> Cluster:
        found = self.workers[index].manager.get("c")
        assert found is not None
        return found

    def fail(self, worker: int, endpoint: int) -> None:
        one = self.cluster(worker)
        one.on_result(one.endpoints[endpoint], 500)

    def ejected(self) -> list[list[int]]:
        return [[i for i, one in enumerate(self.cluster(w).endpoints) if one.ejected] for w in (0, 1)]

    def active(self) -> list[int]:
        return [worker.stat("cluster.c.outlier_detection.ejections_active") for worker in self.workers]

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    loop = VirtualTimeLoop()
    made = Sidecar(loop)
    yield made
    for worker in made.workers:
        worker.manager.close()
    assert not [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    loop.close()


def test_one_worker_needs_none() -> None:
    assert table_size(1) == 0
    assert EjectionBoard.of(None, 0) is None
    assert EjectionBoard.of(SharedTables({TABLE_NAME: 0}, worker_count=1), 0) is None


def test_the_other_worker_follows_and_comes_back(sidecar: Sidecar) -> None:
    sidecar.fail(0, 1)
    assert sidecar.ejected() == [[1], []]
    sidecar.run(1.1)
    assert sidecar.ejected() == [[1], [1]]
    assert sidecar.active() == [1, 1]
    assert {found.address for _ in range(6) if (found := sidecar.cluster(1).pick())} == {"10.0.0.1:80", "10.0.0.3:80"}
    assert sidecar.workers[1].stat("cluster.c.outlier_detection.ejections_enforced_total") == 0
    sidecar.run(6.0)
    assert sidecar.ejected() == [[], []]
    assert sidecar.active() == [0, 0]


def test_each_keeps_its_own_time(sidecar: Sidecar) -> None:
    sidecar.fail(0, 1)
    sidecar.run(0.5)
    sidecar.fail(1, 1)
    sidecar.run(5.3)
    assert sidecar.active() == [1, 1]
    sidecar.run(1.5)  # after the tick at 6, and another look
    assert sidecar.active() == [0, 0]
    sidecar.fail(0, 2)
    sidecar.run(1.0)
    sidecar.fail(1, 0)
    sidecar.run(1.0)
    assert sidecar.ejected() == [[0, 2], [0, 2]]


def test_what_another_does_not_trust_stays_out(sidecar: Sidecar) -> None:
    sidecar.cluster(0).endpoints[1].monitor.backoff = 3  # worker 0 has seen it fail before
    sidecar.fail(0, 1)
    sidecar.fail(1, 1)
    sidecar.run(7.5)
    assert sidecar.ejected() == [[1], [1]]
    assert sidecar.cluster(1).endpoints[1].monitor.by_others
    sidecar.run(20.0)
    assert sidecar.ejected() == [[], []]


def test_a_new_member_is_looked_up(sidecar: Sidecar) -> None:
    sidecar.fail(0, 2)
    sidecar.run(1.5)
    sidecar.workers[1].apply(with_endpoints(CONFIG, *hosts(2)))
    assert sidecar.active() == [1, 0]
    sidecar.workers[1].apply(CONFIG)
    assert sidecar.ejected() == [[2], [2]]
    assert sidecar.workers[1].stat("cluster.c.membership_healthy") == 2


def test_a_replaced_worker_forgets(sidecar: Sidecar) -> None:
    sidecar.fail(0, 1)
    sidecar.run(1.5)
    old, sidecar.workers[0] = sidecar.workers[0], sidecar.start(0)
    sidecar.workers[0].apply(CONFIG)
    sidecar.run(1.5)
    assert sidecar.ejected() == [[], []]
    old.manager.close()


def test_a_removed_cluster_withdraws(sidecar: Sidecar) -> None:
    sidecar.fail(0, 1)
    sidecar.run(1.5)
    sidecar.workers[0].apply()
    sidecar.run(1.5)
    assert not [one for one in sidecar.cluster(1).endpoints if one.ejected]


def test_a_full_row_is_no_error() -> None:
    shared = SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)
    ours, theirs = EjectionBoard.of(shared, 0), EjectionBoard.of(shared, 1)
    assert ours is not None
    assert theirs is not None
    tags = [tag("c", str(i)) for i in range(300)]
    for one in tags:
        ours.post(one)
    theirs.look()
    assert theirs.tags == set(tags[:255])
    ours.withdraw(tags[299])
    ours.withdraw(tags[0])
    theirs.look()
    assert theirs.tags == set(tags[1:255])
