"""The receiving half of the `h2` engine: frames are cut here and fed one by one, h2's events become ours."""

from __future__ import annotations

import struct
from typing import Any, Final

from mesh_codecs.errors import RemoteProtocolError, ResetReason
from mesh_codecs.events import (
    ConnectionEnded,
    ConnectionFailed,
    Data,
    Event,
    GoAway,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
    WindowOpened,
)
from mesh_codecs.headers import Pairs
from mesh_codecs.http2 import frames
from mesh_codecs.http2.engine import Http2Engine
from mesh_codecs.http2.flood import FloodGuard
from mesh_codecs.http2.frames import ENHANCE_YOUR_CALM, FRAME_HEADER_SIZE, LARGEST_STREAM_ID, ConnectionFault
from mesh_codecs.http2.heads import Malformed, request_head, response_head, trailers_head
from mesh_codecs.http2.settings import Http2Settings

KEEPALIVE: Final = b"mesh-alv"
DRAIN: Final = b"mesh-drn"
_CONTROL: Final = frozenset((frames.RST_STREAM, frames.SETTINGS, frames.PING))


class H2Receiver(Http2Engine):
    """One connection of h2 and what we keep beside it."""

    def __init__(self, downstream: bool, settings: Http2Settings) -> None:
        import h2.config
        import h2.connection
        import h2.events
        import h2.exceptions
        import h2.settings

        self.downstream: Final = downstream
        self.settings: Final = settings
        self._events: Any = h2.events
        self._error: Any = (h2.exceptions.ProtocolError, ValueError, KeyError)
        self._guard = FloodGuard(settings)
        config = h2.config.H2Configuration(client_side=not downstream, header_encoding=None)
        self._connection = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        values: dict[Any, int] = {codes(key): value for key, value in settings.as_frame_values(downstream)}
        self._connection.local_settings = h2.settings.Settings(client=not downstream, initial_values=values)
        self._connection.max_inbound_frame_size = settings.max_frame_size
        self._connection.initiate_connection()
        if settings.initial_connection_window_size > frames.DEFAULT_WINDOW:
            self._connection.increment_flow_control_window(settings.initial_connection_window_size - frames.DEFAULT_WINDOW)
        self.quiet = False
        self.pending = False
        self.refused = 0
        """h2 ends the connection instead"""
        self._out: list[bytes] = []
        self._out_frames = 0
        self._buffer = bytearray()
        self._continuations = 0
        self._preface_read = not downstream
        self._streams: dict[int, bool] = {}
        """open streams -> an extended CONNECT"""
        self._answered: set[int] = set()
        """downstream side: streams whose response head went out"""
        self._peer_done: set[int] = set()
        """open streams whose peer side has ended"""
        self._gone: set[int] = set()
        self._next_id = 1
        self._last_peer_id = 0
        self._ignore_above = LARGEST_STREAM_ID
        self._failed = False
        self._ended = False
        self._peer_goaway = False
        self._draining = 0
        self._drain_at = 0.0
        self._ping_due = 0.0
        self._ping_deadline = 0.0
        self._settings_received = False

    def receive_data(self, data: bytes) -> list[Event]:
        """Events found in the bytes so far; see `mesh_codecs.codec.Codec`."""
        events: list[Event] = []
        if self._failed:
            return events
        self._gone.clear()
        self._buffer += data
        try:
            self._check_output()
            while not self._failed:
                frame = self._next_frame()
                if frame is None:
                    break
                self._receive_frame(frame, events)
        except ConnectionFault as fault:
            self._fail(fault.error_code, fault.why, events)
        except self._error as error:
            code = getattr(error, "error_code", frames.PROTOCOL_ERROR)
            self._fail(int(code), f"http2.h2: {error}", events)
        return events

    @property
    def head_started(self) -> bool:
        """The preface or a header block has begun and is incomplete."""
        buffer = self._buffer
        return not self._preface_read or (len(buffer) > 3 and buffer[3] in (frames.HEADERS, frames.CONTINUATION))

    def usage(self, stream_id: int) -> tuple[int, int, int, int]:
        """Not known here."""
        return 0, 0, 0, 0

    def _next_frame(self) -> bytes | None:
        buffer = self._buffer
        if not self._preface_read:
            size = len(frames.PREFACE)
            if not frames.PREFACE.startswith(buffer[:size]):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "http2.bad_preface")
            if len(buffer) < size:
                return None
            self._preface_read = True
        elif len(buffer) < frames.FRAME_HEADER_SIZE:
            return None
        else:
            size = int.from_bytes(buffer[:3], "big") + frames.FRAME_HEADER_SIZE
            if size - frames.FRAME_HEADER_SIZE > self.settings.max_frame_size:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "http2.frame_too_large")
            if len(buffer) < size:
                return None
        frame = bytes(buffer[:size])
        del buffer[:size]
        return frame

    def _receive_frame(self, frame: bytes, events: list[Event]) -> None:
        if not frame.startswith(frames.PREFACE):
            if frame[3] == frames.GOAWAY and len(frame) >= 17 and frame[5:9] == b"\0\0\0\0":
                self._receive_goaway(frame[9:], events)
                return
            self._count(frame)
        for event in self._connection.receive_data(frame):
            self._translate(event, events)

    def _count(self, frame: bytes) -> None:
        """Charge a frame to the flood budgets that h2 does not keep."""
        kind = frame[3]
        if kind in (frames.SETTINGS, frames.PING) or kind > frames.CONTINUATION:
            self._guard.control_frame()
        elif kind == frames.PRIORITY:
            self._guard.priority_frame()
        elif kind == frames.WINDOW_UPDATE:
            self._guard.window_update_frame()
        elif kind in (frames.DATA, frames.HEADERS, frames.CONTINUATION):
            self._continuations = self._continuations + 1 if kind == frames.CONTINUATION else 0
            if self._continuations > self.settings.max_continuation_frames:
                raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "http2.too_many_continuation_frames")
            if len(frame) > frames.FRAME_HEADER_SIZE or frame[4] & frames.END_STREAM:
                self._guard.empty_run = 0
            else:
                self._guard.empty_frame()

    def _receive_goaway(self, payload: bytes, events: list[Event]) -> None:
        self._guard.control_frame()
        last, code = struct.unpack_from(">II", payload)
        last &= LARGEST_STREAM_ID
        self._peer_goaway = True
        events.append(GoAway(0, last, code, payload[8:]))
        if self.downstream:
            return
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last]:
            self._forget(stream_id)
            self._gone.add(stream_id)
            events.append(StreamReset(stream_id, ResetReason.REMOTE_REFUSED, None, frames.REFUSED_STREAM))

    def _translate(self, event: Any, events: list[Event]) -> None:
        """One event of h2 as ours."""
        kinds = self._events
        stream_id: int = getattr(event, "stream_id", None) or 0
        ended = getattr(event, "stream_ended", None) is not None
        try:
            if isinstance(event, kinds.RequestReceived):
                self._request(stream_id, _pairs(event.headers), ended, events)
            elif isinstance(event, kinds.ResponseReceived):
                head = response_head(_pairs(event.headers), _pairs(event.headers))
                status = 101 if head.status == 200 and self._streams.get(stream_id) else head.status
                events.append(ResponseHeaders(stream_id, status, head.headers(), ended, b"HTTP/2"))
            elif isinstance(event, kinds.InformationalResponseReceived):
                head = response_head(_pairs(event.headers), _pairs(event.headers))
                events.append(InformationalHeaders(stream_id, head.status, head.headers()))
            elif isinstance(event, kinds.TrailersReceived):
                head = trailers_head(_pairs(event.headers), _pairs(event.headers))
                events.append(Trailers(stream_id, head.headers()))
            elif isinstance(event, kinds.DataReceived):
                if event.data or ended:
                    events.append(Data(stream_id, event.data, ended, event.flow_controlled_length))
                else:
                    self.acknowledge(stream_id, event.flow_controlled_length)
            elif isinstance(event, kinds.StreamEnded):
                self._peer_done.add(stream_id)
                self._forget_if_over(stream_id)
            elif isinstance(event, kinds.StreamReset):
                self._reset_received(event, events)
            elif isinstance(event, kinds.WindowUpdated):
                if self._send_credit(stream_id) > 0:
                    events.append(WindowOpened(stream_id))
            elif isinstance(event, kinds.RemoteSettingsChanged):
                self._settings_received = True
                events.append(WindowOpened(0))
            elif isinstance(event, kinds.PingAckReceived):
                self._ping_answered(event.ping_data)
        except Malformed as fault:
            events.append(StreamReset(stream_id, ResetReason.PROTOCOL_ERROR, RemoteProtocolError(fault.code), 1))
            self._connection.reset_stream(stream_id, frames.PROTOCOL_ERROR)
            self._forget(stream_id)
            self._gone.add(stream_id)

    def _request(self, stream_id: int, pairs: Pairs, ended: bool, events: list[Event]) -> None:
        self._last_peer_id = stream_id
        self._guard.streams += 1
        if stream_id > self._ignore_above:
            self._connection.reset_stream(stream_id, frames.REFUSED_STREAM)
            return
        self._streams[stream_id] = False
        head = request_head(pairs, pairs, self.settings.allow_connect)
        self._streams[stream_id] = bool(head.protocol)
        events.append(
            RequestHeaders(
                stream_id,
                head.method,
                head.scheme,
                head.authority,
                head.path,
                head.headers(),
                ended,
                head.protocol,
                b"HTTP/2",
            )
        )

    def _reset_received(self, event: Any, events: list[Event]) -> None:
        stream_id = event.stream_id
        known = stream_id in self._streams
        if event.remote_reset:
            reason = ResetReason.REMOTE_REFUSED if event.error_code == frames.REFUSED_STREAM else ResetReason.REMOTE_RESET
            error = None
        else:
            reason, error = ResetReason.PROTOCOL_ERROR, RemoteProtocolError("http2.h2_stream_error")
        if known:
            events.append(StreamReset(stream_id, reason, error, int(event.error_code)))
        premature = self.downstream and stream_id not in self._answered
        self._forget(stream_id)
        self._gone.add(stream_id)
        if premature or error is not None:
            self._guard.premature_end()

    def receive_eof(self) -> list[Event]:
        """The peer will send no more: streams that it had not finished are over."""
        events: list[Event] = []
        if self._failed or self._ended:
            return events
        self._ended = True
        for stream_id in list(self._streams):
            if stream_id not in self._peer_done:
                self._forget(stream_id)
                self._gone.add(stream_id)
                events.append(StreamReset(stream_id, ResetReason.CONNECTION_TERMINATION))
        if self._buffer:
            self._failed = True
            events.append(ConnectionFailed(0, RemoteProtocolError("http2.connection_cut_off")))
        else:
            events.append(ConnectionEnded())
        return events

    def _fail(self, code: int, why: str, events: list[Event]) -> None:
        self._failed = True
        self._collect()
        last = min(self._last_peer_id, self._ignore_above)
        self._out.append(frames.goaway_frame(last, code, why.encode()))
        events.append(ConnectionFailed(0, RemoteProtocolError(why)))

    # What both halves use.

    def acknowledge(self, stream_id: int, size: int) -> None:
        """`size` bytes (`Data.flow_size`) were delivered: the peer may send as many again."""
        if size and not self._failed:
            try:
                self._connection.acknowledge_received_data(size, stream_id)
            except self._error:
                return  # the stream is over

    def send_window(self, stream_id: int) -> int:
        """How many bytes `send(Data)` takes for this stream now."""
        return max(0, self._send_credit(stream_id)) if stream_id in self._streams else 0

    def _send_credit(self, stream_id: int) -> int:
        if not stream_id:
            return int(self._connection.outbound_flow_control_window)
        try:
            return self._connection.local_flow_control_window(stream_id)
        except self._error:
            return 0

    def _forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        self._answered.discard(stream_id)
        self._peer_done.discard(stream_id)

    def _forget_if_over(self, stream_id: int) -> None:
        stream = self._connection.streams.get(stream_id)
        if stream is None or stream.closed:
            self._forget(stream_id)

    def _collect(self) -> None:
        """Take what h2 wrote, so that our own frames follow it."""
        data = self._connection.data_to_send()
        if data:
            self._out.append(data)
            pos = len(frames.PREFACE) if data.startswith(frames.PREFACE) else 0
            while pos < len(data):
                self._out_frames += 1
                self._guard.outbound_control += data[pos + 3] in _CONTROL
                pos += FRAME_HEADER_SIZE + (frames.unpack_frame_header(data, pos)[0] >> 8)

    def _check_output(self) -> None:
        """Hear no more of a peer that takes nothing of what we say."""
        self._collect()
        if self._out_frames > self.settings.max_outbound_frames:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.outbound_frames_flood")
        if self._guard.outbound_control > self.settings.max_outbound_control_frames:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.outbound_control_frames_flood")

    def _final_goaway(self, code: int, debug: bytes) -> None:
        self._draining = 2
        self._ignore_above = self._last_peer_id
        self._collect()
        self._out.append(frames.goaway_frame(self._last_peer_id, code, debug))

    def _ping_answered(self, payload: bytes) -> None:
        if payload == KEEPALIVE:
            self._ping_deadline = 0.0
        elif payload == DRAIN and self._draining == 1:
            self._final_goaway(frames.NO_ERROR, b"")


def _pairs(headers: Any) -> Pairs:
    return [(bytes(name), bytes(value)) for name, value in headers]
