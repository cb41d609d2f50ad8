"""Values of a Java object stream: strings, boxed primitives and null; other objects stay the bytes that they are."""

from __future__ import annotations

from struct import Struct
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2.values import Long, Opaque
from mesh_codecs.java_serialization.classes import ClassDesc
from mesh_codecs.java_serialization.primitives import utf_to_utf8
from mesh_codecs.java_serialization.walker import (
    FIRST_HANDLE,
    TC_LONGSTRING,
    TC_NULL,
    TC_OBJECT,
    TC_REFERENCE,
    TC_STRING,
    Walker,
)

_F32: Final = Struct(">f").unpack
_F64: Final = Struct(">d").unpack

_BOXED: Final = frozenset(
    b"java.lang." + name for name in (b"Boolean", b"Byte", b"Character", b"Double", b"Float", b"Integer", b"Long", b"Short")
)


class ObjectReader(Walker):
    """A walker that also says what it has stepped over."""

    __slots__ = ()

    def text_at(self, pos: int) -> bytes | None:
        """The string at `pos`, or the one that is referred to there, as UTF-8; None when it is no string."""
        data = self._data
        tag = data[pos]
        if tag == TC_REFERENCE:
            index = int.from_bytes(data[pos + 1 : pos + 5], "big") - FIRST_HANDLE
            if not 0 <= index < len(self._handles):
                raise RemoteProtocolError("java.bad_reference")
            target = self._handles[index]
            return self.text_at(target) if isinstance(target, int) else None
        if tag == TC_STRING:
            start = pos + 3
            return utf_to_utf8(data[start : start + (data[pos + 1] << 8) + data[pos + 2]])
        if tag == TC_LONGSTRING:
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
        if tag == TC_NULL:
            return None
        text = self.text_at(start)
        if text is not None:
            return text.decode("utf-8", "surrogatepass")
        if tag == TC_OBJECT:
            desc = self._desc_of(start + 1)
            if desc is not None and desc.name in _BOXED:
                return _boxed(desc.primitives[0][0], data[end - desc.width : end], data[start:end])
        return Opaque(data[start:end])

    def _desc_of(self, pos: int) -> ClassDesc | None:
        """The class of an object already stepped over, whose descriptor begins at `pos`."""
        data = self._data
        if data[pos] == TC_REFERENCE:
            index = int.from_bytes(data[pos + 1 : pos + 5], "big") - FIRST_HANDLE
            target = self._handles[index]
            return target if isinstance(target, ClassDesc) else None
        name_at = pos + 2 if self._compact else pos + 1
        name = data[name_at + 2 : name_at + 2 + (data[name_at] << 8) + data[name_at + 1]]
        for handle in reversed(self._handles):
            if isinstance(handle, ClassDesc) and handle.name == name:
                return handle
        return None


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
