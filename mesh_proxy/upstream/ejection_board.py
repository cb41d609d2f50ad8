"""Ejections that all workers of a sidecar follow: a fixed table in shared memory, one row per worker.

Each worker detects outliers by its own requests and posts whom it ejected in its own row; the others look about once a second
and leave the same endpoints out until the post is withdrawn. There is no lock. What that may cost:

* an ejection reaches the other workers up to a second late, and so does the end of it;
* two workers that eject different endpoints within the same second may exceed `max_ejection_percent` together, by one endpoint
  per further worker;
* the posts of a worker that died stay until its replacement clears the row when it starts;
* what does not fit (more than 255 endpoints ejected by one worker) the others do not learn.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Protocol

from mesh_proxy.upstream.board import Board
from mesh_proxy.worker.shared import SharedTables

TABLE_NAME: Final = "ejections"
POLL_S: Final = 1.0
_ROW_INTS: Final = 256
"""a count of changes, then tags of ejected endpoints or 0"""


def table_size(worker_count: int) -> int:
    """Bytes for so many workers; 0 when one worker needs no table."""
    return _ROW_INTS * 8 * worker_count if worker_count > 1 else 0


def tag(cluster_name: str, address: str) -> int:
    """What stands for an endpoint in the table."""
    return int.from_bytes(blake2b(f"{cluster_name}\0{address}".encode(), digest_size=7).digest(), "big") + 1


class Follower(Protocol):
    """A detector that does what the other workers do."""

    def follow(self, tags: frozenset[int]) -> None:
        """These are the endpoints that other workers have ejected now."""


class EjectionBoard(Board[Follower]):
    """The table as one worker sees it."""

    __slots__ = ("_others", "_own", "_seen", "tags")

    def __init__(self, memory: memoryview, worker_index: int, worker_count: int) -> None:
        super().__init__(POLL_S)
        size = _ROW_INTS * 8
        rows = [memory[i * size : (i + 1) * size].cast("q") for i in range(worker_count)]
        self._own = rows.pop(worker_index)
        self._others = tuple(rows)
        self._seen: list[int] = [0] * len(rows)
        self.tags: frozenset[int] = frozenset()
        """endpoints that other workers had ejected when we last looked"""
        for i in range(1, _ROW_INTS):  # what the predecessor left
            self._own[i] = 0
        self._own[0] += 1

    @classmethod
    def of(cls, shared: SharedTables | None, worker_index: int) -> EjectionBoard | None:
        """The board in a worker's shared memory; None when there is but one worker."""
        if shared is None or shared.worker_count < 2:
            return None
        return cls(shared.table(TABLE_NAME), worker_index, shared.worker_count)

    def post(self, ejected: int) -> None:
        """Tell the others that we ejected this endpoint."""
        self._replace(0, ejected)

    def withdraw(self, returned: int) -> None:
        """Tell them that it is in again."""
        self._replace(returned, 0)

    def _replace(self, old: int, new: int) -> None:
        try:
            index = self._own.tolist().index(old, 1)
        except ValueError:  # no room, or it had not found room
            return
        self._own[index] = new
        self._own[0] += 1

    def look(self) -> None:
        """See whether another worker changed its row."""
        changes = [row[0] for row in self._others]
        if changes == self._seen:
            return
        self._seen = changes
        self.tags = frozenset(entry for row in self._others for entry in row[1:].tolist() if entry)
        for follower in tuple(self.followers):
            follower.follow(self.tags)
