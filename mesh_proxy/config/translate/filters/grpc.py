"""`envoy.filters.http.grpc_stats` and `envoy.filters.http.grpc_web`."""

from __future__ import annotations

from mesh_filters.grpc_stats import GrpcStatsConfig
from mesh_filters.grpc_web import GrpcWebConfig
from mesh_proxy.config.reader import Extension
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context


def _stats(extension: Extension, context: Context) -> GrpcStatsConfig:
    reader = extension.reader
    kind = reader.oneof("per_method_stat_specifier")
    methods: frozenset[tuple[str, str]] = frozenset()
    if kind == "individual_method_stats_allowlist":
        services = required(reader, kind).subs("services")
        methods = frozenset((one.text("name"), method) for one in services for method in one.strings("method_names"))
    return GrpcStatsConfig(
        all_methods=kind == "stats_for_all_methods" and reader.flag("stats_for_all_methods"),
        methods=methods,
        emit_filter_state=reader.flag("emit_filter_state"),
        upstream_stats=reader.flag("enable_upstream_stats"),
        replace_dots=reader.flag("replace_dots_in_grpc_service_name"),
    )


register_http_filter("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", _stats)
register_http_filter("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", lambda extension, context: GrpcWebConfig())
