"""HTTP/1 connections to one endpoint: one request at a time on each, kept alive between requests."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mesh_codecs.http1 import Http1Settings
from mesh_proxy.upstream.http1_connection import Http1UpstreamConnection
from mesh_proxy.upstream.pool import ConnectionPool

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.resources import Resources


class Http1Pool(ConnectionPool[Http1UpstreamConnection]):
    """The connections of one worker to one endpoint, for one priority."""

    __slots__ = ("idle", "settings")

    def __init__(
        self, context: WorkerContext, cluster: Cluster, endpoint: Endpoint, resources: Resources, settings: Http1Settings
    ) -> None:
        super().__init__(context, cluster, endpoint, resources)
        self.settings = settings
        self.idle: list[Http1UpstreamConnection] = []
        """last used last: the warmest connection is taken first"""

    def acquire(self, callbacks: UpstreamCallbacks) -> None:
        """Find or open a connection. `on_pool_ready` or `on_pool_failure` follows, perhaps at once."""
        idle = self.idle
        resources = self.resources
        if idle:
            if not resources.can_create_request():
                self._overflow(callbacks, active=True)
                return
            connection = idle.pop()
            connection.begin(callbacks)
            callbacks.on_pool_ready(connection)
            return
        if not resources.can_create_pending():
            self._overflow(callbacks, active=False)
            return
        if len(self.connecting) <= len(self.pending):
            self._try_connect()
        self._wait(callbacks)

    def take(self, callbacks: UpstreamCallbacks) -> Http1UpstreamConnection | None:
        """An idle connection, begun for this request; None: ask `acquire`."""
        idle = self.idle
        if not idle or not self.resources.can_create_request():
            return None
        connection = idle.pop()
        connection.begin(callbacks)
        return connection

    def _new_connection(self) -> Http1UpstreamConnection:
        return Http1UpstreamConnection(self)

    def _count_connection(self) -> None:
        self.cluster.stats.upstream_cx_http1_total += 1

    def _opened(self, connection: Http1UpstreamConnection) -> None:
        self.release(connection)

    def release(self, connection: Http1UpstreamConnection) -> None:
        """A connection can take a request: the first in the line gets it, else it waits idle."""
        if self.pending:
            callbacks = self._next_in_line()
            if callbacks is not None:
                connection.begin(callbacks)
                callbacks.on_pool_ready(connection)
                return
        elif self.endpoint.removed:
            connection.close()
            return
        self.idle.append(connection)
        if self._sweep is None and self.cluster.config.idle_timeout_s:
            self._sweep = self.context.loop.call_later(self.cluster.config.idle_timeout_s, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close connections that nobody used for idle_timeout. The first idle one is the oldest."""
        self._sweep = None
        limit = self.cluster.config.idle_timeout_s
        assert limit is not None
        now = monotonic()
        idle = self.idle
        while idle and idle[0].last_used + limit <= now:
            self.cluster.stats.upstream_cx_idle_timeout += 1
            idle[0].close()
        if idle:
            self._sweep = self.context.loop.call_later(idle[0].last_used + limit - now, self._sweep_idle)

    @property
    def unused(self) -> bool:
        """Nothing is in progress."""
        return not self.pending and not self.connecting and len(self.idle) == len(self.connections)

    def withdraw(self, connection: Http1UpstreamConnection) -> None:
        """A connection is not to be used again."""
        if connection in self.idle:
            self.idle.remove(connection)

    def drain(self) -> None:
        """The endpoint left the cluster: idle connections close now, busy ones after their response."""
        for connection in tuple(self.idle):
            connection.close()
