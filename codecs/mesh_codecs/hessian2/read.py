"""Reading Hessian 2 values, one at a time, when somebody asks for them.

The whole grammar of hessian-lite. Memory stays within a small multiple of the input: containers are tuples, empty ones and
small numbers are shared, no length is believed before the bytes are there, and references are not followed.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.skip import MAX_CLASSES, MAX_DEPTH, MAX_FIELDS, int_at, length_at
from mesh_codecs.hessian2.text import raw_string, to_str, truncated
from mesh_codecs.hessian2.values import ClassDef, Date, Long, Map, Object, Ref, TypedList

_I64: Final = Struct(">q").unpack_from
_I32: Final = Struct(">i").unpack_from
_I16: Final = Struct(">h").unpack_from
_F64: Final = Struct(">d").unpack_from
_SHORT_LONGS: Final = tuple(Long(n) for n in range(-8, 16))
_SHORT_INTS: Final = tuple(range(-16, 48))

NOT_PLAIN: Final = object()
"""what `plain_at` answers for a value that is neither text, number, boolean nor null"""


def plain_at(data: bytes, pos: int) -> tuple[object, int]:
    """A number, a boolean, null or a string at `pos` and the offset after it; NOT_PLAIN and `pos` for anything else.

    Raises:
        RemoteProtocolError: malformed string or unknown tag.
        IndexError: cut short.
        struct.error: never; lengths are looked at first.
    """
    tag = data[pos]
    if tag < 0x20 or 0x30 <= tag < 0x34 or 0x52 <= tag <= 0x53:
        raw, pos = raw_string(data, pos)
        return to_str(raw), pos
    if tag < 0x38:
        return NOT_PLAIN, pos
    if 0x80 <= tag < 0xC0:
        return _SHORT_INTS[tag - 0x80], pos + 1
    if 0xC0 <= tag < 0xD8 or tag == 0x49:
        return int_at(data, pos)
    if tag >= 0xF0:
        return Long(((tag - 0xF8) << 8) + data[pos + 1]), pos + 2
    if tag >= 0xD8:
        return _SHORT_LONGS[tag - 0xD8], pos + 1
    if tag < 0x40:
        return Long(((tag - 0x3C) << 16) + (data[pos + 1] << 8) + data[pos + 2]), pos + 3
    if tag == 0x4E:
        return None, pos + 1
    if tag == 0x54:
        return True, pos + 1
    if tag == 0x46:
        return False, pos + 1
    if tag == 0x59:
        data[pos + 4]
        return Long(_I32(data, pos + 1)[0]), pos + 5
    if tag == 0x4C:
        data[pos + 8]
        return Long(_I64(data, pos + 1)[0]), pos + 9
    if tag == 0x5B:
        return 0.0, pos + 1
    if tag == 0x5C:
        return 1.0, pos + 1
    if tag == 0x5D:
        byte = data[pos + 1]
        return float(byte - 256 if byte > 127 else byte), pos + 2
    if tag == 0x5E:
        data[pos + 2]
        return float(_I16(data, pos + 1)[0]), pos + 3
    if tag == 0x5F:
        # A 32-bit count of thousandths: what all codecs do, though the draft speaks of a 32-bit float.
        data[pos + 4]
        return 0.001 * _I32(data, pos + 1)[0], pos + 5
    if tag == 0x44:
        data[pos + 8]
        return _F64(data, pos + 1)[0], pos + 9
    if tag in b"\x40\x45\x47\x50\x5a":
        raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x}")
    return NOT_PLAIN, pos


class Reader:
    """Reads the values of one Hessian stream in order; the reference tables live as long as the reader."""

    __slots__ = ("_empty", "_types", "classes", "data", "pos", "refs")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos
        """offset of the next value"""
        self.refs = 0
        """lists, maps and objects that began so far; a `Ref` counts them from 0"""
        self.classes: list[ClassDef] = []
        self._types: list[str] = []
        self._empty: dict[int, Object] = {}

    def read(self) -> object:
        """The next value.

        Raises:
            RemoteProtocolError: malformed, cut short or nested deeper than 64 levels. The reader is of no use afterwards.
        """
        try:
            return self._value(MAX_DEPTH)
        except IndexError:
            raise truncated() from None

    def _value(self, depth: int) -> object:
        data = self.data
        value, self.pos = plain_at(data, self.pos)
        if value is not NOT_PLAIN:
            return value
        pos = self.pos
        tag = data[pos]
        if 0x20 <= tag < 0x38 or 0x41 <= tag <= 0x42:
            return self._binary()
        if tag == 0x4A:
            data[pos + 8]
            self.pos = pos + 9
            return Date(_I64(data, pos + 1)[0])
        if tag == 0x4B:
            data[pos + 4]
            self.pos = pos + 5
            return Date(_I32(data, pos + 1)[0] * 60000)
        if tag == 0x51:
            index, self.pos = int_at(data, pos + 1)
            if not 0 <= index < self.refs:
                raise RemoteProtocolError("hessian2.bad_reference")
            return Ref(index)
        if 0x60 <= tag < 0x70 or tag == 0x4F or tag == 0x43:
            return self._object(tag, depth)
        return self._container(tag, depth)

    def _binary(self) -> bytes:
        data = self.data
        pos = self.pos
        chunks: list[bytes] = []
        while True:
            tag = data[pos]
            if 0x20 <= tag < 0x30:
                size = tag - 0x20
                pos += 1
            elif 0x34 <= tag < 0x38:
                size = ((tag - 0x34) << 8) + data[pos + 1]
                pos += 2
            elif 0x41 <= tag <= 0x42:
                size = (data[pos + 1] << 8) + data[pos + 2]
                pos += 3
            else:
                raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} where binary was expected")
            end = pos + size
            if end > len(data):
                raise truncated()
            chunks.append(data[pos:end])
            pos = end
            if tag != 0x41:
                self.pos = pos
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _string(self) -> str:
        raw, self.pos = raw_string(self.data, self.pos)
        return to_str(raw)

    def _type(self) -> str:
        """The type of a list or map: a name, which enters the table, or the number of one."""
        tag = self.data[self.pos]
        if tag < 0x34 or 0x52 <= tag <= 0x53:
            name = self._string()
            self._types.append(name)
            return name
        index, self.pos = int_at(self.data, self.pos)
        if not 0 <= index < len(self._types):
            raise RemoteProtocolError("hessian2.bad_reference", detail="type")
        return self._types[index]

    def _object(self, tag: int, depth: int) -> Object:
        while tag == 0x43:
            self.pos += 1
            name = self._string()
            count, self.pos = int_at(self.data, self.pos)
            if not 0 <= count <= MAX_FIELDS or len(self.classes) >= MAX_CLASSES:
                raise RemoteProtocolError("hessian2.class_limit")
            self.classes.append(ClassDef(name, tuple(self._string() for _ in range(count))))
            tag = self.data[self.pos]
        if 0x60 <= tag < 0x70:
            index = tag - 0x60
            self.pos += 1
        elif tag == 0x4F:
            index, self.pos = int_at(self.data, self.pos + 1)
        else:
            raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} after a class definition")
        if not 0 <= index < len(self.classes):
            raise RemoteProtocolError("hessian2.bad_reference", detail="class")
        self.refs += 1
        definition = self.classes[index]
        if not definition.fields:
            # One byte each on the wire: share them, so that memory stays in proportion.
            shared = self._empty.get(index)
            if shared is None:
                shared = self._empty[index] = Object(definition, ())
            return shared
        return Object(definition, self._values(len(definition.fields), depth))

    def _container(self, tag: int, depth: int) -> object:
        data = self.data
        self.pos += 1
        name: str | None = None
        if tag == 0x48 or tag == 0x4D:
            if tag == 0x4D:
                name = self._type()
            self.refs += 1
            flat = self._until_z(depth)
            return Map(name, tuple(zip(flat[::2], flat[1::2], strict=True)))
        if 0x70 <= tag < 0x78 or tag == 0x55 or tag == 0x56:
            name = self._type()
        if tag == 0x55 or tag == 0x57:
            self.refs += 1
            items = tuple(self._until_z(depth, pairs=False))
        else:
            if tag == 0x56 or tag == 0x58:
                count, self.pos = length_at(data, self.pos)
            elif 0x70 <= tag < 0x80:
                count = tag & 7
            else:
                raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x}")
            self.refs += 1
            items = self._values(count, depth)
        return items if name is None else TypedList(name, items)

    def _values(self, count: int, depth: int) -> tuple[object, ...]:
        if not count:
            return ()
        if not depth:
            raise RemoteProtocolError("hessian2.too_deep")
        return tuple([self._value(depth - 1) for _ in range(count)])

    def _until_z(self, depth: int, pairs: bool = True) -> list[object]:
        if not depth:
            raise RemoteProtocolError("hessian2.too_deep")
        data = self.data
        values: list[object] = []
        while data[self.pos] != 0x5A:
            values.append(self._value(depth - 1))
            if pairs:
                values.append(self._value(depth - 1))
        self.pos += 1
        return values
