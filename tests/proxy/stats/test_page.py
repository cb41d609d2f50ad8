"""A page is written by one side and read by the other, also when it grows, moves, tears or loses its writer."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import ClassVar

import pytest

from mesh_proxy.stats.aggregate import StatsAggregator, ZeroGroups
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.group import Histogram, StatGroup, reset_group
from mesh_proxy.stats.groups import ListenerHttpStats, ListenerStats
from mesh_proxy.stats.names import scalars, value_of
from mesh_proxy.stats.page import FIRST_CODE_SLOTS, INITIAL_SIZE, PageReader, PageWriter, create_page, shape_of
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.tls.stats import count_by_name
from mesh_proxy.worker.messages import Layout


class OneCounter(StatGroup):
    COUNTERS: ClassVar[tuple[str, ...]] = ("hits",)
    __slots__ = COUNTERS
    hits: int


class OnlyHistogram(StatGroup):
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("took",)
    __slots__ = HISTOGRAMS
    took: Histogram


class Worker:
    """The writing side of one worker, wired to an aggregator without processes."""

    def __init__(self, aggregator: StatsAggregator, token: int, index: int) -> None:
        fd = create_page("test")
        self.aggregator = aggregator
        self.token = token
        self.registry = StatRegistry()
        self.layouts: list[Layout] = []
        aggregator.add_worker(token, index, PageReader(os.dup(fd)))
        self.writer = PageWriter(fd, self.registry, self._announce)

    def _announce(self, layout: Layout) -> None:
        self.layouts.append(layout)
        self.writer.free(self.aggregator.add_layout(self.token, layout))

    def die(self) -> None:
        self.writer.close()
        self.aggregator.remove_worker(self.token)


@pytest.fixture
def aggregator() -> Iterator[StatsAggregator]:
    made = StatsAggregator()
    yield made
    for token in range(10):
        made.remove_worker(token)


@pytest.fixture
def pair(aggregator: StatsAggregator) -> Iterator[tuple[Worker, Worker]]:
    first, second = Worker(aggregator, 0, 0), Worker(aggregator, 1, 1)
    yield first, second
    for worker in (first, second):
        try:
            worker.writer.close()
        except OSError:
            pass


def value(aggregator: StatsAggregator, name: str) -> int | None:
    return value_of(aggregator.snapshot(), name)


def test_families_that_share_a_prefix_do_not_mix(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    for worker, version in zip(pair, ("TLSv1.2", "TLSv1.3"), strict=True):
        count_by_name(worker.registry, "listener.a.ssl.versions.", version)
        count_by_name(worker.registry, "listener.a.ssl.versions.", "TLSv1.3")
        count_by_name(worker.registry, "listener.a.ssl.ciphers.", "AES")
        worker.writer.flush()
    assert value(aggregator, "listener.a.ssl.versions.TLSv1.2") == 1
    assert value(aggregator, "listener.a.ssl.versions.TLSv1.3") == 3
    assert value(aggregator, "listener.a.ssl.ciphers.AES") == 2
    pair[0].die()
    assert value(aggregator, "listener.a.ssl.versions.TLSv1.2") == 1
    assert value(aggregator, "listener.a.ssl.versions.TLSv1.3") == 3


def test_sums_over_workers(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    for worker, count in zip(pair, (3, 4), strict=True):
        group = worker.registry.get(ListenerStats, "listener.a.")
        group.downstream_cx_total = count
        group.downstream_cx_active = 1
        group.downstream_cx_length_ms.record(7.0)
        worker.writer.flush()
    assert value(aggregator, "listener.a.downstream_cx_total") == 7
    assert value(aggregator, "listener.a.downstream_cx_active") == 2
    assert value(aggregator, "listener.a.worker_1.downstream_cx_total") == 4
    (group_sum,) = aggregator.snapshot()
    counts, total = group_sum.histograms[0]
    assert (sum(counts), counts[3], total) == (2, 2, 14.0)


def test_what_every_worker_knows_is_not_summed(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    for worker in pair:
        group = worker.registry.get(ClusterStats, "cluster.a.")
        group.membership_total = 3
        group.upstream_rq_total = 3
        worker.writer.flush()
    assert value(aggregator, "cluster.a.membership_total") == 3
    assert value(aggregator, "cluster.a.upstream_rq_total") == 6


def test_counts_of_a_dead_worker_stay_and_its_gauges_go(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    for worker in pair:
        group = worker.registry.get(ClusterStats, "cluster.a.")
        group.upstream_cx_total = 5
        group.upstream_cx_active = 2
        group.codes[200] = 4
        group.upstream_rq_time.record(1)
        worker.writer.flush()
    first.die()
    assert value(aggregator, "cluster.a.upstream_cx_total") == 10
    assert value(aggregator, "cluster.a.upstream_cx_active") == 2
    assert value(aggregator, "cluster.a.upstream_rq_200") == 8
    assert value(aggregator, "cluster.a.upstream_rq_2xx") == 8
    successor = Worker(aggregator, 2, 0)
    successor.registry.get(ClusterStats, "cluster.a.").upstream_cx_total = 1
    successor.writer.flush()
    assert value(aggregator, "cluster.a.upstream_cx_total") == 11
    successor.die()
    second.die()
    assert value(aggregator, "cluster.a.upstream_cx_total") == 11
    assert value(aggregator, "cluster.a.upstream_cx_active") == 0


def test_a_writer_that_dies_in_the_middle_leaves_a_readable_page(
    aggregator: StatsAggregator, pair: tuple[Worker, Worker]
) -> None:
    worker = pair[0]
    worker.registry.get(OneCounter, "one.").hits = 9
    worker.writer.flush()
    struct.pack_into("=Q", worker.writer._memory, 8, 7)  # an odd sequence number that nobody makes even again
    assert value(aggregator, "one.hits") == 9


def test_codes_outgrow_their_slots(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    worker = pair[0]
    group = worker.registry.get(ClusterStats, "cluster.a.")
    neighbour = worker.registry.get(OneCounter, "one.")
    neighbour.hits = 77
    worker.writer.flush()
    for code in range(200, 200 + FIRST_CODE_SLOTS * 5):
        group.codes[code] = code
    group.retry_codes[503] = 2
    worker.writer.flush()
    assert value(aggregator, "cluster.a.upstream_rq_239") == 239
    assert value(aggregator, "cluster.a.retry.upstream_rq_503") == 2
    assert value(aggregator, "cluster.a.retry.upstream_rq_completed") == 2
    assert value(aggregator, "one.hits") == 77
    group.codes[239] += 1
    worker.writer.flush()
    assert value(aggregator, "cluster.a.upstream_rq_239") == 240


def test_the_page_grows(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    worker = pair[0]
    count = INITIAL_SIZE // 600
    for index in range(count):
        worker.registry.get(ClusterStats, f"cluster.c{index}.").upstream_rq_total = index
    worker.writer.flush()
    assert len(worker.writer._memory) > INITIAL_SIZE
    assert value(aggregator, f"cluster.c{count - 1}.upstream_rq_total") == count - 1


def test_a_round_in_slices_reaches_everybody(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    worker = pair[0]
    groups = [worker.registry.get(OneCounter, f"g{index}.") for index in range(10)]
    worker.writer.flush()
    for group in groups:
        group.hits = 1
    rounds = 1
    while not worker.writer.flush(3):
        rounds += 1
    assert rounds == 4
    assert sum(stat.value for group in aggregator.snapshot() for stat in scalars(group)) == 10


def test_a_removed_group_keeps_its_counts_and_gives_its_place_back(
    aggregator: StatsAggregator, pair: tuple[Worker, Worker]
) -> None:
    worker = pair[0]
    group = worker.registry.get(OneCounter, "old.")
    group.hits = 5
    worker.writer.flush()
    group.hits = 6
    worker.registry.remove(group)
    worker.writer.flush()
    assert value(aggregator, "old.hits") == 6
    offset = worker.layouts[0].regions[0].offset
    worker.registry.get(OneCounter, "new.")
    worker.writer.flush()
    assert worker.layouts[-1].regions[0].offset == offset
    assert value(aggregator, "new.hits") == 0
    assert value(aggregator, "old.hits") == 6
    worker.registry.get(OneCounter, "old.").hits = 1
    worker.writer.flush()
    assert value(aggregator, "old.hits") == 7


def test_groups_of_one_kind_of_statistic(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    worker = pair[0]
    worker.registry.get(OnlyHistogram, "h.").took.record(0.2)
    worker.registry.get(ListenerHttpStats, "listener.a.http.b.").codes[404] = 2
    worker.writer.flush()
    sums = {group.prefix: group for group in aggregator.snapshot()}
    assert sums["h."].histograms[0][0][0] == 1
    assert value(aggregator, "listener.a.http.b.downstream_rq_4xx") == 2
    assert value(aggregator, "listener.a.http.b.downstream_rq_5xx") == 0
    assert value(aggregator, "listener.a.http.b.downstream_rq_404") is None


def test_local_groups_and_zeros(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    worker = pair[0]
    worker.registry.get(ClusterStats, "cluster.used.").upstream_rq_total = 2
    worker.writer.flush()
    local = OneCounter("server.")
    local.hits = 3
    zeros = ZeroGroups(ClusterStats, ["cluster.used.", "cluster.unused."])
    found = {f"{s.prefix}{s.name}": s.value for group in aggregator.snapshot([local], zeros) for s in scalars(group)}
    assert found["server.hits"] == 3
    assert found["cluster.used.upstream_rq_total"] == 2
    assert found["cluster.unused.upstream_rq_total"] == 0


def test_reset(aggregator: StatsAggregator, pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    for worker in pair:
        group = worker.registry.get(ClusterStats, "cluster.a.")
        group.upstream_rq_total = 2
        group.upstream_rq_active = 1
        group.codes[200] = 2
        worker.writer.flush()
    first.die()
    aggregator.reset_counters()
    for group in second.registry:
        reset_group(group)
    second.writer.flush()
    assert value(aggregator, "cluster.a.upstream_rq_total") == 0
    assert value(aggregator, "cluster.a.upstream_rq_200") == 0
    assert value(aggregator, "cluster.a.upstream_rq_active") == 1


def test_shape_names_the_code_tables() -> None:
    assert {"codes", "retry_codes"} <= set(shape_of(ClusterStats, 1).code_tables)
    assert shape_of(OneCounter, 1).code_tables == ()


def test_an_unknown_worker_is_ignored(aggregator: StatsAggregator) -> None:
    assert aggregator.add_layout(99, Layout(removed=(64,))) == ()
    aggregator.remove_worker(99)
