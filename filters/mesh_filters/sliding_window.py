"""Sums over the last seconds, in buckets (Sentinel: `LeapArray`): a bucket that has become too old starts anew.

The window moves by whole buckets. What is asked for are sums over the buckets that are at most an interval old, the running one
included, so a window of one bucket begins at zero with each interval.
"""

from __future__ import annotations

from collections.abc import Iterator


class SlidingWindow:
    """`fields` numbers per bucket. Times are monotonic seconds."""

    __slots__ = ("_begins", "_fields", "_length", "_rows", "interval_s")

    def __init__(self, interval_s: float, buckets: int, fields: int) -> None:
        self.interval_s = interval_s
        self._length = interval_s / buckets
        self._fields = fields
        self._begins = [-1] * buckets
        """number of the bucket's turn since time 0"""
        self._rows = [[0.0] * fields for _ in range(buckets)]

    def current(self, now: float) -> list[float]:
        """The running bucket: add to it."""
        turn = int(now / self._length)
        place = turn % len(self._rows)
        if self._begins[place] != turn:
            self._begins[place] = turn
            self._rows[place] = [0.0] * self._fields
        return self._rows[place]

    def rows(self, now: float) -> Iterator[list[float]]:
        """The buckets that count now."""
        oldest = int(now / self._length) - len(self._rows)
        for begin, row in zip(self._begins, self._rows, strict=True):
            if begin > oldest:
                yield row

    def total(self, field: int, now: float) -> float:
        """The sum of one number."""
        return sum(row[field] for row in self.rows(now))

    def clear(self) -> None:
        """Forget everything."""
        self._begins = [-1] * len(self._rows)
