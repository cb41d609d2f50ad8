"""`mesh_proxy.filters.RouteChain`: narrows the endpoints of a cluster step by step, each step one dimension.

    dimensions:                             # in this order; an earlier one is never given up for a later one
    - name: region                          # in logs; also the kind, unless `kind` says otherwise
      sources: [{header: x-region}, {own: true}]
      fallback: [{to: "*"}]                 # "*": any
    - name: unit
      sources: [{header: user-id}]
      modulo: {divisor: 100, units: {u1: [[0, 49]], u2: [[50, 99]]}}
      mode: strict
    - name: gray                            # a name of one's own
      kind: label
      key: version                          # the endpoints' label
      rules: [{when: "header user-id % 100 == 20", to: gray}]
      sources: [{header: x-mesh-tag}]
      fallback:                             # tried in this order, from the wanted value on
      - {from: gray, to: beta, case: no_instances}
      - {to: "", case: [no_instances, no_healthy]}      # from any; "": endpoints without the label
      mode: permissive                      # permissive (default) | strict

`mesh_filters.route_dimensions` has the kinds. Each dimension asks for one value of one label (`envoy.lb` metadata, or
`@region`, `@zone`, `@sub_zone` of the locality) among what the earlier ones have left. `no_instances`: nobody there has it;
`no_healthy`: who has it may not be called. When the fallbacks have come to their end, a **permissive** dimension is left out
and a **strict** one answers 503.

What was decided is one line, `region=eu unit=u1 gray=gray>""(no_instances)`: `%FILTER_STATE(mesh_proxy.route_chain:PLAIN)%`, or
`%DYNAMIC_METADATA(mesh_proxy.route_chain:path)%`; `…:<name>)%` has the part of one dimension.

A decision depends on the wanted values and on the cluster's endpoints alone, so it is made once for each combination and kept
until membership or health changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import EndpointLabels, FieldError, FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.route_dimensions import BUILT_IN, DimensionConfig, Wanted, find_dimension, text

TYPE: Final = "mesh_proxy.filters.RouteChain"
METADATA: Final = "mesh_proxy.route_chain"
NO_HEALTHY_UPSTREAM: Final = 1 << 0
"""response flag UH"""
NO_INSTANCES: Final = "no_instances"
NO_HEALTHY: Final = "no_healthy"
ANY: Final = "*"
REMEMBERED: Final = 4096
"""decisions per cluster; values come from requests, so there must be an end. Then it starts anew"""
_BOTH: Final = frozenset({NO_INSTANCES, NO_HEALTHY})
_FIELDS: Final = {"name", "kind", "key", "fallback", "mode"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """One step of a fallback."""

    origin: str = ANY
    """value from which it leads away; `*`: from any"""
    target: str
    """value to try; `*`: leave the dimension out"""
    cases: frozenset[str] = _BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainDimensionConfig:
    """One dimension."""

    name: str
    key: str
    config: DimensionConfig
    fallbacks: tuple[StepConfig, ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChainConfig:
    """The whole filter."""

    dimensions: tuple[ChainDimensionConfig, ...]

    def factory(self, context: FilterContext) -> Filter:
        """One filter for all streams."""
        return RouteChainFilter(self, context)


class Decision:
    """Where the values of a request lead in a cluster as it is now."""

    __slots__ = ("fell_back", "labels", "metadata", "path", "refused")

    def __init__(self) -> None:
        self.labels: tuple[tuple[str, str], ...] = ()
        """what the endpoint must have"""
        self.path = ""
        """the way in words"""
        self.metadata: dict[str, str] = {}
        """for logs; shared by all requests of this decision"""
        self.fell_back = False
        """some dimension is not at the value that was wanted"""
        self.refused = ""
        """the strict dimension that nobody could serve"""


class RouteChainFilter(Filter):
    """Holds nothing of a stream."""

    __slots__ = ("_context", "_decisions", "_dimensions", "_stats", "_wanted")

    def __init__(self, config: RouteChainConfig, context: FilterContext) -> None:
        self._context = context
        self._dimensions = config.dimensions
        self._wanted: tuple[Wanted, ...] = tuple(one.config.compile(context, one.key) for one in config.dimensions)
        self._decisions: dict[str, tuple[EndpointLabels, dict[tuple[Any, ...], Decision]]] = {}
        """cluster -> (its endpoints as they were then, decisions)"""
        self._stats = context.stats(context.stat_prefix + "route_chain.", counters=("narrowed", "passed", "fallback", "refused"))

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Narrow the cluster."""
        cluster = stream.target_cluster()
        index = self._context.endpoint_labels(cluster) if cluster else None
        if index is None:
            return FilterStatus.CONTINUE
        wanted = tuple([one(stream) for one in self._wanted])
        known = self._decisions.get(cluster)
        if known is None or known[0] is not index:
            known = self._decisions[cluster] = (index, {})
        before = stream.labels or ()
        decision = known[1].get((wanted, before))
        if decision is None:
            if len(known[1]) >= REMEMBERED:
                known[1].clear()
            decision = known[1][wanted, before] = self.decide(index, wanted, before)
        if stream.dynamic_metadata is None:
            stream.dynamic_metadata = {}
        stream.dynamic_metadata[METADATA] = decision.metadata
        if stream.filter_state is None:
            stream.filter_state = {}
        stream.filter_state[METADATA] = decision.path
        if decision.refused:
            self._stats.refused += 1
            stream.send_local_reply(
                503,
                b"no endpoint for " + decision.refused.encode("latin-1", "replace"),
                details="route_chain_no_endpoint",
                flag=NO_HEALTHY_UPSTREAM,
            )
            return FilterStatus.STOP
        if decision.labels:
            self._stats.narrowed += 1
            stream.labels = before + decision.labels
        else:
            self._stats.passed += 1
        if decision.fell_back:
            self._stats.fallback += 1
        return FilterStatus.CONTINUE

    def decide(self, index: EndpointLabels, wanted: tuple[str | None, ...], before: tuple[tuple[str, str], ...]) -> Decision:
        """Go through the dimensions."""
        decision = Decision()
        words = []
        for dimension, value in zip(self._dimensions, wanted, strict=True):
            if value is None:
                continue
            taken, told = _narrow(dimension, value, index, before + decision.labels)
            words.append(f"{dimension.name}={told}")
            decision.metadata[dimension.name] = told
            if taken is None:
                decision.refused = f"{dimension.name}={value}"
                break
            decision.fell_back = decision.fell_back or taken != value
            if taken != ANY:
                decision.labels += ((dimension.key, taken),)
        decision.path = " ".join(words)
        decision.metadata["path"] = decision.path
        return decision


def _narrow(
    dimension: ChainDimensionConfig, value: str, index: EndpointLabels, before: tuple[tuple[str, str], ...]
) -> tuple[str | None, str]:
    """(value to narrow to, `*` for no narrowing, None for nowhere; the way in words)."""
    told = _said(value)
    seen = {value}
    while value != ANY:
        healthy, total = index.health((*before, (dimension.key, value)))
        if healthy:
            return value, told
        case = NO_HEALTHY if total else NO_INSTANCES
        for step in dimension.fallbacks:
            if case in step.cases and step.origin in (ANY, value) and step.target not in seen:
                value = step.target
                break
        else:
            if dimension.strict:
                return None, f"{told}>none({case})"
            value = ANY
        seen.add(value)
        told += f">{_said(value)}({case})"
    return ANY, told


def _said(value: str) -> str:
    return value or '""'


def configure(values: Mapping[str, Any]) -> RouteChainConfig:
    """The configuration from plain values."""
    given = values.get("dimensions")
    if not isinstance(given, list) or not given:
        raise FieldError("dimensions", "needs at least one dimension")
    found: list[ChainDimensionConfig] = []
    for i, one in enumerate(given):
        found.append(_dimension(one, f"dimensions[{i}]"))
        if found[-1].name in [other.name for other in found[:-1]]:
            raise FieldError(f"dimensions[{i}].name", "is there already; give this one a name of its own and say its kind")
    return RouteChainConfig(dimensions=tuple(found))


def _dimension(values: Any, path: str) -> ChainDimensionConfig:
    if not isinstance(values, Mapping):
        raise FieldError(path, "must be a mapping")
    name = text(values.get("name"), f"{path}.name")
    kind = text(values.get("kind", name), f"{path}.kind")
    if not name or name == "path" or any(sign in name for sign in " =>:"):
        raise FieldError(f"{path}.name", "must be a word")
    definition = find_dimension(kind)
    if definition is None:
        raise FieldError(f"{path}.kind", f"there is no kind {kind!r}; built in are {', '.join(BUILT_IN)}")
    if unknown := set(values) - _FIELDS - set(definition.fields):
        raise FieldError(f"{path}.{min(unknown)}", "unknown field")
    mode = values.get("mode", "permissive")
    if mode not in ("permissive", "strict"):
        raise FieldError(f"{path}.mode", "must be permissive or strict")
    return ChainDimensionConfig(
        name=name,
        key=text(values.get("key", definition.key or name), f"{path}.key"),
        config=definition.configure({key: value for key, value in values.items() if key not in _FIELDS}, path),
        fallbacks=_fallbacks(values.get("fallback", []), f"{path}.fallback"),
        strict=mode == "strict",
    )


def _fallbacks(given: Any, path: str) -> tuple[StepConfig, ...]:
    if not isinstance(given, list):
        raise FieldError(path, "must be a list")
    found = []
    for i, one in enumerate(given):
        here = f"{path}[{i}]"
        if not isinstance(one, Mapping) or set(one) - {"from", "to", "case"} or "to" not in one:
            raise FieldError(here, "needs to, and may have from and case")
        cases = one.get("case", [NO_INSTANCES, NO_HEALTHY])
        cases = [cases] if isinstance(cases, str) else cases
        if not isinstance(cases, list) or not cases or any(case not in _BOTH for case in cases):
            raise FieldError(f"{here}.case", f"must be of {NO_INSTANCES}, {NO_HEALTHY}")
        found.append(
            StepConfig(
                origin=text(one.get("from", ANY), f"{here}.from"), target=text(one["to"], f"{here}.to"), cases=frozenset(cases)
            )
        )
    return tuple(found)


definition = FilterDefinition(type_url=TYPE, fields=("dimensions",), configure=configure)
