"""The shell around a downstream Dubbo connection's transport: output once per turn, bounded; counted read pauses; closing."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.dubbo import DubboCodec
from mesh_proxy.network.transport import write_all
from mesh_proxy.stream.dubbo_consumer import DubboConsumer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.stream.info import ConnectionInfo

MAX_UNSENT: Final = 32 * 1024 * 1024
"""Bytes that wait for one consumer that does not read: four answers of the largest size. Its connection is closed beyond."""
MAX_UNSENT_ALL: Final = 256 * 1024 * 1024
"""… and for all such consumers of a manager together; beyond it a consumer has only UNSENT_SHARE."""
UNSENT_SHARE: Final = 1024 * 1024
CLOSE_FLUSH_S: Final = 1.0
"""How long a closing connection may take to write what is left."""
JOIN_LIMIT: Final = 16_384
"""Frames over this size are written in two pieces, which saves copying them once more."""


class DubboShell(DubboConsumer):
    """Abstract: `DubboConnection` adds what the messages mean.

    Has the methods of `asyncio.Protocol` without deriving from it: compiled classes with a base that is not compiled look up each
    attribute and method by name.
    """

    __slots__ = (
        "_closing",
        "_dirty",
        "_late",
        "_mover",
        "_offered",
        "_out",
        "_read_pauses",
        "_unsent",
        "codec",
        "context",
        "inherited",
        "last_activity",
        "transport",
        "write_blocked",
    )

    def __init__(self, manager: DubboManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        self.manager = manager
        self.stats = manager.stats
        self.info = info
        self.owner = owner
        self.context = manager.context
        self.codec = DubboCodec(manager.memo, manager.config.max_body_bytes)
        self.transport: asyncio.Transport
        self.last_activity = info.start_monotonic
        self.closed = False
        self.pinned = None
        self.write_blocked = False
        """the send buffer is above its high mark"""
        self.inherited = False
        """it began in the process before us, and was counted there"""
        self._mover: Mover | None = None
        self._offered = False
        """it is being moved: nobody reads from it, and answers wait"""
        self._late: Callable[[bytes], None] | None = None
        """it is a new process's; answers to what was asked here go this way"""
        self._closing = False
        self._dirty = False
        self._out: list[bytes] = []
        self._read_pauses = 0
        self._unsent = 0
        """our part of `manager.unsent`"""

    @property
    def connection_info(self) -> ConnectionInfo:
        """What is known about the connection."""
        return self.info

    def write(self, frame: bytes) -> None:
        """Write a frame at the end of this turn."""
        self._out.append(frame)
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def write_as(self, frame: bytes, id_bytes: bytes) -> None:
        """Write a frame under another id at the end of this turn."""
        out = self._out
        if len(frame) < JOIN_LIMIT:
            out.append(frame[:4] + id_bytes + frame[12:])
        else:
            out.append(frame[:4] + id_bytes)
            out.append(frame[12:])
        if not self._dirty:
            self._dirty = True
            self.context.dirty.append(self)

    def flush(self) -> None:
        """Write what was gathered."""
        self._dirty = False
        out = self._out
        if out and not self._offered:
            self._out = []
            if self._late is not None:
                self._late(b"".join(out))
            elif not self.closed and not self._closing:
                self.stats.cx_tx_bytes_total += write_all(self.transport, out)
                if self.write_blocked:
                    self._look_at_unsent()

    def _look_at_unsent(self) -> None:
        """A consumer that does not read must not hold up the others on its upstream connection, nor fill the memory."""
        manager = self.manager
        size = self.transport.get_write_buffer_size() if self.write_blocked and not self.closed else 0
        manager.unsent += size - self._unsent
        self._unsent = size
        if size > (MAX_UNSENT if manager.unsent < MAX_UNSENT_ALL else UNSENT_SHARE):
            self.stats.response_error_caused_connection_close += 1
            self.info.termination_details = "dubbo.consumer_does_not_read"
            self.give_up()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the connection's time-outs."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.write_blocked = True
        self._look_at_unsent()
        self.pause_reading()
        self.manager.write_stall_queue.add(self, monotonic())

    def resume_writing(self) -> None:
        self.write_blocked = False
        self._look_at_unsent()
        self.manager.write_stall_queue.discard(self)
        self.resume_reading()
        self.context.flush()

    def pause_reading(self) -> None:
        """Counted: several blockers may hold the connection."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed and self._late is None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed and not self._closing and not self._offered and self._late is None:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close when the output is written; a peer that does not take it soon is cut."""
        if self._closing or self.closed:
            return
        self.flush()
        self._closing = self.codec.closed = True
        self.transport.close()
        self.context.loop.call_later(CLOSE_FLUSH_S, self._cut)

    def _cut(self) -> None:
        if not self.closed:
            self.transport.abort()

    def give_up(self) -> None:
        """Close at once, without a word."""
        self._closing = self.codec.closed = True
        self.transport.abort()
