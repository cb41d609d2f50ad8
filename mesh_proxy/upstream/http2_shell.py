"""The shell around an upstream HTTP/2 connection's transport: output once per turn, time, closing with a word to the endpoint."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from mesh_codecs.events import Event
from mesh_codecs.http2 import Http2Engine, new_codec
from mesh_proxy.network.transport import address_of, set_limits, write_all
from mesh_proxy.stats.http2_group import NOTHING_HELD
from mesh_proxy.upstream.pool import PooledConnection

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.upstream.http2_pool import Http2Pool

CLOSE_FLUSH_S: Final = 1.0
"""How long a closing connection may take to write what is left."""
LEAST_WAIT_S: Final = 0.001
"""the shortest timer of a codec"""


class Http2UpstreamShell(PooledConnection):
    """Abstract: `Http2UpstreamConnection` adds the requests."""

    __slots__ = (
        "_closed_by_us",
        "_held",
        "_local_address",
        "_timer",
        "_timer_at",
        "closed",
        "codec",
        "context",
        "dirty",
        "endpoint",
        "http2_stats",
        "last_read",
        "last_used",
        "pool",
        "started",
        "stats",
        "transport",
        "write_blocked",
    )

    def __init__(self, pool: Http2Pool) -> None:
        self.pool = pool
        self.context = pool.context
        self.endpoint = pool.endpoint
        self.stats = pool.cluster.stats
        self.http2_stats = pool.http2_stats
        self.codec: Http2Engine = new_codec(pool.context.codec_engine, downstream=False, settings=pool.connection_settings())
        self.transport: asyncio.Transport
        self.write_blocked = False
        """the send buffer is above its high mark: output stays in the codec, which counts its frames"""
        self._held = NOTHING_HELD
        """those frames, and the control frames among them"""
        self.started = self.last_used = self.last_read = monotonic()
        self.closed = False
        self._closed_by_us = False
        self._timer: asyncio.TimerHandle | None = None
        """the codec's, see `next_timer`"""
        self._timer_at = 0.0
        self.dirty = False
        """`touch` was called in this turn"""
        self._local_address = b""

    @property
    def local_address(self) -> bytes:
        """Our end of the connection, as logs print it."""
        if not self._local_address:
            self._local_address = address_of(self.transport.get_extra_info("sockname"))
        return self._local_address

    # -- what the connection adds

    def _dispatch(self, events: list[Event], now: float) -> None:
        """Act on events of the codec."""
        raise NotImplementedError

    def _pump_all(self) -> None:
        """Let every request send what it held back."""
        raise NotImplementedError

    def _withdraw(self) -> None:
        """Let the pool give no more requests to this connection."""
        raise NotImplementedError

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """max_connection_duration is over."""
        raise NotImplementedError

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        if self.pool.duration_queue is not None:
            self.pool.duration_queue.add(self, self.started)
        set_limits(transport, self.pool.cluster.config.per_connection_buffer_limit_bytes)
        self.touch()  # preface and SETTINGS

    def pause_writing(self) -> None:
        self.write_blocked = True

    def resume_writing(self) -> None:
        self.write_blocked = False
        self._held = self.http2_stats.count_held(self._held, NOTHING_HELD)
        self._pump_all()
        self.touch()
        self.context.flush()

    # -- output

    def touch(self) -> None:
        """There is something to write at the end of this turn."""
        if not self.dirty:
            self.dirty = True
            self.context.flush_later(self)

    def flush(self) -> None:
        """Write what the codec gathered."""
        self.dirty = False
        if self.closed:
            return
        if self.write_blocked:
            self._held = self.http2_stats.count_held(self._held, self.codec.held)
        else:
            self._write()

    def _write(self) -> None:
        self.stats.upstream_cx_tx_bytes_total += write_all(self.transport, self.codec.data_to_send())

    # -- the end, and time

    def close(self) -> None:
        """Say GOAWAY and close, with what was gathered written if the endpoint takes it now."""
        if self.closed:
            return
        self._withdraw()
        self.codec.shutdown()
        self.http2_stats.goaway_sent += 1
        self._write()
        self.closed = True
        self._closed_by_us = True
        self.transport.close()
        if self.transport.get_write_buffer_size():
            # An endpoint that does not read may never take the rest.
            self.context.loop.call_later(CLOSE_FLUSH_S, self.transport.abort)

    def _close_from_peer(self) -> None:
        """Close because the endpoint did."""
        self.close()
        self._closed_by_us = False

    def _count_end(self) -> None:
        """An established connection is gone."""
        self.closed = True
        self._held = self.http2_stats.count_held(self._held, NOTHING_HELD)
        if self.pool.duration_queue is not None:
            self.pool.duration_queue.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        stats = self.stats
        stats.upstream_cx_length_ms.record((monotonic() - self.started) * 1000)
        if self._closed_by_us:
            stats.upstream_cx_destroy_local += 1
        else:
            stats.upstream_cx_destroy_remote += 1

    def _keep_time(self, now: float) -> None:
        """Let the codec know the time if it wishes so, and wake when it wants to be woken."""
        codec = self.codec
        when = codec.next_timer()
        if when is not None and when <= now:
            self._dispatch(codec.handle_timer(now), now)
            when = codec.next_timer()
        if when is None or self.closed or (self._timer is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.context.loop.call_later(max(when - now, LEAST_WAIT_S), self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        if not self.closed:
            self._keep_time(monotonic())
            self.touch()
            self.context.flush()
