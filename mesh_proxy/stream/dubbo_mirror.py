"""Copies of calls for other clusters, whose answers nobody waits for (`RouteOptions.mirrors`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_codecs.dubbo import DubboMessage, MessageTooLarge, Refusal
from mesh_proxy.routing.matchers import compile_fraction
from mesh_proxy.upstream.dubbo_pool import POOL_KEY, pool_for

if TYPE_CHECKING:
    from mesh_proxy.config.model.route import MirrorPolicyConfig
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection
    from mesh_proxy.upstream.endpoint import Endpoint


class MirrorCall:
    """An `UpstreamCall` without a consumer. Its slot is freed by the answer, or by the end of the connection."""

    __slots__ = ("frame", "started", "two_way", "upstream", "upstream_id")

    def __init__(self, message: DubboMessage, now: float) -> None:
        self.frame = message.frame
        self.two_way = message.two_way
        self.started = now
        self.upstream: DubboUpstreamConnection | None = None
        self.upstream_id = 0

    def on_pool_ready(self, upstream: DubboUpstreamConnection, now: float) -> None:
        """Send."""
        frame, self.frame = self.frame, b""
        if upstream.blocked:
            return  # a copy is not worth holding anybody back
        if self.two_way:
            upstream.send(self, frame, now)
        else:
            upstream.send_one_way(frame, now)

    def on_pool_failure(self, reason: Refusal, why: str, endpoint: Endpoint) -> None:
        """Nobody is told."""

    def on_response(self, message: DubboMessage, now: float) -> None:
        """Dropped."""

    def on_response_too_large(self, event: MessageTooLarge, now: float) -> None:
        """Dropped."""

    def on_upstream_gone(self, why: str) -> None:
        """Nobody is told."""

    def on_forgotten(self) -> None:
        """Nobody is told."""


def mirror(manager: DubboManager, message: DubboMessage, policies: tuple[MirrorPolicyConfig, ...], now: float) -> None:
    """Send a copy to each cluster whose share says so."""
    for policy in policies:
        if policy.fraction is not None and not compile_fraction(policy.fraction, manager.context.runtime)():
            continue
        cluster = manager.clusters.get(policy.cluster)
        endpoint = cluster.pick() if cluster is not None else None
        if cluster is None or endpoint is None:
            continue
        manager.stats.request_mirrored += 1
        pool = endpoint.pools.get(POOL_KEY) or pool_for(manager.context, cluster, endpoint, manager.stats)
        pool.acquire(MirrorCall(message, now), len(message.frame), now)
