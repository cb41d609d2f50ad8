"""Single numbers that all workers of a sidecar share, by name: the state of token buckets.

A fixed table in shared memory: per place a tag made from the name, and the number. A name takes the first free place from the
one that its tag points at. Places are taken without a lock: two workers that take the same free place for different names at the
same moment see it at their next use (the tag is another one) and the loser takes another place, with a fresh number. A number is
eight bytes, which are never torn. Who takes from a number that he has read does it in turns (`mesh_proxy.worker.turns`).

Names that no configuration uses any more keep their places until the sidecar restarts. When the table is full, numbers are
this worker's own.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import Any, Final

from mesh_proxy.worker.shared import TAGGED_NUMBER, SharedTables, tagged_numbers
from mesh_proxy.worker.turns import Turns, replace_alone

_log = logging.getLogger("main")

TABLE_NAME: Final = "cells"
PLACES: Final = 4096
_PROBES: Final = 64


def table_size(worker_count: int) -> int:
    """Bytes; 0 when one worker needs no table."""
    return PLACES * TAGGED_NUMBER if worker_count > 1 else 0


class SharedCell:
    """One number."""

    __slots__ = ("_numbers", "_place", "_tag", "_tags", "_turns")

    def __init__(self, tags: Any, numbers: Any, tag: int, turns: Turns | None) -> None:
        self._turns = turns
        self._tags = tags
        self._numbers = numbers
        self._tag = tag
        self._place = self._find()

    def _find(self) -> int:
        tags, tag = self._tags, self._tag
        place: int
        start = tag % PLACES
        for place in (*range(start, min(start + _PROBES, PLACES)), *range(max(0, start + _PROBES - PLACES))):
            if tags[place] == 0:
                tags[place] = tag
            if tags[place] == tag:
                return place
        # Nobody else's: a table of our own.
        _log.warning("the table of shared numbers is full: a rate limit holds for each worker by itself")
        self._turns = None
        self._tags = memoryview(bytearray(8)).cast("q")
        self._numbers = memoryview(bytearray(8)).cast("d")
        self._tags[0] = tag
        return 0

    def get(self) -> float:
        """See `mesh_filters.token_bucket.Cell`."""
        if self._tags[self._place] != self._tag:
            self._place = self._find()
        value: float = self._numbers[self._place]
        return value

    def set(self, value: float) -> None:
        """See `mesh_filters.token_bucket.Cell`."""
        self._numbers[self._place] = value

    def replace(self, old: float, new: float) -> bool:
        """See `mesh_filters.token_bucket.Cell`."""
        place = self._place
        if self._turns is None:
            return replace_alone(self._numbers, place, old, new)
        return self._turns.replace(self._numbers, place, old, new, place)


class SharedCells:
    """The table as one worker sees it."""

    __slots__ = ("_numbers", "_tags", "_turns")

    def __init__(self, shared: SharedTables | None) -> None:
        self._tags, self._numbers = tagged_numbers(shared, TABLE_NAME, PLACES)
        self._turns = shared.turns if shared is not None else None

    def cell(self, name: str) -> SharedCell:
        """The number of that name."""
        tag = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big") + 1
        return SharedCell(self._tags, self._numbers, tag, self._turns)
