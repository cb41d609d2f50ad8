"""HPACK encoding (RFC 7541): (name, value) pairs into a header block.

What goes into the dynamic table decides the speed of both ends: a table that stands still lets us and the peer look up whole
blocks. So a field is indexed when it is seen for the second time, fields that change with every message never are, and once
the table is full an old entry gives way only now and then. Strings go out as they are: on the short ways of a mesh the Huffman
code costs more than its fifth of the bytes is worth (`huffman=True` turns it on).
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.headers import Pairs
from mesh_codecs.http2 import huffman
from mesh_codecs.http2.hpack_decoder import ENTRY_OVERHEAD
from mesh_codecs.http2.hpack_static import STATIC_COUNT, STATIC_FIELD, STATIC_NAME

NEVER_INDEXED: Final = frozenset({b"authorization", b"proxy-authorization", b"x-api-key"})
"""secrets: no hop may put them into a table that other requests can probe (RFC 7541, 7.1.3)"""
_SHORT_COOKIE: Final = 20
"""cookies shorter than this can be guessed through the table and count as secrets too"""
CHANGING: Final = frozenset(
    {
        b"age",
        b"content-length",
        b"date",
        b"etag",
        b"expires",
        b"grpc-timeout",
        b"if-modified-since",
        b"if-none-match",
        b"last-modified",
        b"location",
        b"set-cookie",
        b"traceparent",
        b"x-b3-spanid",
        b"x-b3-traceid",
        b"x-request-id",
    }
)
"""names whose values rarely come twice"""
_LARGEST_ENTRY: Final = 1024
"""bytes; a larger field would push out a quarter of the usual table"""
_SEEN_SIZE: Final = 128
"""fields remembered as seen once"""
_BLOCKS_PER_EVICTION: Final = 64
"""blocks between two insertions that push out an old entry"""

_BYTE: Final = [bytes((byte,)) for byte in range(256)]
_INDEXED: Final = _BYTE[0x80:]
"""index below 127 -> the whole field"""


class HpackEncoder:
    """Our dynamic table at the peer and the writing of blocks."""

    __slots__ = (
        "_blocks",
        "_by_name",
        "_by_pair",
        "_entries",
        "_huffman",
        "_inserted",
        "_pending_sizes",
        "_seen",
        "_size",
        "ceiling",
        "changed",
        "settled",
        "table_size",
    )

    def __init__(self, ceiling: int = 4096, *, huffman: bool = False) -> None:
        self.ceiling = ceiling
        """the most that we use of what the peer offers, bytes"""
        self._huffman = huffman
        self.table_size = 4096
        self._pending_sizes: list[int] = []
        """size updates to announce at the start of the next block"""
        self._entries: list[tuple[bytes, bytes]] = []
        """oldest first"""
        self._size = 0
        self._inserted = 0
        """entries ever inserted; entry number n (from 0) has the index 61 + inserted - n"""
        self._by_pair: dict[tuple[bytes, bytes], int] = {}
        self._by_name: dict[bytes, int] = {}
        self._seen: dict[tuple[bytes, bytes], None] = {}
        self._blocks = 0
        self.settled = False
        """the last block would come out the same again"""
        self.changed = False
        """the last block changed the table: what was memoised before is void"""
        if ceiling < 4096:
            self.resize(4096)

    def resize(self, offered: int) -> None:
        """The peer set SETTINGS_HEADER_TABLE_SIZE."""
        size = min(offered, self.ceiling)
        if size == self.table_size and not self._pending_sizes:
            return
        # The smallest size in between must be told as well as the last one (RFC 7541, 4.2).
        if self._pending_sizes and size > self._pending_sizes[0]:
            self._pending_sizes[1:] = [size]
        else:
            self._pending_sizes = [size]
        self.table_size = size
        self._evict(size)

    @property
    def pending(self) -> bool:
        """A size update waits: the next block must be encoded, not looked up."""
        return bool(self._pending_sizes)

    def encode(self, pairs: Pairs) -> bytes:
        """One block. Names must be lower-case."""
        out: list[bytes] = []
        self.settled = True
        self.changed = False
        self._blocks += 1
        if self._pending_sizes:
            out.extend([encode_integer(0x20, 0x1F, size) for size in self._pending_sizes])
            self._pending_sizes = []
            self.settled = False
            self.changed = True
        by_pair = self._by_pair
        newest = STATIC_COUNT + self._inserted
        for pair in pairs:
            code = STATIC_FIELD.get(pair)
            if code is not None:
                out.append(code)
                continue
            number = by_pair.get(pair)
            if number is None:
                self._literal(pair, out)
                newest = STATIC_COUNT + self._inserted
            elif newest - number < 0x7F:
                out.append(_INDEXED[newest - number])
            else:
                out.append(encode_integer(0x80, 0x7F, newest - number))
        return b"".join(out)

    def _literal(self, pair: tuple[bytes, bytes], out: list[bytes]) -> None:
        name, value = pair
        first, mask = 0x00, 0x0F
        if name in NEVER_INDEXED or (name == b"cookie" and len(value) < _SHORT_COOKIE):
            first = 0x10
        elif name not in CHANGING and self._wants_index(pair):
            first, mask = 0x40, 0x3F
        index = STATIC_NAME.get(name, 0)
        if not index:
            number = self._by_name.get(name)
            if number is not None:
                index = STATIC_COUNT + self._inserted - number
        if index:
            out.append(encode_integer(first, mask, index))
        else:
            out.append(_BYTE[first])
            out.append(self._string(name))
        out.append(self._string(value))
        if first == 0x40:
            self._insert(pair)

    def _wants_index(self, pair: tuple[bytes, bytes]) -> bool:
        size = len(pair[0]) + len(pair[1]) + ENTRY_OVERHEAD
        if size > _LARGEST_ENTRY or size > self.table_size:
            return False
        if pair not in self._seen:
            if len(self._seen) >= _SEEN_SIZE:
                self._seen.clear()
            self._seen[pair] = None
            self.settled = False
            return False
        if self._size + size > self.table_size:
            if self._blocks < _BLOCKS_PER_EVICTION:
                return False
            self._blocks = 0
        del self._seen[pair]
        return True

    def _insert(self, pair: tuple[bytes, bytes]) -> None:
        size = len(pair[0]) + len(pair[1]) + ENTRY_OVERHEAD
        self._evict(self.table_size - size)
        self._size += size
        self._entries.append(pair)
        self._by_pair[pair] = self._inserted
        self._by_name[pair[0]] = self._inserted
        self._inserted += 1
        self.settled = False
        self.changed = True

    def _evict(self, target: int) -> None:
        entries = self._entries
        count = 0
        while self._size > target and count < len(entries):
            pair = entries[count]
            number = self._inserted - len(entries) + count
            self._size -= len(pair[0]) + len(pair[1]) + ENTRY_OVERHEAD
            if self._by_pair.get(pair) == number:
                del self._by_pair[pair]
            if self._by_name.get(pair[0]) == number:
                del self._by_name[pair[0]]
            count += 1
        del entries[:count]

    def _string(self, text: bytes) -> bytes:
        if self._huffman:
            coded = huffman.encode(text)
            if len(coded) < len(text):
                return encode_integer(0x80, 0x7F, len(coded)) + coded
        size = len(text)
        if size < 0x7F:
            return _BYTE[size] + text
        return encode_integer(0x00, 0x7F, size) + text

    def export_table(self) -> Pairs:
        """The entries, oldest first."""
        return self._entries.copy()

    def import_table(self, pairs: Pairs, table_size: int, pending_sizes: list[int]) -> None:
        """Take over what another encoder exported."""
        self._evict(-1)
        self.table_size = table_size
        for pair in pairs:
            self._insert(pair)
        self._pending_sizes = pending_sizes

    @property
    def pending_sizes(self) -> list[int]:
        """Size updates not yet announced."""
        return self._pending_sizes.copy()


def encode_integer(first: int, mask: int, value: int) -> bytes:
    """An integer with a prefix of the bits in `mask`, other bits of the first byte from `first` (RFC 7541, 5.1)."""
    if value < mask:
        return _BYTE[first | value]
    out = bytearray((first | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
