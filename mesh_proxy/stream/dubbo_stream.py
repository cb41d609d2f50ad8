"""A Dubbo call that somebody watches: filters, access logs. Calls that nobody watches have no such object.

Filters see a request without a body, `POST /<service>/<method>`, whose headers are the attachments (`dubbo_view`), and a
response with the HTTP status that the Dubbo status stands for. They may change attachments of both, stop either, and answer by
themselves. The route is looked up after them, by what they left; so there is no configuration of filters per route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from mesh_codecs.dubbo.frame import OK
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.events import Data, ResponseHeaders, Trailers
from mesh_codecs.grpc import http_of_status
from mesh_codecs.headers import Headers
from mesh_proxy.stream import dubbo_replies
from mesh_proxy.stream.dubbo_view import PROTOCOL, AttachmentHeaders, argument_text, request_view
from mesh_proxy.stream.filter_run import FilterRun
from mesh_proxy.stream.info import StreamInfo
from mesh_proxy.tasks import create_task

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_filters.filter import Filter, FilterStatus
    from mesh_proxy.stream.dubbo_call import DubboCall
    from mesh_proxy.stream.filter_chain import FilterChain
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection


class DubboStream(StreamInfo):
    """`StreamInfo` for logs, `mesh_filters.filter.Stream` for filters, `filter_run.Owner` for the walk through them."""

    __slots__ = ("_answer", "_frame", "call", "forced_cluster", "manager", "message", "plain_replies", "run", "stream_id")

    def __init__(self, call: DubboCall, message: DubboMessage, now: float) -> None:
        super().__init__(call.connection.info, now)
        self.call = call
        self.manager = call.manager
        self.message = message
        self.stream_id = 0
        self.forced_cluster = ""
        """a filter sends the call there, whatever the route says"""
        self.plain_replies = False
        self.protocol = PROTOCOL
        self.bytes_received = self.wire_bytes_received = len(message.frame)
        self.request_end_time = now
        self.run: FilterRun | None = None
        self._frame = b""
        """what the consumer is to get"""
        self._answer: DubboMessage | None = None
        """… if it comes from the endpoint"""
        try:
            self.request = request_view(message)
        except RemoteProtocolError:
            pass  # the route will refuse it

    @property
    def dubbo_request(self) -> DubboMessage:
        """The call."""
        return self.message

    @property
    def dubbo_response_frame(self) -> bytes:
        """What the consumer got; empty if nothing."""
        return self._frame if self.call.two_way else b""

    def start(self, now: float) -> None:
        """Enter the first filter, if there is one."""
        chains = self.manager.filter_chains
        if chains is not None and chains.default.size and self.request is not None:
            self.run = FilterRun(self, chains.default, self.call.connection.owner.buffer_limit)
            self.run.request_headers(self.request)
        else:
            self.call.route(self.message, now)

    # -- there

    def route_request(self) -> None:
        """The request has passed the filters."""
        if self.call.done:
            return
        self.apply_changes()
        self.call.route(self.message, self.manager.now())

    def apply_changes(self) -> bool:
        """Write what filters have changed into the message. False when its attachments are out of reach."""
        assert self.request is not None
        headers = self.request.headers
        if isinstance(headers, AttachmentHeaders) and not headers.apply():
            self.manager.stats.request_attachments_unreadable += 1
            return False
        return True

    def stopped(self, chain: FilterChain, position: int, status: FilterStatus) -> None:
        """A filter of a light chain has stopped the call, or answered it."""
        if not self.call.done and self.response is None:
            assert self.request is not None
            self.run = FilterRun(self, chain, self.call.connection.owner.buffer_limit)
            self.run.stopped(position, self.request, status)

    def sent(self, upstream: DubboUpstreamConnection, now: float) -> None:
        """The call was given to an upstream connection."""
        self.upstream_local_address = upstream.local_address
        self.upstream_wire_bytes_sent += len(self.message.frame)
        self.upstream_protocol = PROTOCOL
        if not self.first_upstream_tx_time:
            self.first_upstream_tx_time = now
        self.last_upstream_tx_time = now

    # -- and back

    def respond(self, message: DubboMessage, now: float) -> None:
        """The endpoint's answer."""
        self.first_upstream_rx_time = self.last_upstream_rx_time = now
        self.upstream_wire_bytes_received += len(message.frame)
        self.details = "via_upstream"
        self._answer = message
        event = ResponseHeaders(0, dubbo_replies.http_status_of(message.status), AttachmentHeaders(message), True, PROTOCOL)
        self.response = event
        if self.run is not None:
            self.run.response_headers(event)
        else:
            self.encode_headers(event)

    def reply(self, frame: bytes, status: int, details: str, flag: int, headers: Headers | None = None) -> None:
        """An answer of ours; `status` is the HTTP status that stands for it."""
        if self.call.done:
            return
        self.details = details
        self.flags |= flag
        self._frame = frame
        event = ResponseHeaders(0, status, headers or Headers(), True, PROTOCOL)
        run = self.run
        if run is not None:
            run.take_back_response()
        self._answer = None
        self.response = event
        if run is not None:
            run.local_reply(event, b"")
        else:
            self.encode_headers(event)

    def reject(self, frame: bytes, status: int, details: str, flag: int) -> None:
        """It ends without having been a call; `frame` has been sent, or is empty."""
        self._frame = frame
        self.response_code = status
        self.details = details
        self.flags |= flag
        self.bytes_sent = self.wire_bytes_sent = len(frame)

    def encode_headers(self, event: ResponseHeaders) -> None:
        """The response has passed the filters."""
        answer = self._answer
        if answer is not None:
            if isinstance(event.headers, AttachmentHeaders):
                event.headers.apply()
            self._frame = answer.frame
        self.response_code = event.status
        self.bytes_sent = self.wire_bytes_sent = len(self._frame) if self.call.two_way else 0
        self.call.deliver(self._frame, self.manager.now())

    def finish(self, now: float) -> None:
        """The call is over: fill in what only its end tells, and log."""
        call = self.call
        self.end_time = now
        if self.bytes_sent:
            self.first_downstream_tx_time = now
        self.attempts = call.attempts
        if call.target is not None:
            self.route_name = call.target.route_name
        if call.cluster is not None:
            self.cluster = call.cluster
            self.cluster_name = call.cluster.name
        self.upstream = call.endpoint
        if self.run is not None:
            self.run.complete()
        for logger in self.manager.access_loggers:
            logger.log(self)

    # -- what filters may ask (`mesh_filters.filter.Stream`)

    def continue_request(self, who: Filter | None = None) -> None:
        """A filter lets the request go on."""
        if self.run is not None:
            self.run.resume_request(who)
            self.manager.context.flush()

    def continue_response(self, who: Filter | None = None) -> None:
        """A filter lets the response go on."""
        if self.run is not None:
            self.run.resume_response(who)
            self.manager.context.flush()

    def add_response_data(self, who: Filter, data: bytes) -> None:
        """There is no body to add to."""

    def limit_request_buffer(self, size: int) -> None:
        """There is no body to collect."""

    def send_local_reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flag: int = 0,
        headers: list[tuple[bytes, bytes]] | None = None,
        grpc_status: int | None = None,
        dubbo_status: int | None = None,
    ) -> None:
        """A filter answers: a Dubbo response whose status fits the HTTP status. A one-way call is dropped."""
        if grpc_status and status < 400:
            status = http_of_status(grpc_status)
        self.call.detach()
        frame = dubbo_replies.local_reply(self.message, status, body or details.encode(), flag, dubbo_status)
        stats = self.manager.stats
        if frame[3] == OK:
            stats.local_response_success += 1
        else:
            stats.local_response_error += 1
        self.reply(frame, status, details, flag, Headers(headers or []))
        self.manager.context.flush()

    def clear_route(self) -> None:
        """The route is looked up after the filters anyway."""

    def per_route_config(self, filter_name: str) -> Any:
        """Routes of Dubbo have none."""
        return None

    def per_route_configs(self, filter_name: str) -> list[Any]:
        """Routes of Dubbo have none."""
        return []

    def route_metadata(self) -> Any:
        """Routes of Dubbo have none."""
        return {}

    def rate_limits(self, vh_rate_limits: str) -> list[Any]:
        """Routes of Dubbo have none."""
        return []

    def argument(self, index: int, fields: Sequence[str]) -> bytes | None:
        """Read now, up to that one."""
        return argument_text(self.message, index, fields)

    def target_cluster(self) -> str:
        """Where the route would send the call as it is now."""
        if self.forced_cluster:
            return self.forced_cluster
        headers = self.request.headers if self.request is not None else None
        if isinstance(headers, AttachmentHeaders):
            headers.apply()
        try:
            target = self.manager.routes.find(self.message)
        except RemoteProtocolError:
            return ""
        return "" if target is None else target.cluster

    def use_cluster(self, name: str) -> None:
        """Go there instead."""
        self.forced_cluster = name

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A filter waits for something; what it sends when that has come is flushed."""
        task = create_task(work, name=name)
        task.add_done_callback(self._flush_after)
        return task

    def _flush_after(self, task: asyncio.Task[None]) -> None:
        self.manager.context.flush()

    # -- what the walk through filters may tell, and a call without a body never causes

    def forward_data(self, event: Data) -> None:
        """A Dubbo call has no body apart from its head."""

    def forward_trailers(self, event: Trailers) -> None:
        """Nor trailers."""

    def encode_data(self, event: Data) -> None:
        """The body of a local reply is in its frame."""

    def encode_trailers(self, event: Trailers) -> None:
        """Nor here."""

    def hold_request(self, on: bool) -> None:
        """Nothing lines up."""

    def hold_response(self, on: bool) -> None:
        """Nothing lines up."""

    def request_too_large(self) -> None:
        """Nothing is collected."""

    def response_too_large(self) -> None:
        """Nothing is collected."""
