"""`envoy.filters.network.tcp_proxy`: bytes to an endpoint of a cluster and back, with half-close both ways."""

from __future__ import annotations

import asyncio
from random import randrange
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from mesh_proxy.access_log import AccessLogger
from mesh_proxy.deadlines import DeadlineQueue
from mesh_proxy.network.original_source import LocalConnectFailed
from mesh_proxy.network.splice import DESCRIPTORS, LARGE, SIGNS, Splice
from mesh_proxy.network.tcp_upstream import TcpUpstream
from mesh_proxy.network.transport import address_of, set_limits
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.groups import TcpProxyStats
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.cluster import LbContext
from mesh_proxy.upstream.dial import dial, plain_error

if TYPE_CHECKING:
    from mesh_proxy.access_log import SinkSet
    from mesh_proxy.config.model import TcpProxyConfig, WeightedClusterConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint

EARLY_DATA_LIMIT: Final = 65_536
"""Bytes taken from the caller before the upstream is connected; then reading stops."""


class TcpProxy:
    """The configuration, compiled once per filter chain."""

    __slots__ = ("access_loggers", "config", "context", "stats", "total_weight")

    def __init__(self, config: TcpProxyConfig, context: WorkerContext, sinks: SinkSet) -> None:
        self.config = config
        self.context = context
        self.stats = context.registry.get(TcpProxyStats, f"tcp.{sanitize(config.stat_prefix)}.")
        self.access_loggers = tuple(AccessLogger(log, sinks, context.runtime) for log in config.access_logs)
        self.total_weight = sum(cluster.weight for cluster in config.clusters)

    def choose_cluster(self) -> WeightedClusterConfig:
        """By weight."""
        clusters = self.config.clusters
        if len(clusters) == 1:
            return clusters[0]
        point = randrange(self.total_weight)
        for cluster in clusters:
            point -= cluster.weight
            if point < 0:
                return cluster
        return clusters[-1]


class TcpConnection(asyncio.Protocol):
    """The downstream side of one proxied connection."""

    __slots__ = (
        "_choice",
        "_flush_timer",
        "_paused",
        "closed",
        "cluster",
        "context",
        "early",
        "early_size",
        "ended",
        "endpoint",
        "info",
        "last_activity",
        "owner",
        "proxy",
        "signs",
        "splice",
        "task",
        "transport",
        "upstream",
    )  # fmt: skip

    def __init__(self, proxy: TcpProxy, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        self.proxy = proxy
        self.context = proxy.context
        self.owner = owner
        self.info = StreamInfo(info, info.start_monotonic)
        self.transport: asyncio.Transport
        self.upstream: TcpUpstream | None = None
        self.cluster: Cluster | None = None
        self.endpoint: Endpoint | None = None
        self.early: list[bytes] = []
        self.early_size = 0
        self.ended = False
        """the caller closed its sending side"""
        self.closed = False
        self.last_activity = info.start_monotonic
        self.task: asyncio.Task[None] | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._paused = False
        """the caller reads too slowly"""
        self.signs = 0
        """large reads from the caller, one after the other"""
        self.splice: Splice | None = None
        """what takes the caller's bytes to the endpoint instead of the transports"""

    @property
    def connection_info(self) -> ConnectionInfo:
        """What is known about the connection."""
        return self.info.connection

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        set_limits(transport, self.owner.buffer_limit)
        self.owner.connection_opened(self)
        proxy = self.proxy
        proxy.stats.downstream_cx_total += 1
        now = self.last_activity
        config = proxy.config
        deadlines = self.context.deadlines
        if config.idle_timeout_s:
            deadlines.queue("tcp idle", config.idle_timeout_s).add(self, now)
        if config.max_downstream_connection_duration_s:
            deadlines.queue("tcp max duration", config.max_downstream_connection_duration_s).add(self, now)
        choice = self._choice = proxy.choose_cluster()
        name = choice.name
        cluster = self.cluster = self.context.clusters.get(name)
        if cluster is None:
            proxy.stats.downstream_cx_no_route += 1
            self.info.flags |= flags.NO_CLUSTER_FOUND
            self._finish()
            return
        self.info.cluster_name = name
        self.task = create_task(self._connect(cluster), name=f"tcp connect {name}")

    def data_received(self, data: bytes) -> None:
        self.last_activity = monotonic()
        self.proxy.stats.downstream_cx_rx_bytes_total += len(data)
        self.info.bytes_received += len(data)
        upstream = self.upstream
        if upstream is not None:
            upstream.write(data)
            if len(data) >= LARGE:
                self.signs += 1
                if self.signs >= SIGNS:
                    self.begin_splice(self, self.transport, upstream.transport, upstream.limit)
            else:
                self.signs = 0
            return
        self.early.append(data)
        self.early_size += len(data)
        if self.early_size > EARLY_DATA_LIMIT:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        upstream = self.upstream
        if upstream is not None:
            upstream.write_eof()
            return not upstream.ended
        return self.task is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        self._flushed()
        self.owner.connection_closed(self)

    def pause_writing(self) -> None:
        upstream = self.upstream
        if upstream is not None and upstream.splice is None:
            self._paused = True
            self.proxy.stats.downstream_flow_control_paused_reading_total += 1
            upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        upstream = self.upstream
        if upstream is None or upstream.closed:
            return
        if self._paused:
            self._paused = False
            self.proxy.stats.downstream_flow_control_resumed_reading_total += 1
        if upstream.splice is not None:
            upstream.splice.sink_empty()
        else:
            upstream.transport.resume_reading()

    # -- what is not read and written by transports

    def begin_splice(
        self, owner: TcpConnection | TcpUpstream, source: asyncio.Transport, sink: asyncio.Transport, limit: int
    ) -> None:
        """A direction carries much. If nothing can be done for it, it stays as it is."""
        owner.signs = 0
        if self.closed or owner.splice is not None or source.is_closing() or sink.is_closing():
            return
        splices = self.context.splices
        if splices.can_take(source, sink, limit) and self.context.descriptors(DESCRIPTORS):
            owner.splice = splice = Splice(splices, owner, source, sink, limit)
            splice.want()

    def bytes_moved(self, size: int) -> None:
        """See SpliceOwner."""
        upstream = self.upstream
        assert upstream is not None
        self.last_activity = monotonic()
        self.proxy.stats.downstream_cx_rx_bytes_total += size
        self.info.bytes_received += size
        upstream.count_sent(size)

    def sink_full(self, full: bool) -> None:
        """See SpliceOwner."""
        upstream = self.upstream
        assert upstream is not None
        if full:
            upstream.cluster.stats.upstream_flow_control_backed_up_total += 1
        else:
            upstream.cluster.stats.upstream_flow_control_drained_total += 1

    def splice_ended(self) -> None:
        """See SpliceOwner."""
        self.splice = None

    def splice_failed(self, sink: bool) -> None:
        """See SpliceOwner."""
        self.splice = None
        if sink and self.upstream is not None:
            self.upstream.break_off()
        else:
            self.transport.abort()

    # -- towards the upstream

    async def _connect(self, cluster: Cluster) -> None:
        config = self.proxy.config
        stats = cluster.stats
        failure = ""
        for attempt in range(max(config.max_connect_attempts, 1)):
            if not cluster.default.can_create_connection():
                stats.upstream_cx_overflow += 1
                self.info.flags |= flags.UPSTREAM_OVERFLOW
                self._finish()
                return
            context = None
            if cluster.needs_context:
                context = LbContext()
                context.original_destination = self.info.connection.original_destination
                context.metadata_match = self._choice.metadata_match.get("envoy.lb")
            endpoint = self.endpoint = self.info.upstream = cluster.pick(context)
            if endpoint is None:
                self.info.flags |= flags.NO_HEALTHY_UPSTREAM
                self._finish()
                return
            self.info.attempts = attempt + 1
            started = monotonic()
            self.count_connection(cluster, endpoint, 1)
            try:
                async with asyncio.timeout(cluster.config.connect_timeout_s):
                    upstream = await dial(
                        self.context.loop,
                        endpoint,
                        cluster.config,
                        lambda: TcpUpstream(self, cluster),
                        source=self.info.connection.source,
                    )
            except TimeoutError:
                stats.upstream_cx_connect_timeout += 1
                stats.upstream_cx_destroy_local += 1
                failure = "connection timeout"
            except OSError as error:
                failure = plain_error(error)
                if isinstance(error, LocalConnectFailed):
                    stats.upstream_cx_destroy_local += 1
                else:
                    stats.upstream_cx_destroy_remote += 1
            except asyncio.CancelledError:
                self.count_connection(cluster, endpoint, -1)
                raise
            else:
                stats.upstream_cx_connect_ms.record((monotonic() - started) * 1000)
                self._connected(upstream)
                return
            self.count_connection(cluster, endpoint, -1)
            stats.upstream_cx_connect_fail += 1
            stats.upstream_rq_pending_failure_eject += 1
            endpoint.stats.cx_connect_fail += 1
            if cluster.tracks_results:
                cluster.on_result(endpoint, 503)
        stats.upstream_cx_connect_attempts_exceeded += 1
        self.info.flags |= flags.UPSTREAM_CONNECTION_FAILURE | flags.UPSTREAM_RETRY_LIMIT_EXCEEDED
        self.info.upstream_transport_failure = failure
        self._finish()

    def count_connection(self, cluster: Cluster, endpoint: Endpoint, step: int) -> None:
        """One upstream connection more (1) or less (-1)."""
        stats = cluster.stats
        stats.upstream_cx_active += step
        endpoint.stats.cx_active += step
        self.context.upstream_connections += step
        if step > 0:
            stats.upstream_cx_total += 1
            stats.upstream_rq_pending_total += 1
            endpoint.stats.cx_total += 1
            cluster.default.add_connection()
        else:
            stats.upstream_cx_destroy += 1
            cluster.default.remove_connection()

    def _connected(self, upstream: TcpUpstream) -> None:
        self.task = None
        self.upstream = upstream
        if self.closed:
            upstream.transport.abort()
            return
        if upstream.closed:
            # Lost in the moment it was made, before it was ours.
            assert self.endpoint is not None
            self.count_connection(upstream.cluster, self.endpoint, -1)
            self._finish()
            return
        assert self.endpoint is not None
        self.endpoint.stats.rq_total += 1
        upstream.cluster.stats.upstream_rq_total += 1
        self.info.upstream_local_address = address_of(upstream.transport.get_extra_info("sockname"))
        if self.early:
            if self.early_size > EARLY_DATA_LIMIT:
                self.transport.resume_reading()
            upstream.write(b"".join(self.early))  # which may stop reading again
            self.early = []
        if self.ended:
            upstream.write_eof()

    # -- the end

    def _finish(self) -> None:
        """Close both sides, count, log. Runs once."""
        if self.closed:
            return
        self.closed = True
        self.info.end_time = monotonic()
        config = self.proxy.config
        deadlines = self.context.deadlines
        if config.idle_timeout_s:
            deadlines.queue("tcp idle", config.idle_timeout_s).discard(self)
        if config.max_downstream_connection_duration_s:
            deadlines.queue("tcp max duration", config.max_downstream_connection_duration_s).discard(self)
        if self.task is not None:
            self.task.cancel()
            self.task = None
        upstream = self.upstream
        for half in (self, upstream):
            if half is not None and half.splice is not None:
                half.splice.stop()
                half.splice = None
        if upstream is not None and not upstream.closed:
            upstream.transport.close()
        self.transport.close()
        self.info.wire_bytes_received = self.info.bytes_received
        self.info.wire_bytes_sent = self.info.bytes_sent
        for logger in self.proxy.access_loggers:
            logger.log(self.info)
        unwritten = self._unwritten()
        if unwritten and config.idle_timeout_s:
            self._flush_timer = self.context.loop.call_later(config.idle_timeout_s, self._flush_due, unwritten)

    def _unwritten(self) -> int:
        """Bytes that somebody has still to take."""
        size = self.transport.get_write_buffer_size()
        return size if self.upstream is None else size + self.upstream.transport.get_write_buffer_size()

    def _flush_due(self, unwritten: int) -> None:
        """One side ended idle_timeout ago, and the other one has not taken all yet: it must have taken something."""
        left = self._unwritten()
        if left < unwritten:
            assert self.proxy.config.idle_timeout_s
            self._flush_timer = self.context.loop.call_later(self.proxy.config.idle_timeout_s, self._flush_due, left)
            return
        self.transport.abort()
        if self.upstream is not None:
            self.upstream.transport.abort()

    def _flushed(self) -> None:
        if self._flush_timer is not None and not self._unwritten():
            self._flush_timer.cancel()
            self._flush_timer = None

    def upstream_lost(self, exc: Exception | None) -> None:
        """The upstream connection ended."""
        if exc is not None:
            self.info.flags |= flags.UPSTREAM_CONNECTION_TERMINATION
        self._finish()
        self._flushed()

    def move(self, mover: Mover) -> None:
        """Both halves and what is between them live here: it goes on until either side ends it, or the deadline does."""

    def close_when_idle(self) -> None:
        """A byte stream has no idle moment: it lives on until either side ends it or the drain's deadline comes."""

    def abort(self) -> None:
        """Close at once."""
        self._finish()
        self.transport.abort()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Idle for too long (if it still is), or open for too long."""
        config = self.proxy.config
        if config.idle_timeout_s and queue is self.context.deadlines.queue("tcp idle", config.idle_timeout_s):
            left = self.last_activity + queue.duration_s - now
            if left > 0:
                self.context.loop.call_later(left, self._recheck, queue)
                return
            self.proxy.stats.idle_timeout += 1
        else:
            self.proxy.stats.max_downstream_connection_duration += 1
            self.info.flags |= flags.DURATION_TIMEOUT
        self._finish()
        # A peer that takes nothing more would keep an ordinary close waiting for ever.
        self.transport.abort()
        if self.upstream is not None:
            self.upstream.transport.abort()

    def _recheck(self, queue: DeadlineQueue) -> None:
        if not self.closed:
            self.on_deadline(queue, monotonic())

    def __repr__(self) -> str:
        return f"<TcpConnection {self.info.remote_address.decode()} -> {self.endpoint} {'closed' if self.closed else 'open'}>"
