"""The statistics of a cluster (Envoy: cluster_manager/cluster_stats) and of one endpoint."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import Histogram, StatGroup


class ClusterStats(StatGroup):
    """`cluster.<name>.*`. `rq_retry_codes` become `retry.upstream_rq_*`: a response that was retried counts only there."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "upstream_cx_total",
        "upstream_cx_http1_total",
        "upstream_cx_http2_total",
        "upstream_cx_connect_fail",
        "upstream_cx_connect_timeout",
        "upstream_cx_connect_attempts_exceeded",
        "upstream_cx_idle_timeout",
        "upstream_cx_max_duration_reached",
        "upstream_cx_max_requests",
        "upstream_cx_none_healthy",
        "upstream_cx_overflow",
        "upstream_cx_pool_overflow",
        "upstream_cx_protocol_error",
        "upstream_cx_preconnect_skipped",
        "upstream_cx_close_notify",
        "upstream_cx_destroy",
        "upstream_cx_destroy_local",
        "upstream_cx_destroy_remote",
        "upstream_cx_destroy_with_active_rq",
        "upstream_cx_destroy_local_with_active_rq",
        "upstream_cx_destroy_remote_with_active_rq",
        "upstream_cx_rx_bytes_total",
        "upstream_cx_tx_bytes_total",
        "upstream_flow_control_backed_up_total",
        "upstream_flow_control_drained_total",
        "upstream_flow_control_paused_reading_total",
        "upstream_flow_control_resumed_reading_total",
        "upstream_rq_total",
        "upstream_rq_completed",
        "upstream_rq_pending_total",
        "upstream_rq_pending_overflow",
        "upstream_rq_pending_failure_eject",
        "upstream_rq_active_overflow",
        "upstream_rq_cancelled",
        "upstream_rq_maintenance_mode",
        "upstream_rq_max_duration_reached",
        "upstream_rq_timeout",
        "upstream_rq_per_try_timeout",
        "upstream_rq_per_try_idle_timeout",
        "upstream_rq_rx_reset",
        "upstream_rq_rx_reset_no_error",
        "upstream_rq_tx_reset",
        "upstream_rq_retry",
        "upstream_rq_retry_success",
        "upstream_rq_retry_overflow",
        "upstream_rq_retry_limit_exceeded",
        "upstream_rq_retry_backoff_exponential",
        "upstream_rq_retry_backoff_ratelimited",
        "upstream_internal_redirect_failed_total",
        "upstream_internal_redirect_succeeded_total",
        "bind_errors",
        "lb_healthy_panic",
        "lb_recalculate_zone_structures",
        "lb_subsets_created",
        "lb_subsets_fallback",
        "lb_subsets_fallback_panic",
        "lb_subsets_removed",
        "lb_subsets_selected",
        "membership_change",
        "update_attempt",
        "update_success",
        "update_failure",
        "update_empty",
        "update_no_rebuild",
        "original_dst_host_invalid",
        "retry_or_shadow_abandoned",
        "assignment_stale",
        "assignment_timeout_received",
        "assignment_use_cached",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "upstream_cx_active",
        "upstream_cx_rx_bytes_buffered",
        "upstream_cx_tx_bytes_buffered",
        "upstream_rq_active",
        "upstream_rq_pending_active",
        "upstream_queue_overloaded",
        "membership_total",
        "membership_healthy",
        "membership_degraded",
        "membership_excluded",
        "lb_subsets_active",
        "max_host_weight",
        "version",
        "warming_state",
    )
    SHARED: ClassVar[frozenset[str]] = frozenset(
        {
            "membership_change",
            "membership_total",
            "membership_healthy",
            "membership_degraded",
            "membership_excluded",
            "max_host_weight",
            "version",
            "warming_state",
            "lb_subsets_active",
            "update_attempt",
            "update_success",
            "update_failure",
            "update_empty",
            "update_no_rebuild",
        }
    )
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("upstream_cx_connect_ms", "upstream_cx_length_ms", "upstream_rq_time")
    CODES: ClassVar[str] = "upstream_rq"
    CODE_TABLES: ClassVar[tuple[str, ...]] = ("codes", "external_codes", "internal_codes", "retry_codes")
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS, *CODE_TABLES)

    upstream_cx_total: int
    upstream_cx_http1_total: int
    upstream_cx_http2_total: int
    upstream_cx_connect_fail: int
    upstream_cx_connect_timeout: int
    upstream_cx_connect_attempts_exceeded: int
    upstream_cx_idle_timeout: int
    upstream_cx_max_duration_reached: int
    upstream_cx_max_requests: int
    upstream_cx_none_healthy: int
    upstream_cx_overflow: int
    upstream_cx_pool_overflow: int
    upstream_cx_protocol_error: int
    upstream_cx_preconnect_skipped: int
    upstream_cx_close_notify: int
    upstream_cx_destroy: int
    upstream_cx_destroy_local: int
    upstream_cx_destroy_remote: int
    upstream_cx_destroy_with_active_rq: int
    upstream_cx_destroy_local_with_active_rq: int
    upstream_cx_destroy_remote_with_active_rq: int
    upstream_cx_rx_bytes_total: int
    upstream_cx_tx_bytes_total: int
    upstream_flow_control_backed_up_total: int
    upstream_flow_control_drained_total: int
    upstream_flow_control_paused_reading_total: int
    upstream_flow_control_resumed_reading_total: int
    upstream_rq_total: int
    upstream_rq_completed: int
    upstream_rq_pending_total: int
    upstream_rq_pending_overflow: int
    upstream_rq_pending_failure_eject: int
    upstream_rq_active_overflow: int
    upstream_rq_cancelled: int
    upstream_rq_maintenance_mode: int
    upstream_rq_max_duration_reached: int
    upstream_rq_timeout: int
    upstream_rq_per_try_timeout: int
    upstream_rq_per_try_idle_timeout: int
    upstream_rq_rx_reset: int
    upstream_rq_rx_reset_no_error: int
    upstream_rq_tx_reset: int
    upstream_rq_retry: int
    upstream_rq_retry_success: int
    upstream_rq_retry_overflow: int
    upstream_rq_retry_limit_exceeded: int
    upstream_rq_retry_backoff_exponential: int
    upstream_rq_retry_backoff_ratelimited: int
    upstream_internal_redirect_failed_total: int
    upstream_internal_redirect_succeeded_total: int
    bind_errors: int
    lb_healthy_panic: int
    lb_recalculate_zone_structures: int
    lb_subsets_created: int
    lb_subsets_fallback: int
    lb_subsets_fallback_panic: int
    lb_subsets_removed: int
    lb_subsets_selected: int
    membership_change: int
    update_attempt: int
    update_success: int
    update_failure: int
    update_empty: int
    update_no_rebuild: int
    original_dst_host_invalid: int
    retry_or_shadow_abandoned: int
    assignment_stale: int
    assignment_timeout_received: int
    assignment_use_cached: int
    upstream_cx_active: int
    upstream_cx_rx_bytes_buffered: int
    upstream_cx_tx_bytes_buffered: int
    upstream_rq_active: int
    upstream_rq_pending_active: int
    upstream_queue_overloaded: int
    membership_total: int
    membership_healthy: int
    membership_degraded: int
    membership_excluded: int
    lb_subsets_active: int
    max_host_weight: int
    version: int
    warming_state: int
    upstream_cx_connect_ms: Histogram
    upstream_cx_length_ms: Histogram
    upstream_rq_time: Histogram

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.codes: dict[int, int] = {}
        self.external_codes: dict[int, int] = {}
        """`external.upstream_rq_*`: requests from outside (Envoy's sense)"""
        self.internal_codes: dict[int, int] = {}
        """`internal.upstream_rq_*`"""
        self.retry_codes: dict[int, int] = {}


class TransportSocketMatchStats(StatGroup):
    """`cluster.<name>.default.*`: how many endpoints came to have the default transport socket; `cluster.<name>.<match>.*`
    the same for one of the `transport_socket_matches`."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("total_match_count",)
    SHARED: ClassVar[frozenset[str]] = frozenset(COUNTERS)
    __slots__ = COUNTERS

    total_match_count: int


class EndpointStats:
    """What `/clusters` shows per endpoint."""

    __slots__ = (
        "cx_active",
        "cx_connect_fail",
        "cx_total",
        "rq_active",
        "rq_error",
        "rq_pending_active",
        "rq_success",
        "rq_timeout",
        "rq_total",
    )

    def __init__(self) -> None:
        self.cx_active = 0
        self.cx_connect_fail = 0
        self.cx_total = 0
        self.rq_active = 0
        self.rq_error = 0
        self.rq_pending_active = 0
        self.rq_success = 0
        self.rq_timeout = 0
        self.rq_total = 0
