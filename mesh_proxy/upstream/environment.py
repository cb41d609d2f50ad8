"""What all clusters of a worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.tls.secrets import SecretStore
from mesh_proxy.upstream.balancers import Random
from mesh_proxy.upstream.ejection_board import EjectionBoard
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.health.board import HealthBoard
from mesh_proxy.upstream.resolver import Resolver
from mesh_proxy.upstream.resource_table import ResourceTable
from mesh_proxy.upstream.ticker import Ticker

if TYPE_CHECKING:
    from mesh_proxy.upstream.cluster import Cluster


class Environment:
    """One per cluster manager."""

    __slots__ = (
        "_warmed",
        "board",
        "cold",
        "health_board",
        "loop",
        "on_endpoint_removed",
        "random",
        "registry",
        "resolver",
        "runtime",
        "secrets",
        "table",
        "ticker",
        "unchecked",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: StatRegistry,
        runtime: Mapping[str, Any],
        on_endpoint_removed: Callable[[Endpoint], None],
        uniform: Random,
        resolver: Resolver,
        table: ResourceTable | None = None,
        board: EjectionBoard | None = None,
        health_board: HealthBoard | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        self.loop = loop
        self.registry = registry
        self.runtime = runtime
        self.on_endpoint_removed = on_endpoint_removed
        self.random = uniform
        """uniform in [0, 1)"""
        self.resolver = resolver
        self.table = table
        """where circuit breakers count for all workers; None: for this one alone"""
        self.board = board
        """where workers tell each other of ejections; None: there is but one"""
        self.health_board = health_board
        """what health checks say to all workers; None: there is but one"""
        self.secrets = secrets if secrets is not None else SecretStore()
        """certificates, keys and trust bundles"""
        self.ticker = Ticker(loop)
        self.cold: set[Cluster] = set()
        """clusters that wait for a first answer"""
        self.unchecked: set[Cluster] = set()
        """clusters of whose endpoints some have never been checked"""
        self._warmed: asyncio.Event | None = None
        """made while somebody waits"""

    def became_warm(self, cluster: Cluster) -> None:
        """The cluster waits no more."""
        self.cold.discard(cluster)
        if self._warmed is not None:
            self._warmed.set()

    def became_checked(self, cluster: Cluster) -> None:
        """Every endpoint of the cluster has been checked once."""
        if cluster in self.unchecked:
            self.unchecked.discard(cluster)
            if self._warmed is not None:
                self._warmed.set()

    async def next_warm(self) -> None:
        """Wait until `cold` or `unchecked` has become smaller."""
        self._warmed = asyncio.Event()
        await self._warmed.wait()
