"""The upstream side of a TCP proxy's connection."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from mesh_proxy.network.transport import set_limits

if TYPE_CHECKING:
    from mesh_proxy.network.tcp_proxy import TcpConnection
    from mesh_proxy.upstream.cluster import Cluster


class TcpUpstream(asyncio.Protocol):
    """The upstream side of one proxied connection."""

    __slots__ = ("closed", "cluster", "downstream", "ended", "started", "transport")

    def __init__(self, downstream: TcpConnection, cluster: Cluster) -> None:
        self.downstream = downstream
        self.cluster = cluster
        self.transport: asyncio.Transport
        self.ended = False
        """the endpoint closed its sending side"""
        self.closed = False
        self.started = monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        set_limits(transport, self.cluster.config.per_connection_buffer_limit_bytes)

    def write(self, data: bytes) -> None:
        """Send the caller's bytes."""
        self.cluster.stats.upstream_cx_tx_bytes_total += len(data)
        self.downstream.info.upstream_wire_bytes_sent += len(data)
        self.transport.write(data)

    def write_eof(self) -> None:
        """Pass on that the caller will send no more."""
        if not self.closed:
            try:
                self.transport.write_eof()
            except (OSError, RuntimeError):
                self.transport.abort()

    def data_received(self, data: bytes) -> None:
        downstream = self.downstream
        downstream.last_activity = monotonic()
        self.cluster.stats.upstream_cx_rx_bytes_total += len(data)
        downstream.proxy.stats.downstream_cx_tx_bytes_total += len(data)
        info = downstream.info
        info.bytes_sent += len(data)
        info.upstream_wire_bytes_received += len(data)
        if not downstream.closed:
            downstream.transport.write(data)

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
        self.cluster.stats.upstream_flow_control_backed_up_total += 1
        if not self.downstream.closed:
            self.downstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.cluster.stats.upstream_flow_control_drained_total += 1
        if not self.downstream.closed:
            self.downstream.transport.resume_reading()
