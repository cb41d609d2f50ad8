"""The filters of a connection manager, compiled: for each combination of filters that routes ask for, the hooks that there are.

A chain knows which of its filters have which hook. Walking it calls these and nothing else; a direction without any hook is not
walked, and a request whose route switches all filters off has no walk at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mesh_filters.definition import FilterFactory
from mesh_filters.filter import Filter, FilterStatus
from mesh_proxy.config.model import FilterSwitch

Hook = Callable[[Any, Any, Any], FilterStatus]
"""a hook function of a filter's class: filter, stream, event"""
Entry = tuple[int, int, Hook]
"""position in the order of the walk, index of the filter, hook"""

HEADERS: Final = 0
DATA: Final = 1
TRAILERS: Final = 2
REMEMBERED: Final = 10_000
"""configurations of routes whose chain is known by their identity; then it starts anew (tables that come by RDS are replaced)"""
_REQUEST_HOOKS: Final = ("on_request_headers", "on_request_data", "on_request_trailers")
_RESPONSE_HOOKS: Final = ("on_response_headers", "on_response_data", "on_response_trailers")


class Direction:
    """The hooks of one direction."""

    __slots__ = ("at", "by_kind", "data", "headers", "indexes", "trailers")

    def __init__(self, kinds: Sequence[type[Filter]], order: Sequence[int], names: tuple[str, str, str]) -> None:
        self.indexes = tuple(order)
        """position -> index of the filter"""
        by_kind = [
            tuple(
                (position, index, getattr(kinds[index], name)) for position, index in enumerate(order) if has(kinds[index], name)
            )
            for name in names
        ]
        self.headers: tuple[Entry, ...] = by_kind[0]
        self.data: tuple[Entry, ...] = by_kind[1]
        self.trailers: tuple[Entry, ...] = by_kind[2]
        self.by_kind: tuple[tuple[Entry, ...], ...] = tuple(by_kind)
        self.at: tuple[dict[int, Hook], ...] = tuple({position: hook for position, _, hook in entries} for entries in by_kind)
        """kind -> position -> hook"""

    def __bool__(self) -> bool:
        return any(self.by_kind)


def has(kind: type[Filter], name: str) -> bool:
    """Whether a class overrides a hook."""
    return getattr(kind, name) is not getattr(Filter, name)


class FilterChain:
    """One combination of filters."""

    __slots__ = ("_makers", "_shared", "complete", "learns", "light", "local_reply", "request", "response", "size")

    def __init__(self, factories: Sequence[FilterFactory]) -> None:
        self.size = len(factories)
        samples = [one if isinstance(one, Filter) else one() for one in factories]
        kinds = [type(one) for one in samples]
        self._makers = tuple(_return(one) if isinstance(one, Filter) else one for one in factories)
        self._shared = samples if all(isinstance(one, Filter) for one in factories) else None
        """the filters, when all of them serve all streams"""
        order = range(self.size)
        self.request = Direction(kinds, order, _REQUEST_HOOKS)
        self.response = Direction(kinds, order[::-1], _RESPONSE_HOOKS)
        self.local_reply = tuple(index for index in order if has(kinds[index], "on_local_reply"))
        self.complete = tuple(index for index in order if has(kinds[index], "on_complete"))
        heads_alone = not (self.request.data or self.request.trailers or self.response or self.local_reply or self.complete)
        self.light: tuple[tuple[int, Filter, Hook], ...] = ()
        """positions, filters and hooks of a chain that looks at heads of requests alone, by filters that serve all streams: as
        long as none of them stops a request, it needs no `FilterRun`"""
        if heads_alone and self._shared is not None:
            self.light = tuple((position, self._shared[index], hook) for position, index, hook in self.request.headers)
        self.learns = bool(self.light or not self.size) and all(has(type(one), "learn") for _, one, _ in self.light)
        """all of a light chain, or of one without filters, can say how to repeat what they did"""

    def make(self) -> list[Filter]:
        """The filters of one stream."""
        return self._shared if self._shared is not None else [maker() for maker in self._makers]


def _return(one: Filter) -> Callable[[], Filter]:
    return lambda: one


def _for_route(factory: FilterFactory, config: Any) -> FilterFactory | None:
    if config is FilterSwitch.OFF:
        return None
    for_route = getattr(factory, "for_route", None)
    if for_route is None or isinstance(config, FilterSwitch):
        return factory
    found: FilterFactory = for_route(config)
    return found


class FilterChains:
    """All chains of a connection manager; which one a request gets is decided by its route.

    Args:
        filters: name, factory and whether the filter is off unless a route says otherwise, in configured order.
        idle: names of those that do nothing unless a route has a configuration for them.
    """

    __slots__ = ("_all", "_by_config", "_by_factories", "_filters", "_idle", "default")

    def __init__(self, filters: Sequence[tuple[str, FilterFactory, bool]], idle: frozenset[str] = frozenset()) -> None:
        self._all = self._filters = tuple(filters)
        self._idle = idle
        self._by_factories: dict[tuple[FilterFactory | None, ...], FilterChain] = {}
        self._by_config: dict[int, tuple[Mapping[str, Any], FilterChain]] = {}
        self.default = self._chain(tuple(None if disabled else factory for _, factory, disabled in self._filters))

    def suit(self, configured: frozenset[str]) -> None:
        """Leave out what does nothing with a route table that says something to these filters and no others."""
        absent = self._idle - configured
        filters = tuple([one for one in self._all if one[0] not in absent])
        if filters != self._filters:
            self._filters = filters
            self._by_config.clear()
            self.default = self._chain(tuple([None if disabled else factory for _, factory, disabled in filters]))

    def _chain(self, chosen: tuple[FilterFactory | None, ...]) -> FilterChain:
        """None: this filter is off."""
        chain = self._by_factories.get(chosen)
        if chain is None:
            chain = self._by_factories[chosen] = FilterChain([factory for factory in chosen if factory is not None])
        return chain

    def of(self, per_filter: Mapping[str, Any]) -> FilterChain:
        """The chain for a route (or a choice of cluster), by its merged `typed_per_filter_config`."""
        if not per_filter:
            return self.default
        found = self._by_config.get(id(per_filter))
        if found is None:
            chosen = tuple(
                _for_route(factory, per_filter[name]) if name in per_filter else None if disabled else factory
                for name, factory, disabled in self._filters
            )
            if len(self._by_config) >= REMEMBERED:
                self._by_config.clear()
            # The mapping is kept, so that its id stays its own.
            found = self._by_config[id(per_filter)] = (per_filter, self._chain(chosen))
        return found[1]
