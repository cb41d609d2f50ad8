"""One HTTP/1 connection to an endpoint: feeds the codec, hands events to the request it carries, flushes once per turn."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from mesh_codecs.errors import ResetReason
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
from mesh_codecs.http1 import UpstreamHttp1
from mesh_proxy.network.transport import address_of, set_limits, write_all
from mesh_proxy.upstream.pool import PooledConnection

if TYPE_CHECKING:
    from mesh_codecs.http1.upstream import KnownResponse
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.stream.planned_stream import PlannedStream
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.http1_pool import Http1Pool

_log = logging.getLogger("http")

CLOSE_FLUSH_S: Final = 1.0
"""How long a closing connection may take to write what is left."""


class Http1UpstreamConnection(PooledConnection):
    """Protocol of the transport, and `UpstreamHandle` of the request in progress."""

    __slots__ = (
        "_closed_by_us",
        "_dirty",
        "_local_address",
        "_read_pauses",
        "_request_ended",
        "_response_begun",
        "_retired",
        "_stream_id",
        "callbacks",
        "closed",
        "codec",
        "context",
        "endpoint",
        "last_used",
        "planned",
        "pool",
        "protocol",
        "requests",
        "started",
        "stats",
        "transport",
    )

    def __init__(self, pool: Http1Pool) -> None:
        self.pool = pool
        self.context = pool.context
        self.endpoint = pool.endpoint
        self.stats = pool.cluster.stats
        self.codec = UpstreamHttp1(pool.settings)
        self.transport: asyncio.Transport
        self.callbacks: UpstreamCallbacks | None = None
        """the request that has this connection, until its response is complete"""
        self.planned: PlannedStream | None = None
        """the same, if it takes a whole response at once"""
        self.protocol = b"HTTP/1.1"
        self.requests = 0
        self.started = self.last_used = monotonic()
        self.closed = False
        self._closed_by_us = False
        self._request_ended = False
        self._response_begun = False
        self._retired = False
        """older than max_connection_duration: no request after the one in progress"""
        self._stream_id = 0
        self._read_pauses = 0
        self._dirty = False
        self._local_address = b""

    @property
    def local_address(self) -> bytes:
        """Our end of the connection, as logs print it."""
        if not self._local_address:
            self._local_address = address_of(self.transport.get_extra_info("sockname"))
        return self._local_address

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self.pool.connections.add(self)
        if self.pool.duration_queue is not None:
            self.pool.duration_queue.add(self, self.started)
        set_limits(transport, self.pool.cluster.config.per_connection_buffer_limit_bytes)

    def data_received(self, data: bytes) -> None:
        self.stats.upstream_cx_rx_bytes_total += len(data)
        planned = self.planned
        if planned is not None:
            known = self.codec.receive_whole(data)
            if known is not None:
                self._whole_response(planned, known, data)
                return
        if self.callbacks is not None:
            self.callbacks.upstream_wire_bytes_received += len(data)
        self._dispatch(self.codec.receive_data(data))
        self.context.flush()

    def eof_received(self) -> bool:
        self._dispatch(self.codec.receive_eof())
        self.context.flush()
        if self.callbacks is None and not self.closed:
            self._close_from_peer()
        # A tunnel may still carry the other direction; everything else is over.
        return not self.closed

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.pool.duration_queue is not None:
            self.pool.duration_queue.discard(self)
        callbacks = self.callbacks
        stats = self.stats
        stats.upstream_cx_length_ms.record((monotonic() - self.started) * 1000)
        if self._closed_by_us:
            stats.upstream_cx_destroy_local += 1
        else:
            stats.upstream_cx_destroy_remote += 1
        if callbacks is not None:
            self._count_active_destroy(remote=True)
            self._end_request()
            reason = ResetReason.PROTOCOL_ERROR if self._response_begun else ResetReason.CONNECTION_TERMINATION
            callbacks.on_upstream_reset(reason, "", "")
        self.pool.lost(self)
        self.context.flush()

    def pause_writing(self) -> None:
        self.stats.upstream_flow_control_backed_up_total += 1
        if self.callbacks is not None:
            self.callbacks.on_upstream_writable(False)

    def resume_writing(self) -> None:
        self.stats.upstream_flow_control_drained_total += 1
        if self.callbacks is not None:
            self.callbacks.on_upstream_writable(True)
        self.context.flush()

    # -- events of the codec

    def _whole_response(self, planned: PlannedStream, known: KnownResponse, data: bytes) -> None:
        now = monotonic()
        if planned.on_upstream_whole(known, data, now):
            pool = self.pool
            if self._retired or pool.cluster.config.max_requests_per_connection:
                if self._response_complete() and not self.closed:
                    self.last_used = now
                    pool.release(self)
            else:
                self._end_request()
                if not self.closed:
                    self.last_used = now
                    pool.release(self)
        else:
            body = data[-known.length :]
            headers = Headers((), known.fields(data, len(data) - len(body)))
            head = ResponseHeaders(self._stream_id, known.status, headers, False)
            self._dispatch([head, Data(self._stream_id, body, True, len(body))])
        if self.context.dirty:
            self.context.flush()

    def _dispatch(self, events: list[Event]) -> None:
        now = monotonic()
        reusable = False
        for event in events:
            callbacks = self.callbacks
            if callbacks is None:
                # Nobody asked: bytes without a request, or after the end of the response.
                reusable = False
                self.close()
                break
            if isinstance(event, ResponseHeaders):
                self._response_begun = True
                if event.end_stream:
                    reusable = self._response_complete()
                callbacks.on_upstream_headers(event, now)
            elif isinstance(event, Data):
                if event.end_stream:
                    reusable = self._response_complete()
                callbacks.on_upstream_data(event, now)
            elif isinstance(event, Trailers):
                reusable = self._response_complete()
                callbacks.on_upstream_trailers(event.headers, now)
            elif isinstance(event, InformationalHeaders):
                callbacks.on_upstream_informational(event)
            elif isinstance(event, ConnectionFailed):
                _log.debug("upstream %s: %s", self.endpoint.address, event.error)
                self.stats.upstream_cx_protocol_error += 1
                self._count_active_destroy(remote=False)
                self._end_request()
                self.close()
                callbacks.on_upstream_reset(ResetReason.PROTOCOL_ERROR, "", event.error.code)
            elif isinstance(event, StreamReset):
                self._count_active_destroy(remote=True)
                reason = event.reason
                if self._response_begun and reason is ResetReason.CONNECTION_TERMINATION:
                    # A body that breaks off is a broken message: Envoy's parser says so too.
                    self.stats.upstream_cx_protocol_error += 1
                    reason = ResetReason.PROTOCOL_ERROR
                self._end_request()
                self._close_from_peer()
                callbacks.on_upstream_reset(reason, "", "")
        if reusable and not self.closed:
            self.last_used = now
            self.pool.release(self)

    def _response_complete(self) -> bool:
        """The last byte of the response is parsed. True when the connection can take another request."""
        reusable = self._request_ended and self.codec.can_reuse and not self._retired
        self._end_request()
        limit = self.pool.cluster.config.max_requests_per_connection
        if limit and self.requests >= limit:
            self.stats.upstream_cx_max_requests += 1
            reusable = False
        if not reusable:
            if not self.codec.keep_alive:
                self.stats.upstream_cx_close_notify += 1
            self.close()
        return reusable

    # -- the router's side

    def begin(self, callbacks: UpstreamCallbacks) -> None:
        """Take the connection for one request."""
        self.callbacks = callbacks
        self._request_ended = False
        self._response_begun = False
        self.requests += 1
        self.pool.resources.add_request()
        stats = self.stats
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1

    def _end_request(self) -> None:
        self.callbacks = self.planned = None
        self.pool.resources.remove_request()
        self.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1
        if self._read_pauses:
            # Who held it goes with the request.
            self._read_pauses = 1
            self.resume_reading()

    def send_known(self, request: RequestHeaders, planned: PlannedStream) -> bool:
        """Write a request that is all head and like one before now. False: nothing has happened, use `send_request`."""
        if self._dirty or self.closed:
            return False
        head = self.codec.send_known(request)
        if head is None:
            return False
        self._stream_id = request.stream_id
        self._request_ended = True
        self.planned = planned
        self.stats.upstream_cx_tx_bytes_total += len(head)
        self.transport.write(head)
        return True

    def send_request(self, request: RequestHeaders) -> None:
        """Send the head."""
        stream_id = self.codec.open_stream()
        assert stream_id is not None, "the pool gave out a busy connection"
        self._stream_id = request.stream_id = stream_id
        self.codec.send(request)
        if request.end_stream:
            self._request_ended = True
        self._touch()

    def send_data(self, data: bytes, end_stream: bool) -> None:
        """Send a piece of the body."""
        self.codec.send(Data(self._stream_id, data, end_stream))
        if end_stream:
            self._request_ended = True
        self._touch()

    def send_trailers(self, headers: Headers) -> None:
        """Send trailers and end the request."""
        self.codec.send(Trailers(self._stream_id, headers))
        self._request_ended = True
        self._touch()

    def reset(self) -> None:
        """Give the request up: on HTTP/1 that ends the connection."""
        if self.callbacks is not None:
            self._count_active_destroy(remote=False)
            self._end_request()
        self.closed = True
        self._closed_by_us = True
        self.transport.abort()

    def pause_reading(self) -> None:
        """Counted: several blockers may hold the connection."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed:
            self.stats.upstream_flow_control_paused_reading_total += 1
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed:
            self.stats.upstream_flow_control_resumed_reading_total += 1
            self.transport.resume_reading()

    def close(self) -> None:
        """Close, with what was gathered written if the endpoint takes it now: after its response nobody waits until it does."""
        if not self.closed:
            self.flush()
            self.closed = True
            self._closed_by_us = True
            self.pool.withdraw(self)
            self.transport.close()
            if self.transport.get_write_buffer_size():
                # An endpoint that answered before it took the request may never take the rest.
                self.context.loop.call_later(CLOSE_FLUSH_S, self.transport.abort)

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """max_connection_duration is over."""
        self.stats.upstream_cx_max_duration_reached += 1
        self._retired = True
        if self.callbacks is None:
            self.close()

    def _close_from_peer(self) -> None:
        """Close because the endpoint did."""
        self.close()
        self._closed_by_us = False

    def _count_active_destroy(self, *, remote: bool) -> None:
        stats = self.stats
        stats.upstream_cx_destroy_with_active_rq += 1
        if remote:
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_local_with_active_rq += 1

    # -- output

    def _touch(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def flush(self) -> None:
        """Write what the codec gathered."""
        self._dirty = False
        if self.closed:
            return
        size = write_all(self.transport, self.codec.data_to_send())
        self.stats.upstream_cx_tx_bytes_total += size
        if self.callbacks is not None:
            self.callbacks.upstream_wire_bytes_sent += size
        if self.codec.eof_wanted:
            self.transport.write_eof()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self.callbacks is not None else "idle"
        return f"<Http1UpstreamConnection {self.endpoint.address} {state} requests={self.requests}>"
