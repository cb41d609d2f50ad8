"""Time-outs by the thousand: one ordered dict per duration and one timer for all, instead of a `call_later` per request.

Within one duration the order of arrival is the order of expiry, so a dict (ordered by insertion) is the queue: adding and
removing cost one dict operation each. What is added must be hashable by identity and answer `on_deadline`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

MIN_TICK_S: Final = 0.002
"""Two expiries closer than this are served by one wake-up."""


class Expiring(Protocol):
    """Something with a time-out."""

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """The time of an entry came; it has already been taken out of the queue."""


class DeadlineQueue:
    """Entries that all wait for the same number of seconds."""

    __slots__ = ("_deadlines", "duration_s", "entries")

    def __init__(self, deadlines: Deadlines, duration_s: float) -> None:
        self.duration_s = duration_s
        self.entries: dict[Expiring, float] = {}
        self._deadlines = deadlines

    def add(self, entry: Expiring, now: float) -> None:
        """Start (or restart) the wait of an entry at monotonic time `now`."""
        entries = self.entries
        if entry in entries:
            del entries[entry]
        entries[entry] = deadline = now + self.duration_s
        deadlines = self._deadlines
        if deadline < deadlines.next_wake:
            deadlines.arm(deadline)

    def discard(self, entry: Expiring) -> None:
        """Forget an entry, if it is there."""
        self.entries.pop(entry, None)

    def __repr__(self) -> str:
        return f"<DeadlineQueue {self.duration_s}s entries={len(self.entries)}>"


NEVER: Final = float("inf")
TRANSIENT_QUEUES: Final = 64
"""so many are kept before the empty ones go"""


class Deadlines:
    """All queues of a worker, woken by one timer of the loop at the earliest deadline."""

    __slots__ = ("_after", "_handle", "_loop", "_prune_at", "_queues", "_transient", "next_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self._loop = loop
        self._after = after
        """called once after a batch of expiries: flushes what they wrote"""
        self._queues: dict[tuple[str, float], DeadlineQueue] = {}
        self._transient: dict[tuple[str, float], DeadlineQueue] = {}
        self._prune_at = TRANSIENT_QUEUES
        self._handle: Any = None
        self.next_wake = NEVER

    def queue(self, kind: str, duration_s: float) -> DeadlineQueue:
        """The queue of a kind of time-out and its duration; the same object each time."""
        key = (kind, duration_s)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = DeadlineQueue(self, duration_s)
        return queue

    def transient(self, kind: str, duration_s: float) -> DeadlineQueue:
        """A queue for a duration that a request may ask for by a header. It is forgotten while it is empty, or else every value
        that somebody thinks of would stay for ever: add to it at once, and ask again the next time."""
        key = (kind, duration_s)
        queue = self._transient.get(key)
        if queue is None:
            if len(self._transient) >= self._prune_at:
                self._transient = {key: queue for key, queue in self._transient.items() if queue.entries}
                self._prune_at = 2 * len(self._transient) + TRANSIENT_QUEUES
            queue = self._transient[key] = DeadlineQueue(self, duration_s)
        return queue

    def _all(self) -> list[DeadlineQueue]:
        return [*self._queues.values(), *self._transient.values()]

    def arm(self, deadline: float) -> None:
        """Wake at that time at the latest."""
        if self._handle is not None:
            self._handle.cancel()
        self.next_wake = deadline
        self._handle = self._loop.call_later(max(deadline - monotonic(), MIN_TICK_S), self._wake)

    def _wake(self) -> None:
        self._handle = None
        self.next_wake = NEVER
        now = monotonic()
        try:
            for queue in self._all():
                entries = queue.entries
                while entries:
                    entry = next(iter(entries))
                    if entries[entry] > now:
                        break
                    del entries[entry]
                    entry.on_deadline(queue, now)
            self._after()
        finally:
            # Also when one of them raised: the time of all others must still come.
            earliest = min((next(iter(q.entries.values())) for q in self._all() if q.entries), default=NEVER)
            if earliest < self.next_wake:
                self.arm(earliest)

    def close(self) -> None:
        """Stop the timer and forget every entry."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.next_wake = NEVER
        for queue in self._all():
            queue.entries.clear()
