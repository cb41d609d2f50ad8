"""The shell around a downstream HTTP connection's transport, whatever its version: its beginning and end, output once per turn,
counted read pauses, closing without loss."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.transport import set_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.info import ConnectionInfo


class HttpShell(asyncio.Protocol):
    """Abstract: `HttpConnection`, `Http2Connection` and `Detection` add what the bytes mean."""

    __slots__ = (
        "_closing",
        "_delayed_close",
        "_dirty",
        "_drain_timer",
        "_mover",
        "_offered",
        "_read_pauses",
        "_remote_closed",
        "closed",
        "context",
        "info",
        "inherited",
        "last_activity",
        "manager",
        "moved",
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
        self._remote_closed = False
        self._dirty = False
        self._read_pauses = 0
        self.inherited = False
        """it began in the process before us, and was counted there"""
        self.moved = False
        """it is a new process's"""
        self._mover: Mover | None = None
        self._offered = False
        """it is being moved: nobody reads from it, and nothing is written"""
        self._delayed_close: asyncio.TimerHandle | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    @property
    def connection_info(self) -> ConnectionInfo:
        """What is known about the connection."""
        return self.info

    @property
    def being_moved(self) -> bool:
        """It is to go to another process as soon as it is idle."""
        return self._mover is not None

    # -- the beginning and the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast("asyncio.Transport", transport))  # uvloop has classes of its own
        self.owner.connection_opened(self)
        stats = self.manager.stats
        stats.downstream_cx_active += 1
        if self.info.tls is not None:
            stats.downstream_cx_ssl_total += 1
            stats.downstream_cx_ssl_active += 1
        if self.inherited:
            self._count_inherited()
            self._go_on()
        else:
            stats.downstream_cx_total += 1

    def attach(self, transport: asyncio.Transport) -> None:
        """Take a transport over; the connection was counted before."""
        self.transport = transport
        set_limits(transport, self.owner.buffer_limit)
        for queue in self.manager.connection_queues:
            queue.add(self, self.last_activity)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        now = monotonic()
        stats = self.manager.stats
        stats.downstream_cx_active -= 1
        if self.info.tls is not None:
            stats.downstream_cx_ssl_active -= 1
        if self.moved:
            self._lost(now)
            self.owner.connection_moved(self)
            return
        stats.downstream_cx_destroy += 1
        if self._remote_closed or exc is not None or not self._closing:
            stats.downstream_cx_destroy_remote += 1
        else:
            stats.downstream_cx_destroy_local += 1
        stats.downstream_cx_length_ms.record((now - self.info.start_monotonic) * 1000)
        self._lost(now)
        if self._delayed_close is not None:
            self._delayed_close.cancel()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        for queue in self.manager.connection_queues:
            queue.discard(self)
        self.owner.connection_closed(self)
        self.context.flush()

    def _lost(self, now: float) -> None:
        """The transport is gone: so are the streams."""
        raise NotImplementedError

    def _count_active_destroy(self) -> None:
        stats = self.manager.stats
        stats.downstream_cx_destroy_active_rq += 1
        stats.downstream_cx_destroy_remote_active_rq += 1

    # -- output and input

    def flush(self) -> None:
        """Write what the codec gathered."""
        raise NotImplementedError

    def _touch(self) -> None:
        """Flush at the end of this turn."""
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def _pause_transport(self) -> None:
        """Counted: several blockers may hold the connection."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed:
            self.manager.stats.downstream_flow_control_paused_reading_total += 1
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        """Undo one `_pause_transport`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed:
            self.manager.stats.downstream_flow_control_resumed_reading_total += 1
            self.transport.resume_reading()

    # -- closing

    def _close_after_flush(self, *, linger: bool = False) -> None:
        """Close when the output is written. With `linger` the peer is still sending: half-close, and drop what it sends for
        delayed_close_timeout, because closing at once would make the kernel discard our answer (RFC 9112, 9.6)."""
        if self._closing:
            return
        self._closing = True
        self.flush()
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

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the connection's time-outs is due, unless something happened since it was set."""
        raise NotImplementedError

    def close_when_idle(self) -> None:
        """Draining: say so, and end when nothing is in progress."""
        raise NotImplementedError

    # -- to another process, and from one

    def move(self, mover: Mover) -> None:
        """A new process serves: go there when nothing is in progress. A TLS session cannot."""
        if self.closed or self._closing:
            return
        if self.info.tls is not None or self.transport.get_extra_info("ssl_object") is not None:
            self.close_when_idle()
            return
        self._mover = mover
        self._offer()

    def _offer(self) -> None:
        """Offer the connection to the mover if nothing is in progress."""
        raise NotImplementedError

    def _codec_state(self) -> tuple[str, bytes] | None:
        """(protocol, state); None when something is in progress."""
        raise NotImplementedError

    def _count_inherited(self) -> None:
        """A connection that was moved to us is one of its protocol's active ones."""

    def _go_on(self) -> None:
        """Reading begins, or begins again; what was read before may wait unparsed."""

    def export(self) -> MovingState | None:
        """See `Movable`."""
        if self.closed or self._closing or self._remote_closed or self._mover is None:
            return None
        self.flush()
        transport = self.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)  # `resume_writing` comes when the caller has taken it all
            return None
        found = self._codec_state()
        if found is None:
            return None
        transport.pause_reading()
        self._offered = self._closing = True
        for queue in (*self.manager.connection_queues, self.manager.head_queue):
            if queue is not None:
                queue.discard(self)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        facts = {
            "start_monotonic": self.info.start_monotonic,
            "start_wall": self.info.start_wall,
            "last_activity": self.last_activity,
            "received": self.received,
            "sent": self.sent,
            "requests": getattr(self, "requests", 0),
            "application_protocols": self.info.application_protocols,
        }
        return MovingState(found[0], found[1], facts)

    def take_over(self, moved: MovingState) -> None:
        """Go on where another process stopped; before there is a transport. Raises ValueError or ProtocolError."""
        facts = moved.facts
        self.inherited = True
        self.last_activity = float(facts["last_activity"])
        self.received = int(facts["received"])
        self.sent = int(facts["sent"])

    def listener_name(self) -> str:
        """See `Movable`."""
        return self.owner.name

    def fileno(self) -> int:
        """See `Movable`."""
        return int(self.transport.get_extra_info("socket").fileno())

    def let_go(self, late: Callable[[bytes], None]) -> None:
        """See `Movable`. Nothing is in progress, so nothing is owed."""
        self.moved = True
        self.transport.abort()

    def stay(self) -> None:
        """See `Movable`."""
        if self.closed or (self._closing and not self._offered):
            return
        self._mover = None
        self._offered = self._closing = False
        set_limits(self.transport, self.owner.buffer_limit)
        for queue in self.manager.connection_queues:
            queue.add(self, self.last_activity)
        if not self._read_pauses:
            self.transport.resume_reading()
        self._go_on()

    def keep(self) -> None:
        """See `Movable`."""
        self.stay()
        if not self.closed:
            self.close_when_idle()

    def write_late(self, data: bytes) -> None:
        """HTTP owes nothing when it moves."""
