"""Sums over workers: what the living ones show in their pages, plus what the dead ones and removed groups had counted.

Counters, histograms and codes of the dead stay in the sums for ever, so that no counter ever goes back; their gauges go with
them. A group is known by its class name and prefix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from operator import add
from typing import Final

from mesh_proxy.stats.group import BUCKETS_MS, StatGroup
from mesh_proxy.stats.page import HISTOGRAM, PageReader, shape_of
from mesh_proxy.worker.messages import GroupShape, Layout, Region

GroupKey = tuple[str, str]
"""(class name, prefix)"""
_BUCKET_COUNT: Final = len(BUCKETS_MS) + 1


class GroupSum:
    """The values of one group, summed."""

    __slots__ = ("by_worker", "codes", "histograms", "ints", "prefix", "shape")

    def __init__(self, shape: GroupShape, prefix: str) -> None:
        self.shape = shape
        self.prefix = prefix
        self.ints: list[int] = [0] * (len(shape.counters) + len(shape.gauges))
        """counters, then gauges"""
        self.histograms: list[tuple[list[int], float]] = [([0] * _BUCKET_COUNT, 0.0) for _ in shape.histograms]
        """(count per bucket, sum)"""
        self.codes: list[dict[int, int]] = [{} for _ in shape.code_tables]
        self.by_worker: dict[int, tuple[int, ...]] = {}
        """worker index -> its ints, for the statistics that Envoy shows per worker"""

    def add_region(self, data: bytes, offset: int, *, gauges: bool = True, worker: int | None = None) -> None:
        """Add what stands in a page."""
        shape = self.shape
        total = len(self.ints)
        values: tuple[int, ...] = struct.unpack_from(f"={total}q", data, offset)
        if not gauges:
            values = values[: len(shape.counters)] + (0,) * len(shape.gauges)
        self.ints = list(map(add, self.ints, values))
        if worker is not None:
            self.by_worker[worker] = values
        position = offset + total * 8
        for index, (counts, total_sum) in enumerate(self.histograms):
            *more, more_sum = HISTOGRAM.unpack_from(data, position)
            self.histograms[index] = (list(map(add, counts, more)), total_sum + more_sum)
            position += HISTOGRAM.size

    def add_codes(self, data: bytes, region: Region) -> None:
        """Add the code tables of a page."""
        shape = self.shape
        position = region.offset + len(self.ints) * 8 + len(shape.histograms) * HISTOGRAM.size
        for table in self.codes:
            (used,) = struct.unpack_from("=q", data, position)
            flat = struct.unpack_from(f"={min(used, region.code_slots) * 2}q", data, position + 8)
            for code, count in zip(flat[::2], flat[1::2], strict=True):
                table[code] = table.get(code, 0) + count
            position += 8 + region.code_slots * 16

    def add_group(self, group: StatGroup) -> None:
        """Add a group of this process."""
        shape = self.shape
        names = (*shape.counters, *shape.gauges)
        self.ints = [value + getattr(group, name) for value, name in zip(self.ints, names, strict=True)]
        for index, name in enumerate(shape.histograms):
            counts, total = self.histograms[index]
            histogram = getattr(group, name)
            self.histograms[index] = (list(map(add, counts, histogram.counts)), total + histogram.total)
        for table, name in zip(self.codes, shape.code_tables, strict=True):
            for code, count in getattr(group, name).items():
                table[code] = table.get(code, 0) + count

    def add_sum(self, other: GroupSum) -> None:
        """Add another sum of the same shape."""
        self.ints = list(map(add, self.ints, other.ints))
        self.histograms = [
            (list(map(add, counts, more)), total + more_total)
            for (counts, total), (more, more_total) in zip(self.histograms, other.histograms, strict=True)
        ]
        for table, more_codes in zip(self.codes, other.codes, strict=True):
            for code, count in more_codes.items():
                table[code] = table.get(code, 0) + count


class WorkerStats:
    """One worker's page and what we know of its layout."""

    def __init__(self, index: int, reader: PageReader) -> None:
        self.index = index
        self.reader = reader
        self._shapes: dict[int, GroupShape] = {}
        self.regions: dict[GroupKey, Region] = {}
        self._by_offset: dict[int, GroupKey] = {}

    def shape(self, region: Region) -> GroupShape:
        """The form of a region."""
        return self._shapes[region.shape_id]

    def add_layout(self, layout: Layout) -> None:
        """Learn shapes and regions."""
        for shape in layout.shapes:
            self._shapes[shape.shape_id] = shape
        for region in layout.regions:
            key = (self._shapes[region.shape_id].name, region.prefix)
            self.regions[key] = region
            self._by_offset[region.offset] = key

    def forget(self, offset: int) -> tuple[GroupKey, Region] | None:
        """The group at this offset is gone."""
        key = self._by_offset.pop(offset, None)
        if key is None:
            return None
        region = self.regions.get(key)
        if region is None or region.offset != offset:
            return None
        del self.regions[key]
        return key, region


class StatsAggregator:
    """All workers of this process tree, alive and dead."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerStats] = {}
        """by token"""
        self._retired: dict[GroupKey, GroupSum] = {}

    def add_worker(self, token: int, index: int, reader: PageReader) -> None:
        """A worker was asked for."""
        self._workers[token] = WorkerStats(index, reader)

    def add_layout(self, token: int, layout: Layout) -> tuple[int, ...]:
        """The worker's page has changed its form; answers the offsets that may be used again."""
        worker = self._workers.get(token)
        if worker is None:
            return ()
        worker.add_layout(layout)
        if layout.removed:
            data = worker.reader.read()
            for offset in layout.removed:
                if (found := worker.forget(offset)) is not None:
                    self._retire(worker, data, *found)
        return layout.removed

    def remove_worker(self, token: int) -> None:
        """The worker is dead; its counts are kept."""
        worker = self._workers.pop(token, None)
        if worker is None:
            return
        data = worker.reader.read()
        for key, region in worker.regions.items():
            self._retire(worker, data, key, region)
        worker.reader.close()

    def collect(self) -> dict[GroupKey, GroupSum]:
        """The sums of this moment."""
        sums: dict[GroupKey, GroupSum] = {}
        for worker in self._workers.values():
            data = worker.reader.read()
            for key, region in worker.regions.items():
                total = sums.get(key)
                if total is None:
                    total = sums[key] = GroupSum(worker.shape(region), region.prefix)
                total.add_region(data, region.offset, worker=worker.index)
                if total.codes:
                    total.add_codes(data, region)
        for key, retired in self._retired.items():
            total = sums.get(key)
            if total is None:
                total = sums[key] = GroupSum(retired.shape, retired.prefix)
            total.add_sum(retired)
        return sums

    def reset_counters(self) -> None:
        """Forget what the dead counted (`/reset_counters`)."""
        self._retired.clear()

    def _retire(self, worker: WorkerStats, data: bytes, key: GroupKey, region: Region) -> None:
        retired = self._retired.get(key)
        if retired is None:
            retired = self._retired[key] = GroupSum(worker.shape(region), region.prefix)
        retired.add_region(data, region.offset, gauges=False)
        if retired.codes:
            retired.add_codes(data, region)


def add_groups(sums: dict[GroupKey, GroupSum], groups: Iterable[StatGroup]) -> None:
    """Add groups that live in this process."""
    for group in groups:
        kind = type(group)
        key = (kind.__name__, group.prefix)
        total = sums.get(key)
        if total is None:
            total = sums[key] = GroupSum(shape_of(kind, -1), group.prefix)
        total.add_group(group)


def add_zeros(sums: dict[GroupKey, GroupSum], kind: type[StatGroup], prefixes: Iterable[str]) -> None:
    """Groups that exist by configuration but that no worker has touched: one shape for all, values that nobody stored."""
    shape = shape_of(kind, -1)
    for prefix in prefixes:
        if (kind.__name__, prefix) not in sums:
            sums[kind.__name__, prefix] = GroupSum(shape, prefix)
