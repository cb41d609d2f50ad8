"""HPACK decoding (RFC 7541): a header block into (name, value) pairs.

A block whose decoding leaves the dynamic table alone is a pure function of its bytes until the table changes; `generation`
counts the changes so that callers can memoise what they made of a block.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.headers import Pairs
from mesh_codecs.http2 import huffman
from mesh_codecs.http2.hpack_static import STATIC, STATIC_COUNT

ENTRY_OVERHEAD: Final = 32
"""bytes added to name and value when a table entry or a header list is measured (RFC 7541, 4.1)"""
_MAX_INTEGER: Final = 1 << 28
"""no index, length or table size is larger; a longer coding is an attack"""
_MAX_SIZE_UPDATES: Final = 2
"""at the start of a block: the smallest size since the last block, then the final one (RFC 7541, 4.2)"""
_BOMB_FACTOR: Final = 2
"""a list this many times over a limit is no honest mistake and is not decoded to its end"""


class HpackError(Exception):
    """The block cannot be decoded: the connection has lost its table."""


class HeaderListTooLarge(Exception):
    """The block was decoded to its end, so the table is intact, but it holds more than we keep."""


class HeaderBomb(Exception):
    """The list passed a limit so far that decoding was stopped."""


class HpackDecoder:
    """The peer's dynamic table and the reading of its blocks."""

    __slots__ = (
        "_entries",
        "_largest",
        "_size",
        "added",
        "alone",
        "fresh",
        "generation",
        "limit",
        "max_count",
        "max_list_size",
        "suspect",
        "table_size",
    )

    def __init__(self, table_size: int, max_count: int, max_list_size: int) -> None:
        self._entries: list[tuple[bytes, bytes]] = []
        """oldest first"""
        self._size = 0
        self._largest = 100
        """no entry of either table is larger than this, as the table counts bytes"""
        self.table_size = 4096
        """the size in force; the protocol starts at 4096"""
        self.limit = max(4096, table_size)
        """the largest size that the peer may choose; lowered to our setting once the peer acknowledged it"""
        self.max_count = max_count
        self.max_list_size = max_list_size
        self.fresh: Pairs = []
        """the literal fields of the last block: all others came from a table and were seen before"""
        self.added: Pairs = []
        """those of them that the last block put into the table"""
        self.alone = True
        """the last block did not depend on the table: the same bytes always mean the same, and add the same"""
        self.suspect = False
        """for the user: the table may hold fields that were never checked, or failed"""
        self.generation = 0
        """goes up with every change of the table"""

    def decode(self, block: bytes) -> Pairs:
        """The pairs of one complete block.

        Raises:
            HpackError: the block is not HPACK.
            HeaderListTooLarge: over `max_count` or `max_list_size`; nothing is kept beyond the limit.
            HeaderBomb: over twice of either.
        """
        if self.table_size > self.limit and (not block or block[0] & 0xE0 != 0x20):
            raise HpackError("the table was not shrunk to the acknowledged size")
        if self.fresh:
            self.fresh = []
        if self.added:
            self.added = []
        self.alone = True
        pairs: Pairs = []
        pos = 0
        end = len(block)
        try:
            if end and block[0] & 0xE0 == 0x20:
                self.alone = False
                pos = self._size_updates(block)
            # A field takes a byte at least, so that many bytes cannot break the limit on fields: it is looked at in between.
            while pos < end:
                pos = self._fields(block, pos, min(end, pos + max(self.max_count - len(pairs), 1)), pairs)
                if len(pairs) > self.max_count:
                    self._skip_rest(block, pos, pairs)
                    raise HeaderListTooLarge
        except IndexError:
            raise HpackError("index beyond the table, or block cut off") from None
        # Usually even the coarsest estimate is far from the limit.
        if len(pairs) * (self._largest + ENTRY_OVERHEAD) + 2 * end > self.max_list_size:
            self._check_size(pairs)
        return pairs

    def _fields(self, block: bytes, pos: int, stop: int, pairs: Pairs) -> int:
        """Decode the fields that begin before `stop`; where the next one begins. An IndexError means a bad block."""
        entries = self._entries
        while pos < stop:
            byte = block[pos]
            pos += 1
            if byte >= 0x80:  # indexed field
                index = byte & 0x7F
                if index == 0x7F:
                    index, pos = _integer(block, pos, 0x7F)
                if index > STATIC_COUNT:
                    self.alone = False
                    pairs.append(entries[STATIC_COUNT - index])
                elif index:
                    pairs.append(STATIC[index])
                else:
                    raise HpackError("index 0")
            elif byte & 0xE0 == 0x20:
                raise HpackError("size update after a field")
            else:  # literal: 01 with indexing, 0000 without, 0001 never indexed
                mask = 0x3F if byte & 0x40 else 0x0F
                index = byte & mask
                if index == mask:
                    index, pos = _integer(block, pos, mask)
                if not index:
                    name, pos = _string(block, pos)
                elif index <= STATIC_COUNT:
                    name = STATIC[index][0]
                else:
                    self.alone = False
                    name = entries[STATIC_COUNT - index][0]
                value, pos = _string(block, pos)
                pair = (name, value)
                if byte & 0x40:
                    self._add(pair)
                    self.added.append(pair)
                self.fresh.append(pair)
                pairs.append(pair)
        return pos

    def _skip_rest(self, block: bytes, pos: int, pairs: Pairs) -> None:
        """Too many fields: keep none, but read on so that the table stays in step."""
        count = len(pairs)
        end = len(block)
        while pos < end:
            pairs.clear()
            pos = self._fields(block, pos, min(end, pos + self.max_count), pairs)
            count += len(pairs)
            if count > _BOMB_FACTOR * self.max_count:
                raise HeaderBomb

    def _check_size(self, pairs: Pairs) -> None:
        size = ENTRY_OVERHEAD * len(pairs)
        for name, value in pairs:
            size += len(name) + len(value)
        if size > _BOMB_FACTOR * self.max_list_size:
            raise HeaderBomb
        if size > self.max_list_size:
            raise HeaderListTooLarge

    def _size_updates(self, block: bytes) -> int:
        pos = 0
        for _ in range(_MAX_SIZE_UPDATES):
            size = block[pos] & 0x1F
            pos += 1
            if size == 0x1F:
                size, pos = _integer(block, pos, 0x1F)
            if size > self.limit:
                raise HpackError("table size beyond the limit")
            self.table_size = size
            self._evict(size)
            self.generation += 1
            if pos >= len(block) or block[pos] & 0xE0 != 0x20:
                return pos
        raise HpackError("too many size updates")

    def _add(self, pair: tuple[bytes, bytes]) -> None:
        self.generation += 1
        size = len(pair[0]) + len(pair[1]) + ENTRY_OVERHEAD
        if self._size + size > self.table_size:
            self._evict(self.table_size - size)
            if size > self.table_size:
                return
        self._size += size
        self._entries.append(pair)
        if size > self._largest:
            self._largest = size

    def repeat(self, pairs: Pairs, size: int) -> None:
        """Do to the table what a block did that is known to stand `alone`: `size` is that of its `added` entries together."""
        self.generation += 1
        if size > self.table_size:
            for pair in pairs:
                self._add(pair)
            return
        if self._size + size > self.table_size:
            self._evict(self.table_size - size)
        self._size += size
        self._entries += pairs

    def _evict(self, target: int) -> None:
        """Drop the oldest entries until the table takes at most `target` bytes."""
        entries = self._entries
        size = self._size
        count = 0
        while size > target and count < len(entries):
            pair = entries[count]
            size -= len(pair[0]) + len(pair[1]) + ENTRY_OVERHEAD
            count += 1
        del entries[:count]
        self._size = size

    def export_table(self) -> Pairs:
        """The entries, oldest first."""
        return self._entries.copy()

    def import_table(self, pairs: Pairs, table_size: int) -> None:
        """Take over a table that another decoder exported."""
        self._evict(-1)
        self.table_size = table_size
        for pair in pairs:
            self._add(pair)


def _integer(block: bytes, pos: int, value: int) -> tuple[int, int]:
    """The rest of a prefixed integer whose prefix was all ones (RFC 7541, 5.1)."""
    end = len(block)
    shift = 0
    while pos < end:
        byte = block[pos]
        pos += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MAX_INTEGER:
                break
            return value, pos
        shift += 7
        if shift > 28:
            break
    raise HpackError("integer cut off or too large")


def _string(block: bytes, pos: int) -> tuple[bytes, int]:
    """A string literal (RFC 7541, 5.2)."""
    if pos >= len(block):
        raise HpackError("string cut off")
    byte = block[pos]
    size = byte & 0x7F
    pos += 1
    if size == 0x7F:
        size, pos = _integer(block, pos, 0x7F)
    end = pos + size
    if end > len(block):
        raise HpackError("string cut off")
    text = block[pos:end]
    if byte & 0x80:
        decoded = _huffman_memo.get(text)
        if decoded is None:
            decoded = _huffman_text(text)
        return decoded, end
    return text, end


_HUFFMAN_MEMO_SIZE: Final = 512
_HUFFMAN_MEMO_LONGEST: Final = 64
_huffman_memo: dict[bytes, bytes] = {}
"""coded -> plain text of short strings, shared by all connections: names and common values repeat without end"""


def _huffman_text(coded: bytes) -> bytes:
    text = huffman.decode(coded)
    if text is None:
        raise HpackError("bad Huffman coding")
    if len(coded) <= _HUFFMAN_MEMO_LONGEST:
        if len(_huffman_memo) >= _HUFFMAN_MEMO_SIZE:
            _huffman_memo.clear()
        _huffman_memo[coded] = text
    return text
