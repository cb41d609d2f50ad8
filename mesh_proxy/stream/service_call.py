"""One request of our own to a cluster, for filters: the whole response within a deadline and a bound, or an error.

It takes the way of any request: endpoint by the cluster's balancer, its pool, circuit breaker, outlier detection and statistics.
It is never tried again. Who awaits it and is cancelled takes it back.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import Data, InformationalHeaders, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_filters.service import Failure, ServiceError, ServiceResponse
from mesh_proxy.upstream.cluster import LbContext
from mesh_proxy.upstream.pools import pool_for

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamHandle

_FAILURES = {
    ResetReason.LOCAL_CONNECTION_FAILURE: Failure.CONNECT,
    ResetReason.REMOTE_CONNECTION_FAILURE: Failure.CONNECT,
    ResetReason.CONNECTION_TIMEOUT: Failure.CONNECT,
}


class ServiceCall:
    """One call, an `UpstreamCallbacks`."""

    __slots__ = (
        "_body",
        "_context",
        "_deadline",
        "_endpoint",
        "_handle",
        "_limit",
        "_pool",
        "_response",
        "_size",
        "_started",
        "_waiter",
        "body",
        "cluster",
        "request",
        "upstream_cancelled",
        "upstream_wire_bytes_received",
        "upstream_wire_bytes_sent",
    )

    def __init__(self, context: WorkerContext, cluster: Cluster, request: RequestHeaders, body: bytes, limit: int) -> None:
        self.cluster = cluster
        self.request = request
        self.body = body
        self.upstream_wire_bytes_sent = 0
        self.upstream_wire_bytes_received = 0
        self.upstream_cancelled = False
        self._context = context
        self._limit = limit
        self._endpoint: Endpoint
        self._pool: Any = None
        self._handle: UpstreamHandle | None = None
        self._response: ServiceResponse | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._started = monotonic()
        self._deadline: DeadlineQueue | None = None
        self._waiter: asyncio.Future[ServiceResponse] = context.loop.create_future()

    async def run(self, timeout_s: float | None) -> ServiceResponse:
        """Send it and wait.

        Raises:
            ServiceError: there is no response.
        """
        context = self._context
        endpoint = self.cluster.pick(LbContext() if self.cluster.needs_context else None)
        if endpoint is None:
            raise ServiceError(Failure.NO_ENDPOINT, self.cluster.name)
        self._endpoint = endpoint
        if timeout_s:
            self._deadline = context.deadlines.queue("service call", timeout_s)
            self._deadline.add(self, self._started)
        self._pool = pool_for(context, self.cluster, endpoint, high_priority=False, http_version=self.request.http_version)
        self._pool.acquire(self)
        context.flush()
        try:
            return await self._waiter
        finally:
            self._give_up()
            context.flush()

    def _give_up(self) -> None:
        pool, handle = self._pool, self._handle
        self._settle()
        if handle is not None:
            handle.reset()
        elif pool is not None:
            pool.cancel(self)

    def _settle(self) -> None:
        self._pool = self._handle = None
        if self._deadline is not None:
            self._deadline.discard(self)
            self._deadline = None

    def _fail(self, failure: Failure, why: str = "") -> None:
        if not self._waiter.done():
            self._waiter.set_exception(ServiceError(failure, why))

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """It took too long."""
        self.cluster.stats.upstream_rq_timeout += 1
        self._endpoint.stats.rq_error += 1
        if self.cluster.tracks_results:
            self.cluster.on_result(self._endpoint, 504)
        self._give_up()
        self._fail(Failure.TIMEOUT)

    # -- from the pool and the upstream connection

    def on_pool_ready(self, handle: UpstreamHandle) -> None:
        """Send all of it."""
        self._pool = None
        self._handle = handle
        try:
            self.request.end_stream = not self.body
            handle.send_request(self.request)
            if self.body:
                handle.send_data(self.body, True)
        except LocalProtocolError as error:
            self._give_up()
            self._fail(Failure.RESET, str(error))

    def on_pool_failure(self, reason: ResetReason, transport_failure: str, endpoint: Endpoint) -> None:
        """No connection."""
        self._endpoint.stats.rq_error += 1
        if self.cluster.tracks_results:
            self.cluster.on_result(endpoint, 503)
        self._settle()
        self._fail(_FAILURES.get(reason, Failure.RESET), reason.value)

    def on_upstream_informational(self, event: InformationalHeaders) -> None:
        """Of no account."""

    def on_upstream_headers(self, event: ResponseHeaders, now: float) -> None:
        """The head of the response."""
        stats = self.cluster.stats
        for codes in (stats.codes, stats.internal_codes):
            codes[event.status] = codes.get(event.status, 0) + 1
        stats.upstream_rq_completed += 1
        endpoint = self._endpoint.stats
        if event.status < 500:
            endpoint.rq_success += 1
        else:
            endpoint.rq_error += 1
        if self.cluster.tracks_results:
            self.cluster.on_result(self._endpoint, event.status)
        self._response = ServiceResponse(event.status, event.headers, b"")
        if event.end_stream:
            self._complete(now)

    def on_upstream_data(self, event: Data, now: float) -> None:
        """More of its body."""
        self._size += len(event.data)
        if self._size > self._limit:
            self._give_up()
            self._fail(Failure.TOO_LARGE)
            return
        self._body.append(event.data)
        if event.end_stream:
            self._complete(now)

    def on_upstream_trailers(self, headers: Headers, now: float) -> None:
        """Its end."""
        if self._response is not None:
            self._response.trailers = headers
        self._complete(now)

    def _complete(self, now: float) -> None:
        self._settle()
        response = self._response
        assert response is not None
        response.body = b"".join(self._body)
        self.cluster.stats.upstream_rq_time.record((now - self._started) * 1000)
        if not self._waiter.done():
            self._waiter.set_result(response)

    def on_upstream_reset(self, reason: ResetReason, transport_failure: str, details: str) -> None:
        """It died on the way."""
        self._endpoint.stats.rq_error += 1
        if self.cluster.tracks_results:
            self.cluster.on_result(self._endpoint, 503)
        self._settle()
        self._fail(Failure.RESET, details or reason.value)

    def on_upstream_writable(self, writable: bool) -> None:
        """The whole body is with the connection already."""


async def call_service(
    context: WorkerContext, cluster_name: str, request: RequestHeaders, body: bytes, *, timeout_s: float | None, max_bytes: int
) -> ServiceResponse:
    """Ask a cluster; the response's body is at most `max_bytes` long.

    Raises:
        ServiceError: there is no response.
    """
    cluster = context.clusters.get(cluster_name)
    if cluster is None:
        raise ServiceError(Failure.NO_CLUSTER, cluster_name)
    return await ServiceCall(context, cluster, request, body, max_bytes).run(timeout_s)
