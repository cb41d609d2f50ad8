"""All clusters of a worker, by name.

A cluster costs little until it is used: with many of them configured, only the configuration is kept, and the Cluster with its
endpoints, statistics and balancer is made by the first `get`. Clusters that resolve names or check health are made at once,
and so are all of them when they are few, so that their statistics can be seen before the first request, as with Envoy.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, KeysView, Mapping
from typing import Any

from mesh_proxy.config.model import ClusterConfig
from mesh_proxy.config.model.twin import AnyClusterConfig, in_full
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.tls.secrets import SecretStore
from mesh_proxy.upstream.balancers import Random
from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.describe import describe_cluster
from mesh_proxy.upstream.dns_clusters import LogicalDnsCluster, StrictDnsCluster
from mesh_proxy.upstream.ejection_board import EjectionBoard
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.environment import Environment
from mesh_proxy.upstream.health.board import HealthBoard
from mesh_proxy.upstream.original_dst import OriginalDstCluster
from mesh_proxy.upstream.resolver import Resolver, StubResolver
from mesh_proxy.upstream.resource_table import ResourceTable

_KINDS: dict[str, type[Cluster]] = {
    "STRICT_DNS": StrictDnsCluster,
    "LOGICAL_DNS": LogicalDnsCluster,
    "ORIGINAL_DST": OriginalDstCluster,
}
"""STATIC and EDS are plain clusters"""

FEW_CLUSTERS = 200
"""up to so many, all clusters are made at once; about 5 KB each with statistics"""


class ClusterManager:
    """Where the data path finds clusters."""

    __slots__ = ("_clusters", "_configs", "_environment", "_replacements", "_wanted")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: StatRegistry,
        runtime: Mapping[str, Any],
        *,
        on_endpoint_removed: Callable[[Endpoint], None],
        uniform: Random = random.random,
        resolver: Resolver | None = None,
        table: ResourceTable | None = None,
        board: EjectionBoard | None = None,
        health_board: HealthBoard | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        if resolver is None:
            resolver = StubResolver(loop)
        self._environment = Environment(
            loop, registry, runtime, on_endpoint_removed, uniform, resolver, table, board, health_board, secrets
        )
        self._configs: dict[str, AnyClusterConfig] = {}
        self._clusters: dict[str, Cluster] = {}
        self._replacements: dict[str, Cluster] = {}
        """second instances that warm while the first ones serve"""
        self._wanted: dict[str, AnyClusterConfig] = {}
        """what there is to be after `switch`"""

    def get(self, name: str) -> Cluster | None:
        """The cluster, or None when there is none of that name."""
        cluster = self._clusters.get(name)
        if cluster is None and name in self._configs:
            cluster = self._make(name)
        return cluster

    def apply(self, configs: tuple[AnyClusterConfig, ...]) -> None:
        """Have exactly these clusters, at once."""
        self.prepare(configs)
        self.switch()

    def prepare(self, configs: tuple[AnyClusterConfig, ...]) -> None:
        """Have these clusters beside those that are to go, until `switch`. What did not change keeps all of its state. A cluster
        that must find its endpoints anew does so in a second instance, while the first one serves."""
        for replacement in self._replacements.values():  # nobody switched to it
            replacement.close(replaced=True)
        self._replacements = {}
        wanted = {config.name: config for config in configs}
        for name, config in wanted.items():
            old = self._configs.get(name)
            if old is None or old is config:
                continue
            if old == config:
                wanted[name] = old
            elif (cluster := self._clusters.get(name)) is not None:
                old, new = in_full(old), in_full(config)
                if old == new:
                    wanted[name] = self._configs[name]
                elif old.kind == new.kind and not _finds_endpoints_anew(old, new):
                    cluster.update(new)
                else:
                    self._replacements[name] = _KINDS.get(new.kind, Cluster)(new, self._environment)
        self._wanted = wanted
        self._configs = wanted | {name: config for name, config in self._configs.items() if name not in wanted}
        if self._environment.table is not None:
            self._environment.table.assign(self._configs)
        few = len(wanted) <= FEW_CLUSTERS
        for name, config in wanted.items():
            active = config.kind in ("STRICT_DNS", "LOGICAL_DNS") or config.health_check is not None
            if name not in self._clusters and (few or active):
                self._make(name)
        for replacement in self._replacements.values():
            replacement.start()

    def switch(self) -> None:
        """Second instances take over, and what `prepare` was not given goes."""
        for name, replacement in self._replacements.items():
            old, self._clusters[name] = self._clusters[name], replacement
            old.close(replaced=True)
            replacement.register()
        self._replacements = {}
        for name in self._configs.keys() - self._wanted.keys():
            self._drop(name)
        self._configs = self._wanted
        if self._environment.table is not None:
            self._environment.table.assign(self._configs)

    def _make(self, name: str) -> Cluster:
        config = in_full(self._configs[name])
        cluster = self._clusters[name] = _KINDS.get(config.kind, Cluster)(config, self._environment)
        cluster.start()
        return cluster

    def _drop(self, name: str) -> None:
        cluster = self._clusters.pop(name, None)
        if cluster is not None:
            cluster.close()

    def names(self) -> KeysView[str]:
        """Of all clusters, made or not, in the order of the configuration."""
        return self._configs.keys()

    def __iter__(self) -> Iterator[Cluster]:
        """The clusters that were made."""
        return iter(self._clusters.values())

    def __len__(self) -> int:
        return len(self._configs)

    async def warm(self, deadline_s: float) -> None:
        """Wait for the first answers of names that must be resolved and for the first check of every endpoint
        (`wait_for_warm_on_init`), at most so long."""
        environment = self._environment
        try:
            async with asyncio.timeout(deadline_s):
                while any(cluster.config.wait_for_warm_on_init for cluster in environment.cold | environment.unchecked):
                    await environment.next_warm()
        except TimeoutError:
            pass

    def describe(self) -> list[dict[str, Any]]:
        """Every cluster for `/clusters`, as plain values. Those that nobody used yet are made up from the configuration."""
        described = []
        for name, config in self._configs.items():
            cluster = self._clusters.get(name)
            if cluster is None:
                cluster = self._stand_in(config)
            described.append(describe_cluster(cluster))
        return described

    def _stand_in(self, config: AnyClusterConfig) -> Cluster:
        own = self._environment
        apart = Environment(own.loop, StatRegistry(), own.runtime, lambda _: None, own.random, own.resolver, secrets=own.secrets)
        cluster = Cluster(in_full(config), apart)
        cluster.start()
        return cluster

    def close(self) -> None:
        """Drop every cluster; endpoints are reported as removed."""
        for replacement in self._replacements.values():
            replacement.close(replaced=True)
        self._replacements = {}
        for name in list(self._clusters):
            self._drop(name)
        self._configs = self._wanted = {}
        self._environment.ticker.close()
        self._environment.resolver.close()


def _finds_endpoints_anew(old: ClusterConfig, new: ClusterConfig) -> bool:
    """All names are new ones: until they are looked up, the updated cluster would stand there without any endpoint."""
    return new.kind == "STRICT_DNS" and _names(new).isdisjoint(_names(old))


def _names(config: ClusterConfig) -> set[str]:
    localities = config.endpoints.localities if config.endpoints is not None else ()
    return {endpoint.address.host for locality in localities for endpoint in locality.endpoints}
