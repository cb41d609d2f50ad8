"""Frames with file descriptors over a unix stream socket, for an event loop: what every conversation between our processes needs.

Descriptors travel as SCM_RIGHTS with the first byte of their frame, and the kernel never delivers them later than that byte, so
that a queue of received descriptors and the count in a frame's head put the two together again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence

from mesh_hotrestart.fdpass import close_all, receive_with_descriptors, send_with_descriptors
from mesh_hotrestart.messages import MAX_DESCRIPTORS, WireError


class DescriptorStream:
    """One end. Abstract: a subclass knows what a frame is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._socket = sock
        self._in = bytearray()
        self._in_fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._writing = False
        self._drained: asyncio.Future[None] | None = None
        self.closed = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} queued={len(self._out)}{' closed' if self.closed else ''}>"

    # What a subclass adds.

    def _take_frames(self) -> None:
        """Take whole frames from `_in`, and their descriptors from `_in_fds`. Raises WireError."""
        raise NotImplementedError

    def _broken(self, error: WireError) -> None:
        """The peer sent what is no frame."""
        self._end(str(error))

    def _ended(self, why: str) -> None:
        """It is closed, and not by us; an empty text when the peer just closed."""
        raise NotImplementedError

    # Sending.

    def _queue(self, frame: bytes, descriptors: Sequence[int]) -> None:
        """Descriptors are duplicated and stay the caller's."""
        assert len(descriptors) <= MAX_DESCRIPTORS
        self._out.append((memoryview(frame), [os.dup(fd) for fd in descriptors]))
        if not self._writing:
            self._writable()

    @property
    def queued(self) -> int:
        """Frames that the kernel has not taken yet."""
        return len(self._out)

    async def sent(self, timeout_s: float) -> bool:
        """Wait until the kernel has taken everything; False if it has not in that time."""
        if not self._out:
            return True
        self._drained = self._loop.create_future()
        await asyncio.wait([self._drained], timeout=timeout_s)
        return not self._out

    def _writable(self) -> None:
        while self._out:
            frame, fds = self._out[0]
            try:
                sent = send_with_descriptors(self._socket, frame, fds)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._drop_output()  # the reader sees the end, after what the peer still had to say
                break
            close_all(fds)
            if sent == len(frame):
                self._out.popleft()
            else:
                self._out[0] = (frame[sent:], [])
        if self._out and not self._writing:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        elif not self._out and self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._writing = bool(self._out)
        if not self._out:
            self._wake()

    def _drop_output(self) -> None:
        for _, fds in self._out:
            close_all(fds)
        self._out.clear()
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Receiving.

    def receive_rest(self) -> None:
        """Read what a dead peer has left in the socket."""
        while not self.closed and self._readable():
            pass

    def _readable(self) -> bool:
        """Read once; False when there was nothing or this was the end."""
        try:
            data, fds = receive_with_descriptors(self._socket)
        except (BlockingIOError, InterruptedError):
            return False
        except WireError as error:
            self._end(str(error))
            return False
        except OSError:
            self._end("")
            return False
        self._in_fds.extend(fds)
        if not data:
            self._end("it broke off in the middle of a message" if self._in else "")
            return False
        self._in += data
        try:
            self._take_frames()
        except WireError as error:
            self._broken(error)
        return True

    def _descriptors(self, count: int) -> list[int]:
        """Those of the next frame."""
        if len(self._in_fds) < count:
            raise WireError("a message came without its file descriptors")
        return [self._in_fds.popleft() for _ in range(count)]

    # The end.

    def close(self) -> None:
        """Close without a word to `_ended`."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
            self._writing = False
        self._socket.close()
        self._drop_output()
        close_all(self._in_fds)
        self._in_fds.clear()

    def _end(self, why: str) -> None:
        self.close()
        self._ended(why)
