"""One HTTP/2 connection to an endpoint: feeds the codec, hands events to the requests that it carries, writes once per turn."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    Event,
    GoAway,
    InformationalHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
    WindowOpened,
)
from mesh_codecs.http2 import Http2Codec
from mesh_codecs.http2.frames import CANCEL, CONNECT_ERROR, PROTOCOL_ERROR
from mesh_proxy.upstream.http2_planned import PlannedRequest
from mesh_proxy.upstream.http2_shell import Http2UpstreamShell
from mesh_proxy.upstream.http2_stream import Http2UpstreamStream

if TYPE_CHECKING:
    from mesh_codecs.events import RequestHeaders
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.stream.planned_http2 import PlannedHttp2
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.http2_pool import Http2Pool

_log = logging.getLogger("http2")

BEFORE_SETTINGS: Final = 1
"""requests on a connection whose peer has not said how many it takes, when no earlier one has either"""


class Http2UpstreamConnection(Http2UpstreamShell):
    """Protocol of the transport, and the owner of its streams."""

    __slots__ = (
        "_awaiting_settings",
        "_draining",
        "_released",
        "_requests",
        "failure",
        "limit",
        "ready",
        "settled",
        "streams",
    )

    def __init__(self, pool: Http2Pool) -> None:
        super().__init__(pool)
        self.streams: dict[int, Http2UpstreamStream] = {}
        """requests in progress by stream id"""
        self.limit = BEFORE_SETTINGS if pool.known_limit is None else min(pool.known_limit, self.codec.max_streams)
        """requests at once that the endpoint takes, as far as is known"""
        self.settled = False
        """the endpoint's SETTINGS came"""
        self.ready = False
        """in the pool's list of connections that take requests"""
        self.failure: ResetReason | None = None
        """why it broke"""
        self._requests = 0
        self._draining = False
        """no request after those in progress"""
        self._released = False
        """a request ended in this batch of events: there may be room for another"""
        self._awaiting_settings: list[Http2UpstreamStream] = []

    @property
    def idle(self) -> bool:
        """It stands and carries nothing."""
        return not self.streams and not self.closed

    @property
    def expected_room(self) -> int:
        """How many more requests it will probably take, before its SETTINGS arrive."""
        return 0 if self._draining else max(self.pool.assumed_limit - len(self.streams), 0)

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.pool.connections.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.stats.upstream_cx_rx_bytes_total += len(data)
        codec = self.codec
        now = self.last_read = monotonic()
        events = codec.receive_data(data)
        if not codec.quiet and (codec.max_streams != self.limit or not self.settled):
            self._settings_changed()
        if events:
            self._dispatch(events, now)
        elif self._released:
            self._released = False
            self._after_release(now)
        if not codec.quiet:
            self._after_read(now)
        if codec.has_output:
            self.touch()  # acknowledgements and credit
        self.context.flush()

    def _after_read(self, now: float) -> None:
        """More than responses came."""
        if self.codec.pending and not self.closed:
            # Others on the loop come first; meanwhile nothing more is read.
            self.transport.pause_reading()
            self.context.loop.call_soon(self._read_on)
        self._keep_time(now)

    def _read_on(self) -> None:
        """The frames that the last turn left."""
        if not self.closed:
            self.transport.resume_reading()
            self.data_received(b"")

    def eof_received(self) -> bool:
        self._count_active_destroy(remote=True)
        self._dispatch(self.codec.receive_eof(), monotonic())
        self._close_from_peer()
        self.context.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._count_active_destroy(remote=not self._closed_by_us)
        self._count_end()
        self.pool.withdraw(self)
        self._end_all(ResetReason.CONNECTION_TERMINATION, "")
        self.pool.lost(self)
        self.context.flush()

    # -- events of the codec

    def _dispatch(self, events: list[Event], now: float) -> None:
        streams = self.streams
        last_taken = -1
        moving: list[Http2UpstreamStream] | None = None
        for event in events:
            stream_id = event.stream_id  # the caller's side puts its own there
            stream = streams.get(stream_id)
            if stream is None:
                last_taken = self._of_no_stream(event, last_taken)
                continue
            callbacks = stream.callbacks
            assert callbacks is not None
            if isinstance(event, Data):
                size = event.flow_size
                if event.end_stream:
                    self._response_complete(stream)
                    callbacks.on_upstream_data(event, now)
                    self.codec.acknowledge(stream_id, size)
                else:
                    callbacks.on_upstream_data(event, now)
                    stream.delivered(size)
            elif isinstance(event, ResponseHeaders):
                stream.begin_response(event)
                if event.end_stream:
                    self._response_complete(stream)
                callbacks.on_upstream_headers(event, now)
            elif isinstance(event, Trailers):
                self._response_complete(stream)
                callbacks.on_upstream_trailers(event.headers, now)
            elif isinstance(event, WindowOpened):
                stream.pump()
            elif isinstance(event, StreamReset):
                if 0 <= last_taken < stream_id and stream.can_move:
                    del streams[stream_id]
                    self.http2_stats.streams_active -= 1
                    stream.left_behind()
                    if moving is None:
                        moving = []
                    moving.append(stream)
                else:
                    self._stream_reset(stream, event)
            elif isinstance(event, InformationalHeaders):
                callbacks.on_upstream_informational(event)
            elif isinstance(event, ConnectionFailed):
                self._failed(event)
        if moving is not None:
            self.pool.move(moving)
        if self._released:
            self._released = False
            self._after_release(now)

    def _of_no_stream(self, event: Event, last_taken: int) -> int:
        """An event of the connection, or of a request that the router gave up; the last request that the endpoint takes, if the
        event says so."""
        if isinstance(event, Data):
            # What was read of it is off the wire all the same.
            self.codec.acknowledge(event.stream_id, event.flow_size)
        elif isinstance(event, WindowOpened):
            if not event.stream_id:
                self._pump_all()
        elif isinstance(event, GoAway):
            self._going_away()
            return event.last_stream_id
        elif isinstance(event, ConnectionFailed):
            self._failed(event)
        return last_taken

    def _response_complete(self, stream: Http2UpstreamStream) -> None:
        """The response has ended, and with it the request."""
        if stream.withheld:
            stream.return_credit()
        if not stream.request_ended:
            # Nobody reads the rest of the request (RFC 9113, 8.1).
            self.codec.send(StreamReset(stream.stream_id, ResetReason.LOCAL_RESET))
            self.http2_stats.tx_reset += 1
            self.stats.upstream_rq_tx_reset += 1
        self._end(stream)

    def _stream_reset(self, stream: Http2UpstreamStream, event: StreamReset) -> None:
        """The endpoint, or a fault of it, ended a request."""
        callbacks = stream.callbacks
        assert callbacks is not None
        self._end(stream)
        reason = event.reason
        details = ""
        if event.error is not None:
            details = event.error.code
            _log.debug("upstream %s: %s", self.endpoint.address, event.error)
            self.http2_stats.count_fault(details)
            self.http2_stats.tx_reset += 1
            self.stats.upstream_rq_tx_reset += 1
        elif reason is ResetReason.CONNECTION_TERMINATION:
            self.stats.upstream_rq_pending_failure_eject += 1
        else:
            self.http2_stats.rx_reset += 1
            callbacks.upstream_cancelled = event.error_code == CANCEL
            if event.error_code == PROTOCOL_ERROR:
                reason = ResetReason.PROTOCOL_ERROR  # the endpoint's opinion of us; the caller sees 502, as with Envoy
                self.stats.upstream_rq_tx_reset += 1
            elif event.error_code == CONNECT_ERROR:
                reason = ResetReason.CONNECT_ERROR
            elif reason is ResetReason.REMOTE_RESET:
                self.stats.upstream_rq_rx_reset += 1
        callbacks.on_upstream_reset(reason, "", details)

    def _going_away(self) -> None:
        """The endpoint takes no more requests on this connection."""
        self.stats.upstream_cx_close_notify += 1
        self._draining = True
        self.pool.withdraw(self)
        self._released = True

    def _failed(self, event: ConnectionFailed) -> None:
        """The connection cannot go on; the codec's farewell is in its output."""
        code = event.error.code
        _log.debug("upstream %s: %s", self.endpoint.address, event.error)
        self.http2_stats.count_fault(code)
        self._draining = True
        self.pool.withdraw(self)
        if code == "http2.keepalive_timeout" or code == "http2.connection_cut_off":
            self.failure = ResetReason.CONNECTION_TERMINATION
        else:
            self.failure = ResetReason.PROTOCOL_ERROR
            self.stats.upstream_cx_protocol_error += 1
        if self.failure is ResetReason.CONNECTION_TERMINATION:
            self._count_active_destroy(remote=False)
        self._end_all(self.failure, code)
        self.close()

    def _settings_changed(self) -> None:
        """The endpoint said, for the first time or anew, how many requests it takes at once."""
        codec = self.codec
        if not self.settled:
            if not codec.settings_received:
                return
            self.settled = True
            waiting, self._awaiting_settings = self._awaiting_settings, []
            for stream in waiting:
                stream.settings_arrived()
        self.limit = self.pool.known_limit = codec.max_streams
        self._offer_or_withdraw()

    # -- requests come and go

    def begin(self, callbacks: UpstreamCallbacks) -> bool:
        """Carry a request: `on_pool_ready` is called. False: this connection takes no more."""
        stream_id = self._open_stream()
        if stream_id is None:
            return False
        self._count_begin()
        stream = self.streams[stream_id] = Http2UpstreamStream(self, stream_id, callbacks)
        callbacks.on_pool_ready(stream)
        return True

    def _count_begin(self) -> None:
        self.pool.resources.add_request()
        stats = self.stats
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1

    def begin_planned(self, planned: PlannedHttp2) -> bool:
        """Carry a request whose frames are forwarded one by one: its head is sent. False: this connection does not.

        Raises:
            LocalProtocolError: the request cannot be sent; it is carried all the same, as the `handle` of `planned`.
        """
        codec = self.codec
        if not isinstance(codec, Http2Codec) or self.write_blocked:
            return False
        stream_id = self._open_stream()
        if stream_id is None:
            return False
        self._count_begin()
        wire = codec.stream(stream_id)
        stream = self.streams[stream_id] = PlannedRequest(self, codec, wire, planned)
        planned.handle = stream
        way = planned.way
        assert way is not None
        if way.traced or not codec.send_known_request(wire, way.likeness, planned.own_id, planned.request_done):
            planned.have_request()
            request: RequestHeaders = planned.request
            request.stream_id = stream_id
            codec.send_request(request)
        wire.taker = planned.wire.taker = stream
        if not self.dirty:
            self.touch()
        return True

    def end_planned(self, stream: PlannedRequest) -> None:
        """As `_end`; nobody asks what it took on the wire."""
        stream.callbacks = None
        del self.streams[stream.stream_id]
        self.http2_stats.streams_active -= 1
        self.uncount()
        self._released = True

    def take_over(self, stream: Http2UpstreamStream) -> bool:
        """Carry a request that another connection has left behind."""
        stream_id = self._open_stream()
        if stream_id is None:
            return False
        self.streams[stream_id] = stream
        try:
            stream.move(self, stream_id)
        except LocalProtocolError as error:
            self.give_up(stream, ResetReason.LOCAL_RESET, error.code)
        return True

    def _open_stream(self) -> int | None:
        stream_id = self.codec.open_stream()
        if stream_id is None:
            # Its stream ids are used up, or the codec knows of an end that we have not come to yet.
            self.retire()
            return None
        self._requests = requests = self._requests + 1
        self.http2_stats.streams_active += 1
        pool = self.pool
        if pool.probe_after_s is not None:
            now = monotonic()
            if now - self.last_read > pool.probe_after_s:
                self.codec.probe(now)
                self._keep_time(now)
        if requests == pool.max_requests:
            self.stats.upstream_cx_max_requests += 1
            self._draining = True
            self.pool.withdraw(self)
        elif len(self.streams) + 1 >= self.limit:
            self.pool.withdraw(self)
        return stream_id

    def abandon(self, stream: Http2UpstreamStream) -> None:
        """The router gave a request up."""
        if not stream.stream_id:
            self.pool.forget(stream)
            return
        if not self.closed:
            self.codec.send(StreamReset(stream.stream_id, ResetReason.LOCAL_RESET))
            self.http2_stats.tx_reset += 1
            self.touch()
        self.stats.upstream_rq_tx_reset += 1
        self._end(stream)
        self.context.loop.call_soon(self._after_abandon)

    def _after_abandon(self) -> None:
        if self._released:
            self._released = False
            self._after_release(monotonic())
            self.context.flush()

    def give_up(self, stream: Http2UpstreamStream, reason: ResetReason, details: str) -> None:
        """A request turned out to be one that this endpoint cannot be sent."""
        callbacks = stream.callbacks
        if callbacks is not None:
            if stream.stream_id:
                self.codec.send(StreamReset(stream.stream_id, ResetReason.LOCAL_RESET))
                self._end(stream)
            else:
                stream.callbacks = None
                self.uncount()
            callbacks.on_upstream_reset(reason, "", details)

    def _end(self, stream: Http2UpstreamStream) -> None:
        """A request is over: count it, and let it go."""
        callbacks = stream.callbacks
        stream_id = stream.stream_id
        if callbacks is not None:
            stream.callbacks = None
            received, _, sent, _ = self.codec.usage(stream_id)
            callbacks.upstream_wire_bytes_received += received
            callbacks.upstream_wire_bytes_sent += sent
        self.streams.pop(stream_id, None)
        self.http2_stats.streams_active -= 1
        self.uncount()
        self._released = True

    def uncount(self) -> None:
        """A request is no longer under way."""
        self.pool.resources.remove_request()
        self.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1

    def _end_all(self, reason: ResetReason, details: str) -> None:
        for stream in tuple(self.streams.values()):
            callbacks = stream.callbacks
            if callbacks is not None:
                self._end(stream)
                if reason is ResetReason.CONNECTION_TERMINATION:
                    self.stats.upstream_rq_pending_failure_eject += 1
                else:
                    self.stats.upstream_rq_tx_reset += 1
                callbacks.on_upstream_reset(reason, "", details)

    def _after_release(self, now: float) -> None:
        """Requests ended: take others, wait, or go."""
        if self.closed:
            return
        if not self.streams:
            self.last_used = now
            if self._draining or self.endpoint.removed:
                self.close()
                return
            self.became_idle()
        if not self.ready:
            self._offer_or_withdraw()

    def _offer_or_withdraw(self) -> None:
        if len(self.streams) < self.limit and not self._draining and not self.closed:
            self.pool.offer(self)
        else:
            self.pool.withdraw(self)
            self.pool.serve()

    def became_idle(self) -> None:
        """It carries nothing now."""
        if not self.streams:
            self.pool.watch_idle()

    def await_settings(self, stream: Http2UpstreamStream) -> None:
        """A request that can be sent only when the endpoint's SETTINGS are known."""
        self._awaiting_settings.append(stream)

    # -- the end

    def _withdraw(self) -> None:
        self.pool.withdraw(self)

    def retire(self) -> None:
        """No request after those in progress."""
        self._draining = True
        self.pool.withdraw(self)
        if not self.streams:
            self.close()
        elif not self.endpoint.removed:
            self.pool.serve()  # who waited for it to have room needs another one

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """max_connection_duration is over."""
        self.stats.upstream_cx_max_duration_reached += 1
        self.retire()

    def _count_active_destroy(self, *, remote: bool) -> None:
        if not self.streams:
            return
        stats = self.stats
        stats.upstream_cx_destroy_with_active_rq += 1
        if remote:
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_local_with_active_rq += 1

    def _pump_all(self) -> None:
        for stream in tuple(self.streams.values()):
            if stream.waits:
                stream.pump()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<Http2UpstreamConnection {self.endpoint.address} {state} streams={len(self.streams)}/{self.limit}>"
