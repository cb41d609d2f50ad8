"""`mesh_proxy.filters.TrafficLabel`: colours a request once, and carries the colour from hop to hop.

    labels:
    - name: x-mesh-tag                       # the label, and the header (attachment) that carries it
      sources:                               # the first that says something
      - header: x-mesh-tag
      - baggage: mesh-tag
      - trace: true                          # what this sidecar has learnt for the request's trace id
      - {expression: "header user-id % 100 == 20", value: gray}
      - {percentage: 5, hash: {cookie: user}, value: gray}
      - source_label: version                # of the caller's workload; also source: namespace, service_account, cluster, …
      - own_label: version                   # of this sidecar's workload (node.metadata.LABELS)
      - constant: base
      attach_to: [header, baggage]           # header, baggage, tracestate; default header
      remember: true                         # inbound: keep it for the trace id
    trace_ids: [traceparent, b3, x-b3-traceid, x-request-id]
    ttl: 60                                  # seconds for which a trace is remembered
    trust: {identities: [spiffe://cluster.local/ns/edge/*], addresses: [10.0.0.0/8]}

On the way into a service the filter remembers which label the trace has; on the way out it restores it, although the service
passed on nothing but the trace id, and also when another worker carries the outbound call. Who is not trusted has his labels
stripped before anything else.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FieldError, FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Repetition, Stream
from mesh_filters.label_sources import Fact, check_source, kind_of, label_fact, label_source
from mesh_filters.label_traces import TRACE_IDS, Ids, Traces
from mesh_filters.values import Value, baggage_member, with_baggage, with_tracestate
from mesh_filters.view import RequestView

TYPE: Final = "mesh_proxy.filters.TrafficLabel"
METADATA: Final = "mesh_proxy.traffic_label"
"""where later filters and logs find the labels: name -> value"""
REMEMBERED: Final = 1024
"""values of labels that are known; they come from requests, so there must be an end. Then it starts anew"""
LONGEST: Final = 43
"""bytes of a label; what shared memory takes"""
COUNTERS: Final = ("labelled", "unlabelled", "restored", "remembered", "stripped", "invalid")
_Remembered = tuple[bytes, bytes, Ids]
"""what a request has left in memory: label, value, trace ids"""
_LABEL: Final = re.compile(rb"[!-+\-./0-9:<-~]{1,%d}" % LONGEST)
"""printable, without comma and semicolon"""
_NAME: Final = re.compile(r"[a-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """One label."""

    name: str
    header: str
    member: str
    """key in baggage and tracestate"""
    sources: tuple[Mapping[str, Any], ...] = field(hash=False)
    attach_to: tuple[str, ...] = ("header",)
    remember: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficLabelConfig:
    """The whole filter."""

    labels: tuple[LabelConfig, ...]
    trace_ids: tuple[str, ...] = TRACE_IDS
    ttl_s: float = 60.0
    identities: tuple[str, ...] | None = None
    """patterns of URI names whose labels are trusted; None with `addresses` None: everybody's"""
    addresses: tuple[str, ...] | None = None
    clear_route: bool = True

    def factory(self, context: FilterContext) -> Filter:
        """One filter for all streams."""
        return TrafficLabelFilter(self, context)


class _Label:
    """One label, compiled."""

    __slots__ = (
        "attach_baggage",
        "attach_header",
        "attach_tracestate",
        "attaches_more",
        "facts",
        "header",
        "key",
        "member",
        "name",
        "remember",
        "source_name",
        "sources",
        "valid",
    )

    def __init__(self, config: LabelConfig, context: FilterContext, traces: Traces) -> None:
        self.name = config.name
        self.key = config.name.encode()
        self.source_name = config.name + ".source"
        self.header = config.header.encode()
        self.member = config.member.encode()
        self.sources = tuple(
            (kind_of(one), label_source(one, f"labels.{config.name}.sources[{i}]", self.key, context, traces))
            for i, one in enumerate(config.sources)
        )
        self.facts = tuple(
            label_fact(one, find, self.key, traces) for one, (_, find) in zip(config.sources, self.sources, strict=True)
        )
        """for each of `sources`: makes a test that it still says the same of a request with an equal head; None = it must"""
        self.attach_header = "header" in config.attach_to
        self.attach_baggage = "baggage" in config.attach_to
        self.attach_tracestate = "tracestate" in config.attach_to
        self.attaches_more = self.attach_baggage or self.attach_tracestate
        self.remember = config.remember
        self.valid: set[bytes] = set()
        """values that were looked at before and are labels"""

    def check(self, value: bytes) -> bool:
        """Whether a value may be a label."""
        if _LABEL.fullmatch(value) is None:
            return False
        if len(self.valid) >= REMEMBERED:
            self.valid.clear()
        self.valid.add(value)
        return True

    def note(self, event: RequestHeaders, find: Value, value: bytes | None, facts: list[Fact | None]) -> None:
        """Add the tests that a value, found by this source, comes out the same for equal heads; None when there is no telling."""
        for (_, one), fact in zip(self.sources, self.facts, strict=True):
            won = one is find and bool(value)
            if fact is not None:
                facts.append(fact(event, value if won else None))
            if won:
                return

    def attach(self, event: RequestHeaders, value: bytes) -> None:
        """Write it into the W3C headers."""
        headers = event.headers
        if self.attach_baggage and baggage_member(headers.get_joined(b"baggage"), self.member) != value:
            headers.set(b"baggage", with_baggage(headers.get_joined(b"baggage"), self.member, value))
        if self.attach_tracestate:
            headers.set(b"tracestate", with_tracestate(headers.get_joined(b"tracestate"), self.member, value))


class TrafficLabelFilter(Filter):
    """Holds nothing of a stream."""

    __slots__ = (
        "_clear_route",
        "_identities",
        "_labels",
        "_networks",
        "_stats",
        "_told",
        "_traces",
        "_trusted",
        "_ttl_s",
        "context",
    )

    def __init__(self, config: TrafficLabelConfig, context: FilterContext) -> None:
        self.context = context
        self._ttl_s = config.ttl_s
        self._clear_route = config.clear_route
        self._identities = config.identities
        self._networks = tuple(ipaddress.ip_network(one, strict=False) for one in config.addresses or ())
        self._trusted = config.identities is None and config.addresses is None
        self._told: dict[tuple[Any, ...], dict[str, str]] = {}
        """(label, source, value) of each label that was found -> what metadata say; nobody changes it"""
        self._stats = context.stats(
            context.stat_prefix + "traffic_label.",
            counters=COUNTERS,
        )
        self._traces = Traces(config.trace_ids, context, self._stats)
        self._labels = tuple(_Label(one, context, self._traces) for one in config.labels)

    def _may_label(self, stream: Stream) -> bool:
        if self._trusted:
            return True
        view = RequestView(stream)
        if self._identities and any(fnmatchcase(name, one) for name in view.source_identities for one in self._identities):
            return True
        if self._networks and view.source_ip:
            address = ipaddress.ip_address(view.source_ip.decode())
            return any(address in network for network in self._networks)
        return False

    def _strip(self, request: RequestHeaders) -> None:
        headers = request.headers
        for label in self._labels:
            stripped = headers.remove(label.header) is not None
            for name, separate in ((b"baggage", b","), (b"tracestate", b",")):
                value = headers.get_joined(name)
                if value and label.member in value:
                    kept = [one for one in value.split(separate) if one.partition(b"=")[0].strip() != label.member]
                    stripped = stripped or len(kept) < value.count(separate) + 1
                    headers.set(name, separate.join(kept)) if kept else headers.remove(name)
            if stripped:
                self._stats.stripped += 1

    def learn(self, stream: Stream, event: RequestHeaders) -> tuple[FilterStatus, Repetition | None]:
        """The labels of equal heads are equal as long as memory, certificate and whatever else is asked say the same."""
        facts: list[Fact | None] = []
        if not self._trusted:
            trusted = self._may_label(stream)
            facts.append(lambda stream: self._may_label(stream) is trusted)
        remembered: list[_Remembered] = []
        stats = self._stats
        before = [getattr(stats, name) for name in COUNTERS]
        status = self.on_request_headers(stream, event, facts, remembered)
        if None in facts:
            return status, None
        counted = [(name, getattr(stats, name) - old) for name, old in zip(COUNTERS, before, strict=True)]
        return status, Repetition(
            self._act([(name, number) for name, number in counted if number], remembered), tuple(filter(None, facts))
        )

    def _act(self, counted: list[tuple[str, int]], remembered: list[_Remembered]) -> Callable[[Stream], None]:
        """What is left to do for a request like one before."""
        stats = self._stats
        if not remembered and counted == [("labelled", 1)]:

            def count_one(stream: Stream) -> None:
                stats.labelled += 1

            return count_one

        def act(stream: Stream) -> None:
            for name, number in counted:
                setattr(stats, name, getattr(stats, name) + number)
            for key, value, ids in remembered:
                for one in ids:
                    trace_id = stream.request.headers.first[b"x-request-id"] if one is None else one
                    self.context.remember(key, trace_id, value, self._ttl_s)

        return act

    def on_request_headers(
        self,
        stream: Stream,
        event: RequestHeaders,
        facts: list[Fact | None] | None = None,
        remembered: list[_Remembered] | None = None,
    ) -> FilterStatus:
        """Find the labels, write them on the request, remember them. `facts` and `remembered` take what `learn` wants to know."""
        if not self._trusted and not self._may_label(stream):
            self._strip(event)
        stats = self._stats
        changed = False
        found: tuple[Any, ...] = ()
        for label in self._labels:
            value: bytes | None = None
            kind = ""
            for kind, find in label.sources:  # noqa: B007 - what was found is told with its source
                value = find(stream)
                if value:
                    break
            if facts is not None:
                label.note(event, find, value, facts)
            if not value:
                stats.unlabelled += 1
                continue
            if value not in label.valid and not label.check(value):
                stats.invalid += 1
                continue
            stats.labelled += 1
            if label.attach_header:
                headers = event.headers
                if headers.first.get(label.header) != value:
                    headers.set(label.header, value)
                    changed = True
            if label.attaches_more:
                label.attach(event, value)
            if label.remember:
                for trace_id in self._traces.of(event):
                    self.context.remember(label.key, trace_id, value, self._ttl_s)
                    stats.remembered += 1
                if remembered is not None:
                    remembered.append((label.key, value, self._traces.ids(event)))
            found += (label, kind, value)
        if found:
            told = self._told.get(found) or self._tell(found)
            metadata = stream.dynamic_metadata
            if metadata is None:
                stream.dynamic_metadata = {METADATA: told}
            else:
                metadata[METADATA] = {**metadata[METADATA], **told} if METADATA in metadata else told
        if changed and self._clear_route:
            stream.clear_route()
        return FilterStatus.CONTINUE

    def _tell(self, found: tuple[Any, ...]) -> dict[str, str]:
        """What metadata say of these labels, once for all requests that have them."""
        told = {}
        for label, kind, value in zip(found[::3], found[1::3], found[2::3], strict=True):
            told[label.name] = value.decode("latin-1")
            told[label.source_name] = kind
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[found] = told
        return told


_FIELDS: Final = ("labels", "trace_ids", "ttl", "trust", "clear_route")
_LABEL_FIELDS: Final = {"name", "header", "member", "sources", "attach_to", "remember"}


def _texts(values: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    given = values[name]
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise FieldError(path, "must be a list of texts")
    return tuple(given)


def configure(values: Mapping[str, Any]) -> TrafficLabelConfig:
    """The configuration from plain values."""
    labels = values.get("labels")
    if not isinstance(labels, list) or not labels:
        raise FieldError("labels", "needs at least one label")
    more: dict[str, Any] = {}
    if "trace_ids" in values:
        more["trace_ids"] = tuple(name.lower() for name in _texts(values, "trace_ids", "trace_ids"))
    ttl = values.get("ttl", 60)
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 < ttl <= 86_400:
        raise FieldError("ttl", "must be seconds, more than 0 and at most a day")
    trust = values.get("trust")
    if trust is not None:
        if not isinstance(trust, Mapping) or set(trust) - {"identities", "addresses"}:
            raise FieldError("trust", "may have identities and addresses")
        if "identities" in trust:
            more["identities"] = _texts(trust, "identities", "trust.identities")
        more["addresses"] = _texts(trust, "addresses", "trust.addresses") if "addresses" in trust else ()
        for i, one in enumerate(more["addresses"]):
            try:
                ipaddress.ip_network(one, strict=False)
            except ValueError as error:
                raise FieldError(f"trust.addresses[{i}]", f"must be an address or a network: {error}") from None
    return TrafficLabelConfig(
        labels=tuple(_label(one, f"labels[{i}]") for i, one in enumerate(labels)),
        ttl_s=float(ttl),
        clear_route=bool(values.get("clear_route", True)),
        **more,
    )


def _label(values: Any, path: str) -> LabelConfig:
    if not isinstance(values, Mapping):
        raise FieldError(path, "must be a mapping")
    if unknown := set(values) - _LABEL_FIELDS:
        raise FieldError(f"{path}.{min(unknown)}", "unknown field")
    name = values.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise FieldError(f"{path}.name", "must be the name of a header, in lower case")
    sources = values.get("sources")
    if not isinstance(sources, list) or not sources:
        raise FieldError(f"{path}.sources", "needs at least one source")
    for i, source in enumerate(sources):
        check_source(source, f"{path}.sources[{i}]")
    attach = _texts(values, "attach_to", f"{path}.attach_to") if "attach_to" in values else ("header",)
    if unknown := set(attach) - {"header", "attachment", "baggage", "tracestate"}:
        raise FieldError(f"{path}.attach_to", f"{min(unknown)} is none of header, attachment, baggage, tracestate")
    return LabelConfig(
        name=name,
        header=str(values.get("header", name)).lower(),
        member=str(values.get("member", name)),
        sources=tuple(sources),
        attach_to=tuple("header" if one == "attachment" else one for one in attach),
        remember=bool(values.get("remember", False)),
    )


definition = FilterDefinition(type_url=TYPE, fields=_FIELDS, configure=configure)
