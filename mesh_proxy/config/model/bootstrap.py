"""The whole of a start-up configuration (`envoy.config.bootstrap.v3.Bootstrap`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh_proxy.config.model.cluster import LocalityConfig
from mesh_proxy.config.model.common import AccessLogConfig, AddressConfig
from mesh_proxy.config.model.dubbo import DubboRoutesConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.config.model.route import RouteTableConfig
from mesh_proxy.config.model.source import ConfigSource, Reference
from mesh_proxy.config.model.tls import SecretConfig
from mesh_proxy.config.model.twin import AnyClusterConfig


class ResourceView(Protocol):
    """A resource as `/config_dump` and `/config_digest` show it (`mesh_proxy.config.dump.ResourceDump`)."""

    @property
    def type_url(self) -> str:
        """`type.googleapis.com/envoy.config.…`"""

    @property
    def name(self) -> str:
        """Its name; empty for the bootstrap."""

    @property
    def version(self) -> str:
        """`version_info` of where it came from; empty for what stands in the bootstrap."""

    @property
    def digest(self) -> str:
        """SHA-256 of the resource, secrets included but not recoverable."""

    @property
    def json(self) -> str:
        """Canonical proto JSON with proto field names, secrets redacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """`Node`: who this sidecar is."""

    id: str = ""
    cluster: str = ""
    locality: LocalityConfig = LocalityConfig()
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """`Admin`."""

    address: AddressConfig
    access_logs: tuple[AccessLogConfig, ...] = ()
    ignore_global_conn_limit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig:
    """`Bootstrap`."""

    node: NodeConfig = NodeConfig()
    admin: AdminConfig | None = None
    listeners: tuple[ListenerConfig, ...] = ()
    clusters: tuple[AnyClusterConfig, ...] = ()
    lds: ConfigSource | None = None
    """where more listeners come from (`dynamic_resources.lds_config`)"""
    cds: ConfigSource | None = None
    """where more clusters come from (`dynamic_resources.cds_config`)"""
    runtime: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """flattened `layered_runtime` static layers: dotted key -> number, string or bool"""
    stats_flush_interval_s: float = 5.0
    header_prefix: str = "x-envoy"
    max_downstream_connections: int | None = None
    """runtime key `overload.global_downstream_max_connections`"""
    warnings: tuple[tuple[str, str], ...] = field(default=(), hash=False, compare=False)
    """(path, text) of what was accepted with a remark: ignored fields, unknown fields, keys given twice"""
    unknown_static_fields: int = field(default=0, compare=False)
    """how many unknown fields `--allow-unknown-static-fields` let pass (`server.static_unknown_fields`)"""
    resources: tuple[ResourceView, ...] = field(default=(), repr=False, hash=False, compare=False)
    """the bootstrap first, then every static listener and cluster, for `/config_dump`; secrets redacted"""

    @property
    def proto_json(self) -> str:
        """The whole bootstrap as canonical proto JSON."""
        return self.resources[0].json if self.resources else "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """What a worker is told: one version of everything it serves."""

    version: int
    """grows by one with each change; a worker answers with it when the version is live"""
    node: NodeConfig
    listeners: tuple[ListenerConfig, ...]
    clusters: tuple[AnyClusterConfig, ...]
    runtime: Mapping[str, Any] = field(default_factory=dict, hash=False)
    header_prefix: str = "x-envoy"
    max_downstream_connections: int | None = None
    rotated_secrets: tuple[SecretConfig, ...] = field(default=(), repr=False)
    """newer versions of what listeners and clusters bring in their `tls_secrets`"""
    route_tables: Mapping[Reference, RouteTableConfig | DubboRoutesConfig] = field(default_factory=dict, hash=False)
    """route tables that came apart from their listeners (RDS)"""
