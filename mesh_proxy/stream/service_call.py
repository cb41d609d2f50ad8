"""One request of our own to a cluster, for filters: the whole response within a deadline and a bound, or an error.

It takes the way of any request: endpoint by the cluster's balancer, its pool, circuit breaker, outlier detection and statistics.
It is never tried again. Who awaits it and is cancelled takes it back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_filters.service import Failure, ServiceError, ServiceResponse
from mesh_proxy.stream.own_request import OwnRequest, pick

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.handle import UpstreamHandle


class ServiceCall(OwnRequest):
    """One call, an `UpstreamCallbacks`."""

    __slots__ = ("_body", "_context", "_limit", "_response", "_size", "_waiter", "body")

    def __init__(self, context: WorkerContext, cluster: Cluster, request: RequestHeaders, body: bytes, limit: int) -> None:
        super().__init__(cluster, request)
        self.body = body
        self._context = context
        self._limit = limit
        self._response: ServiceResponse | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[ServiceResponse] = context.loop.create_future()

    async def run(self, timeout_s: float | None) -> ServiceResponse:
        """Send it and wait.

        Raises:
            ServiceError: there is no response.
        """
        context = self._context
        endpoint = pick(self.cluster)
        if endpoint is None:
            raise ServiceError(Failure.NO_ENDPOINT, self.cluster.name)
        self._acquire(context, endpoint, "service call", timeout_s)
        context.flush()
        try:
            return await self._waiter
        finally:
            self._give_up()
            context.flush()

    def _failed(self, failure: Failure, why: str) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(ServiceError(failure, why))

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
            self._failed(Failure.RESET, str(error))

    def on_upstream_headers(self, event: ResponseHeaders, now: float) -> None:
        """The head of the response."""
        self._count_response(event.status)
        self._response = ServiceResponse(event.status, event.headers, b"")
        if event.end_stream:
            self._complete(now)

    def on_upstream_data(self, event: Data, now: float) -> None:
        """More of its body."""
        self._size += len(event.data)
        if self._size > self._limit:
            self._give_up()
            self._failed(Failure.TOO_LARGE, "")
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
        self._count_end(now)
        if not self._waiter.done():
            self._waiter.set_result(response)

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
