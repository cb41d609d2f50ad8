"""Values of Hessian 2 that have no type of their own in Python.

A tree of them is finite: references stay references (`Ref`), so that neither a cycle nor a value that is used many times can
grow when it is read. An untyped list is a tuple, a string `str`, binary `bytes`, an int (32 bits) `int`, a double `float`.
"""

from __future__ import annotations

from dataclasses import dataclass


class Long(int):
    """A 64-bit integer; a plain `int` is Hessian's 32-bit one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Long({int(self)})"


class Date(int):
    """A point in time, in milliseconds since 1970 UTC."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Date({int(self)})"


class Opaque(bytes):
    """A value of another serialization that is not turned into one of these: its bytes."""

    __slots__ = ()


@dataclass(slots=True)
class Ref:
    """A list, map or object that appeared before, by its number."""

    index: int


@dataclass(slots=True)
class TypedList:
    """A list or array that names its type, e.g. `[int` or `java.util.LinkedList`."""

    type: str
    items: tuple[object, ...]


@dataclass(slots=True)
class Map:
    """A map. Keys may be anything, also what Python cannot hash, so it is a row of pairs."""

    type: str | None
    """None for Java's HashMap"""
    pairs: tuple[tuple[object, object], ...]

    def get(self, key: object, default: object = None) -> object:
        """The value of a key; the last one counts, as in Java."""
        for name, value in reversed(self.pairs):
            if type(name) is type(key) and name == key:
                return value
        return default


@dataclass(slots=True)
class ClassDef:
    """A class definition: its name and its fields."""

    type: str
    fields: tuple[str, ...]


@dataclass(slots=True)
class Object:
    """An instance of a class."""

    definition: ClassDef
    values: tuple[object, ...]

    def get(self, field: str, default: object = None) -> object:
        """The value of a field."""
        fields = self.definition.fields
        return self.values[fields.index(field)] if field in fields else default
