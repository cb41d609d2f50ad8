"""Numbers of all workers by values that requests bring, of which there may be any number: a fixed table that forgets.

A value's tag points at a set of places. It has one of them, or takes that of the smallest number there. What the numbers mean
makes that right: they are moments from which on something has been filling (`mesh_filters.hot_parameters`), so the smallest
belongs to the bucket that is the fullest, and a full bucket is like one that was forgotten.

Places are taken without a lock; a tag and a number are eight bytes each, which are never torn. When two workers take the same
place for different values, one of the values begins anew. Numbers are changed in turns (`mesh_proxy.worker.turns`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from mesh_proxy.worker.shared import SharedTables

TABLE_NAME: Final = "values"
WAYS: Final = 8
"""places of a set"""
SETS: Final = 2048
PLACES: Final = WAYS * SETS
FIRST_TURN: Final = 1 << 20
"""of `turns`, beyond those of the cells"""


def table_size(worker_count: int) -> int:
    """Bytes; 0 when one worker needs no table."""
    return PLACES * 16 if worker_count > 1 else 0


class ValueTable:
    """See `mesh_filters.definition.ValueTable`."""

    __slots__ = ("_numbers", "_tags", "_turns")

    def __init__(self, shared: SharedTables | None) -> None:
        if shared is not None and shared.worker_count > 1:
            memory = shared.table(TABLE_NAME)
        else:
            memory = memoryview(bytearray(PLACES * 16))
        self._turns = shared.turns if shared is not None else None
        self._tags = memory[: PLACES * 8].cast("q")
        self._numbers = memory[PLACES * 8 :].cast("d")

    def place(self, value: bytes) -> int:
        """Where the number of a value stands, for one use of `get` and `set`."""
        tag = int.from_bytes(blake2b(value, digest_size=7).digest(), "big") + 1
        first = tag % SETS * WAYS
        tags = self._tags[first : first + WAYS].tolist()
        if tag in tags:
            return int(first + tags.index(tag))
        numbers = self._numbers[first : first + WAYS].tolist()
        place = int(first + numbers.index(min(numbers)))
        self._numbers[place] = 0.0
        self._tags[place] = tag
        return place

    def get(self, place: int) -> float:
        """The number; 0.0 at the start."""
        return float(self._numbers[place])

    def set(self, place: int, number: float) -> None:
        """Write it."""
        self._numbers[place] = number

    def replace(self, place: int, old: float, new: float) -> bool:
        """Write it unless it is no longer `old`; whether it was written."""
        numbers, turns = self._numbers, self._turns
        if turns is not None and not turns.take(FIRST_TURN + place):
            return False
        fresh: bool = numbers[place] == old
        if fresh:
            numbers[place] = new
        if turns is not None:
            turns.end(FIRST_TURN + place)
        return fresh
