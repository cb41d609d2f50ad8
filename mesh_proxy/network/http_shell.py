"""The shell around a downstream HTTP connection's transport: output once per turn, counted read pauses, closing without loss."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mesh_codecs.http1 import DownstreamHttp1
from mesh_proxy.network.transport import write_all

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.info import ConnectionInfo


class HttpShell(asyncio.Protocol):
    """Abstract: `HttpConnection` adds what the bytes mean."""

    __slots__ = (
        "_closing",
        "_delayed_close",
        "_dirty",
        "_read_pauses",
        "closed",
        "codec",
        "context",
        "info",
        "last_activity",
        "manager",
        "owner",
        "received",
        "sent",
        "transport",
        "write_blocked",
    )

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        self.manager = manager
        self.info = info
        self.owner = owner
        self.context = manager.context
        self.codec = DownstreamHttp1(manager.http1_settings)
        self.transport: asyncio.Transport
        self.last_activity = info.start_monotonic
        self.received = 0
        """bytes read so far"""
        self.sent = 0
        """bytes written so far"""
        self.closed = False
        self.write_blocked = False
        """the send buffer is above its high mark"""
        self._closing = False
        self._dirty = False
        self._read_pauses = 0
        self._delayed_close: asyncio.TimerHandle | None = None

    @property
    def connection_info(self) -> ConnectionInfo:
        """What is known about the connection."""
        return self.info

    def flush(self) -> None:
        """Write what the codec gathered."""
        self._dirty = False
        if not self.closed:
            size = write_all(self.transport, self.codec.data_to_send())
            self.manager.stats.downstream_cx_tx_bytes_total += size
            self.sent += size

    def pause_reading(self) -> None:
        """Counted: several blockers may hold the connection."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed:
            self.manager.stats.downstream_flow_control_paused_reading_total += 1
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed:
            self.manager.stats.downstream_flow_control_resumed_reading_total += 1
            self.transport.resume_reading()

    def _close_after_flush(self, *, linger: bool = False) -> None:
        """Close when the output is written. With `linger` the peer is still sending: half-close, and drop what it sends for
        delayed_close_timeout, because closing at once would make the kernel discard our answer (RFC 9112, 9.6)."""
        if self._closing:
            return
        self.flush()
        self._closing = True
        transport = self.transport
        seconds = self.manager.config.delayed_close_timeout_s
        if linger and seconds > 0:
            try:
                transport.write_eof()
            except (OSError, RuntimeError):
                transport.abort()
                return
            transport.resume_reading()
        else:
            transport.close()
        unwritten = transport.get_write_buffer_size()
        if (linger or unwritten) and seconds > 0:
            self._delayed_close = self.context.loop.call_later(seconds, self._close_due, unwritten)

    def _close_due(self, unwritten: int) -> None:
        """delayed_close_timeout is over. As with Envoy a peer that took something of our output meanwhile gets more time."""
        left = self.transport.get_write_buffer_size()
        if left < unwritten:
            seconds = self.manager.config.delayed_close_timeout_s
            self._delayed_close = self.context.loop.call_later(seconds, self._close_due, left)
        else:
            self.transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self.transport.abort()
