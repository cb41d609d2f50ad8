"""The upstream side of a TCP proxy's connection."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from mesh_proxy.network.splice import LARGE, SIGNS, Splice
from mesh_proxy.network.transport import set_limits
from mesh_proxy.stream import flags

if TYPE_CHECKING:
    from mesh_proxy.network.tcp_proxy import TcpConnection
    from mesh_proxy.upstream.cluster import Cluster


class TcpUpstream(asyncio.Protocol):
    """The upstream side of one proxied connection."""

    __slots__ = ("_paused", "closed", "cluster", "downstream", "ended", "limit", "signs", "splice", "started", "transport")

    def __init__(self, downstream: TcpConnection, cluster: Cluster) -> None:
        self.downstream = downstream
        self.cluster = cluster
        self.transport: asyncio.Transport
        self.ended = False
        """the endpoint closed its sending side"""
        self.closed = False
        self.started = monotonic()
        self.limit = cluster.config.per_connection_buffer_limit_bytes
        self._paused = False
        """the endpoint reads too slowly"""
        self.signs = 0
        """large reads from the endpoint, one after the other"""
        self.splice: Splice | None = None
        """what takes the endpoint's bytes to the caller instead of the transports"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        set_limits(transport, self.limit)

    def write(self, data: bytes) -> None:
        """Send the caller's bytes."""
        self.count_sent(len(data))
        self.transport.write(data)

    def count_sent(self, size: int) -> None:
        """The caller's bytes."""
        self.cluster.stats.upstream_cx_tx_bytes_total += size
        self.downstream.info.upstream_wire_bytes_sent += size

    def write_eof(self) -> None:
        """Pass on that the caller will send no more."""
        if not self.closed:
            try:
                self.transport.write_eof()
            except (OSError, RuntimeError):
                self.transport.abort()

    def data_received(self, data: bytes) -> None:
        downstream = self.downstream
        size = len(data)
        self.bytes_moved(size)
        if not downstream.closed:
            downstream.transport.write(data)
            if size >= LARGE:
                self.signs += 1
                if self.signs >= SIGNS:
                    sink = downstream.transport
                    downstream.begin_splice(self, self.transport, sink, downstream.owner.buffer_limit)
            else:
                self.signs = 0

    def bytes_moved(self, size: int) -> None:
        """The endpoint's bytes; see SpliceOwner."""
        downstream = self.downstream
        downstream.last_activity = monotonic()
        self.cluster.stats.upstream_cx_rx_bytes_total += size
        downstream.proxy.stats.downstream_cx_tx_bytes_total += size
        info = downstream.info
        info.bytes_sent += size
        info.upstream_wire_bytes_received += size

    def sink_full(self, full: bool) -> None:
        """See SpliceOwner."""
        if full:
            self.downstream.proxy.stats.downstream_flow_control_paused_reading_total += 1
        else:
            self.downstream.proxy.stats.downstream_flow_control_resumed_reading_total += 1

    def splice_ended(self) -> None:
        """See SpliceOwner."""
        self.splice = None

    def splice_failed(self, sink: bool) -> None:
        """See SpliceOwner."""
        self.splice = None
        if sink:
            self.downstream.transport.abort()
        else:
            self.break_off()

    def break_off(self) -> None:
        """The socket has an error."""
        self.downstream.info.flags |= flags.UPSTREAM_CONNECTION_TERMINATION
        self.transport.abort()

    def eof_received(self) -> bool:
        self.ended = True
        downstream = self.downstream
        if downstream.closed:
            return False
        if downstream.ended:
            return False
        try:
            downstream.transport.write_eof()
        except (OSError, RuntimeError):
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        downstream = self.downstream
        endpoint = downstream.endpoint
        if downstream.upstream is not self:
            # Given up in the moment it was made; the attempt has been counted as failed.
            return
        stats = self.cluster.stats
        stats.upstream_cx_length_ms.record((monotonic() - self.started) * 1000)
        local = downstream.closed
        if local:
            stats.upstream_cx_destroy_local += 1
        else:
            stats.upstream_cx_destroy_remote += 1
            stats.upstream_cx_destroy_with_active_rq += 1
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        if endpoint is not None:
            downstream.count_connection(self.cluster, endpoint, -1)
        downstream.upstream_lost(exc)

    def pause_writing(self) -> None:
        downstream = self.downstream
        if downstream.splice is not None:
            return
        self._paused = True
        self.cluster.stats.upstream_flow_control_backed_up_total += 1
        if not downstream.closed:
            downstream.transport.pause_reading()

    def resume_writing(self) -> None:
        downstream = self.downstream
        if self._paused:
            self._paused = False
            self.cluster.stats.upstream_flow_control_drained_total += 1
        if downstream.closed:
            return
        if downstream.splice is not None:
            downstream.splice.sink_empty()
        else:
            downstream.transport.resume_reading()
