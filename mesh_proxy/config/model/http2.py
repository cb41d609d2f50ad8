"""HTTP/2 limits, the same on both sides (`envoy.config.core.v3.Http2ProtocolOptions`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Config:
    """`Http2ProtocolOptions`, with the defaults that Envoy 1.40 sends and enforces."""

    hpack_table_size: int = 4096
    """bytes of the dynamic table"""
    max_concurrent_streams: int = 1024
    """that the peer may open; upstream: that we open on one connection"""
    initial_stream_window_size: int = 16 * 1024 * 1024
    initial_connection_window_size: int = 24 * 1024 * 1024
    allow_connect: bool = False
    """extended CONNECT (RFC 8441)"""
    max_outbound_frames: int = 10_000
    """frames waiting to be written to one peer"""
    max_outbound_control_frames: int = 1000
    """PING, SETTINGS and RST_STREAM frames among them"""
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    max_inbound_priority_frames_per_stream: int = 100
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    bad_message_ends_stream_only: bool = False
    """`override_stream_error_on_invalid_http_message`: a bad message ends its stream, not the connection"""
    keepalive_interval_s: float | None = None
    """between two PINGs; None = none are sent"""
    keepalive_timeout_s: float | None = None
    """for the answer to a PING"""
    keepalive_jitter_percent: float = 15.0
    """random addition to the interval"""
    connection_idle_interval_s: float | None = None
    """a connection that was idle for so long is tried with a PING before its next request"""
