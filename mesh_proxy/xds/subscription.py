"""One subscription's statistics: what is counted when its file is read, accepted, refused, or does not come in time."""

from __future__ import annotations

import time
from typing import Final

from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.group import StatGroup
from mesh_proxy.upstream.xxhash64 import xxhash64
from mesh_proxy.xds.stats import EndpointSubscriptionStats, SubscriptionStats

_GAUGE_MASK: Final = (1 << 63) - 1
"""gauges are signed here"""


class Subscription:
    """Of listeners, clusters, or one named resource."""

    def __init__(self, kind: str, prefix: str) -> None:
        self._own: SubscriptionStats | EndpointSubscriptionStats
        self._counts: SubscriptionStats | ClusterStats
        if kind == "eds":
            self._own, self._counts = EndpointSubscriptionStats(prefix), ClusterStats(prefix)
            self.groups: tuple[StatGroup, ...] = (self._own, self._counts)
        else:
            self._own = self._counts = SubscriptionStats(prefix)
            self.groups = (self._own,)

    def attempt(self) -> None:
        """The file is read."""
        self._counts.update_attempt += 1

    def success(self, version: str, took_s: float, *, changed: bool, empty: bool) -> None:
        """It was accepted."""
        now_ms = int(time.time() * 1000)
        self._counts.update_success += 1
        self._counts.version = xxhash64(version.encode()) & _GAUGE_MASK
        self._counts.update_empty += empty
        self._own.update_time = now_ms
        self._own.update_duration.record(took_s * 1000)
        if changed and isinstance(self._counts, SubscriptionStats):
            self._counts.config_reload += 1
            self._counts.config_reload_time_ms = now_ms

    def refused(self, *, unreadable: bool) -> None:
        """It was not."""
        if unreadable:
            self._counts.update_failure += 1
        else:
            self._own.update_rejected += 1

    def timed_out(self) -> None:
        """`initial_fetch_timeout` is over."""
        self._own.init_fetch_timeout += 1
