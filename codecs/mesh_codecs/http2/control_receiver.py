"""Receiving the frames that carry no message: SETTINGS, WINDOW_UPDATE, PING, RST_STREAM, GOAWAY, PRIORITY."""

from __future__ import annotations

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Event, GoAway, StreamReset, WindowOpened
from mesh_codecs.http2 import frames
from mesh_codecs.http2.frame_sender import FrameSender
from mesh_codecs.http2.frames import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    LARGEST_STREAM_ID,
    LARGEST_WINDOW,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)
from mesh_codecs.http2.state import HEAD_SENT, IDLE, Stream


class ControlReceiver(FrameSender):
    """One method per control frame; each raises `StreamFault` or `ConnectionFault` for what the peer did wrong."""

    def _window_update_frame(self, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "http2.window_update_size")
        self._guard.window_update_frame()
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not stream_id:
            if not increment:
                raise ConnectionFault(PROTOCOL_ERROR, "http2.window_update_of_zero")
            before = self._send_window
            self._send_window = before + increment
            if self._send_window > LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "http2.window_too_large")
            if before <= 0 < self._send_window:
                events.append(WindowOpened(0))
            return
        stream = self._streams.get(stream_id)
        if stream is None or stream.state == IDLE:
            self._check_not_idle(stream_id, stream)
            return
        if not increment:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "http2.window_update_of_zero")
        before = stream.send_window
        stream.send_window = before + increment
        if stream.send_window > LARGEST_WINDOW:
            raise StreamFault(stream_id, FLOW_CONTROL_ERROR, "http2.window_too_large")
        if before <= 0 < stream.send_window and self._send_window > 0:
            events.append(WindowOpened(stream_id))

    def _check_not_idle(self, stream_id: int, stream: Stream | None) -> None:
        """A frame on a stream that is over is harmless, on one that never was it is an error (RFC 9113, 5.1)."""
        if self.downstream:
            idle = stream_id > self._last_peer_id or not stream_id & 1
        else:
            idle = stream is not None or stream_id > self._last_sent_id or not stream_id & 1
        if idle:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.frame_on_idle_stream")

    def _settings_frame(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.settings_on_stream")
        self._guard.control_frame()
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "http2.settings_ack_with_payload")
            self._settings_applied()
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "http2.settings_size")
        opened = False
        for key, value in frames.iter_settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                opened = self._peer_window_changed(value) or opened
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self._peer_max_streams = value
            elif key == frames.HEADER_TABLE_SIZE:
                self._encoder.resize(value)
                if self._encoder.pending:
                    self._memo_out.clear()
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_MAX_FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                    raise ConnectionFault(PROTOCOL_ERROR, "http2.settings_max_frame_size")
                self._peer_max_frame_size = value
            elif key == frames.ENABLE_PUSH:
                if value > 1 or (value and not self.downstream):
                    raise ConnectionFault(PROTOCOL_ERROR, "http2.settings_enable_push")
            elif key == frames.ENABLE_CONNECT_PROTOCOL:
                if value > 1 or (self._peer_allows_connect and not value):
                    raise ConnectionFault(PROTOCOL_ERROR, "http2.settings_enable_connect_protocol")
                self._peer_allows_connect = value == 1
        if not self._settings_received:
            self._settings_received = True
            if not self.downstream and not any(key == frames.MAX_CONCURRENT_STREAMS for key, _ in frames.iter_settings(payload)):
                self._peer_max_streams = LARGEST_STREAM_ID
        self._out.append(frames.SETTINGS_ACK)
        self._guard.answer_queued()
        if opened and self._send_window > 0:
            events.append(WindowOpened(0))

    def _peer_window_changed(self, value: int) -> bool:
        """Shift every stream's window (RFC 9113, 6.9.2). True if one of them opened."""
        if value > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "http2.settings_initial_window_size")
        delta = value - self._peer_initial_window
        self._peer_initial_window = value
        opened = False
        for stream in self._streams.values():
            before = stream.send_window
            stream.send_window = before + delta
            if stream.send_window > LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "http2.window_too_large")
            opened = opened or before <= 0 < stream.send_window
        return opened

    def _settings_applied(self) -> None:
        """The peer acknowledged our SETTINGS: what they narrow is enforced from here on."""
        if self._settings_acknowledged:
            return
        self._settings_acknowledged = True
        self._decoder.limit = self.settings.hpack_table_size
        delta = self.settings.initial_stream_window_size - self._local_initial_window
        if delta:
            self._local_initial_window += delta
            for stream in self._streams.values():
                stream.recv_window += delta

    def _ping_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.ping_on_stream")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "http2.ping_size")
        self._guard.control_frame()
        if flags & frames.ACK:
            self._ping_answered(payload)
            return
        self._out.append(frames.ping_frame(frames.ACK, payload))
        self._guard.answer_queued()

    def _ping_answered(self, payload: bytes) -> None:
        """The peer answered one of our PINGs."""

    def _rst_stream_frame(self, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "http2.rst_stream_size")
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.rst_stream_on_stream_0")
        stream = self._streams.get(stream_id)
        if stream is None or stream.state == IDLE:
            self._check_not_idle(stream_id, stream)
            self._guard.control_frame()
            return
        code = int.from_bytes(payload, "big")
        self._abandon(stream)
        reason = ResetReason.REMOTE_REFUSED if code == frames.REFUSED_STREAM else ResetReason.REMOTE_RESET
        events.append(StreamReset(stream_id, reason, None, code))
        if self.downstream and not stream.flags & HEAD_SENT:
            self._guard.premature_end()

    def _goaway_frame(self, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.goaway_on_stream")
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "http2.goaway_size")
        self._guard.control_frame()
        last = int.from_bytes(payload[:4], "big") & LARGEST_STREAM_ID
        code = int.from_bytes(payload[4:8], "big")
        self._peer_goaway = True
        events.append(GoAway(0, last, code, payload[8:]))
        if self.downstream:
            return
        for stream in list(self._streams.values()):
            if stream.id > last or stream.state == IDLE:
                self._abandon(stream)
                events.append(StreamReset(stream.id, ResetReason.REMOTE_REFUSED, None, frames.REFUSED_STREAM))

    def _priority_frame(self, stream_id: int, payload: bytes) -> None:
        """Priorities are dropped (RFC 9113, 5.3.2), after a look at their form."""
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.priority_on_stream_0")
        self._guard.priority_frame()
        fault = 0
        why = ""
        if len(payload) != 5:
            fault, why = FRAME_SIZE_ERROR, "http2.priority_size"
        elif int.from_bytes(payload[:4], "big") & LARGEST_STREAM_ID == stream_id:
            fault, why = PROTOCOL_ERROR, "http2.depends_on_itself"
        if fault:
            if stream_id in self._streams:
                raise StreamFault(stream_id, fault, why)
            raise ConnectionFault(fault, why)  # RST_STREAM must not be sent for an idle stream
