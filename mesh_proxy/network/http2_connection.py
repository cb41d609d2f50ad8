"""A downstream HTTP/2 connection: many streams over one transport, written once per turn.

Theory of operation: `HttpShell` has the transport, `Http2Flow` the flow control, `Http2Clock` the time-outs; here are the events.
They are one object, because the way of a request touches all of them.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    Event,
    RequestHeaders,
    StreamReset,
    Trailers,
    WindowOpened,
)
from mesh_codecs.http1 import UnderscoreAction
from mesh_codecs.http2 import Http2Codec, frames
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.http2_clock import Http2Clock
from mesh_proxy.network.http2_known import KnownRequests
from mesh_proxy.network.http2_quiet import Http2Quiet
from mesh_proxy.stream import flags
from mesh_proxy.stream.http_stream import HttpStream

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.downstream_stream import DownstreamStream
    from mesh_proxy.stream.info import ConnectionInfo

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
NO_LIMIT: Final = 1 << 62


def details_of(code: str) -> str:
    """The codec's reason as `%RESPONSE_CODE_DETAILS%` gives it: Envoy's word where it has one."""
    return "http2.invalid.header.field" if code in MALFORMED_HEADS else code


class Http2Connection(Http2Clock):
    """Feeds the codec and hands its events to their streams."""

    __slots__ = ("_most_requests", "_quiet")

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self._quiet: Http2Quiet | None = None
        """made when it is first sought"""
        self._open_known()
        self._most_requests = manager.config.max_requests_per_connection or NO_LIMIT

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
        if not codec.quiet or self._head_since:
            self._after_read(now)
        self.context.flush()

    def _after_read(self, now: float) -> None:
        """More than requests came, or less than a whole one."""
        codec = self.codec
        if codec.head_started or self._head_since:
            self._watch_head(now)
        if codec.pending:
            self._pause_transport()
            self.context.loop.call_soon(self._read_on)
        if codec.draining:
            self._draining = True
        if codec.refused:
            self.codec_stats.stream_refused_errors += codec.refused
            self.codec_stats.tx_reset += codec.refused
            codec.refused = 0
        self._look_at_timer(now)
        self._touch()

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
        self._count_none_held()
        if self.streams and not self._remote_closed:
            self._count_active_destroy()
        for stream in tuple(self.streams.values()):
            stream.on_downstream_gone(now)
        if self._timer is not None:
            self._timer.cancel()
        if self._head_since and self.manager.head_queue is not None:
            self.manager.head_queue.discard(self)
        # So that what is left of the connection goes at once, and not when cycles are looked for.
        self._quiet = None
        if isinstance(self.codec, Http2Codec):
            self.codec.opener = None

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

    def _open_known(self) -> None:
        """Have the codec hand over requests whose heads came before."""
        if isinstance(self.codec, Http2Codec):
            self.codec.opener = KnownRequests(self)

    def count_request(self) -> None:
        """A request has begun."""
        stats = self.manager.stats
        self.requests += 1
        stats.downstream_rq_total += 1
        stats.downstream_rq_http2_total += 1
        stats.downstream_rq_active += 1
        self.codec_stats.streams_active += 1

    def _begin_stream(self, request: RequestHeaders, now: float) -> None:
        manager = self.manager
        if manager.watches_underscores and self._underscores_refused(request, now):
            return
        self.count_request()
        stream = self.streams[request.stream_id] = HttpStream(self, manager, request, now)
        if self.requests >= self._most_requests and not self._draining:
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
            self._touch()
            return
        stream.last_downstream_time = now
        size = event.flow_size
        stream.on_request_data(event, now)
        hold = self.holds.get(stream_id) if self.holds else None
        if hold is not None:
            hold[1] += size
        elif size:
            self.codec.acknowledge(stream_id, size)
            self._touch()

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
        self.count_request()
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

    def response_begins(self) -> None:
        """Say GOAWAY if this connection ought to end."""
        failed = self.context.health_check_failed and self.owner.ends_on_failed_check
        if (self.context.draining or self.owner.draining or failed) and not self._draining:
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
            self._seek_quiet()
        else:
            self._mover.offer(self)

    def _seek_quiet(self) -> None:
        if self._quiet is None:
            self._quiet = Http2Quiet(self)
        self._quiet.seek()

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
            self._seek_quiet()
            return None
        if self._quiet is not None:
            self._quiet.stop()
        return "http2", codec.export_state()

    def take_over(self, moved: MovingState) -> None:
        super().take_over(moved)
        self.codec = Http2Codec.import_state(moved.state)
        self._open_known()
        self.requests = int(moved.facts["requests"])

    def _count_inherited(self) -> None:
        if self.received:
            self.manager.stats.downstream_cx_http2_active += 1

    def _go_on(self) -> None:
        if self._quiet is not None:
            self._quiet.stop()
        self._look_at_timer(monotonic())
        self._touch()
        self.context.flush()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<Http2Connection {self.info.remote_address.decode()} {state} streams={len(self.streams)} of {self.requests}>"
