"""The downstream half of a stream: what is sent to the caller, local replies, the end and its log line."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import Data, InformationalHeaders, ResponseHeaders, Trailers
from mesh_codecs.grpc import encode_message, is_grpc_content_type, status_of_http
from mesh_codecs.headers import Headers
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import StreamInfo

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.downstream import Downstream
    from mesh_proxy.stream.filter_run import FilterRun

NO_BODY_STATUSES: Final = frozenset({204, 304})
_log = logging.getLogger("http")
_Pairs = list[tuple[bytes, bytes]]


class DownstreamStream(StreamInfo):
    """Abstract: `HttpStream` adds the router."""

    __slots__ = (
        "_read_blocked",
        "done",
        "downstream",
        "duration",
        "force_trace",
        "last_downstream_time",
        "manager",
        "request_done",
        "response_done",
        "run",
        "stream_id",
        "tunnel",
        "undelivered",
    )

    downstream: Downstream
    manager: HttpManager
    stream_id: int
    request_done: bool
    """the whole request was received"""
    response_done: bool
    """the whole response was handed to the codec"""
    undelivered: bool
    """a part of the response waits until the caller takes it"""
    last_downstream_time: float
    """when the caller last sent or took a part, where its connection carries several streams"""
    done: bool
    duration: DeadlineQueue | None
    """where the stream's longest duration is watched"""
    _read_blocked: int
    """how many times the router holds the caller's connection from being read"""
    force_trace: bool
    """the request carried x-envoy-force-trace: its id goes back in the response"""
    tunnel: bool
    """an upgrade or CONNECT was accepted: bytes go both ways until either side ends"""
    plain_replies: bool = False
    """local replies are not made for a gRPC caller, whatever the content type says: a filter translates them"""
    run: FilterRun | None
    """the filters of this stream; None when none are configured"""

    def watch_duration(self, seconds: float) -> None:
        """End the stream so many seconds after its beginning, instead of what was watched before."""
        self.stop_duration()
        queue = self.duration = self.manager.context.deadlines.transient("stream duration", seconds)
        queue.add(self, self.start_time)

    def stop_duration(self) -> None:
        """Let the stream last as long as it likes."""
        if self.duration is not None:
            self.duration.discard(self)
            self.duration = None

    # -- response, towards the caller

    def encode_informational(self, event: InformationalHeaders) -> None:
        """Pass a 1xx on."""
        event.stream_id = self.stream_id
        try:
            self.downstream.send(event)
        except LocalProtocolError as error:
            _log.warning("a %d cannot be passed on: %s", event.status, error)

    def encode_headers(self, event: ResponseHeaders) -> None:
        """After the filters: the connection manager's own headers, then the codec."""
        if self.done:
            return
        manager = self.manager
        headers = event.headers
        first = headers.first
        if manager.overwrite_server:
            first[b"server"] = manager.server_name
            if headers.more is not None:
                headers.set(b"server", manager.server_name)
        elif not manager.pass_server and b"server" not in first:
            first[b"server"] = manager.server_name
        if b"date" not in first:
            first[b"date"] = manager.context.date()
        if manager.via:
            old = headers.get_joined(b"via")
            headers.set(b"via", manager.via if not old else old + b", " + manager.via)
        if manager.returns_request_id or self.force_trace:
            request_id = self.request.headers.first.get(b"x-request-id")
            if request_id is not None:
                headers.set(b"x-request-id", request_id)
        downstream = self.downstream
        downstream.response_begins()
        if not self.request_done:
            if event.status == 101 or (self.request.method == b"CONNECT" and event.status < 300):
                self.tunnel = True
            else:
                downstream.response_precedes_request()
            if manager.request_queue is not None:
                # request_timeout is over when the response begins, as in Envoy.
                manager.request_queue.discard(self)
        event.stream_id = self.stream_id
        self.response = event
        try:
            downstream.send(event)
        except LocalProtocolError as error:
            self.tunnel = False
            self.response = None
            self._unsendable(error)
            return
        self.response_code = event.status
        stats = manager.stats
        codes = stats.codes
        codes[event.status] = codes.get(event.status, 0) + 1
        stats.downstream_rq_completed += 1
        listener_stats = manager.listener_stats
        codes = listener_stats.codes
        codes[event.status] = codes.get(event.status, 0) + 1
        listener_stats.downstream_rq_completed += 1
        self.first_downstream_tx_time = monotonic()
        if self.tunnel:
            stats.downstream_cx_upgrades_total += 1
            stats.downstream_cx_upgrades_active += 1
            downstream.tunnel_opened()
        if event.end_stream:
            self._response_ended()

    def encode_data(self, event: Data) -> None:
        """After the filters: a piece of the body to the codec."""
        if self.done:
            return
        self.bytes_sent += len(event.data)
        event.stream_id = self.stream_id
        try:
            self.downstream.send(event)
        except LocalProtocolError as error:
            self._unsendable(error)
            return
        if event.end_stream:
            self._response_ended()

    def encode_trailers(self, event: Trailers) -> None:
        """After the filters: trailers to the codec."""
        if self.done:
            return
        if not event.headers.first:
            self.encode_data(Data(self.stream_id, b"", True))  # a filter has put them elsewhere
            return
        self.response_trailers = event.headers
        event.stream_id = self.stream_id
        try:
            self.downstream.send(event)
        except LocalProtocolError as error:
            self._unsendable(error)
            return
        self._response_ended()

    def _unsendable(self, error: LocalProtocolError) -> None:
        """What we are about to send breaks the rules of the wire: a header that the configuration sets, most likely. The stream
        ends with 500, or breaks off if a head was sent or the 500 itself cannot be."""
        _log.warning("response to stream %d cannot be sent: %s", self.stream_id, error)
        if self.response is None and self.details != error.code:
            self.send_local_reply(error.status, details=error.code)
            return
        self.details = error.code
        self.abandon_upstream()
        self.reset_downstream()

    def _response_ended(self) -> None:
        self.response_done = True
        if not self.undelivered:
            self.finish()
        else:
            # What is left is the caller's part: only silence ends it.
            self.stop_duration()

    # -- answers of our own

    def send_local_reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flag: int = 0,
        headers: _Pairs | None = None,
        grpc_status: int | None = None,
        dubbo_status: int | None = None,
        close: bool = False,
    ) -> None:
        """Answer the caller ourselves: the one door for every answer that no upstream gave. `close` ends the connection after it.

        A gRPC caller gets a trailers-only response with status 200. When a response is already under way the stream is reset.
        """
        if self.done:
            return
        self.flags |= flag
        self.details = details
        self.abandon_upstream()
        if self.response is not None and (self.run is None or not self.run.take_back_response()):
            self.reset_downstream()
            return
        if close:
            self.downstream.close_after_response()
        pairs: _Pairs = []
        request = self.request
        if is_grpc_content_type(request.headers.first.get(b"content-type")) and not self.plain_replies:
            code = status_of_http(status) if grpc_status is None else grpc_status
            pairs = [(b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % code)]
            if body:
                pairs.append((b"grpc-message", encode_message(body)))
            status, body = 200, b""
        elif body:
            pairs = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
        elif status not in NO_BODY_STATUSES and request.method != b"HEAD" and self.protocol != b"HTTP/2":
            # HTTP/2 says by END_STREAM that there is no body.
            pairs = [(b"content-length", b"0")]
        if headers:
            pairs.extend(headers)
        end = not body or request.method == b"HEAD"
        event = ResponseHeaders(self.stream_id, status, Headers(pairs), end)
        self.local_reply_headers(event)
        if self.run is not None:
            self.run.local_reply(event, b"" if end else body)
            return
        self.encode_headers(event)
        if not end:
            self.encode_data(Data(self.stream_id, body, True))

    def local_reply_headers(self, event: ResponseHeaders) -> None:
        """Let the route add its response headers to a local reply."""
        raise NotImplementedError

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the stream's time-outs."""
        raise NotImplementedError

    def abandon_upstream(self) -> None:
        """Give up whatever runs towards an upstream."""
        raise NotImplementedError

    def _cancel_copies(self) -> None:
        """The request will not be completed."""
        raise NotImplementedError

    # -- the end

    def reset_downstream(self) -> None:
        """The response cannot be completed: HTTP/1 closes the connection, HTTP/2 resets the stream."""
        if not self.done:
            self.manager.stats.downstream_rq_tx_reset += 1
            self.downstream.reset_stream(self)
            self.finish()

    def on_downstream_gone(
        self,
        now: float,
        details: str = "downstream_remote_disconnect",
        flag: int = flags.DOWNSTREAM_CONNECTION_TERMINATION,
    ) -> None:
        """The caller left before the end."""
        if self.done:
            return
        self.flags |= flag
        self.manager.stats.downstream_rq_rx_reset += 1
        self.details = details
        self.abandon_upstream()
        self.finish()

    def _unblock_reading(self) -> None:
        self._read_blocked -= 1
        self.downstream.resume_reading(self)

    def finish(self) -> None:
        """Account for the stream, log it and let it go. Runs once."""
        if self.done:
            return
        self.done = True
        now = self.end_time = monotonic()
        stats = self.manager.stats
        stats.downstream_rq_active -= 1
        if self.tunnel:
            stats.downstream_cx_upgrades_active -= 1
        stats.downstream_rq_time.record((now - self.start_time) * 1000)
        if not self.request_done:
            self.abandon_upstream()
            self._cancel_copies()
            if self.response_done:
                stats.downstream_rq_response_before_rq_complete += 1
        if self.manager.request_queue is not None:
            self.manager.request_queue.discard(self)
        if self.duration is not None:
            self.duration.discard(self)
        if self.run is not None:
            self.run.complete()
        if self.manager.access_loggers:
            self.downstream.measure(self)
            for logger in self.manager.access_loggers:
                logger.log(self)
        while self._read_blocked:
            self._unblock_reading()
        self.downstream.stream_done(self)
        self.run = None
