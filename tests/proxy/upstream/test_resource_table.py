from __future__ import annotations

import mmap
import os
import struct

import pytest
from upstream_support import Bench, cluster, hosts

from mesh_proxy.config.model import ClusterConfig, ThresholdsConfig
from mesh_proxy.upstream import resource_table as module
from mesh_proxy.upstream.resource_table import TABLE_NAME, ResourceTable, clear_row, table_size
from mesh_proxy.upstream.resources import Resources
from mesh_proxy.worker.shared import SharedTables


class Sidecar:
    """Workers of one sidecar in one process: what they share is memory only."""

    def __init__(self, workers: int = 2) -> None:
        self.shared = SharedTables({TABLE_NAME: table_size(workers)}, worker_count=workers)
        self.workers = [self.start(i) for i in range(workers)]

    def start(self, index: int) -> Bench:
        return Bench(table=ResourceTable.of(self.shared, index))

    def apply(self, *configs: ClusterConfig) -> None:
        for worker in self.workers:
            worker.apply(*configs)

    def default(self, index: int, name: str = "c") -> Resources:
        found = self.workers[index].manager.get(name)
        assert found is not None
        return found.default


def limited(name: str = "c", **fields: int | float | bool) -> ClusterConfig:
    thresholds = ThresholdsConfig(max_connections=2, max_requests=2, max_pending_requests=2, max_retries=2)
    return cluster(name, *hosts(1), thresholds=thresholds, high_thresholds=ThresholdsConfig(max_requests=1), **fields)


def test_one_worker_needs_no_table() -> None:
    assert table_size(1) == 0
    assert ResourceTable.of(SharedTables({TABLE_NAME: 0}, worker_count=1), 0) is None
    assert ResourceTable.of(None, 0) is None
    bench = Bench()
    bench.apply(limited())
    found = bench.manager.get("c")
    assert found is not None
    assert type(found.default) is Resources


@pytest.mark.parametrize("what", ["connection", "pending", "request", "retry"])
def test_every_limit_holds_for_all_workers_together(what: str) -> None:
    sidecar = Sidecar()
    sidecar.apply(limited())
    a, b = sidecar.default(0), sidecar.default(1)
    question = "can_retry" if what == "retry" else f"can_create_{what}"
    getattr(a, f"add_{what}")()
    assert getattr(b, question)()
    getattr(b, f"add_{what}")()
    assert not getattr(a, question)()
    assert not getattr(b, question)()
    assert a.totals() == b.totals()
    assert sum(a.totals()) == 2
    getattr(a, f"remove_{what}")()
    assert getattr(b, question)()


def test_priorities_are_apart() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited())
    high = sidecar.workers[0].manager.get("c").high  # type: ignore[union-attr]
    high.add_request()
    assert not sidecar.workers[1].manager.get("c").high.can_create_request()  # type: ignore[union-attr]
    assert sidecar.default(1).totals() == (0, 0, 0, 0)


def test_the_retry_budget_counts_the_requests_of_all() -> None:
    sidecar = Sidecar()
    thresholds = ThresholdsConfig(retry_budget_percent=50.0, retry_budget_min_concurrency=1)
    sidecar.apply(cluster("c", *hosts(1), thresholds=thresholds))
    for _ in range(10):
        sidecar.default(0).add_request()
    assert sidecar.default(1).retry_limit() == 5
    sidecar.apply(limited())
    assert sidecar.default(1).retry_limit() == 2


def test_gauges_show_the_sum() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited())
    sidecar.default(0).add_request()
    sidecar.default(1).add_request()
    assert [worker.stat("cluster.c.circuit_breakers.default.rq_open") for worker in sidecar.workers] == [1, 1]


def test_places_follow_the_configuration() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited("a"), limited("b"), limited("c"))
    sidecar.default(0, "b").add_request()
    sidecar.default(0, "c").add_request()
    sidecar.apply(limited("c"), limited("b"))
    assert sidecar.default(1, "c").totals() == (0, 0, 1, 0)
    sidecar.default(0, "c").add_request()
    assert sidecar.default(1, "c").totals() == (0, 0, 2, 0)
    assert sidecar.default(1, "b").totals() == (0, 0, 1, 0)


def test_while_workers_differ_nothing_foreign_is_added_up() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited("a"), limited("b"))
    sidecar.default(0, "a").add_request()
    sidecar.default(0, "b").add_connection()
    sidecar.workers[1].apply(limited("b"), limited("c"))
    assert sidecar.default(1, "b").totals() == (0, 0, 0, 0)
    sidecar.workers[0].apply(limited("b"), limited("c"))
    assert sidecar.default(1, "b").totals() == (1, 0, 0, 0)


def test_a_replaced_worker_clears_its_row() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited())
    sidecar.default(0).add_request()
    sidecar.default(0).add_request()
    assert not sidecar.default(1).can_create_request()
    sidecar.workers[0] = sidecar.start(0)
    assert sidecar.default(1).can_create_request()
    sidecar.workers[0].apply(limited())
    sidecar.default(0).add_request()
    assert sidecar.default(1).totals() == (0, 0, 1, 0)
    clear_row(sidecar.shared.table(TABLE_NAME), 0)
    assert sidecar.default(1).totals() == (0, 0, 0, 0)


def test_a_removed_cluster_leaves_no_trace() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited("a"))
    old = sidecar.default(0, "a")
    old.add_request()
    sidecar.apply()
    assert not any(sidecar.shared.table(TABLE_NAME))
    sidecar.apply(limited("b"))
    old.remove_request()  # the last request of the old cluster ends
    assert sidecar.default(1, "b").totals() == (0, 0, 0, 0)


def test_beyond_the_table_each_worker_counts_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "PLACES", 2)
    sidecar = Sidecar()
    sidecar.apply(limited("a"), limited("b"), limited("c"))
    sidecar.apply(limited("a"), limited("b"), limited("c"), limited("d"))
    assert len([record for record in caplog.records if "circuit breakers" in record.message]) == 2  # once per worker
    sidecar.default(0, "b").add_request()
    sidecar.default(0, "c").add_request()
    assert sidecar.default(1, "b").totals() == (0, 0, 1, 0)
    assert sidecar.default(1, "c").totals() == (0, 0, 0, 0)
    assert sidecar.default(0, "c").totals() == (0, 0, 1, 0)


def test_another_kind_of_cluster_takes_the_seat() -> None:
    sidecar = Sidecar()
    sidecar.apply(limited())
    old = sidecar.default(0)
    sidecar.apply(limited(kind="EDS"))  # type: ignore[arg-type]
    old.add_request()
    assert sidecar.default(1).totals() == (0, 0, 0, 0)
    sidecar.default(0).add_request()
    assert sidecar.default(1).totals() == (0, 0, 1, 0)


def test_other_processes_see_the_counts() -> None:
    """The layout as bytes in memory that a file descriptor stands for: what another process would map."""
    fd = os.memfd_create("table")
    try:
        os.ftruncate(fd, table_size(2))
        with mmap.mmap(fd, 0) as ours, mmap.mmap(fd, 0) as theirs:
            view = memoryview(ours)
            table = ResourceTable(view, 1, 2)
            bench = Bench(table=table)
            bench.apply(limited())
            found = bench.manager.get("c")
            assert found is not None
            found.default.add_request()
            found.high.add_retry()
            counts = struct.unpack_from("=9q", theirs, table_size(2) // 2)
            assert counts[0] != 0
            assert counts[1:] == (0, 0, 1, 0, 0, 0, 0, 1)
            bench.manager.close()
            for row in table._rows:
                row.release()
            view.release()
    finally:
        os.close(fd)
