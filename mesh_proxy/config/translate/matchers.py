"""String, header and query parameter matchers."""

from __future__ import annotations

from mesh_proxy.config.model.common import (
    HeaderMatcherConfig,
    HeaderMatchKind,
    QueryParameterMatcherConfig,
    StringMatcherConfig,
    StringMatchKind,
)
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.formats import regex

_STRINGS = {
    "exact": StringMatchKind.EXACT,
    "prefix": StringMatchKind.PREFIX,
    "suffix": StringMatchKind.SUFFIX,
    "contains": StringMatchKind.CONTAINS,
}
_OLD_STRINGS = {
    "exact_match": StringMatchKind.EXACT,
    "prefix_match": StringMatchKind.PREFIX,
    "suffix_match": StringMatchKind.SUFFIX,
    "contains_match": StringMatchKind.CONTAINS,
}


def string_matcher(reader: Reader) -> StringMatcherConfig:
    """`envoy.type.matcher.v3.StringMatcher`."""
    pattern = reader.oneof("match_pattern")
    ignore_case = reader.flag("ignore_case")
    if pattern == "safe_regex":
        if ignore_case:
            raise reader.error("has no effect on safe_regex; write (?i) into the pattern", "ignore_case")
        return StringMatcherConfig(kind=StringMatchKind.REGEX, value=regex(required(reader, pattern)))
    if pattern not in _STRINGS:
        raise reader.error("custom matchers are not supported", pattern)
    return StringMatcherConfig(kind=_STRINGS[pattern], value=reader.text(pattern), ignore_case=ignore_case)


def header_matcher(reader: Reader) -> HeaderMatcherConfig:
    """`envoy.config.route.v3.HeaderMatcher`."""
    name = reader.lower("name")
    specifier = reader.oneof("header_match_specifier")
    invert = reader.flag("invert_match")
    missing = reader.flag("treat_missing_header_as_empty")
    if specifier in ("", "present_match"):
        return HeaderMatcherConfig(
            name=name,
            kind=HeaderMatchKind.PRESENT,
            present=reader.flag("present_match") if specifier else True,
            invert=invert,
            treat_missing_as_empty=missing,
        )
    if specifier == "range_match":
        bounds = required(reader, specifier)
        return HeaderMatcherConfig(
            name=name,
            kind=HeaderMatchKind.RANGE,
            range_start=bounds.number("start"),
            range_end=bounds.number("end"),
            invert=invert,
            treat_missing_as_empty=missing,
        )
    if specifier == "string_match":
        string = string_matcher(required(reader, specifier))
    elif specifier == "safe_regex_match":
        string = StringMatcherConfig(kind=StringMatchKind.REGEX, value=regex(required(reader, specifier)))
    else:
        string = StringMatcherConfig(kind=_OLD_STRINGS[specifier], value=reader.text(specifier))
    return HeaderMatcherConfig(
        name=name, kind=HeaderMatchKind.STRING, string=string, invert=invert, treat_missing_as_empty=missing
    )


def query_parameter_matcher(reader: Reader) -> QueryParameterMatcherConfig:
    """`envoy.config.route.v3.QueryParameterMatcher`."""
    specifier = reader.oneof("query_parameter_match_specifier")
    name = reader.text("name")
    if specifier == "string_match":
        return QueryParameterMatcherConfig(name=name, string=string_matcher(required(reader, specifier)))
    return QueryParameterMatcherConfig(name=name, present=reader.flag("present_match") if specifier else True)
