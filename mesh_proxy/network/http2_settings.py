"""From the configuration's `Http2ProtocolOptions` to the settings of a codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.http2 import Http2Settings

if TYPE_CHECKING:
    from mesh_proxy.config.model import HttpManagerConfig


FRAMES_PER_TURN: Final = 256
"""of one connection, before others get their turn; far more than a read of an honest caller holds"""


def downstream_settings(config: HttpManagerConfig) -> Http2Settings:
    """The settings of a connection manager's HTTP/2 connections."""
    http2 = config.http2
    return Http2Settings(
        hpack_table_size=http2.hpack_table_size,
        max_concurrent_streams=http2.max_concurrent_streams,
        initial_stream_window_size=http2.initial_stream_window_size,
        initial_connection_window_size=http2.initial_connection_window_size,
        allow_connect=http2.allow_connect,
        stream_error_on_invalid_http_message=http2.bad_message_ends_stream_only,
        max_header_list_size=config.max_request_headers_kb * 1024,
        max_headers_count=config.max_headers_count,
        max_outbound_frames=http2.max_outbound_frames,
        max_outbound_control_frames=http2.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload=http2.max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream=http2.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent=http2.max_inbound_window_update_frames_per_data_frame_sent,
        max_frames_per_read=FRAMES_PER_TURN,
        keepalive_interval=http2.keepalive_interval_s,
        keepalive_timeout=http2.keepalive_timeout_s or 20.0,
        shutdown_grace=config.drain_timeout_s,
    )
