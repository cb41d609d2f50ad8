"""Which resources are applied, since when, by how many workers, and one digest over all of them.

The total is that of the sorted lines `type name digest`, so it depends neither on order nor on where resources came from, when,
or under what version: two sidecars that do the same have the same total. The bootstrap's own fields (node, admin address) are
left out, as they differ between sidecars that do the same.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from mesh_proxy.config.model.bootstrap import ResourceView, WorkerSnapshot
from mesh_proxy.tls.secrets import secrets_of
from mesh_proxy.xds.feeds import NOTHING, key_of
from mesh_proxy.xds.stats import DigestStats

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

_KINDS: Final = {
    "Cluster": "clusters",
    "ClusterLoadAssignment": "endpoints",
    "Listener": "listeners",
    "RouteConfiguration": "routes",
    "MultipleRouteConfiguration": "routes",
    "Secret": "secrets",
}
"""last part of the type -> statistic"""
_GAUGE_DIGITS: Final = 13
"""hexadecimal digits that a gauge can hold exactly also where it is a double"""


@dataclass(frozen=True, slots=True)
class AppliedResource:
    """One resource that is served."""

    view: ResourceView
    version: int
    """of the snapshot that brought it"""
    applied_at: float
    """when the last worker had it, in seconds since 1970; for workers that were replaced later, when their predecessors had it"""


class Digests:
    """Kept by the configuration, asked by the admin interface."""

    def __init__(self) -> None:
        self._static: tuple[ResourceView, ...] = ()
        """those of the bootstrap, which are the same for ever"""
        self._first: tuple[int, float] = (0, 0.0)
        """snapshot version and time since when they are served"""
        self._since: dict[tuple[str, str, str], tuple[int, float]] = {}
        """(type, name, digest) -> (snapshot version, time) of the others"""
        self._others: tuple[AppliedResource, ...] = ()
        self._totals: dict[str, str] = {}

    def note(self, supervisor: Supervisor, version: int, now: float) -> None:
        """This version of the snapshot is live in all workers."""
        if not self._first[0]:
            self._first = (version, now)
        since: dict[tuple[str, str, str], tuple[int, float]] = {}
        others = []
        for view in others_of(supervisor):
            key = (view.type_url, view.name, view.digest)
            since[key] = self._since.get(key, (version, now))
            others.append(AppliedResource(view, *since[key]))
        self._since = since
        self._others = tuple(others)
        self._static = supervisor.bootstrap.resources
        self._totals = {}

    @property
    def applied(self) -> Iterator[AppliedResource]:
        """Everything that is served."""
        for view in self._static:
            if not view.type_url.endswith((".Bootstrap", ".Secret")):
                yield AppliedResource(view, *self._first)
        yield from self._others

    def total(self, kind: str = "") -> str:
        """SHA-256 over all, or over those of one kind (`clusters`, …)."""
        if not self._totals:
            lines: dict[str, list[tuple[str, str, str]]] = {name: [] for name in _KINDS.values()}
            for one in self.applied:  # 10,000 of them take a tenth of a second, hence once for all kinds
                lines.setdefault(kind_of(one.view), []).append((one.view.type_url, one.view.name, one.view.digest))
            self._totals = {name: total_of(found) for name, found in lines.items()}
            self._totals[""] = total_of(line for found in lines.values() for line in found)
        return self._totals[kind]

    def publish(self, stats: DigestStats) -> None:
        """As numbers."""
        stats.resources = sum(1 for _ in self.applied)
        stats.total = int(self.total()[:_GAUGE_DIGITS], 16)
        for kind in dict.fromkeys(_KINDS.values()):
            setattr(stats, kind, int(self.total(kind)[:_GAUGE_DIGITS], 16))


def total_of(resources: Iterable[tuple[str, str, str]]) -> str:
    """The digest over (type, name, digest), in whatever order."""
    lines = sorted(f"{type_url.rpartition('/')[2]} {name} {digest}\n" for type_url, name, digest in resources)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def kind_of(view: ResourceView) -> str:
    """The group that it is counted with."""
    return _KINDS.get(view.type_url.rpartition(".")[2], "others")


@dataclass(frozen=True, slots=True)
class SecretView:
    """A secret that has a name, or that stands in files: it may change while what uses it does not."""

    name: str
    digest: str
    type_url: str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    version: str = ""
    json: str = "{}"


def secrets_in_use(snapshot: WorkerSnapshot | None) -> Iterator[SecretView]:
    """Those of listeners and clusters, in their newest versions. What stands inline is part of its owner's digest."""
    if snapshot is None:
        return
    found = {one.name: one for one in secrets_of((*snapshot.listeners, *snapshot.clusters))}
    found |= {one.name: one for one in snapshot.rotated_secrets if one.name in found}
    for secret in found.values():
        if secret.label or secret.source is not None:
            name = secret.label or secret.name
            contents = [astuple(part) if part is not None else None for part in (secret.certificate, secret.validation)]
            yield SecretView(name, hmac.new(f"secret {name}".encode(), repr(contents).encode(), hashlib.sha256).hexdigest())


def others_of(supervisor: Supervisor) -> Iterator[ResourceView]:
    """What is served now beside the resources of the bootstrap."""
    configuration = supervisor.configuration
    yield from secrets_in_use(configuration.snapshot)
    dynamic = configuration.dynamic
    if dynamic is None:
        return
    assembly = dynamic.assembly
    seen = set()
    for served in (*assembly.clusters.values(), *assembly.listeners.values()):
        if served.held is not None:
            yield served.held.resource.dump
        for reference in served.source.references:
            held = dynamic.contents.get(key_of(reference), NOTHING).get(reference.name)
            if held is not None and reference not in seen:
                seen.add(reference)
                yield held.resource.dump
