"""`envoy.filters.http.ratelimit`."""

from __future__ import annotations

from mesh_filters.rate_limit_actions import RateLimitConfig
from mesh_filters.ratelimit import GlobalRateLimitConfig, RateLimitRouteConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import header_value_option, required, runtime_fraction
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.rate_limit import rate_limit
from mesh_proxy.config.translate.services import grpc_service

_PACKAGE = "envoy.extensions.filters.http.ratelimit.v3"
_OVERRIDES = {"OVERRIDE_POLICY": "OVERRIDE", "INCLUDE_POLICY": "INCLUDE", "IGNORE_POLICY": "IGNORE"}


def _own_limit(reader: Reader) -> RateLimitConfig:
    """One that stands with the filter, where stages mean nothing."""
    for name in ("stage", "disable_key"):
        if any(field.name == name for field, _ in reader.message.ListFields()):
            raise reader.error("is not supported in the filter's own rate_limits", name)
    return rate_limit(reader)


def _translate(extension: Extension, context: Context) -> GlobalRateLimitConfig:
    reader = extension.reader
    service = required(reader, "rate_limit_service")
    service.enum("transport_api_version")
    status, on_error = reader.sub("rate_limited_status"), reader.sub("status_on_error")
    code = int(status.raw("code")) if status is not None else 429
    grpc = grpc_service(required(service, "grpc_service"), context)
    return GlobalRateLimitConfig(
        domain=reader.text("domain"),
        service=grpc,
        stage=reader.number("stage"),
        request_type=reader.text("request_type", "both"),
        timeout_s=reader.seconds("timeout", 0.02) or 0.02,
        failure_mode_deny=reader.flag("failure_mode_deny"),
        failure_mode_deny_percent=runtime_fraction(reader.sub("failure_mode_deny_percent")),
        resource_exhausted=reader.flag("rate_limited_as_resource_exhausted"),
        x_ratelimit_headers=reader.enum("enable_x_ratelimit_headers") == "DRAFT_VERSION_03",
        limited_header=not reader.flag("disable_x_envoy_ratelimited_header"),
        status=code if code >= 400 else 429,
        status_on_error=int(on_error.raw("code")) if on_error is not None else 500,
        response_headers=reader.each("response_headers_to_add", header_value_option),
        stat_prefix=reader.text("stat_prefix"),
        enabled=runtime_fraction(reader.sub("filter_enabled")),
        enforced=runtime_fraction(reader.sub("filter_enforced")),
        rate_limits=reader.each("rate_limits", _own_limit),
    )


def _translate_route(extension: Extension, context: Context) -> RateLimitRouteConfig:
    reader = extension.reader
    override = reader.enum("override_option")
    return RateLimitRouteConfig(
        vh_rate_limits=_OVERRIDES.get(override) or reader.enum("vh_rate_limits"),
        rate_limits=reader.each("rate_limits", _own_limit),
        domain=reader.text("domain"),
    )


register_http_filter(
    f"{_PACKAGE}.RateLimit", _translate, route_type_url=f"{_PACKAGE}.RateLimitPerRoute", translate_route=_translate_route
)
