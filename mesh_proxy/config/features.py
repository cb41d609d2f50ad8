"""What the data path can do already, where the translation can do more: one table to flip when a feature lands."""

from __future__ import annotations

from typing import Final

LISTENER_FILTERS: Final[set[str]] = {"http_inspector", "original_dst", "original_src", "tls_inspector"}
"""listener filters that run, of `original_dst`, `original_src`, `tls_inspector`, `http_inspector`, `proxy_protocol`"""

UPSTREAM_PROTOCOLS: Final[set[str]] = {"HTTP1", "HTTP2", "DOWNSTREAM"}
"""of `HTTP1`, `HTTP2`, `DOWNSTREAM`, `AUTO`"""

DOWNSTREAM_CODECS: Final[set[str]] = {"AUTO", "HTTP1", "HTTP2"}
"""of `AUTO`, `HTTP1`, `HTTP2`"""

LB_POLICIES: Final[set[str]] = {"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV", "CLUSTER_PROVIDED"}
"""of `ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `RING_HASH`, `MAGLEV`, `CLUSTER_PROVIDED`"""

CLUSTER_TYPES: Final[set[str]] = {"STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST", "EDS"}
"""of these"""

OTHER: Final[set[str]] = {"outlier_detection"}
"""of `local_reply`, `outlier_detection`"""

_LOG = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.HcmAccessLogOptions"
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_ROUTE = "envoy.config.route.v3"
_OFF: Final[frozenset[object]] = frozenset({False})
NOT_YET: Final[dict[str, frozenset[object]]] = dict.fromkeys(
    (
        "envoy.config.listener.v3.Listener.ignore_global_conn_limit",
        "envoy.config.core.v3.Http1ProtocolOptions.override_stream_error_on_invalid_http_message",
        f"{_HCM}.stream_error_on_invalid_http_message",
        f"{_HCM}.flush_access_log_on_new_request",
        f"{_LOG}.flush_access_log_on_new_request",
        f"{_ROUTER}.respect_expected_rq_timeout",
        "envoy.config.cluster.v3.Cluster.close_connections_on_host_health_failure",
    ),
    _OFF,
) | dict.fromkeys(
    (
        f"{_HCM}.access_log_flush_interval",
        f"{_LOG}.access_log_flush_interval",
        f"{_TCP}.access_log_flush_interval",
        f"{_TCP}.TcpAccessLogOptions.access_log_flush_interval",
        f"{_ROUTER}.strict_check_headers",
        f"{_ROUTER}.upstream_log",
        f"{_ROUTE}.VirtualHost.per_request_buffer_limit_bytes",
        f"{_ROUTE}.RetryPolicy.rate_limited_retry_back_off",
        f"{_ROUTE}.DirectResponseAction.body_format",
        f"{_ROUTE}.RouteAction.HashPolicy.Cookie.ttl",
        "envoy.config.cluster.v3.CircuitBreakers.per_host_thresholds",
    ),
    frozenset(),
)
"""Fields that the translation reads and nothing acts upon: refused unless their value is one of these, which change nothing.

Remove a line when the data path reads the field."""
