"""Length-prefixed messages in a gRPC body: a flag byte, four bytes of length, the message (doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFIX: Final = Struct(">BL")
PREFIX_SIZE: Final = PREFIX.size
COMPRESSED: Final = 0x01
TRAILERS: Final = 0x80
"""gRPC-Web: this message holds the trailers"""


def frame(message: bytes, flag: int = 0) -> bytes:
    """A message with its prefix."""
    return PREFIX.pack(flag, len(message)) + message


class MessageCounter:
    """Counts the messages in one direction of a stream without keeping any of their bytes."""

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        """messages whose prefix has come"""
        self._left = 0
        """bytes of the current message still to come"""
        self._prefix = b""
        """the beginning of a prefix that was cut"""

    def feed(self, data: bytes) -> int:
        """Take a piece of the body; how many messages began in it."""
        at = 0
        size = len(data)
        found = 0
        left = self._left
        while True:
            if left:
                if left > size - at:
                    self._left = left - (size - at)
                    break
                at += left
                left = 0
            prefix = self._prefix
            if prefix:
                missing = PREFIX_SIZE - len(prefix)
                prefix += data[at : at + missing]
                at += missing
                if len(prefix) < PREFIX_SIZE:
                    self._prefix = prefix
                    self._left = 0
                    break
                self._prefix = b""
                left = int.from_bytes(prefix[1:], "big")
            elif at + PREFIX_SIZE <= size:
                left = int.from_bytes(data[at + 1 : at + PREFIX_SIZE], "big")
                at += PREFIX_SIZE
            else:
                self._prefix = data[at:]
                self._left = 0
                break
            found += 1
        self.count += found
        return found
