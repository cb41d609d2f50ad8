"""Dubbo bodies in Hessian 2: five strings, the arguments, a map of attachments, all in one Hessian stream.

The attachments stand after the arguments and may refer to what the arguments defined, so they are reached by stepping over the
arguments with the reference tables kept. Plain values (strings, numbers, null) take no place in those tables: changing them
disturbs no reference, and an edit is a splice.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo.body import AttachmentMemo, Attachments, Changes, plain_text
from mesh_codecs.dubbo.frame import HEADER_SIZE, HESSIAN2, with_body
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.read import NOT_PLAIN, Reader, plain_at
from mesh_codecs.hessian2.skip import Tables, find_ref, int_at, skip, type_end
from mesh_codecs.hessian2.text import raw_string, to_utf8, truncated
from mesh_codecs.hessian2.write import string_bytes

_NONE: Final[frozenset[bytes]] = frozenset()


MAX_ATTACHMENTS: Final = 16384
"""entries of one map of attachments that are read; a call has a dozen"""

_State = tuple[int, int, Tables, int]
"""What an edit must know again: where the values in front of the map begin, how many they are, the reference tables at the map,
and how many classes were defined in front of it."""


class Hessian2Body:
    """See `Body`."""

    __slots__ = ()

    def head_end(self, frame: bytes) -> int:
        pos = HEADER_SIZE
        for _ in (0, 1, 2, 3, 4):
            size = frame[pos]
            if size < 0x20:
                pos += size + 1
            elif size & 0xFC == 0x30:
                pos += (size - 0x30 << 8) + frame[pos + 1] + 2
            elif size == 0x4E:
                pos += 1
            else:
                return HEADER_SIZE
        return pos

    def parse_head(self, frame: bytes) -> InvocationHead:
        pos = HEADER_SIZE
        strings: list[bytes | None] = []
        for _ in range(5):
            text, pos = _text_or_null(frame, pos)
            strings.append(text)
        return InvocationHead(HESSIAN2, strings, pos)

    def real_method(self, frame: bytes, head: InvocationHead) -> bytes | None:
        return _text_or_null(frame, head.arguments_at)[0]

    def attachments(self, frame: bytes, head: InvocationHead | None, memo: AttachmentMemo) -> Attachments | None:
        if head is not None:
            start, count = head.arguments_at, head.argument_count
            if count < 0:
                return None
        else:
            kind, start = _result_type(frame)
            if kind < 3:
                return None
            count = 1 if kind < 5 else 0
        tables = Tables(memo.max_values)
        at = skip(frame, start, count, tables) if count else start
        state = (start, count, tables, len(tables.classes))
        # The whole rest of the body is the key: what follows the map belongs to it.
        tail = frame[at:]
        known = memo.get(tail)
        if known is not None:
            return Attachments(at, at + known.end, known.values, _NONE, state, known)
        try:
            found = _read_map(frame, at, state)
        except IndexError:
            raise truncated() from None
        if not found.others and tail[:1] == b"H":
            # Nothing but plain values: they mean the same whatever stood in front.
            memo.put(tail, found.end - at, found.values)
        return found

    def edit(self, frame: bytes, found: Attachments, changes: Changes) -> bytes:
        end = found.end
        if end and not any(key in found for key in changes):
            # Nothing is replaced or removed: add what is new in front of the closing mark.
            added = _pairs(changes, ())
            return with_body(frame, frame[HEADER_SIZE:end] + added + frame[end:]) if added else frame
        state: _State = found.state  # type: ignore[assignment]
        _, _, tables, classes = state
        del tables.classes[classes:]
        try:
            return _edit(frame, found.at, state, changes)
        except IndexError:
            raise truncated() from None

    def plain_argument(self, frame: bytes, head: InvocationHead, index: int, max_values: int) -> object:
        at = skip(frame, head.arguments_at, index, Tables(max_values)) if index else head.arguments_at
        try:
            return plain_at(frame, at)[0]
        except IndexError:
            raise truncated() from None

    def arguments(self, frame: bytes, head: InvocationHead, count: int) -> list[object]:
        reader = Reader(frame, head.arguments_at)
        return [reader.read() for _ in range(count)]

    def result_type(self, frame: bytes) -> int:
        return _result_type(frame)[0]


def _text_or_null(frame: bytes, pos: int) -> tuple[bytes | None, int]:
    if frame[pos : pos + 1] == b"N":
        return None, pos + 1
    raw, pos = raw_string(frame, pos)
    return to_utf8(raw), pos


def _result_type(frame: bytes) -> tuple[int, int]:
    try:
        kind, pos = int_at(frame, HEADER_SIZE)
    except IndexError:
        raise truncated() from None
    return (kind, pos) if 0 <= kind <= 5 else (-1, pos)


def _read_map(frame: bytes, at: int, state: _State) -> Attachments:
    """Read the map at `at`. IndexError: cut short."""
    tables = state[2]
    if at == len(frame) or frame[at] == 0x4E:
        return Attachments(at, 0, {}, _NONE, state)
    there = _referred(frame, at, state)
    pos = _entries_at(frame, there, tables)
    values: dict[bytes, bytes] = {}
    others: set[bytes] = set()
    ascii_only = frame[pos:].isascii()
    for _ in range(min(tables.left, MAX_ATTACHMENTS)):
        # Strings of up to 1023 characters have one of two forms; anything else takes the slower way.
        tag = frame[pos]
        if tag < 0x20:
            start = pos + 1
            end = start + tag
        elif tag & 0xFC == 0x30:
            start = pos + 2
            end = start + (tag - 0x30 << 8) + frame[pos + 1]
        elif tag == 0x5A:
            return Attachments(at, pos if there == at else 0, values, frozenset(others) if others else _NONE, state)
        else:
            start = end = 0
        key: bytes | None = frame[start:end]
        if not start or not (ascii_only or frame[start:end].isascii()):
            key, end, _ = _entry_part(frame, pos, tables)
        tag = frame[end]
        if tag < 0x20:
            start = end + 1
            pos = start + tag
        elif tag & 0xFC == 0x30:
            start = end + 2
            pos = start + (tag - 0x30 << 8) + frame[end + 1]
        else:
            start = 0
        if start and (ascii_only or frame[start:pos].isascii()):
            if key is not None:
                values[key] = frame[start:pos]
                if others:
                    others.discard(key)
            continue
        value, pos, plain = _entry_part(frame, end, tables)
        if key is None:
            continue
        if value is not None:
            values[key] = value
        else:
            values.pop(key, None)
        if not plain:
            others.add(key)
        else:
            others.discard(key)
    raise RemoteProtocolError("dubbo.too_many_attachments")


def _entry_part(frame: bytes, pos: int, tables: Tables) -> tuple[bytes | None, int, bool]:
    """A key or value as text (None for null and what is not plain), the offset after it, and whether it is plain."""
    tag = frame[pos]
    if tag < 0x20:
        end = pos + 1 + tag
        text = frame[pos + 1 : end]
        if text.isascii():
            return text, end, True
    plain, end = plain_at(frame, pos)
    if plain is NOT_PLAIN:
        return None, skip(frame, pos, 1, tables), False
    return plain_text(plain), end, True


def _referred(frame: bytes, at: int, state: _State) -> int:
    """Where the map really stands: elsewhere if `at` holds a reference to a map among the values in front."""
    if frame[at] != 0x51:
        return at
    start, count, _, _ = state
    return find_ref(frame, start, count, int_at(frame, at + 1)[0])


def _entries_at(frame: bytes, at: int, tables: Tables) -> int:
    """The offset of the first key of the map at `at`. The map enters the tables."""
    tag = frame[at]
    if tag == 0x48:
        pos = at + 1
    elif tag == 0x4D:
        pos = type_end(frame, at + 1, tables)
    else:
        raise RemoteProtocolError("dubbo.bad_attachments", detail=f"0x{tag:02x} where a map was expected")
    tables.refs += 1
    return pos


def _edit(frame: bytes, at: int, state: _State, changes: Changes) -> bytes:
    """Splice the changes in. IndexError: cut short."""
    tables = state[2]
    if at == len(frame) or frame[at] == 0x4E:
        added = _pairs(changes, ())
        if not added:
            return frame
        return with_body(frame, frame[HEADER_SIZE:at] + b"H" + added + b"Z" + frame[at + 1 :])
    if frame[at] == 0x51:
        # A reference to a map in the arguments: put a copy in its place, and change that. What the copy refers to keeps its
        # number, and a class or type that it spells out again is only listed twice.
        there = _referred(frame, at, state)
        _entries_at(frame, there, tables)
        copy = frame[there : skip(frame, there, 1, tables)]
        frame = frame[:at] + copy + frame[int_at(frame, at + 1)[1] :]
    pieces: list[bytes] = []
    kept = HEADER_SIZE
    done: set[bytes] = set()
    leftover: set[bytes] = set()
    pos = _entries_at(frame, at, tables)
    while frame[pos] != 0x5A:
        start = pos
        key, middle, _ = _entry_part(frame, pos, tables)
        before = (tables.refs, tables.types, len(tables.classes))
        _, pos, plain = _entry_part(frame, middle, tables)
        if key is None or key not in changes:
            continue
        if not plain and before != (tables.refs, tables.types, len(tables.classes)):
            # Something after it may refer into this value: leave it, and override it at the end of the map.
            leftover.add(key)
            continue
        value = changes[key]
        pieces.append(frame[kept:start])
        kept = pos
        if value is not None and key not in done:
            pieces.append(frame[start:middle])
            pieces.append(string_bytes(value))
            done.add(key)
    done -= leftover
    pieces.append(frame[kept:pos])
    pieces.append(_pairs(changes, done))
    pieces.extend(string_bytes(key) + b"N" for key in sorted(leftover) if changes[key] is None)
    pieces.append(frame[pos:])
    return with_body(frame, b"".join(pieces))


def _pairs(changes: Changes, done: set[bytes] | tuple[()]) -> bytes:
    """The attachments to set that are not there yet."""
    return b"".join(
        string_bytes(key) + string_bytes(value) for key, value in changes.items() if value is not None and key not in done
    )
