"""Clusters and endpoints (`envoy.config.cluster.v3`, `envoy.config.endpoint.v3`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh_proxy.config.model.common import AddressConfig, BindConfig
from mesh_proxy.config.model.dubbo import DubboClusterConfig
from mesh_proxy.config.model.health import EndpointCheckConfig, HealthCheckConfig
from mesh_proxy.config.model.http2 import Http2Config
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.model.tls import SecretConfig, TransportMatchConfig, UpstreamTlsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityConfig:
    """`Locality`."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """One `LbEndpoint`."""

    address: AddressConfig
    hostname: str = ""
    weight: int = 1
    health_status: str = "UNKNOWN"
    """`UNKNOWN`, `HEALTHY`, `UNHEALTHY`, `DRAINING`, `TIMEOUT` or `DEGRADED`"""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """filter_metadata as plain JSON"""
    health_check: EndpointCheckConfig = EndpointCheckConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityEndpointsConfig:
    """`LocalityLbEndpoints`."""

    locality: LocalityConfig = LocalityConfig()
    endpoints: tuple[EndpointConfig, ...] = ()
    weight: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSetConfig:
    """`ClusterLoadAssignment`."""

    cluster_name: str
    localities: tuple[LocalityEndpointsConfig, ...] = ()
    overprovisioning_factor: int = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdsConfig:
    """`CircuitBreakers.Thresholds` of one priority, with Envoy's defaults."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget_percent: float | None = None
    retry_budget_min_concurrency: int = 3
    track_remaining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetectionConfig:
    """`OutlierDetection`, with Envoy's defaults."""

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 5
    interval_s: float = 10.0
    base_ejection_time_s: float = 30.0
    max_ejection_time_s: float = 300.0
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    enforcing_consecutive_gateway_failure: int = 0
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    """thousandths"""
    enforcing_success_rate: int = 100
    failure_percentage_threshold: int = 85
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    enforcing_failure_percentage: int = 0
    max_ejection_time_jitter_s: float = 0.0
    always_eject_one_host: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSelectorConfig:
    """`LbSubsetSelector`."""

    keys: tuple[str, ...]
    single_host_per_subset: bool = False
    fallback_policy: str = "NOT_DEFINED"
    """`NOT_DEFINED` (the cluster's), `NO_FALLBACK`, `ANY_ENDPOINT`, `DEFAULT_SUBSET` or `KEYS_SUBSET`"""
    fallback_keys: tuple[str, ...] = ()
    """for KEYS_SUBSET"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetConfig:
    """`LbSubsetConfig`."""

    fallback_policy: str = "NO_FALLBACK"
    """`NO_FALLBACK`, `ANY_ENDPOINT` or `DEFAULT_SUBSET`"""
    default_subset: Mapping[str, Any] = field(default_factory=dict, hash=False)
    selectors: tuple[SubsetSelectorConfig, ...] = ()
    locality_weight_aware: bool = False
    panic_mode_any: bool = False
    list_as_any: bool = False
    metadata_fallback_list: bool = False
    """`metadata_fallback_policy: FALLBACK_LIST`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """`Cluster`."""

    name: str
    kind: str = "STATIC"
    """`STATIC`, `STRICT_DNS`, `LOGICAL_DNS`, `ORIGINAL_DST` or `EDS`"""
    alt_stat_name: str = ""
    connect_timeout_s: float = 5.0
    per_connection_buffer_limit_bytes: int = 1_048_576
    lb_policy: str = "ROUND_ROBIN"
    """`ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `RING_HASH`, `MAGLEV` or `CLUSTER_PROVIDED`"""
    least_request_choice_count: int = 2
    ring_hash_minimum_size: int = 1024
    ring_hash_maximum_size: int = 8_388_608
    maglev_table_size: int = 65537
    """a prime"""
    hash_by_hostname: bool = False
    """`consistent_hashing_lb_config.use_hostname_for_hashing`"""
    endpoints: EndpointSetConfig | None = None
    """of a cluster of type EDS: filled in when they arrive"""
    eds_service_name: str = ""
    references: tuple[Reference, ...] = ()
    """endpoints (`eds`) from elsewhere: the cluster warms until they are there"""
    thresholds: ThresholdsConfig = ThresholdsConfig()
    high_thresholds: ThresholdsConfig = ThresholdsConfig()
    per_host_max_connections: int | None = None
    dns_refresh_rate_s: float = 5.0
    dns_jitter_s: float = 0.0
    """a random part of this is added to the refresh rate"""
    dns_failure_refresh_base_s: float | None = None
    """after failures: exponential back-off with full jitter from here; None = the refresh rate"""
    dns_failure_refresh_max_s: float | None = None
    """None = 10 * base"""
    respect_dns_ttl: bool = False
    dns_lookup_family: str = "AUTO"
    """`AUTO` (IPv6 first), `V4_ONLY`, `V6_ONLY`, `V4_PREFERRED` or `ALL`"""
    wait_for_warm_on_init: bool = True
    max_requests_per_connection: int = 0
    """0 = no limit"""
    idle_timeout_s: float | None = 3600.0
    """a pooled connection without a request"""
    max_connection_duration_s: float | None = None
    max_stream_duration_s: float | None = None
    """longest life of one attempt of a request, from its connection to the end of the response"""
    upstream_protocol: str = "HTTP1"
    """`HTTP1`, `HTTP2`, `DOWNSTREAM` (same as the request came in) or `AUTO` (ALPN)"""
    http1_enable_trailers: bool = False
    max_response_headers_kb: int = 60
    max_response_headers_count: int = 100
    http2: Http2Config = Http2Config()
    dubbo: DubboClusterConfig = DubboClusterConfig()
    transport_socket: UpstreamTlsConfig | None = None
    """None = plain text"""
    transport_matches: tuple[TransportMatchConfig, ...] = ()
    """the first that fits an endpoint's metadata goes before `transport_socket`"""
    tls_secrets: tuple[SecretConfig, ...] = field(default=(), compare=False, repr=False)
    """those that the transport sockets name, as they were at load: a newer version changes no cluster"""
    bind: BindConfig | None = None
    """source address and socket options of upstream connections (`upstream_bind_config`)"""
    tcp_keepalive: tuple[int, int, int] | None = None
    """(probes, time in s, interval in s); 0 = the kernel's value"""
    panic_threshold_percent: float = 50.0
    locality_weighted: bool = False
    """`locality_weighted_lb_config` is set: localities share the load by their weights, which count for nothing else"""
    outlier_detection: OutlierDetectionConfig | None = None
    health_check: HealthCheckConfig | None = None
    ignore_new_until_checked: bool = False
    """`ignore_new_hosts_until_first_hc`: unchecked endpoints do not count as unhealthy ones"""
    ignore_health_on_removal: bool = False
    """`ignore_health_on_host_removal`: what discovery drops goes at once, also while it passes its checks"""
    subsets: SubsetConfig | None = None
    """`lb_subset_config` with at least one selector"""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    original_dst_http_header: str = ""
    """lower-case header that names the address, when `use_http_header` is set"""
    cleanup_interval_s: float = 5.0
    close_connections_on_host_health_failure: bool = False
