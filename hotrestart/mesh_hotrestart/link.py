"""One end of the conversation: messages with descriptors over a unix stream socket, for an event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from mesh_hotrestart.fdpass import close_all, receive_with_descriptors, send_with_descriptors
from mesh_hotrestart.messages import (
    HEAD,
    MAX_DESCRIPTORS,
    PROTOCOL_VERSION,
    Message,
    NotUnderstood,
    VersionMismatch,
    WireError,
    decode,
    decode_head,
    encode,
)


class Link:
    """`on_message(message, descriptors)` gets each message and owns its descriptors; `on_end(why)` comes once, with an empty
    text when the peer just closed. Nothing comes after `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._in = bytearray()
        self._in_fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._writing = False
        self._drained: asyncio.Future[None] | None = None
        self.farewell: Message | None = None
        """what the peer is told if this end must break off"""
        self.closed = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def __repr__(self) -> str:
        return f"<Link queued={len(self._out)}{' closed' if self.closed else ''}>"

    def send(self, message: Message, descriptors: Sequence[int] = (), *, version: int = PROTOCOL_VERSION) -> None:
        """Queue a message. Descriptors are duplicated and stay the caller's. A closed link drops it."""
        if self.closed:
            return
        assert len(descriptors) <= MAX_DESCRIPTORS
        frame = memoryview(encode(message, len(descriptors), version=version))
        self._out.append((frame, [os.dup(fd) for fd in descriptors]))
        if not self._writing:
            self._writable()

    @property
    def queued(self) -> int:
        """Messages that the kernel has not taken yet."""
        return len(self._out)

    async def sent(self, timeout_s: float) -> bool:
        """Wait until the kernel has taken everything; False if it has not in that time."""
        if not self._out:
            return True
        self._drained = self._loop.create_future()
        await asyncio.wait([self._drained], timeout=timeout_s)
        return not self._out

    def close(self) -> None:
        """Close without a word to `on_end`."""
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

    def _drop_output(self) -> None:
        for _, fds in self._out:
            close_all(fds)
        self._out.clear()
        self._wake()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _end(self, why: str) -> None:
        if self.farewell is not None:
            self.send(self.farewell)
        self.close()
        self._on_end(why)

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

    def _readable(self) -> None:
        try:
            data, fds = receive_with_descriptors(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except WireError as error:
            self._end(str(error))
            return
        except OSError:
            self._end("")
            return
        self._in_fds.extend(fds)
        if not data:
            self._end("it broke off in the middle of a message" if self._in else "")
            return
        self._in += data
        try:
            self._take_messages()
        except WireError as error:
            if isinstance(error, VersionMismatch):
                self.send(NotUnderstood(what=str(error)))  # whose version tells the peer the same
            if not self.closed:
                self._end(str(error))

    def _take_messages(self) -> None:
        position = 0
        buffer = self._in
        try:
            while len(buffer) - position >= HEAD.size:
                version, count, text_size, data_size = decode_head(buffer, position)
                if version != PROTOCOL_VERSION:
                    raise VersionMismatch(version)
                begin = position + HEAD.size
                middle = begin + text_size
                if len(buffer) < middle + data_size:
                    break
                if len(self._in_fds) < count:
                    raise WireError("a message came without its file descriptors")
                message = decode(bytes(buffer[begin:middle]), bytes(buffer[middle : middle + data_size]))
                position = middle + data_size
                self._on_message(message, [self._in_fds.popleft() for _ in range(count)])
                if self.closed:
                    return
        finally:
            if position:
                del buffer[:position]
