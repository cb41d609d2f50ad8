"""One end of the conversation: messages with descriptors over a unix stream socket, for an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from mesh_hotrestart.messages import (
    HEAD,
    PROTOCOL_VERSION,
    Message,
    NotUnderstood,
    VersionMismatch,
    WireError,
    decode,
    decode_head,
    encode,
)
from mesh_hotrestart.stream import DescriptorStream


class Link(DescriptorStream):
    """`on_message(message, descriptors)` gets each message and owns its descriptors; `on_end(why)` comes once, with an empty
    text when the peer just closed. Nothing comes after `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[str], None],
    ) -> None:
        super().__init__(loop, sock)
        self._on_message = on_message
        self._on_end = on_end
        self.farewell: Message | None = None
        """what the peer is told if this end must break off"""

    def send(self, message: Message, descriptors: Sequence[int] = (), *, version: int = PROTOCOL_VERSION) -> None:
        """Queue a message. Descriptors are duplicated and stay the caller's. A closed link drops it."""
        if not self.closed:
            self._queue(encode(message, len(descriptors), version=version), descriptors)

    def _ended(self, why: str) -> None:
        self._on_end(why)

    def _end(self, why: str) -> None:
        if self.farewell is not None:
            self.send(self.farewell)
        super()._end(why)

    def _broken(self, error: WireError) -> None:
        if isinstance(error, VersionMismatch):
            self.send(NotUnderstood(what=str(error)))  # whose version tells the peer the same
        if not self.closed:
            self._end(str(error))

    def _take_frames(self) -> None:
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
                descriptors = self._descriptors(count)
                try:
                    message = decode(bytes(buffer[begin:middle]), bytes(buffer[middle : middle + data_size]))
                except WireError:
                    self._in_fds.extend(descriptors)  # closed with the rest
                    raise
                position = middle + data_size
                self._on_message(message, descriptors)
                if self.closed:
                    return
        finally:
            if position:
                del buffer[:position]
