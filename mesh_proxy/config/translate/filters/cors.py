"""`envoy.filters.http.cors`."""

from __future__ import annotations

from mesh_filters.cors import CorsConfig, CorsPolicyConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import runtime_fraction
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import string_matcher

_PACKAGE = "envoy.extensions.filters.http.cors.v3"


def _flag(reader: Reader, name: str) -> bool | None:
    return reader.flag(name) if reader.has(name) else None


def _policy(extension: Extension, context: Context) -> CorsPolicyConfig:
    reader = extension.reader
    return CorsPolicyConfig(
        allow_origins=reader.each("allow_origin_string_match", string_matcher),
        allow_methods=reader.text("allow_methods"),
        allow_headers=reader.text("allow_headers"),
        expose_headers=reader.text("expose_headers"),
        max_age=reader.text("max_age"),
        allow_credentials=_flag(reader, "allow_credentials"),
        allow_private_network=_flag(reader, "allow_private_network_access"),
        forward_not_matching_preflights=_flag(reader, "forward_not_matching_preflights"),
        enabled=runtime_fraction(reader.sub("filter_enabled")),
        shadow=runtime_fraction(reader.sub("shadow_enabled")),
    )


def _filter(extension: Extension, context: Context) -> CorsConfig:
    _ = extension.reader  # a message without fields
    return CorsConfig()


register_http_filter(f"{_PACKAGE}.Cors", _filter, route_type_url=f"{_PACKAGE}.CorsPolicy", translate_route=_policy)
