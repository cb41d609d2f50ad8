"""Primitive data of a Java object stream: bytes in blocks, with objects between the blocks.

`ObjectOutputStream` collects what `writeInt`, `writeUTF` and the like produce and writes it in blocks of at most 1024 bytes,
each with its length in front (Java Object Serialization Specification, 6.4: TC_BLOCKDATA, TC_BLOCKDATALONG). A value may
straddle blocks.
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.errors import RemoteProtocolError

STREAM_MAGIC: Final = b"\xac\xed\x00\x05"

TC_BLOCKDATA: Final = 0x77
TC_BLOCKDATALONG: Final = 0x7A

_WELL_FORMED: Final = re.compile(
    rb"(?:[\x00-\x7f]++|\xc0\x80|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf][\x80-\xbf])*+"
)


def truncated() -> RemoteProtocolError:
    """The error for a stream that goes on after the last byte."""
    return RemoteProtocolError("java.truncated")


def utf_to_utf8(raw: bytes) -> bytes:
    """Java's modified UTF-8 as UTF-8. Overlong forms other than that of NUL are refused.

    Raises:
        RemoteProtocolError: not well-formed.
    """
    if raw.isascii():
        return raw
    match = _WELL_FORMED.match(raw)
    if match is None or match.end() != len(raw):
        raise RemoteProtocolError("java.bad_string")
    raw = raw.replace(b"\xc0\x80", b"\x00")
    if b"\xed" not in raw:
        return raw
    wide = raw.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    return wide.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def utf_bytes(text: bytes) -> bytes:
    """UTF-8 as Java's modified UTF-8, without a length. What is no UTF-8 is taken for Latin-1."""
    if text.isascii() and b"\x00" not in text:
        return text
    try:
        decoded = text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    wide = decoded.encode("utf-16-le", "surrogatepass")
    units = "".join(map(chr, memoryview(wide).cast("H")))
    return units.encode("utf-8", "surrogatepass").replace(b"\x00", b"\xc0\x80")


class PrimitiveReader:
    """Reads primitive data that begins at `pos`, where `left` bytes of a block are still to be read."""

    __slots__ = ("data", "left", "pos")

    def __init__(self, data: bytes, pos: int, left: int = 0) -> None:
        self.data = data
        self.pos = pos
        self.left = left
        """bytes of the current block not yet read"""

    def take(self, count: int) -> bytes:
        """The next `count` bytes, from as many blocks as it takes.

        Raises:
            RemoteProtocolError: there are not so many before the next object or the end.
        """
        if count <= self.left:
            start = self.pos
            self.pos = start + count
            self.left -= count
            return self.data[start : self.pos]
        pieces: list[bytes] = []
        while count > self.left:
            pieces.append(self.data[self.pos : self.pos + self.left])
            count -= self.left
            self.pos += self.left
            self._next_block()
        pieces.append(self.data[self.pos : self.pos + count])
        self.pos += count
        self.left -= count
        return b"".join(pieces)

    def _next_block(self) -> None:
        data, pos = self.data, self.pos
        head = data[pos : pos + 5]
        if head[:1] == b"\x77" and len(head) > 1:
            self.left = head[1]
            self.pos = pos + 2
        elif head[:1] == b"\x7a" and len(head) == 5:
            self.left = int.from_bytes(head[1:], "big")
            self.pos = pos + 5
        else:
            raise truncated() if len(head) < 2 else RemoteProtocolError("java.no_block_data")
        if self.left > len(data) - self.pos:
            raise truncated()

    def int32(self) -> int:
        """`writeInt`."""
        return int.from_bytes(self.take(4), "big", signed=True)

    def utf(self) -> bytes:
        """`writeUTF`, as UTF-8."""
        return utf_to_utf8(self.take(int.from_bytes(self.take(2), "big")))
