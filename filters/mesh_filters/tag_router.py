"""`mesh_proxy.filters.TagRouter`: sends a request to the endpoints, or the cluster, of its label, and elsewhere when there are
none.

    label: x-mesh-tag          # header (attachment) that traffic_label has written
    key: version               # the endpoints' label in their envoy.lb metadata
    base: ""                   # value of endpoints for everybody; empty: those without the label
    mode: permissive           # permissive | strict | dubbo
    levels: true               # of the mode dubbo: a|b|c falls back to a|b and a
    clusters: {mock: mock-all} # labels that have a cluster of their own
    fallback:                  # tried in this order, from the request's label on
    - {from: gray, to: trunk, case: [no_instances, no_healthy]}

**permissive** goes from the label along the fallbacks to the base, and at last to any endpoint. **strict** goes along the
fallbacks and then answers 503. `no_instances` means that nobody has the label, `no_healthy` that nobody who has it may be
called; a fallback without `case` is for both.

**dubbo** is Dubbo's tag router: `dubbo.tag` and `dubbo.force.tag`, levels `a|b|c` that fall back to `a|b` and `a`, then to
untagged providers unless forced; an untagged call never reaches a tagged provider. Only `no_instances` counts there, as in
Dubbo. Without dynamic rules Dubbo's own consumers (2.7, 3.2, 3.3) take a tag with levels as one word, as `levels: false` does.
Tags that a consumer has from its configuration (`dubbo.consumer.tag`) do not come over the wire: say them by `TrafficLabel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import EndpointLabels, FieldError, FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Repetition, Stream

TYPE: Final = "mesh_proxy.filters.TagRouter"
METADATA: Final = "mesh_proxy.tag_router"
NO_HEALTHY_UPSTREAM: Final = 1 << 0
"""response flag UH"""
NO_INSTANCES: Final = "no_instances"
NO_HEALTHY: Final = "no_healthy"
REMEMBERED: Final = 4096
"""decisions per cluster; labels come from requests, so there must be an end. Then it starts anew"""
_MODES: Final = ("permissive", "strict", "dubbo")


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackConfig:
    """One step."""

    origin: str
    target: str
    cases: frozenset[str] = frozenset({NO_INSTANCES, NO_HEALTHY})


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRouterConfig:
    """The whole filter."""

    label: str = "x-mesh-tag"
    key: str = "version"
    base: str = ""
    mode: str = "permissive"
    levels: bool = True
    clusters: Mapping[str, str] = field(default_factory=dict, hash=False)
    fallbacks: tuple[FallbackConfig, ...] = ()

    def factory(self, context: FilterContext) -> Filter:
        """One filter for all streams."""
        return TagRouterFilter(self, context)


class _Decision:
    """Where a label leads in a cluster as it is now; shared by all its requests."""

    __slots__ = ("cluster", "counter", "labels", "metadata", "refused")

    def __init__(
        self,
        counter: str,
        metadata: dict[str, str],
        *,
        cluster: str = "",
        labels: tuple[tuple[str, str], ...] | None = None,
        refused: bool = False,
    ) -> None:
        self.counter = counter
        self.metadata = metadata
        self.cluster = cluster
        """to be used instead of the route's"""
        self.labels = labels
        """what the endpoint must have; None: nothing"""
        self.refused = refused


class TagRouterFilter(Filter):
    """Holds nothing of a stream. A decision is made once for each label and kept until the cluster's endpoints change."""

    __slots__ = (
        "_base",
        "_clusters",
        "_context",
        "_decisions",
        "_dubbo",
        "_fallbacks",
        "_header",
        "_key",
        "_levels",
        "_stats",
        "_strict",
    )

    def __init__(self, config: TagRouterConfig, context: FilterContext) -> None:
        self._context = context
        self._header = config.label.lower().encode()
        self._key = config.key
        self._base = config.base
        self._dubbo = config.mode == "dubbo"
        self._levels = config.levels
        self._strict = config.mode == "strict"
        self._clusters = dict(config.clusters)
        self._decisions: dict[str, tuple[EndpointLabels, dict[tuple[Any, ...], _Decision]]] = {}
        """cluster -> (its endpoints as they were then, decisions)"""
        self._fallbacks: dict[str, list[FallbackConfig]] = {}
        for one in config.fallbacks:
            self._fallbacks.setdefault(one.origin, []).append(one)
        self._stats = context.stats(
            context.stat_prefix + "tag_router.", counters=("tagged", "untagged", "exact", "fallback", "base", "any", "refused")
        )

    def learn(self, stream: Stream, event: RequestHeaders) -> tuple[FilterStatus, Repetition | None]:
        """A decision stands until the cluster's endpoints change; where labels have clusters of their own it is made anew."""
        made: list[tuple[str, EndpointLabels, _Decision, bytes]] = []
        status = self.on_request_headers(stream, event, made)
        if self._clusters or not made:
            return status, None
        cluster, index, decision, tag = made[0]
        endpoint_labels = self._context.endpoint_labels
        stats = self._stats
        tagged, counter = "tagged" if tag else "untagged", decision.counter

        def act(stream: Stream) -> None:
            setattr(stats, tagged, getattr(stats, tagged) + 1)
            setattr(stats, counter, getattr(stats, counter) + 1)

        return status, Repetition(act, (lambda stream: endpoint_labels(cluster) is index,))

    def on_request_headers(
        self,
        stream: Stream,
        event: RequestHeaders,
        made: list[tuple[str, EndpointLabels, _Decision, bytes]] | None = None,
    ) -> FilterStatus:
        """Narrow the cluster. `made` takes what `learn` wants to know."""
        cluster = stream.target_cluster()
        index = self._context.endpoint_labels(cluster) if cluster else None
        if index is None:
            return FilterStatus.CONTINUE  # whatever comes of the route
        first = event.headers.first
        tag = first.get(self._header) or b""
        force = self._dubbo and first.get(b"dubbo.force.tag") == b"true"
        known = self._decisions.get(cluster)
        if known is None or known[0] is not index:
            known = self._decisions[cluster] = (index, {})
        before = stream.labels
        decision = known[1].get((tag, force, before))
        if decision is None:
            decision = self._decide(index, tag.decode("latin-1"), force, before or ())
            if not self._clusters:  # the health of other clusters is not the index's
                if len(known[1]) >= REMEMBERED:
                    known[1].clear()
                known[1][tag, force, before] = decision
        if made is not None:
            made.append((cluster, index, decision, tag))
        stats = self._stats
        if tag:
            stats.tagged += 1
        else:
            stats.untagged += 1
        setattr(stats, decision.counter, getattr(stats, decision.counter) + 1)
        metadata = stream.dynamic_metadata
        if metadata is None:
            stream.dynamic_metadata = {METADATA: decision.metadata}
        else:
            metadata[METADATA] = decision.metadata
        if decision.refused:
            stream.send_local_reply(
                503, b"no endpoint for label " + (tag or b"(none)"), details="tag_router_no_endpoint", flag=NO_HEALTHY_UPSTREAM
            )
            return FilterStatus.STOP
        if decision.cluster:
            stream.use_cluster(decision.cluster)
        elif decision.labels is not None:
            stream.labels = decision.labels
        return FilterStatus.CONTINUE

    def _decide(self, index: EndpointLabels, tag: str, force: bool, before: tuple[tuple[str, str], ...]) -> _Decision:
        found = self._by_dubbo(index, before, tag, force) if self._dubbo else self._by_chain(index, before, tag)
        if found is None:
            return _Decision("refused", {"label": tag, "to": "", "why": "refused"}, refused=True)
        value, why = found
        cluster = self._clusters.get(value, "") if value is not None else ""
        labels = None if value is None or cluster else (*before, (self._key, value))
        counter = "fallback" if why == "level" else why
        return _Decision(counter, {"label": tag, "to": cluster or value or "", "why": why}, cluster=cluster, labels=labels)

    def _state(self, index: EndpointLabels, before: tuple[tuple[str, str], ...], value: str) -> str:
        """Empty when a label can be served; else what is the matter."""
        other = self._clusters.get(value)
        if other is not None:
            health = self._context.cluster_health(other)
            healthy, total = (0, 0) if health is None else (health[0] + health[1], health[2])
        else:
            healthy, total = index.health((*before, (self._key, value)))
        if not total:
            return NO_INSTANCES
        return "" if healthy else NO_HEALTHY

    def _by_chain(self, index: EndpointLabels, before: tuple[tuple[str, str], ...], tag: str) -> tuple[str | None, str] | None:
        """(value to narrow to or None, why); None = nowhere."""
        value = tag or self._base
        state = self._state(index, before, value)
        seen = {value}
        while state:
            step = next((one for one in self._fallbacks.get(value, ()) if state in one.cases and one.target not in seen), None)
            if step is None:
                break
            value = step.target
            seen.add(value)
            state = self._state(index, before, value)
        if not state:
            if tag and value == tag:
                return value, "exact"
            return value, "base" if not tag and value == self._base else "fallback"
        if self._strict:
            return None
        if self._base not in seen and not self._state(index, before, self._base):
            return self._base, "base"
        return None, "any"

    def _by_dubbo(
        self, index: EndpointLabels, before: tuple[tuple[str, str], ...], tag: str, force: bool
    ) -> tuple[str | None, str] | None:
        level = tag
        while level:
            if self._state(index, before, level) != NO_INSTANCES:
                return level, "exact" if level == tag else "level"
            if force:
                return None
            level = level.rpartition("|")[0] if self._levels else ""
        return None if self._state(index, before, "") == NO_INSTANCES else ("", "base")


def _texts(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise FieldError(path, "must be a text")
    return value


def configure(values: Mapping[str, Any]) -> TagRouterConfig:
    """The configuration from plain values."""
    mode = values.get("mode", "permissive")
    if mode not in _MODES:
        raise FieldError("mode", f"must be one of {', '.join(_MODES)}")
    clusters = values.get("clusters", {})
    if not isinstance(clusters, Mapping) or not all(isinstance(one, str) and one for one in clusters.values()):
        raise FieldError("clusters", "must map labels to names of clusters")
    fallbacks = []
    entries = values.get("fallback", [])
    if not isinstance(entries, list):
        raise FieldError("fallback", "must be a list")
    if entries and mode == "dubbo":
        raise FieldError("fallback", "is not for the mode dubbo, which has its own")
    for i, one in enumerate(entries):
        path = f"fallback[{i}]"
        if not isinstance(one, Mapping) or set(one) - {"from", "to", "case"} or "to" not in one or "from" not in one:
            raise FieldError(path, "needs from and to, and may have case")
        cases = one.get("case", [NO_INSTANCES, NO_HEALTHY])
        cases = [cases] if isinstance(cases, str) else cases
        if not cases or set(cases) - {NO_INSTANCES, NO_HEALTHY}:
            raise FieldError(f"{path}.case", f"must be of {NO_INSTANCES}, {NO_HEALTHY}")
        fallbacks.append(
            FallbackConfig(
                origin=_texts(one["from"], f"{path}.from"), target=_texts(one["to"], f"{path}.to"), cases=frozenset(cases)
            )
        )
    if "levels" in values and (mode != "dubbo" or not isinstance(values["levels"], bool)):
        raise FieldError("levels", "must be true or false, and is for the mode dubbo")
    return TagRouterConfig(
        label=_texts(values.get("label", "dubbo.tag" if mode == "dubbo" else "x-mesh-tag"), "label"),
        key=_texts(values.get("key", "dubbo.tag" if mode == "dubbo" else "version"), "key"),
        base=_texts(values.get("base", ""), "base"),
        mode=mode,
        levels=values.get("levels", True),
        clusters=dict(clusters),
        fallbacks=tuple(fallbacks),
    )


definition = FilterDefinition(
    type_url=TYPE, fields=("label", "key", "base", "mode", "levels", "clusters", "fallback"), configure=configure
)
