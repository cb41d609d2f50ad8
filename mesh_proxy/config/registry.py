"""HTTP filters and how their configuration is translated.

A filter's loader registers here, once; the HTTP connection manager's translation and `typed_per_filter_config` ask here. Our own
filters are imported when a configuration first names their type; filters of other distributions are found by their entry
points, of the group `mesh_proxy.filters`, the first time a type is named that we do not know.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mesh_filters.definition import ENTRY_POINT_GROUP, FieldError, FilterDefinition
from mesh_proxy.config import extensions
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.reader import Extension

if TYPE_CHECKING:
    from mesh_proxy.config.translate.context import Context

Translate = Callable[[Extension, "Context"], Any]
"""takes the unpacked configuration, returns what `HttpFilterConfig.config` (or the per-route mapping) shall hold"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilterType:
    """How one HTTP filter's configuration is understood."""

    type: str
    """full name of the configuration message, or what a TypedStruct of ours calls itself, without `type.googleapis.com/`"""
    translate: Translate
    route_type: str = ""
    """full name of the per-route message; empty if the filter takes none"""
    translate_route: Translate | None = None


_HTTP = "envoy.extensions.filters.http"
_FILTERS = "mesh_proxy.config.translate.filters"
BUILT_IN: dict[str, str] = {
    f"{_HTTP}.adaptive_concurrency.v3.AdaptiveConcurrency": f"{_FILTERS}.adaptive_concurrency",
    f"{_HTTP}.admission_control.v3.AdmissionControl": f"{_FILTERS}.adaptive_concurrency",
    f"{_HTTP}.buffer.v3.Buffer": f"{_FILTERS}.buffer",
    f"{_HTTP}.buffer.v3.BufferPerRoute": f"{_FILTERS}.buffer",
    f"{_HTTP}.cors.v3.Cors": f"{_FILTERS}.cors",
    f"{_HTTP}.cors.v3.CorsPolicy": f"{_FILTERS}.cors",
    f"{_HTTP}.fault.v3.HTTPFault": f"{_FILTERS}.fault",
    f"{_HTTP}.grpc_stats.v3.FilterConfig": f"{_FILTERS}.grpc",
    f"{_HTTP}.grpc_web.v3.GrpcWeb": f"{_FILTERS}.grpc",
    f"{_HTTP}.header_mutation.v3.HeaderMutation": f"{_FILTERS}.header_mutation",
    f"{_HTTP}.header_mutation.v3.HeaderMutationPerRoute": f"{_FILTERS}.header_mutation",
    f"{_HTTP}.ip_tagging.v3.IPTagging": f"{_FILTERS}.ip_tagging",
    f"{_HTTP}.local_ratelimit.v3.LocalRateLimit": f"{_FILTERS}.local_ratelimit",
    f"{_HTTP}.health_check.v3.HealthCheck": f"{_FILTERS}.health_check",
    f"{_HTTP}.ext_authz.v3.ExtAuthz": f"{_FILTERS}.ext_authz",
    f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute": f"{_FILTERS}.ext_authz",
    f"{_HTTP}.ratelimit.v3.RateLimit": f"{_FILTERS}.ratelimit",
    f"{_HTTP}.ratelimit.v3.RateLimitPerRoute": f"{_FILTERS}.ratelimit",
    f"{_HTTP}.jwt_authn.v3.JwtAuthentication": f"{_FILTERS}.jwt_authn",
    f"{_HTTP}.jwt_authn.v3.PerRouteConfig": f"{_FILTERS}.jwt_authn",
    f"{_HTTP}.rbac.v3.RBAC": f"{_FILTERS}.rbac",
    f"{_HTTP}.rbac.v3.RBACPerRoute": f"{_FILTERS}.rbac",
    "mesh_proxy.filters.TrafficLabel": "mesh_filters.traffic_label:definition",
    "mesh_proxy.filters.TagRouter": "mesh_filters.tag_router:definition",
    "mesh_proxy.filters.AdaptiveConcurrency": "mesh_filters.adaptive_concurrency:definition",
    "mesh_proxy.filters.CircuitBreaker": "mesh_filters.circuit_breaker:definition",
    "mesh_proxy.filters.ConcurrencyLimit": "mesh_filters.concurrency_limit:definition",
    "mesh_proxy.filters.HotParameters": "mesh_filters.hot_parameters:definition",
    "mesh_proxy.filters.Pacing": "mesh_filters.pacing:definition",
    "mesh_proxy.filters.RouteChain": "mesh_filters.route_chain:definition",
}
"""type of a configuration (also of one per route) → module whose import registers it, or `module:definition`"""
_plugins: set[str] = set()
"""entry points that were loaded"""
_plugin_types: set[str] = set()
"""types that they registered"""
_by_type: dict[str, HttpFilterType] = {}
_by_route_type: dict[str, HttpFilterType] = {}


def register_http_filter(
    type_url: str,
    translate: Translate,
    *,
    module: str = "",
    route_type_url: str = "",
    translate_route: Translate | None = None,
    route_module: str = "",
) -> None:
    """Make an HTTP filter known.

    `type_url` may carry the `type.googleapis.com/` prefix or not. `module` is the protobuf module of the message; without it
    the filter is configured by a TypedStruct and `translate` gets a mapping (`Extension.struct`). The same goes for the
    per-route message, which may be of the same type.
    """
    name, route_name = extensions.type_name(type_url), extensions.type_name(route_type_url)
    if module:
        extensions.register(name, module)
    if route_name and (route_module or module):
        extensions.register(route_name, route_module or module)
    entry = HttpFilterType(type=name, translate=translate, route_type=route_name, translate_route=translate_route)
    _by_type[name] = entry
    if route_name:
        _by_route_type[route_name] = entry


def register_definition(definition: FilterDefinition) -> None:
    """Make a filter known that is configured by a TypedStruct and needs nothing of ours to be translated."""

    def translate(configure: Callable[[Mapping[str, Any]], Any], extension: Extension, context: Context) -> Any:
        struct = extension.struct
        if definition.fields is not None and configure is definition.configure:
            struct.only(*definition.fields)
        try:
            made = configure(struct.values)
        except FieldError as error:
            raise struct.error(error.why, error.path) from error
        except ValueError as error:
            raise struct.error(str(error)) from error
        return replace(made, identity=struct.path) if hasattr(made, "identity") else made

    per_route = definition.configure_route
    register_http_filter(
        definition.type_url,
        partial(translate, definition.configure),
        route_type_url=definition.type_url if per_route is not None else "",
        translate_route=partial(translate, per_route) if per_route is not None else None,
    )


def forget_plugins() -> None:
    """Forget the filters of other distributions (for tests)."""
    for type_name in _plugin_types:
        entry = _by_type.pop(type_name, None)
        if entry is not None:
            _by_route_type.pop(entry.route_type, None)
    _plugin_types.clear()
    _plugins.clear()


def discover(type_name: str) -> None:
    """Register the filter of an unknown type: ours, or one that is installed."""
    where = BUILT_IN.get(type_name)
    if where is not None:
        module_name, _, attribute = where.partition(":")
        module = importlib.import_module(module_name)
        if attribute:
            register_definition(getattr(module, attribute))
    elif type_name not in _by_type:
        load_plugins()


def load_plugins() -> None:
    """Look at the entry points of installed distributions, at each one once."""
    from importlib.metadata import entry_points  # costs memory, and seldom needed

    for point in entry_points(group=ENTRY_POINT_GROUP):
        key = f"{point.name} = {point.value}"
        if key in _plugins:
            continue
        before = set(_by_type)
        try:
            found = point.load()
            if isinstance(found, FilterDefinition):
                register_definition(found)
            else:
                found()  # registers by itself, with `register_http_filter`
        except Exception as error:
            raise ConfigError("", f"the filter plug-in {key} cannot be loaded: {error!r}") from error
        _plugins.add(key)
        _plugin_types.update(set(_by_type) - before)


extensions.discover = discover


def http_filter(type_name: str) -> HttpFilterType | None:
    """The filter that is configured by this message."""
    if type_name not in _by_type:
        discover(type_name)
    return _by_type.get(type_name)


def route_config(type_name: str) -> HttpFilterType | None:
    """The filter whose per-route configuration is this message."""
    if type_name not in _by_route_type:
        discover(type_name)
    return _by_route_type.get(type_name)


def unregister_http_filter(type_url: str) -> None:
    """Forget a filter (for tests)."""
    entry = _by_type.pop(extensions.type_name(type_url))
    _by_route_type.pop(entry.route_type, None)
