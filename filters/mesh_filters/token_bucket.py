"""A token bucket as one number: the moment from which on it has been filling (Envoy: `common/token_bucket_impl.h`,
AtomicTokenBucket).

With `rate` tokens per second, what is in the bucket at `now` is `(now - since) * rate`, at most `size`. Taking n tokens moves
`since` forward by n / rate. So a bucket needs no timer, and all workers of a sidecar can share it in eight bytes of shared
memory (`Cell`). The number is written only if it is still the one that was read: two workers do not take the same token.
"""

from __future__ import annotations

from typing import Final, Protocol

RACES: Final = 4
"""times that a bucket is looked at again because another worker was faster"""
SPARE: Final = 16
"""When another worker was stopped by the machine while it took from the bucket, requests pass on credit as long as so many tokens
are left, and none when there are fewer: the wait may be some milliseconds."""


class Cell(Protocol):
    """Where the number stands; 0.0 at the start, which is a full bucket."""

    def get(self) -> float:
        """The number."""

    def set(self, value: float) -> None:
        """Write it."""

    def replace(self, old: float, new: float) -> bool:
        """Write it unless it is no longer `old`; whether it was written."""


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

    def replace(self, old: float, new: float) -> bool:
        """See Cell."""
        self._value = new
        return True


class TokenBucket:
    """Times are monotonic seconds."""

    __slots__ = ("_cell", "_period", "_whole", "owed", "rate", "size")

    def __init__(self, size: int, rate: float, cell: Cell) -> None:
        self.size = size
        self.rate = rate
        self._period = 1.0 / rate
        self._whole = size / rate
        """seconds that an empty bucket takes to fill"""
        self._cell = cell
        self.owed = 0
        """tokens that were given out while another worker had its turn, and are taken from the bucket at the next opportunity"""

    def take(self, now: float, tokens: int = 1) -> bool:
        """Take tokens, if there are so many."""
        cell = self._cell
        full = now - self._whole
        owed = self.owed
        for _ in range(RACES):
            found = cell.get()
            before = (found if found > full else full) + owed * self._period
            after = before + tokens * self._period
            if after > now + 1e-9:  # what a sum of binary fractions may lack of a whole token
                if owed and cell.replace(found, before):
                    self.owed = 0
                return False
            if cell.replace(found, after):
                self.owed = 0
                return True
        if now - after < min(SPARE, self.size - tokens) * self._period:
            return False
        self.owed = owed + tokens
        return True

    def remaining(self, now: float) -> int:
        """Whole tokens in the bucket."""
        return max(0, min(self.size, int((now - self._cell.get()) * self.rate + 1e-6)))

    def __repr__(self) -> str:
        return f"<TokenBucket size={self.size} rate={self.rate:g}/s>"
