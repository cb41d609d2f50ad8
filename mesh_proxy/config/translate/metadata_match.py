"""`envoy.type.matcher.v3.MetadataMatcher`."""

from __future__ import annotations

from mesh_filters.metadata_match import MetadataMatcherConfig, ValueMatcherConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.matchers import string_matcher


def metadata_matcher(reader: Reader, *, of_route: bool = False) -> MetadataMatcherConfig:
    """`MetadataMatcher`."""
    return MetadataMatcherConfig(
        filter=reader.text("filter"),
        path=reader.each("path", lambda r: r.text("key")),
        value=value_matcher(required(reader, "value")),
        invert=reader.flag("invert"),
        of_route=of_route,
    )


def value_matcher(reader: Reader) -> ValueMatcherConfig:
    """`ValueMatcher`."""
    kind = reader.oneof("match_pattern")
    if kind == "string_match":
        return ValueMatcherConfig(kind=kind, string=string_matcher(required(reader, kind)))
    if kind in ("bool_match", "present_match"):
        return ValueMatcherConfig(kind=kind, flag=reader.flag(kind))
    if kind == "null_match":
        required(reader, kind)
        return ValueMatcherConfig(kind=kind)
    if kind == "list_match":
        return ValueMatcherConfig(kind=kind, children=(value_matcher(required(required(reader, kind), "one_of")),))
    if kind == "or_match":
        return ValueMatcherConfig(kind=kind, children=required(reader, kind).each("value_matchers", value_matcher))
    if kind == "double_match":
        inner = required(reader, kind)
        which = inner.oneof("match_pattern")
        if which == "exact":
            return ValueMatcherConfig(kind="exact", number=float(inner.raw("exact")))
        bounds = required(inner, "range")
        return ValueMatcherConfig(kind="range", start=float(bounds.raw("start")), end=float(bounds.raw("end")))
    raise reader.error("needs a match")
