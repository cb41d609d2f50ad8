"""`envoy.config.route.v3.RateLimit`: actions that make descriptors of requests; `envoy.type.v3.TokenBucket`."""

from __future__ import annotations

from dataclasses import replace

from mesh_filters.local_ratelimit import BucketConfig
from mesh_filters.rate_limit_actions import ActionConfig, RateLimitConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.formats import check_format
from mesh_proxy.config.translate.matchers import header_matcher, query_parameter_matcher

_SHORTEST_S = 0.05


def token_bucket(reader: Reader) -> BucketConfig:
    """`TokenBucket` of a local rate limit."""
    interval = reader.seconds("fill_interval") or 0.0
    if interval < _SHORTEST_S:
        raise reader.error("must be at least 0.05s", "fill_interval")
    return BucketConfig(
        max_tokens=reader.number("max_tokens"), tokens_per_fill=reader.number("tokens_per_fill", 1), fill_interval_s=interval
    )


def rate_limit(reader: Reader) -> RateLimitConfig:
    """One of the `rate_limits` of a route, virtual host or filter."""
    return RateLimitConfig(
        stage=reader.number("stage"), disable_key=reader.text("disable_key"), actions=reader.each("actions", _action)
    )


def rate_limit_with_hits(reader: Reader) -> RateLimitConfig:
    """One of the `rate_limits` of a filter itself: it may say what a request costs."""
    hits = reader.sub("hits_addend")
    if hits is None:
        return rate_limit(reader)
    text = hits.text("format")
    check_format(text, hits.at("format"))
    return replace(rate_limit(reader), hits=hits.number("number", 1), hits_format=text)


def _action(reader: Reader) -> ActionConfig:
    kind = reader.oneof("action_specifier")
    inner = required(reader, kind)
    if kind in ("source_cluster", "destination_cluster", "remote_address"):
        return ActionConfig(kind=kind)
    if kind == "generic_key":
        return ActionConfig(kind=kind, key=inner.text("descriptor_key"), value=inner.text("descriptor_value"))
    if kind == "request_headers":
        return ActionConfig(
            kind=kind,
            name=inner.text("header_name"),
            key=inner.text("descriptor_key"),
            skip_if_absent=inner.flag("skip_if_absent"),
        )
    if kind == "query_parameters":
        return ActionConfig(
            kind=kind,
            name=inner.text("query_parameter_name"),
            key=inner.text("descriptor_key"),
            skip_if_absent=inner.flag("skip_if_absent"),
        )
    if kind == "masked_remote_address":
        v4, v6 = inner.number("v4_prefix_mask_len", 32), inner.number("v6_prefix_mask_len", 128)
        return ActionConfig(kind=kind, v4_bits=v4, v6_bits=v6)
    if kind in ("header_value_match", "query_parameter_value_match"):
        header = kind == "header_value_match"
        return ActionConfig(
            kind=kind,
            key=inner.text("descriptor_key") or ("header_match" if header else "query_match"),
            value=inner.text("descriptor_value"),
            expect_match=inner.flag("expect_match", True),
            matchers=inner.each("headers", header_matcher) if header else inner.each("query_parameters", query_parameter_matcher),
        )
    if kind in ("metadata", "dynamic_metadata"):
        place = required(inner, "metadata_key")
        return ActionConfig(
            kind=kind,
            key=inner.text("descriptor_key"),
            default=inner.text("default_value"),
            path=(place.text("key"), *place.each("path", lambda r: r.text("key"))),
            source=inner.enum("source") if kind == "metadata" else "DYNAMIC",
            skip_if_absent=inner.flag("skip_if_absent") if kind == "metadata" else False,
        )
    raise reader.error("this action is not supported", kind)
