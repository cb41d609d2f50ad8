"""Envoy's gradient controller (`adaptive_concurrency/controller/gradient_controller.cc`): how many requests may be under way.

Every `update_interval` the latencies of the window give sampleRTT, their `percentile`:

    gradient = min(2, max(0.5, minRTT * (1 + buffer) / sampleRTT))
    limit'   = limit * gradient + sqrt(limit * gradient),  between min_concurrency and max_limit

minRTT is measured anew every `min_rtt_interval` (and up to `jitter` of it later): the limit falls to `min_concurrency` until
`request_count` requests that began since then are answered; their percentile is the new minRTT, and the limit of before is
back. Five windows in a row at the lowest limit start such a measurement at once.

There is no timer: what is due is done when the next request begins or ends, with the time at which it was due, which is the
same as long as nobody looks in between. Each worker controls its own requests, with its share of the greatest limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAX_SAMPLES: Final = 4096
"""latencies kept of one window; beyond it each new one takes the place of one by lot"""
LOWEST_IN_A_ROW: Final = 5
"""windows at the lowest limit after which minRTT is measured again"""
_NEVER: Final = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConfig:
    """`GradientControllerConfig`, with Envoy's defaults. Durations in seconds, shares from 0 to 1."""

    percentile: float = 0.5
    """`sample_aggregate_percentile`"""
    max_limit: int = 1000
    """`max_concurrency_limit`"""
    update_interval_s: float
    """`concurrency_update_interval`"""
    min_rtt_interval_s: float = 0.0
    """`min_rtt_calc_params.interval`"""
    fixed_min_rtt_s: float | None = None
    """`fixed_value`: minRTT is not measured"""
    request_count: int = 50
    jitter: float = 0.15
    min_concurrency: int = 3
    buffer: float = 0.25


class GradientController:
    """Times are monotonic seconds. `stats` has the gauges of Envoy's controller, see `GAUGES`."""

    __slots__ = (
        "_config",
        "_deferred",
        "_epoch",
        "_lowest_in_a_row",
        "_max",
        "_measure_at",
        "_random",
        "_samples",
        "_seen",
        "_stats",
        "_update_at",
        "limit",
        "measuring",
        "min_rtt",
        "outstanding",
    )

    GAUGES: Final = (
        "burst_queue_size",
        "concurrency_limit",
        "gradient",
        "min_rtt_calculation_active",
        "min_rtt_msecs",
        "sample_rtt_msecs",
    )

    def __init__(self, config: GradientConfig, stats: Any, now: float, random: Callable[[], float], workers: int = 1) -> None:
        self._config = config
        self._stats = stats
        self._random = random
        self._max = max(config.min_concurrency, -(-config.max_limit // workers))
        self._samples: list[float] = []
        self._seen = 0
        """latencies of the window, those included that are not kept"""
        self._lowest_in_a_row = 0
        self._epoch = now
        """latencies of requests that began before do not count"""
        self._deferred = 0
        """the limit that holds again after the measurement"""
        self._update_at = now + config.update_interval_s
        self._measure_at = _NEVER
        self.outstanding = 0
        self.limit = config.min_concurrency
        self.measuring = False
        """minRTT is being measured"""
        self.min_rtt = 0.0
        """seconds"""
        if config.fixed_min_rtt_s is not None:
            self.min_rtt = config.fixed_min_rtt_s
            stats.min_rtt_msecs = int(self.min_rtt * 1000)
        else:
            self._begin_measuring(now)
        stats.concurrency_limit = self.limit

    def admit(self, now: float) -> bool:
        """Whether one more request may begin; then it must end by `done` or `cancel`."""
        if now >= self._update_at or now >= self._measure_at:
            self._run_timers(now)
        if self.outstanding >= self.limit:
            return False
        self.outstanding += 1
        return True

    def done(self, began: float, now: float) -> None:
        """A request was answered."""
        self.outstanding -= 1
        if now >= self._update_at or now >= self._measure_at:
            self._run_timers(now)
        if began < self._epoch:
            return
        self._seen += 1
        if len(self._samples) < MAX_SAMPLES:
            self._samples.append(now - began)
        elif (place := int(self._random() * self._seen)) < MAX_SAMPLES:
            self._samples[place] = now - began
        if self.measuring and self._seen >= self._config.request_count:
            self._end_measuring(now)

    def cancel(self) -> None:
        """A request ended without an answer."""
        self.outstanding -= 1

    # -- what is due

    def _run_timers(self, now: float) -> None:
        while not self.measuring:
            due = min(self._update_at, self._measure_at)
            if due > now:
                return
            if self._measure_at <= due:
                self._begin_measuring(due)
                return
            if self._samples:
                self._update()
                if self._measure_at <= due:
                    self._begin_measuring(due)
                    return
            interval = self._config.update_interval_s
            # Windows without a request change nothing.
            self._update_at = due + interval * max(1, math.ceil((min(now, self._measure_at) - due) / interval))

    def _aggregate(self) -> float:
        samples = sorted(self._samples)
        self._samples.clear()
        self._seen = 0
        return samples[max(0, math.ceil(self._config.percentile * len(samples)) - 1)]

    def _update(self) -> None:
        sample = max(self._aggregate(), 1e-6)
        stats, config = self._stats, self._config
        stats.sample_rtt_msecs = int(sample * 1000)
        gradient = max(0.5, min(2.0, self.min_rtt * (1 + config.buffer) / sample))
        stats.gradient = int(gradient * 1000)  # a gauge is whole: thousandths
        scaled = self.limit * gradient
        headroom = math.sqrt(scaled)
        stats.burst_queue_size = int(headroom)
        self._set_limit(max(config.min_concurrency, min(self._max, int(scaled + headroom))))

    def _set_limit(self, limit: int) -> None:
        lowest = self._config.min_concurrency
        if not self.measuring and self.limit == limit == lowest:
            self._lowest_in_a_row += 1
        else:
            self._lowest_in_a_row = 0
        self.limit = self._stats.concurrency_limit = limit
        if self._lowest_in_a_row >= LOWEST_IN_A_ROW and self._config.fixed_min_rtt_s is None:
            self._measure_at = -_NEVER

    def _begin_measuring(self, now: float) -> None:
        self.measuring = True
        self._stats.min_rtt_calculation_active = 1
        self._deferred = self.limit
        self._set_limit(self._config.min_concurrency)
        self._samples.clear()
        self._seen = 0
        self._epoch = max(now, self._epoch)
        self._update_at = self._measure_at = _NEVER

    def _end_measuring(self, now: float) -> None:
        config = self._config
        self.min_rtt = self._aggregate()
        self._stats.min_rtt_msecs = int(self.min_rtt * 1000)
        self._set_limit(self._deferred)
        self._deferred = 0
        self.measuring = False
        self._stats.min_rtt_calculation_active = 0
        self._measure_at = now + config.min_rtt_interval_s * (1 + config.jitter * self._random())
        self._update_at = now + config.update_interval_s

    def __repr__(self) -> str:
        return f"<GradientController limit={self.limit} outstanding={self.outstanding} min_rtt={self.min_rtt:.6f}>"
