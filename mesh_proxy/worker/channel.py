"""A message channel over a unix stream socket that also carries file descriptors, for an event loop.

A frame is a header (payload length, number of file descriptors) and a pickled message. Descriptors travel as SCM_RIGHTS with
the first byte of their frame, and the kernel never delivers them later than that byte, so that a queue of received
descriptors and the count in the header put the two together again.
"""

from __future__ import annotations

import array
import asyncio
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

_HEADER: Final = struct.Struct("!II")
_READ_SIZE: Final = 256 * 1024
_FD_SIZE: Final = array.array("i").itemsize
MAX_FDS: Final = 128
"""per message; the kernel takes at most 253 (SCM_MAX_FD)"""
MAX_MESSAGE: Final = 1 << 30
"""bytes; only a broken peer says more"""


class Channel:
    """One end. `on_message(message, fds)` gets each message and owns the descriptors; `on_close()` comes once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Any, list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_message = on_message
        self._on_close = on_close
        self._in = bytearray()
        self._in_fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._writing = False
        self.closed = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)

    def __repr__(self) -> str:
        return f"<Channel fd={self._socket.fileno()} queued={len(self._out)}{' closed' if self.closed else ''}>"

    def send(self, message: object, fds: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors are duplicated, and stay the caller's. A closed channel drops it."""
        if self.closed:
            return
        assert len(fds) <= MAX_FDS
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        frame = memoryview(_HEADER.pack(len(payload), len(fds)) + payload)
        self._out.append((frame, tuple(os.dup(fd) for fd in fds)))
        if not self._writing:
            self._writable()

    def receive_rest(self) -> None:
        """Read what a dead peer has left in the socket."""
        while not self.closed and self._readable():
            pass

    def close(self) -> None:
        """Close without calling on_close."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._discard_output()
        while self._in_fds:
            os.close(self._in_fds.popleft())

    def _discard_output(self) -> None:
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        self._out.clear()

    def _lost(self) -> None:
        self.close()
        self._on_close()

    def _writable(self) -> None:
        while self._out:
            data, fds = self._out[0]
            try:
                if fds:
                    rights = array.array("i", fds)
                    sent = self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                else:
                    sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._discard_output()  # the reader sees the end of file and says so, after what is still to be read
                break
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], ())
        if self._out and not self._writing:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        elif not self._out and self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._writing = bool(self._out)

    def _on_readable(self) -> None:
        self._readable()

    def _readable(self) -> bool:
        """Read once; False when there was nothing or this was the end."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _READ_SIZE, socket.CMSG_SPACE(MAX_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lost()
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % _FD_SIZE])
                self._in_fds.extend(fds)
        if not data or flags & socket.MSG_CTRUNC:
            self._lost()
            return False
        self._in += data
        self._take_messages()
        return True

    def _take_messages(self) -> None:
        buffer = self._in
        position = 0
        while len(buffer) - position >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(buffer, position)
            if length > MAX_MESSAGE or fd_count > MAX_FDS:
                self._lost()
                return
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            message = pickle.loads(memoryview(buffer)[position + _HEADER.size : end])
            position = end
            self._on_message(message, [self._in_fds.popleft() for _ in range(fd_count)])
            if self.closed:
                return
        if position:
            del buffer[:position]
