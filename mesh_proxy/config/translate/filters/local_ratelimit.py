"""`envoy.filters.http.local_ratelimit`."""

from __future__ import annotations

from mesh_filters.local_ratelimit import LocalDescriptorConfig, LocalRateLimitConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import header_value_option, required, runtime_fraction
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.rate_limit import rate_limit_with_hits, token_bucket

_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def _descriptor(reader: Reader) -> LocalDescriptorConfig:
    entries = reader.each("entries", lambda r: (r.text("key"), r.text("value")))
    return LocalDescriptorConfig(entries=entries, bucket=token_bucket(required(reader, "token_bucket")))


def _translate(extension: Extension, context: Context) -> LocalRateLimitConfig:
    reader = extension.reader
    bucket, status = reader.sub("token_bucket"), reader.sub("status")
    code = int(status.raw("code")) if status is not None else 429
    return LocalRateLimitConfig(
        identity=f"{reader.path}|{reader.text('stat_prefix')}",
        stat_prefix=reader.text("stat_prefix"),
        status=code if code >= 400 else 429,
        bucket=token_bucket(bucket) if bucket is not None else None,
        enabled=runtime_fraction(reader.sub("filter_enabled")),
        enforced=runtime_fraction(reader.sub("filter_enforced")),
        request_headers=reader.each("request_headers_to_add_when_not_enforced", header_value_option),
        response_headers=reader.each("response_headers_to_add", header_value_option),
        descriptors=reader.each("descriptors", _descriptor),
        rate_limits=reader.each("rate_limits", rate_limit_with_hits),
        stage=reader.number("stage"),
        per_connection=reader.flag("local_rate_limit_per_downstream_connection"),
        x_ratelimit_headers=reader.enum("enable_x_ratelimit_headers") == "DRAFT_VERSION_03",
        vh_rate_limits=reader.enum("vh_rate_limits"),
        always_consume_default=reader.flag("always_consume_default_token_bucket", True),
        resource_exhausted=reader.flag("rate_limited_as_resource_exhausted"),
        max_dynamic_descriptors=reader.number("max_dynamic_descriptors", 20),
    )


def _translate_route(extension: Extension, context: Context) -> LocalRateLimitConfig:
    config = _translate(extension, context)
    if config.bucket is None:
        raise extension.reader.error("is required for a route", "token_bucket")
    return config


register_http_filter(_TYPE, _translate, route_type_url=_TYPE, translate_route=_translate_route)
