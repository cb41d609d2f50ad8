"""A circuit breaker's states: Sentinel's degrade rules (`AbstractCircuitBreaker`, `ResponseTimeCircuitBreaker`,
`ExceptionCircuitBreaker`).

    CLOSED     everything passes and is counted for `window_s`. With `min_requests` of them at least, when the share of the slow
               ones or of the errors is over the threshold, or the number of errors: OPEN
    OPEN       nothing passes for `open_s`; then with the next request HALF_OPEN
    HALF_OPEN  only `probes` requests pass. One that is slow or fails: OPEN; as many good ones: CLOSED. A probe without an
               outcome (another filter refused it, its caller left) counts for nothing: the next request is a new one

The state is one number that workers may share: 0 is closed, otherwise the moment until which nothing passes. While a worker
probes it puts that moment forward, so that the others wait; a probe that is never heard of again is followed by the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from mesh_filters.sliding_window import SlidingWindow
from mesh_filters.token_bucket import Cell

REFUSED: Final = -1
PASSED: Final = 0
_TOTAL, _BAD = range(2)


class Kind(Enum):
    """What opens a breaker."""

    SLOW_RATIO = "slow_ratio"
    ERROR_RATIO = "error_ratio"
    ERROR_COUNT = "error_count"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Sentinel's `DegradeRule`, with its defaults."""

    kind: Kind
    threshold: float
    """share from 0 to 1, or number of errors, above which the breaker opens; a share of 1 is reached by 1"""
    slow_s: float = 0.0
    """a response that takes longer is slow"""
    window_s: float = 1.0
    min_requests: int = 5
    open_s: float = 10.0
    probes: int = 1


class Breaker:
    """The breaker of one key. Times are monotonic seconds. `stats` has the counters opened, half_opened and closed."""

    __slots__ = ("_cell", "_good", "_probe", "_rule", "_running", "_stats", "_window")

    def __init__(self, rule: BreakerRule, cell: Cell, stats: Any) -> None:
        self._rule = rule
        self._cell = cell
        self._stats = stats
        self._window = SlidingWindow(rule.window_s, 1, 2)
        self._probe = 0
        """number of the last probing phase of this worker"""
        self._running = 0
        """probes under way in it; 0 when this worker does not probe"""
        self._good = 0
        """… that were good"""

    def ask(self, now: float) -> int:
        """REFUSED, PASSED, or the number of the probing phase that the request belongs to; `report` or `abandon` must follow."""
        until = self._cell.get()
        if until == 0.0:
            self._running = 0
            return PASSED
        if now >= until:
            self._probe += 1
            self._running = 1
            self._good = 0
            self._cell.set(now + self._rule.open_s)
            self._stats.half_opened += 1
            return self._probe
        if self._running and self._running + self._good < self._rule.probes:
            self._running += 1
            return self._probe
        return REFUSED

    def report(self, asked: int, took_s: float, error: bool, now: float) -> None:
        """A request ended; `asked` is what `ask` said."""
        rule = self._rule
        bad = took_s > rule.slow_s if rule.kind is Kind.SLOW_RATIO else error
        if asked != PASSED:
            if asked == self._probe and self._running:
                self._probed(bad, now)
            return
        if self._cell.get() != 0.0:
            return  # it began before the breaker opened
        row = self._window.current(now)
        row[_TOTAL] += 1
        row[_BAD] += bad
        if row[_TOTAL] >= rule.min_requests and bad and self._is_over(row[_BAD], row[_TOTAL]):
            self._open(now)

    def _is_over(self, bad: float, total: float) -> bool:
        value = bad if self._rule.kind is Kind.ERROR_COUNT else bad / total
        return value > self._rule.threshold or (value == self._rule.threshold == 1.0)

    def _probed(self, bad: bool, now: float) -> None:
        self._running -= 1
        if bad:
            self._open(now)
            return
        self._good += 1
        if self._good >= self._rule.probes:
            self._running = 0
            self._window.clear()
            self._cell.set(0.0)
            self._stats.closed += 1

    def _open(self, now: float) -> None:
        self._running = 0
        self._window.clear()
        self._cell.set(now + self._rule.open_s)
        self._stats.opened += 1

    def abandon(self, asked: int, now: float) -> None:
        """A request ended without an outcome."""
        if asked == self._probe and asked != PASSED and self._running:
            self._running -= 1
            if not self._running:
                self._cell.set(now)

    def is_closed(self) -> bool:
        """Nothing is lost if it is forgotten."""
        return self._cell.get() == 0.0

    def __repr__(self) -> str:
        return f"<Breaker {self._rule.kind.value} until={self._cell.get():g} probing={self._running}>"
