"""Clusters that are like another one but for their names and addresses.

Of thousands of clusters most differ in nothing else. Such a twin is a reference to the first of its kind and a handful of values,
a tenth of a ClusterConfig, and what it stands for is made when somebody uses the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mesh_proxy.config.model.cluster import ClusterConfig, EndpointSetConfig

if TYPE_CHECKING:
    from mesh_proxy.config.model.health import HealthCheckConfig
    from mesh_proxy.config.model.source import Reference
    from mesh_proxy.config.model.tls import SecretConfig

Values = tuple[Any, ...]
"""Name; then, if there is a load assignment, its cluster name, and host and port of each endpoint."""


@dataclass(frozen=True, slots=True)
class ClusterTwin:
    """What a ClusterConfig says, in few words. It has no transport socket and nothing that comes from elsewhere."""

    like: ClusterConfig
    values: Values

    @property
    def name(self) -> str:
        """See ClusterConfig."""
        name: str = self.values[0]
        return name

    @property
    def kind(self) -> str:
        """See ClusterConfig."""
        return self.like.kind

    @property
    def alt_stat_name(self) -> str:
        """See ClusterConfig."""
        return self.like.alt_stat_name

    @property
    def health_check(self) -> HealthCheckConfig | None:
        """See ClusterConfig."""
        return self.like.health_check

    @property
    def references(self) -> tuple[Reference, ...]:
        """See ClusterConfig."""
        return ()

    @property
    def tls_secrets(self) -> tuple[SecretConfig, ...]:
        """See ClusterConfig."""
        return ()

    @property
    def config(self) -> ClusterConfig:
        """In full."""
        like, values = self.like, self.values
        endpoints = like.endpoints
        if endpoints is None:
            return replace(like, name=values[0])
        if len(values) == 1:
            return replace(like, name=values[0], endpoints=replace(endpoints, cluster_name=values[0]))
        return replace(like, name=values[0], endpoints=_endpoints(endpoints, iter(values[1:])))


AnyClusterConfig = ClusterConfig | ClusterTwin
"""A cluster, as it is kept until it is used."""


def in_full(config: AnyClusterConfig) -> ClusterConfig:
    """What a cluster is made from."""
    return config if isinstance(config, ClusterConfig) else config.config


def _endpoints(like: EndpointSetConfig, values: Iterator[Any]) -> EndpointSetConfig:
    return replace(
        like,
        cluster_name=next(values),
        localities=tuple(
            replace(
                locality,
                endpoints=tuple(
                    replace(one, address=replace(one.address, host=next(values), port=next(values))) for one in locality.endpoints
                ),
            )
            for locality in like.localities
        ),
    )
