"""Resources as the process that reads files hands them to the supervisor: plain dataclasses, already validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_proxy.config.resource import ResourceDump

TYPES: Final[dict[str, str]] = {
    "cds": "envoy.config.cluster.v3.Cluster",
    "eds": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "lds": "envoy.config.listener.v3.Listener",
    "rds": "envoy.config.route.v3.RouteConfiguration",
    "drds": "envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration",
}
"""kind -> message, in the order in which updates of one moment are taken: what is needed comes before what needs it"""


def ignored_in(warnings: Iterable[tuple[str, str]]) -> int:
    """How many of the remarks (path, text) say that something has no effect."""
    return sum(text.startswith("ignored:") for _, text in warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of a DiscoveryResponse."""

    name: str
    config: Any
    """a dataclass of `mesh_proxy.config.model`"""
    dump: ResourceDump
    cluster_references: tuple[tuple[str, str], ...] = ()
    """(path, cluster) of routes whose clusters must exist (`validate_clusters`)"""

    @property
    def digest(self) -> str:
        """See `ResourceDump`."""
        return self.dump.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A DiscoveryResponse that was found good."""

    version: str
    resources: tuple[Resource, ...]
    warnings: tuple[tuple[str, str], ...] = ()
    unknown_fields: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A DiscoveryResponse that was refused, whole."""

    unreadable: bool
    """the file could not be read or parsed at all (`update_failure`); else its content is wrong (`update_rejected`)"""
    problems: tuple[tuple[str, str], ...]
    """(path, why)"""
    version: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    """name -> redacted JSON of the resources in which the faults are, as far as they can be told"""

    @property
    def text(self) -> str:
        """All faults, one in a line."""
        return "\n".join(f"{path}: {why}" if path else why for path, why in self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFiles:
    """The supervisor asks: read and translate these."""

    files: tuple[tuple[str, str], ...]
    """(kind, path)"""
    runtime: Mapping[str, Any]
    reject_unknown_fields: bool
