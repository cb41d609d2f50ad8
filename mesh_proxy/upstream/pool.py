"""What the pools of all protocols share: the line of requests that wait, opening connections within the circuit breaker, counts.

A request that finds no connection waits in line while one is opened; the line and the number of connections are bounded by the
cluster's circuit breaker. As in Envoy, a failed connect fails every request in the line, because what it says about the
endpoint concerns them all; the router may retry elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from mesh_codecs.errors import ResetReason
from mesh_proxy.network.original_source import LocalConnectFailed
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.dial import dial, plain_error

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.resources import Resources


class PooledConnection(asyncio.Protocol):
    """What a pool asks of a connection, which also is the protocol of its transport. Abstract."""

    __slots__ = ()

    def close(self) -> None:
        """End it at once, with what was gathered written if the endpoint takes it now."""
        raise NotImplementedError


C = TypeVar("C", bound=PooledConnection)


class ConnectionPool(Generic[C]):
    """The connections of one worker to one endpoint, for one priority. Abstract."""

    __slots__ = (
        "_sweep",
        "alpn",
        "cluster",
        "connecting",
        "connections",
        "context",
        "duration_queue",
        "endpoint",
        "key",
        "pending",
        "resources",
        "source",
    )

    def __init__(self, context: WorkerContext, cluster: Cluster, endpoint: Endpoint, resources: Resources) -> None:
        self.context = context
        self.cluster = cluster
        self.endpoint = endpoint
        self.resources = resources
        self.alpn: tuple[str, ...] = ()
        """what TLS offers to the endpoint; empty: what the cluster says"""
        self.source: OriginalSource | None = None
        """what its connections are bound to; None: what the cluster says"""
        self.key = ""
        """in `endpoint.pools`, if there is a source"""
        self._sweep: asyncio.TimerHandle | None = None
        """closes connections that nobody uses: one timer per pool"""
        duration = cluster.config.max_connection_duration_s
        self.duration_queue = context.deadlines.queue("upstream connection duration", duration) if duration else None
        """where connections wait to grow too old"""
        self.pending: deque[UpstreamCallbacks] = deque()
        self.connections: set[C] = set()
        self.connecting: set[asyncio.Task[Any]] = set()

    def acquire(self, callbacks: UpstreamCallbacks) -> None:
        """Find or open a connection. `on_pool_ready` or `on_pool_failure` follows, perhaps at once."""
        raise NotImplementedError

    def drain(self) -> None:
        """The endpoint left the cluster: idle connections close now, busy ones after their last response."""
        raise NotImplementedError

    def _new_connection(self) -> C:
        """A connection that has no transport yet."""
        raise NotImplementedError

    def _count_connection(self) -> None:
        """Count a connection by its protocol."""
        raise NotImplementedError

    def _opened(self, connection: C) -> None:
        """A connection stands: serve the line."""
        raise NotImplementedError

    # -- the line

    def _wait(self, callbacks: UpstreamCallbacks) -> None:
        """Put a request at the end of the line."""
        self.resources.add_pending()
        stats = self.cluster.stats
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

    def _next_in_line(self) -> UpstreamCallbacks | None:
        """The first of the line that the circuit breaker lets go on; None when the line is empty."""
        while self.pending:
            callbacks = self.pending.popleft()
            self.resources.remove_pending()
            self.cluster.stats.upstream_rq_pending_active -= 1
            if self.resources.can_create_request():
                return callbacks
            self._overflow(callbacks, active=True)
        return None

    def _overflow(self, callbacks: UpstreamCallbacks, *, active: bool) -> None:
        if active:
            self.cluster.stats.upstream_rq_active_overflow += 1
        else:
            self.cluster.stats.upstream_rq_pending_overflow += 1
        callbacks.on_pool_failure(ResetReason.OVERFLOW, "", self.endpoint)
        self._leave_if_empty()

    def _fail_pending(self, reason: ResetReason, transport_failure: str) -> None:
        line = tuple(self.pending)
        self.pending.clear()
        stats = self.cluster.stats
        for callbacks in line:
            self.resources.remove_pending()
            stats.upstream_rq_pending_active -= 1
            stats.upstream_rq_pending_failure_eject += 1
            callbacks.on_pool_failure(reason, transport_failure, self.endpoint)
        self._leave_if_empty()

    # -- opening connections

    def _try_connect(self) -> bool:
        """Open another connection if descriptors and circuit breaker allow. As in Envoy an endpoint always gets one."""
        others = bool(self.connections or self.connecting)
        if others and not self.context.descriptors(1.0):
            return False  # the line waits as below, but it is no circuit breaker that says so
        if not self.resources.can_create_connection():
            self.cluster.stats.upstream_cx_overflow += 1
            if others:
                return False
        self._connect()
        return True

    def _connect(self) -> None:
        stats = self.cluster.stats
        stats.upstream_cx_total += 1
        self._count_connection()
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
        made = self._new_connection()
        connection: C | None = None
        try:
            async with asyncio.timeout(self.cluster.config.connect_timeout_s):
                connection = await dial(
                    self.context.loop,
                    self.endpoint,
                    self.cluster.config,
                    lambda: made,
                    self.alpn,
                    self.source,
                )
        except TimeoutError:
            self.cluster.stats.upstream_cx_connect_timeout += 1
            failure = (ResetReason.CONNECTION_TIMEOUT, "")
        except LocalConnectFailed as error:
            failure = (ResetReason.LOCAL_CONNECTION_FAILURE, plain_error(error))
        except OSError as error:
            failure = (ResetReason.REMOTE_CONNECTION_FAILURE, plain_error(error))
        finally:
            self.connecting.discard(cast("asyncio.Task[Any]", task))
            if connection is None and made not in self.connections:
                # Given up after it was made, it is counted by its own end.
                self.connection_gone()
        if connection is None:
            if failure is not None and failure[0] is ResetReason.REMOTE_CONNECTION_FAILURE:
                self.cluster.stats.upstream_cx_destroy_remote += 1
            else:
                self.cluster.stats.upstream_cx_destroy_local += 1
            self.cluster.stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            assert failure is not None
            self._fail_pending(*failure)
        else:
            self.cluster.stats.upstream_cx_connect_ms.record((monotonic() - started) * 1000)
            if connection in self.connections:
                self._opened(connection)
            else:
                # Lost in the moment it was made.
                self._fail_pending(ResetReason.REMOTE_CONNECTION_FAILURE, "")
        self.context.flush()

    def connection_gone(self) -> None:
        """Bookkeeping for a connection that ended or never came to be."""
        self.cluster.stats.upstream_cx_active -= 1
        self.cluster.stats.upstream_cx_destroy += 1
        self.endpoint.stats.cx_active -= 1
        self.resources.remove_connection()
        self.context.upstream_connections -= 1
        self._leave_if_empty()

    # -- pools for one caller's address

    def belongs_to(self, source: OriginalSource, key: str) -> None:
        """Its connections are bound to this; it stands in `endpoint.pools` under the key."""
        self.source = source
        self.key = key

    @property
    def unused(self) -> bool:
        """Nothing is in progress."""
        raise NotImplementedError

    def _is_empty(self) -> bool:
        return not (self.connections or self.connecting or self.pending)

    def _leave_if_empty(self) -> None:
        if self.source is not None and self._is_empty():
            self.dismiss()

    def dismiss(self) -> None:
        """The endpoint need not know it any more. It has nothing in progress."""
        if self.endpoint.pools.get(self.key) is self:
            del self.endpoint.pools[self.key]
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self.drain()

    def lost(self, connection: C) -> None:
        """An established connection ended."""
        self.connections.discard(connection)
        self.withdraw(connection)
        self.connection_gone()
        if self.pending and not self.connecting:
            # Requests that waited for this connection to come back need another one.
            self._connect()

    def withdraw(self, connection: C) -> None:
        """A connection is not to be used again."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop everything at once."""
        if self._sweep is not None:
            self._sweep.cancel()
        for task in tuple(self.connecting):
            task.cancel()
        for connection in tuple(self.connections):
            connection.close()
