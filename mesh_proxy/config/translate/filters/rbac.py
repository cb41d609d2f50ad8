"""`envoy.filters.http.rbac`."""

from __future__ import annotations

from mesh_filters.rbac import RbacConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.rbac import refuse_matcher, rules

_PACKAGE = "envoy.extensions.filters.http.rbac.v3"


def _config(reader: Reader) -> RbacConfig:
    refuse_matcher(reader)
    return RbacConfig(
        rules=rules(reader.sub("rules")),
        shadow_rules=rules(reader.sub("shadow_rules")),
        rules_prefix=reader.text("rules_stat_prefix"),
        shadow_prefix=reader.text("shadow_rules_stat_prefix"),
        per_rule_stats=reader.flag("track_per_rule_stats"),
    )


def _translate(extension: Extension, context: Context) -> RbacConfig:
    return _config(extension.reader)


def _translate_route(extension: Extension, context: Context) -> RbacConfig:
    inner = extension.reader.sub("rbac")
    return RbacConfig() if inner is None else _config(inner)


register_http_filter(f"{_PACKAGE}.RBAC", _translate, route_type_url=f"{_PACKAGE}.RBACPerRoute", translate_route=_translate_route)
