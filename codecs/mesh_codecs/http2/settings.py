"""What an operator can set about HTTP/2. Names and defaults are those of Envoy's `Http2ProtocolOptions` where it has them."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_codecs.http2 import frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Settings:
    """Settings and limits of one HTTP/2 connection. A peer that breaks a flood limit gets GOAWAY(ENHANCE_YOUR_CALM)."""

    hpack_table_size: int = 4096
    """bytes of dynamic table that we offer the peer's encoder, and the most that our own encoder uses"""
    max_concurrent_streams: int = 100
    """streams the peer may have open; Envoy's advice for an exposed listener. Upstream side: the most that we open"""
    initial_stream_window_size: int = 65_536
    """bytes of body of one stream that the peer may send before we have delivered any; Envoy's advice for an exposed listener"""
    initial_connection_window_size: int = 1_048_576
    """the same for all streams together; never below 65,535"""
    max_frame_size: int = frames.DEFAULT_MAX_FRAME_SIZE
    """largest frame payload that we accept, bytes: 16,384 to 16,777,215"""
    allow_connect: bool = False
    """offer extended CONNECT (RFC 8441), which carries WebSockets"""
    stream_error_on_invalid_http_message: bool = True
    """a malformed message resets its stream only; False: it ends the connection (Envoy's default, unkind behind another proxy)"""

    max_header_list_size: int = 32_768
    """decoded bytes of a header block, 32 more per field (RFC 9113, 10.5.1). Beyond: the stream is reset; beyond twice: flood"""
    max_headers_count: int = 100
    """fields of a header block, each cookie crumb counted. Beyond: the stream is reset; beyond twice: flood"""
    max_header_block_size: int = 65_536
    """compressed bytes of a header block over all its frames; checked while they arrive"""
    max_continuation_frames: int = 8
    """CONTINUATION frames of one header block"""

    max_outbound_frames: int = 10_000
    """frames of any kind waiting in our output while the shell cannot write, seen when the peer sends more (Envoy: 10,000)"""
    max_outbound_control_frames: int = 1000
    """PING and SETTINGS acknowledgements and RST_STREAM waiting in our output (Envoy: 1000)"""
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    """HEADERS, CONTINUATION and DATA without payload and without END_STREAM, in a row (Envoy: 1)"""
    max_inbound_priority_frames_per_stream: int = 100
    """PRIORITY frames, times (1 + streams opened so far) (Envoy: 100)"""
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    """WINDOW_UPDATE frames may be 5 + 2 * (streams + this * DATA frames that we sent) (Envoy: 10)"""
    max_frames_per_read: int = 0
    """frames after which `receive_data` returns and keeps the rest (`pending`), so that others get their turn; 0: no limit"""
    max_glitches: int = 500
    """streams that the peer's faults ended or that we refused, beyond one for every eight streams. At three quarters of them the
    connection is asked to end (HAProxy: tune.h2.fe.glitches-threshold)"""
    flood_window: float = 10.0
    """seconds after which the two counts below start again"""
    max_resets_per_window: int = 100
    """streams that ended by RST_STREAM before our response head, or by a fault of the peer; flood only if they are also more
    than half of the streams opened in the same time (Envoy: half of at least 500)"""
    max_control_frames_per_window: int = 200
    """PING, SETTINGS and frames of unknown type or on closed streams, beyond one for each stream opened and DATA frame sent"""

    keepalive_interval: float | None = None
    """seconds between our PINGs; None: never"""
    keepalive_timeout: float = 20.0
    """seconds that a PING may stay unanswered; then the connection is given up"""
    shutdown_grace: float = 1.0
    """seconds between the two GOAWAYs of a shutdown if the peer does not answer our PING sooner"""

    def as_frame_values(self, downstream: bool) -> list[tuple[int, int]]:
        """The entries of our SETTINGS frame: only what differs from the protocol's defaults."""
        values: list[tuple[int, int]] = []
        if self.hpack_table_size != 4096:
            values.append((frames.HEADER_TABLE_SIZE, self.hpack_table_size))
        if not downstream:
            values.append((frames.ENABLE_PUSH, 0))
        else:
            values.append((frames.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams))
            if self.allow_connect:
                values.append((frames.ENABLE_CONNECT_PROTOCOL, 1))
        if self.initial_stream_window_size != frames.DEFAULT_WINDOW:
            values.append((frames.INITIAL_WINDOW_SIZE, self.initial_stream_window_size))
        if self.max_frame_size != frames.DEFAULT_MAX_FRAME_SIZE:
            values.append((frames.MAX_FRAME_SIZE, self.max_frame_size))
        values.append((frames.MAX_HEADER_LIST_SIZE, self.max_header_list_size))
        return values
