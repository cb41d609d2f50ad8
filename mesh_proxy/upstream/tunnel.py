"""A CONNECT tunnel that ends here: the caller's bytes go on to an endpoint as plain TCP (Envoy's `connect_config`)."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.network.original_source import LocalConnectFailed
from mesh_proxy.network.transport import WATERMARK_HIGH, WATERMARK_LOW, address_of
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.dial import dial, plain_error

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks


class TunnelPool:
    """Opens one connection for one tunnel; nothing is kept."""

    __slots__ = ("_source", "_task", "cluster", "context", "endpoint")

    def __init__(
        self, context: WorkerContext, cluster: Cluster, endpoint: Endpoint, source: OriginalSource | None = None
    ) -> None:
        self._source = source
        self.context = context
        self.cluster = cluster
        self.endpoint = endpoint
        self._task: asyncio.Task[None] | None = None

    def acquire(self, callbacks: UpstreamCallbacks) -> None:
        """Connect; `on_pool_ready` or `on_pool_failure` follows."""
        if not self.cluster.default.can_create_connection():
            self.cluster.stats.upstream_cx_overflow += 1
            callbacks.on_pool_failure(ResetReason.OVERFLOW, "", self.endpoint)
            return
        self._task = create_task(self._open(callbacks), name=f"tunnel {self.endpoint.address}")

    def cancel(self, callbacks: UpstreamCallbacks) -> None:
        """The caller gave up before the connection stood."""
        if self._task is not None:
            self._task.cancel()

    def count(self, step: int) -> None:
        """One connection more or less."""
        stats = self.cluster.stats
        stats.upstream_cx_active += step
        self.endpoint.stats.cx_active += step
        self.context.upstream_connections += step
        if step > 0:
            stats.upstream_cx_total += 1
            self.endpoint.stats.cx_total += 1
            self.cluster.default.add_connection()
        else:
            stats.upstream_cx_destroy += 1
            self.cluster.default.remove_connection()

    async def _open(self, callbacks: UpstreamCallbacks) -> None:
        stats = self.cluster.stats
        tunnel = Tunnel(self, callbacks)
        connected = False
        self.count(1)  # here, as a task that is cancelled before it began never gets to the end
        try:
            async with asyncio.timeout(self.cluster.config.connect_timeout_s):
                await dial(self.context.loop, self.endpoint, self.cluster.config, lambda: tunnel, source=self._source)
            connected = True
        except TimeoutError:
            stats.upstream_cx_connect_timeout += 1
            callbacks.on_pool_failure(ResetReason.CONNECTION_TIMEOUT, "", self.endpoint)
        except OSError as error:
            stats.upstream_cx_connect_fail += 1
            self.endpoint.stats.cx_connect_fail += 1
            reason = ResetReason.REMOTE_CONNECTION_FAILURE
            if isinstance(error, LocalConnectFailed):
                reason = ResetReason.LOCAL_CONNECTION_FAILURE
            callbacks.on_pool_failure(reason, plain_error(error), self.endpoint)
        else:
            callbacks.on_pool_ready(tunnel)
        finally:
            if not connected:
                tunnel.callbacks = None
                if not tunnel.made:
                    # Given up after it was made, it is counted by its own end.
                    self.count(-1)
        self.context.flush()


class Tunnel(asyncio.Protocol):
    """One TCP connection as an `UpstreamHandle`: the CONNECT head is answered here, the rest is bytes."""

    __slots__ = (
        "_early",
        "_ended",
        "_granted",
        "_read_pauses",
        "callbacks",
        "closed",
        "endpoint",
        "made",
        "pool",
        "protocol",
        "transport",
    )

    def __init__(self, pool: TunnelPool, callbacks: UpstreamCallbacks) -> None:
        self.pool = pool
        self.endpoint = pool.endpoint
        self.callbacks: UpstreamCallbacks | None = callbacks
        self.protocol = b""
        self.transport: asyncio.Transport
        self.closed = False
        self.made = False
        """it has its transport"""
        self._read_pauses = 0
        self._granted = False
        """the caller was told that the tunnel stands"""
        self._early = b""
        """what an endpoint that speaks first said before"""
        self._ended = False
        """it closed its sending side before"""

    @property
    def local_address(self) -> bytes:
        """Our end of the connection."""
        return address_of(self.transport.get_extra_info("sockname"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.made = True
        self.transport.set_write_buffer_limits(WATERMARK_HIGH, WATERMARK_LOW)

    def data_received(self, data: bytes) -> None:
        if not self._granted or self._early:
            self._early += data
            return
        if self.callbacks is not None:
            self.callbacks.upstream_wire_bytes_received += len(data)
            self.callbacks.on_upstream_data(Data(0, data, False), monotonic())
            self.pool.context.flush()

    def eof_received(self) -> bool:
        callbacks = self.callbacks
        if callbacks is None:
            return False
        if not self._granted or self._early:
            self._ended = True
            return True
        self.callbacks = None
        callbacks.on_upstream_data(Data(0, b"", True), monotonic())
        self.pool.context.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.count(-1)
        callbacks, self.callbacks = self.callbacks, None
        if callbacks is not None:
            callbacks.on_upstream_reset(ResetReason.CONNECTION_TERMINATION, "", "")
            self.pool.context.flush()

    def pause_writing(self) -> None:
        self.pool.cluster.stats.upstream_flow_control_backed_up_total += 1
        if self.callbacks is not None:
            self.callbacks.on_upstream_writable(False)

    def resume_writing(self) -> None:
        self.pool.cluster.stats.upstream_flow_control_drained_total += 1
        if self.callbacks is not None:
            self.callbacks.on_upstream_writable(True)
            self.pool.context.flush()

    def send_request(self, request: RequestHeaders) -> None:
        """The connection stands: the CONNECT is granted."""
        assert self.callbacks is not None
        self._granted = True
        self.callbacks.on_upstream_headers(ResponseHeaders(0, 200, Headers(), False), monotonic())
        if self._early or self._ended:
            # After the rest of what the router does with a new connection.
            self.pool.context.loop.call_soon(self._deliver_early)

    def _deliver_early(self) -> None:
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        if self._ended and not self.closed:
            self.eof_received()
            self.transport.close()

    def send_data(self, data: bytes, end_stream: bool) -> None:
        """Bytes of the caller."""
        if self.callbacks is not None:
            self.callbacks.upstream_wire_bytes_sent += len(data)
        if data:
            self.transport.write(data)
        if end_stream and not self.closed:
            self.transport.write_eof()

    def send_trailers(self, headers: Headers) -> None:
        """A tunnel has none."""

    def reset(self) -> None:
        """Give up."""
        self.callbacks = None
        self.closed = True
        self.transport.abort()

    def pause_reading(self) -> None:
        """Counted."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed:
            self.pool.cluster.stats.upstream_flow_control_paused_reading_total += 1
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed:
            self.pool.cluster.stats.upstream_flow_control_resumed_reading_total += 1
            self.transport.resume_reading()
