"""The endpoints of a cluster, which of them a request could get, and why not the others."""

from __future__ import annotations

from typing import Any

from mesh_proxy.upstream.cluster import Cluster, LbContext
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.labels import Labels, values_of

MOST_ENDPOINTS = 500
"""of a cluster, in an answer"""


def candidates(cluster: Cluster, context: LbContext | None) -> dict[str, Any]:
    """For the answer: the endpoints, those that may be chosen first."""
    group, by = cluster.narrowed(context)
    shares = cluster.shares(group)
    labels = (context.labels if context is not None else None) or ()
    found = []
    for endpoint in cluster.endpoints:
        share = shares.get(endpoint, 0)
        entry: dict[str, Any] = {
            "address": endpoint.address,
            "candidate": share > 0,
            "labels": dict(endpoint.metadata.get("envoy.lb") or {}),
            "locality": [endpoint.locality.region, endpoint.locality.zone, endpoint.locality.sub_zone],
            "priority": endpoint.priority,
            "weight": endpoint.weight,
        }
        if share:
            entry["percent_of_priority"] = share
        else:
            entry["why"] = _why(endpoint, endpoint in group, labels, by)
        found.append(entry)
    found.sort(key=lambda entry: not entry["candidate"])
    return {
        "name": cluster.name,
        "lb_policy": cluster.config.lb_policy,
        "narrowed_by": by,
        "candidates": sum(entry["candidate"] for entry in found),
        "endpoints": found[:MOST_ENDPOINTS],
    }


def _why(endpoint: Endpoint, narrowed_to: bool, labels: Labels, by: str) -> str:
    if not narrowed_to:
        for key, wanted in labels:
            values = values_of(endpoint, key)
            if wanted not in values:
                return f"{key} is {' or '.join(one or 'absent' for one in values)}, {wanted or 'absent'} is wanted"
        return f"not in the {by}"
    if endpoint.ejected:
        return "ejected by outlier detection"
    if not endpoint.healthy:
        return "not healthy"
    if endpoint.draining:
        return "draining"
    if endpoint.degraded:
        return "degraded, and the healthy ones suffice"
    return f"priority {endpoint.priority} gets nothing while those before it suffice"
