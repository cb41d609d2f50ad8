"""Writing Hessian 2 in the very forms that hessian-lite chooses: attachments, error bodies, tests."""

from __future__ import annotations

from struct import Struct
from typing import Final

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.hessian2.text import from_str
from mesh_codecs.hessian2.values import ClassDef, Date, Long, Map, Object, Ref, TypedList

_CHUNK: Final = 0x8000
"""units of one string chunk, bytes of one binary chunk"""

_I16: Final = Struct(">h").pack
_I32: Final = Struct(">i").pack
_I64: Final = Struct(">q").pack
_F64: Final = Struct(">d").pack


def string_bytes(text: bytes) -> bytes:
    """A Hessian string made from UTF-8. Bytes that are no UTF-8 are taken for Latin-1, as in HTTP headers."""
    if len(text) < 0x20 and text.isascii():
        return bytes((len(text),)) + text
    try:
        return write_string(text.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return write_string(text.decode("latin-1"))


def write_string(text: str) -> bytes:
    """A Hessian string, in chunks where it is longer than 32768 units; a chunk never ends between two surrogates."""
    raw, units = from_str(text)
    if units <= _CHUNK:
        return _string_head(units) + raw
    wide = text.encode("utf-16-be", "surrogatepass")
    chunks: list[bytes] = []
    start = 0
    while units - start > _CHUNK:
        stop = start + _CHUNK
        if 0xD8 <= wide[2 * stop - 2] < 0xDC:
            stop -= 1
        chunks.append(b"R" + (stop - start).to_bytes(2, "big"))
        chunks.append(_cesu(wide[2 * start : 2 * stop]))
        start = stop
    chunks.append(_string_head(units - start))
    chunks.append(_cesu(wide[2 * start :]))
    return b"".join(chunks)


def _cesu(wide: bytes) -> bytes:
    return from_str(wide.decode("utf-16-be", "surrogatepass"))[0]


def _string_head(units: int) -> bytes:
    if units < 0x20:
        return bytes((units,))
    if units < 0x400:
        return bytes((0x30 + (units >> 8), units & 0xFF))
    return b"S" + units.to_bytes(2, "big")


def write_binary(data: bytes) -> bytes:
    """Hessian binary."""
    chunks: list[bytes] = []
    start = 0
    while len(data) - start > _CHUNK:
        chunks.append(b"A" + _CHUNK.to_bytes(2, "big") + data[start : start + _CHUNK])
        start += _CHUNK
    rest = len(data) - start
    if rest < 0x10:
        chunks.append(bytes((0x20 + rest,)))
    elif rest < 0x400:
        chunks.append(bytes((0x34 + (rest >> 8), rest & 0xFF)))
    else:
        chunks.append(b"B" + rest.to_bytes(2, "big"))
    chunks.append(data[start:])
    return b"".join(chunks)


def write_int(value: int) -> bytes:
    """A Hessian int (32 bits)."""
    if -16 <= value < 48:
        return bytes((0x90 + value,))
    if -0x800 <= value < 0x800:
        return bytes((0xC8 + (value >> 8), value & 0xFF))
    if -0x40000 <= value < 0x40000:
        return bytes((0xD4 + (value >> 16), value >> 8 & 0xFF, value & 0xFF))
    if not -0x80000000 <= value <= 0x7FFFFFFF:
        raise LocalProtocolError("hessian2.int_range", detail=str(value))
    return b"I" + _I32(value)


def write_long(value: int) -> bytes:
    """A Hessian long (64 bits)."""
    if -8 <= value < 16:
        return bytes((0xE0 + value,))
    if -0x800 <= value < 0x800:
        return bytes((0xF8 + (value >> 8), value & 0xFF))
    if -0x40000 <= value < 0x40000:
        return bytes((0x3C + (value >> 16), value >> 8 & 0xFF, value & 0xFF))
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return b"Y" + _I32(value)
    if not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise LocalProtocolError("hessian2.long_range", detail=str(value))
    return b"L" + _I64(value)


def write_double(value: float) -> bytes:
    """A Hessian double. hessian-lite loses the sign of -0.0; so does this."""
    if value.is_integer():
        if value == 0.0:
            return b"\x5b"
        if value == 1.0:
            return b"\x5c"
        if -0x80 <= value < 0x80:
            return bytes((0x5D, int(value) & 0xFF))
        if -0x8000 <= value < 0x8000:
            return b"\x5e" + _I16(int(value))
    if -2147483.648 <= value <= 2147483.647:
        mills = int(value * 1000)
        if 0.001 * mills == value:
            return b"\x5f" + _I32(mills)
    return b"D" + _F64(value)


def write_date(value: int) -> bytes:
    """A date given in milliseconds."""
    minutes, rest = divmod(value, 60000)
    if not rest and -0x80000000 <= minutes <= 0x7FFFFFFF:
        return b"\x4b" + _I32(minutes)
    return b"\x4a" + _I64(value)


class Writer:
    """Writes values into one Hessian stream: class definitions and type names are spelled out once, then numbered."""

    __slots__ = ("_classes", "_types", "out")

    def __init__(self) -> None:
        self.out = bytearray()
        self._classes: dict[str, int] = {}
        self._types: dict[str, int] = {}

    def write(self, value: object) -> None:
        """Append one value.

        Raises:
            LocalProtocolError: Hessian has no such value.
        """
        out = self.out
        if value is None:
            out += b"N"
        elif value is True:
            out += b"T"
        elif value is False:
            out += b"F"
        elif isinstance(value, str):
            out += write_string(value)
        elif isinstance(value, Long):
            out += write_long(value)
        elif isinstance(value, Date):
            out += write_date(value)
        elif isinstance(value, int):
            out += write_int(value)
        elif isinstance(value, float):
            out += write_double(value)
        elif isinstance(value, bytes):
            out += write_binary(value)
        elif isinstance(value, Ref):
            out += b"Q" + write_int(value.index)
        elif isinstance(value, tuple | list):
            self._list(None, value)
        elif isinstance(value, TypedList):
            self._list(value.type, value.items)
        elif isinstance(value, dict):
            self._map(None, list(value.items()))
        elif isinstance(value, Map):
            self._map(value.type, value.pairs)
        elif isinstance(value, Object):
            self._object(value.definition, value.values)
        else:
            raise LocalProtocolError("hessian2.no_such_value", detail=type(value).__name__)

    def _type(self, name: str) -> None:
        index = self._types.get(name)
        if index is None:
            self._types[name] = len(self._types)
            self.out += write_string(name)
        else:
            self.out += write_int(index)

    def _list(self, name: str | None, items: tuple[object, ...] | list[object]) -> None:
        count = len(items)
        if count < 8:
            self.out.append((0x78 if name is None else 0x70) + count)
            if name is not None:
                self._type(name)
        else:
            self.out += b"X" if name is None else b"V"
            if name is not None:
                self._type(name)
            self.out += write_int(count)
        for item in items:
            self.write(item)

    def _map(self, name: str | None, pairs: tuple[tuple[object, object], ...] | list[tuple[object, object]]) -> None:
        self.out += b"H" if name is None else b"M"
        if name is not None:
            self._type(name)
        for key, value in pairs:
            self.write(key)
            self.write(value)
        self.out += b"Z"

    def _object(self, definition: ClassDef, values: tuple[object, ...]) -> None:
        index = self._classes.get(definition.type)
        if index is None:
            index = self._classes[definition.type] = len(self._classes)
            self.out += b"C" + write_string(definition.type) + write_int(len(definition.fields))
            for field in definition.fields:
                self.out += write_string(field)
        if index < 16:
            self.out.append(0x60 + index)
        else:
            self.out += b"O" + write_int(index)
        for value in values:
            self.write(value)


def dumps(*values: object) -> bytes:
    """Values as one Hessian stream."""
    writer = Writer()
    for value in values:
        writer.write(value)
    return bytes(writer.out)
