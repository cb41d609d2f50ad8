"""One address of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh_proxy.config.model import EndpointConfig, LocalityConfig
from mesh_proxy.stats.cluster_group import EndpointStats
from mesh_proxy.upstream.health.flags import DEGRADED, EXCLUDED, FAILED, PENDING

if TYPE_CHECKING:
    from mesh_proxy.tls.client import TlsConnector


class Endpoint:
    """An address that can be called, with its state. It outlives the update that drops it until its connections are gone."""

    __slots__ = (
        "address",
        "address_bytes",
        "cluster_name",
        "config",
        "degraded",
        "draining",
        "ejected",
        "health",
        "healthy",
        "host",
        "hostname",
        "locality",
        "metadata",
        "monitor",
        "path",
        "pools",
        "port",
        "priority",
        "removed",
        "stats",
        "tls",
        "weight",
    )

    def __init__(
        self, cluster_name: str, config: EndpointConfig, host: str, locality: LocalityConfig, priority: int, hostname: str
    ) -> None:
        self.cluster_name = cluster_name
        self.port = config.address.port
        self.path = config.address.path
        """unix socket path; empty for TCP"""
        self.health = 0
        """what active health checks say (`upstream/health/flags.py`)"""
        self.move(host)
        self.configure(config, locality, priority, hostname)
        self.ejected = False
        """by outlier detection"""
        self.removed = False
        """no longer in the cluster: its pools drain"""
        self.pools: dict[str, Any] = {}
        """protocol -> connection pool, made at first use by the data path (`http1`, `http2`, `dubbo` …)"""
        self.tls: TlsConnector | None = None
        """how to connect to it; None = plain text"""
        self.monitor: Any = None
        """the outlier detector's notes"""
        self.stats = EndpointStats()
        """rq_active is what LEAST_REQUEST compares"""

    def configure(self, config: EndpointConfig, locality: LocalityConfig, priority: int, hostname: str) -> None:
        """Take what the configuration says about the same address."""
        self.config = config
        self.locality = locality
        self.priority = priority
        self.hostname = hostname
        """name it was resolved from, or the endpoint's `hostname`; what auto_host_rewrite uses"""
        self.weight = config.weight
        self.metadata: Mapping[str, Any] = config.metadata
        self._judge()

    def set_health(self, health: int) -> None:
        """Active health checks found this out. The cluster is to be refreshed."""
        self.health = health
        self._judge()

    def _judge(self) -> None:
        status, health = self.config.health_status, self.health
        self.healthy = status in ("UNKNOWN", "HEALTHY", "DEGRADED") and not health & FAILED
        """by configuration and active health checks"""
        self.degraded = status == "DEGRADED" or health & DEGRADED != 0
        """healthy, but called only when the healthy ones do not suffice"""
        self.draining = status == "DRAINING" or health & (PENDING | EXCLUDED) != 0
        """not to be called, but no sign that the cluster is ill either"""

    def move(self, host: str) -> None:
        """Stand for another address from now on: the one endpoint of a LOGICAL_DNS cluster. Open connections stay."""
        self.host = host
        """resolved IP literal; empty for a unix socket"""
        if self.path:
            self.address = self.path
        else:
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.address_bytes: bytes = self.address.encode()

    def __repr__(self) -> str:
        return f"<Endpoint {self.cluster_name} {self.address} weight={self.weight}{'' if self.healthy else ' unhealthy'}>"
