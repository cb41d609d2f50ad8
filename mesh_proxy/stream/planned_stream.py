"""The shortest way of a request whose head and response are as they always are.

Most requests of a mesh are like one before, have no body, find an idle connection, and are answered by one read whose head is
known as well. For these nothing needs to be decided: the plans (`request_plan.py`, `response_plan.py`) say what is to be written,
and filters, if there are any, repeat what they did. What is counted is what the long way counts. Whatever is not as usual, at any
step, goes on by the long way from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_codecs.events import ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.stream.planned_http2 import PlannedHttp2
from mesh_proxy.stream.response_plan import plan_of, sent_fields
from mesh_proxy.stream.upstream_stream import MILLISECONDS
from mesh_proxy.upstream.http1_pool import Http1Pool

if TYPE_CHECKING:
    from mesh_codecs.http1.upstream import KnownResponse
    from mesh_proxy.network.http_connection import HttpConnection
    from mesh_proxy.routing import ClusterChoice
    from mesh_proxy.stream.request_plan import RequestPlan
    from mesh_proxy.upstream.cluster import Cluster


class PlannedStream(PlannedHttp2):
    """Abstract: `HttpStream` adds the way in."""

    __slots__ = ("caller", "plan")

    caller: HttpConnection
    """the same as `downstream`; set for requests that go this way from the beginning"""
    plan: RequestPlan
    """by which it began; likewise"""

    def start_at_once(
        self,
        caller: HttpConnection,
        before: RequestPlan,
        plan: RequestPlan,
        choice: ClusterChoice,
        cluster: Cluster,
        now: float,
    ) -> None:
        """The head arrived, is all of the request, and what becomes of it is planned: `request` has the plan's head already.
        `before` is what is planned up to the filters, the same if there are none. Nobody looks at the response on its way
        (`HttpManager.plain_http1`; filters that repeat what they did have nothing to do with it)."""
        self.caller = caller
        self.plan = plan
        self.request_end_time = now
        if plan.remote_address:
            self.remote_address = plan.remote_address
        if plan.is_internal:
            self.is_internal = True
        route = self.route = plan.route
        self.route_name = route.name
        self.virtual_host_name = route.virtual_host_name
        manager = self.manager
        if manager.filter_chains is not None:
            likeness = self.request.likeness
            self.request.likeness = None  # until it is sure that this is the head that goes on
            if not self._filter_as_planned(before, plan, manager.filter_chains):
                return
            self.request.likeness = likeness
        manager.stats.rq_total += 1
        self.choice = choice
        self.cluster = cluster
        self.cluster_name = choice.name
        if plan.is_grpc:
            self.is_grpc = True
        queue = plan.route_deadlines
        if queue is not None:
            self.timeout_s = plan.timeout_s
            self._deadline = queue
            queue.add(self, now)
        config = cluster.config
        if (
            not plan.pool
            or cluster.needs_context
            or config.upstream_protocol == "HTTP2"
            or config.max_stream_duration_s
            or caller.write_blocked
            or self.connection.source is not None
        ):
            if plan.traced:
                self.request.likeness = None  # which is one for HTTP/1
            self._attempt()
            return
        endpoint = cluster.pick() if self.labels is None else cluster.pick_labelled(self.labels)
        self.attempts = 1
        pool = None if endpoint is None else endpoint.pools.get(plan.pool)
        if not isinstance(pool, Http1Pool):
            if plan.traced:
                self.request.likeness = None
            self._attempt_at(endpoint)
            return
        self.upstream = endpoint
        connection = pool.take(self)
        if connection is None:
            self.pool = pool
            pool.acquire(self)
        elif connection.send_known(self.request, self):
            self.handle = connection
            if manager.access_loggers:
                self.upstream_protocol = connection.protocol
                self.upstream_local_address = connection.local_address
                self.first_upstream_tx_time = self.last_upstream_tx_time = now
        else:
            self.on_pool_ready(connection)

    def on_upstream_whole(self, known: KnownResponse, data: bytes, now: float) -> bool:
        """The whole response came in one read. False: nothing has happened; it comes again as events."""
        manager = self.manager
        cluster = self.cluster
        endpoint = self.upstream
        assert cluster is not None
        assert endpoint is not None
        loggers = manager.access_loggers
        if cluster.health is not None:
            return False
        if loggers and (self.flags or not self.connection.local_port or not self.upstream_local_address):
            return False  # unix sockets have no addresses in the usual form
        plan = plan_of(known, manager)
        if plan is None:
            return False
        time = b""
        if plan.after:
            took = int((now - self.request_end_time) * 1000)
            time = MILLISECONDS[took] if 0 <= took < len(MILLISECONDS) else b"%d" % took
            head = plan.before + time + plan.after
        elif plan.passes:
            time = known.time(data, len(data) - known.length)
            head = plan.before + time + plan.passes
        else:
            head = plan.before
        caller = self.caller
        if not caller.send_whole(head, data[-known.length :]):
            return False
        status = known.status
        if cluster.tracks_results:
            cluster.on_result(endpoint, status)
        if status >= 500:
            endpoint.stats.rq_error += 1
        else:
            endpoint.stats.rq_success += 1
        self._charge(status)
        self.handle = None
        if self._deadline is not None:
            self._deadline.discard(self)
            self._deadline = None
        took_ms = (now - self.start_time) * 1000
        cluster.stats.upstream_rq_time.record(took_ms)
        stats = manager.stats
        codes = stats.codes
        codes[status] = codes.get(status, 0) + 1
        stats.downstream_rq_completed += 1
        listener_stats = manager.listener_stats
        codes = listener_stats.codes
        codes[status] = codes.get(status, 0) + 1
        listener_stats.downstream_rq_completed += 1
        # The end of the stream, as in `finish`.
        self.done = True
        stats.downstream_rq_active -= 1
        stats.downstream_rq_time.record(took_ms)
        if loggers:
            self.response_code = status
            self.end_time = now
            for logger in loggers:
                logger.log_planned(self, known, time)
        while self._read_blocked:
            self._unblock_reading()
        caller.stream_done(self)
        return True

    def describe(self, known: KnownResponse, took: bytes) -> None:
        """Say what a log may ask of a stream that `known` answered, as it is after the long way."""
        self.details = "via_upstream"
        self.bytes_sent = known.length
        now = self.end_time
        self.first_upstream_rx_time = self.last_upstream_rx_time = self.first_downstream_tx_time = now
        fields = sent_fields(known, self.manager, took)
        self.response = ResponseHeaders(self.stream_id, known.status, Headers((), fields), False)
