"""Endpoints by labels: what tag routing and route chains narrow a cluster to.

Other than subset load balancing this needs nothing in the cluster's configuration, and it can ask for the *absence* of a
label, written as an empty value. A label is a key of the endpoint's `envoy.lb` metadata (of a list, any of its values), or
`@region`, `@zone`, `@sub_zone` of its locality. For each set of keys that somebody asks for there is one dict, made at the
first question and again when the cluster changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Final

from mesh_proxy.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from mesh_proxy.upstream.balancers import Choose

Labels = tuple[tuple[str, str], ...]
"""(key, value) in any order; an empty value asks for endpoints without the label"""
_LOCALITY: Final = {"@region": "region", "@zone": "zone", "@sub_zone": "sub_zone"}
MOST_QUESTIONS: Final = 4096
"""that are remembered of one cluster; values come from requests"""
MOST_KEY_SETS: Final = 64
"""of one cluster; then the indexes start anew"""


def values_of(endpoint: Endpoint, key: str) -> tuple[str, ...]:
    """What an endpoint has for a label; one empty text when it has nothing."""
    field = _LOCALITY.get(key)
    if field is not None:
        return (getattr(endpoint.locality, field),)
    value = (endpoint.metadata.get("envoy.lb") or {}).get(key)
    if value is None or value == "":
        return ("",)
    if isinstance(value, (list, tuple)):
        return tuple(_text(one) for one in value) or ("",)
    return (_text(value),)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Group:
    __slots__ = ("choose", "endpoints", "healthy")

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self.healthy = sum(one.healthy and not one.ejected for one in endpoints)
        self.choose: Choose | None = None


class LabelIndex:
    """All indexes of one cluster."""

    __slots__ = ("_by_keys", "_endpoints", "_known", "_make")

    def __init__(self, endpoints: Sequence[Endpoint], make: Callable[[Sequence[Endpoint]], Choose]) -> None:
        self._endpoints = endpoints
        self._make = make
        self._by_keys: dict[tuple[str, ...], dict[tuple[str, ...], _Group]] = {}
        self._known: dict[Labels, _Group | None] = {}
        """questions that were asked before"""

    def _group(self, labels: Labels) -> _Group | None:
        try:
            return self._known[labels]
        except KeyError:
            pass
        if len(self._known) >= MOST_QUESTIONS:
            self._known.clear()
        found = self._known[labels] = self._find(labels)
        return found

    def _find(self, labels: Labels) -> _Group | None:
        keys = tuple([key for key, _ in labels])
        groups = self._by_keys.get(keys)
        if groups is None:
            groups = self._sort(keys)
        return groups.get(tuple([value for _, value in labels]))

    def _sort(self, keys: tuple[str, ...]) -> dict[tuple[str, ...], _Group]:
        found: dict[tuple[str, ...], list[Endpoint]] = {}
        for endpoint in self._endpoints:
            for values in product(*(values_of(endpoint, key) for key in keys)):
                found.setdefault(values, []).append(endpoint)
        if len(self._by_keys) >= MOST_KEY_SETS:
            self._by_keys.clear()
        groups = self._by_keys[keys] = {values: _Group(endpoints) for values, endpoints in found.items()}
        return groups

    def choose(self, labels: Labels) -> Endpoint | None:
        """An endpoint that has all these labels."""
        group = self._group(labels)
        if group is None:
            return None
        choose = group.choose
        if choose is None:
            choose = group.choose = self._make(group.endpoints)
        return choose()

    def members(self, labels: Labels) -> Sequence[Endpoint]:
        """All endpoints that have all these labels."""
        group = self._group(labels)
        return () if group is None else group.endpoints

    def health(self, labels: Labels) -> tuple[int, int]:
        """How many endpoints with these labels may be called, and how many there are."""
        group = self._group(labels)
        return (0, 0) if group is None else (group.healthy, len(group.endpoints))
