"""What health checks found out, for all workers of a sidecar: a fixed table in shared memory.

One process checks, so that an endpoint is asked once and not once per worker: worker 0. The supervisor would be the other
choice, but it has neither the clusters' resolved addresses nor codecs, and should stay small; a worker has all of it, and when
it dies its replacement goes on with what stands in the table, while the others keep following that. The checker writes, the
others look five times a second. They write only to columns of their own, to pass on what only they see: that an endpoint asked
to be left out (`x-envoy-immediate-health-check-fail`), and that a cluster has traffic.

There is no lock, and every field is one aligned 64-bit word. What a race may cost: a result is seen up to 0.2 s late; a row that
is given to another endpoint while somebody reads may be read as the old one until the next look. What does not fit (more than
8,192 endpoints) the others take for healthy; the checker says so once in the log.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from mesh_proxy.upstream.board import Board
from mesh_proxy.worker.shared import SharedTables

TABLE_NAME: Final = "health"
POLL_S: Final = 0.2
ROWS: Final = 8192
_COLUMNS: Final = 4
_TAG, _STATE, _ASKED, _TRAFFIC = range(_COLUMNS)
_HEAD: Final = 64
_CHANGES, _USED, _OVERFLOW, _NOTES = 0, 1, 2, 16
_NOTE_SLOTS: Final = _HEAD - _NOTES
CHECKED: Final = 1 << 32
"""set in every state that was published, so that a healthy endpoint differs from an unknown one"""
_log = logging.getLogger("health_checker")


def table_size(worker_count: int) -> int:
    """Bytes of the table; 0 when one worker needs none."""
    return (_HEAD + ROWS * _COLUMNS) * 8 if worker_count > 1 else 0


class Follower(Protocol):
    """Somebody who acts on the table."""

    def follow(self) -> None:
        """The table changed."""


class HealthBoard(Board[Follower]):
    """The table as one worker sees it."""

    __slots__ = (
        "_free",
        "_memory",
        "_note",
        "_rows",
        "_seen",
        "_seen_notes",
        "checks",
        "overflowed",
        "states",
    )

    def __init__(self, memory: memoryview, worker_index: int) -> None:
        super().__init__(POLL_S)
        self._memory = memory.cast("q")
        self.checks = worker_index == 0
        """this worker is the one that checks"""
        self._note = _NOTES + worker_index % _NOTE_SLOTS
        self._rows: dict[int, int] = {}
        """tag -> offset of its row"""
        self._free: list[int] = []
        self._seen = -1
        self._seen_notes: list[int] = []
        self.states: dict[int, int] = {}
        """tag -> flags, as of the last look"""
        self.overflowed = False
        """endpoints are missing here for want of room"""
        self._read()

    @classmethod
    def of(cls, shared: SharedTables | None, worker_index: int) -> HealthBoard | None:
        """The board in a worker's shared memory; None when there is but one worker."""
        if shared is None or shared.worker_count < 2:
            return None
        return cls(shared.table(TABLE_NAME), worker_index)

    def _read(self) -> None:
        memory = self._memory
        self.overflowed = bool(memory[_OVERFLOW])
        cells = memory[_HEAD : _HEAD + memory[_USED] * _COLUMNS].tolist()
        tags, states = cells[_TAG::_COLUMNS], cells[_STATE::_COLUMNS]
        self.states = {tag: state & ~CHECKED for tag, state in zip(tags, states, strict=True) if tag and state}
        self._rows = {tag: _HEAD + index * _COLUMNS for index, tag in enumerate(tags) if tag}
        if self.checks:
            self._free = [_HEAD + index * _COLUMNS for index, tag in enumerate(tags) if not tag]

    # -- the worker that checks

    def publish(self, tag: int, flags: int) -> None:
        """Tell the others how an endpoint is."""
        memory = self._memory
        row = self._rows.get(tag)
        if row is None:
            row = self._new_row()
            if row is None:
                return
            memory[row + _STATE] = memory[row + _ASKED] = memory[row + _TRAFFIC] = 0
            memory[row + _TAG] = tag
            self._rows[tag] = row
        memory[row + _STATE] = flags | CHECKED
        self.states[tag] = flags
        memory[_CHANGES] += 1

    def _new_row(self) -> int | None:
        if self._free:
            return self._free.pop()
        used = self._memory[_USED]
        if used == ROWS:
            if not self._memory[_OVERFLOW]:
                _log.warning("more than %d endpoints are checked: other workers take the rest for healthy", ROWS)
                self._memory[_OVERFLOW] = 1
                self._memory[_CHANGES] += 1
            return None
        self._memory[_USED] = used + 1
        return int(_HEAD + used * _COLUMNS)

    def withdraw(self, tag: int) -> None:
        """The endpoint is checked no more."""
        row = self._rows.pop(tag, None)
        self.states.pop(tag, None)
        if row is not None:
            self._memory[row + _STATE] = self._memory[row + _TAG] = 0
            self._free.append(row)
            self._memory[_CHANGES] += 1

    def was_asked(self, tag: int) -> bool:
        """Another worker was told by this endpoint to leave it out. Asking clears it."""
        row = self._rows.get(tag)
        if row is None or not self._memory[row + _ASKED]:
            return False
        self._memory[row + _ASKED] = 0
        return True

    def has_traffic(self, tag: int) -> bool:
        """Another worker has called the endpoint's cluster."""
        row = self._rows.get(tag)
        return row is not None and self._memory[row + _TRAFFIC] != 0

    # -- the others

    def note_immediate_failure(self, tag: int) -> None:
        """The endpoint asks to be left out."""
        self._note_in(tag, _ASKED)

    def note_traffic(self, tag: int) -> bool:
        """The endpoint's cluster has been called. False when the endpoint is not in the table yet."""
        return self._note_in(tag, _TRAFFIC)

    def _note_in(self, tag: int, column: int) -> bool:
        row = self._rows.get(tag)
        if row is None:
            return False
        self._memory[row + column] = 1
        self._memory[self._note] += 1
        return True

    # -- both

    def look(self) -> None:
        """See whether somebody else wrote."""
        if self.checks:
            notes = self._memory[_NOTES:_HEAD].tolist()
            if notes == self._seen_notes:
                return
            self._seen_notes = notes
        else:
            changes = self._memory[_CHANGES]
            if changes != self._seen:
                self._seen = changes
                self._read()
        for follower in tuple(self.followers):
            follower.follow()
