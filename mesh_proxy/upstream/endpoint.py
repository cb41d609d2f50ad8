"""One address of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh_proxy.config.model import EndpointConfig, LocalityConfig
from mesh_proxy.stats.cluster_group import EndpointStats


class Endpoint:
    """An address that can be called, with its state. It outlives the update that drops it until its connections are gone."""

    __slots__ = (
        "address",
        "address_bytes",
        "cluster_name",
        "config",
        "ejected",
        "healthy",
        "host",
        "hostname",
        "locality",
        "metadata",
        "path",
        "pools",
        "port",
        "priority",
        "removed",
        "stats",
        "weight",
    )

    def __init__(
        self, cluster_name: str, config: EndpointConfig, host: str, locality: LocalityConfig, priority: int, hostname: str
    ) -> None:
        self.cluster_name = cluster_name
        self.config = config
        self.host = host
        """resolved IP literal; empty for a unix socket"""
        self.port = config.address.port
        self.path = config.address.path
        """unix socket path; empty for TCP"""
        if self.path:
            self.address = self.path
        else:
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.address_bytes = self.address.encode()
        self.hostname = hostname
        """name it was resolved from, or the endpoint's `hostname`; what auto_host_rewrite uses"""
        self.locality = locality
        self.priority = priority
        self.weight = config.weight
        self.metadata: Mapping[str, Any] = config.metadata
        self.healthy = config.health_status in ("UNKNOWN", "HEALTHY", "DEGRADED")
        """by configuration and active health checks"""
        self.ejected = False
        """by outlier detection"""
        self.removed = False
        """no longer in the cluster: its pools drain"""
        self.pools: dict[str, Any] = {}
        """protocol -> connection pool, made at first use by the data path (`http1`, `http2`, `dubbo` …)"""
        self.stats = EndpointStats()
        """rq_active is what LEAST_REQUEST compares"""

    def __repr__(self) -> str:
        return f"<Endpoint {self.cluster_name} {self.address} weight={self.weight}{'' if self.healthy else ' unhealthy'}>"
