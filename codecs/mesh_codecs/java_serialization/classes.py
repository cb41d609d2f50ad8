"""What class descriptors say of objects, and the classes of the JDK whose compact descriptors say nothing.

Which fields a class has and whether it wrote data of its own: Java Object Serialization Specification, chapter 6.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import RemoteProtocolError

MAX_SUPERCLASSES: Final = 64
"""classes between one and Object; each object costs a step for each"""

MAX_FIELDS: Final = 1024
"""fields of one class"""

SIZES: Final = {0x42: 1, 0x43: 2, 0x44: 8, 0x46: 4, 0x49: 4, 0x4A: 8, 0x53: 2, 0x5A: 1}
"""bytes of a primitive field by its type code: B C D F I J S Z"""

SC_WRITE_METHOD: Final = 1
SC_SERIALIZABLE: Final = 2
SC_EXTERNALIZABLE: Final = 4
SC_BLOCK_DATA: Final = 8


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
        self.width = sum(SIZES[code] for code, _ in primitives)
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


JDK: Final = {
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
