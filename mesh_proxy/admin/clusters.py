"""`/clusters`: every worker describes its clusters, and the counts of one endpoint are summed over workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text, to_json
from mesh_proxy.admin.regex import BadRegex, compile_regex
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

_GAUGES = frozenset({"cx_active", "rq_active", "rq_pending_active"})
_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")


async def clusters(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """As text, or as `envoy.admin.v3.Clusters`."""
    answers = await supervisor.pool.ask(m.DescribeClusters)
    merged = merge(answers[index] for index in sorted(answers))
    if pattern := request.query.get("filter"):
        try:
            expression = compile_regex(pattern)
        except BadRegex as error:
            return text(f"Invalid re2 regex: {error}\n", 400)
        merged = [cluster for cluster in merged if expression.search(cluster["name"])]
    assembly = supervisor.configuration.assembly
    for cluster in merged:
        served = assembly.clusters.get(cluster["name"])
        cluster["added_via_api"] = served is not None and served.held is not None
    if request.query.get("format") == "json":
        statuses = [cluster_json(cluster) for cluster in merged]
        return to_json({"cluster_statuses": statuses} if statuses else {})
    return text("".join(cluster_text(cluster) for cluster in merged))


def merge(answers: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One list of clusters out of the workers' lists (mesh_proxy.upstream.describe)."""
    found: dict[str, dict[str, Any]] = {}
    endpoints: dict[tuple[str, str], dict[str, Any]] = {}
    for clusters_of_worker in answers:
        for cluster in clusters_of_worker:
            mine = found.setdefault(cluster["name"], {**cluster, "endpoints": []})
            for endpoint in cluster["endpoints"]:
                key = (cluster["name"], endpoint["address"])
                seen = endpoints.get(key)
                if seen is None:
                    seen = endpoints[key] = {**endpoint, "stats": dict(endpoint["stats"])}
                    mine["endpoints"].append(seen)
                    continue
                for name, value in endpoint["stats"].items():
                    seen["stats"][name] = seen["stats"].get(name, 0) + value
                seen["health_flags"] = list(dict.fromkeys([*seen["health_flags"], *endpoint["health_flags"]]))
    return list(found.values())


def cluster_text(cluster: dict[str, Any]) -> str:
    """`<cluster>::…::value` lines."""
    name = cluster["name"]
    lines = [f"observability_name::{cluster['observability_name']}"]
    if outlier := cluster.get("outlier"):
        lines += [f"outlier::{key}::{number(value)}" for key, value in outlier.items()]
    for priority in ("default", "high"):
        limits = cluster["thresholds"][priority]
        lines += [f"{priority}_priority::{limit}::{limits[limit]}" for limit in _LIMITS]
    lines.append(f"added_via_api::{word(cluster['added_via_api'])}")
    if cluster.get("eds_service_name"):
        lines.append(f"eds_service_name::{cluster['eds_service_name']}")
    for endpoint in cluster["endpoints"]:
        address = endpoint["address"]
        values: list[tuple[str, object]] = [*sorted(all_stats(endpoint).items())]
        values += [
            ("hostname", endpoint["hostname"]),
            ("health_flags", "".join(f"/{flag}" for flag in endpoint["health_flags"]) or "healthy"),
            *((key, endpoint[key]) for key in ("weight", "region", "zone", "sub_zone")),
            ("canary", word(endpoint["canary"])),
            ("priority", endpoint["priority"]),
            ("success_rate", number(endpoint["success_rate"])),
            ("local_origin_success_rate", number(endpoint["local_origin_success_rate"])),
        ]
        lines += [f"{address}::{key}::{value}" for key, value in values]
    return "".join(f"{name}::{line}\n" for line in lines)


def cluster_json(cluster: dict[str, Any]) -> dict[str, Any]:
    """`envoy.admin.v3.ClusterStatus`; default values are left out, as proto JSON does."""
    status: dict[str, Any] = {"name": cluster["name"]}
    if cluster["added_via_api"]:
        status["added_via_api"] = True
    if cluster["endpoints"]:
        status["host_statuses"] = [endpoint_json(endpoint) for endpoint in cluster["endpoints"]]
    thresholds = [dict(cluster["thresholds"]["default"]), {"priority": "HIGH", **cluster["thresholds"]["high"]}]
    status["circuit_breakers"] = {"thresholds": thresholds}
    status["observability_name"] = cluster["observability_name"]
    if cluster.get("eds_service_name"):
        status["eds_service_name"] = cluster["eds_service_name"]
    return status


_HEALTH_FIELDS = {
    "failed_active_hc": "failed_active_health_check",
    "failed_outlier_check": "failed_outlier_check",
    "degraded_active_hc": "failed_active_degraded_check",
    "pending_dynamic_removal": "pending_dynamic_removal",
    "pending_active_hc": "pending_active_hc",
    "excluded_via_immediate_hc_fail": "excluded_via_immediate_hc_fail",
    "active_hc_timeout": "active_hc_timeout",
}
"""health flag -> field of `envoy.admin.v3.HostHealthStatus`"""


def endpoint_json(endpoint: dict[str, Any]) -> dict[str, Any]:
    """`envoy.admin.v3.HostStatus`."""
    if endpoint["path"]:
        address: dict[str, Any] = {"pipe": {"path": endpoint["path"]}}
    else:
        address = {"socket_address": {"address": endpoint["host"], "port_value": endpoint["port"]}}
    stats = []
    for name, value in sorted(all_stats(endpoint).items(), key=lambda item: (item[0] in _GAUGES, item[0])):
        stat: dict[str, Any] = {"type": "GAUGE"} if name in _GAUGES else {}
        if value:
            stat["value"] = str(value)
        stats.append({**stat, "name": name})
    health: dict[str, Any] = {"eds_health_status": eds_health(endpoint)}
    health |= {_HEALTH_FIELDS[flag]: True for flag in endpoint["health_flags"] if flag in _HEALTH_FIELDS}
    found: dict[str, Any] = {"address": address, "stats": stats, "health_status": health, "weight": endpoint["weight"]}
    if endpoint["hostname"]:
        found["hostname"] = endpoint["hostname"]
    if endpoint["priority"]:
        found["priority"] = endpoint["priority"]
    if endpoint["success_rate"] >= 0:
        found["success_rate"] = {"value": endpoint["success_rate"]}
    found["locality"] = {key: endpoint[key] for key in ("region", "zone", "sub_zone") if endpoint[key]}
    return found


def eds_health(endpoint: dict[str, Any]) -> str:
    """What Envoy makes of the configured status: HEALTHY unless something else is said."""
    status = str(endpoint["eds_health_status"])
    return "HEALTHY" if status == "UNKNOWN" else status


def all_stats(endpoint: dict[str, Any]) -> dict[str, int]:
    """The endpoint's counts, with those of Envoy's that nothing counts here."""
    return {"rq_pending_active": 0, **endpoint["stats"]}


def word(value: bool) -> str:
    """`true` or `false`."""
    return "true" if value else "false"


def number(value: float) -> str:
    """Without a decimal point where there is no fraction."""
    return f"{value:g}"
