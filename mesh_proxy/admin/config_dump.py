"""`/config_dump`: what is loaded, as `envoy.admin.v3.ConfigDump`. Secrets were taken out when it was loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.admin.dynamic_dump import lists, timestamp
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text, to_json
from mesh_proxy.admin.regex import BadRegex, compile_regex
from mesh_proxy.admin.secrets_dump import secrets_lists
from mesh_proxy.admin.server_info import user_agent

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

_ADMIN: Final = "type.googleapis.com/envoy.admin.v3."
_ENDPOINTS_URL: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_ROUTES_URL: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_PLAIN: Final = "text/plain"
"""this endpoint's errors name no character set in Envoy"""
_DUBBO_ROUTES_URL: Final = "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration"
_DUBBO_MANAGER: Final = ".DubboProxy"
_HTTP_MANAGER: Final = ".HttpConnectionManager"
_ELEMENTS: Final = {
    "static_clusters": "ClustersConfigDump.StaticCluster",
    "static_listeners": "ListenersConfigDump.StaticListener",
    "static_route_configs": "RoutesConfigDump.StaticRouteConfig",
    "dynamic_route_configs": "RoutesConfigDump.DynamicRouteConfig",
    "static_endpoint_configs": "EndpointsConfigDump.StaticEndpointConfig",
    "dynamic_active_clusters": "ClustersConfigDump.DynamicCluster",
    "dynamic_warming_clusters": "ClustersConfigDump.DynamicCluster",
    "dynamic_listeners": "ListenersConfigDump.DynamicListener",
    "dynamic_endpoint_configs": "EndpointsConfigDump.DynamicEndpointConfig",
    "dynamic_active_secrets": "SecretsConfigDump.DynamicSecret",
    "static_secrets": "SecretsConfigDump.StaticSecret",
    "bootstrap": "",
}
"""repeated field -> message of its elements, for `?resource=`"""

Named = Callable[[str], bool]


def config_dump(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """The whole, or one resource list, or some fields of either."""
    pattern = request.query.get("name_regex", "")
    try:
        named = _name_filter(pattern)
    except BadRegex as error:
        return text(f"INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {error}\n", 400, content_type=_PLAIN)
    configs = dumps(supervisor, named, include_eds=request.flag("include_eds"))
    resource = request.query.get("resource", "")
    mask = [path for path in request.query.get("mask", "").split(",") if path]
    if resource:
        found = _resource(configs, resource)
        if found is None:
            return text(f"{resource} not found in config dump", 404, content_type=_PLAIN)
        configs = found
    if mask:
        masked = [{"@type": one["@type"], **chosen} for one in configs if (chosen := _masked(one, mask))]
        if not masked and configs:
            return text(f"FieldMask paths: {', '.join(mask)} could not be successfully used.", 400, content_type=_PLAIN)
        configs = masked
    return to_json({"configs": configs})


def _name_filter(pattern: str) -> Named:
    if not pattern:
        return lambda name: True
    fullmatch = compile_regex(pattern).fullmatch
    return lambda name: fullmatch(name) is not None


def dumps(supervisor: Supervisor, named: Named, *, include_eds: bool = False) -> list[dict[str, Any]]:
    """The dumps in Envoy's order."""
    loaded = timestamp(supervisor.started_at)
    by_kind: dict[str, list[tuple[str, str, dict[str, Any]]]] = {"Bootstrap": [], "Listener": [], "Cluster": []}
    for view in supervisor.bootstrap.resources:
        kind = view.type_url.rpartition(".")[2]
        if kind in by_kind and (kind == "Bootstrap" or kind == "Listener" or named(view.name)):
            by_kind[kind].append((view.name, view.type_url, json.loads(view.json)))
    bootstraps = [resource for _, _, resource in by_kind["Bootstrap"]]
    for bootstrap in bootstraps:
        bootstrap["node"] = {**bootstrap.get("node", {}), **user_agent()}
    configs: list[dict[str, Any]] = [
        {
            "@type": f"{_ADMIN}BootstrapConfigDump",
            "bootstrap": bootstraps[0] if bootstraps else {},
            "last_updated": loaded,
        }
    ]
    dynamic = supervisor.configuration.dynamic
    static = _list("ClustersConfigDump", "static_clusters", "cluster", by_kind["Cluster"], loaded)
    configs.append(static | lists(dynamic, "cds", named))
    if include_eds:
        assignments = [
            (name, _ENDPOINTS_URL, _assignment(cluster))
            for name, _, cluster in by_kind["Cluster"]
            if "load_assignment" in cluster
        ]
        static = _list("EndpointsConfigDump", "static_endpoint_configs", "endpoint_config", assignments)
        configs.append(static | lists(dynamic, "eds", named))
    listeners = [one for one in by_kind["Listener"] if named(one[0])]
    static = _list("ListenersConfigDump", "static_listeners", "listener", listeners, loaded)
    found = lists(dynamic, "lds", named)
    dynamic_listeners = found.get("dynamic_listeners", [])
    configs.append(static | found)
    configs.append({"@type": f"{_ADMIN}ScopedRoutesConfigDump"})
    holders = [listener for _, _, listener in by_kind["Listener"]]
    holders += [state["listener"] for one in dynamic_listeners for state in (one.get("active_state"),) if state]
    routes = [
        (table.get("name", ""), url, table)
        for listener in holders
        for url, table in route_tables(listener)
        if named(table.get("name", ""))
    ]
    routes_dump = _list("RoutesConfigDump", "static_route_configs", "route_config", routes, loaded)
    for kind in ("rds", "drds"):
        for field, more in lists(dynamic, kind, named).items():
            routes_dump.setdefault(field, []).extend(more)
    configs.append(routes_dump)
    configs.append({"@type": f"{_ADMIN}SecretsConfigDump", **secrets_lists(supervisor, named)})
    return configs


def _list(
    kind: str, field: str, inner: str, resources: list[tuple[str, str, dict[str, Any]]], updated: str | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"@type": f"{_ADMIN}{kind}"}
    if resources:
        when = {"last_updated": updated} if updated else {}
        found[field] = [{inner: {"@type": url, **resource}, **when} for _, url, resource in resources]
    return found


def _assignment(cluster: dict[str, Any]) -> dict[str, Any]:
    """The endpoints of a cluster with the values that they have when nothing is said."""
    assignment = cluster["load_assignment"]
    localities = []
    for locality in assignment.get("endpoints", []):
        endpoints = [
            {"health_status": "HEALTHY", "load_balancing_weight": 1, **endpoint} for endpoint in locality.get("lb_endpoints", [])
        ]
        localities.append({"locality": {}, **locality, "lb_endpoints": endpoints})
    return {
        "cluster_name": assignment.get("cluster_name", cluster.get("name", "")),
        "endpoints": localities,
        "policy": {"overprovisioning_factor": 140, **assignment.get("policy", {})},
    }


def route_tables(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every inline route table in a listener, with the type that it has."""
    if isinstance(value, dict):
        manager = str(value.get("@type", ""))
        if manager.endswith(_HTTP_MANAGER) and "route_config" in value:
            yield _ROUTES_URL, value["route_config"]
        elif manager.endswith(_DUBBO_MANAGER) and "multiple_route_config" in value:
            yield _DUBBO_ROUTES_URL, value["multiple_route_config"]
        for one in value.values():
            yield from route_tables(one)
    elif isinstance(value, list):
        for one in value:
            yield from route_tables(one)


def _resource(configs: list[dict[str, Any]], resource: str) -> list[dict[str, Any]] | None:
    if resource not in _ELEMENTS:
        return None
    for config in configs:
        found = config.get(resource)
        if resource == "bootstrap" and found is not None:
            return [config]
        if isinstance(found, list):
            return [{"@type": f"{_ADMIN}{_ELEMENTS[resource]}", **one} for one in found]
    return []


def _masked(value: Any, mask: list[str]) -> dict[str, Any]:
    """The fields that a FieldMask names; no path goes into a list, except at its end."""
    found: dict[str, Any] = {}
    for path in mask:
        _pick(value, path.split("."), found)
    return found


def _pick(value: Any, path: list[str], into: dict[str, Any]) -> None:
    name, *rest = path
    if not isinstance(value, dict) or name not in value:
        return
    if not rest:
        into[name] = value[name]
        return
    inner = into.setdefault(name, {"@type": value[name]["@type"]} if "@type" in value[name] else {})
    _pick(value[name], rest, inner)
    if not inner:
        del into[name]
