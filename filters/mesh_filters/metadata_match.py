"""`envoy.type.matcher.v3.MetadataMatcher`: a test of what filters or routes say about a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh_filters.definition import FilterContext

MISSING: Final = object()
"""there is no such value; `None` is a null that somebody has put there"""
ValueTest = Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMatcherConfig:
    """`ValueMatcher`; which fields count depends on `kind`, the name of the field in Envoy's message."""

    kind: str
    string: Any = None
    """a `StringMatcher` of the configuration"""
    number: float = 0.0
    start: float = 0.0
    end: float = 0.0
    """of `range`: from `start` up to, not including, `end`"""
    flag: bool = False
    children: tuple[ValueMatcherConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataMatcherConfig:
    """`MetadataMatcher`."""

    filter: str
    path: tuple[str, ...]
    value: ValueMatcherConfig
    invert: bool = False
    of_route: bool = False
    """of the route instead of what filters have found (`SourcedMetadata`)"""


def find(metadata: Mapping[str, Any] | None, filter_name: str, path: tuple[str, ...]) -> Any:
    """The value, or MISSING."""
    found: Any = metadata.get(filter_name, MISSING) if metadata is not None else MISSING
    for key in path:
        if not isinstance(found, Mapping):
            return MISSING
        found = found.get(key, MISSING)
    return found


def compile_value(config: ValueMatcherConfig, context: FilterContext) -> ValueTest:
    """A test of one value.

    Raises:
        ValueError: a regular expression is not valid.
    """
    kind = config.kind
    if kind == "null_match":
        return lambda value: value is None
    if kind == "string_match":
        matches = context.value_matcher(config.string)
        return lambda value: isinstance(value, str) and matches(value.encode("utf-8", "surrogateescape"))
    if kind == "bool_match":
        flag = config.flag
        return lambda value: value is flag
    if kind == "present_match":
        return lambda value: value is not MISSING and config.flag
    if kind == "exact":
        number = config.number
        return lambda value: _is_number(value) and value == number
    if kind == "range":
        start, end = config.start, config.end
        return lambda value: _is_number(value) and start <= value < end
    tests = tuple(compile_value(one, context) for one in config.children)
    if kind == "list_match":
        one_of = tests[0]
        return lambda value: isinstance(value, (list, tuple)) and any(map(one_of, value))
    return lambda value: any(test(value) for test in tests)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def compile_metadata(config: MetadataMatcherConfig, context: FilterContext) -> Callable[[Mapping[str, Any] | None], bool]:
    """A test of all metadata: filter name → values."""
    test = compile_value(config.value, context)
    name, path, invert = config.filter, config.path, config.invert
    return lambda metadata: test(find(metadata, name, path)) is not invert
