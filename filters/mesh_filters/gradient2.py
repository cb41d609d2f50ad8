"""Netflix's Gradient2 limit (concurrency-limits, `Gradient2Limit` within `WindowedLimit`): how many requests may be under way.

Latencies are averaged over a window; with each window of more than `SAMPLES` requests

    gradient = max(0.5, min(1, tolerance * long / short))
    limit'   = (1 - smoothing) * limit + smoothing * (limit * gradient + queue),  between min and max

`short` is the window's average, `long` an exponential average over `long_window` of these. When long is more than twice short
it loses a twentieth: latency is back to normal. A limit that was not half used stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

SAMPLES: Final = 10
"""a window of no more requests says nothing and goes on"""
WARM_UP: Final = 10
"""so many windows are averaged plainly before the exponential average begins"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient2Config:
    """The parameters of `Gradient2Limit`, with its defaults."""

    initial: int = 20
    low: int = 20
    high: int = 200
    smoothing: float = 0.2
    queue: int = 4
    long_window: int = 600
    """windows"""
    tolerance: float = 1.5
    window_s: float = 1.0


class Gradient2Controller:
    """Times are monotonic seconds."""

    __slots__ = ("_config", "_count", "_first", "_limit", "_long", "_most", "_stats", "_sum", "_warm", "_windows", "outstanding")

    GAUGES: Final = ("concurrency_limit", "gradient", "long_rtt_msecs", "short_rtt_msecs")

    def __init__(self, config: Gradient2Config, stats: Any, now: float, workers: int = 1) -> None:
        self._config = Gradient2Config(
            initial=-(-config.initial // workers),
            low=-(-config.low // workers),
            high=-(-config.high // workers),
            smoothing=config.smoothing,
            queue=config.queue,
            long_window=config.long_window,
            tolerance=config.tolerance,
            window_s=config.window_s,
        )
        self._stats = stats
        self._limit = float(self._config.initial)
        self._long = 0.0
        self._windows = 0
        self._warm = 0.0
        """sum of the averages of the first windows"""
        self._sum = 0.0
        self._count = 0
        self._most = 0
        """requests under way at the same time in this window"""
        self._first = now
        """when the window began"""
        self.outstanding = 0
        stats.concurrency_limit = self.limit

    @property
    def limit(self) -> int:
        """Requests that may be under way."""
        return int(self._limit)

    @property
    def long_rtt(self) -> float:
        """Seconds."""
        return self._long

    def admit(self, now: float) -> bool:
        """Whether one more request may begin; then it must end by `done` or `cancel`."""
        if self.outstanding >= int(self._limit):
            return False
        self.outstanding += 1
        if self.outstanding > self._most:
            self._most = self.outstanding
        return True

    def done(self, began: float, now: float) -> None:
        """A request was answered."""
        self.outstanding -= 1
        self._sum += now - began
        self._count += 1
        if now - self._first >= self._config.window_s and self._count > SAMPLES:
            short, most = self._sum / self._count, self._most
            self._first = now
            self._sum, self._count, self._most = 0.0, 0, self.outstanding
            self.update(short, most)

    def cancel(self) -> None:
        """A request ended without an answer."""
        self.outstanding -= 1

    def update(self, short: float, most: int) -> None:
        """A window is over: its average latency, and how many requests were under way at most."""
        config, stats = self._config, self._stats
        short = max(short, 1e-6)
        if self._windows < WARM_UP:
            self._windows += 1
            self._warm += short
            self._long = self._warm / self._windows
        else:
            factor = 2.0 / (config.long_window + 1)
            self._long += (short - self._long) * factor
        long = self._long
        if long / short > 2:
            self._long *= 0.95
        stats.short_rtt_msecs, stats.long_rtt_msecs = int(short * 1000), int(long * 1000)
        if most < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, config.tolerance * long / short))
        stats.gradient = int(gradient * 1000)
        limit = self._limit * gradient + config.queue
        limit = self._limit * (1 - config.smoothing) + limit * config.smoothing
        self._limit = max(float(config.low), min(float(config.high), limit))
        stats.concurrency_limit = int(self._limit)

    def __repr__(self) -> str:
        return f"<Gradient2Controller limit={self._limit:.1f} outstanding={self.outstanding} long_rtt={self._long:.6f}>"
