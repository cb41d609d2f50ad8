"""A cluster's state as plain picklable values: what a worker tells the supervisor for the admin endpoint `/clusters`."""

from __future__ import annotations

from typing import Any

from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.health import flags
from mesh_proxy.upstream.resources import Resources

STAT_NAMES = (
    "cx_active",
    "cx_connect_fail",
    "cx_total",
    "rq_active",
    "rq_error",
    "rq_pending_active",
    "rq_success",
    "rq_timeout",
    "rq_total",
)
"""in the order in which `/clusters` prints them"""


def describe_cluster(cluster: Cluster) -> dict[str, Any]:
    """The cluster with all of its endpoints."""
    return {
        "name": cluster.name,
        "observability_name": cluster.config.alt_stat_name or cluster.name,
        "kind": cluster.config.kind,
        "eds_service_name": cluster.config.eds_service_name,
        "added_via_api": False,
        "thresholds": {"default": _limits(cluster.default), "high": _limits(cluster.high)},
        "outlier": cluster.describe_outlier(),
        "endpoints": [describe_endpoint(endpoint) for endpoint in cluster.endpoints],
    }


def _limits(resources: Resources) -> dict[str, int]:
    return {
        "max_connections": resources.max_connections,
        "max_pending_requests": resources.max_pending_requests,
        "max_requests": resources.max_requests,
        "max_retries": resources.max_retries,
    }


_BY_STATUS = {
    "UNHEALTHY": "failed_eds_health",
    "TIMEOUT": "failed_eds_health",
    "DEGRADED": "degraded_eds_health",
    "DRAINING": "eds_status_draining",
}
FLAG_ORDER = (
    "failed_active_hc",
    "failed_outlier_check",
    "failed_eds_health",
    "degraded_active_hc",
    "degraded_eds_health",
    "pending_dynamic_removal",
    "pending_active_hc",
    "excluded_via_immediate_hc_fail",
    "active_hc_timeout",
    "eds_status_draining",
)


def health_flags(endpoint: Endpoint) -> list[str]:
    """Why the endpoint is not plainly healthy, in Envoy's words and order; empty when it is."""
    health, status = endpoint.health, endpoint.config.health_status
    found = {name for bit, name in flags.NAMES if health & bit}
    if endpoint.ejected:
        found.add("failed_outlier_check")
    if (name := _BY_STATUS.get(status)) is not None:
        found.add(name)
    return [name for name in FLAG_ORDER if name in found]


def describe_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """One endpoint with its counts."""
    stats = endpoint.stats
    lb_metadata = endpoint.metadata.get("envoy.lb", {})
    return {
        "address": endpoint.address,
        "host": endpoint.host,
        "port": endpoint.port,
        "path": endpoint.path,
        "hostname": endpoint.hostname,
        "stats": {name: getattr(stats, name) for name in STAT_NAMES},
        "health_flags": health_flags(endpoint),
        "eds_health_status": endpoint.config.health_status,
        "weight": endpoint.weight,
        "region": endpoint.locality.region,
        "zone": endpoint.locality.zone,
        "sub_zone": endpoint.locality.sub_zone,
        "canary": bool(isinstance(lb_metadata, dict) and lb_metadata.get("canary")),
        "priority": endpoint.priority,
        "success_rate": endpoint.monitor.success_rate if endpoint.monitor is not None else -1.0,
        "local_origin_success_rate": -1.0,
    }
