"""Budgets against peers that send much cheap work (hardening: rapid reset, PING, SETTINGS, PRIORITY, WINDOW_UPDATE floods, …).

The codec has no clock, so counts "per window" start again when `handle_timer` says that the window is over. A timer is asked
for only while there is something to forget.
"""

from __future__ import annotations

from mesh_codecs.http2.frames import ENHANCE_YOUR_CALM, ConnectionFault
from mesh_codecs.http2.settings import Http2Settings

_FREE_CONTROL_FRAMES = 8
"""SETTINGS, its acknowledgement and a few PINGs open every connection and are not worth a timer"""


class FloodGuard:
    """What one peer has cost us so far. Every method raises `ConnectionFault` when a budget is spent."""

    __slots__ = (
        "_control",
        "_limits",
        "_priority",
        "_resets",
        "_streams_at_window_start",
        "_window_end",
        "_window_updates",
        "_work_at_window_start",
        "data_frames_sent",
        "empty_run",
        "glitches",
        "outbound_control",
        "streams",
    )

    def __init__(self, limits: Http2Settings) -> None:
        self._limits = limits
        self.streams = 0
        """streams opened on this connection by either side"""
        self.data_frames_sent = 0
        self.outbound_control = 0
        """control frames in the output that the peer caused and that nobody has taken yet"""
        self._control = 0
        self._resets = 0
        self._priority = 0
        self._window_updates = 0
        self.empty_run = 0
        """frames with neither payload nor END_STREAM since the last other one"""
        self.glitches = 0
        """streams that ended by a fault of the peer's, see `Http2Settings.max_glitches`"""
        self._streams_at_window_start = 0
        self._work_at_window_start = 0
        """streams and DATA frames before the window"""
        self._window_end = 0.0
        """when the window ends; 0.0: it has not begun"""

    def control_frame(self) -> None:
        """A PING, a SETTINGS, or a frame that does nothing arrived.

        One for each stream and each DATA frame is free: gRPC measures the round trip by a PING for nearly every DATA frame that
        it receives, and cancels streams that have just ended.
        """
        self._control += 1
        free = self.streams + self.data_frames_sent - self._work_at_window_start
        if self._control > self._limits.max_control_frames_per_window + free:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.inbound_control_frames_flood")

    def answer_queued(self) -> None:
        """We queued a frame only because the peer made us."""
        self.outbound_control += 1
        if self.outbound_control > self._limits.max_outbound_control_frames:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.outbound_control_frames_flood")

    def premature_end(self) -> None:
        """A stream was reset by the peer before it got an answer, or by us because of the peer's fault."""
        self._resets += 1
        opened = self.streams - self._streams_at_window_start
        if self._resets > self._limits.max_resets_per_window and self._resets * 2 > opened:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.rapid_reset_flood")

    def glitch(self) -> bool:
        """A stream was refused or reset because of the peer's fault. True when it is time to ask the peer to go."""
        self.glitches += 1
        allowed = self._limits.max_glitches + self.streams // 8
        if self.glitches > allowed:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.too_many_glitches")
        return self.glitches * 4 > allowed * 3

    def priority_frame(self) -> None:
        """A PRIORITY frame arrived."""
        self._priority += 1
        if self._priority > self._limits.max_inbound_priority_frames_per_stream * (1 + self.streams):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.inbound_priority_frames_flood")

    def window_update_frame(self) -> None:
        """A WINDOW_UPDATE frame arrived."""
        self._window_updates += 1
        per_data = self._limits.max_inbound_window_update_frames_per_data_frame_sent
        if self._window_updates > 5 + 2 * (self.streams + per_data * self.data_frames_sent):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.inbound_window_update_frames_flood")

    def empty_frame(self) -> None:
        """A frame with neither payload nor END_STREAM arrived."""
        self.empty_run += 1
        if self.empty_run > self._limits.max_consecutive_inbound_frames_with_empty_payload:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.inbound_empty_frames_flood")

    def next_timer(self) -> float | None:
        """When `tick` should be called: 0.0 means as soon as possible, to learn the time."""
        if self._window_end:
            return self._window_end
        if self._resets or self._control > _FREE_CONTROL_FRAMES:
            return 0.0
        return None

    def tick(self, now: float) -> None:
        """Begin or end a counting window."""
        if not self._window_end:
            if self._resets or self._control > _FREE_CONTROL_FRAMES:
                self._window_end = now + self._limits.flood_window
                self._streams_at_window_start = self.streams - self._resets
                self._work_at_window_start = self.streams + self.data_frames_sent - self._control
        elif now >= self._window_end:
            self._window_end = 0.0
            self._control = 0
            self._resets = 0
            self._streams_at_window_start = self.streams
            self._work_at_window_start = self.streams + self.data_frames_sent
