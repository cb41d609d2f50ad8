"""Circuit breakers for requests: what is slow or fails is not asked for a while, then tried (`mesh_filters.breaker`).

    type_url: mesh_proxy.filters.CircuitBreaker
    value:
      rules:
      - by: [call]                  # a breaker for each method; `when` chooses requests
        kind: slow_ratio            # or error_ratio, error_count
        threshold: 0.5              # share of slow responses or errors; number of errors for error_count
        slow: 200ms                 # what slow means
        window: 1s                  # in which is counted
        min_requests: 5
        open_for: 10s
        probes: 1
        grpc_errors: [2, 4, 13, 14, 15]
      status: 503

An error is an HTTP status of 500 or more (for Dubbo that which the Dubbo status stands for: an exception of the business is
none), a gRPC status of the list, or no answer. A rule per route is a configuration in the route's `typed_per_filter_config`: it
takes the place of the filter's own rules. What another filter refuses (rate limits, authorization) tells nothing of the service.

All workers share the state of a rule, and of the first SHARED_KEYS keys of one with `by`: what one of them finds broken none of
them asks, and one at a time probes. What is counted before a breaker opens is each worker's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.breaker import REFUSED, Breaker, BreakerRule, Kind
from mesh_filters.definition import FilterContext, FilterDefinition, FilterFactory
from mesh_filters.fields import Fields, rules_and_status
from mesh_filters.filter import (
    DOWNSTREAM_TERMINATED,
    RATE_LIMITED,
    UNAUTHORIZED,
    UPSTREAM_OVERFLOW,
    Filter,
    FilterStatus,
    Stream,
)
from mesh_filters.request_keys import MAX_KEYS, Keyed, check_condition, check_keys, condition_of, key_of
from mesh_filters.route_rules import RouteRules
from mesh_filters.shared_state import SharedKeys, refusal_status

TYPE: Final = "mesh_proxy.filters.CircuitBreaker"
GRPC_ERRORS: Final = (2, 4, 13, 14, 15)
"""UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerRule:
    """One rule."""

    name: str
    when: str = ""
    by: tuple[str | dict[str, Any], ...] = ()
    breaker: BreakerRule
    grpc_errors: frozenset[int] = frozenset(GRPC_ERRORS)
    max_keys: int = MAX_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    """All rules, of the filter or of a route; a request must pass each that concerns it."""

    rules: tuple[CircuitBreakerRule, ...]
    status: int = 503
    identity: str = field(default="", compare=False)
    """see `definition.FilterConfig`"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it waits for the outcome."""
        shared = _Shared(self, context)
        return lambda: CircuitBreakerFilter(shared)


class _Rule:
    """A rule, compiled."""

    __slots__ = ("breakers", "config", "key", "when")

    def __init__(self, rule: CircuitBreakerRule, context: FilterContext, identity: str, stats: Any) -> None:
        self.config = rule
        self.when = condition_of(rule.when)
        self.key = key_of(rule.by)
        shared = SharedKeys(context, f"{identity}|{rule.name}|{rule.breaker!r}")

        def make(key: bytes) -> Breaker:
            return Breaker(rule.breaker, shared.cells(key, 1)[0][0], stats)

        self.breakers: Keyed[Breaker] = Keyed(make, rule.max_keys, Breaker.is_closed)


class _Rules:
    """One configuration, compiled."""

    __slots__ = ("rules", "status")

    def __init__(self, config: CircuitBreakerConfig, context: FilterContext, stats: Any) -> None:
        self.rules = tuple(_Rule(one, context, config.identity, stats) for one in config.rules)
        self.status = config.status


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("context", "rules", "stats")

    def __init__(self, config: CircuitBreakerConfig, context: FilterContext) -> None:
        self.context = context
        stats = context.stats(
            context.stat_prefix + "circuit_breaker.", counters=("opened", "half_opened", "closed", "passed", "refused")
        )
        self.stats: Any = stats
        self.rules: RouteRules[CircuitBreakerConfig, _Rules] = RouteRules(
            config, context.name, lambda one: _Rules(one, context, stats)
        )


class CircuitBreakerFilter(Filter):
    """One request."""

    __slots__ = ("_asked", "_began", "_grpc_status", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._asked: list[tuple[_Rule, Breaker, int]] = []
        self._began = 0.0
        self._grpc_status: bytes | None = None

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Pass if all breakers let it."""
        shared = self._shared
        now = self._began = shared.context.now()
        rules = shared.rules.of(stream)
        for rule in rules.rules:
            if rule.when is None or rule.when(stream):
                breaker = rule.breakers.of(rule.key(stream))
                asked = breaker.ask(now)
                if asked == REFUSED:
                    self._abandon(now)
                    shared.stats.refused += 1
                    stream.send_local_reply(
                        rules.status,
                        b"circuit breaker is open",
                        details="circuit_breaker_open",
                        flag=UPSTREAM_OVERFLOW,
                        grpc_status=refusal_status(rules.status),
                    )
                    return FilterStatus.STOP
                self._asked.append((rule, breaker, asked))
        if self._asked:
            shared.stats.passed += 1
        return FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """A gRPC status may stand here."""
        self._grpc_status = event.headers.first.get(b"grpc-status")
        return FilterStatus.CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """Or here."""
        self._grpc_status = event.headers.first.get(b"grpc-status", self._grpc_status)
        return FilterStatus.CONTINUE

    def _abandon(self, now: float) -> None:
        for _, breaker, asked in self._asked:
            breaker.abandon(asked, now)
        self._asked.clear()

    def on_complete(self, stream: Stream) -> None:
        """Tell the breakers how it went."""
        if not self._asked:
            return
        now = self._shared.context.now()
        left = bool(stream.flags & DOWNSTREAM_TERMINATED)
        refused = bool(stream.flags & (RATE_LIMITED | UNAUTHORIZED))
        asked_nobody = not stream.first_upstream_tx_time
        took = now - self._began
        grpc = self._grpc_status
        for rule, breaker, asked in self._asked:
            slow = rule.config.breaker.kind is Kind.SLOW_RATIO
            if grpc is not None:
                error = not grpc.isdigit() or int(grpc) in rule.config.grpc_errors
            else:
                error = not 0 < stream.response_code < 500
            if refused or (asked_nobody and not error) or (left and not (slow and took > rule.config.breaker.slow_s)):
                breaker.abandon(asked, now)
            else:
                breaker.report(asked, took, error, now)
        self._asked.clear()


_BREAKER_FIELDS: Final = ("kind", "threshold", "slow", "window", "min_requests", "open_for", "probes")


def _rule(fields: Fields, number: int) -> CircuitBreakerRule:
    fields.only("name", "when", "by", "max_keys", "grpc_errors", *_BREAKER_FIELDS)
    kind = Kind(fields.choice("kind", *(one.value for one in Kind)))
    errors = fields.values.get("grpc_errors", GRPC_ERRORS)
    if not isinstance(errors, (list, tuple)) or not all(isinstance(one, int) and 0 <= one <= 16 for one in errors):
        raise fields.error("grpc_errors", "must be a list of gRPC statuses, 0 to 16")
    if fields.has("slow") is not (kind is Kind.SLOW_RATIO):
        raise fields.error("slow", "is required" if kind is Kind.SLOW_RATIO else "is for slow_ratio alone")
    return CircuitBreakerRule(
        name=fields.text("name", str(number)),
        when=check_condition(fields),
        by=check_keys(fields),
        breaker=BreakerRule(
            kind=kind,
            threshold=fields.number("threshold", high=1e9 if kind is Kind.ERROR_COUNT else 1.0),
            slow_s=fields.seconds("slow") if kind is Kind.SLOW_RATIO else 0.0,
            window_s=fields.seconds("window", 1.0, low=0.01),
            min_requests=fields.whole("min_requests", 5, low=1),
            open_s=fields.seconds("open_for", 10.0, low=0.001),
            probes=fields.whole("probes", 1, low=1, high=1000),
        ),
        grpc_errors=frozenset(errors),
        max_keys=fields.whole("max_keys", MAX_KEYS, low=1, high=1_000_000),
    )


def configure(values: Mapping[str, Any]) -> CircuitBreakerConfig:
    """The configuration from plain values."""
    rules, status = rules_and_status(values, _rule, 503)
    return CircuitBreakerConfig(rules=rules, status=status)


definition = FilterDefinition(type_url=TYPE, configure=configure, configure_route=configure)
