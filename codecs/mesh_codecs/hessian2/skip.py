"""Stepping over Hessian 2 values without making them.

The walk needs no classes and makes no values. What it must know of the stream so far are Hessian's three tables: how many
fields each class definition has (instances do not say), and how many lists, maps and objects and how many type names went by
(references are checked against these counts). It is one loop with a stack of what is still to come, so the depth of the input
never becomes depth of ours.

Grammar: Hessian 2.0 serialization as hessian-lite speaks it. The terminator `Z` of a map is looked for only where a key may
stand.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.text import string_end, truncated

MAX_DEPTH: Final = 64
"""nested containers that are followed: real graphs stay below, and Java's own recursion must survive ours"""

MAX_CLASSES: Final = 1024
"""class definitions in one stream; each is an entry of a table that instances index"""

MAX_FIELDS: Final = 1024
"""fields of one class definition"""

_UNTIL_Z: Final = -1
_MAP_KEY: Final = -2
_MAP_VALUE: Final = -3


def _widths() -> bytes:
    """Bytes taken by a value of fixed size, tag included, for every tag; 0 where the size depends on more than the tag."""
    table = bytearray(256)
    for tag in b"NTF\x5b\x5c":  # null, booleans, 0.0, 1.0
        table[tag] = 1
    for tag in range(0x20, 0x30):  # short binary
        table[tag] = 1 + tag - 0x20
    for tag in range(0x38, 0x40):  # long in three bytes
        table[tag] = 3
    for tag in b"I\x4bY\x5f":  # int, date in minutes, long as int32, double in thousandths
        table[tag] = 5
    for tag in b"L\x4aD":  # long, date in milliseconds, double
        table[tag] = 9
    table[0x5D] = 2  # double as a byte
    table[0x5E] = 3  # double as a short
    for tag in range(0x80, 0xC0):  # int
        table[tag] = 1
    for tag in range(0xC0, 0xD0):
        table[tag] = 2
    for tag in range(0xD0, 0xD8):
        table[tag] = 3
    for tag in range(0xD8, 0xF0):  # long
        table[tag] = 1
    for tag in range(0xF0, 0x100):
        table[tag] = 2
    return bytes(table)


_WIDTH: Final = _widths()

_RUN: Final = 32
"""scalars that one match of `_SCALARS` steps over"""

_SCALARS: Final = re.compile(
    rb"(?:[NTF\x5b\x5c\x80-\xbf\xd8-\xef]|[\x5d\xc0-\xcf\xf0-\xff].|[\x38-\x3f\x5e\xd0-\xd7]..|[IKY\x5f]....|[LJD]........"
    rb"|\x00|\x01[\x00-\x7f]|\x02[\x00-\x7f]{2}|\x03[\x00-\x7f]{3}|\x04[\x00-\x7f]{4}|\x05[\x00-\x7f]{5}|\x06[\x00-\x7f]{6}"
    rb"|\x07[\x00-\x7f]{7}|\x08[\x00-\x7f]{8}){32}+",
    re.DOTALL,
)
"""Exactly `_RUN` values of fixed size or short ASCII strings: arrays of numbers and lists of words in one step of the loop."""


class Tables:
    """Hessian's reference tables as far as a walk needs them. One per Dubbo body."""

    __slots__ = ("classes", "left", "refs", "types")

    def __init__(self, max_values: int = sys.maxsize) -> None:
        self.left = max_values
        """values that may still be stepped over; a run of scalars in a list, and the end of a container, count as one"""
        self.refs = 0
        """lists, maps and objects that began so far"""
        self.types = 0
        """type names of lists and maps that were spelled out so far"""
        self.classes: list[int] = []
        """number of fields of each class definition"""

    def __repr__(self) -> str:
        return f"<Tables refs={self.refs} types={self.types} classes={self.classes}>"


def int_at(data: bytes, pos: int) -> tuple[int, int]:
    """The Hessian int at `pos` and the offset after it.

    Raises:
        RemoteProtocolError: the tag is no int.
        IndexError: cut short.
    """
    tag = data[pos]
    if 0x80 <= tag < 0xC0:
        return tag - 0x90, pos + 1
    if 0xC0 <= tag < 0xD0:
        return ((tag - 0xC8) << 8) + data[pos + 1], pos + 2
    if 0xD0 <= tag < 0xD8:
        return ((tag - 0xD4) << 16) + (data[pos + 1] << 8) + data[pos + 2], pos + 3
    if tag == 0x49:
        data[pos + 4]
        return int.from_bytes(data[pos + 1 : pos + 5], "big", signed=True), pos + 5
    raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} where an int was expected")


def length_at(data: bytes, pos: int) -> tuple[int, int]:
    """The length of a list at `pos` and the offset after it; refused when the rest of the bytes cannot fill it."""
    length, pos = int_at(data, pos)
    if not 0 <= length <= len(data) - pos:
        raise RemoteProtocolError("hessian2.bad_length")
    return length, pos


def skip(data: bytes, pos: int, count: int, tables: Tables, max_depth: int = MAX_DEPTH) -> int:
    """The offset after `count` values that start at `pos`. `tables` is brought up to date.

    Raises:
        RemoteProtocolError: malformed, cut short, deeper than `max_depth` or more values than `tables.left`; `tables` is then of
            no use any more.
    """
    try:
        end = _walk(data, pos, count, tables, max_depth, -1)
    except IndexError:
        raise truncated() from None
    if end > len(data):
        raise truncated()
    return end


def plain_end(data: bytes, pos: int, count: int) -> int:
    """The offset after `count` values that start at `pos`, if all are of fixed size or short ASCII strings, as most arguments
    are; 0 if that cannot be told so quickly. Such values enter no table.

    Raises:
        IndexError: cut short, perhaps.
    """
    for _ in range(count):
        tag = data[pos]
        if tag < 0x20:
            end = pos + 1 + tag
            if tag and not data[pos + 1 : end].isascii():
                return 0
        elif tag & 0xFC == 0x30:
            end = pos + 2 + (tag - 0x30 << 8) + data[pos + 1]
            if not data[pos + 2 : end].isascii():
                return 0
        else:
            width = _WIDTH[tag]
            if not width:
                return 0
            end = pos + width
        pos = end
    return pos


def find_ref(data: bytes, pos: int, count: int, index: int) -> int:
    """The offset of the list, map or object with reference number `index`, among `count` values that start at `pos`.

    A class definition in front of an object is not part of it: the offset is that of the instance.

    Raises:
        RemoteProtocolError: there is none.
    """
    try:
        found = ~_walk(data, pos, count, Tables(), MAX_DEPTH, index)
    except IndexError:
        raise truncated() from None
    if found < 0:
        raise RemoteProtocolError("hessian2.bad_reference")
    return found


def binary_end(data: bytes, pos: int) -> int:
    """The offset after the binary whose tag is at `pos`, chunks included. IndexError when cut short."""
    while True:
        tag = data[pos]
        if 0x20 <= tag < 0x30:
            return pos + 1 + tag - 0x20
        if 0x34 <= tag < 0x38:
            return pos + 2 + ((tag - 0x34) << 8) + data[pos + 1]
        end = pos + 3 + (data[pos + 1] << 8) + data[pos + 2]
        if tag == 0x42:
            return end
        if tag != 0x41:
            raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} where binary was expected")
        pos = end


def type_end(data: bytes, pos: int, tables: Tables) -> int:
    """The offset after the type of a list or map: a name, which enters the table, or a number of one in it."""
    tag = data[pos]
    if tag < 0x34 or 0x52 <= tag <= 0x53:
        end = string_end(data, pos)
        tables.types += 1
        return end
    index, end = int_at(data, pos)
    if not 0 <= index < tables.types:
        raise RemoteProtocolError("hessian2.bad_reference", detail="type")
    return end


def class_end(data: bytes, pos: int, tables: Tables) -> int:
    """The offset after the class definition whose 'C' is at `pos`; it enters the table."""
    size = data[pos + 1]
    end = pos + 2 + size
    pos = end if size < 0x20 and data[pos + 2 : end].isascii() else string_end(data, pos + 1)
    fields = data[pos] - 0x90
    if 0 <= fields < 0x30:
        pos += 1
    else:
        fields, pos = int_at(data, pos)
    if not 0 <= fields <= MAX_FIELDS or len(tables.classes) >= MAX_CLASSES:
        raise RemoteProtocolError("hessian2.class_limit")
    for _ in range(fields):
        tag = data[pos]
        if tag < 0x20 and data[pos + 1 : pos + 1 + tag].isascii():
            pos += 1 + tag
        else:
            pos = string_end(data, pos)
    tables.classes.append(fields)
    return pos


def _walk(data: bytes, pos: int, need: int, tables: Tables, max_depth: int, wanted: int) -> int:
    """The loop. With `wanted` >= 0: the inverted offset of that reference as soon as it begins.

    `need` is what the innermost open container still waits for: a number of values, or one of the three states of those that
    end with 'Z'. IndexError, or an offset after the end, means cut short.
    """
    classes = tables.classes
    stack: list[int] = []
    look_for_run = True
    for step in range(tables.left):
        if need > 0:
            if need >= _RUN and look_for_run and (_WIDTH[data[pos]] or data[pos] < 9):
                run = _SCALARS.match(data, pos)
                if run is not None:
                    pos = run.end()
                    need -= _RUN
                    continue
                # Not again before the value that ends this run too early, or a hostile list would cost a long look per value.
                look_for_run = False
            need -= 1
        elif need == 0:
            if not stack:
                tables.left -= step
                return pos
            need = stack.pop()
            continue
        elif need == _MAP_VALUE:
            need = _MAP_KEY
        elif data[pos] == 0x5A:
            pos += 1
            need = stack.pop()
            continue
        elif need == _MAP_KEY:
            need = _MAP_VALUE

        tag = data[pos]
        width = _WIDTH[tag]
        if width:
            pos += width
            continue
        if tag < 0x20:
            end = pos + 1 + tag
            pos = end if data[pos + 1 : end].isascii() else string_end(data, pos)
            continue
        if tag < 0x34 or 0x52 <= tag <= 0x53:
            pos = string_end(data, pos)
            continue
        if tag < 0x38 or 0x41 <= tag <= 0x42:
            pos = binary_end(data, pos)
            continue
        if tag == 0x51:  # 'Q', a reference
            index, pos = int_at(data, pos + 1)
            if not 0 <= index < tables.refs:
                raise RemoteProtocolError("hessian2.bad_reference")
            continue
        look_for_run = True
        start = pos
        if 0x60 <= tag < 0x70 or tag == 0x4F or tag == 0x43:  # an object
            while tag == 0x43:  # 'C': the definition stands in front of the first instance
                pos = class_end(data, pos, tables)
                tag = data[pos]
                start = pos
            if 0x60 <= tag < 0x70:
                index = tag - 0x60
                pos += 1
            elif tag == 0x4F:
                index, pos = int_at(data, pos + 1)
            else:
                raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} after a class definition")
            if not 0 <= index < len(classes):
                raise RemoteProtocolError("hessian2.bad_reference", detail="class")
            inner = classes[index]
        elif 0x78 <= tag < 0x80:  # a list, its length in the tag
            inner = tag - 0x78
            pos += 1
        elif 0x70 <= tag < 0x78:  # the same with a type
            pos = type_end(data, pos + 1, tables)
            inner = tag - 0x70
        elif tag == 0x48:  # 'H', a map
            inner = _MAP_KEY
            pos += 1
        elif tag == 0x4D:  # 'M', a map with a type
            pos = type_end(data, pos + 1, tables)
            inner = _MAP_KEY
        elif tag == 0x58:  # 'X', a list with its length
            inner, pos = length_at(data, pos + 1)
        elif tag == 0x56:  # 'V', the same with a type
            inner, pos = length_at(data, type_end(data, pos + 1, tables))
        elif tag == 0x57:  # 'W', a list up to 'Z'
            inner = _UNTIL_Z
            pos += 1
        elif tag == 0x55:  # 'U', the same with a type
            pos = type_end(data, pos + 1, tables)
            inner = _UNTIL_Z
        else:
            raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x}")
        if tables.refs == wanted:
            return ~start
        tables.refs += 1
        if inner:
            if len(stack) >= max_depth:
                raise RemoteProtocolError("hessian2.too_deep")
            stack.append(need)
            need = inner
    raise RemoteProtocolError("hessian2.too_many_values")
