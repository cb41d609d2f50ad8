"""From accepted resources to what the workers shall serve: warming, and joining what came apart.

A pure function of the resources and of what is served now:

* a cluster is served when its endpoints (EDS) are there, or their time is over;
* a listener is served when its route tables (RDS, DRDS) are there, or their time is over;
* until then the version before it stays, if there was one;
* whatever did not change is the very object that it was, so that nobody has to look at it.

Names that must be resolved and first health checks are waited for by the workers, before routes switch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.cluster import EndpointSetConfig
from mesh_proxy.config.model.dubbo import DubboRoutesConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.config.model.route import RouteTableConfig
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.model.twin import AnyClusterConfig
from mesh_proxy.xds.feeds import NOTHING, Contents, FeedKey, Held, key_of


@dataclass(frozen=True, slots=True)
class Static:
    """What stands in the bootstrap."""

    listeners: tuple[ListenerConfig, ...] = ()
    clusters: tuple[AnyClusterConfig, ...] = ()
    lds: FeedKey | None = None
    cds: FeedKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One cluster or listener that is served."""

    held: Held | None
    """None for what stands in the bootstrap"""
    source: Any
    """its configuration as it came"""
    config: Any
    """with what came apart joined in"""
    parts: tuple[Any, ...] = ()
    """what was joined"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What there is to serve."""

    clusters: Mapping[str, Served] = field(default_factory=dict)
    listeners: Mapping[str, Served] = field(default_factory=dict)
    warming_clusters: Mapping[str, Held | None] = field(default_factory=dict)
    warming_listeners: Mapping[str, Held | None] = field(default_factory=dict)
    route_tables: Mapping[Reference, RouteTableConfig | DubboRoutesConfig] = field(default_factory=dict)
    wanted: frozenset[Reference] = frozenset()
    """of what is served and of what warms"""
    missing: frozenset[Reference] = frozenset()
    """those among them that did not come yet"""

    @property
    def warming(self) -> bool:
        """Something waits."""
        return bool(self.warming_clusters or self.warming_listeners)


def assemble(static: Static, contents: Contents, before: Assembly, expired: Collection[Reference]) -> Assembly:
    """Raises ConfigError when the listeners do not go together."""
    found = _Found(contents, expired)
    clusters, warming_clusters = found.choose(_sources(static.clusters, static.cds, contents), before.clusters)
    listeners, warming_listeners = found.choose(_sources(static.listeners, static.lds, contents), before.listeners)
    _check_addresses(static, contents)
    tables: dict[Reference, RouteTableConfig | DubboRoutesConfig] = {}
    for served in (*clusters.values(), *listeners.values()):
        for reference in served.source.references:
            value = found.value(reference)
            if value is not None and reference.kind in ("rds", "drds"):
                tables[reference] = value
    return Assembly(
        clusters=clusters,
        listeners=listeners,
        warming_clusters=warming_clusters,
        warming_listeners=warming_listeners,
        route_tables=tables,
        wanted=frozenset(found.wanted),
        missing=frozenset(found.missing),
    )


class _Found:
    """Looks references up, and notes them."""

    def __init__(self, contents: Contents, expired: Collection[Reference]) -> None:
        self._contents = contents
        self._expired = expired
        self.wanted: set[Reference] = set()
        self.missing: set[Reference] = set()

    def value(self, reference: Reference) -> Any | None:
        self.wanted.add(reference)
        held = self._contents.get(key_of(reference), NOTHING).get(reference.name)
        if held is None:
            self.missing.add(reference)
            return None
        return held.resource.config

    def choose(
        self, sources: Iterable[tuple[Held | None, Any]], before: Mapping[str, Served]
    ) -> tuple[dict[str, Served], dict[str, Held | None]]:
        """What is served under each name, and what warms."""
        chosen: dict[str, Served] = {}
        warming: dict[str, Held | None] = {}
        for held, source in sources:
            old = before.get(source.name)
            served = self._join(held, source, old)
            if served is None:
                warming[source.name] = held
                if old is not None:  # the version before serves on, with what has come for it since
                    served = self._join(old.held, old.source, old) or old
            if served is not None:
                chosen[source.name] = served
        return chosen, warming

    def _join(self, held: Held | None, source: Any, old: Served | None) -> Served | None:
        """None while something is missing."""
        parts = []
        for reference in source.references:
            value = self.value(reference)
            if value is None and reference not in self._expired:
                return None
            parts.append(value if reference.kind == "eds" else None)  # the others go beside it to the workers
        if old is not None and old.source is source and all(a is b for a, b in zip(old.parts, parts, strict=True)):
            return old
        config = source
        for reference, value in zip(source.references, parts, strict=True):
            if reference.kind == "eds":
                config = dataclasses.replace(source, endpoints=value or EndpointSetConfig(cluster_name=source.name))
        if old is not None and old.source is not source and old.config == config:
            config = old.config
        return Served(held=held, source=source, config=config, parts=tuple(parts))


def _sources(static: Iterable[Any], feed: FeedKey | None, contents: Contents) -> Iterable[tuple[Held | None, Any]]:
    """The bootstrap's own first; as in Envoy they cannot be replaced from elsewhere."""
    names = set()
    for config in static:
        names.add(config.name)
        yield None, config
    if feed is not None:
        for name, held in contents.get(feed, NOTHING).held.items():
            if name not in names:
                yield held, held.resource.config


def _check_addresses(static: Static, contents: Contents) -> None:
    """Two listeners cannot have one address. Raises ConfigError with the path of the second."""
    taken: dict[object, str] = {}
    for listener in static.listeners:
        for address in _bound(listener):
            taken[address] = listener.name
    if static.lds is None:
        return
    path = static.lds[1].path
    names = {listener.name for listener in static.listeners}
    for i, (name, held) in enumerate(contents.get(static.lds, NOTHING).held.items()):
        if name in names:
            continue
        for address in _bound(held.resource.config):
            other = taken.setdefault(address, name)
            if other != name:
                raise ConfigError(f"{path} resources[{i}].address", f"listener {other!r} has the address {address} already")


def _bound(listener: ListenerConfig) -> list[object]:
    """Port 0 is another port for each."""
    addresses = (listener.address, *listener.additional_addresses)
    return [address for address in addresses if address.path or address.port]
