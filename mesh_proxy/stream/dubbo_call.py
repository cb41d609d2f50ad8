"""One Dubbo call: route, cluster, endpoint, attempts, time-outs, and the one answer that the consumer gets.

There is no task, closure or timer per call. A call is entered into its downstream connection by the consumer's id, and into the
upstream connection by ours; whatever happens first (answer, end of a connection, time-out, the consumer leaving) takes it out of
both and calls `_finish` once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.dubbo import DubboMessage, MessageTooLarge, Refusal, error_response
from mesh_codecs.dubbo.frame import FLAG_TWO_WAY, HEADER_SIZE, HESSIAN2, OK, SERIALIZATION_MASK, SERVER_ERROR
from mesh_codecs.errors import RemoteProtocolError
from mesh_proxy.config.model.dubbo import DubboRouteOptions
from mesh_proxy.stream import dubbo_replies, flags
from mesh_proxy.stream.dubbo_mirror import mirror
from mesh_proxy.stream.dubbo_stream import DubboStream
from mesh_proxy.stream.dubbo_timeout import asked_timeout
from mesh_proxy.upstream.cluster import LbContext
from mesh_proxy.upstream.dubbo_calls import UpstreamCall
from mesh_proxy.upstream.dubbo_pool import POOL_KEY, pool_for, source_pool

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.routing.dubbo import DubboTarget
    from mesh_proxy.stream.dubbo_consumer import DubboConsumer
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection
    from mesh_proxy.upstream.dubbo_pool import DubboPool
    from mesh_proxy.upstream.endpoint import Endpoint

PLAIN: Final = DubboRouteOptions()
"""options of a route that has none; the manager puts this very object wherever it is equal"""
LOOKS_ELSEWHERE: Final = 4
"""How often another endpoint is asked for when the chosen one is about to stop."""
_CALLBACK: Final = b"sys_callback_arg-"
_ATTACHMENTS_WITHIN: Final = -16_384
"""Attachments stand at the end of a request; callback arguments are looked for in so many bytes."""


class DubboCall(UpstreamCall):
    """See the module."""

    __slots__ = (
        "attempts",
        "avoid",
        "cluster",
        "connection",
        "done",
        "endpoint",
        "id_bytes",
        "labels",
        "manager",
        "message",
        "options",
        "pool",
        "queue",
        "request_id",
        "retried",
        "started",
        "stream",
        "target",
        "try_queue",
        "two_way",
    )

    def __init__(self, connection: DubboConsumer, message: DubboMessage, now: float) -> None:
        self.connection = connection
        self.manager: DubboManager = connection.manager
        self.message: DubboMessage | None = message
        """the request; let go once it is sent for good"""
        self.request_id = message.request_id
        self.id_bytes = message.frame[4:12]
        """the consumer's id as it stands in frames"""
        self.two_way = message.flags & FLAG_TWO_WAY != 0
        self.started = now
        self.done = False
        self.attempts = 0
        self.retried: Cluster | None = None
        """whose circuit breaker counts it as a retry: not always the one that it ends at"""
        self.target: DubboTarget | None = None
        self.options: DubboRouteOptions | None = None
        self.cluster: Cluster | None = None
        self.endpoint: Endpoint | None = None
        self.pool: DubboPool | None = None
        self.upstream = None
        self.upstream_id = 0
        self.queue: DeadlineQueue | None = None
        self.try_queue: DeadlineQueue | None = None
        self.avoid: set[Endpoint] | None = None
        self.stream: DubboStream | None = None
        """for filters and logs, if there are any"""
        self.labels: tuple[tuple[str, str], ...] | None = None
        """what filters narrow the cluster's endpoints to, where there is no stream"""

    def begun(self) -> float:
        """See `UpstreamCall`."""
        return self.started

    # -- there

    def start(self, message: DubboMessage, now: float) -> None:
        """Through the filters, if there are any, to the route."""
        manager = self.manager
        plans = manager.plans
        stream = self.stream = DubboStream(self, message, now) if manager.watched and plans is None else None
        client_cert = manager.client_cert
        if client_cert is not None and not client_cert.apply_to_call(message, self.connection.info.tls):
            self.refuse(Refusal.MALFORMED, "dubbo.client_cert_unreadable", now)
        elif stream is not None:
            stream.start(now)
        elif plans is not None:
            if not plans.start(self, message, now):
                stream = self.stream = DubboStream(self, message, now)
                stream.start(now)
        else:
            self.route(message, now)

    def reject(self, message: DubboMessage, frame: bytes, status: int, details: str, now: float) -> None:
        """Over before it began: no filter and no route sees it, but the log does. `frame` is what the consumer got."""
        if self.manager.access_loggers:
            self.stream = DubboStream(self, message, now)
            self.stream.reject(frame, status, details, flags.DOWNSTREAM_PROTOCOL_ERROR)
        self._finish(now)

    def route(self, message: DubboMessage, now: float) -> None:
        """Find the route and send."""
        manager = self.manager
        stats = manager.stats
        try:
            target = manager.routes.find(message)
        except RemoteProtocolError as error:
            stats.request_decoding_error += 1
            self.refuse(Refusal.MALFORMED, error.code, now)
            return
        stats.request_decoding_success += 1
        if message.flags & SERIALIZATION_MASK != HESSIAN2 and not message.readable:
            stats.request_opaque += 1
        if target is None:
            stats.request_no_route += 1
            self.refuse(Refusal.NO_ROUTE, "", now)
            return
        self.target = target
        options = target.options
        if options is not PLAIN:
            self.options = options
            self._set_timeout(message, options, now)
            if options.mirrors:
                mirror(self.manager, message, options, now)
        name = target.cluster
        if self.stream is not None and self.stream.forced_cluster:
            name = self.stream.forced_cluster
        self._dispatch(message, name, now)

    def _set_timeout(self, message: DubboMessage, options: DubboRouteOptions, now: float) -> None:
        if not self.two_way:
            return
        seconds = options.timeout_s
        deadlines = self.manager.context.deadlines
        if options.use_request_timeout:
            asked = asked_timeout(message)
            if asked is not None and (not seconds or asked < seconds):
                self.queue = deadlines.transient("dubbo asked", asked)
                self.queue.add(self, now)
                return
        if seconds:
            self.queue = deadlines.queue("dubbo call", seconds)
            self.queue.add(self, now)

    def _dispatch(self, message: DubboMessage, name: str, now: float) -> None:
        """One attempt at a cluster."""
        manager = self.manager
        cluster = manager.clusters.get(name)
        if cluster is None:
            if self._fall_back(message, name, now):
                return
            manager.stats.request_no_cluster += 1
            self.refuse(Refusal.NO_CLUSTER, name, now)
            return
        self.cluster = cluster
        pinned = self.connection.pinned
        if pinned is not None and name in pinned:
            pool = pinned[name]
            endpoint = pool.endpoint
        else:
            target = self.target
            assert target is not None
            context = None
            stream = self.stream
            if (
                cluster.needs_context
                or self.avoid is not None
                or target.metadata_match is not None
                or (stream is not None and (stream.labels is not None or stream.dynamic_metadata is not None))
            ):
                context = self._lb_context(target)
            labels = self.labels
            found = cluster.pick(context) if labels is None or context is not None else cluster.pick_labelled(labels)
            if found is None:
                if not self._fall_back(message, name, now):
                    self.refuse(Refusal.NO_ENDPOINT, name, now)
                return
            endpoint = found
            if pinned is None:
                pool = endpoint.pools.get(POOL_KEY) or pool_for(manager.context, cluster, endpoint, manager.stats)
            else:
                own = self._pool_of(cluster, endpoint)
                if own is None:
                    self.endpoint = endpoint
                    self.refuse(Refusal.OVERFLOW, "", now)
                    return
                pool = own
            if (
                pool.pins_all or (pool.pins_callbacks and message.frame.find(_CALLBACK, _ATTACHMENTS_WITHIN) >= 0)
            ) and not self.connection.closed:  # a filter held a one-way call, and its consumer left
                pool = self.connection.pin(cluster, endpoint)
            elif pool.avoid:
                if labels is not None and context is None:
                    context = self._lb_context(target)
                pool = self._elsewhere(cluster, pool, context)
                endpoint = pool.endpoint
        self.attempts += 1
        self.endpoint = endpoint
        self.pool = pool
        upstream = pool.current
        if upstream is not None and not upstream.stalled and pool.resources.can_create_request():
            self.on_pool_ready(upstream, now)
        else:
            pool.acquire(self, len(message.frame), now)

    def _lb_context(self, target: DubboTarget) -> LbContext:
        context = LbContext()
        context.metadata_match = target.metadata_match
        context.labels = self.labels
        stream = self.stream
        if stream is not None:
            # What filters have found out about the call.
            context.labels = stream.labels
            asked = stream.dynamic_metadata.get("envoy.lb") if stream.dynamic_metadata is not None else None
            if asked:
                context.metadata_match = {**(context.metadata_match or {}), **asked}
        context.original_destination = self.connection.info.original_destination
        if self.avoid is not None:
            context.avoid = self.avoid
            context.attempts = LOOKS_ELSEWHERE
        return context

    def _pool_of(self, cluster: Cluster, endpoint: Endpoint) -> DubboPool | None:
        """The pool of an endpoint for this consumer; None when there may be none."""
        manager = self.manager
        source = self.connection.info.source
        if source is not None:
            return source_pool(manager.context, cluster, endpoint, manager.stats, source)
        return endpoint.pools.get(POOL_KEY) or pool_for(manager.context, cluster, endpoint, manager.stats)

    def _elsewhere(self, cluster: Cluster, pool: DubboPool, context: LbContext | None) -> DubboPool:
        """Another endpoint than one that is about to stop or takes nothing; that one if all are alike."""
        for _ in range(LOOKS_ELSEWHERE):
            endpoint = cluster.pick(context)
            if endpoint is None:
                break
            other = self._pool_of(cluster, endpoint)
            if other is not None and not other.avoid:
                return other
        return pool

    def _fall_back(self, message: DubboMessage, name: str, now: float) -> bool:
        fallback = self.options.fallback_cluster if self.options is not None else ""
        if not fallback or name == fallback:
            return False
        self.connection.stats.request_fallback += 1
        self._dispatch(message, fallback, now)
        return True

    def on_pool_ready(self, upstream: DubboUpstreamConnection, now: float) -> None:
        """Send."""
        message = self.message
        assert message is not None
        frame = message.frame
        if self.stream is not None:
            self.stream.sent(upstream, now)
        if self.two_way:
            upstream.send(self, frame, now)
            options = self.options
            if options is None:
                self.message = None
            else:
                if not options.retries:
                    self.message = None
                if options.per_try_timeout_s:
                    self.try_queue = self.manager.context.deadlines.queue("dubbo try", options.per_try_timeout_s)
                    self.try_queue.add(self, now)
        else:
            upstream.send_one_way(frame, now)
            self._finish(now)
        if upstream.blocked:
            upstream.hold(self.connection)

    # -- and back

    def on_response(self, message: DubboMessage, now: float) -> None:
        """The answer."""
        self.upstream = None
        stats = self.connection.stats
        stats.response += 1
        stats.response_decoding_success += 1
        status = message.status
        endpoint, cluster = self.endpoint, self.cluster
        assert endpoint is not None
        assert cluster is not None
        if status == OK:
            stats.response_success += 1
            endpoint.stats.rq_success += 1
            frame = message.frame
            if message.flags & SERIALIZATION_MASK == HESSIAN2:
                if frame[HEADER_SIZE : HEADER_SIZE + 1] in _THROWN:
                    stats.response_business_exception += 1
            else:
                self._look_for_exception(message)
            if cluster.tracks_results:
                cluster.on_result(endpoint, 200)
        else:
            stats.response_error += 1
            endpoint.stats.rq_error += 1
            if cluster.tracks_results:
                cluster.on_result(endpoint, dubbo_replies.http_status_of(status))
            options = self.options
            if options is not None and status in options.retry_on_statuses and self._retry(now):
                return
        if self.stream is not None:
            self.stream.respond(message, now)
        else:
            self.deliver(message.frame, now)

    def deliver(self, frame: bytes, now: float) -> None:
        """The one answer."""
        if not self.done:
            if self.two_way:
                self.connection.answer(self, frame)
            self._finish(now)

    def _look_for_exception(self, message: DubboMessage) -> None:
        stats = self.connection.stats
        try:
            if message.threw:
                stats.response_business_exception += 1
        except RemoteProtocolError:
            stats.response_decoding_error += 1

    def on_response_too_large(self, event: MessageTooLarge, now: float) -> None:
        """The answer is over the limit."""
        self.upstream = None
        self.refuse(Refusal.RESPONSE_TOO_LARGE, f"{event.length} bytes", now)

    # -- what goes wrong

    def on_pool_failure(self, reason: Refusal, why: str, endpoint: Endpoint) -> None:
        """No connection could be had."""
        now = self.manager.now()
        if reason is Refusal.CONNECT_FAILED:
            cluster = self.cluster
            if cluster is not None and cluster.tracks_results:
                cluster.on_result(endpoint, 503)
            if self.options is not None and self.options.retry_on_connect_failure and self._retry(now):
                return
        self.refuse(reason, why, now)

    def on_upstream_gone(self, why: str) -> None:
        """The connection ended before the answer."""
        self.upstream = None
        now = self.manager.now()
        cluster, endpoint = self.cluster, self.endpoint
        assert endpoint is not None
        assert cluster is not None
        endpoint.stats.rq_error += 1
        if cluster.tracks_results:
            cluster.on_result(endpoint, 503)
        if self.options is not None and self.options.retry_on_reset and self._retry(now):
            return
        self.refuse(Refusal.UPSTREAM_GONE, why, now)

    def on_forgotten(self) -> None:
        """Nobody answered for very long."""
        self.upstream = None
        self.refuse(Refusal.TIMEOUT, "never answered", self.manager.now())

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """A time-out."""
        cluster, endpoint = self.cluster, self.endpoint
        if cluster is not None and endpoint is not None:
            if queue is self.try_queue:
                cluster.stats.upstream_rq_per_try_timeout += 1
            else:
                cluster.stats.upstream_rq_timeout += 1
            endpoint.stats.rq_timeout += 1
            if cluster.tracks_results and self.upstream is not None:
                cluster.on_result(endpoint, 504)
        self.detach()
        if queue is self.try_queue:
            self.try_queue = None
            # It was sent, or else it would not be an attempt: the provider may be running it.
            if self.options is not None and self.options.retry_on_reset and self._retry(now):
                return
        else:
            self.queue = None
        self.connection.stats.request_timeout += 1
        self.refuse(Refusal.TIMEOUT, "", now)

    def _retry(self, now: float) -> bool:
        """Try again, if the route wants that and may."""
        options, cluster, message = self.options, self.cluster, self.message
        if self.done or options is None or cluster is None or message is None or self.attempts > options.retries:
            if options is not None and options.retries and cluster is not None and not self.done:
                cluster.stats.upstream_rq_retry_limit_exceeded += 1
            return False
        if self.retried is None and not cluster.default.can_retry():
            cluster.stats.upstream_rq_retry_overflow += 1
            return False
        if self.try_queue is not None:
            self.try_queue.discard(self)
        if self.retried is None:
            self.retried = cluster
            cluster.default.add_retry()
        cluster.stats.upstream_rq_retry += 1
        self.connection.stats.request_retry += 1
        if self.avoid is None:
            self.avoid = set()
        if self.endpoint is not None:
            self.avoid.add(self.endpoint)
        self._dispatch(message, cluster.name, now)
        return True

    def refuse(self, reason: Refusal, why: str, now: float) -> None:
        """Answer by ourselves."""
        if self.done:
            return
        self.detach()
        frame = b""
        if self.two_way:
            self.connection.stats.local_response_error += 1
            frame = dubbo_replies.error(reason, self.request_id, dubbo_replies.text_of(reason, self.target))
        stream = self.stream
        if stream is None:
            self.deliver(frame, now)
        else:
            flag, details = dubbo_replies.OUTCOMES[reason]
            if reason is Refusal.CONNECT_FAILED:
                stream.upstream_transport_failure = why
            elif reason is Refusal.MALFORMED:
                details = why
            stream.reply(frame, dubbo_replies.http_status_of(reason.status), details, flag)

    def stop(self, now: float) -> None:
        """The proxy stops, and waited long enough."""
        self.detach()
        self.connection.stats.local_response_error += 1
        frame = error_response(self.request_id, SERVER_ERROR, b"mesh-proxy: the proxy is stopping")
        if self.stream is not None:
            self.stream.reply(frame, 503, "drain_deadline", flags.LOCAL_RESET)
        else:
            self.deliver(frame, now)
        self.abandon(now)

    def abandon(self, now: float) -> None:
        """The consumer left."""
        if not self.done:
            self.detach()
            if self.stream is not None:
                self.stream.flags |= flags.DOWNSTREAM_CONNECTION_TERMINATION
                self.stream.details = "downstream_remote_disconnect"
            self._finish(now)

    def detach(self) -> None:
        """Wait for nothing any more."""
        upstream, pool = self.upstream, self.pool
        if upstream is not None:
            self.upstream = None
            upstream.forget(self)
        elif pool is not None:
            pool.cancel(self)
        self.pool = None

    def _finish(self, now: float) -> None:
        """The end, once."""
        self.done = True
        self.message = None
        if self.queue is not None:
            self.queue.discard(self)
        if self.try_queue is not None:
            self.try_queue.discard(self)
        if self.retried is not None:
            self.retried.default.remove_retry()
        stats = self.connection.stats
        stats.request_active -= 1
        stats.request_time_ms.record((now - self.started) * 1000.0)
        if self.stream is not None:
            self.stream.finish(now)

    def __repr__(self) -> str:
        return f"<DubboCall {self.request_id} attempts={self.attempts} {'done' if self.done else 'active'}>"


_THROWN: Final = (b"\x90", b"\x93")
"""result types of hessian2 that carry an exception"""
