"""State of rules that count by a value of the request: in shared memory for the first keys of a rule, else the worker's own."""

from __future__ import annotations

from typing import Final

from mesh_filters.definition import FilterContext
from mesh_filters.token_bucket import Cell, LocalCell

SHARED_KEYS: Final = 64
"""keys of one rule whose numbers all workers share: places in the shared table stay taken until the sidecar restarts"""
RESOURCE_EXHAUSTED: Final = 8
"""gRPC status of what is over a limit"""
UNAVAILABLE: Final = 14
"""gRPC status of what is refused for the sake of a service that is not well"""


def refusal_status(http_status: int) -> int:
    """The gRPC status for a refusal with this HTTP status."""
    return RESOURCE_EXHAUSTED if http_status == 429 else UNAVAILABLE


class SharedKeys:
    """The numbers of one rule."""

    __slots__ = ("_context", "_keys", "_name")

    def __init__(self, context: FilterContext, name: str) -> None:
        """`name` is the same in all workers, and no other rule's."""
        self._context = context
        self._name = name
        self._keys: set[bytes] = set()

    def is_shared(self, key: bytes) -> bool:
        """Whether the numbers of a key are shared."""
        if key not in self._keys:
            if len(self._keys) >= SHARED_KEYS:
                return False
            self._keys.add(key)
        return True

    def cells(self, key: bytes, count: int) -> tuple[list[Cell], int]:
        """So many numbers for a key, and among how many workers its limit is to be divided: 1 if the numbers are shared."""
        if self._context.workers < 2:
            return [LocalCell() for _ in range(count)], 1
        if not self.is_shared(key):
            return [LocalCell() for _ in range(count)], self._context.workers
        return [self._context.shared_cell(f"{self._name}|{key!r}|{i}") for i in range(count)], 1
