"""Sums over workers: what the living ones show in their pages, plus what the dead ones and removed groups had counted.

Counters, histograms and codes of the dead stay in the sums for ever, so that no counter ever goes back; their gauges go with
them. A group is known by its class name and prefix. Sums are made one group at a time while somebody iterates, because a proxy
with ten thousand clusters has a million statistics.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add
from types import MappingProxyType
from typing import Final

from mesh_proxy.stats.group import BUCKETS_MS, StatGroup
from mesh_proxy.stats.page import HISTOGRAM, PageReader, shape_of
from mesh_proxy.worker.messages import GroupShape, Layout, Region

GroupKey = tuple[str, str]
"""(prefix, class name)"""
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
        self.by_worker: dict[int, Sequence[int]] = {}
        """worker index -> its ints, for the statistics that Envoy shows per worker"""

    def add_region(self, data: bytes, region: Region, *, gauges: bool = True, worker: int | None = None) -> None:
        """Add what stands in a page."""
        shape = self.shape
        total = len(self.ints)
        values: tuple[int, ...] = struct.unpack_from(f"={total}q", data, region.offset)
        if not gauges:
            values = values[: len(shape.counters)] + (0,) * len(shape.gauges)
        self._add_ints(values)
        if worker is not None:
            self.by_worker[worker] = values
        position = region.offset + total * 8
        for index, (counts, total_sum) in enumerate(self.histograms):
            *more, more_sum = HISTOGRAM.unpack_from(data, position)
            self.histograms[index] = (list(map(add, counts, more)), total_sum + more_sum)
            position += HISTOGRAM.size
        for table in self.codes:
            (used,) = struct.unpack_from("=q", data, position)
            flat = struct.unpack_from(f"={min(used, region.code_slots) * 2}q", data, position + 8)
            _add_codes(table, zip(flat[::2], flat[1::2], strict=True))
            position += 8 + region.code_slots * 16

    def add_group(self, group: StatGroup) -> None:
        """Add a group of this process."""
        shape = self.shape
        self._add_ints([getattr(group, name) for name in (*shape.counters, *shape.gauges)])
        for index, name in enumerate(shape.histograms):
            counts, total = self.histograms[index]
            histogram = getattr(group, name)
            self.histograms[index] = (list(map(add, counts, histogram.counts)), total + histogram.total)
        for table, name in zip(self.codes, shape.code_tables, strict=True):
            _add_codes(table, getattr(group, name).items())

    def add_sum(self, other: GroupSum) -> None:
        """Add another sum of the same shape."""
        self._add_ints(other.ints)
        self.histograms = [
            (list(map(add, counts, more)), total + more_total)
            for (counts, total), (more, more_total) in zip(self.histograms, other.histograms, strict=True)
        ]
        for table, more_codes in zip(self.codes, other.codes, strict=True):
            _add_codes(table, more_codes.items())

    def _add_ints(self, values: Sequence[int]) -> None:
        old = self.ints
        self.ints = list(map(add, old, values))
        for index in self.shape.shared:
            self.ints[index] = max(old[index], values[index])

    def add_named(self, other: GroupSum) -> None:
        """Add a sum of the same class in another version of the program: statistics are matched by name; one that this version
        does not have is left out."""
        shape = self.shape
        places = {name: index for index, name in enumerate((*shape.counters, *shape.gauges))}
        for name, value in zip((*other.shape.counters, *other.shape.gauges), other.ints, strict=True):
            if (place := places.get(name)) is not None:
                self.ints[place] += value
        for name, (counts, total) in zip(other.shape.histograms, other.histograms, strict=True):
            if name in shape.histograms:
                place = shape.histograms.index(name)
                mine, sum_of_mine = self.histograms[place]
                self.histograms[place] = (list(map(add, mine, counts)), sum_of_mine + total)
        for name, table in zip(other.shape.code_tables, other.codes, strict=True):
            if name in shape.code_tables:
                _add_codes(self.codes[shape.code_tables.index(name)], table.items())


def _add_codes(table: dict[int, int], pairs: Iterable[tuple[int, int]]) -> None:
    for code, count in pairs:
        table[code] = table.get(code, 0) + count


class WorkerStats:
    """One worker's page and what we know of its layout."""

    def __init__(self, index: int, reader: PageReader) -> None:
        self.index = index
        self.reader = reader
        self.regions: dict[GroupKey, Region] = {}
        self._shapes: dict[int, GroupShape] = {}
        self._by_offset: dict[int, GroupKey] = {}

    def shape(self, region: Region) -> GroupShape:
        """The form of a region."""
        return self._shapes[region.shape_id]

    def add_layout(self, layout: Layout) -> None:
        """Learn shapes and regions."""
        for shape in layout.shapes:
            self._shapes[shape.shape_id] = shape
        for region in layout.regions:
            key = (region.prefix, self._shapes[region.shape_id].name)
            self.regions[key] = region
            self._by_offset[region.offset] = key

    def forget(self, offset: int) -> tuple[GroupKey, Region] | None:
        """The group at this offset is gone."""
        key = self._by_offset.pop(offset, None)
        region = self.regions.get(key) if key is not None else None
        if key is None or region is None or region.offset != offset:
            return None
        del self.regions[key]
        return key, region


class StatsAggregator:
    """All workers of this process tree, alive and dead."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerStats] = {}
        """by token"""
        self._retired: dict[GroupKey, GroupSum] = {}
        self.inherited: dict[GroupKey, GroupSum] = {}
        """of the processes before this one"""

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

    def _retire(self, worker: WorkerStats, data: bytes, key: GroupKey, region: Region) -> None:
        retired = self._retired.get(key)
        if retired is None:
            retired = self._retired[key] = GroupSum(worker.shape(region), region.prefix)
        retired.add_region(data, region, gauges=False)

    def reset_counters(self) -> None:
        """Forget what the dead counted, except in histograms (`/reset_counters`)."""
        for retired in (*self._retired.values(), *self.inherited.values()):
            retired.ints = [0] * len(retired.ints)
            retired.codes = [dict.fromkeys(table, 0) for table in retired.codes]

    def snapshot(self, local: Iterable[StatGroup] = (), zeros: ZeroGroups | None = None) -> StatsSnapshot:
        """The sums of this moment, with groups of this process and groups that nobody has touched yet."""
        pages = [(worker, worker.reader.read()) for worker in self._workers.values()]
        return StatsSnapshot(pages, self._retired, local, zeros, self.inherited)


class ZeroGroups:
    """Groups that exist by configuration but that no worker has made: one set of zeros for all of them."""

    def __init__(self, kind: type[StatGroup], prefixes: Iterable[str]) -> None:
        self.sum = GroupSum(shape_of(kind, -1), "")
        self.prefixes = tuple(prefixes)


class StatsSnapshot:
    """Iterate for the sum of every group, in the order of the prefixes. Good for one iteration at a time."""

    def __init__(
        self,
        pages: Sequence[tuple[WorkerStats, bytes]],
        retired: Mapping[GroupKey, GroupSum],
        local: Iterable[StatGroup],
        zeros: ZeroGroups | None,
        inherited: Mapping[GroupKey, GroupSum] = MappingProxyType({}),
    ) -> None:
        self._pages = [(worker, dict(worker.regions), data) for worker, data in pages]
        self._retired = dict(retired)
        self._local: dict[GroupKey, StatGroup] = {(group.prefix, type(group).__name__): group for group in local}
        self._zeros = zeros
        self._inherited = inherited

    def __iter__(self) -> Iterator[GroupSum]:
        keys = self._retired.keys() | self._local.keys() | self._inherited.keys()
        for _, regions, _ in self._pages:
            keys |= regions.keys()
        zero_keys: set[GroupKey] = set()
        if self._zeros is not None:
            name = self._zeros.sum.shape.name
            zero_keys = {(prefix, name) for prefix in self._zeros.prefixes} - keys
        for key in sorted(keys | zero_keys):
            if key in zero_keys:
                assert self._zeros is not None
                self._zeros.sum.prefix = key[0]
                yield self._zeros.sum
            else:
                yield self._sum(key)

    def _sum(self, key: GroupKey) -> GroupSum:
        total: GroupSum | None = None
        for worker, regions, data in self._pages:
            region = regions.get(key)
            if region is not None:
                if total is None:
                    total = GroupSum(worker.shape(region), key[0])
                total.add_region(data, region, worker=worker.index)
        if (group := self._local.get(key)) is not None:
            if total is None:
                total = GroupSum(shape_of(type(group), -1), key[0])
            total.add_group(group)
        if (retired := self._retired.get(key)) is not None:
            if total is None:
                total = GroupSum(retired.shape, key[0])
            total.add_sum(retired)
        if (inherited := self._inherited.get(key)) is not None:
            if total is None:
                total = GroupSum(inherited.shape, key[0])
            total.add_named(inherited)
        assert total is not None
        return total
