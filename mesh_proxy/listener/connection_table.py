"""Connection counts on which all workers agree, so that a limit holds for the sidecar and not for each worker.

A fixed table in shared memory, one row per worker. A worker writes only its own row and adds up all rows when a limit is asked
for; what is counted is known by a tag of its name, whose remainder is its place. There is no lock. What that may cost:

* workers that accept at the same moment may exceed a limit together, by one connection per further worker;
* the counts of a worker that died stay until its replacement clears the row when it starts;
* two names that fall on one place (one chance in some hundreds with a few limits): the later one counts per worker only.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from mesh_proxy.worker.shared import SharedTables

TABLE_NAME: Final = "connections"
PLACES: Final = 1024
_ROW_BYTES: Final = PLACES * 16
"""per place a tag and a count, 64 bits each"""


def table_size(worker_count: int) -> int:
    """Bytes for so many workers; 0 when one worker needs no table."""
    return _ROW_BYTES * worker_count if worker_count > 1 else 0


class ConnectionCount:
    """One thing that is counted: the connections of a listener, of a filter, of the whole sidecar."""

    __slots__ = ("_others", "_own", "_place", "_tag", "here")

    def __init__(self, own: memoryview | None, others: tuple[memoryview, ...], name: str) -> None:
        self.here = 0
        """connections of this worker"""
        tag = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big") + 1
        place = tag % PLACES * 2
        if own is not None and own[place] in (0, tag):
            own[place] = tag
            self._own: memoryview | None = own
            self._others = others
        else:
            self._own = None
            self._others = ()
        self._tag = tag
        self._place = place

    def add(self, step: int) -> None:
        """One more (1) or one less (-1)."""
        self.here += step
        if self._own is not None:
            self._own[self._place + 1] = self.here

    def total(self) -> int:
        """Of all workers."""
        count = self.here
        place = self._place
        for row in self._others:
            if row[place] == self._tag:
                count += row[place + 1]
        return count


class ConnectionTable:
    """All counts of one worker, by name; asking twice gives the same."""

    __slots__ = ("_counts", "_others", "_own")

    def __init__(self, shared: SharedTables | None, worker_index: int) -> None:
        self._counts: dict[str, ConnectionCount] = {}
        self._own: memoryview | None = None
        self._others: tuple[memoryview, ...] = ()
        if shared is not None and shared.worker_count > 1:
            memory = shared.table(TABLE_NAME)
            rows = [memory[i * _ROW_BYTES : (i + 1) * _ROW_BYTES].cast("q") for i in range(shared.worker_count)]
            self._own = rows.pop(worker_index)
            self._others = tuple(rows)
            for place in range(len(self._own)):
                self._own[place] = 0  # what a predecessor left

    def count(self, name: str) -> ConnectionCount:
        """The count of that name."""
        found = self._counts.get(name)
        if found is None:
            found = self._counts[name] = ConnectionCount(self._own, self._others, name)
        return found
