"""Dubbo connections to one endpoint: as many as configured, shared by all calls.

`current` is the connection that takes the next call, so that the usual call costs one attribute. It is None while there is
none: then calls wait in line until a connection is open, bounded by the circuit breaker and in bytes.

An endpoint that is about to stop says READONLY. New calls then go to other endpoints as long as there are some (`avoid`); if
all say so they still go to the connection that said it, as Dubbo's own consumers do, for a new one to a stopping provider is
accepted and closed at once.

A pinned pool belongs to one downstream connection: a consumer whose provider calls back needs a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from mesh_codecs.dubbo import HeadMemo, Refusal
from mesh_proxy.config.model.dubbo import DubboPinning
from mesh_proxy.network.original_source import LocalConnectFailed
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.dial import dial, plain_error
from mesh_proxy.upstream.dubbo_connection import STALL_S, DubboUpstreamConnection
from mesh_proxy.upstream.source_pools import make_room

if TYPE_CHECKING:
    from mesh_proxy.config.model.dubbo import DubboClusterConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.stats.dubbo_group import DubboStats
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.dubbo_calls import Blocking, UpstreamCall
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.resources import Resources

MAX_PENDING_BYTES: Final = 32 * 1024 * 1024
"""Of calls that wait for a connection, together."""
MAX_UNSENT: Final = 32 * 1024 * 1024
"""Bytes that wait for an endpoint that takes nothing; beyond it calls are refused."""
LOOKS_PER_INTERVAL: Final = 2
"""How often a connection is looked at within its heartbeat interval."""


class DubboPool:
    """The connections of one worker to one endpoint."""

    __slots__ = (
        "_pending_bytes",
        "avoid",
        "closed",
        "cluster",
        "config",
        "connecting",
        "connections",
        "context",
        "counts_calls",
        "current",
        "dubbo_stats",
        "duration_queue",
        "endpoint",
        "key",
        "memo",
        "owner",
        "paused",
        "pending",
        "pins_all",
        "pins_callbacks",
        "queues",
        "resources",
        "size",
        "source",
        "spread",
        "stall_queue",
    )

    def __init__(
        self,
        context: WorkerContext,
        cluster: Cluster,
        endpoint: Endpoint,
        config: DubboClusterConfig,
        dubbo_stats: DubboStats,
        key: str,
        owner: Blocking | None = None,
        source: OriginalSource | None = None,
    ) -> None:
        self.context = context
        self.cluster = cluster
        self.endpoint = endpoint
        self.config = config
        self.dubbo_stats = dubbo_stats
        """of the manager that called here first"""
        self.key = key
        """in `endpoint.pools`"""
        self.owner = owner
        """whose pinned connection this is; None: everybody's"""
        self.source = source
        """what its connections are bound to; None: what the cluster says"""
        self.resources: Resources = cluster.default
        self.memo: HeadMemo = HeadMemo()
        self.current: DubboUpstreamConnection | None = None
        """takes the next call"""
        self.avoid = False
        """call another endpoint if there is one: this one is about to stop, or takes nothing"""
        self.size = 1 if owner is not None else config.connections_per_endpoint
        self.spread = self.size > 1
        self.counts_calls = self.spread or cluster.config.max_requests_per_connection > 0
        """connections want to look at something after each call"""
        self.connections: list[DubboUpstreamConnection] = []
        self.connecting: set[asyncio.Task[Any]] = set()
        self.pending: deque[tuple[UpstreamCall, int]] = deque()
        """calls in line, with their size"""
        self._pending_bytes = 0
        self.pins_all = config.pinning is DubboPinning.ALWAYS
        """every consumer gets an upstream connection of its own"""
        self.pins_callbacks = config.pinning is DubboPinning.AUTO
        """… those whose calls carry callbacks"""
        self.closed = False
        self.paused = False
        deadlines = context.deadlines
        looks = [s for s in (config.heartbeat_interval_s, config.idle_timeout_s) if s]
        duration = cluster.config.max_connection_duration_s
        self.duration_queue = deadlines.queue("upstream connection duration", duration) if duration else None
        watch = deadlines.queue("dubbo look", min([*looks, _SLOWEST_LOOK_S]) / LOOKS_PER_INTERVAL)
        self.queues = (watch,) if self.duration_queue is None else (watch, self.duration_queue)
        """what every connection is entered into"""
        self.stall_queue = deadlines.queue("dubbo stall", STALL_S)

    # -- calls

    def acquire(self, call: UpstreamCall, size: int, now: float) -> None:
        """Get a connection for a call of `size` bytes: `on_pool_ready` or `on_pool_failure` follows, perhaps at once."""
        current = self.current
        stats = self.cluster.stats
        if current is not None:
            if current.stalled and current.transport.get_write_buffer_size() > MAX_UNSENT:
                stats.upstream_rq_active_overflow += 1
                call.on_pool_failure(Refusal.OVERFLOW, "stalled", self.endpoint)
            elif not self.resources.can_create_request():
                stats.upstream_rq_active_overflow += 1
                call.on_pool_failure(Refusal.OVERFLOW, "", self.endpoint)
            else:
                call.on_pool_ready(current, now)
            return
        if not self.resources.can_create_pending() or self._pending_bytes + size > MAX_PENDING_BYTES:
            stats.upstream_rq_pending_overflow += 1
            call.on_pool_failure(Refusal.OVERFLOW, "", self.endpoint)
            return
        self._open_missing()
        self.resources.add_pending()
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        self.pending.append((call, size))
        self._pending_bytes += size

    def cancel(self, call: UpstreamCall) -> None:
        """A call in the line gave up."""
        for entry in self.pending:
            if entry[0] is call:
                self.pending.remove(entry)
                self._left_line(entry[1])
                self.cluster.stats.upstream_rq_cancelled += 1
                return

    def _left_line(self, size: int) -> None:
        self._pending_bytes -= size
        self.resources.remove_pending()
        self.cluster.stats.upstream_rq_pending_active -= 1

    def _serve_line(self) -> None:
        now = monotonic()
        while self.pending and self.current is not None:
            call, size = self.pending.popleft()
            self._left_line(size)
            self.acquire(call, size, now)
        if self.pending and not self.connecting:
            self._open_missing()  # the line was longer than the connection may carry

    def _fail_line(self, reason: Refusal, why: str) -> None:
        line = tuple(self.pending)
        self.pending.clear()
        for call, size in line:
            self._left_line(size)
            self.cluster.stats.upstream_rq_pending_failure_eject += 1
            call.on_pool_failure(reason, why, self.endpoint)
        self._leave_if_empty()

    # -- connections

    def choose(self) -> None:
        """Work out which connection takes the next call: of the best kind that there is, the one with the fewest calls."""
        best: DubboUpstreamConnection | None = None
        rank = (9, 0)
        for connection in self.connections:
            if connection.retired or connection.closed:
                continue
            kind = 2 if connection.stalled else 1 if connection.readonly else 0
            if (kind, len(connection.calls)) < rank:
                best, rank = connection, (kind, len(connection.calls))
        self.current = best
        self.avoid = best is not None and rank[0] > 0

    def _open_missing(self) -> None:
        """Open what is missing of the configured number. One may always be opened, as in Envoy."""
        stats = self.cluster.stats
        usable = sum(not connection.retired and not connection.closed for connection in self.connections)
        for _ in range(self.size - usable - len(self.connecting)):
            first = not usable and not self.connecting
            if not self.resources.can_create_connection():
                stats.upstream_cx_overflow += 1
                if not first:
                    return
            if not first and not self.context.descriptors(1.0):
                return
            self._connect()

    def _connect(self) -> None:
        stats = self.cluster.stats
        stats.upstream_cx_total += 1
        stats.upstream_cx_active += 1
        self.endpoint.stats.cx_total += 1
        self.endpoint.stats.cx_active += 1
        self.resources.add_connection()
        self.context.upstream_connections += 1
        task = create_task(self._open(), name=f"connect {self.endpoint.address}")
        self.connecting.add(task)
        task.add_done_callback(self._never_begun)

    def _never_begun(self, task: asyncio.Task[Any]) -> None:
        """A task that is cancelled before its first step runs nothing of `_open`, not even what counts down."""
        if task in self.connecting:
            self.connecting.discard(task)
            self._gone()

    async def _open(self) -> None:
        """Open one connection; the outcome goes to the line."""
        task = asyncio.current_task()
        started = monotonic()
        failure = ""
        made = DubboUpstreamConnection(self)
        connection: DubboUpstreamConnection | None = None
        try:
            async with asyncio.timeout(self.cluster.config.connect_timeout_s):
                protocol = cast("asyncio.Protocol", made)
                await dial(self.context.loop, self.endpoint, self.cluster.config, lambda: protocol, source=self.source)
                connection = made
        except TimeoutError:
            self.cluster.stats.upstream_cx_connect_timeout += 1
            self.cluster.stats.upstream_cx_destroy_local += 1
            failure = "connection timeout"
        except OSError as error:
            if isinstance(error, LocalConnectFailed):
                self.cluster.stats.upstream_cx_destroy_local += 1
            else:
                self.cluster.stats.upstream_cx_destroy_remote += 1
            failure = plain_error(error)
        finally:
            self.connecting.discard(cast("asyncio.Task[Any]", task))
            if connection is None and made not in self.connections:
                # Given up after it was made, it is counted by its own end.
                self._gone()
        if connection is None:
            self.cluster.stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            if self.current is None and not self.connecting:
                if self.owner is not None:
                    self.forget()
                    self.owner.on_pinned_failed(self)
                self._fail_line(Refusal.CONNECT_FAILED, failure)
        else:
            self.cluster.stats.upstream_cx_connect_ms.record((monotonic() - started) * 1000)
            if self.closed or connection.closed:
                connection.abort()
                if self.current is None and not self.connecting:
                    self._fail_line(Refusal.CONNECT_FAILED, "connection termination")
            else:
                self.choose()
                self._serve_line()
                if self.endpoint.removed or self.endpoint.pools.get(self.key) is not self:
                    self.drain()
        self.context.flush()

    def _gone(self) -> None:
        """Bookkeeping for a connection that ended or never came to be."""
        self.cluster.stats.upstream_cx_active -= 1
        self.cluster.stats.upstream_cx_destroy += 1
        self.endpoint.stats.cx_active -= 1
        self.resources.remove_connection()
        self.context.upstream_connections -= 1
        self._leave_if_empty()

    def withdraw(self, connection: DubboUpstreamConnection) -> None:
        """A connection takes no further call."""
        if connection is self.current or self.spread:
            self.choose()

    def lost(self, connection: DubboUpstreamConnection) -> None:
        """A connection ended."""
        if connection in self.connections:
            self.connections.remove(connection)
        self._gone()
        self.choose()
        if self.pending and self.current is None and not self.connecting:
            self._open_missing()
        owner = self.owner
        if owner is not None and not self.closed:
            self.forget()
            owner.on_pinned_lost(self)
            self.drain()  # another one, opened behind one that was used up: nobody else knows of it any more

    def pause_reading(self) -> None:
        """The one consumer of a pinned pool takes no more."""
        self.paused = True
        for connection in self.connections:
            connection.pause_reading()

    def resume_reading(self) -> None:
        """It does again."""
        self.paused = False
        for connection in self.connections:
            connection.resume_reading()

    @property
    def unused(self) -> bool:
        """A pool for one caller's address with nothing in progress. A pinned one is its consumer's."""
        if self.owner is not None or self.pending or self.connecting:
            return False
        return not any(connection.calls for connection in self.connections)

    def _leave_if_empty(self) -> None:
        if self.source is not None and not (self.connections or self.connecting or self.pending):
            self.forget()

    def dismiss(self) -> None:
        """The endpoint need not know it any more. It has nothing in progress."""
        self.forget()
        self.drain()

    def forget(self) -> None:
        """The endpoint need not know this pool of one consumer, or for one address, any more."""
        if self.endpoint.pools.get(self.key) is self:
            del self.endpoint.pools[self.key]

    def drain(self) -> None:
        """The endpoint left the cluster: idle connections close now, busy ones after their last answer."""
        for connection in tuple(self.connections):
            connection.retire()

    def close(self) -> None:
        """Drop everything at once."""
        self.closed = True
        for task in tuple(self.connecting):
            task.cancel()
        for connection in tuple(self.connections):
            connection.abort()
        # One-way calls of a consumer that left its pinned pool: nobody else would take them out of the line.
        self._fail_line(Refusal.UPSTREAM_GONE, "closed")

    def __repr__(self) -> str:
        return f"<DubboPool {self.endpoint.address} connections={self.connections!r} pending={len(self.pending)}>"


_SLOWEST_LOOK_S: Final = 120.0
"""Calls that are waited for in vain are looked for that often, twice, also without heartbeats."""


def pool_for(context: WorkerContext, cluster: Cluster, endpoint: Endpoint, dubbo_stats: DubboStats) -> DubboPool:
    """The shared pool of an endpoint, made at the first call."""
    pool = endpoint.pools[POOL_KEY] = DubboPool(context, cluster, endpoint, cluster.config.dubbo, dubbo_stats, POOL_KEY)
    return pool


def source_pool(
    context: WorkerContext, cluster: Cluster, endpoint: Endpoint, dubbo_stats: DubboStats, source: OriginalSource
) -> DubboPool | None:
    """The pool of an endpoint for a caller's address; None when it has too many."""
    key = f"{POOL_KEY} {source.key}"
    pool: DubboPool | None = endpoint.pools.get(key)
    if pool is None:
        if not make_room(context, endpoint):
            cluster.stats.upstream_cx_pool_overflow += 1
            return None
        pool = DubboPool(context, cluster, endpoint, cluster.config.dubbo, dubbo_stats, key, source=source)
        endpoint.pools[key] = pool
    return pool


def pinned_pool(
    context: WorkerContext,
    cluster: Cluster,
    endpoint: Endpoint,
    dubbo_stats: DubboStats,
    owner: Blocking,
    source: OriginalSource | None,
) -> DubboPool:
    """A pool for one downstream connection alone."""
    key = f"dubbo pinned {id(owner):x}"
    pool = DubboPool(context, cluster, endpoint, cluster.config.dubbo, dubbo_stats, key, owner, source)
    endpoint.pools[key] = pool
    return pool


POOL_KEY: Final = "dubbo"
