"""A worker's statistics in shared memory: written by the worker about once a second, read by the supervisor at a scrape.

The page is a memfd that the supervisor makes and both map. It begins with a header; behind it every group has a region whose
form follows from the tables of its class:

    counters and gauges      one signed 64-bit integer each, in the order of COUNTERS, GAUGES
    histograms               the bucket counts (64-bit integers) and the sum (double), one after the other
    code tables              number of pairs, then pairs (code, count), room for `code_slots` of them

Where the regions stand is told over the control channel (messages.Layout), after the values are in the page. A group that
outgrows its code slots gets a new region, and the old one is abandoned. The file grows when it is full; memory that was never
written costs nothing.

There is no lock. The sequence number in the header is odd while the worker writes; a reader that finds it odd or changed
copies again, a few times at most: a value of 64 bits is never torn by itself, so the worst that a race can do is to show some
counters of one group a moment older than the others.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from mesh_proxy.stats.group import BUCKETS_MS, Histogram, StatGroup
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.worker.messages import GroupShape, Layout, Region

HEADER: Final = struct.Struct("=QQQ")
"""magic, sequence, bytes in use"""
MAGIC: Final = 0x4D50_5354_4154_0001
HEADER_SIZE: Final = 64
INITIAL_SIZE: Final = 1 << 20
HISTOGRAM: Final = struct.Struct(f"={len(BUCKETS_MS) + 1}qd")
FIRST_CODE_SLOTS: Final = 8
_READ_ATTEMPTS: Final = 4
_SEQUENCE: Final = struct.Struct("=Q")
_PAIR_SIZE: Final = 16


def create_page(name: str) -> int:
    """A new, empty page; the descriptor is the caller's."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, INITIAL_SIZE)
    return fd


def shape_of(kind: type[StatGroup], shape_id: int) -> GroupShape:
    """The tables of a class."""
    return GroupShape(
        shape_id=shape_id,
        name=kind.__name__,
        counters=kind.COUNTERS,
        gauges=kind.GAUGES,
        histograms=kind.HISTOGRAMS,
        shared=tuple(index for index, name in enumerate((*kind.COUNTERS, *kind.GAUGES)) if name in kind.SHARED),
        codes=kind.CODES,
        code_detail=kind.CODE_DETAIL,
        code_tables=kind.CODE_TABLES,
    )


def region_size(shape: GroupShape, code_slots: int) -> int:
    """Bytes that a region takes."""
    ints = len(shape.counters) + len(shape.gauges)
    codes = len(shape.code_tables) * (8 + code_slots * _PAIR_SIZE)
    return ints * 8 + len(shape.histograms) * HISTOGRAM.size + codes


class _RegionWriter:
    """One group and its place."""

    __slots__ = ("_codes", "_get", "_histograms", "_last", "_pack", "code_slots", "group", "offset", "shape", "size")

    def __init__(self, group: StatGroup, shape: GroupShape, offset: int, code_slots: int) -> None:
        self.group = group
        self.shape = shape
        self.offset = offset
        self.code_slots = code_slots
        self.size = region_size(shape, code_slots)
        names = shape.counters + shape.gauges
        self._get: Callable[[StatGroup], Any] | None = attrgetter(*names) if names else None
        self._pack = struct.Struct(f"={len(names)}q").pack_into
        self._last: Any = None
        position = offset + len(names) * 8
        self._histograms: list[tuple[Histogram, int]] = []
        for name in shape.histograms:
            self._histograms.append((getattr(group, name), position))
            position += HISTOGRAM.size
        self._codes: list[tuple[dict[int, int], int]] = []
        for name in shape.code_tables:
            self._codes.append((getattr(group, name), position))
            position += 8 + code_slots * _PAIR_SIZE

    def fits(self) -> bool:
        """Every code has a slot."""
        return all(len(codes) <= self.code_slots for codes, _ in self._codes)

    def write(self, memory: mmap.mmap) -> None:
        """Copy the group's values to its region."""
        if self._get is not None:
            values = self._get(self.group)
            if values != self._last:
                self._last = values
                if type(values) is tuple:
                    self._pack(memory, self.offset, *values)
                else:
                    self._pack(memory, self.offset, values)
        for histogram, position in self._histograms:
            HISTOGRAM.pack_into(memory, position, *histogram.counts, histogram.total)
        for codes, position in self._codes:
            if codes:
                flat = [number for pair in codes.items() for number in pair][: 2 * self.code_slots]
                struct.pack_into(f"={len(flat) + 1}q", memory, position, len(flat) // 2, *flat)


class PageWriter:
    """The worker's side: finds the groups in the registry, gives them regions, writes the values."""

    def __init__(self, fd: int, registry: StatRegistry, announce: Callable[[Layout], None]) -> None:
        self._fd = fd
        self._registry = registry
        self._announce = announce
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._sequence = 0
        self._used = HEADER_SIZE
        self._free: dict[int, list[int]] = {}
        """size -> offsets that the supervisor has given back"""
        self._shapes: dict[type[StatGroup], GroupShape] = {}
        self._regions: dict[StatGroup, _RegionWriter] = {}
        self._removed_sizes: dict[int, int] = {}
        """offset -> size of regions whose group is gone, until the supervisor frees them"""
        self._generation = -1
        self._rest: list[_RegionWriter] = []
        """regions that this round has still to write"""
        HEADER.pack_into(self._memory, 0, MAGIC, 0, self._used)

    def flush(self, limit: int | None = None) -> bool:
        """Write every group, or at most `limit` of them; True when the round is complete.

        A round that is cut in pieces keeps the loop's callbacks short when there are thousands of groups.
        """
        if not self._rest:
            self._rest = self._find_regions()
        batch = self._rest if limit is None else self._rest[:limit]
        self._rest = [] if limit is None else self._rest[limit:]
        moved = [self._outgrown(region) for region in batch if not region.fits()]
        if moved:
            batch = [self._regions[region.group] for region in batch if region.group in self._regions]
        self._write(batch)
        if moved:
            self._announce(Layout(regions=tuple(moved)))
        return not self._rest

    def free(self, offsets: tuple[int, ...]) -> None:
        """The supervisor has folded these regions into its sums."""
        for offset in offsets:
            size = self._removed_sizes.pop(offset, 0)
            if size:
                self._free.setdefault(size, []).append(offset)

    def close(self) -> None:
        """Unmap the page; the file lives on in the supervisor."""
        self._memory.close()
        os.close(self._fd)

    def _write(self, batch: list[_RegionWriter]) -> None:
        memory = self._memory
        # `pack_into` clears the place before it writes: a reader might see no bytes in use, with an even sequence.
        memory[8:16] = _SEQUENCE.pack(self._sequence + 1)
        for region in batch:
            region.write(memory)
        self._sequence += 2
        memory[8:24] = _SEQUENCE.pack(self._sequence) + _SEQUENCE.pack(self._used)

    def _find_regions(self) -> list[_RegionWriter]:
        registry = self._registry
        if registry.generation == self._generation:
            return list(self._regions.values())
        self._generation = registry.generation
        present = set(registry)
        removed = [region for group, region in self._regions.items() if group not in present]
        for region in removed:
            del self._regions[region.group]
            self._removed_sizes[region.offset] = region.size
        shapes: list[GroupShape] = []
        fresh: list[_RegionWriter] = []
        for group in registry:
            if group not in self._regions:
                fresh.append(self._place(group, FIRST_CODE_SLOTS, shapes))
        self._write([*removed, *fresh])  # the last values of what is gone, and first values before anybody reads them
        self._announce(
            Layout(
                shapes=tuple(shapes),
                regions=tuple(Region(r.shape.shape_id, r.group.prefix, r.offset, r.code_slots) for r in fresh),
                removed=tuple(region.offset for region in removed),
            )
        )
        return list(self._regions.values())

    def _place(self, group: StatGroup, code_slots: int, shapes: list[GroupShape]) -> _RegionWriter:
        kind = type(group)
        shape = self._shapes.get(kind)
        if shape is None:
            shape = self._shapes[kind] = shape_of(kind, len(self._shapes))
            shapes.append(shape)
        while any(len(getattr(group, name)) > code_slots for name in shape.code_tables):
            code_slots *= 2
        size = region_size(shape, code_slots)
        region = _RegionWriter(group, shape, self._allocate(size), code_slots)
        self._regions[group] = region
        return region

    def _outgrown(self, region: _RegionWriter) -> Region:
        """A larger region for a group; the old one is left to rot, there are few of them."""
        bigger = self._place(region.group, region.code_slots * 2, [])
        return Region(bigger.shape.shape_id, bigger.group.prefix, bigger.offset, bigger.code_slots)

    def _allocate(self, size: int) -> int:
        free = self._free.get(size)
        if free:
            offset = free.pop()
            self._memory[offset : offset + size] = bytes(size)
            return offset
        offset = self._used
        self._used += size
        if self._used > len(self._memory):
            bigger = max(self._used, len(self._memory) * 2)
            os.ftruncate(self._fd, bigger)
            self._memory.resize(bigger)
        return offset


class PageReader:
    """The supervisor's side: a consistent copy of the bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)

    def read(self) -> bytes:
        """The used part of the page. Takes what is there when the writer died in the middle of a write."""
        copy = b""
        for _ in range(_READ_ATTEMPTS):
            _, before, used = HEADER.unpack_from(self._memory, 0)
            if used > len(self._memory):
                self._memory.close()
                self._memory = mmap.mmap(self._fd, os.fstat(self._fd).st_size, prot=mmap.PROT_READ)
            copy = self._memory[:used]
            if before % 2 == 0 and _SEQUENCE.unpack_from(self._memory, 8)[0] == before:
                break
        return copy

    def close(self) -> None:
        """Unmap and close."""
        self._memory.close()
        os.close(self._fd)
