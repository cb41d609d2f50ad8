"""The Dubbo manager: `envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy`."""

from __future__ import annotations

import dataclasses
from typing import Final

from google.protobuf.message import Message

from mesh_codecs.dubbo.body import MAX_VALUES
from mesh_proxy.config import registry
from mesh_proxy.config.dubbo_protos import MANAGER_OPTIONS, ROUTE_OPTIONS
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.dubbo import (
    DubboParameterMatchConfig,
    DubboProxyConfig,
    DubboRoute,
    DubboRouteConfig,
    DubboRouteOptions,
    DubboRoutesConfig,
)
from mesh_proxy.config.model.http import HttpFilterConfig
from mesh_proxy.config.model.route import WeightedClusterConfig
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.access_log import access_log
from mesh_proxy.config.translate.common import metadata, required
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.dubbo_options import body_limit, metadata_with_options, route_options
from mesh_proxy.config.translate.http import cert_details
from mesh_proxy.config.translate.matchers import header_matcher, string_matcher
from mesh_proxy.config.translate.source import reference
from mesh_proxy.stats.group import sanitize

CLIENT_CERT_MODES: Final = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
DUBBO: Final = "envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy"
_ROUTER: Final = "envoy.extensions.filters.network.dubbo_proxy.router.v3.Router"
_ROUTER_NAME: Final = "envoy.filters.dubbo.router"


def dubbo_proxy(reader: Reader, context: Context) -> DubboProxyConfig:
    """`DubboProxy`."""
    reader.enum("protocol_type")
    reader.enum("serialization_type")  # each frame says its own
    filters, options = _filters(reader, context)
    manager = _manager_options(options, reader.text("stat_prefix"))
    routes, drds = _routes(reader, context, manager)
    return dataclasses.replace(manager, routes=routes, drds=drds, filters=filters)


def translate_dubbo_routes(message: Message, path: str, context: Context | None = None) -> DubboRoutesConfig:
    """`MultipleRouteConfiguration` as a resource of its own."""
    return run(message, path, lambda reader, _: _resource(reader), context)


def _resource(reader: Reader) -> DubboRoutesConfig:
    return DubboRoutesConfig(name=reader.text("name"), routes=_route_configs(reader, DubboRouteOptions()))


def _manager_options(reader: Reader | None, stat_prefix: str) -> DubboProxyConfig:
    if reader is None:
        return DubboProxyConfig(stat_prefix=stat_prefix)
    defaults = reader.sub("route_defaults")
    return DubboProxyConfig(
        stat_prefix=stat_prefix,
        default_options=route_options(defaults) if defaults is not None else DubboRouteOptions(),
        opaque_cluster=reader.text("opaque_cluster"),
        access_logs=reader.each("access_log", access_log),
        idle_timeout_s=reader.timeout("idle_timeout", 3600.0),
        heartbeat_interval_s=reader.timeout("heartbeat_interval"),
        max_body_bytes=body_limit(reader),
        max_search_values=reader.number("max_search_values", MAX_VALUES),
        forward_client_cert_details=_client_cert_mode(reader),
        set_current_client_cert_details=cert_details(reader),
    )


def _client_cert_mode(reader: Reader) -> str:
    mode = reader.text("forward_client_cert_details")
    if mode and mode not in CLIENT_CERT_MODES:
        raise reader.error(f"{mode} is not one of {', '.join(CLIENT_CERT_MODES)}", "forward_client_cert_details")
    if not mode and reader.has("set_current_client_cert_details"):
        raise reader.error("has no effect without forward_client_cert_details", "set_current_client_cert_details")
    return mode


def _filters(reader: Reader, context: Context) -> tuple[tuple[HttpFilterConfig, ...], Reader | None]:
    """The entries of `dubbo_filters`: before the router our options, and any filter that HTTP has too."""
    entries = reader.subs("dubbo_filters")
    options: Reader | None = None
    filters: list[HttpFilterConfig] = []
    for i, entry in enumerate(entries):
        name = entry.text("name")
        extension = entry.extension("config")
        kind = extension.type if extension is not None else ""
        is_router = kind == _ROUTER or (not kind and name == _ROUTER_NAME)
        if is_router != (i == len(entries) - 1):
            why = "the router must be the last one" if is_router else f"the last one must be the router, {_ROUTER_NAME}"
            raise entry.error(why)
        if is_router:
            continue
        if extension is None:
            raise entry.error(f"{name} needs config")
        if kind != MANAGER_OPTIONS:
            known = registry.http_filter(kind)
            if known is None:
                raise extension.unsupported("Dubbo filter")
            filters.append(HttpFilterConfig(name=name, type_url=kind, config=known.translate(extension, context)))
            continue
        if options is not None:
            raise entry.error("the options can be given only once")
        options = extension.reader
    return tuple(filters), options


def _routes(reader: Reader, context: Context, manager: DubboProxyConfig) -> tuple[tuple[DubboRouteConfig, ...], Reference | None]:
    defaults = manager.default_options
    specifier = reader.oneof("route_specifier")
    if reader.message.route_config:
        if specifier:
            raise reader.error(f"cannot be given together with {specifier}", "route_config")
        return _route_configs(reader, defaults), None
    if specifier == "multiple_route_config":
        return multiple(required(reader, specifier), defaults), None
    if specifier == "drds":
        drds = required(reader, specifier)
        name = drds.text("route_config_name")
        prefix = f"dubbo.{sanitize(manager.stat_prefix)}.drds.{sanitize(name)}."
        return (), reference(drds, context, "drds", name, stat_prefix=prefix, field="config_source")
    return (), None


def multiple(reader: Reader, defaults: DubboRouteOptions) -> tuple[DubboRouteConfig, ...]:
    """`MultipleRouteConfiguration`."""
    reader.text("name")
    return _route_configs(reader, defaults)


def _route_configs(reader: Reader, defaults: DubboRouteOptions) -> tuple[DubboRouteConfig, ...]:
    return reader.each("route_config", lambda r: _route_config(r, defaults))


def _route_config(reader: Reader, defaults: DubboRouteOptions) -> DubboRouteConfig:
    name = reader.text("name")
    routes = reader.each("routes", lambda r: _route(r, defaults))
    return DubboRouteConfig(
        name=name,
        interface=reader.text("interface"),
        group=reader.text("group"),
        version=reader.text("version"),
        routes=tuple(dataclasses.replace(route, name=f"{name}[{i}]") for i, route in enumerate(routes)),
    )


def _route(reader: Reader, defaults: DubboRouteOptions) -> DubboRoute:
    match, action = required(reader, "match"), required(reader, "route")
    method = match.sub("method")
    name = required(method, "name") if method is not None else None
    lb, options = metadata_with_options(action, "metadata_match", ROUTE_OPTIONS)
    return DubboRoute(
        method=string_matcher(name) if name is not None else None,
        parameters=_parameters(method) if method is not None else (),
        headers=match.each("headers", header_matcher),
        clusters=_clusters(action),
        metadata_match=lb,
        options=route_options(options) if options is not None else defaults,
        own_options=options is not None,
    )


def _parameters(method: Reader) -> tuple[DubboParameterMatchConfig, ...]:
    found: list[DubboParameterMatchConfig] = []
    for index, entry in method.entries("params_match"):
        kind = entry.oneof("parameter_match_specifier")
        if kind == "range_match":
            bounds = required(entry, kind)
            found.append(
                DubboParameterMatchConfig(index=int(index), range_start=bounds.number("start"), range_end=bounds.number("end"))
            )
        else:
            found.append(DubboParameterMatchConfig(index=int(index), exact=entry.text("exact_match")))
    return tuple(found)


def _clusters(reader: Reader) -> tuple[WeightedClusterConfig, ...]:
    kind = reader.oneof("cluster_specifier")
    if kind == "cluster":
        return (WeightedClusterConfig(name=reader.text(kind)),)
    group = required(reader, kind)
    entries = group.each("clusters", _weighted)
    if len(entries) == len(group.message.clusters) and sum(entry.weight for entry in entries) <= 0:
        raise group.error("the sum of the weights must be more than 0", "clusters")
    return entries


def _weighted(reader: Reader) -> WeightedClusterConfig:
    name, header = reader.text("name"), reader.lower("cluster_header")
    if bool(name) == bool(header):
        raise ConfigError(
            reader.path, "needs one of name, cluster_header" if not name else "takes only one of name, cluster_header"
        )
    return WeightedClusterConfig(
        name=name,
        weight=reader.number("weight"),
        cluster_header=header,
        metadata_match=metadata(reader, "metadata_match"),
    )
