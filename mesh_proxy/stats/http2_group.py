"""The statistics of an HTTP/2 codec, of all connections of a cluster or of a connection manager together (Envoy: `http2.*`)."""

from __future__ import annotations

from typing import ClassVar, Final

from mesh_proxy.stats.group import StatGroup

NOTHING_HELD: Final = (0, 0)
"""what `count_held` is told of a connection whose peer takes what we write"""


class Http2Stats(StatGroup):
    """`cluster.<name>.http2.*`, and the same at a connection manager. Seen from the first connection on, as with Envoy."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "dropped_headers_with_underscores",
        "goaway_sent",
        "header_overflow",
        "headers_cb_no_stream",
        "inbound_empty_frames_flood",
        "inbound_priority_frames_flood",
        "inbound_window_update_frames_flood",
        "keepalive_timeout",
        "metadata_empty_frames",
        "outbound_control_flood",
        "outbound_flood",
        "requests_rejected_with_underscores_in_headers",
        "rx_messaging_error",
        "rx_reset",
        "stream_refused_errors",
        "trailers",
        "tx_flush_timeout",
        "tx_reset",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "deferred_stream_close",
        "outbound_control_frames_active",
        "outbound_frames_active",
        "pending_send_bytes",
        "streams_active",
    )
    __slots__ = (*COUNTERS, *GAUGES)

    dropped_headers_with_underscores: int
    goaway_sent: int
    header_overflow: int
    headers_cb_no_stream: int
    inbound_empty_frames_flood: int
    inbound_priority_frames_flood: int
    inbound_window_update_frames_flood: int
    keepalive_timeout: int
    metadata_empty_frames: int
    outbound_control_flood: int
    outbound_flood: int
    requests_rejected_with_underscores_in_headers: int
    rx_messaging_error: int
    rx_reset: int
    stream_refused_errors: int
    trailers: int
    tx_flush_timeout: int
    tx_reset: int
    deferred_stream_close: int
    outbound_control_frames_active: int
    outbound_frames_active: int
    pending_send_bytes: int
    streams_active: int

    def count_fault(self, code: str) -> None:
        """Count what the codec ended a connection or a stream for; `code` is that of its error."""
        name = _FAULTS.get(code)
        if name is not None:
            setattr(self, name, getattr(self, name) + 1)
        elif code.startswith(_MESSAGING):
            self.rx_messaging_error += 1

    def count_held(self, before: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
        """The codec of one connection holds so many frames, control frames among them, because its peer takes nothing."""
        self.outbound_frames_active += now[0] - before[0]
        self.outbound_control_frames_active += now[1] - before[1]
        return now


_FAULTS: dict[str, str] = {
    "http2.inbound_empty_frames_flood": "inbound_empty_frames_flood",
    "http2.inbound_priority_frames_flood": "inbound_priority_frames_flood",
    "http2.inbound_window_update_frames_flood": "inbound_window_update_frames_flood",
    "http2.inbound_control_frames_flood": "outbound_control_flood",
    "http2.outbound_control_frames_flood": "outbound_control_flood",
    "http2.outbound_frames_flood": "outbound_flood",
    "http2.header_list_too_large": "header_overflow",
    "http2.header_list_flood": "header_overflow",
    "http2.header_block_too_large": "header_overflow",
    "http2.keepalive_timeout": "keepalive_timeout",
}
"""codes of the codec that have a counter of their own"""

_MESSAGING: tuple[str, ...] = tuple(
    "http2." + start
    for start in (
        "connection_specific_header",
        "content_length_mismatch",
        "data_before_headers",
        "informational_ends_stream",
        "invalid_",
        "pseudo_header_after_fields",
        "repeated_",
        "trailers_do_not_end_stream",
        "unknown_pseudo_header",
    )
)
"""how the codes begin that say that a message is malformed (RFC 9113, 8.1.1), not the frames that carry it"""
