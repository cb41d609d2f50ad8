"""A token bucket as one number: the moment from which on it has been filling (Envoy: `common/token_bucket_impl.h`,
AtomicTokenBucket).

With `rate` tokens per second, what is in the bucket at `now` is `(now - since) * rate`, at most `size`. Taking n tokens moves
`since` forward by n / rate. So a bucket needs no timer, and all workers of a sidecar can share it in eight bytes of shared
memory (`Cell`). A race of two workers at the same moment costs one update: one request more than the bucket had tokens for.
"""

from __future__ import annotations

from typing import Protocol


class Cell(Protocol):
    """Where the number stands; 0.0 at the start, which is a full bucket."""

    def get(self) -> float:
        """The number."""

    def set(self, value: float) -> None:
        """Write it."""


class LocalCell:
    """A number of this worker alone."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0.0

    def get(self) -> float:
        """See Cell."""
        return self._value

    def set(self, value: float) -> None:
        """See Cell."""
        self._value = value


class TokenBucket:
    """Times are monotonic seconds."""

    __slots__ = ("_cell", "_period", "_whole", "rate", "size")

    def __init__(self, size: int, rate: float, cell: Cell) -> None:
        self.size = size
        self.rate = rate
        self._period = 1.0 / rate
        self._whole = size / rate
        """seconds that an empty bucket takes to fill"""
        self._cell = cell

    def take(self, now: float, tokens: int = 1) -> bool:
        """Take tokens, if there are so many."""
        since = self._cell.get()
        full = now - self._whole
        if since < full:
            since = full
        after = since + tokens * self._period
        if after > now + 1e-9:  # what a sum of binary fractions may lack of a whole token
            return False
        self._cell.set(after)
        return True

    def remaining(self, now: float) -> int:
        """Whole tokens in the bucket."""
        return max(0, min(self.size, int((now - self._cell.get()) * self.rate + 1e-6)))

    def __repr__(self) -> str:
        return f"<TokenBucket size={self.size} rate={self.rate:g}/s>"
