"""Stepping over the objects of a Java object stream.

Class descriptors say which fields a class has and whether it wrote data of its own (Java Object Serialization Specification,
chapter 6), so that objects can be stepped over without the classes. What breaks this rule is out of reach and said to be so
(`Unreachable`): externalizable classes of the old protocol, and Dubbo's compactedjava, whose descriptors hold only the name; of
those the common classes of the JDK are known (`classes`).
"""

from __future__ import annotations

import sys
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.java_serialization.classes import (
    JDK,
    MAX_FIELDS,
    MAX_SUPERCLASSES,
    SC_BLOCK_DATA,
    SC_EXTERNALIZABLE,
    SC_SERIALIZABLE,
    SC_WRITE_METHOD,
    SIZES,
    ClassDesc,
)
from mesh_codecs.java_serialization.primitives import TC_BLOCKDATA, TC_BLOCKDATALONG, truncated, utf_to_utf8

MAX_DEPTH: Final = 64
"""nested objects that are followed"""

TC_NULL: Final = 0x70
TC_REFERENCE: Final = 0x71
TC_CLASSDESC: Final = 0x72
TC_OBJECT: Final = 0x73
TC_STRING: Final = 0x74
TC_ARRAY: Final = 0x75
TC_CLASS: Final = 0x76
TC_ENDBLOCKDATA: Final = 0x78
TC_LONGSTRING: Final = 0x7C
TC_PROXYCLASSDESC: Final = 0x7D
TC_ENUM: Final = 0x7E

FIRST_HANDLE: Final = 0x7E0000


class Unreachable(RemoteProtocolError):
    """The format does not say where this object ends. Nothing is wrong with the stream."""


_MAPS: Final = {b"java.util.HashMap": 8, b"java.util.TreeMap": 4}
"""Maps whose entries can be read, and how many bytes of their own stand in front: the last four count the entries."""


class MapEntries:
    """Where the entries of a map stand."""

    __slots__ = ("count_at", "end", "entries", "name")

    def __init__(self, name: bytes, count_at: int, entries: list[int], end: int) -> None:
        self.name = name
        """class that wrote the entries"""
        self.count_at = count_at
        """offset of the 32-bit number of entries; 0 when there is no map"""
        self.entries = entries
        """offsets of each key and of its value, in turn"""
        self.end = end
        """offset of the mark after the last entry"""


class Walker:
    """Steps over objects; its table of handles lives as long as the stream."""

    __slots__ = ("_compact", "_data", "_handles", "_left", "map", "pos")

    def __init__(self, data: bytes, pos: int, compact: bool = False, max_values: int = sys.maxsize) -> None:
        self._data = data
        self._left = max_values
        """things of the stream that may still be stepped over"""
        self.pos = pos
        """offset of the next object"""
        self._compact = compact
        """class descriptors are those of Dubbo's compactedjava"""
        self._handles: list[ClassDesc | int | None] = []
        """what each handle stands for: a class, the offset of a string, or something else"""
        self.map: MapEntries | None = None
        """the entries of the last map read by `skip_map`"""

    def skip(self) -> None:
        """Step over one object.

        Raises:
            Unreachable: its end cannot be told.
            RemoteProtocolError: malformed, cut short or too deep.
        """
        try:
            self._content(MAX_DEPTH)
        except IndexError:
            raise truncated() from None
        if self.pos > len(self._data):
            raise truncated()

    def skip_map(self) -> MapEntries | None:
        """Step over one object that is a map and say where its entries are; None for null.

        Raises:
            Unreachable: it is a map of an unknown kind.
            RemoteProtocolError: as `skip`; also when it is no object.
        """
        try:
            return self._map()
        except IndexError:
            raise truncated() from None

    def _map(self) -> MapEntries | None:
        tag = self._data[self.pos]
        if tag == TC_NULL:
            self.pos += 1
            return None
        if tag != TC_OBJECT:
            raise Unreachable("java.no_map", detail=f"0x{tag:02x}")
        self.map = MapEntries(b"", 0, [], 0)
        self._content(MAX_DEPTH, wanted=True)
        if self.pos > len(self._data):
            raise truncated()
        if not self.map.count_at:
            raise Unreachable("java.no_map")
        return self.map

    def _utf(self) -> bytes:
        data, pos = self._data, self.pos
        start = pos + 2
        end = start + (data[pos] << 8) + data[pos + 1]
        if end > len(data):
            raise truncated()
        self.pos = end
        return data[start:end]

    def _u16(self) -> int:
        pos = self.pos
        self.pos = pos + 2
        return (self._data[pos] << 8) + self._data[pos + 1]

    def _i32(self) -> int:
        pos = self.pos
        self.pos = pos + 4
        if self.pos > len(self._data):
            raise truncated()
        return int.from_bytes(self._data[pos : pos + 4], "big", signed=True)

    def _content(self, depth: int, wanted: bool = False) -> int:
        """Step over one thing of the stream; the tag that it had."""
        data = self._data
        start = self.pos
        tag = data[start]
        self.pos = start + 1
        self._left -= 1
        if self._left < 0:
            raise RemoteProtocolError("java.too_many_values")
        if tag == TC_STRING:
            self._handles.append(start)
            utf_to_utf8(self._utf())
        elif tag == TC_NULL:
            pass
        elif tag == TC_REFERENCE:
            if not 0 <= self._i32() - FIRST_HANDLE < len(self._handles):
                raise RemoteProtocolError("java.bad_reference")
        elif tag == TC_OBJECT:
            self._object(depth, wanted)
        elif tag == TC_BLOCKDATA:
            self.pos = start + 2 + data[start + 1]
        elif tag == TC_BLOCKDATALONG:
            length = self._i32()
            if not 0 <= length <= len(data) - self.pos:
                raise truncated()
            self.pos += length
        elif tag == TC_ARRAY:
            self._array(depth)
        elif tag == TC_ENUM:
            self._class_desc(depth)
            self._handles.append(None)
            self._content(_deeper(depth))
        elif tag == TC_LONGSTRING:
            self._handles.append(start)
            length = int.from_bytes(data[start + 1 : start + 9], "big")
            self.pos = start + 9 + length
            if self.pos > len(data):
                raise truncated()
            utf_to_utf8(data[start + 9 : self.pos])
        elif tag == TC_CLASS:
            self._class_desc(depth)
            self._handles.append(None)
        elif tag in (TC_CLASSDESC, TC_PROXYCLASSDESC):
            self.pos = start
            self._class_desc(depth)
        elif tag != TC_ENDBLOCKDATA:
            # TC_RESET and TC_EXCEPTION are never in a Dubbo body.
            raise RemoteProtocolError("java.bad_tag", detail=f"0x{tag:02x}")
        return tag

    def _object(self, depth: int, wanted: bool) -> None:
        desc = self._class_desc(depth)
        if desc is None:
            raise RemoteProtocolError("java.bad_tag", detail="object without a class")
        self._handles.append(None)
        depth = _deeper(depth)
        parts = desc.parts()
        self._left -= len(parts)
        for part in parts:
            if part.flags & SC_SERIALIZABLE:
                self.pos += part.width
                for _ in part.objects:
                    self._content(depth)
                if part.flags & SC_WRITE_METHOD:
                    if wanted and part.name in _MAPS:
                        self._entries(part.name, depth)
                    else:
                        self._annotation(depth)
            elif part.flags & SC_EXTERNALIZABLE:
                if not part.flags & SC_BLOCK_DATA:
                    raise Unreachable("java.externalizable")
                self._annotation(depth)

    def _entries(self, name: bytes, depth: int) -> None:
        data, pos = self._data, self.pos
        own = _MAPS[name]
        if data[pos] != TC_BLOCKDATA or data[pos + 1] != own:
            raise Unreachable("java.no_map")
        self.pos = pos + 2 + own
        count_at = self.pos - 4
        count = int.from_bytes(data[count_at : self.pos], "big", signed=True)
        if not 0 <= count <= len(data) - self.pos:
            raise truncated()
        entries: list[int] = []
        for _ in range(2 * count):
            entries.append(self.pos)
            self._content(depth)
        if data[self.pos] != TC_ENDBLOCKDATA:
            raise Unreachable("java.no_map")
        self.map = MapEntries(name, count_at, entries, self.pos)
        self.pos += 1

    def _annotation(self, depth: int) -> None:
        while self._content(depth) != TC_ENDBLOCKDATA:
            pass

    def _array(self, depth: int) -> None:
        desc = self._class_desc(depth)
        if desc is None or len(desc.name) < 2:
            raise RemoteProtocolError("java.bad_tag", detail="array without a class")
        self._handles.append(None)
        count = self._i32()
        width = SIZES.get(desc.name[1], 0)
        if not 0 <= count <= len(self._data) - self.pos:
            raise truncated()
        if width:
            self.pos += count * width
            return
        depth = _deeper(depth)
        for _ in range(count):
            self._content(depth)

    def _class_desc(self, depth: int) -> ClassDesc | None:
        """Read a class descriptor, or a reference to one, with its superclasses."""
        first: ClassDesc | None = None
        below: ClassDesc | None = None
        for _ in range(MAX_SUPERCLASSES):
            tag = self._data[self.pos]
            self.pos += 1
            if tag == TC_NULL:
                return first
            if tag == TC_REFERENCE:
                index = self._i32() - FIRST_HANDLE
                known = self._handles[index] if 0 <= index < len(self._handles) else None
                if not isinstance(known, ClassDesc):
                    raise RemoteProtocolError("java.bad_reference")
                if below is None:
                    return known
                below.superclass = known
                return first
            if tag == TC_CLASSDESC:
                desc = self._plain_desc(depth)
            elif tag == TC_PROXYCLASSDESC:
                desc = ClassDesc(b"", SC_SERIALIZABLE, [], [])
                self._handles.append(desc)
                count = self._i32()
                if not 0 <= count <= MAX_FIELDS:
                    raise RemoteProtocolError("java.class_limit")
                for _ in range(count):
                    self._utf()
            else:
                raise RemoteProtocolError("java.bad_tag", detail=f"0x{tag:02x} where a class was expected")
            self._annotation(_deeper(depth))
            if below is None:
                first = desc
            else:
                below.superclass = desc
            below = desc
        raise RemoteProtocolError("java.class_limit")

    def _plain_desc(self, depth: int) -> ClassDesc:
        data = self._data
        if self._compact:
            form = data[self.pos]
            self.pos += 1
            if form:
                name = self._utf()
                known = JDK.get(name)
                if known is None:
                    raise Unreachable("java.unknown_class", detail=name.decode("latin-1"))
                compact = ClassDesc(name, *known)
                self._handles.append(compact)
                return compact
        name = self._utf()
        self.pos += 8  # serialVersionUID
        index = len(self._handles)
        self._handles.append(None)
        flags = data[self.pos]
        self.pos += 1
        count = self._u16()
        if count > MAX_FIELDS:
            raise RemoteProtocolError("java.class_limit")
        primitives: list[tuple[int, bytes]] = []
        objects: list[bytes] = []
        for _ in range(count):
            code = data[self.pos]
            self.pos += 1
            field = self._utf()
            if code in SIZES:
                if objects:
                    raise RemoteProtocolError("java.bad_class", detail="primitive field after an object field")
                primitives.append((code, field))
            elif code == 0x4C or code == 0x5B:  # L, [
                if self._content(_deeper(depth)) not in (TC_STRING, TC_REFERENCE):
                    raise RemoteProtocolError("java.bad_class", detail="type of a field")
                objects.append(field)
            else:
                raise RemoteProtocolError("java.bad_class", detail=f"type code 0x{code:02x}")
        desc = ClassDesc(name, flags, primitives, objects)
        self._handles[index] = desc
        return desc


def _deeper(depth: int) -> int:
    if not depth:
        raise RemoteProtocolError("java.too_deep")
    return depth - 1
