"""Outlier detection: endpoints that keep failing are left out for a while (`envoy.config.cluster.v3.OutlierDetection`).

Counting and arithmetic follow Envoy (source/common/upstream/outlier_detection_impl.cc) without split origins: what a request
came to is one HTTP status, connection failures and time-outs included (the router says 503 and 504 for them).

An endpoint is ejected when so many 5xx, or so many 502/503/504, came in a row, or when at the end of an interval its success
rate lies far below that of the others or its failures exceed a percentage. It returns at the first tick after its time is over:
base ejection time times the number of ejections, which is forgotten again by one for every interval that it stays well.

Each worker detects by the requests that it sent itself; whom one ejects the others leave out too (see ejection_board).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

from mesh_proxy.config.model import OutlierDetectionConfig
from mesh_proxy.stats.group import StatGroup
from mesh_proxy.upstream.ejection_board import tag as ejection_tag
from mesh_proxy.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from mesh_proxy.upstream.environment import Environment


class OutlierStats(StatGroup):
    """`cluster.<name>.outlier_detection.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "ejections_consecutive_5xx",
        "ejections_detected_consecutive_5xx",
        "ejections_detected_consecutive_gateway_failure",
        "ejections_detected_consecutive_local_origin_failure",
        "ejections_detected_degradation",
        "ejections_detected_failure_percentage",
        "ejections_detected_local_origin_failure_percentage",
        "ejections_detected_local_origin_success_rate",
        "ejections_detected_success_rate",
        "ejections_enforced_consecutive_5xx",
        "ejections_enforced_consecutive_gateway_failure",
        "ejections_enforced_consecutive_local_origin_failure",
        "ejections_enforced_failure_percentage",
        "ejections_enforced_local_origin_failure_percentage",
        "ejections_enforced_local_origin_success_rate",
        "ejections_enforced_success_rate",
        "ejections_enforced_total",
        "ejections_overflow",
        "ejections_success_rate",
        "ejections_total",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("ejections_active",)
    SHARED: ClassVar[frozenset[str]] = frozenset(GAUGES)
    __slots__ = (*COUNTERS, *GAUGES)

    ejections_consecutive_5xx: int
    ejections_enforced_total: int
    ejections_overflow: int
    ejections_success_rate: int
    ejections_total: int
    ejections_active: int


class Monitor:
    """What is known of one endpoint."""

    __slots__ = (
        "backoff",
        "by_others",
        "consecutive_5xx",
        "consecutive_gateway",
        "ejected_at",
        "jitter_s",
        "requests",
        "success_rate",
        "successes",
        "tag",
    )

    def __init__(self, tag: int) -> None:
        self.tag = tag
        """stands for the endpoint among workers; 0 with one worker"""
        self.by_others = False
        """ejected because another worker ejected it, and until that one takes it back"""
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.requests = 0
        """in this interval"""
        self.successes = 0
        """in this interval"""
        self.success_rate = -1.0
        """percentage in the last interval; -1: too few requests to tell"""
        self.ejected_at = 0.0
        """loop time of the last ejection"""
        self.backoff = 0
        """by how much the base ejection time is multiplied"""
        self.jitter_s = 0.0


class OutlierDetector:
    """The detector of one cluster."""

    __slots__ = (
        "_5xx_limit",
        "_changed",
        "_config",
        "_endpoints",
        "_environment",
        "_gateway_limit",
        "_threshold",
        "_tick",
        "average",
        "prefix",
        "stats",
    )

    def __init__(
        self, config: OutlierDetectionConfig, environment: Environment, prefix: str, changed: Callable[[], None]
    ) -> None:
        self._environment = environment
        self._changed = changed
        """called after ejections and returns"""
        self._endpoints: Sequence[Endpoint] = ()
        self.prefix = prefix
        """of the cluster's statistics"""
        self.stats = environment.registry.get(OutlierStats, f"{prefix}outlier_detection.")
        self._tick = environment.ticker.every(config.interval_s, self._on_interval)
        self.average = -1.0
        """success rate of the endpoints with enough requests in the last interval; -1: there were too few"""
        self._threshold = -1.0
        """the success rate below which an endpoint was an outlier"""
        self.configure(config)
        if environment.board is not None:
            environment.board.join(self, environment.ticker)

    def configure(self, config: OutlierDetectionConfig) -> None:
        """Take new settings; what was counted stays."""
        self._config = config
        self._tick.interval_s = self._setting("interval_ms", config.interval_s * 1000) / 1000
        self._5xx_limit = int(self._setting("consecutive_5xx", config.consecutive_5xx))
        self._gateway_limit = int(self._setting("consecutive_gateway_failure", config.consecutive_gateway_failure))

    def _setting(self, name: str, configured: float) -> float:
        return float(self._environment.runtime.get(f"outlier_detection.{name}", configured))

    def watch(self, endpoints: Sequence[Endpoint]) -> None:
        """These are the cluster's endpoints now."""
        kept = set(endpoints)
        board = self._environment.board
        for endpoint in self._endpoints:
            if endpoint not in kept:
                self._forget(endpoint)
        for endpoint in endpoints:
            if endpoint.monitor is None:
                endpoint.monitor = Monitor(ejection_tag(endpoint.cluster_name, endpoint.address) if board is not None else 0)
        self._endpoints = endpoints
        if board is not None and board.tags:
            self._adopt(board.tags)

    def _forget(self, endpoint: Endpoint) -> None:
        if endpoint.ejected:
            self._take_back(endpoint, endpoint.monitor)
        endpoint.monitor = None

    def _take_back(self, endpoint: Endpoint, monitor: Monitor) -> None:
        endpoint.ejected = False
        monitor.consecutive_5xx = monitor.consecutive_gateway = 0
        self.stats.ejections_active -= 1
        if monitor.by_others:
            monitor.by_others = False
        elif self._environment.board is not None:
            self._environment.board.withdraw(monitor.tag)

    def follow(self, tags: frozenset[int]) -> None:
        """Do as the other workers do; see ejection_board."""
        if self._adopt(tags):
            self._changed()

    def _adopt(self, tags: frozenset[int]) -> bool:
        changed = False
        for endpoint in self._endpoints:
            monitor: Monitor = endpoint.monitor
            if monitor.by_others:
                if monitor.tag not in tags:
                    self._take_back(endpoint, monitor)
                    changed = True
            elif monitor.tag in tags and not endpoint.ejected:
                endpoint.ejected = monitor.by_others = changed = True
                self.stats.ejections_active += 1
        return changed

    def close(self) -> None:
        """Stop; every endpoint is in again."""
        self._tick.stop()
        if self._environment.board is not None:
            self._environment.board.leave(self)
        for endpoint in self._endpoints:
            self._forget(endpoint)
        self._endpoints = ()
        self._environment.registry.remove(self.stats)

    def on_result(self, endpoint: Endpoint, status: int) -> None:
        """Count how a request ended."""
        monitor: Monitor | None = endpoint.monitor
        if monitor is None:
            return
        monitor.requests += 1
        if not 500 <= status < 600:
            monitor.successes += 1
            monitor.consecutive_5xx = monitor.consecutive_gateway = 0
            return
        if 502 <= status <= 504:
            monitor.consecutive_gateway += 1
            # Only when it is reached: an endpoint that could not be ejected then is not tried again for each further failure.
            if monitor.consecutive_gateway == self._gateway_limit and not endpoint.ejected:
                monitor.consecutive_gateway = 0
                self._eject(endpoint, monitor, "consecutive_gateway_failure", self._config.enforcing_consecutive_gateway_failure)
        else:
            monitor.consecutive_gateway = 0
        monitor.consecutive_5xx += 1
        if monitor.consecutive_5xx == self._5xx_limit and not endpoint.ejected:
            monitor.consecutive_5xx = 0
            self.stats.ejections_consecutive_5xx += 1
            self._eject(endpoint, monitor, "consecutive_5xx", self._config.enforcing_consecutive_5xx)

    def _eject(self, endpoint: Endpoint, monitor: Monitor, cause: str, enforcing: int) -> None:
        stats, config = self.stats, self._config
        _count(stats, f"ejections_detected_{cause}")
        most = min(100.0, self._setting("max_ejection_percent", config.max_ejection_percent))
        allowed = 100.0 * (stats.ejections_active + 1) / len(self._endpoints) <= most
        if not allowed and not (config.always_eject_one_host and not stats.ejections_active):
            stats.ejections_overflow += 1
            return
        if cause in ("consecutive_5xx", "success_rate"):
            stats.ejections_total += 1
        if self._environment.random() * 100 >= self._setting(f"enforcing_{cause}", enforcing):
            return
        stats.ejections_active += 1
        stats.ejections_enforced_total += 1
        _count(stats, f"ejections_enforced_{cause}")
        endpoint.ejected = True
        if self._environment.board is not None:
            self._environment.board.post(monitor.tag)
        monitor.ejected_at = self._environment.loop.time()
        if monitor.backoff * config.base_ejection_time_s < config.max_ejection_time_s + config.base_ejection_time_s:
            monitor.backoff += 1
        monitor.jitter_s = (
            self._environment.random() * config.max_ejection_time_jitter_s if config.max_ejection_time_jitter_s else 0.0
        )
        self._changed()

    def _on_interval(self) -> None:
        now = self._environment.loop.time()
        config = self._config
        base = self._setting("base_ejection_time_ms", config.base_ejection_time_s * 1000) / 1000
        most = self._setting("max_ejection_time_ms", config.max_ejection_time_s * 1000) / 1000
        returned = False
        rated: list[tuple[Endpoint, Monitor, int]] = []
        for endpoint in self._endpoints:
            monitor: Monitor = endpoint.monitor
            if not endpoint.ejected:
                monitor.backoff = max(0, monitor.backoff - 1)
            elif not monitor.by_others and min(base * monitor.backoff, most) + monitor.jitter_s <= now - monitor.ejected_at:
                self._take_back(endpoint, monitor)
                returned = True
            requests, successes = monitor.requests, monitor.successes
            monitor.requests = monitor.successes = 0
            monitor.success_rate = -1.0
            if requests and not endpoint.ejected:
                rated.append((endpoint, monitor, requests))
                monitor.success_rate = 100.0 * successes / requests
        if returned:
            if self._environment.board is not None:
                self._adopt(self._environment.board.tags)  # perhaps another worker does not trust it yet
            self._changed()
        self._compare(rated)

    def _compare(self, rated: list[tuple[Endpoint, Monitor, int]]) -> None:
        config, count = self._config, len(self._endpoints)
        self.average = self._threshold = -1.0
        rate_volume = self._setting("success_rate_request_volume", config.success_rate_request_volume)
        failure_volume = self._setting("failure_percentage_request_volume", config.failure_percentage_request_volume)
        rate_hosts = self._setting("success_rate_minimum_hosts", config.success_rate_minimum_hosts)
        failure_hosts = self._setting("failure_percentage_minimum_hosts", config.failure_percentage_minimum_hosts)
        by_rate = [(endpoint, monitor.success_rate) for endpoint, monitor, volume in rated if volume >= rate_volume]
        by_failures = [(endpoint, monitor.success_rate) for endpoint, monitor, volume in rated if volume >= failure_volume]
        enough = count >= rate_hosts or count >= failure_hosts
        for _, monitor, volume in rated:
            if not enough or volume < min(rate_volume, failure_volume):
                monitor.success_rate = -1.0
        if not enough:
            return
        if by_rate and len(by_rate) >= rate_hosts:
            factor = self._setting("success_rate_stdev_factor", config.success_rate_stdev_factor) / 1000
            self.average, self._threshold = ejection_threshold([rate for _, rate in by_rate], factor)
            for endpoint, rate in by_rate:
                if rate < self._threshold:
                    self.stats.ejections_success_rate += 1
                    self._eject(endpoint, endpoint.monitor, "success_rate", config.enforcing_success_rate)
        if by_failures and len(by_failures) >= failure_hosts:
            limit = self._setting("failure_percentage_threshold", config.failure_percentage_threshold)
            for endpoint, rate in by_failures:
                if 100.0 - rate >= limit and not endpoint.ejected:
                    self._eject(endpoint, endpoint.monitor, "failure_percentage", config.enforcing_failure_percentage)

    def describe(self) -> dict[str, float]:
        """The figures that `/clusters` shows; those of local origin are never worked out."""
        return {
            "success_rate_average": self.average,
            "success_rate_ejection_threshold": self._threshold,
            "local_origin_success_rate_average": -1.0,
            "local_origin_success_rate_ejection_threshold": -1.0,
        }


def ejection_threshold(rates: Iterable[float], factor: float) -> tuple[float, float]:
    """Mean, and mean minus factor times standard deviation, of success rates in percent."""
    values = list(rates)
    mean = sum(values) / len(values)
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return mean, mean - factor * deviation


def _count(stats: OutlierStats, name: str) -> None:
    setattr(stats, name, getattr(stats, name) + 1)
