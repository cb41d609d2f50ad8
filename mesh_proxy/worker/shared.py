"""Fixed-size shared memory that every worker maps, made by the supervisor before the first worker is forked.

State on which the workers must agree lives here as named tables: token buckets, concurrency and circuit-breaker counts.
Looking needs no lock. Each user of a table says in its own file what a race may cost; who cannot afford one takes `turns`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Final

from mesh_proxy.worker.turns import Turns

TAGGED_NUMBER: Final = 16
"""bytes of an integer that says whose the number is, and the number"""


class SharedTables:
    """Named byte ranges in one shared mapping, zero at the start."""

    __slots__ = ("_memory", "_views", "turns", "worker_count")

    def __init__(self, sizes: Mapping[str, int], *, worker_count: int) -> None:
        self.worker_count = worker_count
        self.turns = Turns() if worker_count > 1 else None
        total = sum(-(-size // 64) * 64 for size in sizes.values())
        self._memory = mmap.mmap(-1, max(total, mmap.PAGESIZE))
        self._views: dict[str, memoryview] = {}
        offset = 0
        whole = memoryview(self._memory)
        for name, size in sizes.items():
            self._views[name] = whole[offset : offset + size]
            offset += -(-size // 64) * 64  # a cache line of its own

    def table(self, name: str) -> memoryview:
        """The bytes of one table, writable; `.cast('q')` makes an array of 64-bit integers of it."""
        return self._views[name]


def tagged_numbers(shared: SharedTables | None, name: str, places: int) -> tuple[memoryview[int], memoryview[float]]:
    """The tags and the numbers of a table of `TAGGED_NUMBER` bytes a place; this worker's own when there is only one."""
    if shared is not None and shared.worker_count > 1:
        memory = shared.table(name)
    else:
        memory = memoryview(mmap.mmap(-1, places * TAGGED_NUMBER))  # what nobody writes takes no memory
    return memory[: places * 8].cast("q"), memory[places * 8 :].cast("d")
