"""`envoy.filters.http.health_check`."""

from __future__ import annotations

from mesh_filters.health_check import HealthCheckConfig
from mesh_proxy.config.reader import Extension
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import header_matcher


def _translate(extension: Extension, context: Context) -> HealthCheckConfig:
    reader = extension.reader
    pass_through = reader.flag("pass_through_mode")
    cache_s = reader.seconds("cache_time", 0.0) or 0.0
    if cache_s and not pass_through:
        raise reader.error("is only for pass_through_mode", "cache_time")
    percentages = reader.entries("cluster_min_healthy_percentages")
    if percentages and pass_through:
        raise reader.error("is not for pass_through_mode", "cluster_min_healthy_percentages")
    return HealthCheckConfig(
        pass_through=pass_through,
        cache_s=cache_s,
        headers=reader.each("headers", header_matcher),
        min_healthy=tuple((name, float(one.raw("value"))) for name, one in percentages),
    )


register_http_filter("envoy.extensions.filters.http.health_check.v3.HealthCheck", _translate)
