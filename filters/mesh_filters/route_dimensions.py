"""Dimensions of a route chain: plug-ins that say which value of one label a request wants.

A dimension knows nothing of clusters and endpoints. It is configured once, in the process that loads configurations; in a
worker `compile` makes of it a function from a stream to the wanted value, or None where it has nothing to say about the
request. Narrowing, falling back and telling about it are the chain's (`mesh_filters.route_chain`).

Built in, with the label of the endpoints that each goes by unless `key` names another:

    region @region      zone @zone      data_center @zone      environment env      version version      label (the name)
        rules:                          # the first whose condition holds
        - {when: "header x-mesh-region exists and not cookie beta == off", to: eu}
        sources:                        # then the first that says something
        - header: x-mesh-region         # header, attachment, cookie, query, baggage, tracestate, jwt, metadata, …
        - own: true                     # of this sidecar: its locality, or its workload's label of that key
        - constant: eu

    unit unit                           # by a function of a user's id
        rules, and the first source that says something is the id
        modulo: {divisor: 100, units: {u1: [[0, 49]], u2: [[50, 99]]}}     # of a whole number; from and to are included
        ranges: {u1: [[1, 4999999]], u2: [[5000000, 9999999]]}             # of a whole number
        hash: {u1: 3, u2: 1}            # shares; a user stays where he is when a unit's share grows elsewhere
        table: {alice: u1}              # before the others
        default: u1                     # who has no id, or one that none of these knows

A dimension of another distribution is a `DimensionDefinition` under an entry point of the group
`mesh_proxy.route_dimensions`; the entry point's name is the kind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from math import log
from typing import Any, Final, Protocol

from mesh_filters.definition import FieldError, FilterContext
from mesh_filters.expression import Condition, compile_condition, whole_number
from mesh_filters.filter import Stream
from mesh_filters.values import Value, value_source

ENTRY_POINT_GROUP: Final = "mesh_proxy.route_dimensions"
Wanted = Callable[[Stream], str | None]
"""the value that a request wants; None: it may go anywhere. An empty value: endpoints that do not have the label"""
LONGEST_VALUE: Final = 128
"""bytes of a value that a request may bring; a longer one is as good as none"""
_OWN_LOCALITY: Final = {"@region": 0, "@zone": 1, "@sub_zone": 2}


class DimensionConfig(Protocol):
    """What `configure` returns. It is pickled, so its class belongs to a module."""

    def compile(self, context: FilterContext, key: str) -> Wanted:
        """Called in each worker for each chain; `key` is the endpoints' label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionDefinition:
    """One kind of dimension."""

    key: str = ""
    """the endpoints' label unless the configuration names another; empty: the dimension's name"""
    fields: tuple[str, ...]
    """keys that its configuration may have beside those that the chain reads (name, kind, key, fallback, mode)"""
    configure: Callable[[Mapping[str, Any], str], DimensionConfig]
    """(values, path) to the configuration; raises FieldError"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """`{when: condition, to: value}`."""

    when: str
    to: str


def _compile_rules(rules: Sequence[RuleConfig]) -> tuple[tuple[Condition, str], ...]:
    return tuple((compile_condition(one.when, "rules"), one.to) for one in rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDimension:
    """Rules, then sources."""

    rules: tuple[RuleConfig, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    def compile(self, context: FilterContext, key: str) -> Wanted:
        """See the protocol."""
        rules = _compile_rules(self.rules)
        sources = [_compile_source(one, context, key) for one in self.sources]
        if not rules and len(sources) == 1:
            only = sources[0]

            def from_one(stream: Stream) -> str | None:
                value = only(stream)
                return value.decode("latin-1") if value and len(value) <= LONGEST_VALUE else None

            return from_one

        def wanted(stream: Stream) -> str | None:
            for holds, to in rules:
                if holds(stream):
                    return to
            for source in sources:
                value = source(stream)
                if value and len(value) <= LONGEST_VALUE:
                    return value.decode("latin-1")
            return None

        return wanted


def _compile_source(source: Mapping[str, Any], context: FilterContext, key: str) -> Value:
    if "constant" in source:
        constant = str(source["constant"]).encode("latin-1", "replace")
        return lambda stream: constant
    if "own" in source:
        own = _own_value(context, key if source["own"] is True else str(source["own"]))
        return lambda stream: own
    return value_source(source, "sources")


def _own_value(context: FilterContext, key: str) -> bytes | None:
    place = _OWN_LOCALITY.get(key)
    if place is not None:
        return context.node_locality[place].encode() or None
    labels = context.node_metadata.get("LABELS")
    value = labels.get(key) if isinstance(labels, Mapping) else context.node_metadata.get(key)
    return None if value is None else str(value).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitDimension:
    """A function of a user's id."""

    rules: tuple[RuleConfig, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    divisor: int | None = None
    """None: by the number itself"""
    intervals: tuple[tuple[int, int, str], ...] = ()
    """(from, to, unit), sorted, without overlap"""
    shares: tuple[tuple[str, float], ...] = ()
    table: Mapping[str, str] = field(default_factory=dict, hash=False)
    default: str | None = None

    def compile(self, context: FilterContext, key: str) -> Wanted:
        """See the protocol."""
        rules = _compile_rules(self.rules)
        sources = [_compile_source(one, context, key) for one in self.sources]
        table = {user.encode(): unit for user, unit in self.table.items()}
        starts = [start for start, _, _ in self.intervals]
        intervals, divisor, shares, default = self.intervals, self.divisor, self.shares, self.default

        def wanted(stream: Stream) -> str | None:
            for holds, to in rules:
                if holds(stream):
                    return to
            for source in sources:
                user = source(stream)
                if user:
                    break
            else:
                return default
            if user in table:
                return table[user]
            if starts:
                number = whole_number(user)
                if number is not None:
                    if divisor is not None:
                        number %= divisor
                    at = bisect_right(starts, number) - 1
                    if at >= 0 and number <= intervals[at][1]:
                        return intervals[at][2]
            elif shares:
                return unit_by_share(user, shares)
            return default

        return wanted


def unit_by_share(user: bytes, shares: Sequence[tuple[str, float]]) -> str:
    """Weighted rendezvous hashing: each unit draws a number for the user, the best one has him. A share that changes moves
    only as many users as it must."""
    best, found = float("-inf"), ""
    for unit, weight in shares:
        drawn = int.from_bytes(blake2b(user, digest_size=8, key=unit.encode()[:64]).digest(), "big")
        score = -weight / log((drawn + 0.5) / 2**64)
        if score > best:
            best, found = score, unit
    return found


# -- configuration


def text(value: Any, path: str) -> str:
    """A text, or FieldError."""
    if not isinstance(value, str):
        raise FieldError(path, "must be a text")
    return value


def _rules(values: Mapping[str, Any], path: str) -> tuple[RuleConfig, ...]:
    given = values.get("rules", [])
    if not isinstance(given, list):
        raise FieldError(f"{path}.rules", "must be a list")
    found = []
    for i, one in enumerate(given):
        here = f"{path}.rules[{i}]"
        if not isinstance(one, Mapping) or set(one) != {"when", "to"}:
            raise FieldError(here, "needs when and to, and nothing else")
        when = text(one["when"], f"{here}.when")
        compile_condition(when, f"{here}.when")
        found.append(RuleConfig(when=when, to=text(one["to"], f"{here}.to")))
    return tuple(found)


def _sources(values: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], ...]:
    given = values.get("sources", [])
    if not isinstance(given, list):
        raise FieldError(f"{path}.sources", "must be a list")
    for i, one in enumerate(given):
        here = f"{path}.sources[{i}]"
        if not isinstance(one, Mapping):
            raise FieldError(here, "must be a mapping")
        if "constant" in one or "own" in one:
            if len(one) != 1:
                raise FieldError(here, "needs exactly one of constant, own or a value of the request")
            if "own" in one and one["own"] is not True and not isinstance(one["own"], str):
                raise FieldError(f"{here}.own", "must be true or the name of a label")
        else:
            value_source(one, here)
    return tuple(given)


def configure_label(values: Mapping[str, Any], path: str) -> LabelDimension:
    """Any dimension but units."""
    found = LabelDimension(rules=_rules(values, path), sources=_sources(values, path))
    if not found.rules and not found.sources:
        raise FieldError(f"{path}.sources", "needs at least one source, or rules")
    return found


def configure_unit(values: Mapping[str, Any], path: str) -> UnitDimension:
    """Units by users."""
    functions = [name for name in ("modulo", "ranges", "hash") if name in values]
    if len(functions) > 1 or (not functions and "table" not in values):
        raise FieldError(path, "needs one of modulo, ranges, hash; or a table")
    sources = _sources(values, path)
    if not sources:
        raise FieldError(f"{path}.sources", "needs at least one source of the user's id")
    more: dict[str, Any] = {}
    if "modulo" in values:
        given = values["modulo"]
        if not isinstance(given, Mapping) or set(given) != {"divisor", "units"}:
            raise FieldError(f"{path}.modulo", "needs divisor and units")
        divisor = _whole(given["divisor"], f"{path}.modulo.divisor")
        if divisor < 1:
            raise FieldError(f"{path}.modulo.divisor", "must be at least 1")
        more["divisor"] = divisor
        more["intervals"] = _intervals(given["units"], f"{path}.modulo.units")
        for start, end, _ in more["intervals"]:
            if start < 0 or end >= divisor:
                raise FieldError(f"{path}.modulo.units", f"{start} to {end} is not within 0 to {divisor - 1}")
    elif "ranges" in values:
        more["intervals"] = _intervals(values["ranges"], f"{path}.ranges")
    elif "hash" in values:
        given = values["hash"]
        if not isinstance(given, Mapping) or not given:
            raise FieldError(f"{path}.hash", "must map units to shares")
        for unit, share in given.items():
            if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1e6:
                raise FieldError(f"{path}.hash.{unit}", "must be a share, more than 0 and at most a million")
        more["shares"] = tuple((str(unit), float(share)) for unit, share in given.items())
    table = values.get("table", {})
    if not isinstance(table, Mapping) or not all(isinstance(unit, str) for unit in table.values()):
        raise FieldError(f"{path}.table", "must map users to units")
    if "default" in values:
        more["default"] = text(values["default"], f"{path}.default")
    return UnitDimension(
        rules=_rules(values, path), sources=sources, table={str(user): unit for user, unit in table.items()}, **more
    )


def _whole(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():  # a Struct has no other numbers
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FieldError(path, "must be a whole number")
    return value


def _intervals(units: Any, path: str) -> tuple[tuple[int, int, str], ...]:
    if not isinstance(units, Mapping) or not units:
        raise FieldError(path, "must map units to lists of [from, to]")
    found = []
    for unit, pairs in units.items():
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise FieldError(f"{path}.{unit}", "must be a list of [from, to]")
        for i, pair in enumerate(pairs):
            start, end = (_whole(one, f"{path}.{unit}[{i}]") for one in pair)
            if end < start:
                raise FieldError(f"{path}.{unit}[{i}]", "ends before it begins")
            found.append((start, end, str(unit)))
    found.sort()
    for before, after in pairwise(found):
        if after[0] <= before[1]:
            raise FieldError(path, f"{before[2]} and {after[2]} both have {after[0]}")
    return tuple(found)


_LABEL_FIELDS: Final = ("rules", "sources")
BUILT_IN: Final[Mapping[str, DimensionDefinition]] = {
    "region": DimensionDefinition(key="@region", fields=_LABEL_FIELDS, configure=configure_label),
    "zone": DimensionDefinition(key="@zone", fields=_LABEL_FIELDS, configure=configure_label),
    "data_center": DimensionDefinition(key="@zone", fields=_LABEL_FIELDS, configure=configure_label),
    "environment": DimensionDefinition(key="env", fields=_LABEL_FIELDS, configure=configure_label),
    "version": DimensionDefinition(key="version", fields=_LABEL_FIELDS, configure=configure_label),
    "label": DimensionDefinition(fields=_LABEL_FIELDS, configure=configure_label),
    "unit": DimensionDefinition(
        key="unit", fields=(*_LABEL_FIELDS, "modulo", "ranges", "hash", "table", "default"), configure=configure_unit
    ),
}


def find_dimension(kind: str) -> DimensionDefinition | None:
    """A built-in one, or one of another distribution."""
    found = BUILT_IN.get(kind)
    if found is None:
        from importlib.metadata import entry_points  # costs memory, and seldom needed

        for point in entry_points(group=ENTRY_POINT_GROUP, name=kind):
            loaded = point.load()
            if isinstance(loaded, DimensionDefinition):
                return loaded
    return found
