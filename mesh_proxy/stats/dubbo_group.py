"""The statistics of a Dubbo manager, `dubbo.<stat_prefix>.*`: Envoy's (`dubbo_proxy/stats.h`) and, behind them, ours."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import Histogram, StatGroup


class DubboStats(StatGroup):
    """One per manager. Events are no calls: heartbeats count in `request_event` and nowhere else."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        # Envoy's.
        "request",
        "request_twoway",
        "request_oneway",
        "request_event",
        "request_decoding_success",
        "request_decoding_error",
        "response",
        "response_success",
        "response_error",
        "response_error_caused_connection_close",
        "response_business_exception",
        "response_decoding_success",
        "response_decoding_error",
        "local_response_success",
        "local_response_error",
        "local_response_business_exception",
        "cx_destroy_local_with_active_rq",
        "cx_destroy_remote_with_active_rq",
        # Ours.
        "cx_total",
        "cx_idle_timeout",
        "cx_drain_readonly",
        "cx_protocol_error",
        "cx_rx_bytes_total",
        "cx_tx_bytes_total",
        "request_opaque",
        "request_attachments_unreadable",
        "request_too_large",
        "request_no_route",
        "request_no_cluster",
        "request_timeout",
        "request_retry",
        "request_mirrored",
        "request_fallback",
        "request_upstream",
        "response_too_large",
        "response_unexpected",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("request_active", "cx_active")
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("request_time_ms",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS)

    request: int
    """calls that came from downstream"""
    request_twoway: int
    request_oneway: int
    request_event: int
    """heartbeats and other events from downstream"""
    request_decoding_success: int
    request_decoding_error: int
    response: int
    """answers that came from upstream"""
    response_success: int
    """status OK"""
    response_error: int
    """any other status"""
    response_error_caused_connection_close: int
    response_business_exception: int
    """status OK with an exception of the business code; also counted as success"""
    response_decoding_success: int
    response_decoding_error: int
    local_response_success: int
    local_response_error: int
    local_response_business_exception: int
    cx_destroy_local_with_active_rq: int
    cx_destroy_remote_with_active_rq: int
    cx_total: int
    cx_idle_timeout: int
    cx_drain_readonly: int
    """READONLY was sent to a consumer"""
    cx_protocol_error: int
    """connections closed because their bytes were no Dubbo"""
    cx_rx_bytes_total: int
    cx_tx_bytes_total: int
    request_opaque: int
    """calls in a serialization whose head we cannot read"""
    request_attachments_unreadable: int
    """calls whose attachments a route wanted and nobody could read: malformed, hidden, or too far behind"""
    request_too_large: int
    request_no_route: int
    request_no_cluster: int
    request_timeout: int
    request_retry: int
    request_mirrored: int
    request_fallback: int
    request_upstream: int
    """requests from a provider to a consumer (callbacks)"""
    response_too_large: int
    response_unexpected: int
    """responses with an id that nobody waits for"""
    request_active: int
    cx_active: int
    request_time_ms: Histogram
