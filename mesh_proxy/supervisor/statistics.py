"""Looks at the statistics: what is asked, measured and set before somebody sees them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mesh_proxy.admin.certs import first_expiry_days
from mesh_proxy.stats.aggregate import StatsSnapshot
from mesh_proxy.stats.names import HistogramStat
from mesh_proxy.supervisor.memory import ProcessMemory, measure
from mesh_proxy.supervisor.published import HistogramIntervals
from mesh_proxy.worker import messages as m
from mesh_proxy.xds.resources import ignored_in

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

FLUSH_TIMEOUT_S: Final = 2.0
"""how long a look at the statistics waits for workers; their pages are at most a second old anyhow"""
MEMORY_AGE_S: Final = 5.0
"""how old `server.memory_*` may be"""


class Statistics:
    """One per supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._intervals = HistogramIntervals(supervisor.bootstrap.stats_flush_interval_s)
        self._measured: list[ProcessMemory] = []
        self._measured_at = float("-inf")

    def begin(self) -> None:
        """The bootstrap is there."""
        self._intervals = HistogramIntervals(self._supervisor.bootstrap.stats_flush_interval_s)

    async def fresh(self) -> StatsSnapshot:
        """All statistics. Workers with few groups write them to their pages first, so that a person sees what he just did."""
        supervisor = self._supervisor
        await supervisor.pool.ask(m.Flush, timeout_s=FLUSH_TIMEOUT_S)
        await supervisor.succession.refresh()
        supervisor.stats.look(
            state=supervisor.state,
            concurrency=supervisor.options.concurrency,
            epoch=supervisor.epoch,
            generation=supervisor.generation,
            uptime_s=supervisor.uptime_s,
            connections=supervisor.pool.active_connections,
            memory=self._memory(),
            certificate_days=first_expiry_days(supervisor.secrets.all, time.time()),
        )
        supervisor.configuration.digests.publish(supervisor.stats.digests)
        if supervisor.configuration.dynamic is not None:
            dynamic = supervisor.configuration.dynamic
            supervisor.stats.server.dynamic_unknown_fields = dynamic.unknown_fields
            supervisor.stats.supervisor.config_ignored = ignored_in(supervisor.bootstrap.warnings) + dynamic.ignored
        return supervisor.stats.snapshot()

    def histogram_intervals(self) -> Callable[[HistogramStat], list[int]]:
        """For one look at the histograms."""
        self._intervals.begin_look()
        return self._intervals.counts

    def _memory(self) -> list[ProcessMemory]:
        """At most a few seconds old: the kernel walks all page tables for it."""
        now = time.monotonic()
        if now - self._measured_at > MEMORY_AGE_S:
            self._measured_at = now
            self._measured = measure(self._supervisor.process_ids())
        return self._measured
