"""Bytes into frames, frames to their methods, DATA into events.

The common frames take few steps: a known header block is one look-up, DATA is one slice. Everything else is dispatched by type
to one method each.
"""

from typing import Final

from mesh_codecs.events import (
    Data,
    Event,
)
from mesh_codecs.http2 import frames
from mesh_codecs.http2.frames import (
    COMPILED,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_ERROR,
    LARGEST_STREAM_ID,
    PREFACE,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
    unpack_frame_header,
    unpack_kinds,
)
from mesh_codecs.http2.header_receiver import HeaderReceiver, unpad
from mesh_codecs.http2.settings import Http2Settings
from mesh_codecs.http2.state import HALF_CLOSED_REMOTE, HEAD_RECEIVED, IDLE, OPEN, RECV_END_STREAM

LARGE_DATA: Final = 4096
"""bytes of a DATA frame from which on it is worth to look whether more of the same body follows at once"""


class Receiver(HeaderReceiver):
    """Turns bytes into events."""

    def __init__(self, downstream: bool, settings: Http2Settings) -> None:
        super().__init__(downstream, settings)
        self._buffer = bytearray()
        """bytes from the start of the first frame that is incomplete or was left for the next turn"""
        self._wanted = FRAME_HEADER_SIZE
        """how many buffered bytes are needed before it makes sense to look again"""
        self._preface_read = not downstream
        self._settings_expected = True
        """the first frame must be SETTINGS (RFC 9113, 3.4)"""
        self._largest_frame: Final = settings.max_frame_size
        self._frames_per_read: Final = settings.max_frames_per_read or -1

    def receive_data(self, data: bytes) -> list[Event]:
        """Events found in the bytes so far, good ones first; see `mesh_codecs.codec.Codec`."""
        events: list[Event] = []
        self.quiet = False
        if self._failed:
            return events
        if self._gone:
            self._gone.clear()
        if self._ended_streams:
            self._ended_streams.clear()
        self._ordinary = True
        buffer = self._buffer
        if buffer:
            if len(buffer) + len(data) < self._wanted:
                buffer += data
                return events
            data = b"".join((buffer, data))
            buffer.clear()
        stream_id = 0
        pos = 0
        end = len(data)
        queued = len(self._out)
        try:
            frames_left = self._frames_per_read
            self.pending = False
            if queued - self._out_parts > self.settings.max_outbound_frames:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.outbound_frames_flood")
            if not self._preface_read:
                pos = self._read_preface(data)
                if not self._preface_read:
                    return events
            latest = end - FRAME_HEADER_SIZE
            largest = self._largest_frame
            while pos <= latest:
                if COMPILED:
                    size = data[pos] << 16 | data[pos + 1] << 8 | data[pos + 2]
                    kind = data[pos + 3] << 8 | data[pos + 4]
                    stream_id = data[pos + 5] << 24 | data[pos + 6] << 16 | data[pos + 7] << 8 | data[pos + 8]
                    if stream_id > LARGEST_STREAM_ID:
                        stream_id -= 1 << 32  # as below
                else:
                    high, low, kind, stream_id = unpack_kinds(data, pos)
                    size = high << 8 | low
                if size > largest:
                    raise ConnectionFault(FRAME_SIZE_ERROR, "http2.frame_too_large")
                start = pos + FRAME_HEADER_SIZE
                after = start + size
                if after > end:
                    break
                if not frames_left:
                    self.pending = True
                    break
                frames_left -= 1
                pos = after
                try:
                    if self._special:
                        self._frame(kind >> 8, kind & 0xFF, stream_id & LARGEST_STREAM_ID, data[start:after], events)
                    elif kind <= 1:  # DATA without flags, or with END_STREAM
                        if size >= LARGE_DATA and not kind and after <= latest:
                            pos, frames_left = self._large_data(stream_id, data, start, after, frames_left, events)
                        else:
                            self._data_frame(kind, stream_id, data[start:after], events)
                    elif kind | 1 == 0x105:  # HEADERS with END_HEADERS, perhaps END_STREAM
                        self._plain_headers(kind == 0x105, stream_id, data[start:after], events)
                    else:
                        self._frame(kind >> 8, kind & 0xFF, stream_id & LARGEST_STREAM_ID, data[start:after], events)
                except StreamFault as fault:
                    self._reset_by_fault(fault, events)
        except ConnectionFault as last:  # a name of its own: mypyc gives one name one type
            self._fail(last, stream_id & LARGEST_STREAM_ID, events)
            return events
        if pos < end:
            rest = data[pos:] if pos else data
            buffer += rest
            size = len(rest)
            self._wanted = 0 if self.pending else FRAME_HEADER_SIZE
            if size >= FRAME_HEADER_SIZE and not self.pending:
                self._wanted += unpack_frame_header(rest, 0)[0] >> 8
        elif self._ordinary and len(self._out) == queued:
            self.quiet = True
        return events

    @property
    def head_started(self) -> bool:
        """A header block, or the preface, has begun and is incomplete: nothing else can come before its end."""
        buffer = self._buffer
        return self._block_stream != 0 or not self._preface_read or (len(buffer) > 3 and buffer[3] == frames.HEADERS)

    def _read_preface(self, data: bytes) -> int:
        size = len(PREFACE)
        if len(data) < size:
            if not PREFACE.startswith(data):
                raise ConnectionFault(PROTOCOL_ERROR, "http2.bad_preface")
            self._buffer += data
            self._wanted = 0  # every byte is looked at: what is not HTTP/2 should be told at once
            return len(data)
        if not data.startswith(PREFACE):
            raise ConnectionFault(PROTOCOL_ERROR, "http2.bad_preface")
        self._preface_read = True
        return size

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """One complete frame of any type."""
        self._ordinary = False
        if self._special:
            if self._settings_expected:
                if kind != frames.SETTINGS or flags & frames.ACK:
                    raise ConnectionFault(PROTOCOL_ERROR, "http2.settings_expected")
                self._settings_expected = False
                self._special = False
            elif kind != frames.CONTINUATION or stream_id != self._block_stream:
                raise ConnectionFault(PROTOCOL_ERROR, "http2.header_block_interrupted")
        if kind == frames.DATA:
            self._odd_data(flags, stream_id, payload, events)
        elif kind == frames.HEADERS:
            self._headers_frame(flags, stream_id, payload, events)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update_frame(stream_id, payload, events)
        elif kind == frames.SETTINGS:
            self._settings_frame(flags, stream_id, payload, events)
        elif kind == frames.PING:
            self._ping_frame(flags, stream_id, payload)
        elif kind == frames.RST_STREAM:
            self._rst_stream_frame(stream_id, payload, events)
        elif kind == frames.GOAWAY:
            self._goaway_frame(stream_id, payload, events)
        elif kind == frames.CONTINUATION:
            self._continuation_frame(flags, stream_id, payload, events)
        elif kind == frames.PRIORITY:
            self._priority_frame(stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.push_not_allowed")
        else:  # RFC 9113, 5.5: unknown types are dropped
            self._guard.control_frame()

    # Bodies.

    def _data_frame(self, end_stream: int, stream_id: int, data: bytes, events: list[Event]) -> None:
        """DATA without padding, on a stream where it is welcome; what is anything else goes to `_odd_data`. The id may have its
        reserved bit, which makes it that of no stream."""
        stream = self._streams.get(stream_id)
        size = len(data)
        if (
            stream is None
            or not size
            or not stream.flags & HEAD_RECEIVED
            or stream.state >= HALF_CLOSED_REMOTE
            or size > stream.recv_window
            or size > self._recv_window
        ):
            self._odd_data(end_stream, stream_id & LARGEST_STREAM_ID, data, events)
            return
        expected = stream.expected
        if expected >= 0:
            expected -= size
            if expected < 0 or (end_stream and expected):
                self._odd_data(end_stream, stream_id, data, events)
                return
            stream.expected = expected
        self._guard.empty_run = 0
        self._recv_window -= size
        stream.recv_window -= size
        stream.received += size + 9
        taker = stream.taker
        taken = (
            taker is not None
            and not events
            and (taker.take_request_data(data, end_stream != 0) if self.downstream else taker.take_data(data, end_stream != 0))
        )
        if taken:
            self._credit_taken(stream, size, end_stream != 0)
        else:
            stream.owed += size
            events.append(Data(stream_id, data, end_stream != 0, size))
        if end_stream:
            if stream.state == OPEN:
                stream.state = HALF_CLOSED_REMOTE
            else:
                self._closed(stream)

    def _large_data(
        self, stream_id: int, data: bytes, start: int, after: int, frames_left: int, events: list[Event]
    ) -> tuple[int, int]:
        """DATA of some size, from `start` to `after`, with more behind it: what follows of the same body becomes one event with
        it. Returns where that ends, and how many frames more may be read. Whatever is odd about the whole is left to the frames
        one by one."""
        view = memoryview(data)
        pieces = [view[start:after]]
        total = after - start
        pos = after
        last = 0
        latest = len(data) - FRAME_HEADER_SIZE
        while frames_left and not last and pos <= latest:
            high, low, kind, other = unpack_kinds(data, pos)
            size = high << 8 | low
            following = pos + FRAME_HEADER_SIZE + size
            if kind > 1 or other != stream_id or not size or size > self._largest_frame or following > len(data):
                break
            pieces.append(view[pos + FRAME_HEADER_SIZE : following])
            total += size
            last = kind
            pos = following
            frames_left -= 1
        stream = self._streams.get(stream_id)
        count = len(pieces)
        if (
            count == 1
            or stream is None
            or not stream.flags & HEAD_RECEIVED
            or stream.state >= HALF_CLOSED_REMOTE
            or total > stream.recv_window
            or total > self._recv_window
            or 0 <= stream.expected < total
            or (last and stream.expected >= 0 and stream.expected != total)
        ):
            self._data_frame(0, stream_id, data[start:after], events)
            return after, frames_left + count - 1
        stream.received += (count - 1) * FRAME_HEADER_SIZE
        self._data_frame(last, stream_id, b"".join(pieces), events)
        return pos, frames_left

    def _odd_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """Any DATA frame, looked at from all sides."""
        size = len(payload)
        data = payload
        if flags & frames.PADDED:
            data = unpad(payload)
        end_stream = flags & frames.END_STREAM != 0
        if data or end_stream:
            self._guard.empty_run = 0
        else:
            self._guard.empty_frame()
        window = self._recv_window - size
        if window < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "http2.connection_window_exceeded")
        self._recv_window = window
        stream = self._streams.get(stream_id)
        if stream is None:
            self._return_connection_credit(size)
            self._late_data(stream_id, size)
            return
        if stream.state == HALF_CLOSED_REMOTE:
            self._return_connection_credit(size)
            raise StreamFault(stream_id, STREAM_CLOSED, "http2.data_after_end_of_stream")
        if stream.state == IDLE:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.data_on_idle_stream")
        stream.owed += size  # a fault below returns it
        stream.received += size + FRAME_HEADER_SIZE
        stream.recv_window = window = stream.recv_window - size
        if window < 0:
            raise StreamFault(stream_id, FLOW_CONTROL_ERROR, "http2.stream_window_exceeded")
        if not stream.flags & HEAD_RECEIVED:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "http2.data_before_headers")
        expected = stream.expected
        if expected >= 0:
            stream.expected = expected = expected - len(data)
            if expected < 0 or (end_stream and expected):
                raise StreamFault(stream_id, PROTOCOL_ERROR, "http2.content_length_mismatch")
        if end_stream:
            self._advance(stream, RECV_END_STREAM)
            events.append(Data(stream_id, data, True, size))
        elif data:
            events.append(Data(stream_id, data, False, size))
        elif size:  # padding alone: there is nothing that the caller could deliver
            self.acknowledge(stream_id, size)

    def _late_data(self, stream_id: int, size: int) -> None:
        """DATA on a stream that is over, or that never was."""
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.data_on_stream_0")
        if self.downstream:
            if stream_id > self._last_peer_id or not stream_id & 1:
                raise ConnectionFault(PROTOCOL_ERROR, "http2.data_on_idle_stream")
            if stream_id > self._ignore_above:
                return
        elif stream_id > self._last_sent_id or not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.data_on_idle_stream")
        in_flight = self._we_reset.get(stream_id)
        if in_flight is None:
            if stream_id > self._forgotten_up_to:
                raise ConnectionFault(STREAM_CLOSED, "http2.data_on_closed_stream")
            self._guard.control_frame()
            return
        if in_flight < 0:
            self._guard.control_frame()
        elif size > in_flight:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "http2.stream_window_exceeded")
        else:
            self._we_reset[stream_id] = in_flight - size
