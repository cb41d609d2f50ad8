"""`envoy.filters.network.local_ratelimit`: at most so many new connections in a time through one filter chain.

The bucket is shared by all workers of the sidecar (`mesh_proxy.worker.shared_cells`), and by all filters with the same
`share_key`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mesh_filters.token_bucket import TokenBucket
from mesh_proxy.listener.connection_limit import RefusedConnection
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.groups import ConnectionRateStats

if TYPE_CHECKING:
    import asyncio

    from mesh_proxy.config.model import ConnectionRateConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.listener.listener import Listener, ProtocolFactory
    from mesh_proxy.stream.info import ConnectionInfo


class ConnectionRate:
    """Stands before the other filters of a chain."""

    __slots__ = ("_bucket", "_config", "_context", "_next", "_stats")

    def __init__(self, config: ConnectionRateConfig, context: WorkerContext, after: ProtocolFactory, listener: str) -> None:
        self._config = config
        self._context = context
        self._next = after
        rate = config.tokens_per_fill / config.fill_interval_s
        owner = f"key {config.share_key}" if config.share_key else f"{listener} {config.stat_prefix}"
        cell = context.shared_cells.cell(f"connection rate|{owner}|{config.max_tokens}|{rate}")
        self._bucket = TokenBucket(config.max_tokens, rate, cell)
        self._stats = context.registry.get(ConnectionRateStats, f"local_rate_limit.{sanitize(config.stat_prefix)}.")

    def make(self, info: ConnectionInfo, listener: Listener) -> asyncio.Protocol:
        """The protocol of a connection: the next filter's, or one that closes it."""
        config = self._config
        enabled = config.enabled
        if config.runtime_key:
            value = self._context.runtime.get(config.runtime_key, enabled)
            enabled = value if isinstance(value, bool) else enabled
        if enabled and not self._bucket.take(monotonic()):
            self._stats.rate_limited += 1
            return RefusedConnection(info, listener, self._context, 0.0)
        return self._next(info, listener)
