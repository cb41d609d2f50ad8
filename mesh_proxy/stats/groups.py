"""The groups of the data path, with Envoy's names (docs: listeners/stats, http_conn_man/stats, cluster_manager/cluster_stats)."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import Histogram, StatGroup


class ListenerStats(StatGroup):
    """`listener.<address>.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "downstream_cx_total",
        "downstream_cx_destroy",
        "downstream_cx_overflow",
        "downstream_cx_overload_reject",
        "downstream_global_cx_overflow",
        "downstream_cx_transport_socket_connect_timeout",
        "downstream_pre_cx_timeout",
        "no_filter_chain_match",
        "downstream_listener_filter_error",
        "downstream_listener_filter_remote_close",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("downstream_cx_active", "downstream_pre_cx_active")
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("downstream_cx_length_ms",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS)

    downstream_cx_total: int
    downstream_cx_destroy: int
    downstream_cx_overflow: int
    downstream_cx_overload_reject: int
    downstream_global_cx_overflow: int
    downstream_cx_transport_socket_connect_timeout: int
    downstream_pre_cx_timeout: int
    no_filter_chain_match: int
    downstream_listener_filter_error: int
    downstream_listener_filter_remote_close: int
    downstream_cx_active: int
    downstream_pre_cx_active: int
    downstream_cx_length_ms: Histogram


class ListenerHttpStats(StatGroup):
    """`listener.<address>.http.<stat_prefix>.*`: response classes per listener."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("downstream_rq_completed",)
    CODES: ClassVar[str] = "downstream_rq"
    CODE_DETAIL: ClassVar[bool] = False
    CODE_TABLES: ClassVar[tuple[str, ...]] = ("codes",)
    __slots__ = (*COUNTERS, "codes")

    downstream_rq_completed: int

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.codes: dict[int, int] = {}


class HttpStats(StatGroup):
    """`http.<stat_prefix>.*` of a connection manager."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "downstream_cx_total",
        "downstream_cx_ssl_total",
        "downstream_cx_http1_total",
        "downstream_cx_http2_total",
        "downstream_cx_upgrades_total",
        "downstream_cx_destroy",
        "downstream_cx_destroy_remote",
        "downstream_cx_destroy_local",
        "downstream_cx_destroy_active_rq",
        "downstream_cx_destroy_local_active_rq",
        "downstream_cx_destroy_remote_active_rq",
        "downstream_cx_rx_bytes_total",
        "downstream_cx_tx_bytes_total",
        "downstream_cx_drain_close",
        "downstream_cx_idle_timeout",
        "downstream_cx_max_duration_reached",
        "downstream_cx_max_requests_reached",
        "downstream_cx_overload_disable_keepalive",
        "downstream_cx_protocol_error",
        "downstream_cx_delayed_close_timeout",
        "downstream_flow_control_paused_reading_total",
        "downstream_flow_control_resumed_reading_total",
        "downstream_rq_total",
        "downstream_rq_http1_total",
        "downstream_rq_http2_total",
        "downstream_rq_completed",
        "downstream_rq_rx_reset",
        "downstream_rq_tx_reset",
        "downstream_rq_non_relative_path",
        "downstream_rq_too_large",
        "downstream_rq_header_timeout",
        "downstream_rq_timeout",
        "downstream_rq_idle_timeout",
        "downstream_rq_max_duration_reached",
        "downstream_rq_overload_close",
        "downstream_rq_redirected_with_normalized_path",
        "downstream_rq_failed_path_normalization",
        "downstream_rq_too_many_premature_resets",
        "downstream_cx_http1_soft_drain",
        "downstream_rq_rejected_via_ip_detection",
        "downstream_rq_response_before_rq_complete",
        "downstream_rq_ws_on_non_ws_route",
        "rs_too_large",
        # of the router filter, which shares the prefix
        "no_route",
        "no_cluster",
        "rq_redirect",
        "rq_direct_response",
        "rq_total",
        "rq_reset_after_downstream_response_started",
        "rq_overload_local_reply",
        "passthrough_internal_redirect_bad_location",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "downstream_cx_active",
        "downstream_cx_ssl_active",
        "downstream_cx_http1_active",
        "downstream_cx_http2_active",
        "downstream_cx_upgrades_active",
        "downstream_cx_rx_bytes_buffered",
        "downstream_cx_tx_bytes_buffered",
        "downstream_rq_active",
    )
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("downstream_cx_length_ms", "downstream_rq_time")
    CODES: ClassVar[str] = "downstream_rq"
    CODE_DETAIL: ClassVar[bool] = False
    CODE_TABLES: ClassVar[tuple[str, ...]] = ("codes",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS, "codes")

    downstream_cx_total: int
    downstream_cx_ssl_total: int
    downstream_cx_http1_total: int
    downstream_cx_http2_total: int
    downstream_cx_upgrades_total: int
    downstream_cx_destroy: int
    downstream_cx_destroy_remote: int
    downstream_cx_destroy_local: int
    downstream_cx_destroy_active_rq: int
    downstream_cx_destroy_local_active_rq: int
    downstream_cx_destroy_remote_active_rq: int
    downstream_cx_rx_bytes_total: int
    downstream_cx_tx_bytes_total: int
    downstream_cx_drain_close: int
    downstream_cx_idle_timeout: int
    downstream_cx_max_duration_reached: int
    downstream_cx_max_requests_reached: int
    downstream_cx_overload_disable_keepalive: int
    downstream_cx_protocol_error: int
    downstream_cx_delayed_close_timeout: int
    downstream_flow_control_paused_reading_total: int
    downstream_flow_control_resumed_reading_total: int
    downstream_rq_total: int
    downstream_rq_http1_total: int
    downstream_rq_http2_total: int
    downstream_rq_completed: int
    downstream_rq_rx_reset: int
    downstream_rq_tx_reset: int
    downstream_rq_non_relative_path: int
    downstream_rq_too_large: int
    downstream_rq_header_timeout: int
    downstream_rq_timeout: int
    downstream_rq_idle_timeout: int
    downstream_rq_max_duration_reached: int
    downstream_rq_overload_close: int
    downstream_rq_redirected_with_normalized_path: int
    downstream_rq_failed_path_normalization: int
    downstream_rq_too_many_premature_resets: int
    downstream_cx_http1_soft_drain: int
    downstream_rq_rejected_via_ip_detection: int
    downstream_rq_response_before_rq_complete: int
    downstream_rq_ws_on_non_ws_route: int
    rs_too_large: int
    no_route: int
    no_cluster: int
    rq_redirect: int
    rq_direct_response: int
    rq_total: int
    rq_reset_after_downstream_response_started: int
    rq_overload_local_reply: int
    passthrough_internal_redirect_bad_location: int
    downstream_cx_active: int
    downstream_cx_ssl_active: int
    downstream_cx_http1_active: int
    downstream_cx_http2_active: int
    downstream_cx_upgrades_active: int
    downstream_cx_rx_bytes_buffered: int
    downstream_cx_tx_bytes_buffered: int
    downstream_rq_active: int
    downstream_cx_length_ms: Histogram
    downstream_rq_time: Histogram

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.codes: dict[int, int] = {}


class TcpProxyStats(StatGroup):
    """`tcp.<stat_prefix>.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "downstream_cx_total",
        "downstream_cx_no_route",
        "downstream_cx_drain_close",
        "downstream_cx_overload_close",
        "route_delayed_total",
        "downstream_cx_rx_bytes_total",
        "downstream_cx_tx_bytes_total",
        "downstream_flow_control_paused_reading_total",
        "downstream_flow_control_resumed_reading_total",
        "idle_timeout",
        "max_downstream_connection_duration",
        "upstream_flush_total",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "downstream_cx_rx_bytes_buffered",
        "downstream_cx_tx_bytes_buffered",
        "upstream_flush_active",
    )
    __slots__ = (*COUNTERS, *GAUGES)

    downstream_cx_total: int
    downstream_cx_no_route: int
    downstream_cx_drain_close: int
    downstream_cx_overload_close: int
    route_delayed_total: int
    downstream_cx_rx_bytes_total: int
    downstream_cx_tx_bytes_total: int
    downstream_flow_control_paused_reading_total: int
    downstream_flow_control_resumed_reading_total: int
    idle_timeout: int
    max_downstream_connection_duration: int
    upstream_flush_total: int
    downstream_cx_rx_bytes_buffered: int
    downstream_cx_tx_bytes_buffered: int
    upstream_flush_active: int


class ConnectionLimitStats(StatGroup):
    """`connection_limit.<stat_prefix>.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("limited_connections",)
    GAUGES: ClassVar[tuple[str, ...]] = ("active_connections",)
    __slots__ = (*COUNTERS, *GAUGES)

    limited_connections: int
    active_connections: int


class ConnectionRateStats(StatGroup):
    """`local_rate_limit.<stat_prefix>.*` of the network filter."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("rate_limited",)
    __slots__ = COUNTERS

    rate_limited: int
