"""Dubbo bodies in fastjson2: every item, strings included, is a 32-bit length and that many bytes of JSONB.

So the arguments are stepped over by their lengths, unseen. What refers to something else does so within its own item, which is
why an edit of the attachments concerns their item only.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from mesh_codecs.dubbo.body import AttachmentMemo, Attachments, Changes, plain_text
from mesh_codecs.dubbo.frame import FASTJSON2, HEADER_SIZE, with_body
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.fastjson2.jsonb import NOT_PLAIN, int_at, plain_at, read, skip, string_bytes

_I32: Final = Struct(">i")
_length: Final = _I32.unpack_from
_NONE: Final[frozenset[bytes]] = frozenset()
_NULL: Final = 0xAF
_OBJECT: Final = 0xA6
_OBJECT_END: Final = 0xA5
_TYPED: Final = 0x92
_SYMBOL: Final = 0x7F


def _truncated() -> RemoteProtocolError:
    return RemoteProtocolError("fastjson2.truncated")


def _item(frame: bytes, pos: int) -> tuple[int, int]:
    """The start and the end of the item at `pos`."""
    start = pos + 4
    if start > len(frame):
        raise _truncated()
    end = start + _length(frame, pos)[0]
    if not start < end <= len(frame):
        raise RemoteProtocolError("fastjson2.bad_length")
    return start, end


class FastJson2Body:
    """See `Body`."""

    __slots__ = ()

    def head_end(self, frame: bytes) -> int:
        pos = HEADER_SIZE
        size = len(frame)
        for _ in (0, 1, 2, 3, 4):
            if pos + 4 > size:
                raise IndexError
            length = _length(frame, pos)[0]
            if length < 0:
                return HEADER_SIZE
            pos += 4 + length
        return pos

    def parse_head(self, frame: bytes) -> InvocationHead:
        strings: list[bytes | None] = []
        pos = HEADER_SIZE
        for _ in range(5):
            start, pos = _item(frame, pos)
            strings.append(_text(frame[start:pos]))
        return InvocationHead(FASTJSON2, strings, pos)

    def real_method(self, frame: bytes, head: InvocationHead) -> bytes | None:
        start, end = _item(frame, head.arguments_at)
        return _text(frame[start:end])

    def attachments(self, frame: bytes, head: InvocationHead | None, memo: AttachmentMemo) -> Attachments | None:
        if head is not None:
            pos, count = head.arguments_at, head.argument_count
            if count < 0:
                return None
        else:
            kind = self.result_type(frame)
            if kind < 3:
                return None
            pos = _item(frame, HEADER_SIZE)[1]
            count = 1 if kind < 5 else 0
        for _ in range(count):
            pos = _item(frame, pos)[1]
        if pos == len(frame):
            return Attachments(pos, 0, {}, _NONE, None)
        start, end = _item(frame, pos)
        if end - start > memo.max_values:
            raise RemoteProtocolError("fastjson2.too_many_values")  # a byte is a value at worst
        try:
            return _read_map(frame[start:end], pos)
        except IndexError:
            raise _truncated() from None

    def edit(self, frame: bytes, found: Attachments, changes: Changes) -> bytes:
        at = found.at
        if at == len(frame):
            item, end = b"\xaf", at
        else:
            start, end = _item(frame, at)
            item = frame[start:end]
        edited = _edit(item, changes)
        if edited == item:
            return frame
        return with_body(frame, frame[HEADER_SIZE:at] + _I32.pack(len(edited)) + edited + frame[end:])

    def plain_argument(self, frame: bytes, head: InvocationHead, index: int, max_values: int) -> object:
        pos = head.arguments_at
        for _ in range(index):
            pos = _item(frame, pos)[1]
        start, end = _item(frame, pos)
        try:
            return plain_at(frame[start:end], 0)[0]
        except IndexError:
            raise _truncated() from None

    def arguments(self, frame: bytes, head: InvocationHead, count: int) -> list[object]:
        pos = head.arguments_at
        values: list[object] = []
        for _ in range(count):
            start, pos = _item(frame, pos)
            values.append(read(frame[start:pos])[0])
        return values

    def result_type(self, frame: bytes) -> int:
        start, end = _item(frame, HEADER_SIZE)
        try:
            kind = int_at(frame[start:end], 0)[0]
        except IndexError:
            raise _truncated() from None
        return kind if 0 <= kind <= 5 else -1


def _text(item: bytes) -> bytes | None:
    """An item that is a string or null."""
    try:
        value, end = plain_at(item, 0)
    except IndexError:
        raise _truncated() from None
    if end != len(item) or not (value is None or isinstance(value, str)):
        raise RemoteProtocolError("dubbo.bad_head", detail="no string")
    return None if value is None else value.encode("utf-8", "surrogatepass")


def _map_at(item: bytes) -> int:
    """The offset of the first key; -1 for null."""
    pos = 0
    if item[0] == _TYPED:
        # The type is a name with the number that it gets, or only a number.
        name, pos = plain_at(item, 1)
        if isinstance(name, str):
            pos = int_at(item, pos)[1]
    elif item[0] == _NULL:
        return -1
    if item[pos] != _OBJECT:
        raise RemoteProtocolError("dubbo.bad_attachments", detail=f"0x{item[pos]:02x} where an object was expected")
    return pos + 1


def _key_at(item: bytes, pos: int, symbols: dict[int, bytes]) -> tuple[bytes | None, int]:
    """A key as text and the offset after it; None for a key that has no text."""
    symbol = item[pos] == _SYMBOL
    if symbol:
        pos += 1
    value, end = plain_at(item, pos)
    if not symbol:
        if value is NOT_PLAIN:
            return None, skip(item, pos)
        return plain_text(value), end
    if isinstance(value, str):
        number, end = int_at(item, end)
        symbols[number] = value.encode("utf-8", "surrogatepass")
        return symbols[number], end
    if isinstance(value, int) and value in symbols:
        return symbols[value], end
    # Not named in this map: what the provider makes of it is out of sight, and it must not be a way around a rule.
    raise RemoteProtocolError("fastjson2.bad_tag", detail=f"0x{item[pos]:02x} in a symbol")


def _read_map(item: bytes, at: int) -> Attachments:
    values: dict[bytes, bytes] = {}
    others: set[bytes] = set()
    pos = _map_at(item)
    if pos > 0:
        symbols: dict[int, bytes] = {}
        while item[pos] != _OBJECT_END:
            key, pos = _key_at(item, pos, symbols)
            value, end = plain_at(item, pos)
            pos = skip(item, pos) if value is NOT_PLAIN else end
            if key is None:
                continue
            text = None if value is NOT_PLAIN else plain_text(value)
            if text is not None:
                values[key] = text
            else:
                values.pop(key, None)
            if value is NOT_PLAIN:
                others.add(key)
            else:
                others.discard(key)
    return Attachments(at, 0, values, frozenset(others), None)


def _edit(item: bytes, changes: Changes) -> bytes:
    """The item with the changes spliced in."""
    pos = _map_at(item)
    if pos < 0:
        added = _pairs(changes, ())
        return b"\xa6" + added + b"\xa5" if added else item
    pieces: list[bytes] = []
    kept = 0
    done: set[bytes] = set()
    leftover: set[bytes] = set()
    symbols: dict[int, bytes] = {}
    while item[pos] != _OBJECT_END:
        start = pos
        key, middle = _key_at(item, pos, symbols)
        value, pos = plain_at(item, middle)
        if value is NOT_PLAIN:
            pos = skip(item, middle)
        if key is None or key not in changes:
            continue
        new = changes[key]
        if value is NOT_PLAIN or (new is None and item[start] == _SYMBOL):
            # Its symbols or itself may be referred to: leave it, and override it at the end.
            leftover.add(key)
            continue
        pieces.append(item[kept:start])
        kept = pos
        if item[start] == _SYMBOL or (new is not None and key not in done):
            pieces.append(item[start:middle])
            pieces.append(b"\xaf" if new is None else string_bytes(new))
            done.add(key)
    done -= leftover
    pieces.append(item[kept:pos])
    pieces.append(_pairs(changes, done))
    pieces.extend(string_bytes(key) + b"\xaf" for key in sorted(leftover) if changes[key] is None)
    pieces.append(item[pos:])
    return b"".join(pieces)


def _pairs(changes: Changes, done: set[bytes] | tuple[()]) -> bytes:
    return b"".join(
        string_bytes(key) + string_bytes(value) for key, value in changes.items() if value is not None and key not in done
    )
