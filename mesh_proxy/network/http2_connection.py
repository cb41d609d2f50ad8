"""A downstream HTTP/2 connection: many streams over one transport, written once per turn.

A request whose upstream takes no more keeps its flow-control credit until it does (`pause_reading`); a response whose caller
takes no more waits in an `Outbox`. When the caller does not even read what is not flow-controlled, the output stays in the codec,
which counts its frames.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import (
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
from mesh_codecs.http1 import UnderscoreAction
from mesh_codecs.http2 import Http2Codec, frames
from mesh_proxy.deadlines import DeadlineQueue
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.http2_quiet import Http2Quiet
from mesh_proxy.network.http_shell import HttpShell
from mesh_proxy.network.outbox import Outbox
from mesh_proxy.network.transport import set_limits, write_all
from mesh_proxy.stats.http2_group import Http2Stats
from mesh_proxy.stream import flags
from mesh_proxy.stream.http_stream import HttpStream

if TYPE_CHECKING:
    from mesh_codecs.http2 import Http2Engine
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.downstream_stream import DownstreamStream
    from mesh_proxy.stream.info import ConnectionInfo

TURN_BYTES: Final = 65_536
"""what one response may take of a freshly opened connection window before the next one gets its share"""


MALFORMED_HEADS: Final = frozenset(
    {
        "http2.connection_specific_header",
        "http2.invalid_authority",
        "http2.invalid_connect",
        "http2.invalid_content_length",
        "http2.invalid_header_name",
        "http2.invalid_header_value",
        "http2.invalid_method",
        "http2.invalid_path",
        "http2.invalid_scheme",
        "http2.invalid_te",
        "http2.pseudo_header_after_fields",
        "http2.repeated_host",
        "http2.repeated_pseudo_header",
        "http2.unknown_pseudo_header",
    }
)
"""the codec's names for what is wrong with a request head"""


def details_of(code: str) -> str:
    """The codec's reason as `%RESPONSE_CODE_DETAILS%` gives it: Envoy's word where it has one."""
    return "http2.invalid.header.field" if code in MALFORMED_HEADS else code


class Http2Connection(HttpShell):
    """Feeds the codec, hands its events to their streams, and keeps the connection's time-outs."""

    __slots__ = (
        "_draining",
        "_head_since",
        "_holds",
        "_outboxes",
        "_quiet",
        "_timer",
        "_timer_at",
        "codec",
        "codec_stats",
        "requests",
        "streams",
    )

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self.codec: Http2Engine = manager.new_http2_codec()
        self.codec_stats = manager.context.registry.get(Http2Stats, "http2.")
        self.streams: dict[int, HttpStream] = {}
        self.requests = 0
        self._outboxes: dict[int, Outbox] = {}
        """responses that wait for credit"""
        self._holds: dict[int, list[int]] = {}
        """requests that nobody takes now -> [by how many they are held, bytes whose credit is kept back]"""
        self._draining = False
        self._head_since = 0.0
        """when the header block began that is incomplete; 0.0: there is none"""
        self._quiet = Http2Quiet(self)
        self._timer: asyncio.TimerHandle | None = None
        """the codec's, see `next_timer`"""
        self._timer_at = 0.0

    # -- the loop's side

    def data_received(self, data: bytes) -> None:
        size = len(data)
        stats = self.manager.stats
        stats.downstream_cx_rx_bytes_total += size
        if not self.received:
            # Only with its first bytes does a connection count as HTTP/2, as in Envoy.
            stats.downstream_cx_http2_total += 1
            stats.downstream_cx_http2_active += 1
        self.received += size
        now = self.last_activity = monotonic()
        if self._closing:
            # A delayed close: what still comes is read and dropped, so that our last answer is not lost to a reset.
            return
        codec = self.codec
        self._dispatch(codec.receive_data(data), now)
        if codec.head_started or self._head_since:
            self._watch_head(now)
        if codec.pending:
            self._pause_transport()
            self.context.loop.call_soon(self._read_on)
        self._look_at_timer(now)
        self._touch()
        self.context.flush()

    def _read_on(self) -> None:
        """The frames that the last turn left."""
        if not self.closed and not self._closing:
            self._resume_transport()
            self.data_received(b"")

    def eof_received(self) -> bool:
        """A caller that leaves during a request is gone, as with Envoy."""
        self._remote_closed = True
        if self.streams:
            self._count_active_destroy()
        return False

    def _lost(self, now: float) -> None:
        if self.received:
            self.manager.stats.downstream_cx_http2_active -= 1
        if self.streams and not self._remote_closed:
            self._count_active_destroy()
        for stream in tuple(self.streams.values()):
            stream.on_downstream_gone(now)
        if self._timer is not None:
            self._timer.cancel()
        if self._head_since and self.manager.head_queue is not None:
            self.manager.head_queue.discard(self)

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
        self.flush()
        self.context.flush()

    def flush(self) -> None:
        """Write what the codec gathered; while the transport takes nothing it stays there and its frames are counted."""
        self._dirty = False
        if self.closed or (self.write_blocked and not self._closing):
            return
        size = write_all(self.transport, self.codec.data_to_send())
        self.manager.stats.downstream_cx_tx_bytes_total += size
        self.sent += size
        if not self.streams and self.codec.closed:
            self._close_after_flush(linger=not self._remote_closed)

    # -- events of the codec

    def _dispatch(self, events: list[Event], now: float) -> None:
        for event in events:
            if isinstance(event, RequestHeaders):
                self._begin_stream(event, now)
            elif isinstance(event, Data):
                self._request_data(event, now)
            elif isinstance(event, WindowOpened):
                self._window_opened(event.stream_id, now)
            elif isinstance(event, Trailers):
                self.codec_stats.trailers += 1
                stream = self.streams.get(event.stream_id)
                if stream is not None and not stream.response_done:
                    stream.last_downstream_time = now
                    stream.on_request_trailers(event, now)
            elif isinstance(event, StreamReset):
                self._stream_reset(event, now)
            elif isinstance(event, ConnectionFailed):
                self._connection_failed(event, now)
            # GoAway: the caller opens no more streams; those that are open end as usual.

    def _watch_head(self, now: float) -> None:
        """Time header blocks that come in pieces: nothing else can come before their end."""
        queue = self.manager.head_queue
        started = self.codec.head_started
        if started == bool(self._head_since):
            return
        self._head_since = now if started else 0.0
        if queue is not None:
            if started:
                queue.add(self, now)
            else:
                queue.discard(self)

    def _count_request(self) -> None:
        stats = self.manager.stats
        self.requests += 1
        stats.downstream_rq_total += 1
        stats.downstream_rq_http2_total += 1
        stats.downstream_rq_active += 1
        self.codec_stats.streams_active += 1

    def _begin_stream(self, request: RequestHeaders, now: float) -> None:
        manager = self.manager
        if manager.underscores is not UnderscoreAction.ALLOW and self._underscores_refused(request, now):
            return
        self._count_request()
        stream = self.streams[request.stream_id] = HttpStream(self, manager, request, now)
        limit = manager.config.max_requests_per_connection
        if limit and self.requests >= limit and not self._draining:
            manager.stats.downstream_cx_max_requests_reached += 1
            self._drain()
        stream.start(now)

    def _underscores_refused(self, request: RequestHeaders, now: float) -> bool:
        """Act on header names with an underscore, which some servers take for a hyphen."""
        headers = request.headers
        names = [name for name in headers.first if b"_" in name]
        if not names:
            return False
        if self.manager.underscores is UnderscoreAction.DROP_HEADER:
            for name in names:
                headers.remove(name)
                self.codec_stats.dropped_headers_with_underscores += 1
            return False
        self.codec_stats.requests_rejected_with_underscores_in_headers += 1
        self._send_reset(request.stream_id, frames.INTERNAL_ERROR)
        self._log_unparsed("http2.unexpected_underscore", now, flags.DOWNSTREAM_REMOTE_RESET)
        return True

    def _request_data(self, event: Data, now: float) -> None:
        stream_id = event.stream_id
        stream = self.streams.get(stream_id)
        if stream is None or stream.response_done:
            # Nobody wants it any more.
            self.codec.acknowledge(stream_id, event.flow_size)
            return
        stream.last_downstream_time = now
        size = event.flow_size
        stream.on_request_data(event, now)
        hold = self._holds.get(stream_id) if self._holds else None
        if hold is not None:
            hold[1] += size
        elif size:
            self.codec.acknowledge(stream_id, size)

    def _stream_reset(self, event: StreamReset, now: float) -> None:
        """The caller gave a stream up, or broke a rule within it, for which the codec has reset it already."""
        stream = self.streams.get(event.stream_id)
        if event.error is None:
            self.codec_stats.rx_reset += 1
            if stream is None:
                pass
            elif event.error_code:
                stream.on_downstream_gone(now, "http2.remote_reset", flags.DOWNSTREAM_REMOTE_RESET)
            else:
                stream.on_downstream_gone(now, "", 0)
            return
        self.codec_stats.count_fault(event.error.code)
        self.codec_stats.tx_reset += 1
        if stream is not None:
            stream.on_downstream_gone(now, details_of(event.error.code), flags.DOWNSTREAM_PROTOCOL_ERROR)
        elif event.error.code == "http2.header_list_too_large":
            self._log_unparsed("http2.too_many_headers", now, flags.DOWNSTREAM_REMOTE_RESET)
        else:
            self._log_unparsed(event.error.code, now)

    def _log_unparsed(self, code: str, now: float, flag: int = flags.DOWNSTREAM_PROTOCOL_ERROR) -> None:
        """No request head could be made of what came; it counts and is logged as a request all the same, as in Envoy."""
        self._count_request()
        stream = HttpStream.unparsed(self, self.manager, now)
        stream.protocol = b"HTTP/2"
        stream.on_downstream_gone(now, details_of(code), flag)

    def _connection_failed(self, event: ConnectionFailed, now: float) -> None:
        """The codec has said GOAWAY already; every stream ends with the connection."""
        self.manager.stats.downstream_cx_protocol_error += 1
        self.codec_stats.count_fault(event.error.code)
        self._close_after_flush(linger=True)
        code = event.error.code
        if code in MALFORMED_HEADS and event.stream_id not in self.streams:
            self._log_unparsed(code, now)
        for stream in tuple(self.streams.values()):
            stream.on_downstream_gone(now, details_of(code), flags.DOWNSTREAM_PROTOCOL_ERROR)

    # -- the stream's side

    def send(self, event: ResponseHeaders | InformationalHeaders | Data | Trailers) -> None:
        """Give an event to the codec, or let it wait for credit; it is written at the end of this turn."""
        if isinstance(event, Data):
            stream_id = event.stream_id
            if stream_id in self._outboxes or len(event.data) > self.codec.send_window(stream_id):
                self._wait_for_credit(event)
            else:
                self.codec.send(event)
        elif self._outboxes and isinstance(event, Trailers) and event.stream_id in self._outboxes:
            self._outboxes[event.stream_id].add(event)
        else:
            self.codec.send(event)
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def _wait_for_credit(self, event: Data) -> None:
        stream_id = event.stream_id
        outbox = self._outboxes.get(stream_id)
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

    def pause_reading(self, stream: DownstreamStream) -> None:
        """Counted: what comes of this request keeps its credit until the last one lets go."""
        hold = self._holds.get(stream.stream_id)
        if hold is None:
            self._holds[stream.stream_id] = [1, 0]
        else:
            hold[0] += 1

    def resume_reading(self, stream: DownstreamStream) -> None:
        """Undo one `pause_reading`."""
        hold = self._holds[stream.stream_id]
        hold[0] -= 1
        if not hold[0]:
            del self._holds[stream.stream_id]
            if hold[1] and not self.closed:
                self.codec.acknowledge(stream.stream_id, hold[1])
                self._touch()

    def response_begins(self) -> None:
        """Say GOAWAY if this connection ought to end."""
        if (self.context.draining or self.owner.draining or self.context.health_check_failed) and not self._draining:
            self.manager.stats.downstream_cx_drain_close += 1
            self._drain()

    def response_precedes_request(self) -> None:
        """When the response is complete the rest of the request is refused; the connection goes on."""

    def close_after_response(self) -> None:
        """One bad request does not end the others."""

    def tunnel_opened(self) -> None:
        """Nothing changes: the frames go on."""

    def reset_stream(self, stream: DownstreamStream) -> None:
        """The response breaks off. An endpoint that cancels is passed on as such, unlike in Envoy: a gRPC caller then sees the
        status CANCELLED, as it would without a proxy."""
        self._send_reset(stream.stream_id, frames.CANCEL if stream.upstream_cancelled else frames.INTERNAL_ERROR)

    def _send_reset(self, stream_id: int, error_code: int = 0) -> None:
        self.codec.send(StreamReset(stream_id, ResetReason.LOCAL_RESET, None, error_code))
        self.codec_stats.tx_reset += 1
        self._touch()

    def measure(self, stream: DownstreamStream) -> None:
        """Fill in what the stream took on the wire: frames with their headers, as Envoy counts them."""
        received, head_received, sent, head_sent = self.codec.usage(stream.stream_id)
        stream.wire_bytes_received = received
        stream.request_header_bytes = head_received
        stream.wire_bytes_sent = sent
        stream.response_header_bytes = head_sent

    def stream_done(self, stream: DownstreamStream) -> None:
        """The stream has ended and is logged."""
        stream_id = stream.stream_id
        self.streams.pop(stream_id, None)
        self.codec_stats.streams_active -= 1
        self.last_activity = stream.end_time
        if self._outboxes:
            outbox = self._outboxes.pop(stream_id, None)
            if outbox is not None:
                self.codec_stats.pending_send_bytes -= outbox.size
        if stream.response_done and not stream.request_done:
            # After a whole response the rest of the request is not wanted (RFC 9113, 8.1): NO_ERROR.
            self._send_reset(stream_id)
        elif self._draining:
            self._touch()
        if self._mover is not None and not self.streams:
            self._offer()

    # -- to another process, and from one

    def _offer(self) -> None:
        """Between requests at once; otherwise see `Http2Quiet`."""
        if self._mover is None or self._draining or self.closed or self._closing:
            return
        if not hasattr(self.codec, "exportable"):  # the other engine cannot say its state
            self.close_when_idle()
        elif self.streams or not self.codec.exportable:
            self._quiet.seek()
        else:
            self._mover.offer(self)

    def seek_quiet(self) -> None:
        """Another look, by the clock."""
        self._offer()

    def hold_reading(self) -> None:
        """Read nothing for a while."""
        self._pause_transport()

    def release_reading(self) -> None:
        """Undo it."""
        self._resume_transport()

    def waits_for_caller(self, since: float) -> bool | None:
        """Whether some stream needs the caller to go on: None if one of them has done so since before that time."""
        found: bool | None = bool(self._outboxes)
        for stream in self.streams.values():
            if not stream.request_done:
                if stream.start_time < since:
                    return None
                found = True
        return found

    def _codec_state(self) -> tuple[str, bytes] | None:
        if self.streams or self._draining:
            return None
        codec = self.codec
        if not isinstance(codec, Http2Codec) or not codec.exportable:
            self._quiet.seek()
            return None
        self._quiet.stop()
        return "http2", codec.export_state()

    def take_over(self, moved: MovingState) -> None:
        super().take_over(moved)
        self.codec = Http2Codec.import_state(moved.state)
        self.requests = int(moved.facts["requests"])

    def _count_inherited(self) -> None:
        if self.received:
            self.manager.stats.downstream_cx_http2_active += 1

    def _go_on(self) -> None:
        self._quiet.stop()
        self._look_at_timer(monotonic())
        self._touch()
        self.context.flush()

    # -- the end, and time

    def _drain(self) -> None:
        """GOAWAY, in two steps."""
        self._draining = True
        self.codec.shutdown()
        self.codec_stats.goaway_sent += 1
        self._look_at_timer(monotonic())
        self._touch()

    def close_when_idle(self) -> None:
        """Draining: no new streams; the connection ends with the last one that is open."""
        if not self._draining and not self._closing:
            self._drain()

    def _look_at_timer(self, now: float) -> None:
        """Arm the one timer of the codec, if it wants one sooner than it is armed for."""
        due = self.codec.next_timer()
        if due is None:
            return
        if due <= now:
            self._codec_time(now)
            due = self.codec.next_timer()
            if due is None:
                return
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.context.loop.call_later(max(due - now, 0.0), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self.closed or self._closing:
            return
        now = monotonic()
        due = self.codec.next_timer()
        if due is not None and due <= now:
            self._codec_time(now)
        self._look_at_timer(now)
        self.context.flush()

    def _codec_time(self, now: float) -> None:
        self._dispatch(self.codec.handle_timer(now), now)
        self._touch()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the connection's time-outs is due, unless something happened since it was set."""
        manager = self.manager
        if self._closing:
            # Only delayed_close_timeout counts now.
            return
        if queue is manager.idle_queue:
            left = self.last_activity + queue.duration_s - now
            if self.streams:
                queue.add(self, now)
            elif left > 0:
                self.context.loop.call_later(left, self._recheck, queue)
            elif not self._draining:
                manager.stats.downstream_cx_idle_timeout += 1
                self._drain()
        elif queue is manager.stream_idle_queue:
            self._check_idle_streams(queue, now)
        elif queue is manager.head_queue:
            self._head_timed_out(now)
        else:
            manager.stats.downstream_cx_max_duration_reached += 1
            self.close_when_idle()

    def _check_idle_streams(self, queue: DeadlineQueue, now: float) -> None:
        """One look at all streams, at the time when the first of them may be idle for too long."""
        soonest = queue.duration_s
        if self._head_since:
            left = self._head_since + queue.duration_s - now
            if left <= 0:
                self._head_timed_out(now)
                return
            soonest = min(soonest, left)
        for stream in tuple(self.streams.values()):
            active = max(stream.last_downstream_time, stream.last_upstream_rx_time)
            left = active + stream.idle_limit() - now
            if left <= 0:
                if stream.response_done:
                    self.codec_stats.tx_flush_timeout += 1
                    stream.reset_downstream()
                else:
                    stream.on_idle_timeout()
            elif left < soonest:
                soonest = left
        if soonest < queue.duration_s:
            self.context.loop.call_later(soonest, self._recheck, queue)
        else:
            queue.add(self, now)

    def _head_timed_out(self, now: float) -> None:
        """A header block, or the preface, took too long. Its stream cannot be answered, as nothing else can be read before."""
        self._head_since = 0.0
        self.manager.stats.downstream_rq_header_timeout += 1
        self.codec.send(GoAway(0, 0, frames.PROTOCOL_ERROR, b"request header timeout"))
        self._close_after_flush(linger=True)
        self._log_unparsed("request_header_timeout", now)
        for stream in tuple(self.streams.values()):
            stream.on_downstream_gone(now, "request_header_timeout")

    def _recheck(self, queue: DeadlineQueue) -> None:
        if not self.closed:
            self.on_deadline(queue, monotonic())
            self.context.flush()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<Http2Connection {self.info.remote_address.decode()} {state} streams={len(self.streams)} of {self.requests}>"
