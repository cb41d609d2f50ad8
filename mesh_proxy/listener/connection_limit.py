"""`envoy.filters.network.connection_limit`: at most so many connections through one filter chain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.groups import ConnectionLimitStats

if TYPE_CHECKING:
    from mesh_proxy.config.model import ConnectionLimitConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.listener.connection import ConnectionOwner, DownstreamConnection
    from mesh_proxy.listener.connection_table import ConnectionCount
    from mesh_proxy.listener.listener import Listener, ProtocolFactory
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo


class ConnectionLimit:
    """Stands before the terminal filter of a chain and counts for all workers."""

    __slots__ = ("_config", "_context", "_count", "_next", "_stats")

    def __init__(self, config: ConnectionLimitConfig, context: WorkerContext, after: ProtocolFactory, listener: str) -> None:
        self._config = config
        self._context = context
        self._next = after
        self._count = context.connection_counts.count(f"connection_limit {listener} {config.stat_prefix}")
        self._stats = context.registry.get(ConnectionLimitStats, f"connection_limit.{sanitize(config.stat_prefix)}.")

    def make(self, info: ConnectionInfo, listener: Listener) -> asyncio.Protocol:
        """The protocol of a connection: the terminal filter's, or one that closes it."""
        stats = self._stats
        if self._count.total() >= self._config.max_connections:
            stats.limited_connections += 1
            return RefusedConnection(info, listener, self._context, self._config.delay_s)
        stats.active_connections += 1
        self._count.add(1)
        return self._next(info, _Counted(listener, stats, self._count))  # type: ignore[arg-type]


class _Counted:
    """The listener as a counted connection sees it: the count goes down when the connection is gone."""

    __slots__ = ("_count", "_listener", "_stats")

    def __init__(self, listener: Listener, stats: ConnectionLimitStats, count: ConnectionCount) -> None:
        self._listener = listener
        self._count = count
        self._stats = stats

    @property
    def name(self) -> str:
        return self._listener.name

    @property
    def buffer_limit(self) -> int:
        return self._listener.buffer_limit

    @property
    def draining(self) -> bool:
        return self._listener.draining

    def connection_opened(self, connection: DownstreamConnection) -> None:
        self._listener.connection_opened(connection)

    def connection_replaced(self, old: DownstreamConnection, new: DownstreamConnection) -> None:
        self._listener.connection_replaced(old, new)

    def connection_closed(self, connection: DownstreamConnection) -> None:
        self._stats.active_connections -= 1
        self._count.add(-1)
        self._listener.connection_closed(connection)

    def connection_moved(self, connection: DownstreamConnection) -> None:
        self._stats.active_connections -= 1
        self._count.add(-1)
        self._listener.connection_moved(connection)


class RefusedConnection(asyncio.Protocol):
    """A connection that may not be: held for the configured delay, then closed."""

    def __init__(self, info: ConnectionInfo, listener: Listener, context: WorkerContext, delay_s: float) -> None:
        self._info = info
        self.owner: ConnectionOwner = listener
        self._context = context
        self._delay_s = delay_s
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connection_info(self) -> ConnectionInfo:
        return self._info

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self.owner.connection_opened(self)
        if self._delay_s > 0:
            transport.pause_reading()
            self._timer = self._context.loop.call_later(self._delay_s, transport.abort)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.owner.connection_closed(self)

    def close_when_idle(self) -> None:
        self._transport.abort()

    def move(self, mover: Mover) -> None:
        """It is about to end anyway."""

    def abort(self) -> None:
        self._transport.abort()
