"""Bytes that go from one socket to another without passing through this process, by `splice(2)` and a pipe.

A direction of a TCP proxy's connection that has shown to carry much is taken from its transports: the source's is paused, and
when the sink's has written what it had, readiness of the source calls us. What comes is moved into a pipe and from there on at
once; only what the sink does not take stays in the pipe, and until it is gone nothing more is read. So a pipe is a bounded
buffer, and back-pressure is the kernel's.

Whatever is unusual goes back to the transports, which know it: at the end of the stream the source's transport reads on, and
finds the same end. A direction whose pieces have become small goes back too: small pieces are cheaper to read and write.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import Final, Protocol

from mesh_proxy.network.transport import WATERMARK_HIGH, set_limits
from mesh_proxy.tls.transport import TlsTransport

PIPE_SIZE: Final = 262_144
"""bytes that a pipe may hold, and what is moved at a time; a read by a transport takes about as much"""
LARGE: Final = 65_536
"""a read of so many bytes is a sign of much"""
SIGNS: Final = 8
"""so many of them, not fewer, without small ones between make a direction worth it"""
SMALL: Final = 8192
"""a piece below this is a sign of the end of much, and `SIGNS` of them are the end"""
MOST: Final = 128
"""directions at a time in a worker: each takes two descriptors, and the kernel grants a user only so much memory in pipes"""
IDLE_PIPES: Final = 8
"""kept for the next ones"""
DESCRIPTORS: Final = 0.5
"""share of the descriptors in use up to which splicing may take some"""

_FLAGS: Final = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)
_REFUSALS: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})
"""not an error of a socket: this kernel, or what filters its calls, does no such thing"""


class SpliceOwner(Protocol):
    """Whose bytes they are: the protocol of the source."""

    def bytes_moved(self, size: int) -> None:
        """So many bytes have come from the source."""

    def sink_full(self, full: bool) -> None:
        """The sink takes no more for now, or takes again."""

    def splice_ended(self) -> None:
        """The source's transport reads again."""

    def splice_failed(self, sink: bool) -> None:
        """The source's socket, or the sink's, has an error, of which no transport will hear."""


class Splices:
    """Those of a worker: its pipes, and an epoll of their own.

    The loop does not watch the descriptors of its transports, and uvloop says nothing of a socket with an error; so it watches
    our epoll, and that the sockets. It is made by the first splice.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.used = 0
        self.refused = not hasattr(os, "splice")
        """it cannot be done here"""
        self._idle: list[tuple[int, int]] = []
        self._epoll: select.epoll | None = None
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}

    def take(self) -> tuple[int, int]:
        """Reading and writing end of an empty pipe. Raises OSError."""
        if self._epoll is None:
            self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
            self._loop.add_reader(self._epoll.fileno(), self._ready)
        if self._idle:
            pipe = self._idle.pop()
        else:
            pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                pass  # the user has no more memory for pipes: a smaller one does as well
        self.used += 1
        return pipe

    def give_back(self, pipe: tuple[int, int]) -> None:
        """It is empty."""
        self.used -= 1
        if len(self._idle) < IDLE_PIPES:
            self._idle.append(pipe)
        else:
            for end in pipe:
                os.close(end)

    def watch(self, reading: int, call: Callable[[], None] | None) -> None:
        """Call when there is something to read, or an error; None: no more. Raises OSError."""
        self._watch(self._readers, reading, call)

    def watch_writing(self, writing: int, call: Callable[[], None] | None) -> None:
        """The same for room to write."""
        self._watch(self._writers, writing, call)

    def _watch(self, table: dict[int, Callable[[], None]], descriptor: int, call: Callable[[], None] | None) -> None:
        assert self._epoll is not None
        before = self._mask(descriptor)
        if call is None:
            table.pop(descriptor, None)
        else:
            table[descriptor] = call
        mask = self._mask(descriptor)
        if mask == before:
            return
        if not before:
            try:
                self._epoll.register(descriptor, mask)
            except OSError:
                del table[descriptor]
                raise
        elif mask:
            self._epoll.modify(descriptor, mask)
        else:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                pass  # a closed socket has gone by itself

    def _mask(self, descriptor: int) -> int:
        reading = select.EPOLLIN if descriptor in self._readers else 0
        return reading | select.EPOLLOUT if descriptor in self._writers else reading

    def _ready(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0, MOST):
            if events & ~select.EPOLLOUT and (call := self._readers.get(descriptor)) is not None:
                call()
            if events & ~select.EPOLLIN and (call := self._writers.get(descriptor)) is not None:
                call()

    def close(self) -> None:
        """No connection is left."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        for pipe in self._idle:
            for end in pipe:
                os.close(end)
        self._idle.clear()

    def can_take(self, source: asyncio.Transport, sink: asyncio.Transport, limit: int) -> bool:
        """Both are sockets as they are, buffers may be as large as a pipe's, and there is room for one more."""
        return (
            not self.refused
            and self.used < MOST
            and not 0 < limit < WATERMARK_HIGH
            and not isinstance(source, TlsTransport)
            and not isinstance(sink, TlsTransport)
        )


class Splice:
    """One direction, from the moment that it is wanted until it ends."""

    __slots__ = (
        "_blocked",
        "_left",
        "_limit",
        "_owner",
        "_pipe",
        "_reading",
        "_running",
        "_sink",
        "_sink_fd",
        "_small",
        "_source",
        "_source_fd",
        "_splices",
    )

    def __init__(
        self, splices: Splices, owner: SpliceOwner, source: asyncio.Transport, sink: asyncio.Transport, limit: int
    ) -> None:
        self._splices = splices
        self._owner = owner
        self._source = source
        self._sink = sink
        self._limit = limit
        self._running = False
        self._source_fd = self._sink_fd = -1
        self._pipe = (-1, -1)
        self._left = 0
        """bytes in the pipe"""
        self._small = 0
        """pieces, one after the other"""
        self._reading = self._blocked = False

    def want(self) -> None:
        """Stop reading; `sink_empty` is to be called when the sink's protocol is next told to `resume_writing`."""
        self._source.pause_reading()
        self._sink.set_write_buffer_limits(0, 0)
        self.sink_empty()

    def sink_empty(self) -> None:
        """The sink's transport may have written all that it had: then begin."""
        if self._running or self._sink.get_write_buffer_size() or self._source.is_closing() or self._sink.is_closing():
            return
        try:
            self._pipe = self._splices.take()
        except OSError:
            self._resign()
            return
        self._source_fd = self._source.get_extra_info("socket").fileno()
        self._sink_fd = self._sink.get_extra_info("socket").fileno()
        self._running = True
        self._go_on()

    def stop(self) -> None:
        """The connection ends: the sink's transport gets what it is owed."""
        if not self._running:
            return
        self._running = False
        self._unwatch()
        while self._left:
            piece = os.read(self._pipe[0], self._left)
            self._left -= len(piece)
            self._sink.write(piece)
        self._splices.give_back(self._pipe)

    def _resign(self) -> None:
        """The transports go on."""
        self.stop()
        set_limits(self._sink, self._limit)
        self._owner.splice_ended()
        if not self._sink.get_write_buffer_size():  # else its protocol will be told when it has written that
            self._source.resume_reading()

    def _fail(self, error: OSError, *, sink: bool) -> None:
        if error.errno in _REFUSALS:
            self._splices.refused = True
            self._resign()
            return
        if sink:
            while self._left:
                self._left -= len(os.read(self._pipe[0], self._left))
        self.stop()
        self._owner.splice_failed(sink)

    def _go_on(self) -> None:
        try:
            self._watch()
        except OSError:  # the kernel has no room to watch one more
            self._resign()

    def _watch(self) -> None:
        """The source if the pipe is empty, else the sink."""
        if self._left:
            if not self._blocked:
                self._unwatch()
                self._splices.watch_writing(self._sink_fd, self._drain)
                self._blocked = True
                self._owner.sink_full(True)
        elif not self._reading:
            if self._blocked:
                self._owner.sink_full(False)
            self._unwatch()
            self._splices.watch(self._source_fd, self._fill)
            self._reading = True

    def _unwatch(self) -> None:
        if self._reading:
            self._reading = False
            self._splices.watch(self._source_fd, None)
        if self._blocked:
            self._blocked = False
            self._splices.watch_writing(self._sink_fd, None)

    def _fill(self) -> None:
        """The source is readable, and the pipe is empty."""
        try:
            size = os.splice(self._source_fd, self._pipe[1], PIPE_SIZE, flags=_FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error, sink=False)
            return
        if not size:
            self._resign()
            return
        self._left = size
        self._owner.bytes_moved(size)
        self._small = self._small + 1 if size < SMALL else 0
        self._drain()

    def _drain(self) -> None:
        """Move on what is in the pipe."""
        try:
            self._left -= os.splice(self._pipe[0], self._sink_fd, self._left, flags=_FLAGS)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(error, sink=True)
            return
        if not self._left and self._small >= SIGNS:
            self._resign()
        elif self._running:
            self._go_on()
