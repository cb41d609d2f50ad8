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

from mesh_proxy.worker.shared import TAGGED_NUMBER, SharedTables, tagged_numbers
from mesh_proxy.worker.turns import replace_alone

TABLE_NAME: Final = "values"
WAYS: Final = 8
"""places of a set"""
SETS: Final = 2048
PLACES: Final = WAYS * SETS
FIRST_TURN: Final = 1 << 20
"""of `turns`, beyond those of the cells"""


def table_size(worker_count: int) -> int:
    """Bytes; 0 when one worker needs no table."""
    return PLACES * TAGGED_NUMBER if worker_count > 1 else 0


class ValueTable:
    """See `mesh_filters.definition.ValueTable`."""

    __slots__ = ("_numbers", "_tags", "_turns")

    def __init__(self, shared: SharedTables | None) -> None:
        self._tags, self._numbers = tagged_numbers(shared, TABLE_NAME, PLACES)
        self._turns = shared.turns if shared is not None else None

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
        if self._turns is None:
            return replace_alone(self._numbers, place, old, new)
        return self._turns.replace(self._numbers, place, old, new, FIRST_TURN + place)
