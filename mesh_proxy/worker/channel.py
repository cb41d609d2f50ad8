"""What supervisor and worker say to each other, and file descriptors, over a socket pair: a frame is a header (payload length,
number of descriptors) and a pickled message."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from mesh_hotrestart import MAX_DESCRIPTORS, DescriptorStream, WireError

_HEADER: Final = struct.Struct("!II")
MAX_FDS: Final = MAX_DESCRIPTORS
"""per message"""
MAX_MESSAGE: Final = 1 << 30
"""bytes; only a broken peer says more"""


class Channel(DescriptorStream):
    """One end. `on_message(message, fds)` gets each message and owns the descriptors; `on_close()` comes once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Any, list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(loop, sock)
        self._on_message = on_message
        self._on_close = on_close

    def send(self, message: object, fds: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors are duplicated, and stay the caller's. A closed channel drops it."""
        if not self.closed:
            payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
            self._queue(_HEADER.pack(len(payload), len(fds)) + payload, fds)

    def _ended(self, why: str) -> None:
        self._on_close()

    def _take_frames(self) -> None:
        buffer = self._in
        position = 0
        while len(buffer) - position >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(buffer, position)
            if length > MAX_MESSAGE or fd_count > MAX_FDS:
                raise WireError("a message is too large")
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            message = pickle.loads(memoryview(buffer)[position + _HEADER.size : end])
            position = end
            self._on_message(message, self._descriptors(fd_count))
            if self.closed:
                return
        if position:
            del buffer[:position]
