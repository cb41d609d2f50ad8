"""Plain values of a filter's configuration (TypedStruct), read with checks; each fault names its field.

Durations are written as in protobuf's JSON (`0.5s`), in milliseconds (`200ms`), or as a number of seconds. Fractions arrive as
text, because YAML is read as Envoy reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from mesh_filters.definition import FieldError

R = TypeVar("R")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Fields:
    """One mapping and where it stands."""

    __slots__ = ("path", "values")

    def __init__(self, values: Any, path: str = "") -> None:
        if not isinstance(values, Mapping):
            raise FieldError(path or "value", "must be a mapping")
        self.values: Mapping[str, Any] = values
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def error(self, name: str, why: str) -> FieldError:
        """The fault of a field."""
        return FieldError(self.at(name), why)

    def only(self, *names: str) -> Fields:
        """Refuse fields other than these."""
        for name in self.values:
            if name not in names:
                raise self.error(name, f"unknown field; there are {', '.join(names)}")
        return self

    def has(self, name: str) -> bool:
        """Whether it is given."""
        return name in self.values

    def number(self, name: str, default: float | None = None, *, low: float = 0.0, high: float = 1e15) -> float:
        """A number within bounds. Required without a default."""
        value = self.values.get(name, default)
        if value is None:
            raise self.error(name, "is required")
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.error(name, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int = 10**15) -> int:
        """A whole number within bounds."""
        value = self.number(name, default, low=low, high=high)
        if value != int(value):
            raise self.error(name, "must be a whole number")
        return int(value)

    def seconds(self, name: str, default: float | None = None, *, low: float = 0.0, high: float = 86_400.0) -> float:
        """A duration."""
        value = self.values.get(name, default)
        if isinstance(value, str):
            found = _DURATION.fullmatch(value)
            if found is not None:
                value = float(found[1]) * _UNITS[found[2]]
            elif _NUMBER.fullmatch(value):
                value = float(value)
            else:
                raise self.error(name, "must be a duration such as 1.5s or 200ms")
        if value is None:
            raise self.error(name, "is required")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.error(name, f"must be a duration from {low:g}s to {high:g}s")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, "must be a text")
        return value

    def choice(self, name: str, *choices: str) -> str:
        """One of several words; the first is the default."""
        value = self.text(name, choices[0])
        if value not in choices:
            raise self.error(name, f"must be one of {', '.join(choices)}")
        return value

    def sub(self, name: str) -> Fields:
        """A mapping within; empty when it is not given."""
        return Fields(self.values.get(name, {}), self.at(name))

    def entries(self, name: str) -> list[Fields]:
        """A list of mappings."""
        value = self.values.get(name, [])
        if not isinstance(value, (list, tuple)):
            raise self.error(name, "must be a list")
        return [Fields(one, f"{self.at(name)}[{i}]") for i, one in enumerate(value)]


def rules_and_status(values: Mapping[str, Any], rule: Callable[[Fields, int], R], status: int) -> tuple[tuple[R, ...], int]:
    """The configuration of a filter that has `rules`, one at least, and a `status` for what it refuses."""
    fields = Fields(values).only("rules", "status")
    rules = tuple(rule(one, i) for i, one in enumerate(fields.entries("rules")))
    if not rules:
        raise fields.error("rules", "is required")
    return rules, fields.whole("status", status, low=400, high=599)
