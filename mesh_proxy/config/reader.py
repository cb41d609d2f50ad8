"""Reading a protobuf message such that nothing in it can be forgotten.

A translator reads a message through a `Reader`, which notes every field that was asked for. When the translation is over,
`finish` reports each field that is set but was never read: it would have been misapplied in silence, so it is refused, unless
it stands on the one list of fields that are safe to ignore (`mesh_proxy.config.ignored`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.wrappers_pb2 import BoolValue

from mesh_proxy.config import extensions, features
from mesh_proxy.config.errors import ConfigError, join
from mesh_proxy.config.ignored import IGNORED
from mesh_proxy.config.json_proto import Parser
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.rules import check_rules

T = TypeVar("T")

_LONGEST_S = 315_576_000_000
"""ten thousand years: what a Duration may hold"""


class Reader:
    """One message, its path, and which of its fields were read."""

    __slots__ = ("_abandoned", "_children", "_read", "message", "path", "problems")

    def __init__(self, message: Any, path: str, problems: Problems) -> None:
        self.message: Any = message
        self.path = path
        self.problems = problems
        self._read: set[str] = set()
        self._children: list[Reader] = []
        self._abandoned = False

    @property
    def type(self) -> str:
        """Full name of the message type."""
        name: str = self.message.DESCRIPTOR.full_name
        return name

    def at(self, name: str) -> str:
        """The path of a field."""
        return join(self.path, name)

    def error(self, why: str, field: str = "") -> ConfigError:
        """The error to raise for this message, or for one of its fields."""
        return ConfigError(self.at(field) if field else self.path, why)

    def has(self, name: str) -> bool:
        """Whether a field is set. Does not count as reading it."""
        return bool(self.message.HasField(name))

    def oneof(self, name: str) -> str:
        """The member of a oneof that is set, or "". Does not count as reading it."""
        return self.message.WhichOneof(name) or ""

    def _value(self, name: str) -> Any:
        self._read.add(name)
        if self.problems.reads is not None:
            self.problems.reads.add(f"{self.type}.{name}")
        return getattr(self.message, name)

    def text(self, name: str, default: str = "") -> str:
        """A string field (or StringValue), `default` if empty."""
        value = self._value(name)
        return (value if isinstance(value, str) else value.value) or default

    def lower(self, name: str) -> str:
        """A header name."""
        return self.text(name).lower()

    def strings(self, name: str) -> tuple[str, ...]:
        """A repeated string."""
        return tuple(self._value(name))

    def numbers(self, name: str) -> tuple[int, ...]:
        """A repeated integer."""
        return tuple(self._value(name))

    def flag(self, name: str, default: bool = False) -> bool:
        """A bool, or a BoolValue with the default it has when it is absent."""
        value = self._value(name)
        if isinstance(value, bool):
            return value
        return bool(value.value) if self.message.HasField(name) else default

    def number(self, name: str, default: int = 0) -> int:
        """An integer, or a UInt32Value (UInt64Value) with the default it has when it is absent."""
        value = self._value(name)
        if isinstance(value, int):
            return value
        return int(value.value) if self.message.HasField(name) else default

    def optional_number(self, name: str) -> int | None:
        """A UInt32Value, None when it is absent."""
        value = self._value(name)
        return int(value.value) if self.message.HasField(name) else None

    def enum(self, name: str) -> str:
        """An enum by the name of its value."""
        number = self._value(name)
        values = self.message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number
        if number not in values:
            raise self.error(f"{number} is not a value of this enum", name)
        text: str = values[number].name
        return text

    def seconds(self, name: str, default: float | None = None) -> float | None:
        """A Duration in seconds, `default` when it is absent. Zero stays zero."""
        value = self._value(name)
        if not self.message.HasField(name):
            return default
        seconds = value.seconds + value.nanos / 1e9
        if seconds < 0 or value.nanos < 0:
            raise self.error(f"must not be negative, is {seconds:g}s", name)
        if seconds > _LONGEST_S:
            raise self.error(f"is too long, at most {_LONGEST_S}s", name)
        return float(seconds)

    def timeout(self, name: str, default: float | None = None) -> float | None:
        """A Duration for which zero means "no limit" (None)."""
        return self.seconds(name, default) or None

    def percent(self, name: str, default: float) -> float:
        """An `envoy.type.v3.Percent`, 0 to 100."""
        inner = self.sub(name)
        if inner is None:
            return default
        value = float(inner._value("value"))
        if math.isnan(value) or not 0 <= value <= 100:
            raise self.error("must be between 0 and 100", f"{name}.value")
        return value

    def raw(self, name: str) -> Any:
        """The field's own value, all of which the caller understands."""
        return self._value(name)

    def sub(self, name: str) -> Reader | None:
        """The reader of a message field, None when it is not set."""
        value = self._value(name)
        return self._child(value, name) if self.message.HasField(name) else None

    def subs(self, name: str) -> list[Reader]:
        """The readers of a repeated message field."""
        return [self._child(value, f"{name}[{i}]") for i, value in enumerate(self._value(name))]

    def entries(self, name: str) -> list[tuple[str, Reader]]:
        """The readers of a map's values, in the order of the keys."""
        values = self._value(name)
        return [(key, self._child(values[key], f"{name}[{key}]")) for key in sorted(values)]

    def _child(self, message: Any, name: str) -> Reader:
        child = Reader(message, self.at(name), self.problems)
        self._children.append(child)
        return child

    def each(self, name: str, translate: Callable[[Reader], T]) -> tuple[T, ...]:
        """Translate every entry of a repeated field. A fault in one is noted, and the next ones are still looked at."""
        return translate_all(self.subs(name), translate)

    def struct(self, name: str) -> dict[str, Any]:
        """A Struct as plain values."""
        value = self._value(name)
        return struct_to_dict(value) if self.message.HasField(name) else {}

    def extension(self, name: str = "typed_config") -> Extension | None:
        """The `Any` in a field, unpacked and checked by its rules; None if it is not set or empty."""
        value = self._value(name)
        if not self.message.HasField(name) or not value.type_url:
            return None
        return self._unpack(value, name)

    def extensions(self, name: str) -> list[tuple[str, Extension]]:
        """The `Any`s of a map such as `typed_per_filter_config`."""
        values = self._value(name)
        return [(key, self._unpack(values[key], f"{name}[{key}]")) for key in sorted(values)]

    def extension_of(self, name: str, key: str) -> tuple[Extension | None, list[str]]:
        """The `Any` under one key of a map, None without it, and the other keys, which are left packed."""
        values = self._value(name)
        others = sorted(other for other in values if other != key)
        return (self._unpack(values[key], f"{name}[{key}]") if key in values else None), others

    def _unpack(self, packed: Any, name: str) -> Extension:
        path = self.at(name)
        full_name = extensions.type_name(packed.type_url)
        message = extensions.new_message(packed.type_url)
        if message is None:
            raise ConfigError(path, f"unknown or unsupported type {packed.type_url}")
        try:
            message.MergeFromString(packed.value)
        except DecodeError:
            raise ConfigError(path, f"is not a valid {full_name}") from None
        if full_name not in extensions.TYPED_STRUCTS:
            return Extension(full_name, self._checked(message, path), None)
        inner_name = extensions.type_name(message.type_url)  # type: ignore[attr-defined]
        values = struct_to_dict(message.value)  # type: ignore[attr-defined]
        path = join(path, "value")
        inner = extensions.new_message(inner_name)
        if inner is None:
            return Extension(inner_name, None, StructReader(values, path, self.problems))
        problems = Problems()
        Parser(problems).fill(inner, values, path)
        problems.check()
        return Extension(inner_name, self._checked(inner, path), None)

    def _checked(self, message: Message, path: str) -> Reader:
        problems = Problems()
        check_rules(message, path, problems)
        problems.check()
        reader = Reader(message, path, self.problems)
        self._children.append(reader)
        return reader

    def mark_read(self, names: Iterable[str]) -> None:
        """Fields that need no translation because the value they have is what we do anyway."""
        self._read.update(names)

    def abandon(self) -> None:
        """The translation broke off here: unread fields say nothing."""
        self._abandoned = True

    def finish(self) -> None:
        """Report the fields that are set and were not read, here and in all readers made from this one."""
        if self._abandoned:
            return
        for field, value in self.message.ListFields():
            full_name = f"{self.type}.{field.name}"
            if field.name in self._read:
                harmless = features.NOT_YET.get(full_name)
                if harmless is not None and not _is_one_of(value, harmless):
                    self.problems.add(self.at(field.name), "this field is not supported yet")
                continue
            reason = IGNORED.get(full_name)
            if reason is None:
                self.problems.add(self.at(field.name), "this field is not supported")
            else:
                self.problems.warn(self.at(field.name), f"ignored: {reason}")
        for child in self._children:
            child.finish()


def _is_one_of(value: Any, harmless: frozenset[object]) -> bool:
    plain = value.value if isinstance(value, BoolValue) else value
    return isinstance(plain, bool | int | str) and plain in harmless


class StructReader:
    """The same for a plain mapping: the configuration of a filter that has no protobuf message (TypedStruct)."""

    __slots__ = ("path", "problems", "values")

    def __init__(self, values: dict[str, Any], path: str, problems: Problems) -> None:
        self.values = values
        self.path = path
        self.problems = problems

    def error(self, why: str, field: str = "") -> ConfigError:
        """The error to raise for this mapping, or for one of its keys."""
        return ConfigError(join(self.path, field) if field else self.path, why)

    def only(self, *names: str) -> None:
        """Refuse keys other than these."""
        unknown = [name for name in self.values if name not in names]
        if unknown:
            raise self.error("unknown field", unknown[0])


class Extension:
    """An unpacked `Any`: its type, and either a reader of the message or, for a TypedStruct of a type of ours, of a mapping."""

    __slots__ = ("_reader", "_struct", "type")

    def __init__(self, type_name: str, reader: Reader | None, struct: StructReader | None) -> None:
        self.type = type_name
        self._reader = reader
        self._struct = struct

    @property
    def path(self) -> str:
        """Where the configuration stands."""
        return self._reader.path if self._reader is not None else self.struct.path

    @property
    def is_message(self) -> bool:
        """Whether there is a message to read; else there is a mapping."""
        return self._reader is not None

    @property
    def reader(self) -> Reader:
        """The message; an error for a TypedStruct of an unknown type."""
        if self._reader is None:
            raise ConfigError(self.struct.path, f"unknown or unsupported type {self.type}")
        return self._reader

    @property
    def struct(self) -> StructReader:
        """The mapping; an error for a message."""
        if self._struct is None:
            raise ConfigError(self.reader.path, f"must be a TypedStruct, not {self.type}")
        return self._struct

    def unsupported(self, what: str) -> ConfigError:
        """The error for a type that cannot stand at this place."""
        return ConfigError(self.path, f"{self.type} is not a supported {what}")


def translate_all(readers: Iterable[Reader], translate: Callable[[Reader], T]) -> tuple[T, ...]:
    """`translate` each; faults are noted in the readers' problems."""
    results = []
    for reader in readers:
        try:
            results.append(translate(reader))
        except ConfigError as error:
            reader.problems.extend(error)
            reader.abandon()
    return tuple(results)


def struct_to_dict(message: Any) -> dict[str, Any]:
    """A Struct as plain values; whole numbers become ints."""
    return {key: _whole(value) for key, value in json_format.MessageToDict(message).items()}


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
