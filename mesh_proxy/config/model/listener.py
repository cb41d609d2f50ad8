"""Listeners, filter chains and network filters (`envoy.config.listener.v3`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mesh_proxy.config.model.common import AccessLogConfig, AddressConfig, SocketOptionConfig
from mesh_proxy.config.model.route import WeightedClusterConfig
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.model.tls import DownstreamTlsConfig, SecretConfig

if TYPE_CHECKING:
    from mesh_filters.rbac_rules import RulesConfig
    from mesh_proxy.config.model.dubbo import DubboProxyConfig
    from mesh_proxy.config.model.http import HttpManagerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChainMatchConfig:
    """Criteria of one chain (`FilterChainMatch`). An empty tuple or None means "any"."""

    destination_port: int | None = None
    prefix_ranges: tuple[str, ...] = ()
    """destination networks, e.g. `10.0.0.0/8`"""
    server_names: tuple[str, ...] = ()
    """lower-case SNI names; `*.example.com` for suffixes"""
    transport_protocol: str = ""
    """`raw_buffer` or `tls`"""
    application_protocols: tuple[str, ...] = ()
    direct_source_prefix_ranges: tuple[str, ...] = ()
    source_type: str = "ANY"
    """`ANY`, `SAME_IP_OR_LOOPBACK` or `EXTERNAL`"""
    source_prefix_ranges: tuple[str, ...] = ()
    source_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProxyConfig:
    """`envoy.filters.network.tcp_proxy`."""

    stat_prefix: str
    clusters: tuple[WeightedClusterConfig, ...]
    """one entry for `cluster`, several for `weighted_clusters`"""
    idle_timeout_s: float | None = 3600.0
    """both directions silent; None = never"""
    max_connect_attempts: int = 1
    max_downstream_connection_duration_s: float | None = None
    access_logs: tuple[AccessLogConfig, ...] = ()
    access_log_flush_interval_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimitConfig:
    """`envoy.filters.network.connection_limit`: connections of this filter chain, all workers together."""

    stat_prefix: str
    max_connections: int
    delay_s: float = 0.0
    """how long a refused connection is held before it is closed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRbacConfig:
    """`envoy.filters.network.rbac`: who may connect through this filter chain."""

    stat_prefix: str
    rules: RulesConfig | None = None
    """None: everybody"""
    shadow_rules: RulesConfig | None = None
    shadow_prefix: str = ""
    delay_s: float = 0.0
    """how long a denied connection is held before it is closed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRateConfig:
    """`envoy.filters.network.local_ratelimit`: new connections of this filter chain, all workers together."""

    stat_prefix: str
    max_tokens: int
    tokens_per_fill: int = 1
    fill_interval_s: float
    share_key: str = ""
    """filters with the same key and bucket share their tokens; empty: nobody"""
    enabled: bool = True
    runtime_key: str = ""
    """a runtime value that overrides `enabled`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChainConfig:
    """One chain of network filters. The last filter is terminal (tcp_proxy, http_connection_manager or dubbo_proxy)."""

    name: str = ""
    match: FilterChainMatchConfig | None = None
    filters: tuple[
        TcpProxyConfig | HttpManagerConfig | DubboProxyConfig | ConnectionLimitConfig | ConnectionRateConfig | NetworkRbacConfig,
        ...,
    ] = ()
    transport_socket: DownstreamTlsConfig | None = None
    """None = plain text"""
    transport_socket_connect_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPredicateConfig:
    """`ListenerFilterChainMatchPredicate`, about the destination port."""

    kind: str
    """`any`, `not`, `and`, `or` or `range`"""
    rules: tuple[PortPredicateConfig, ...] = ()
    start: int = 0
    end: int = 0
    """ports from `start` up to, and without, `end`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFilterConfig:
    """A filter that runs before the chain is chosen (`original_dst`, `tls_inspector`, `http_inspector` …)."""

    name: str
    type_url: str
    config: Any = None
    disabled: PortPredicateConfig | None = None
    """connections for which it does not run"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """A bound socket and its filter chains (`envoy.config.listener.v3.Listener`)."""

    name: str
    address: AddressConfig
    additional_addresses: tuple[AddressConfig, ...] = ()
    bind_to_port: bool = True
    stat_prefix: str = ""
    """used instead of the address in `listener.<here>.*`"""
    filter_chains: tuple[FilterChainConfig, ...] = ()
    default_filter_chain: FilterChainConfig | None = None
    listener_filters: tuple[ListenerFilterConfig, ...] = ()
    listener_filters_timeout_s: float | None = 15.0
    """None = wait for ever"""
    continue_on_listener_filters_timeout: bool = False
    use_original_dst: bool = False
    transparent: bool = False
    per_connection_buffer_limit_bytes: int = 1_048_576
    tcp_backlog_size: int | None = None
    """None = the kernel's net.core.somaxconn"""
    max_connections: int | None = None
    """from the runtime key `envoy.resource_limits.listener.<name>.connection_limit`; None = no limit"""
    ignore_global_conn_limit: bool = False
    """connections of this listener count for nothing in BootstrapConfig.max_downstream_connections"""
    enable_reuse_port: bool = True
    freebind: bool = False
    socket_options: tuple[SocketOptionConfig, ...] = ()
    traffic_direction: str = "UNSPECIFIED"
    """`UNSPECIFIED`, `INBOUND` or `OUTBOUND`"""
    drain_type: str = "DEFAULT"
    """`DEFAULT` or `MODIFY_ONLY`"""
    access_logs: tuple[AccessLogConfig, ...] = ()
    """for connections that no chain takes"""
    references: tuple[Reference, ...] = ()
    """route tables from elsewhere: the listener warms until all of them are there"""
    tls_secrets: tuple[SecretConfig, ...] = field(default=(), compare=False, repr=False)
    """those that the transport sockets name, as they were at load: a newer version changes no listener"""
