"""`/config_digest`: what is applied, as digests that can be compared between sidecars; nothing of a secret can be told from
them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh_proxy.admin.dynamic_dump import timestamp
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, to_json

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor


def config_digest(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`?summary` leaves the single resources out."""
    configuration = supervisor.configuration
    digests = configuration.digests
    versions = [handle.applied_version for handle in supervisor.pool.workers]
    found: dict[str, Any] = {
        "node": {"id": supervisor.bootstrap.node.id, "cluster": supervisor.bootstrap.node.cluster},
        "state": supervisor.state,
        "total": digests.total(),
        "totals": {kind: digests.total(kind) for kind in ("clusters", "endpoints", "listeners", "routes", "secrets")},
        "snapshot": configuration.snapshot.version if configuration.snapshot is not None else 0,
        "workers": len(versions),
        "warming": sorted((*configuration.assembly.warming_clusters, *configuration.assembly.warming_listeners)),
        "refused": _refused(supervisor),
    }
    if not request.flag("summary"):
        found["resources"] = [
            {
                "type": one.view.type_url.rpartition("/")[2],
                "name": one.view.name,
                "version": one.view.version,
                "digest": one.view.digest,
                "applied_at": timestamp(one.applied_at),
                "workers": sum(version >= one.version for version in versions),
            }
            for one in sorted(digests.applied, key=lambda one: (one.view.type_url, one.view.name))
        ]
    return to_json(found)


def _refused(supervisor: Supervisor) -> list[dict[str, Any]]:
    labels = {secret.name: secret.label or secret.name for secret in supervisor.secrets.all}
    secrets = [
        {"kind": "sds", "source": labels.get(name, name), "version": "", "at": timestamp(at), "details": why}
        for name, (at, why) in supervisor.secrets.refused.items()
    ]
    dynamic = supervisor.configuration.dynamic
    if dynamic is None:
        return secrets
    return secrets + [
        {"kind": kind, "source": source.path, "version": one.fault.version, "at": timestamp(one.at), "details": one.fault.text}
        for (kind, source), one in dynamic.refusals.items()
    ]
