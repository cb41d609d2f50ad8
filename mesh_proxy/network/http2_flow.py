"""Flow control of a downstream HTTP/2 connection in both directions (RFC 9113, 5.2).

A request whose upstream takes no more keeps its credit until it does (`pause_reading`); a response whose caller takes no more
waits in an `Outbox`. When the caller does not even read what is not flow-controlled, the output stays in the codec, which counts
its frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import Data, InformationalHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.http2 import Http2Codec
from mesh_codecs.http2.heads import Head
from mesh_proxy.network.http2_hold import ENOUGH_CALLS, HELD_BYTES
from mesh_proxy.network.http_shell import HttpShell
from mesh_proxy.network.outbox import Outbox
from mesh_proxy.network.transport import set_limits, write_all
from mesh_proxy.stats.http2_group import NOTHING_HELD, Http2Stats

if TYPE_CHECKING:
    from mesh_codecs.http2 import Http2Engine
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.downstream_stream import DownstreamStream
    from mesh_proxy.stream.http2_response_plan import Http2ResponsePlan
    from mesh_proxy.stream.http_stream import HttpStream
    from mesh_proxy.stream.info import ConnectionInfo
    from mesh_proxy.stream.planned_http2 import PlannedHttp2

TURN_BYTES: Final = 65_536
"""what one response may take of a freshly opened connection window before the next one gets its share"""


class Http2Flow(HttpShell):
    """Abstract: `Http2Clock` adds the time-outs."""

    __slots__ = (
        "_draining",
        "_held",
        "_outboxes",
        "_waiting_bytes",
        "_waits",
        "codec",
        "codec_stats",
        "holds",
        "requests",
        "streams",
    )

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self.codec: Http2Engine = manager.new_http2_codec()
        self.codec_stats = manager.context.registry.get(Http2Stats, "http2.")
        self.streams: dict[int, HttpStream] = {}
        self.requests = 0
        self._draining = False
        """GOAWAY was said"""
        self._held = NOTHING_HELD
        """frames and control frames that the codec keeps while the transport takes nothing"""
        self._outboxes: dict[int, Outbox] = {}
        """responses that wait for credit"""
        self.holds: dict[int, list[int]] = {}
        """requests that nobody takes now -> [by how many they are held, bytes whose credit is kept back]"""
        self._waits: set[int] = set()
        """streams whose responses wait in the codec for their end (`HeldResponses`)"""
        self._waiting_bytes = 0
        """of their bodies"""

    def pause_writing(self) -> None:
        self.write_blocked = True
        for stream in tuple(self.streams.values()):
            stream.on_downstream_writable(False)

    def resume_writing(self) -> None:
        self.write_blocked = False
        if self._mover is not None:
            set_limits(self.transport, self.owner.buffer_limit)
            self._offer()
        for stream in tuple(self.streams.values()):
            stream.on_downstream_writable(True)
        self._count_none_held()
        self.flush()
        self.context.flush()

    def _count_none_held(self) -> None:
        self._held = self.codec_stats.count_held(self._held, NOTHING_HELD)

    def flush(self) -> None:
        """Write what the codec gathered; while the transport takes nothing it stays there and its frames are counted."""
        self._dirty = False
        if self._waits:
            self._waits.clear()
            self._waiting_bytes = 0
        if self.closed or (self.write_blocked and not self._closing):
            if not self.closed:
                self._held = self.codec_stats.count_held(self._held, self.codec.held)
            return
        size = write_all(self.transport, self.codec.data_to_send())
        self.manager.stats.downstream_cx_tx_bytes_total += size
        self.sent += size
        if self._draining and not self.streams and self.codec.closed:
            self._close_after_flush(linger=not self._remote_closed)

    # -- responses

    def send(self, event: ResponseHeaders | InformationalHeaders | Data | Trailers) -> None:
        """Give an event to the codec, or let it wait for credit; it is written at the end of this turn."""
        codec = self.codec
        if self._outboxes and isinstance(event, Data | Trailers) and event.stream_id in self._outboxes:
            self._wait_for_credit(event)
        elif isinstance(event, Data):
            try:
                codec.send_data(event.stream_id, event.data, event.end_stream)
            except LocalProtocolError as error:
                if error.code != "http2.beyond_send_window":
                    raise
                self._wait_for_credit(event)
            else:
                if event.stream_id in self._waits and not event.end_stream and not self._dirty:
                    self._waiting_bytes += len(event.data)
                    if self._waiting_bytes <= HELD_BYTES:
                        return
        elif isinstance(event, ResponseHeaders):
            codec.send_response(event)
            if not event.end_stream and not self._dirty:
                stream = self.streams.get(event.stream_id)
                if stream is not None and self._end_is_near(stream):
                    return
        elif isinstance(event, Trailers):
            codec.send_trailers(event.stream_id, event.headers)
            stream = self.streams.get(event.stream_id)
            if stream is not None and stream.is_grpc:
                known = _head_of(stream)
                if known is not None:
                    self.context.held_responses.learn(known, stream)
        else:
            codec.send(event)
        if not self._dirty:
            self._write_soon()

    def _write_soon(self) -> None:
        self._dirty = True
        if len(self.streams) > 1:
            # Other upstreams probably answer in this turn, too: one write for all.
            self.context.flush_later(self)
        else:
            self.context.dirty.append(self)

    def _end_is_near(self, stream: PlannedHttp2) -> bool:
        """The rest of this response will probably come at once: its head waits for it."""
        if not stream.is_grpc:
            return False
        known = _head_of(stream)
        if known is None or known.brief < ENOUGH_CALLS:
            return False
        if not self._waits:
            self.context.held_responses.add(self)
        self._waits.add(stream.stream_id)
        return True

    def release(self) -> None:
        """What waits has waited long enough."""
        if self._waits:
            self.flush()

    def _send_reset(self, stream_id: int, error_code: int = 0) -> None:
        self.codec.send(StreamReset(stream_id, ResetReason.LOCAL_RESET, None, error_code))
        self.codec_stats.tx_reset += 1
        self._touch()

    def _wait_for_credit(self, event: Data | Trailers) -> None:
        stream_id = event.stream_id
        outbox = self._outboxes.get(stream_id)
        if isinstance(event, Trailers):
            if outbox is not None:
                outbox.add(event)
            return
        if outbox is None:
            stream = self.streams.get(stream_id)
            if stream is None:
                return
            outbox = self._outboxes[stream_id] = Outbox(stream, self.owner.buffer_limit)
            stream.undelivered = True
        self.codec_stats.pending_send_bytes += outbox.add(event)
        self._pump(outbox, outbox.size)

    def _window_opened(self, stream_id: int, now: float) -> None:
        if stream_id:
            outbox = self._outboxes.get(stream_id)
            if outbox is not None:
                outbox.stream.last_downstream_time = now
                self._pump(outbox, outbox.size)
            return
        progress = True
        while progress and self._outboxes:
            # In turns, so that one long response does not take the whole window.
            progress = False
            for outbox in tuple(self._outboxes.values()):
                if self._pump(outbox, TURN_BYTES):
                    progress = True
                    outbox.stream.last_downstream_time = now

    def _pump(self, outbox: Outbox, most: int) -> int:
        """Send what the windows allow now; the number of bytes."""
        stream = outbox.stream
        sent = outbox.pump(self.codec, most)
        self.codec_stats.pending_send_bytes -= sent
        if outbox.empty:
            del self._outboxes[stream.stream_id]
            stream.undelivered = False
            outbox.relieve()
            if stream.response_done:
                stream.finish()
        else:
            outbox.relieve()
        return sent

    # -- the same for streams that are forwarded frame by frame. False: nothing has happened, and it is to come by `send`

    def send_known_head(self, stream: PlannedHttp2, plan: Http2ResponsePlan, took_ms: int) -> bool:
        """The head of a response of which more follows, unless the caller is to be told with it that the connection ends."""
        codec = self.codec
        context = self.context
        wire = stream.wire
        if (
            self.closed
            or self._closing
            or context.draining
            or context.health_check_failed
            or self.owner.draining
            or not isinstance(codec, Http2Codec)
            or not codec.takes_head(wire)
        ):
            return False
        key = plan.keys[took_ms]
        block = codec.known_block(key)
        if block is None:
            try:
                block = codec.make_block(key, plan.status, plan.fields(took_ms), None)
            except LocalProtocolError:
                return False  # it is said where the event is sent
        codec.send_head_block(wire, block)
        if not self._dirty and not self._end_is_near(stream):
            self._write_soon()
        return True

    def send_piece(self, stream: PlannedHttp2, data: bytes, end_stream: bool) -> bool:
        """A piece of its body, if there is credit for it."""
        codec = self.codec
        if self._outboxes or not isinstance(codec, Http2Codec) or not codec.send_piece(stream.wire, data, end_stream):
            return False
        if not self._dirty:
            if self._waits and not end_stream and stream.stream_id in self._waits:
                self._waiting_bytes += len(data)
                if self._waiting_bytes <= HELD_BYTES:
                    return True
            self._write_soon()
        return True

    def send_known_trailers(self, stream: PlannedHttp2, head: Head) -> bool:
        """Its end."""
        codec = self.codec
        wire = stream.wire
        if self._outboxes or not head.first or not isinstance(codec, Http2Codec) or not codec.takes_trailers(wire):
            return False
        block = codec.known_block(head)
        if block is None:
            try:
                block = codec.make_block(head, 0, head.first, head.more)
            except LocalProtocolError:
                return False
        codec.send_last_block(wire, block)
        if stream.is_grpc:
            self.context.held_responses.learn(stream.head, stream)
        if not self._dirty:
            self._write_soon()
        return True

    # -- requests

    def pause_reading(self, stream: DownstreamStream) -> None:
        """Counted: what comes of this request keeps its credit until the last one lets go."""
        hold = self.holds.get(stream.stream_id)
        if hold is None:
            self.holds[stream.stream_id] = [1, 0]
        else:
            hold[0] += 1

    def resume_reading(self, stream: DownstreamStream) -> None:
        """Undo one `pause_reading`."""
        hold = self.holds[stream.stream_id]
        hold[0] -= 1
        if not hold[0]:
            del self.holds[stream.stream_id]
            if hold[1] and not self.closed:
                self.codec.acknowledge(stream.stream_id, hold[1])
                self._touch()


def _head_of(stream: PlannedHttp2) -> Head | None:
    """The request's, if the codec knew it."""
    if stream.way is not None:
        return stream.head
    known = stream.request.known
    return known if isinstance(known, Head) else None
