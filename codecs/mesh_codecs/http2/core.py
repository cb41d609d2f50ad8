"""What both halves of an HTTP/2 connection share: streams, windows, output, and the ways in which things end."""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError, ResetReason
from mesh_codecs.events import ConnectionFailed, Event, StreamReset
from mesh_codecs.http2 import frames
from mesh_codecs.http2.engine import Http2Engine
from mesh_codecs.http2.flood import FloodGuard
from mesh_codecs.http2.frames import ConnectionFault, StreamFault
from mesh_codecs.http2.hpack_decoder import HpackDecoder
from mesh_codecs.http2.hpack_encoder import HpackEncoder
from mesh_codecs.http2.settings import Http2Settings
from mesh_codecs.http2.state import CLOSED, HALF_CLOSED_LOCAL, ILLEGAL, NEXT, Stream
from mesh_codecs.http2.taker import Opener

_RESETS_REMEMBERED: Final = 256
"""streams that we reset and whose late frames are dropped in silence"""
ASSUMED_MAX_STREAMS: Final = 100
"""concurrent streams that we allow ourselves before the peer's SETTINGS arrive"""


class Core(Http2Engine):
    """State of one connection. `_Sender` and `_Receiver` build on it; nothing here is for the outside."""

    def __init__(self, downstream: bool, settings: Http2Settings) -> None:
        self.downstream: Final = downstream
        """True: the peer opens the streams; False: we do"""
        self.settings: Final = settings
        self._most_streams: Final = settings.max_concurrent_streams
        self._streams: dict[int, Stream] = {}
        self._owed: dict[int, int] = {}
        """bytes not yet acknowledged of streams that ended in good order"""
        self._we_reset: dict[int, int] = {}
        """streams that we reset -> bytes of DATA that may still be on their way to us; -1: none, the peer had ended them"""
        self._gone: set[int] = set()
        """streams reset during the read whose events the caller is still working on: what it sends there is dropped"""
        self._forgotten_up_to = 0
        """highest stream that we reset and forgot: late frames up to here may be honest"""
        self._last_peer_id = 0
        """highest stream id that the peer opened"""
        self._next_id = 1
        """upstream side: the id of our next stream"""
        self._ignore_above = frames.LARGEST_STREAM_ID
        """after our final GOAWAY: newer streams of the peer are dropped (RFC 9113, 6.8)"""

        self._send_window = frames.DEFAULT_WINDOW
        self._recv_window = max(settings.initial_connection_window_size, frames.DEFAULT_WINDOW)
        self._credit_step: Final = self._recv_window // 2
        """undelivered connection bytes are given back in pieces of at least this many"""
        self._unreturned = 0
        """connection bytes whose credit is not yet worth a WINDOW_UPDATE"""
        self._local_initial_window = max(settings.initial_stream_window_size, frames.DEFAULT_WINDOW)
        """enforced on new streams; a setting below the protocol's default holds only once it was acknowledged"""
        self._settings_acknowledged = False

        # What the peer's SETTINGS say.
        self._settings_received = False
        self._peer_initial_window = frames.DEFAULT_WINDOW
        self._peer_max_frame_size = frames.DEFAULT_MAX_FRAME_SIZE
        self._peer_max_streams = ASSUMED_MAX_STREAMS
        self._peer_allows_connect = False

        self._decoder = HpackDecoder(settings.hpack_table_size, settings.max_headers_count, settings.max_header_list_size)
        self._encoder = HpackEncoder(settings.hpack_table_size)
        self._guard = FloodGuard(settings)
        self.opener: Opener | None = None
        """who begins requests whose heads came before"""

        self._last_sent_id = 0
        """upstream side: the highest id that we used"""
        self._memo_out: dict[object, bytes] = {}
        """encoded blocks by what they say; void when our dynamic table changes"""

        self._ended_streams: dict[int, Stream] = {}
        """those that ended since the last read began, for `usage`"""
        self.quiet = False
        """the last `receive_data` met nothing but whole heads and bodies: it made no output and no new wish for time"""
        self._ordinary = False
        """so far in this call"""
        self.refused = 0
        """streams of the peer beyond our limit, since somebody last looked and set it to zero"""
        self.pending = False
        """the last `receive_data` left complete frames for the next one, which may be given no bytes"""
        self._out: list[bytes] = []
        self._out_parts = 0
        """by how many buffers there are more than frames, because those of messages come in three parts"""
        self._out_large = False
        """some buffer of the output is too large to be worth joining"""
        self._failed = False
        """the farewell is in the output and nothing more is read or sent"""
        self._peer_goaway = False
        self._draining = 0
        """0: no; 1: first GOAWAY sent; 2: final GOAWAY sent"""
        self._drain_at = 0.0
        """when the final GOAWAY goes out at the latest; 0.0: the clock has not been seen yet"""

        if not downstream:
            self._out.append(frames.PREFACE)
        self._out.append(frames.settings_frame(settings.as_frame_values(downstream)))
        if self._recv_window > frames.DEFAULT_WINDOW:
            self._out.append(frames.window_update_frame(0, self._recv_window - frames.DEFAULT_WINDOW))

    # Output.

    def data_to_send(self) -> list[bytes]:
        """Everything to write, in order; the codec forgets it. Small frames of one loop turn come as one buffer."""
        out = self._out
        if not out:
            return out
        self._out = []
        self._out_parts = 0
        self._guard.outbound_control = 0
        if self._out_large:
            self._out_large = False
        elif len(out) > 1:
            return [b"".join(out)]
        return out

    @property
    def has_output(self) -> bool:
        """There is something to write."""
        return bool(self._out)

    @property
    def held(self) -> tuple[int, int]:
        """Frames in the output; how many of them there are only because the peer made us."""
        return len(self._out) - self._out_parts, self._guard.outbound_control

    # The end of streams.

    def _advance(self, stream: Stream, step: int) -> None:
        """Move a stream on; the caller has checked that it may. A closed stream is forgotten."""
        state = NEXT[stream.state][step]
        assert state != ILLEGAL, stream
        stream.state = state
        if state == CLOSED:
            self._closed(stream)

    def _closed(self, stream: Stream) -> None:
        """Forget a stream that both sides have ended."""
        stream_id = stream.id
        stream.state = CLOSED
        stream.taker = None
        del self._streams[stream_id]
        self._ended_streams[stream_id] = stream
        if stream.owed:
            self._owed[stream_id] = stream.owed

    def _abandon(self, stream: Stream) -> None:
        """A stream ended by a reset: its undelivered bytes will not be acknowledged, so their credit goes back now."""
        stream.state = CLOSED
        stream.taker = None
        self._streams.pop(stream.id, None)
        self._ended_streams[stream.id] = stream
        self._gone.add(stream.id)
        if stream.owed:
            self._return_connection_credit(stream.owed)
            stream.owed = 0

    def _queue_reset(self, stream_id: int, error_code: int, in_flight: int) -> None:
        self._out.append(frames.rst_stream_frame(stream_id, error_code))
        if len(self._we_reset) >= _RESETS_REMEMBERED:
            oldest = next(iter(self._we_reset))
            del self._we_reset[oldest]
            self._forgotten_up_to = max(self._forgotten_up_to, oldest)
        self._we_reset[stream_id] = in_flight

    # Credit.

    def acknowledge(self, stream_id: int, size: int) -> None:
        """`size` bytes (`Data.flow_size`) were delivered: the peer may send as many again."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            if size > stream.owed:
                raise LocalProtocolError("http2.acknowledged_too_much", detail=f"stream {stream_id}")
            stream.owed -= size
            if stream.state <= HALF_CLOSED_LOCAL:  # the peer may still send
                stream.unreturned += size
                if stream.unreturned * 2 >= self._local_initial_window:
                    self._out.append(frames.window_update_frame(stream_id, stream.unreturned))
                    stream.recv_window += stream.unreturned
                    stream.unreturned = 0
        else:
            owed = self._owed.pop(stream_id, 0)
            if not owed:
                return  # reset meanwhile: the credit went back then
            if size != owed:
                self._owed[stream_id] = owed if size > owed else owed - size
                if size > owed:
                    raise LocalProtocolError("http2.acknowledged_too_much", detail=f"stream {stream_id}")
        self._unreturned += size
        if self._unreturned >= self._credit_step:
            self._return_connection_credit(0)

    def _return_connection_credit(self, size: int) -> None:
        self._unreturned += size
        if self._unreturned >= self._credit_step and not self._failed:
            self._out.append(frames.window_update_frame(0, self._unreturned))
            self._recv_window += self._unreturned
            self._unreturned = 0

    def send_window(self, stream_id: int) -> int:
        """How many bytes `send(Data)` takes for this stream now."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        window = stream.send_window
        if window > self._send_window:
            window = self._send_window
        return window if window > 0 else 0

    def usage(self, stream_id: int) -> tuple[int, int, int, int]:
        """Bytes on the wire of a stream that is open, or ended since the last read began: received, header blocks among them,
        sent, header blocks among them. All with their frame headers."""
        stream = self._streams.get(stream_id) or self._ended_streams.get(stream_id)
        if stream is None:
            return 0, 0, 0, 0
        return stream.received, stream.head_received, stream.sent, stream.head_sent

    def _credit_taken(self, stream: Stream, size: int, end_stream: bool) -> None:
        """DATA that was taken at once: what `acknowledge` does, without the debt before."""
        if not end_stream:
            stream.unreturned += size
            if stream.unreturned * 2 >= self._local_initial_window:
                self._out.append(frames.window_update_frame(stream.id, stream.unreturned))
                stream.recv_window += stream.unreturned
                stream.unreturned = 0
        self._unreturned += size
        if self._unreturned >= self._credit_step:
            self._return_connection_credit(0)

    # Faults of the peer.

    def _fail(self, fault: ConnectionFault, stream_id: int, events: list[Event]) -> None:
        """Say GOAWAY and stop for good."""
        self._failed = True
        last = min(self._last_peer_id, self._ignore_above)
        self._out.append(frames.goaway_frame(last, fault.error_code, fault.why.encode()))
        events.append(ConnectionFailed(stream_id, RemoteProtocolError(fault.why)))

    def _reset_by_fault(self, fault: StreamFault, events: list[Event]) -> None:
        """Say RST_STREAM because of the peer's fault.

        Raises:
            ConnectionFault: this happened too often.
        """
        self._ordinary = False
        stream_id = fault.stream_id
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._abandon(stream)
        if fault.error_code == frames.STREAM_CLOSED:
            in_flight = -1
        elif stream is not None:
            in_flight = max(stream.recv_window, 0)
        else:  # the fault was in the head
            in_flight = self._local_initial_window
        self._queue_reset(stream_id, fault.error_code, in_flight)
        self._guard.answer_queued()
        events.append(StreamReset(stream_id, ResetReason.PROTOCOL_ERROR, RemoteProtocolError(fault.why), fault.error_code))
        if self.downstream:
            self._guard.premature_end()
            self._glitch()

    def _glitch(self) -> None:
        if self._guard.glitch() and not self._draining:
            self.shutdown()

    def shutdown(self) -> None:
        """Begin a graceful end; see `Http2Codec.shutdown`."""
        raise NotImplementedError
