"""Copies of calls for other clusters, whose answers nobody waits for (`RouteOptions.mirrors`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.dubbo import DubboMessage, MessageTooLarge, Refusal
from mesh_proxy.routing.matchers import compile_fraction
from mesh_proxy.upstream.dubbo_calls import UpstreamCall
from mesh_proxy.upstream.dubbo_pool import POOL_KEY, pool_for

if TYPE_CHECKING:
    from mesh_proxy.config.model.dubbo import DubboRouteOptions
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection
    from mesh_proxy.upstream.dubbo_pool import DubboPool
    from mesh_proxy.upstream.endpoint import Endpoint

TIMEOUT_S: Final = 15.0
"""How long a copy waits for its answer where the route has no time-out; Envoy's default for a route."""


class MirrorCall(UpstreamCall):
    """An `UpstreamCall` without a consumer. Its slot is freed by the answer, the end of the connection, or the route's time-out:
    copies that nobody answers must not use up the circuit breaker of a cluster that others call."""

    __slots__ = ("frame", "pool", "queue", "started", "two_way")

    def __init__(self, message: DubboMessage, now: float) -> None:
        self.started = now
        self.upstream = None
        self.upstream_id = 0
        self.frame = message.frame
        self.two_way = message.two_way
        self.pool: DubboPool | None = None
        self.queue: DeadlineQueue | None = None

    def begun(self) -> float:
        """See `UpstreamCall`."""
        return self.started

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """The time-out."""
        if self.upstream is not None:
            self.upstream.forget(self)
        elif self.pool is not None:
            self.pool.cancel(self)

    def _over(self) -> None:
        if self.queue is not None:
            self.queue.discard(self)

    def on_pool_ready(self, upstream: DubboUpstreamConnection, now: float) -> None:
        """Send."""
        frame, self.frame = self.frame, b""
        if upstream.blocked:
            self._over()
            return  # a copy is not worth holding anybody back
        if self.two_way:
            upstream.send(self, frame, now)
        else:
            upstream.send_one_way(frame, now)

    def on_pool_failure(self, reason: Refusal, why: str, endpoint: Endpoint) -> None:
        """Nobody is told."""
        self._over()

    def on_response(self, message: DubboMessage, now: float) -> None:
        """Dropped."""
        self._over()

    def on_response_too_large(self, event: MessageTooLarge, now: float) -> None:
        """Dropped."""
        self._over()

    def on_upstream_gone(self, why: str) -> None:
        """Nobody is told."""
        self._over()

    def on_forgotten(self) -> None:
        """Nobody is told."""
        self._over()


def mirror(manager: DubboManager, message: DubboMessage, options: DubboRouteOptions, now: float) -> None:
    """Send a copy to each cluster whose share says so."""
    for policy in options.mirrors:
        if policy.fraction is not None and not compile_fraction(policy.fraction, manager.context.runtime)():
            continue
        cluster = manager.clusters.get(policy.cluster)
        endpoint = cluster.pick() if cluster is not None else None
        if cluster is None or endpoint is None:
            continue
        manager.stats.request_mirrored += 1
        pool = endpoint.pools.get(POOL_KEY) or pool_for(manager.context, cluster, endpoint, manager.stats)
        call = MirrorCall(message, now)
        call.pool = pool
        if call.two_way:
            call.queue = manager.context.deadlines.queue("dubbo call", options.timeout_s or TIMEOUT_S)
            call.queue.add(call, now)
        pool.acquire(call, len(message.frame), now)
