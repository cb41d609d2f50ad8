"""Stepping over the objects of a Java object stream.

Class descriptors say which fields a class has and whether it wrote data of its own (Java Object Serialization Specification,
chapter 6), so that objects can be stepped over without the classes. What breaks this rule is out of reach and said to be so
(`Unreachable`): externalizable classes of the old protocol, and Dubbo's compactedjava, whose descriptors hold only the name; of
those the common classes of the JDK are known here.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.values import Long, Opaque
from mesh_codecs.java_serialization.primitives import truncated, utf_to_utf8

MAX_DEPTH: Final = 64
"""nested objects that are followed"""

MAX_SUPERCLASSES: Final = 64
"""classes between one and Object; each object costs a step for each"""

MAX_FIELDS: Final = 1024
"""fields of one class"""

_NULL: Final = 0x70
_REFERENCE: Final = 0x71
_CLASSDESC: Final = 0x72
_OBJECT: Final = 0x73
_STRING: Final = 0x74
_ARRAY: Final = 0x75
_CLASS: Final = 0x76
_BLOCKDATA: Final = 0x77
_ENDBLOCKDATA: Final = 0x78
_BLOCKDATALONG: Final = 0x7A
_LONGSTRING: Final = 0x7C
_PROXYCLASSDESC: Final = 0x7D
_ENUM: Final = 0x7E

_F32: Final = Struct(">f").unpack
_F64: Final = Struct(">d").unpack

_FIRST_HANDLE: Final = 0x7E0000
_SIZES: Final = {0x42: 1, 0x43: 2, 0x44: 8, 0x46: 4, 0x49: 4, 0x4A: 8, 0x53: 2, 0x5A: 1}
"""bytes of a primitive field by its type code: B C D F I J S Z"""

SC_WRITE_METHOD: Final = 1
SC_SERIALIZABLE: Final = 2
SC_EXTERNALIZABLE: Final = 4
SC_BLOCK_DATA: Final = 8


class Unreachable(RemoteProtocolError):
    """The format does not say where this object ends. Nothing is wrong with the stream."""


class ClassDesc:
    """What a class descriptor says about the data of its instances."""

    __slots__ = ("_parts", "flags", "name", "objects", "primitives", "superclass", "width")

    def __init__(self, name: bytes, flags: int, primitives: list[tuple[int, bytes]], objects: list[bytes]) -> None:
        self.name = name
        self.flags = flags
        self.primitives = primitives
        """type code and name, in the order of the data"""
        self.objects = objects
        """names of the fields that hold objects; they follow the primitives"""
        self.width = sum(_SIZES[code] for code, _ in primitives)
        self.superclass: ClassDesc | None = None
        self._parts: list[ClassDesc] | None = None

    def parts(self) -> list[ClassDesc]:
        """This class and its superclasses in the order of their data, without those that have none: an object costs no more
        steps than it has bytes."""
        if self._parts is None:
            parts: list[ClassDesc] = []
            link: ClassDesc | None = self
            for _ in range(MAX_SUPERCLASSES):
                if link is None:
                    break
                if link.width or link.objects or link.flags & (SC_WRITE_METHOD | SC_EXTERNALIZABLE):
                    parts.append(link)
                link = link.superclass
            else:
                raise RemoteProtocolError("java.class_limit")
            self._parts = parts[::-1]
        return self._parts


def _known(flags: int, primitives: str = "", *objects: bytes) -> tuple[int, list[tuple[int, bytes]], list[bytes]]:
    return flags, [(ord(code), b"") for code in primitives], list(objects)


_JDK: Final = {
    b"java.lang.Number": _known(2),
    b"java.lang.Enum": _known(2),
    b"java.lang.Boolean": _known(2, "Z"),
    b"java.lang.Byte": _known(2, "B"),
    b"java.lang.Character": _known(2, "C"),
    b"java.lang.Double": _known(2, "D"),
    b"java.lang.Float": _known(2, "F"),
    b"java.lang.Integer": _known(2, "I"),
    b"java.lang.Long": _known(2, "J"),
    b"java.lang.Short": _known(2, "S"),
    b"java.math.BigInteger": _known(3, "IIII", b"magnitude"),
    b"java.math.BigDecimal": _known(2, "I", b"intVal"),
    b"java.util.ArrayList": _known(3, "I"),
    b"java.util.Date": _known(3),
    b"java.util.HashMap": _known(3, "FI"),
    b"java.util.HashSet": _known(3),
    b"java.util.LinkedHashMap": _known(2, "Z"),
    b"java.util.LinkedHashSet": _known(2),
    b"java.util.LinkedList": _known(3),
    b"java.util.TreeMap": _known(3, "", b"comparator"),
    b"java.util.TreeSet": _known(3),
    b"java.util.Collections$EmptyList": _known(2),
    b"java.util.Collections$EmptyMap": _known(2),
    b"java.util.Arrays$ArrayList": _known(2, "", b"a"),
    b"java.util.UUID": _known(2, "JJ"),
}
"""Flags and fields of classes whose compact descriptors name them only."""

_BOXED: Final = frozenset(
    b"java.lang." + name for name in (b"Boolean", b"Byte", b"Character", b"Double", b"Float", b"Integer", b"Long", b"Short")
)

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
        if tag == _NULL:
            self.pos += 1
            return None
        if tag != _OBJECT:
            raise Unreachable("java.no_map", detail=f"0x{tag:02x}")
        self.map = MapEntries(b"", 0, [], 0)
        self._content(MAX_DEPTH, wanted=True)
        if self.pos > len(self._data):
            raise truncated()
        if not self.map.count_at:
            raise Unreachable("java.no_map")
        return self.map

    def text_at(self, pos: int) -> bytes | None:
        """The string at `pos`, or the one that is referred to there, as UTF-8; None when it is no string."""
        data = self._data
        tag = data[pos]
        if tag == _REFERENCE:
            index = int.from_bytes(data[pos + 1 : pos + 5], "big") - _FIRST_HANDLE
            if not 0 <= index < len(self._handles):
                raise RemoteProtocolError("java.bad_reference")
            target = self._handles[index]
            return self.text_at(target) if isinstance(target, int) else None
        if tag == _STRING:
            start = pos + 3
            return utf_to_utf8(data[start : start + (data[pos + 1] << 8) + data[pos + 2]])
        if tag == _LONGSTRING:
            start = pos + 9
            return utf_to_utf8(data[start : start + int.from_bytes(data[pos + 1 : start], "big")])
        return None

    def value(self) -> object:
        """Step over one object; a string, a boxed primitive or null as a value, anything else as `Opaque`."""
        start = self.pos
        self.skip()
        return self.value_at(start, self.pos)

    def value_at(self, start: int, end: int) -> object:
        """The same for an object that was stepped over before."""
        data = self._data
        tag = data[start]
        if tag == _NULL:
            return None
        text = self.text_at(start)
        if text is not None:
            return text.decode("utf-8", "surrogatepass")
        if tag == _OBJECT:
            desc = self._desc_of(start + 1)
            if desc is not None and desc.name in _BOXED:
                return _boxed(desc.primitives[0][0], data[end - desc.width : end], data[start:end])
        return Opaque(data[start:end])

    def _desc_of(self, pos: int) -> ClassDesc | None:
        """The class of an object already stepped over, whose descriptor begins at `pos`."""
        data = self._data
        if data[pos] == _REFERENCE:
            index = int.from_bytes(data[pos + 1 : pos + 5], "big") - _FIRST_HANDLE
            target = self._handles[index]
            return target if isinstance(target, ClassDesc) else None
        name_at = pos + 2 if self._compact else pos + 1
        name = data[name_at + 2 : name_at + 2 + (data[name_at] << 8) + data[name_at + 1]]
        for handle in reversed(self._handles):
            if isinstance(handle, ClassDesc) and handle.name == name:
                return handle
        return None

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
        if tag == _STRING:
            self._handles.append(start)
            utf_to_utf8(self._utf())
        elif tag == _NULL:
            pass
        elif tag == _REFERENCE:
            if not 0 <= self._i32() - _FIRST_HANDLE < len(self._handles):
                raise RemoteProtocolError("java.bad_reference")
        elif tag == _OBJECT:
            self._object(depth, wanted)
        elif tag == _BLOCKDATA:
            self.pos = start + 2 + data[start + 1]
        elif tag == _BLOCKDATALONG:
            length = self._i32()
            if not 0 <= length <= len(data) - self.pos:
                raise truncated()
            self.pos += length
        elif tag == _ARRAY:
            self._array(depth)
        elif tag == _ENUM:
            self._class_desc(depth)
            self._handles.append(None)
            self._content(_deeper(depth))
        elif tag == _LONGSTRING:
            self._handles.append(start)
            length = int.from_bytes(data[start + 1 : start + 9], "big")
            self.pos = start + 9 + length
            if self.pos > len(data):
                raise truncated()
            utf_to_utf8(data[start + 9 : self.pos])
        elif tag == _CLASS:
            self._class_desc(depth)
            self._handles.append(None)
        elif tag in (_CLASSDESC, _PROXYCLASSDESC):
            self.pos = start
            self._class_desc(depth)
        elif tag != _ENDBLOCKDATA:
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
        if data[pos] != _BLOCKDATA or data[pos + 1] != own:
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
        if data[self.pos] != _ENDBLOCKDATA:
            raise Unreachable("java.no_map")
        self.map = MapEntries(name, count_at, entries, self.pos)
        self.pos += 1

    def _annotation(self, depth: int) -> None:
        while self._content(depth) != _ENDBLOCKDATA:
            pass

    def _array(self, depth: int) -> None:
        desc = self._class_desc(depth)
        if desc is None or len(desc.name) < 2:
            raise RemoteProtocolError("java.bad_tag", detail="array without a class")
        self._handles.append(None)
        count = self._i32()
        width = _SIZES.get(desc.name[1], 0)
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
            if tag == _NULL:
                return first
            if tag == _REFERENCE:
                index = self._i32() - _FIRST_HANDLE
                known = self._handles[index] if 0 <= index < len(self._handles) else None
                if not isinstance(known, ClassDesc):
                    raise RemoteProtocolError("java.bad_reference")
                if below is None:
                    return known
                below.superclass = known
                return first
            if tag == _CLASSDESC:
                desc = self._plain_desc(depth)
            elif tag == _PROXYCLASSDESC:
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
                known = _JDK.get(name)
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
            if code in _SIZES:
                if objects:
                    raise RemoteProtocolError("java.bad_class", detail="primitive field after an object field")
                primitives.append((code, field))
            elif code == 0x4C or code == 0x5B:  # L, [
                if self._content(_deeper(depth)) not in (_STRING, _REFERENCE):
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


def _boxed(code: int, raw: bytes, whole: bytes) -> object:
    """The value of a boxed primitive from its field."""
    if code == 0x44:
        return _F64(raw)[0]
    if code == 0x46:
        return _F32(raw)[0]
    number = int.from_bytes(raw, "big", signed=True)
    if code == 0x5A:
        return number != 0
    if code == 0x4A:
        return Long(number)
    return Opaque(whole) if code == 0x43 else number
