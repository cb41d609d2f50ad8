"""HTTP/1 connections to one endpoint: one request at a time on each, kept alive between requests.

A request that finds no idle connection waits in line while one is opened; the line and the number of connections are bounded by
the cluster's circuit breaker. As in Envoy, a failed connect fails every request in the line, because what it says about the
endpoint concerns them all; the router may retry elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from mesh_codecs.errors import ResetReason
from mesh_codecs.http1 import Http1Settings
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.dial import dial, plain_error
from mesh_proxy.upstream.http1_connection import Http1UpstreamConnection

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.resources import Resources


class Http1Pool:
    """The connections of one worker to one endpoint, for one priority."""

    __slots__ = (
        "_sweep",
        "cluster",
        "connecting",
        "connections",
        "context",
        "duration_queue",
        "endpoint",
        "idle",
        "pending",
        "resources",
        "settings",
    )

    def __init__(
        self, context: WorkerContext, cluster: Cluster, endpoint: Endpoint, resources: Resources, settings: Http1Settings
    ) -> None:
        self.context = context
        self.cluster = cluster
        self.endpoint = endpoint
        self.resources = resources
        self.settings = settings
        self.idle: list[Http1UpstreamConnection] = []
        """last used last: the warmest connection is taken first"""
        self._sweep: asyncio.TimerHandle | None = None
        duration = cluster.config.max_connection_duration_s
        self.duration_queue = context.deadlines.queue("upstream connection duration", duration) if duration else None
        """where connections wait to grow too old"""
        self.pending: deque[UpstreamCallbacks] = deque()
        self.connections: set[Http1UpstreamConnection] = set()
        self.connecting: set[asyncio.Task[Any]] = set()

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
        stats = self.cluster.stats
        if not resources.can_create_pending():
            self._overflow(callbacks, active=False)
            return
        if len(self.connecting) <= len(self.pending):
            if (self.connections or self.connecting) and not self.context.descriptors(1.0):
                pass  # the line waits as below, but it is no circuit breaker that says so
            elif not resources.can_create_connection() and (self.connections or self.connecting):
                # As in Envoy an endpoint always gets one connection; further requests wait for one that comes back.
                stats.upstream_cx_overflow += 1
            else:
                if not resources.can_create_connection():
                    stats.upstream_cx_overflow += 1
                self._connect()
        resources.add_pending()
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        self.pending.append(callbacks)

    def cancel(self, callbacks: UpstreamCallbacks) -> None:
        """A request in the line gave up."""
        try:
            self.pending.remove(callbacks)
        except ValueError:
            return
        self.resources.remove_pending()
        self.cluster.stats.upstream_rq_pending_active -= 1
        self.cluster.stats.upstream_rq_cancelled += 1

    def _overflow(self, callbacks: UpstreamCallbacks, *, active: bool) -> None:
        if active:
            self.cluster.stats.upstream_rq_active_overflow += 1
        else:
            self.cluster.stats.upstream_rq_pending_overflow += 1
        callbacks.on_pool_failure(ResetReason.OVERFLOW, "", self.endpoint)

    def _connect(self) -> None:
        stats = self.cluster.stats
        stats.upstream_cx_total += 1
        stats.upstream_cx_http1_total += 1
        stats.upstream_cx_active += 1
        self.endpoint.stats.cx_total += 1
        self.endpoint.stats.cx_active += 1
        self.resources.add_connection()
        self.context.upstream_connections += 1
        task = create_task(self._open(), name=f"connect {self.endpoint.address}")
        self.connecting.add(task)

    async def _open(self) -> None:
        """Open one connection; the outcome goes to the line, not to the caller."""
        task = asyncio.current_task()
        started = monotonic()
        failure: tuple[ResetReason, str] | None = None
        made = Http1UpstreamConnection(self)
        connection: Http1UpstreamConnection | None = None
        try:
            async with asyncio.timeout(self.cluster.config.connect_timeout_s):
                connection = await dial(
                    self.context.loop,
                    self.endpoint,
                    self.cluster.config,
                    lambda: made,
                )
        except TimeoutError:
            self.cluster.stats.upstream_cx_connect_timeout += 1
            failure = (ResetReason.CONNECTION_TIMEOUT, "")
        except OSError as error:
            failure = (ResetReason.REMOTE_CONNECTION_FAILURE, plain_error(error))
        finally:
            self.connecting.discard(cast("asyncio.Task[Any]", task))
            if connection is None and made not in self.connections:
                # Given up after it was made, it is counted by its own end.
                self.connection_gone()
        if connection is None:
            if failure is not None and failure[0] is ResetReason.CONNECTION_TIMEOUT:
                self.cluster.stats.upstream_cx_destroy_local += 1
            else:
                self.cluster.stats.upstream_cx_destroy_remote += 1
            self.cluster.stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            assert failure is not None
            self._fail_pending(*failure)
        else:
            self.cluster.stats.upstream_cx_connect_ms.record((monotonic() - started) * 1000)
            if connection in self.connections:
                self.release(connection)
            else:
                # Lost in the moment it was made.
                self._fail_pending(ResetReason.REMOTE_CONNECTION_FAILURE, "")
        self.context.flush()

    def _fail_pending(self, reason: ResetReason, transport_failure: str) -> None:
        line = tuple(self.pending)
        self.pending.clear()
        stats = self.cluster.stats
        for callbacks in line:
            self.resources.remove_pending()
            stats.upstream_rq_pending_active -= 1
            stats.upstream_rq_pending_failure_eject += 1
            callbacks.on_pool_failure(reason, transport_failure, self.endpoint)

    def release(self, connection: Http1UpstreamConnection) -> None:
        """A connection can take a request: the first in the line gets it, else it waits idle."""
        if self.endpoint.removed and not self.pending:
            connection.close()
            return
        stats = self.cluster.stats
        while self.pending:
            callbacks = self.pending.popleft()
            self.resources.remove_pending()
            stats.upstream_rq_pending_active -= 1
            if not self.resources.can_create_request():
                self._overflow(callbacks, active=True)
                continue
            connection.begin(callbacks)
            callbacks.on_pool_ready(connection)
            return
        self.idle.append(connection)
        if self._sweep is None and self.cluster.config.idle_timeout_s:
            self._sweep = self.context.loop.call_later(self.cluster.config.idle_timeout_s, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close connections that nobody used for idle_timeout. One timer per pool: the first idle one is the oldest."""
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

    def connection_gone(self) -> None:
        """Bookkeeping for a connection that ended or never came to be."""
        self.cluster.stats.upstream_cx_active -= 1
        self.cluster.stats.upstream_cx_destroy += 1
        self.endpoint.stats.cx_active -= 1
        self.resources.remove_connection()
        self.context.upstream_connections -= 1

    def lost(self, connection: Http1UpstreamConnection) -> None:
        """An established connection ended."""
        self.connections.discard(connection)
        self.withdraw(connection)
        self.connection_gone()
        if self.pending and not self.connecting:
            # Requests that waited for this connection to come back need another one.
            self._connect()

    def withdraw(self, connection: Http1UpstreamConnection) -> None:
        """A connection is not to be used again."""
        if connection in self.idle:
            self.idle.remove(connection)

    def drain(self) -> None:
        """The endpoint left the cluster: idle connections close now, busy ones after their response."""
        for connection in tuple(self.idle):
            connection.close()

    def close(self) -> None:
        """Drop everything at once."""
        if self._sweep is not None:
            self._sweep.cancel()
        for task in tuple(self.connecting):
            task.cancel()
        for connection in tuple(self.connections):
            connection.close()


def pool_for(context: WorkerContext, cluster: Cluster, endpoint: Endpoint, *, high_priority: bool) -> Http1Pool:
    """The pool of an endpoint for a priority, made at the first request."""
    key = "http1 high" if high_priority else "http1"
    pool = endpoint.pools.get(key)
    if pool is None:
        config = cluster.config
        settings = Http1Settings(
            max_head_bytes=config.max_response_headers_kb * 1024,
            max_header_count=config.max_response_headers_count,
            enable_trailers=config.http1_enable_trailers,
        )
        pool = Http1Pool(context, cluster, endpoint, cluster.high if high_priority else cluster.default, settings)
        endpoint.pools[key] = pool
    assert isinstance(pool, Http1Pool)
    return pool
