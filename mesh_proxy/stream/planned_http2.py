"""The shortest way over HTTP/2: as `planned_stream.py`, in pieces.

A request whose head is known and planned, and that finds a connection with room, is forwarded frame by frame, and so is its
response: the codecs hand over what is as always (`mesh_codecs.http2.taker`), head, pieces of the body, trailers, each when it
comes. What is counted is what the long way counts. Whatever is not as usual, at any step, goes on by the long way from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import RequestHeaders
from mesh_codecs.grpc import http_of_status, status_of_value
from mesh_codecs.headers import Headers
from mesh_proxy.stream.filtered_stream import FilteredStream
from mesh_proxy.stream.http2_response_plan import http2_plan_of
from mesh_proxy.upstream.http2_pool import Http2Pool

if TYPE_CHECKING:
    from mesh_codecs.http2.heads import Head
    from mesh_codecs.http2.state import Stream
    from mesh_proxy.network.http2_connection import Http2Connection
    from mesh_proxy.routing import ClusterChoice
    from mesh_proxy.stream.request_plan import RequestPlan
    from mesh_proxy.upstream.cluster import Cluster

_OK: Final = b"0"


class PlannedHttp2(FilteredStream):
    """Abstract: `PlannedStream` adds the same over HTTP/1."""

    __slots__ = ("front", "head", "own_id", "way", "wire")

    way: RequestPlan | None
    """what is planned; the others are set only with it"""
    front: Http2Connection
    """the same as `downstream`"""
    wire: Stream
    """the codec's view of this stream"""
    head: Head
    """as it came"""
    own_id: bytes
    """`x-request-id`; empty if there is none"""

    def start_over_http2(
        self,
        before: RequestPlan,
        choice: ClusterChoice,
        cluster: Cluster,
        now: float,
    ) -> None:
        """The head arrived, and what becomes of it is planned. `before` is what is planned up to the filters, the same as `way`
        if there are none. Nobody looks at the response on its way (`HttpManager.plain`)."""
        way = self.way
        assert way is not None
        manager = self.manager
        if self.request_done:
            self.request_end_time = now
        elif manager.request_queue is not None:
            manager.request_queue.add(self, now)
        if way.remote_address:
            self.remote_address = way.remote_address
        if way.is_internal:
            self.is_internal = True
        route = self.route = way.route
        self.route_name = route.name
        self.virtual_host_name = route.virtual_host_name
        if manager.filter_chains is not None:
            likeness = self.request.likeness
            self.request.likeness = None  # until it is sure that this is the head that goes on
            if not self._filter_as_planned(before, way, manager.filter_chains):
                return
            self.request.likeness = likeness
        manager.stats.rq_total += 1
        self.choice = choice
        self.cluster = cluster
        self.cluster_name = choice.name
        if way.is_grpc:
            self.is_grpc = True
        self.timeout_s = way.timeout_s
        if self.request_done:
            queue = way.route_deadlines
            if queue is not None:
                self._deadline = queue
                queue.add(self, now)
        if cluster.needs_context or cluster.limits_duration:
            self.have_request()
            self._attempt()
            return
        endpoint = cluster.pick() if self.labels is None else cluster.pick_labelled(self.labels)
        self.attempts = 1
        pool = None if endpoint is None else endpoint.pools.get(way.http2_pool)
        connection = pool.take() if isinstance(pool, Http2Pool) else None
        if connection is None:
            self.have_request()
            self._attempt_at(endpoint)
            return
        self.upstream = endpoint
        try:
            begun = connection.begin_planned(self)
        except LocalProtocolError as error:
            self._request_unsendable(error)
            return
        if not begun:
            self.have_request()
            self._attempt_at(endpoint)
            return
        self.first_upstream_tx_time = now
        self.upstream_protocol = b"HTTP/2"
        if self.request_done:
            self.last_upstream_tx_time = now

    def have_request(self) -> None:
        """Let the request have a head of its own, if it has none: until somebody looks, that of its plan stands for it."""
        way = self.way
        assert way is not None
        if self.request is not way.request:
            return
        head = self.head
        first = way.first.copy()
        for name in way.kept:
            first[name] = head.first[name]
        if self.own_id:
            first[b"x-request-id"] = self.own_id
        self.request = RequestHeaders(
            self.stream_id,
            way.method,
            way.scheme,
            way.authority,
            way.path,
            Headers((), first),
            self.request_done and not self.bytes_received and self.request_trailers is None,
            b"",
            b"HTTP/2",
            head,
            None if way.traced else way.likeness,  # which is one for HTTP/1
        )

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
        close: bool = False,
    ) -> None:
        """It may say something of the request."""
        if self.way is not None:
            self.have_request()
        super().send_local_reply(
            status,
            body,
            details=details,
            flag=flag,
            headers=headers,
            grpc_status=grpc_status,
            dubbo_status=dubbo_status,
            close=close,
        )

    def takes_request_data(self) -> bool:
        """A piece of the request's body may go on at once."""
        return not self.done and not self.response_done and self.run is None and not self.front.holds

    def took_request_data(self, size: int, end_stream: bool) -> None:
        """A piece of the request's body has gone on."""
        now = self.last_downstream_time = self.front.last_activity
        self.bytes_received += size
        if end_stream:
            self.request_done = True
            self.request_end_time = self.last_upstream_tx_time = now
            manager = self.manager
            if manager.request_queue is not None:
                manager.request_queue.discard(self)
            way = self.way
            queue = None if way is None else way.route_deadlines
            if queue is not None and self._deadline is None:
                self._deadline = queue
                queue.add(self, now)

    def take_head(self, head: Head, now: float) -> bool:
        """The response began."""
        if self.done or not self.request_done or self.run is not None:
            return False
        manager = self.manager
        plan = http2_plan_of(head, manager)
        if plan is None or (plan.grpc_ended and self.is_grpc):
            return False
        took = int((now - self.request_end_time) * 1000) if plan.timed else 0
        if not 0 <= took < len(plan.keys) or not self.front.send_known_head(self, plan, took):
            return False
        status = plan.status
        cluster = self.cluster
        endpoint = self.upstream
        assert cluster is not None
        assert endpoint is not None
        self.first_upstream_rx_time = self.last_upstream_rx_time = self.first_downstream_tx_time = now
        if cluster.tracks_results:
            cluster.on_result(endpoint, status)
        if status >= 500:
            endpoint.stats.rq_error += 1
        elif self.is_grpc:
            self._awaits_grpc_status = True
        else:
            endpoint.stats.rq_success += 1
        self._charge(status)
        self.details = "via_upstream"
        self.response = plan.event
        self.response_code = status
        stats = manager.stats
        codes = stats.codes
        codes[status] = codes.get(status, 0) + 1
        stats.downstream_rq_completed += 1
        listener_stats = manager.listener_stats
        codes = listener_stats.codes
        codes[status] = codes.get(status, 0) + 1
        listener_stats.downstream_rq_completed += 1
        return True

    def take_data(self, data: bytes, end_stream: bool, now: float) -> bool:
        """More of the response's body."""
        if self.done or self.response is None or not self.front.send_piece(self, data, end_stream):
            return False
        self.last_upstream_rx_time = now
        self.bytes_sent += len(data)
        if end_stream:
            if self._awaits_grpc_status:
                self._grpc_ended(None)
            self._end_at_once(now)
        return True

    def take_trailers(self, head: Head, now: float) -> bool:
        """The end of the response."""
        if self.done or self.response is None:
            return False
        self.last_upstream_rx_time = now  # `send_known_trailers` looks at it; on the long way it would be the same
        if not self.front.send_known_trailers(self, head):
            return False
        if self._awaits_grpc_status:
            self._awaits_grpc_status = False
            endpoint = self.upstream
            assert endpoint is not None
            value = head.first.get(b"grpc-status")
            status = 0 if value == _OK else status_of_value(value)
            if status is None or http_of_status(status) >= 500:
                endpoint.stats.rq_error += 1
            else:
                endpoint.stats.rq_success += 1
        self._end_at_once(now)
        return True

    def _end_at_once(self, now: float) -> None:
        """The end of the upstream's part, as in `_upstream_complete`, and of the stream, as in `finish`."""
        self.handle = None
        if self._deadline is not None:
            self._deadline.discard(self)
            self._deadline = None
        cluster = self.cluster
        assert cluster is not None
        cluster.stats.upstream_rq_time.record((now - self.request_end_time) * 1000)
        self.response_done = True
        self.done = True
        self.end_time = now
        stats = self.manager.stats
        stats.downstream_rq_active -= 1
        stats.downstream_rq_time.record((now - self.start_time) * 1000)
        while self._read_blocked:
            self._unblock_reading()
        self.front.stream_done(self)
