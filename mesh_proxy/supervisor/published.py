"""Everything that `/stats` shows: the workers' groups, the supervisor's own, and clusters that nobody has used yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mesh_proxy.cli.version import version_number
from mesh_proxy.config.model.twin import AnyClusterConfig
from mesh_proxy.stats.aggregate import StatsAggregator, StatsSnapshot, ZeroGroups
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.group import StatGroup, reset_group, sanitize
from mesh_proxy.stats.inheritance import export_sums, import_sums
from mesh_proxy.stats.names import HistogramStat
from mesh_proxy.supervisor.groups import (
    ClusterManagerStats,
    HotRestartStats,
    ListenerManagerStats,
    RuntimeStats,
    ServerStats,
    SupervisorStats,
    WatchdogStats,
)
from mesh_proxy.supervisor.memory import ProcessMemory
from mesh_proxy.supervisor.stage import STATE_NUMBERS
from mesh_proxy.xds.stats import DigestStats

NO_CERTIFICATE_DAYS: Final = 0xFFFF_FFFF
"""`server.days_until_first_cert_expiring` without certificates, as Envoy says it"""


class PublishedStats:
    """The supervisor's groups and the way to all others."""

    def __init__(self, aggregator: StatsAggregator) -> None:
        self.supervisor = SupervisorStats("supervisor.")
        self.listeners = ListenerManagerStats("listener_manager.")
        self.clusters = ClusterManagerStats("cluster_manager.")
        self.server = ServerStats("server.")
        self.runtime = RuntimeStats("runtime.")
        self.hot_restart = HotRestartStats("hot_restart.")
        self.digests = DigestStats("config_digest.")
        self.parent_connections = 0
        """downstream connections that the process before us still has"""
        self.extra: list[StatGroup] = [WatchdogStats("main_thread."), WatchdogStats("workers.")]
        """other groups of this process (the admin interface's)"""
        self._aggregator = aggregator
        self._zeros: ZeroGroups | None = None

    def configure(self, clusters: Sequence[AnyClusterConfig]) -> None:
        """These clusters exist, used or not."""
        prefixes = (f"cluster.{sanitize(cluster.alt_stat_name or cluster.name)}." for cluster in clusters)
        self._zeros = ZeroGroups(ClusterStats, prefixes)

    def snapshot(self) -> StatsSnapshot:
        """The sums of this moment."""
        local = (
            self.supervisor,
            self.listeners,
            self.clusters,
            self.server,
            self.runtime,
            self.hot_restart,
            self.digests,
            *self.extra,
        )
        return self._aggregator.snapshot(local, self._zeros)

    def look(
        self,
        *,
        state: str,
        concurrency: int,
        epoch: int,
        generation: int,
        uptime_s: int,
        connections: int,
        memory: Iterable[ProcessMemory],
        certificate_days: int | None = None,
    ) -> None:
        """Set the gauges that are states and not counts."""
        server = self.server
        server.state = STATE_NUMBERS[state]
        server.live = int(state == "LIVE")
        server.concurrency = concurrency
        server.hot_restart_epoch = epoch
        server.hot_restart_generation = generation
        server.uptime = uptime_s
        server.total_connections = connections + self.parent_connections
        server.parent_connections = self.parent_connections
        server.version = version_number()
        server.days_until_first_cert_expiring = NO_CERTIFICATE_DAYS if certificate_days is None else certificate_days
        measured = list(memory)
        server.memory_allocated = sum(process.private for process in measured)
        server.memory_heap_size = server.memory_physical_size = sum(process.pss for process in measured)

    def inherit(self, groups: Sequence[dict[str, Any]], connections: int, *, final: bool) -> None:
        """What the process before us has counted until now; when it has ended, nothing is active there. Raises ValueError."""
        self._aggregator.inherited = import_sums(groups, gauges=not final)
        self.parent_connections = 0 if final else connections

    def export(self) -> list[dict[str, Any]]:
        """For the process after us."""
        return export_sums(self.snapshot())

    def reset_counters(self) -> None:
        """Zero, in this process and of the dead."""
        self._aggregator.reset_counters()
        for group in (self.supervisor, self.listeners, self.clusters, self.server, self.runtime, self.hot_restart, *self.extra):
            reset_group(group)


class HistogramIntervals:
    """What a histogram got since the last flush: Envoy keeps it for its statistics sinks and shows it beside the whole.

    Nobody flushes here, so an interval ends with the first look after `length_s`.
    """

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._before: dict[str, list[int]] = {}
        self._seen: dict[str, list[int]] = {}
        self._began = time.monotonic()

    def begin_look(self) -> None:
        """Somebody asks for statistics."""
        now = time.monotonic()
        if now - self._began >= self._length_s:
            self._before, self._seen, self._began = self._seen, {}, now

    def counts(self, stat: HistogramStat) -> list[int]:
        """Counts per bucket in this interval."""
        name = stat.prefix + stat.name
        if any(stat.counts):
            self._seen[name] = stat.counts
        before = self._before.get(name)
        if before is None:
            return stat.counts
        return [max(0, now - then) for now, then in zip(stat.counts, before, strict=True)]
