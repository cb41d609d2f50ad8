"""JSONB values of fastjson2: where one ends, and what a plain one says.

Every value begins with a tag. Names of fields may be symbols: spelled out once with a number, then only numbered. References
to other values are paths in text (`$.a[0]`), so they need no table. Strings come in five encodings.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.values import Date, Long, Map, Opaque

MAX_DEPTH: Final = 64
"""nested containers that are followed"""

NOT_PLAIN: Final = object()
"""what `plain_at` answers for a value that is neither text, number, boolean nor null"""

_I16: Final = Struct(">h").unpack_from
_I32: Final = Struct(">i").unpack_from
_I64: Final = Struct(">q").unpack_from
_F32: Final = Struct(">f").unpack_from
_F64: Final = Struct(">d").unpack_from

_ENCODINGS: Final = {0x79: "latin-1", 0x7A: "utf-8", 0x7B: "utf-16", 0x7C: "utf-16-le", 0x7D: "utf-16-be", 0x7E: "gb18030"}


def _widths() -> bytes:
    """Bytes of a value of fixed size, tag included; 0 where the tag does not tell."""
    table = bytearray(256)
    for tag in (*range(0x30), *range(0xF0, 0x100), *range(0xD8, 0xF0), 0x94, 0xAF, 0xB0, 0xB1, 0xB2, 0xB3):
        table[tag] = 1
    for tag in (*range(0x30, 0x40), *range(0xC8, 0xD8), 0xBD):
        table[tag] = 2
    for tag in (*range(0x40, 0x48), *range(0xC0, 0xC8), 0xBC):
        table[tag] = 3
    for tag in (0x48, 0xAC, 0xAD, 0xB7, 0xBF, 0xA9):
        table[tag] = 5
    for tag in (0xAB, 0xB5, 0xBE):
        table[tag] = 9
    for tag in range(0x49, 0x79):  # short text, a byte a character
        table[tag] = 1 + tag - 0x49
    return bytes(table)


_WIDTH: Final = _widths()


def _truncated() -> RemoteProtocolError:
    return RemoteProtocolError("fastjson2.truncated")


def _bad_tag(tag: int) -> RemoteProtocolError:
    return RemoteProtocolError("fastjson2.bad_tag", detail=f"0x{tag:02x}")


def int_at(data: bytes, pos: int) -> tuple[int, int]:
    """The 32-bit integer at `pos` and the offset after it. IndexError: cut short."""
    tag = data[pos]
    if tag < 0x30:
        return tag, pos + 1
    if tag >= 0xF0:
        return tag - 0x100, pos + 1
    if tag < 0x40:
        return ((tag - 0x38) << 8) + data[pos + 1], pos + 2
    if tag < 0x48:
        return ((tag - 0x44) << 16) + (data[pos + 1] << 8) + data[pos + 2], pos + 3
    if tag == 0x48:
        data[pos + 4]
        return _I32(data, pos + 1)[0], pos + 5
    if tag == 0xBD:
        byte = data[pos + 1]
        return byte - 256 if byte > 127 else byte, pos + 2
    if tag == 0xBC:
        data[pos + 2]
        return _I16(data, pos + 1)[0], pos + 3
    raise _bad_tag(tag)


def _sized(data: bytes, pos: int) -> tuple[int, int]:
    """The start and the end of bytes that have their length in front of them."""
    length, pos = int_at(data, pos)
    if not 0 <= length <= len(data) - pos:
        raise RemoteProtocolError("fastjson2.bad_length")
    return pos, pos + length


def skip(data: bytes, pos: int, depth: int = MAX_DEPTH) -> int:
    """The offset after the value at `pos`.

    Raises:
        RemoteProtocolError: malformed, cut short or too deep.
    """
    try:
        end = _skip(data, pos, depth)
    except IndexError:
        raise _truncated() from None
    if end > len(data):
        raise _truncated()
    return end


def _skip(data: bytes, pos: int, depth: int) -> int:
    tag = data[pos]
    width = _WIDTH[tag]
    if width:
        return pos + width
    if 0x79 <= tag <= 0x7E or tag == 0x91 or tag == 0xBB:  # text, binary, big integer
        return _sized(data, pos + 1)[1]
    if 0x95 <= tag <= 0xA4:  # arrays
        count = tag - 0x94
        pos += 1
        if tag == 0xA4:
            count, pos = int_at(data, pos)
            if not 0 <= count <= len(data) - pos:
                raise RemoteProtocolError("fastjson2.bad_length")
        _descend(depth)
        for _ in range(count):
            width = _WIDTH[data[pos]]
            pos = pos + width if width else _skip(data, pos, depth - 1)
        return pos
    if tag == 0xA6:  # object
        _descend(depth)
        pos += 1
        while data[pos] != 0xA5:
            pos = _name_end(data, pos, depth)
            width = _WIDTH[data[pos]]
            pos = pos + width if width else _skip(data, pos, depth - 1)
        return pos + 1
    if tag == 0x92:  # a value with its type: a name and its number, or a number
        _descend(depth)
        return _skip(data, _symbol_end(data, pos + 1, depth), depth - 1)
    if tag == 0x93 or tag == 0x7F:  # a reference; a symbol as a value
        return _name_end(data, pos + 1 if tag == 0x93 else pos, depth)
    if tag == 0x90 or tag == 0xB6:  # char, float from an int
        return int_at(data, pos + 1)[1]
    if tag == 0xB4 or tag == 0xB8 or tag == 0xBA:  # double, decimal, big integer from a long
        _descend(depth)
        return _skip(data, pos + 1, depth - 1)
    if tag == 0xB9:  # decimal: scale, then an integer
        _descend(depth)
        return _skip(data, int_at(data, pos + 1)[1], depth - 1)
    if tag == 0xA7:
        return int_at(data, pos + 4)[1]
    if tag == 0xA8:
        return int_at(data, pos + 8)[1]
    if tag == 0xAE:
        return int_at(data, pos + 9)[1]
    if tag == 0xAA:
        return _name_end(data, int_at(data, pos + 8)[1], depth)
    raise _bad_tag(tag)


def _descend(depth: int) -> None:
    if not depth:
        raise RemoteProtocolError("fastjson2.too_deep")


def _symbol_end(data: bytes, pos: int, depth: int) -> int:
    """The offset after the number of a symbol, or after its text and the number that it gets."""
    tag = data[pos]
    if tag <= 0x48 or tag >= 0xF0:
        return int_at(data, pos)[1]
    return int_at(data, _name_end(data, pos, depth))[1]


def _name_end(data: bytes, pos: int, depth: int) -> int:
    """The offset after the name of a field. It may be any plain value: maps have keys that are no strings."""
    tag = data[pos]
    if tag == 0x7F:
        return _symbol_end(data, pos + 1, depth)
    width = _WIDTH[tag]
    if width:
        return pos + width
    _descend(depth)
    return _skip(data, pos, depth - 1)


def plain_at(data: bytes, pos: int) -> tuple[object, int]:
    """A number, a boolean, null or text at `pos` and the offset after it; NOT_PLAIN and `pos` for anything else.

    Raises:
        RemoteProtocolError: malformed.
        IndexError: cut short.
    """
    tag = data[pos]
    if 0x49 <= tag <= 0x78:
        end = pos + 1 + tag - 0x49
        raw = data[pos + 1 : end]
        if len(raw) < tag - 0x49:
            raise _truncated()
        return raw.decode("latin-1"), end
    if 0x79 <= tag <= 0x7E:
        start, end = _sized(data, pos + 1)
        try:
            return data[start:end].decode(_ENCODINGS[tag], "surrogatepass"), end
        except UnicodeError:
            raise RemoteProtocolError("fastjson2.bad_string") from None
    if tag <= 0x48 or tag >= 0xF0 or 0xBC <= tag <= 0xBD:
        return int_at(data, pos)
    if tag == 0xAF:
        return None, pos + 1
    if 0xB0 <= tag <= 0xB1:
        return tag == 0xB1, pos + 1
    if tag >= 0xD8:
        return Long(tag - 0xE0), pos + 1
    if tag >= 0xC8:
        return Long(((tag - 0xD0) << 8) + data[pos + 1]), pos + 2
    if tag >= 0xC0:
        return Long(((tag - 0xC4) << 16) + (data[pos + 1] << 8) + data[pos + 2]), pos + 3
    width = _WIDTH[tag]
    if width > 1:
        data[pos + width - 1]
    if tag == 0xBE:
        return Long(_I64(data, pos + 1)[0]), pos + 9
    if tag == 0xBF:
        return Long(_I32(data, pos + 1)[0]), pos + 5
    if 0xB2 <= tag <= 0xB3:
        return float(tag - 0xB2), pos + 1
    if tag == 0xB5:
        return _F64(data, pos + 1)[0], pos + 9
    if tag == 0xB7:
        return _F32(data, pos + 1)[0], pos + 5
    if tag == 0xB6:
        value, pos = int_at(data, pos + 1)
        return float(value), pos
    return NOT_PLAIN, pos


def read(data: bytes, pos: int = 0) -> tuple[object, int]:
    """The value at `pos` and the offset after it: plain values, binary, arrays (tuples) and objects (`Map`); anything rarer as
    `Opaque`. References are not followed.

    Raises:
        RemoteProtocolError: malformed, cut short or too deep.
    """
    try:
        return _read(data, pos, MAX_DEPTH, {})
    except IndexError:
        raise _truncated() from None


def _read(data: bytes, pos: int, depth: int, symbols: dict[int, str]) -> tuple[object, int]:
    value, end = plain_at(data, pos)
    if value is not NOT_PLAIN:
        return value, end
    tag = data[pos]
    kind: str | None = None
    if tag == 0x91:
        start, end = _sized(data, pos + 1)
        return data[start:end], end
    if tag == 0xAB:
        data[pos + 8]
        return Date(_I64(data, pos + 1)[0]), pos + 9
    if tag == 0x92:
        kind, inner = _symbol(data, pos + 1, symbols)
        if data[inner] != 0xA6:
            _descend(depth)
            return _read(data, inner, depth - 1, symbols)
        pos = inner
        tag = 0xA6
    if 0x94 <= tag <= 0xA4:
        count = tag - 0x94
        pos += 1
        if tag == 0xA4:
            count, pos = int_at(data, pos)
            if not 0 <= count <= len(data) - pos:
                raise RemoteProtocolError("fastjson2.bad_length")
        if not count:
            return (), pos
        _descend(depth)
        items: list[object] = []
        for _ in range(count):
            item, pos = _read(data, pos, depth - 1, symbols)
            items.append(item)
        return tuple(items), pos
    if tag == 0xA6:
        _descend(depth)
        pos += 1
        pairs: list[tuple[object, object]] = []
        while data[pos] != 0xA5:
            key: object
            if data[pos] == 0x7F:
                key, pos = _symbol(data, pos + 1, symbols)
            else:
                key, pos = _read(data, pos, depth - 1, symbols)
            value, pos = _read(data, pos, depth - 1, symbols)
            pairs.append((key, value))
        return Map(kind, tuple(pairs)), pos + 1
    end = _skip(data, pos, depth)
    if end > len(data):
        raise _truncated()
    return Opaque(data[pos:end]), end


def _symbol(data: bytes, pos: int, symbols: dict[int, str]) -> tuple[str, int]:
    tag = data[pos]
    if tag <= 0x48 or tag >= 0xF0:
        number, pos = int_at(data, pos)
        return symbols.get(number, f"#{number}"), pos
    text, pos = plain_at(data, pos)
    if not isinstance(text, str):
        raise _bad_tag(tag)
    number, pos = int_at(data, pos)
    symbols[number] = text
    return text, pos


def _int_bytes(value: int) -> bytes:
    if value < 0x30:
        return bytes((value,))
    if value < 0x800:
        return bytes((0x38 + (value >> 8), value & 0xFF))
    if value < 0x40000:
        return bytes((0x44 + (value >> 16), value >> 8 & 0xFF, value & 0xFF))
    return b"\x48" + value.to_bytes(4, "big")


def string_bytes(text: bytes) -> bytes:
    """A JSONB string made from UTF-8. Bytes that are no UTF-8 are taken for Latin-1, as in HTTP headers."""
    size = len(text)
    if text.isascii():
        if size < 48:
            return bytes((0x49 + size,)) + text
        return b"\x79" + _int_bytes(size) + text
    try:
        text.decode()
    except UnicodeDecodeError:
        try:
            wide = text.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
        except UnicodeDecodeError:
            return b"\x79" + _int_bytes(size) + text
        return b"\x7c" + _int_bytes(len(wide)) + wide
    return b"\x7a" + _int_bytes(size) + text
