"""Dubbo bodies in JDK serialization: java, compactedjava and nativejava.

The five strings are primitive data in front of the first object, so they can always be read. In java and compactedjava a string
is its length in characters (-1 for null) in front of `writeUTF`, and a byte in front of every object says whether it is null.
nativejava has neither. The attachments are an object behind the arguments: reached by stepping over those, where the format
allows it; where it does not, the message is routed by its head alone.

A map in the stream may share its strings with any other object, so an edit replaces nothing: it appends entries, of which the
last one of a key counts when Java reads the map, and corrects their number. Removing is appending a null.
"""

from __future__ import annotations

import sys
from typing import Final

from mesh_codecs.dubbo.body import AttachmentMemo, Attachments, Changes, plain_text
from mesh_codecs.dubbo.frame import COMPACTED_JAVA, HEADER_SIZE, NATIVE_JAVA, with_body
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.hessian2.values import Opaque
from mesh_codecs.java_serialization.primitives import STREAM_MAGIC, PrimitiveReader, utf_bytes
from mesh_codecs.java_serialization.read import ObjectReader
from mesh_codecs.java_serialization.walker import MapEntries, Unreachable

_BODY: Final = HEADER_SIZE + len(STREAM_MAGIC)
_NONE: Final[frozenset[bytes]] = frozenset()

_PLAIN_HASHMAP: Final = bytes.fromhex(
    "737200116a6176612e7574696c2e486173684d61700507dac1c31660d103000246000a6c6f6164466163746f724900097468726573686f6c64"
    "78703f4000000000000c770800000010"
)
_COMPACT_HASHMAP: Final = bytes.fromhex("73720100116a6176612e7574696c2e486173684d617078703f4000000000000c770800000010")
"""A HashMap up to the number of its entries."""


class _Items:
    """The items of a body in order: primitive data, objects, and the byte in front of an object."""

    __slots__ = ("flagged", "primitives", "walker")

    def __init__(self, frame: bytes, pos: int, left: int, serialization: int, max_values: int = sys.maxsize) -> None:
        self.flagged = serialization != NATIVE_JAVA
        self.primitives = PrimitiveReader(frame, pos, left)
        self.walker = ObjectReader(frame, pos, serialization == COMPACTED_JAVA, max_values)

    def begin(self) -> bool:
        """Go to the next object; False when the byte in front says that it is null."""
        if self.flagged and self.primitives.take(1) == b"\x00":
            return False
        if self.primitives.left:
            raise RemoteProtocolError("java.bad_tag", detail="primitive data where an object was expected")
        self.walker.pos = self.primitives.pos
        return True

    def end(self) -> None:
        """The walker stepped over an object."""
        self.primitives.pos = self.walker.pos

    def skip(self) -> None:
        if self.begin():
            self.walker.skip()
            self.end()

    def value(self) -> object:
        if not self.begin():
            return None
        value = self.walker.value()
        self.end()
        return value


class _State:
    """What an edit must know: the place of the map, or of the null in its stead."""

    __slots__ = ("entries", "null_end")

    def __init__(self, entries: MapEntries | None, null_end: int) -> None:
        self.entries = entries
        self.null_end = null_end
        """offset after the null; 0 when a map cannot be put there"""


class JavaBody:
    """See `Body`."""

    __slots__ = ("_serialization",)

    def __init__(self, serialization: int) -> None:
        self._serialization = serialization

    def head_end(self, frame: bytes) -> int:
        if frame[_BODY] != 0x77:
            return HEADER_SIZE
        pos = _BODY + 2
        end = pos + frame[_BODY + 1]
        if self._serialization == NATIVE_JAVA:
            for _ in (0, 1, 2, 3, 4):
                pos += 2 + (frame[pos] << 8) + frame[pos + 1]
        else:
            for _ in (0, 1, 2, 3, 4):
                if frame[pos] == 0xFF:
                    pos += 4
                else:
                    pos += 6 + (frame[pos + 4] << 8) + frame[pos + 5]
        return pos if pos <= end <= len(frame) else HEADER_SIZE

    def parse_head(self, frame: bytes) -> InvocationHead:
        if frame[HEADER_SIZE:_BODY] != STREAM_MAGIC:
            raise RemoteProtocolError("dubbo.bad_head", detail="no Java object stream")
        reader = PrimitiveReader(frame, _BODY)
        strings: list[bytes | None] = []
        for _ in range(5):
            if self._serialization != NATIVE_JAVA and reader.int32() < 0:
                strings.append(None)
            else:
                strings.append(reader.utf())
        return InvocationHead(self._serialization, strings, reader.pos, reader.left)

    def real_method(self, frame: bytes, head: InvocationHead) -> bytes | None:
        value = self._items(frame, head).value()
        if value is None or isinstance(value, str):
            return None if value is None else value.encode("utf-8", "surrogatepass")
        raise RemoteProtocolError("dubbo.bad_head", detail="no string")

    def attachments(self, frame: bytes, head: InvocationHead | None, memo: AttachmentMemo) -> Attachments | None:
        if head is not None:
            items, count = self._items(frame, head, memo.max_values), head.argument_count
            if count < 0:
                return None
        else:
            kind, items = self._result(frame, memo.max_values)
            if kind < 3:
                return None
            count = 1 if kind < 5 else 0
        try:
            for _ in range(count):
                items.skip()
            return self._read_map(frame, items)
        except Unreachable:
            return None

    def edit(self, frame: bytes, found: Attachments, changes: Changes) -> bytes:
        state = found.state
        assert isinstance(state, _State)
        pairs = [(key, value) for key, value in changes.items() if value is not None or key in found]
        if not pairs:
            return frame
        added = b"".join(_string(key) + (b"\x70" if value is None else _string(value)) for key, value in pairs)
        entries = state.entries
        if entries is None:
            if not state.null_end:
                raise LocalProtocolError("dubbo.no_attachments", detail="no room for a map")
            before, after = frame[HEADER_SIZE : found.at], frame[state.null_end :]
            if self._serialization != NATIVE_JAVA:
                before += b"\x01" if state.null_end > found.at else b"\x77\x01\x01"
            template = _COMPACT_HASHMAP if self._serialization == COMPACTED_JAVA else _PLAIN_HASHMAP
            return with_body(frame, before + template + len(pairs).to_bytes(4, "big") + added + b"\x78" + after)
        if entries.name != b"java.util.HashMap":
            raise LocalProtocolError("dubbo.no_attachments", detail="a sorted map")
        count = len(entries.entries) // 2 + len(pairs)
        return with_body(
            frame,
            frame[HEADER_SIZE : entries.count_at]
            + count.to_bytes(4, "big")
            + frame[entries.count_at + 4 : entries.end]
            + added
            + frame[entries.end :],
        )

    def plain_argument(self, frame: bytes, head: InvocationHead, index: int, max_values: int) -> object:
        items = self._items(frame, head, max_values)
        for _ in range(index):
            items.skip()
        return items.value()

    def arguments(self, frame: bytes, head: InvocationHead, count: int) -> list[object]:
        items = self._items(frame, head)
        return [items.value() for _ in range(count)]

    def result_type(self, frame: bytes) -> int:
        return self._result(frame)[0]

    def _items(self, frame: bytes, head: InvocationHead, max_values: int = sys.maxsize) -> _Items:
        assert isinstance(head.state, int)
        return _Items(frame, head.arguments_at, head.state, self._serialization, max_values)

    def _result(self, frame: bytes, max_values: int = sys.maxsize) -> tuple[int, _Items]:
        if frame[HEADER_SIZE:_BODY] != STREAM_MAGIC:
            raise RemoteProtocolError("dubbo.bad_result", detail="no Java object stream")
        items = _Items(frame, _BODY, 0, self._serialization, max_values)
        kind = items.primitives.take(1)[0]
        return kind if kind <= 5 else -1, items

    def _read_map(self, frame: bytes, items: _Items) -> Attachments:
        primitives, walker = items.primitives, items.walker
        at = primitives.pos
        if at == len(frame) and not primitives.left:
            return Attachments(at, 0, {}, _NONE, _State(None, at))
        if not items.begin():
            at = primitives.pos - 1
            return Attachments(at, 0, {}, _NONE, _State(None, 0 if primitives.left else at + 1))
        at = walker.pos
        entries = walker.skip_map()
        if entries is None:
            return Attachments(at, 0, {}, _NONE, _State(None, walker.pos if self._serialization == NATIVE_JAVA else 0))
        values: dict[bytes, bytes] = {}
        others: set[bytes] = set()
        offsets = entries.entries
        for index in range(0, len(offsets), 2):
            key = walker.text_at(offsets[index])
            if key is None:
                continue
            start = offsets[index + 1]
            end = offsets[index + 2] if index + 2 < len(offsets) else entries.end
            value = walker.value_at(start, end)
            if isinstance(value, Opaque):
                others.add(key)
                values.pop(key, None)
                continue
            others.discard(key)
            text = plain_text(value)
            if text is None:
                values.pop(key, None)
            else:
                values[key] = text
        return Attachments(at, 0, values, frozenset(others), _State(entries, 0))


def _string(text: bytes) -> bytes:
    raw = utf_bytes(text)
    if len(raw) < 0x10000:
        return b"\x74" + len(raw).to_bytes(2, "big") + raw
    return b"\x7c" + len(raw).to_bytes(8, "big") + raw
