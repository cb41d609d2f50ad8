"""A downstream HTTP/1 connection: the thin shell between the transport, the codec and the streams."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    Event,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1
from mesh_codecs.http1.requests import KnownRequest, known_event
from mesh_codecs.http1.serialise import reason
from mesh_proxy.deadlines import DeadlineQueue
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.http_shell import HttpShell
from mesh_proxy.network.transport import WATERMARK_HIGH, WATERMARK_LOW, set_limits, write_all
from mesh_proxy.stream import flags
from mesh_proxy.stream.http_stream import HttpStream

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.downstream_stream import DownstreamStream
    from mesh_proxy.stream.info import ConnectionInfo
    from mesh_proxy.stream.request_plan import RequestPlan


MAX_RECHECK_S: Final = 86_400.0
"""A stream without an idle limit is looked at once a day."""


class HttpConnection(HttpShell):
    """Feeds the codec, hands its events to the stream in progress, and keeps the connection's time-outs."""

    __slots__ = ("_drain_wanted", "_head_pending", "_held", "codec", "requests", "stream")

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self.codec: DownstreamHttp1 = DownstreamHttp1(manager.http1_settings)
        self.stream: HttpStream | None = None
        self.requests = 0
        self._held = False
        """the next request must wait, and nothing is read meanwhile"""
        self._head_pending = False
        self._drain_wanted = False

    # -- the loop's side

    def data_received(self, data: bytes) -> None:
        self.manager.stats.downstream_cx_rx_bytes_total += len(data)
        self.received += len(data)
        now = self.last_activity = monotonic()
        if self._closing:
            # A delayed close: what still comes is read and dropped, so that our last answer is not lost to a reset.
            return
        known = self.codec.receive_known(data)
        if known is None:
            self._dispatch(self.codec.receive_data(data), now)
        else:
            self._begin_known(known, data, now)
        if self.context.dirty:
            self.context.flush()

    def eof_received(self) -> bool:
        self._remote_closed = True
        if self.stream is not None:
            self._count_active_destroy()
        self._dispatch(self.codec.receive_eof(), monotonic())
        self.context.flush()
        # A tunnel may go on in the other direction; a caller that leaves during a request is gone, as with Envoy.
        return self.stream is not None and not self._closing

    def _lost(self, now: float) -> None:
        if self.requests:
            self.manager.stats.downstream_cx_http1_active -= 1
        stream = self.stream
        if stream is not None:
            if not self._remote_closed:
                self._count_active_destroy()
            stream.on_downstream_gone(now)
        if self._head_pending and self.manager.head_queue is not None:
            self.manager.head_queue.discard(self)

    def pause_writing(self) -> None:
        self.write_blocked = True
        if self.stream is not None:
            self.stream.on_downstream_writable(False)
        else:
            # The caller has not taken the last answer yet: he gets no further one before.
            self._hold()

    def resume_writing(self) -> None:
        self.write_blocked = False
        if self._mover is not None:
            set_limits(self.transport, self.owner.buffer_limit)
            self._offer()
        if self.stream is not None:
            self.stream.on_downstream_writable(True)
        if self._held:
            self._read_on()
        self.context.flush()

    def flush(self) -> None:
        """Write what the codec gathered."""
        self._dirty = False
        if not self.closed:
            size = write_all(self.transport, self.codec.data_to_send())
            self.manager.stats.downstream_cx_tx_bytes_total += size
            self.sent += size

    # -- events of the codec

    def _dispatch(self, events: list[Event], now: float) -> None:
        for event in events:
            if isinstance(event, RequestHeaders):
                self._begin_stream(event, now)
            elif isinstance(event, ConnectionFailed):
                self._protocol_error(event)
            else:
                stream = self.stream
                if stream is None:
                    continue
                if isinstance(event, Data):
                    stream.on_request_data(event, now)
                elif isinstance(event, Trailers):
                    stream.on_request_trailers(event, now)
                elif isinstance(event, StreamReset):
                    stream.on_downstream_gone(now)
        codec = self.codec
        if self.stream is None:
            if codec.closed:
                self._close_after_flush(linger=not self._remote_closed)
            elif self.manager.head_queue is not None:
                self._watch_head(now)
        elif not events and codec.pending_bytes > WATERMARK_HIGH:
            # Pipelined requests wait unparsed; stop reading until their turn comes.
            self._hold()

    def _watch_head(self, now: float) -> None:
        """Start the request-header time-out when a head has begun and is incomplete; stop it otherwise."""
        queue = self.manager.head_queue
        if queue is not None:
            pending = self.codec.head_started
            if pending != self._head_pending:
                self._head_pending = pending
                if pending:
                    queue.add(self, now)
                else:
                    queue.discard(self)

    def _begin_known(self, known: KnownRequest, data: bytes, now: float) -> None:
        """A whole request of a known head, `data` with the empty line: by its plan, if it has one that says all."""
        codec = self.codec
        manager = self.manager
        plan: RequestPlan | Literal[False] | None = known.note.get(self.info.place) if known.note is not None else None
        way = None
        if plan and plan.table is manager.route_table and manager.plain_http1:
            way = plan if manager.filter_chains is None else plan.beyond
        choice = None if way is None else way.choice
        context = self.context
        cluster = None if choice is None or context.runtime else context.clusters.get(choice.name)
        if not plan or way is None or choice is None or cluster is None:
            self._begin_stream(known_event(codec.stream, known, data, len(data) - 4), now)
        else:
            if self._head_pending:
                self._head_complete()
            self._count_request()
            first = way.first.copy()
            if way.makes_id:
                first[b"x-request-id"] = context.request_id()
            if way.kept:
                known.take(first, way.kept, data, len(data) - 4)
            headers = Headers((), first)
            request = RequestHeaders(
                codec.stream,
                known.method,
                way.scheme,
                way.authority,
                known.path,
                headers,
                True,
                b"",
                b"HTTP/1.1",
                known,
                way.likeness,
            )
            stream = self.stream = HttpStream(self, manager, request, now)
            stream.start_at_once(self, plan, way, choice, cluster, now)
        if self.stream is None:
            self._dispatch([], now)

    def _head_complete(self) -> None:
        self._head_pending = False
        assert self.manager.head_queue is not None
        self.manager.head_queue.discard(self)

    def _begin_stream(self, request: RequestHeaders, now: float) -> None:
        if self._head_pending:
            self._head_complete()
        self._count_request()
        stream = self.stream = HttpStream(self, self.manager, request, now)
        if self.manager.access_loggers:
            stream.request_header_bytes = self.codec.head_bytes
            stream.wire_start = (self.received - self.codec.head_bytes, self.sent)
        stream.start(now)

    def _protocol_error(self, event: ConnectionFailed) -> None:
        """The codec has already said farewell; what is left is to count and to log."""
        stats = self.manager.stats
        stats.downstream_cx_protocol_error += 1
        error = event.error
        self._close_after_flush(linger=True)
        stream = self.stream
        if stream is None:
            self._log_unparsed(error.status, error.code, flags.DOWNSTREAM_PROTOCOL_ERROR, len(reason(error.status)))
            return
        stream.flags |= flags.DOWNSTREAM_PROTOCOL_ERROR
        stream.details = error.code
        stats.downstream_rq_rx_reset += 1
        stream.abandon_upstream()
        if stream.response is None:
            # The codec's farewell is what the caller got.
            stream.response_code = error.status
            for group in (stats, self.manager.listener_stats):
                group.codes[error.status] = group.codes.get(error.status, 0) + 1
                group.downstream_rq_completed += 1
        stream.finish()

    def _count_request(self) -> None:
        stats = self.manager.stats
        if not self.requests:
            # Only with its first request does a connection count as HTTP/1, as in Envoy.
            stats.downstream_cx_http1_total += 1
            stats.downstream_cx_http1_active += 1
        self.requests += 1
        stats.downstream_rq_total += 1
        stats.downstream_rq_http1_total += 1
        stats.downstream_rq_active += 1

    def _log_unparsed(self, status: int, details: str, flag: int, size: int) -> None:
        """No request head could be made of what came; it counts and is logged as a request all the same, as in Envoy."""
        stats = self.manager.stats
        self._count_request()
        stats.downstream_rq_rx_reset += 1
        stats.downstream_rq_response_before_rq_complete += 1
        stream = HttpStream.unparsed(self, self.manager, monotonic())
        stream.response_code = status
        stream.response = ResponseHeaders(
            0, status, Headers([(b"content-length", b"%d" % size), (b"content-type", b"text/plain")]), False
        )
        stream.bytes_sent = size
        stream.details = details
        stream.flags |= flag
        for group in (stats, self.manager.listener_stats):
            group.codes[status] = group.codes.get(status, 0) + 1
            group.downstream_rq_completed += 1
        stream.finish()

    # -- the stream's side

    def send(self, event: ResponseHeaders | InformationalHeaders | Data | Trailers) -> None:
        """Give an event to the codec; it is written at the end of this turn."""
        self.codec.send(event)
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def send_whole(self, head: bytes, body: bytes) -> bool:
        """Write a whole response now, and end the request of the codec with it. False: nothing has happened, it has to go by
        `send`, which also says whether it is to be the last."""
        context = self.context
        if (
            self._dirty
            or self.closed
            or self._closing
            or context.draining
            or self.owner.draining
            or context.health_check_failed
            or not self.codec.send_whole()
        ):
            return False
        data = head + body
        self.transport.write(data)
        self.manager.stats.downstream_cx_tx_bytes_total += len(data)
        self.sent += len(data)
        return True

    def pause_reading(self, stream: DownstreamStream) -> None:
        """One stream at a time: its request waits in the kernel."""
        self._pause_transport()

    def resume_reading(self, stream: DownstreamStream) -> None:
        """Undo one `pause_reading`."""
        self._resume_transport()

    def response_begins(self) -> None:
        """Whether the response now starting ought to be the last on this connection."""
        config = self.manager.config
        if config.max_requests_per_connection and self.requests >= config.max_requests_per_connection:
            self.manager.stats.downstream_cx_max_requests_reached += 1
            self.codec.shutdown()
        elif (
            self.context.draining or self.owner.draining or (self.context.health_check_failed and self.owner.ends_on_failed_check)
        ):
            self.manager.stats.downstream_cx_drain_close += 1
            self.codec.shutdown()

    def response_precedes_request(self) -> None:
        """The rest of the request may never come and nobody would read it: as Envoy, we end the connection."""
        self.codec.shutdown()

    def close_after_response(self) -> None:
        """Say so with the response."""
        self.codec.shutdown()

    def measure(self, stream: DownstreamStream) -> None:
        """Fill in what the stream took on the wire, for its log line. With pipelined requests a read counts for the first."""
        self.flush()
        received, sent = stream.wire_start
        stream.wire_bytes_received = self.received - received
        stream.wire_bytes_sent = self.sent - sent
        stream.response_header_bytes = self.codec.head_bytes_sent

    def reset_stream(self, stream: DownstreamStream) -> None:
        """The response breaks off in the middle: on HTTP/1 only closing the connection says so. What is written is still sent,
        answers to earlier requests among it, unless the end of the connection would look like the end of the response."""
        if stream.protocol == b"HTTP/1.0":
            self.flush()
            self._closing = True
            self.transport.abort()
        else:
            self._close_after_flush(linger=True)

    def stream_done(self, stream: DownstreamStream) -> None:
        """The stream has ended and is logged; go on with what the caller already sent."""
        if self.stream is stream:
            self.stream = None
        if self.closed or self._closing:
            return
        codec = self.codec
        if codec.closed:
            self._close_after_flush(linger=True)
            return
        if self._mover is not None:
            # Before the next request, which goes with the connection.
            self._mover.offer(self)
            return
        if self._drain_wanted:
            # Its head may have been sent before the drain began: then nothing told the caller to go.
            self._close_if_idle()
        if self.write_blocked:
            self._hold()
        if codec.pending_bytes or self._held:
            # Next turn of the loop: unwinding first keeps a long pipeline from growing the stack.
            self.context.loop.call_soon(self._read_on)

    def tunnel_opened(self) -> None:
        """From here on the connection carries bytes; some may have come already."""
        if self.codec.pending_bytes or self._held:
            self.context.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Parse what was kept back: the next request, or the first bytes of a tunnel."""
        if (
            (self._mover is not None and self.stream is None)
            or self.closed
            or self._closing
            or (self.write_blocked and self.stream is None)
        ):
            return
        codec = self.codec
        if codec.pending_bytes:
            self._dispatch(codec.receive_data(b""), monotonic())
        if self._held and codec.pending_bytes <= WATERMARK_LOW:
            self._held = False
            self._resume_transport()
        self.context.flush()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._pause_transport()

    # -- to another process, and from one

    def _offer(self) -> None:
        if self.stream is None and self._mover is not None:
            self._mover.offer(self)

    def _codec_state(self) -> tuple[str, bytes] | None:
        state = self.codec.export_state() if self.stream is None else None
        if state is None:
            return None
        self._head_pending = False
        return "http1", state

    def take_over(self, moved: MovingState) -> None:
        super().take_over(moved)
        self.codec = DownstreamHttp1.import_state(self.manager.http1_settings, moved.state)
        self.requests = int(moved.facts["requests"])

    def _count_inherited(self) -> None:
        if self.requests:
            self.manager.stats.downstream_cx_http1_active += 1

    def _go_on(self) -> None:
        if self.codec.pending_bytes or self._held:
            self.context.loop.call_soon(self._read_on)

    # -- the end, and time

    def close_when_idle(self) -> None:
        """Draining: the next answer is the last one and says so. The caller may be sending a request at this very moment, so
        an idle connection is closed only when nothing has come for drain_timeout."""
        self.codec.shutdown()
        self._drain_wanted = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        if self.closed or self._closing or self.stream is not None or self.codec.pending_bytes:
            return
        left = self.last_activity + self.manager.config.drain_timeout_s - monotonic()
        if left > 0:
            self._drain_timer = self.context.loop.call_later(left, self._close_if_idle)
        else:
            self._close_after_flush()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the connection's time-outs is due, unless something happened since it was set."""
        manager = self.manager
        stream = self.stream
        if self._closing:
            # Only delayed_close_timeout counts now.
            return
        if queue is manager.head_queue:
            self._head_timed_out()
        elif queue is manager.idle_queue:
            left = self.last_activity + queue.duration_s - now
            if stream is not None:
                queue.add(self, now)
            elif left > 0:
                self.context.loop.call_later(left, self._recheck, queue)
            else:
                manager.stats.downstream_cx_idle_timeout += 1
                self._close_after_flush()
        elif queue in manager.stream_idle_queues:
            if stream is None:
                queue.add(self, now)
            else:
                active = max(self.last_activity, stream.last_upstream_rx_time, stream.start_time)
                left = active + stream.idle_limit() - now
                if left > 0:
                    self.context.loop.call_later(min(left, MAX_RECHECK_S), self._recheck, queue)
                else:
                    queue.add(self, now)
                    stream.on_idle_timeout()
        else:
            manager.stats.downstream_cx_max_duration_reached += 1
            self.close_when_idle()

    def _recheck(self, queue: DeadlineQueue) -> None:
        if not self.closed:
            self.on_deadline(queue, monotonic())
            self.context.flush()

    def _head_timed_out(self) -> None:
        """The head took too long: 408, and a log line as for any request."""
        self._head_pending = False
        self.manager.stats.downstream_rq_header_timeout += 1
        text = b"request header timeout"
        self.codec.refuse(408, text)
        self._close_after_flush(linger=True)
        self._log_unparsed(408, "request_header_timeout", 0, len(text))

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self.stream is not None else "idle"
        return f"<HttpConnection {self.info.remote_address.decode()} {state} requests={self.requests}>"
