"""A request that no downstream connection waits for: its way to an endpoint, its deadline, and how its outcome is counted.

Calls of filters (`service_call`) and copies of requests (`shadow`) are such. They are never tried again. What becomes of them
counts like any other request: in the cluster's and the endpoint's statistics and for outlier detection.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import InformationalHeaders, RequestHeaders
from mesh_filters.service import Failure
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


def pick(cluster: Cluster) -> Endpoint | None:
    """An endpoint for a request that has nothing to balance by."""
    return cluster.pick(LbContext() if cluster.needs_context else None)


class OwnRequest:
    """The half of an `UpstreamCallbacks` that does not depend on who wants the response."""

    __slots__ = (
        "_deadline",
        "_endpoint",
        "_handle",
        "_pool",
        "_started",
        "cluster",
        "request",
        "upstream_cancelled",
        "upstream_wire_bytes_received",
        "upstream_wire_bytes_sent",
    )

    def __init__(self, cluster: Cluster, request: RequestHeaders) -> None:
        self.cluster = cluster
        self.request = request
        self.upstream_wire_bytes_sent = 0
        self.upstream_wire_bytes_received = 0
        self.upstream_cancelled = False
        self._endpoint: Endpoint
        self._pool: Any = None
        """while there is no connection"""
        self._handle: UpstreamHandle | None = None
        self._started = 0.0
        self._deadline: DeadlineQueue | None = None

    def _acquire(self, context: WorkerContext, endpoint: Endpoint, purpose: str, timeout_s: float | None) -> None:
        """Ask for a connection. `purpose` names the deadline, which there is unless the time-out is 0 or None."""
        self._endpoint = endpoint
        self._started = monotonic()
        if timeout_s:
            self._set_deadline(context, purpose, timeout_s, self._started)
        self._pool = pool_for(context, self.cluster, endpoint, high_priority=False, http_version=self.request.http_version)
        self._pool.acquire(self)

    def _set_deadline(self, context: WorkerContext, purpose: str, seconds: float, now: float) -> None:
        self._deadline = context.deadlines.queue(purpose, seconds)
        self._deadline.add(self, now)

    def _settle(self) -> None:
        """Nothing more comes."""
        self._pool = self._handle = None
        if self._deadline is not None:
            self._deadline.discard(self)
            self._deadline = None

    def _give_up(self) -> None:
        """Take it back, wherever it is."""
        pool, handle = self._pool, self._handle
        self._settle()
        if handle is not None:
            handle.reset()
        elif pool is not None:
            pool.cancel(self)

    def _count_response(self, status: int) -> None:
        cluster, endpoint = self.cluster, self._endpoint
        stats = cluster.stats
        stats.upstream_rq_completed += 1
        stats.codes[status] = stats.codes.get(status, 0) + 1
        stats.internal_codes[status] = stats.internal_codes.get(status, 0) + 1
        if status < 500:
            endpoint.stats.rq_success += 1
        else:
            endpoint.stats.rq_error += 1
        if cluster.tracks_results:
            cluster.on_result(endpoint, status)

    def _count_end(self, now: float) -> None:
        self.cluster.stats.upstream_rq_time.record((now - self._started) * 1000)

    def _count_failure(self, status: int) -> None:
        """`status` stands for the response that there was not."""
        self._endpoint.stats.rq_error += 1
        if self.cluster.tracks_results:
            self.cluster.on_result(self._endpoint, status)

    def _failed(self, failure: Failure, why: str) -> None:
        """For those who want to know. It is settled."""

    # -- from the deadlines, the pool and the upstream connection

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """It took too long."""
        self.cluster.stats.upstream_rq_timeout += 1
        self._count_failure(504)
        self._give_up()
        self._failed(Failure.TIMEOUT, "")

    def on_pool_failure(self, reason: ResetReason, transport_failure: str, endpoint: Endpoint) -> None:
        """No connection."""
        self._count_failure(503)
        self._settle()
        self._failed(_FAILURES.get(reason, Failure.RESET), reason.value)

    def on_upstream_informational(self, event: InformationalHeaders) -> None:
        """Of no account."""

    def on_upstream_reset(self, reason: ResetReason, transport_failure: str, details: str) -> None:
        """It died on the way."""
        self._count_failure(503)
        self._settle()
        self._failed(Failure.RESET, details or reason.value)
