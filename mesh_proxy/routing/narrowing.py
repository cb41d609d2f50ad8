"""Long candidate lists, narrowed by one header before their conditions are tried one by one.

Where hundreds of routes share a path and differ by the value of a header (a label, a tenant), trying them in order would cost
time in proportion to their number. Such a list picks the header that most of its routes want to equal some value, and keeps, per
value, the routes that can still match: those that want this value and those that do not ask for the header, in configured order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from mesh_codecs.events import RequestHeaders
from mesh_proxy.config.model.common import HeaderMatchKind, StringMatchKind
from mesh_proxy.config.model.route import RouteConfig
from mesh_proxy.routing.matchers import REQUEST_FIELDS
from mesh_proxy.routing.route import Route

NARROW_FROM: Final = 12
"""routes; shorter lists are tried one by one, which is as quick as the look-up"""
MAX_UNBOUND: Final = 64
"""routes that do not ask for the header: they stand in the list of every value, so that many of them would cost memory"""

Candidates = tuple[Route, ...]


def until_certain(routes: Iterable[Route]) -> Candidates:
    """The routes up to the first one without conditions: those behind it can never be reached."""
    kept: list[Route] = []
    for route in routes:
        kept.append(route)
        if route.conditions is None:
            break
    return tuple(kept)


def wanted_values(config: RouteConfig) -> dict[str, str]:
    """Headers that must have exactly one value, and that value. A missing header that counts as empty is not among them."""
    return {
        header.name: header.string.value
        for header in config.match.headers
        if header.kind is HeaderMatchKind.STRING
        and header.string is not None
        and header.string.kind is StringMatchKind.EXACT
        and not (header.string.ignore_case or header.invert or header.treat_missing_as_empty)
    }


class LongCandidates(tuple[Route, ...]):
    """Candidates with an index by one header, if one serves."""

    _by_value: dict[bytes, Candidates]
    _field: bytes
    _unbound: Candidates

    def __new__(cls, routes: Iterable[Route]) -> LongCandidates:
        self = super().__new__(cls, routes)
        self._index()
        return self

    def _index(self) -> None:
        wanted = [wanted_values(route.config) for route in self]
        counts = Counter(name for values in wanted for name in values)
        self._field, self._by_value, self._unbound = b"", {}, ()
        if not counts:
            return
        name, bound = counts.most_common(1)[0]
        if len(self) - bound > MAX_UNBOUND:
            return
        values = {value[name] for value in wanted if name in value}
        routes: dict[str, list[Route]] = {value: [] for value in values}
        unbound: list[Route] = []
        for route, value in zip(self, wanted, strict=True):
            if name in value:
                routes[value[name]].append(route)
            else:
                unbound.append(route)
        self._field = name.encode()
        self._unbound = until_certain(unbound)
        self._by_value = {
            value.encode(): until_certain(sorted((*own, *unbound), key=lambda route: route.order))
            for value, own in routes.items()
        }

    def narrow(self, request: RequestHeaders) -> Candidates:
        """The routes that can still match a request, in configured order."""
        name = self._field
        if not name:
            return self
        field = REQUEST_FIELDS.get(name)
        if field is not None:
            return self._by_value.get(field(request), self._unbound)
        headers = request.headers
        if headers.more is not None and len(headers.get_all(name)) > 1:
            return self
        value = headers.first.get(name)
        return self._unbound if value is None else self._by_value.get(value, self._unbound)


def candidates_of(routes: Iterable[Route]) -> Candidates:
    """Candidates that will be kept: cut behind the first certain one, and with an index if they are many."""
    kept = until_certain(routes)
    return LongCandidates(kept) if len(kept) >= NARROW_FROM else kept
