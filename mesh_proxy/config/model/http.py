"""The HTTP connection manager (`envoy.filters.network.http_connection_manager`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh_proxy.config.model.common import (
    AccessLogConfig,
    AccessLogFilterConfig,
    BodyFormatConfig,
    HeaderValueOptionConfig,
)
from mesh_proxy.config.model.http2 import Http2Config
from mesh_proxy.config.model.route import RouteTableConfig, UpgradeConfig
from mesh_proxy.config.model.source import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilterConfig:
    """One entry of `http_filters`, with its configuration translated by the filter's own loader."""

    name: str
    type_url: str
    config: Any = None
    disabled: bool = False
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFilterConfig:
    """`envoy.filters.http.router`, the terminal filter."""

    dynamic_stats: bool = True
    suppress_envoy_headers: bool = False
    respect_expected_rq_timeout: bool = False
    strict_check_headers: tuple[str, ...] = ()
    upstream_logs: tuple[AccessLogConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Config:
    """`Http1ProtocolOptions`."""

    accept_http_10: bool = False
    default_host_for_http_10: str = ""
    allow_absolute_url: bool = True
    enable_trailers: bool = False
    override_stream_error_on_invalid_http_message: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReplyMapperConfig:
    """One `ResponseMapper`: what a local reply that passes `filter` is changed into. The first that passes is the only one."""

    filter: AccessLogFilterConfig
    status: int | None = None
    """None = unchanged"""
    body: str | None = None
    """replaces the body before it is formatted; None = unchanged"""
    body_format: BodyFormatConfig | None = None
    """instead of LocalReplyConfig.body_format"""
    headers_to_add: tuple[HeaderValueOptionConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReplyConfig:
    """`LocalReplyConfig`: how the answers that we make ourselves look."""

    mappers: tuple[LocalReplyMapperConfig, ...] = ()
    body_format: BodyFormatConfig | None = None
    """None = the plain text of the reply"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpManagerConfig:
    """`HttpConnectionManager`. Times in seconds; None = no limit."""

    stat_prefix: str
    codec_type: str = "AUTO"
    """`AUTO`, `HTTP1` or `HTTP2`"""
    route_table: RouteTableConfig | None = None
    """None when it comes by `rds`"""
    rds: Reference | None = None
    """the route table that comes from elsewhere"""
    filters: tuple[HttpFilterConfig, ...] = ()
    """without the router, which `router` describes"""
    router: RouterFilterConfig = RouterFilterConfig()
    alpn_overrides: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Istio's `istio.alpn`: protocol of the endpoint (`HTTP10`, `HTTP11`, `HTTP2`) → the names that TLS offers to it instead of
    the cluster's; with a cluster whose metadata `istio: {alpn_override: "false"}` the cluster's stay"""
    access_logs: tuple[AccessLogConfig, ...] = ()
    access_log_flush_interval_s: float | None = None
    access_log_on_new_request: bool = False
    server_name: str = "envoy"
    server_header_transformation: str = "OVERWRITE"
    """`OVERWRITE`, `APPEND_IF_ABSENT` or `PASS_THROUGH`"""
    scheme_to_overwrite: str = ""
    use_remote_address: bool = False
    xff_num_trusted_hops: int = 0
    skip_xff_append: bool = False
    append_x_forwarded_port: bool = False
    internal_cidr_ranges: tuple[str, ...] = ()
    """addresses that make a request internal (`internal_address_config`); none by default"""
    unix_sockets_internal: bool = False
    via: str = ""
    generate_request_id: bool = True
    request_id_pack_trace_reason: bool = True
    """the 15th character of a request id says why it is traced (`UuidRequestIdConfig`)"""
    request_id_for_trace_sampling: bool = True
    preserve_external_request_id: bool = False
    always_set_request_id_in_response: bool = False
    add_user_agent: bool = False
    """append `x-envoy-downstream-service-cluster` and `-node`"""
    http1: Http1Config = Http1Config()
    http2: Http2Config = Http2Config()
    max_request_headers_kb: int = 60
    max_headers_count: int = 100
    max_requests_per_connection: int = 0
    """0 = no limit"""
    max_connection_duration_s: float | None = None
    max_stream_duration_s: float | None = None
    headers_with_underscores_action: str = "ALLOW"
    """`ALLOW`, `REJECT_REQUEST` or `DROP_HEADER`"""
    idle_timeout_s: float | None = 3600.0
    """connection without a request"""
    stream_idle_timeout_s: float | None = 300.0
    request_timeout_s: float | None = None
    request_headers_timeout_s: float | None = None
    drain_timeout_s: float = 5.0
    delayed_close_timeout_s: float = 1.0
    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: str = "KEEP_UNCHANGED"
    """`KEEP_UNCHANGED`, `REJECT_REQUEST`, `UNESCAPE_AND_REDIRECT` or `UNESCAPE_AND_FORWARD`"""
    strip_matching_host_port: bool = False
    strip_any_host_port: bool = False
    strip_trailing_host_dot: bool = False
    upgrades: tuple[UpgradeConfig, ...] = ()
    stream_error_on_invalid_http_message: bool = False
    proxy_100_continue: bool = False
    forward_client_cert_details: str = "SANITIZE"
    set_current_client_cert_details: tuple[str, ...] = ()
    """of `subject`, `cert`, `chain`, `dns`, `uri`"""
    local_reply: LocalReplyConfig | None = None
