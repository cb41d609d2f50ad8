"""Sentinel's system rule with its BBR check (`SystemRuleManager.checkBbr`): how many requests may be under way.

While the machine's load or CPU use is above its threshold, a request is refused when more than one is under way and

    under way > maxSuccessQps * minRt

that is more than the best bucket of the last seconds finished in the time of its quickest answers (Little's law). Below the
thresholds everything passes. Load and CPU use are looked at once a second, when a request comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mesh_filters.sliding_window import SlidingWindow

BUCKETS: Final = 10
"""of the window in which the best bucket is looked for"""
LOOK_S: Final = 1.0
_COUNT, _MIN_RTT = range(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class BbrConfig:
    """A system rule. None: that measure does not count."""

    load: float | None = None
    """average of processes that run or wait over a minute (`highestSystemLoad`)"""
    cpu: float | None = None
    """share of the machine's CPU time, 0 to 1 (`highestCpuUsage`)"""
    window_s: float = 5.0


class Machine:
    """Load and CPU use of this machine (Linux: `/proc/stat`)."""

    __slots__ = ("_busy", "_cpu", "_total")

    def __init__(self) -> None:
        self._busy = 0.0
        self._total = 0.0
        self._cpu = 0.0

    def look(self) -> tuple[float, float]:
        """Load of the last minute, and CPU use since the last look."""
        return os.getloadavg()[0], self.cpu()

    def cpu(self) -> float:
        """Since the last look, 0 to 1; 0 where it cannot be had."""
        try:
            with open("/proc/stat", "rb") as file:
                numbers = [float(word) for word in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return 0.0
        total = sum(numbers)
        busy = total - numbers[3] - numbers[4]  # idle, iowait
        if total > self._total:
            self._cpu = (busy - self._busy) / (total - self._total)
        self._busy, self._total = busy, total
        return self._cpu


class BbrController:
    """Times are monotonic seconds."""

    __slots__ = ("_config", "_look_at", "_machine", "_overloaded", "_scale", "_stats", "_window", "outstanding")

    GAUGES: Final = ("concurrency_limit", "overloaded")

    def __init__(self, config: BbrConfig, stats: Any, machine: Callable[[], tuple[float, float]] | None = None) -> None:
        """`machine` says load and CPU use."""
        if machine is None:
            machine = Machine().look
        self._config = config
        self._stats = stats
        self._machine = machine
        self._window = SlidingWindow(config.window_s, BUCKETS, 2)
        self._scale = BUCKETS / config.window_s
        """buckets per second"""
        self._overloaded = False
        self._look_at = 0.0
        self.outstanding = 0

    def capacity(self, now: float) -> float:
        """Requests that were under way when things went best."""
        rows = [row for row in self._window.rows(now) if row[_COUNT]]
        if not rows:
            return 0.0
        return max(row[_COUNT] for row in rows) * self._scale * min(row[_MIN_RTT] for row in rows)

    def admit(self, now: float) -> bool:
        """Whether one more request may begin; then it must end by `done` or `cancel`."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            load, cpu = self._machine()
            config = self._config
            self._overloaded = (config.load is not None and load > config.load) or (config.cpu is not None and cpu > config.cpu)
            self._stats.overloaded = int(self._overloaded)
        if self._overloaded and self.outstanding > 1:
            capacity = self.capacity(now)
            self._stats.concurrency_limit = int(capacity)
            if self.outstanding > capacity + 1e-6:
                return False
        self.outstanding += 1
        return True

    def done(self, began: float, now: float) -> None:
        """A request was answered."""
        self.outstanding -= 1
        row = self._window.current(now)
        took = now - began
        if not row[_COUNT] or took < row[_MIN_RTT]:
            row[_MIN_RTT] = took
        row[_COUNT] += 1

    def cancel(self) -> None:
        """A request ended without an answer."""
        self.outstanding -= 1

    def __repr__(self) -> str:
        return f"<BbrController {'overloaded' if self._overloaded else 'idle'} outstanding={self.outstanding}>"
