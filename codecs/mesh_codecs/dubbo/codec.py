"""From a stream of bytes to Dubbo messages.

Every read yields all the messages that it completes, each with its own slice of the bytes. Lengths are checked on the header,
before a byte of the body is kept. A body over the limit is stepped over as it arrives: the frame after it is read as ever, and
whoever waits for the message hears of it at once (`MessageTooLarge`). Java behaves worse: it throws, answers nothing, and takes
the rest of the body for telnet commands.

A wrong magic or a negative length ends the connection, for nobody can tell where the next frame starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh_codecs.dubbo.frame import FLAG_REQUEST, FLAG_TWO_WAY, HEADER, HEADER_SIZE, MAGIC, MAX_BODY, SERIALIZATION_MASK
from mesh_codecs.dubbo.memo import HeadMemo
from mesh_codecs.dubbo.message import DubboMessage
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.events import ConnectionEnded, ConnectionFailed

_unpack: Final = HEADER.unpack_from


@dataclass(slots=True)
class MessageTooLarge:
    """A message whose body is over the limit. It is not kept, and the connection goes on behind it."""

    request_id: int
    flags: int
    status: int
    length: int
    """bytes of body that the header announces"""

    @property
    def is_request(self) -> bool:
        """Otherwise a response."""
        return self.flags & FLAG_REQUEST != 0

    @property
    def two_way(self) -> bool:
        """The sender of the request waits for an answer."""
        return self.flags & (FLAG_REQUEST | FLAG_TWO_WAY) == FLAG_REQUEST | FLAG_TWO_WAY

    @property
    def serialization_id(self) -> int:
        """See `frame.SERIALIZATION_NAMES`."""
        return self.flags & SERIALIZATION_MASK


DubboEvent = DubboMessage | MessageTooLarge | ConnectionFailed | ConnectionEnded


class DubboCodec:
    """The receiving half of one connection, either side. What is sent are whole frames, which need no codec."""

    __slots__ = ("_buffer", "_need", "_to_discard", "closed", "max_body", "memo")

    def __init__(self, memo: HeadMemo, max_body: int = MAX_BODY) -> None:
        self.memo = memo
        """replace it when the route table is replaced"""
        self.max_body = max_body
        """bytes; a body over it becomes MessageTooLarge"""
        self.closed = False
        """the connection failed: nothing is read any more"""
        self._buffer = bytearray()
        """the start of a frame that is not complete"""
        self._need = HEADER_SIZE
        """bytes in the buffer that it takes to go on"""
        self._to_discard = 0
        """bytes still to come of a body over the limit"""

    @property
    def at_boundary(self) -> bool:
        """No frame is half read: the connection may be moved or closed without harm."""
        return not self._buffer and not self._to_discard

    @property
    def pending(self) -> bytes:
        """The bytes that were read and belong to no message yet; feed them first to whoever takes the connection over."""
        return bytes(self._buffer)

    @property
    def to_discard(self) -> int:
        """How many bytes of a body over the limit are still to come; state that moves with the connection."""
        return self._to_discard

    def resume(self, to_discard: int) -> None:
        """Take over a connection in the middle of a body over the limit."""
        self._to_discard = to_discard

    def receive_data(self, data: bytes) -> list[DubboEvent]:
        """The messages that these bytes complete, in order. Never raises for a fault of the peer."""
        if self.closed:
            return []
        if len(data) >= HEADER_SIZE and not self._buffer and not self._to_discard:
            # One whole frame, as nearly all reads are of who waits for each answer: no copy, no loop.
            magic, flags, status, request_id, length = _unpack(data)
            if length == len(data) - HEADER_SIZE and magic == 0xDABB and length <= self.max_body:
                return [DubboMessage(data, flags, status, request_id, self.memo)]
        events: list[DubboEvent] = []
        if self._to_discard:
            if len(data) <= self._to_discard:
                self._to_discard -= len(data)
                return events
            data = data[self._to_discard :]
            self._to_discard = 0
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need and (self._need > HEADER_SIZE or buffer[:2] == MAGIC):
                return events
            data = bytes(buffer)
            self._buffer = bytearray()
        memo = self.memo
        max_body = self.max_body
        pos = 0
        size = len(data)
        while size - pos >= HEADER_SIZE:
            magic, flags, status, request_id, length = _unpack(data, pos)
            end = pos + HEADER_SIZE + length
            if magic != 0xDABB or length < 0:
                return self._fail(events, "dubbo.bad_magic" if magic != 0xDABB else "dubbo.negative_length")
            if length > max_body:
                events.append(MessageTooLarge(request_id, flags, status, length))
                if end > size:
                    self._to_discard = end - size
                    return events
            elif end > size:
                self._need = HEADER_SIZE + length
                self._buffer += data[pos:]
                return events
            else:
                events.append(DubboMessage(data[pos:end], flags, status, request_id, memo))
            pos = end
        if pos < size:
            self._need = HEADER_SIZE
            self._buffer += data[pos:]
            if not MAGIC.startswith(data[pos : pos + 2]):
                return self._fail(events, "dubbo.bad_magic")
        return events

    def receive_eof(self) -> list[DubboEvent]:
        """The peer sends no more: an end between frames, or a failure within one."""
        if self.closed:
            return []
        self.closed = True
        if self.at_boundary:
            return [ConnectionEnded()]
        self._buffer = bytearray()
        return [ConnectionFailed(0, RemoteProtocolError("dubbo.truncated_frame"))]

    def _fail(self, events: list[DubboEvent], code: str) -> list[DubboEvent]:
        self.closed = True
        self._buffer = bytearray()
        events.append(ConnectionFailed(0, RemoteProtocolError(code)))
        return events

    def __repr__(self) -> str:
        state = "CLOSED" if self.closed else "OPEN"
        return f"<DubboCodec {state} buffered={len(self._buffer)} discarding={self._to_discard}>"
