"""Matchers of headers, query parameters and shares of requests, compiled once into plain functions.

Routes, retries and access-log filters use them. How a repeated header matches (one of its values is enough), what a missing one
means and how `invert` treats both are Envoy's rules (`source/common/http/header_utility.cc`), as version 1.40 shows them.
"""

from __future__ import annotations

import random as _random
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model.common import (
    FractionConfig,
    HeaderMatcherConfig,
    HeaderMatchKind,
    QueryParameterMatcherConfig,
    StringMatcherConfig,
    StringMatchKind,
)
from mesh_proxy.routing.regex import compile_full_match

ValueTest = Callable[[bytes], bool]
RequestTest = Callable[[RequestHeaders], bool]

random_bits: Callable[[int], int] = _random.getrandbits
"""source of all random choices in routing; tests put their own in its place"""

REQUEST_FIELDS: Final[Mapping[bytes, Callable[[RequestHeaders], bytes]]] = {
    b":method": attrgetter("method"),
    b":path": attrgetter("path"),
    b":authority": attrgetter("authority"),
    b"host": attrgetter("authority"),
    b":scheme": attrgetter("scheme"),
    b":protocol": attrgetter("protocol"),
}
"""pseudo headers, and `host`, which is one"""
_INTEGER: Final = re.compile(rb"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*")
"""what absl::SimpleAtoi reads"""
_INT64: Final = 1 << 63


def parse_integer(value: bytes) -> int | None:
    """A signed 64-bit decimal number, or None."""
    if _INTEGER.fullmatch(value) is None or len(value) > 64:
        return None
    number = int(value)
    return number if -_INT64 <= number < _INT64 else None


def compile_string_matcher(config: StringMatcherConfig) -> ValueTest:
    """A test of one value (`StringMatcher`).

    Raises:
        ValueError: the regular expression is not valid.
    """
    kind, wanted = config.kind, config.value.encode()
    if kind is StringMatchKind.REGEX:
        return compile_full_match(config.value)
    if config.ignore_case:
        wanted = wanted.lower()
        if kind is StringMatchKind.EXACT:
            return lambda value: value.lower() == wanted
        if kind is StringMatchKind.PREFIX:
            return lambda value: value[: len(wanted)].lower() == wanted
        if kind is StringMatchKind.SUFFIX:
            return lambda value: value.lower().endswith(wanted)
        return lambda value: wanted in value.lower()
    if kind is StringMatchKind.EXACT:
        return wanted.__eq__
    if kind is StringMatchKind.PREFIX:
        return lambda value: value.startswith(wanted)
    if kind is StringMatchKind.SUFFIX:
        return lambda value: value.endswith(wanted)
    return lambda value: wanted in value


def _range_test(start: int, end: int) -> ValueTest:
    def test(value: bytes) -> bool:
        number = parse_integer(value)
        return number is not None and start <= number < end

    return test


def _compile_value_test(config: HeaderMatcherConfig) -> tuple[Callable[[bytes | None], bool], Callable[[list[bytes]], bool]]:
    """Tests of a header's only value, None being a missing header, and of the values of a repeated one."""
    invert = config.invert
    if config.kind is HeaderMatchKind.PRESENT:
        # A header that counts as empty when missing is always present.
        if config.treat_missing_as_empty:
            always = config.present is not invert
            return lambda value: always, lambda values: always
        if config.present is not invert:
            return lambda value: value is not None, lambda values: True
        return lambda value: value is None, lambda values: False
    missing = b"" if config.treat_missing_as_empty else None
    if config.kind is HeaderMatchKind.RANGE:
        test = _range_test(config.range_start, config.range_end)
    else:
        assert config.string is not None
        test = compile_string_matcher(config.string)

    def matches_any(values: list[bytes]) -> bool:
        return any(map(test, values)) is not invert

    if missing is None and not invert:
        return lambda value: value is not None and test(value), matches_any

    def matches(value: bytes | None) -> bool:
        if value is None:
            if missing is None:
                return False  # also when inverted
            value = missing
        return test(value) is not invert

    return matches, matches_any


def compile_value_matcher(config: HeaderMatcherConfig) -> Callable[[bytes | None], bool]:
    """A test of a value that comes once at most, such as an attachment; None is a missing one.

    Raises:
        ValueError: the regular expression is not valid.
    """
    return _compile_value_test(config)[0]


def compile_headers_matcher(config: HeaderMatcherConfig) -> Callable[[Headers], bool]:
    """A test of a header block without its pseudo headers.

    Raises:
        ValueError: a regular expression is not valid.
    """
    name = config.name.encode()
    test, test_any = _compile_value_test(config)

    def matches(headers: Any) -> bool:  # Headers; those of Dubbo have a property `first`
        if headers.more is not None:
            values = headers.get_all(name)
            if len(values) > 1:
                return test_any(values)
        return test(headers.first.get(name))

    return matches


def compile_header_matcher(config: HeaderMatcherConfig) -> RequestTest:
    """A test of a request's header or pseudo header.

    Raises:
        ValueError: a regular expression is not valid.
    """
    name = config.name.encode()
    test, test_any = _compile_value_test(config)
    field = REQUEST_FIELDS.get(name)
    if field is not None:
        return lambda request: test(field(request) or None)

    def matches(request: RequestHeaders) -> bool:
        headers: Any = request.headers
        if headers.more is not None:
            values = headers.get_all(name)
            if len(values) > 1:
                return test_any(values)
        return test(headers.first.get(name))

    return matches


def compile_response_matcher(config: HeaderMatcherConfig) -> Callable[[ResponseHeaders], bool]:
    """A test of a response's header or of `:status`.

    Raises:
        ValueError: a regular expression is not valid.
    """
    if config.name == ":status":
        test, _ = _compile_value_test(config)
        return lambda response: test(b"%d" % response.status)
    matches = compile_headers_matcher(config)
    return lambda response: matches(response.headers)


def query_parameters(path: bytes) -> dict[bytes, bytes]:
    """The parameters behind the first `?`, not decoded; of a repeated name the first value."""
    parameters: dict[bytes, bytes] = {}
    for pair in path.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        parameters.setdefault(name, value)
    return parameters


def compile_query_matcher(config: QueryParameterMatcherConfig) -> RequestTest:
    """A test of one query parameter of a request (`QueryParameterMatcher`).

    Raises:
        ValueError: a regular expression is not valid.
    """
    name = config.name.encode()
    if config.string is None:
        present = config.present
        return lambda request: (name in query_parameters(request.path)) is present
    test = compile_string_matcher(config.string)

    def matches(request: RequestHeaders) -> bool:
        value = query_parameters(request.path).get(name)
        return value is not None and test(value)

    return matches


_DENOMINATORS: Final[Mapping[str, int]] = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def runtime_share(value: Any) -> tuple[int, int] | None:
    """A runtime value as (numerator, denominator); None when it is no share: a number counts as a percentage."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return (int(value), 100) if value >= 0 else None
    if isinstance(value, str):
        return (int(value), 100) if value.isascii() and value.isdigit() else None
    if isinstance(value, Mapping) and "numerator" in value:
        return int(value["numerator"]), _DENOMINATORS.get(str(value.get("denominator", "HUNDRED")), 100)
    return None


def compile_fraction(config: FractionConfig, runtime: Mapping[str, Any]) -> Callable[[], bool]:
    """A lot that wins for the configured share, which a runtime key may override while we run."""
    key, numerator, denominator = config.runtime_key, config.numerator, config.denominator

    def wins() -> bool:
        share = runtime_share(runtime.get(key)) if key else None
        limit, parts = (numerator, denominator) if share is None else share
        return random_bits(63) % parts < limit

    return wins
