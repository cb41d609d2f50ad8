"""Limits for each value of a parameter: Sentinel's hot-parameter rules (`ParamFlowChecker`) as a filter.

    type_url: mesh_proxy.filters.HotParameters
    value:
      rules:
      - when: path startswith /orders            # every request without it
        by: [{header: user-id}]                  # attachment of a Dubbo call; cookie, query, claim, `caller`, …
        rate: 5                                  # requests per second for one value
        burst: 10                                # at once, after a pause; `rate` without it
        values: {vip: 100, crawler: 0.1}         # other rates for some values
        max_wait: 0.2s                           # space them evenly instead and let them wait (no burst then)

Each value has a token bucket, or with `max_wait` a leaky one. Buckets lie in shared memory, so that the limit of a value is
exact however its requests are spread over the workers. There is room for some ten thousand values; when it gets short the one
goes whose bucket has been filling the longest. A bucket that is full is like a new one, so only values with a very low rate
may lose anything. Requests without the value are not limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext, FilterDefinition, FilterFactory, ValueTable
from mesh_filters.fields import Fields, rules_and_status
from mesh_filters.filter import FilterStatus, Stream
from mesh_filters.request_keys import check_condition, check_keys, condition_of, key_of
from mesh_filters.token_bucket import RACES, SPARE
from mesh_filters.waiting_line import SOONEST_S, Waiting, WaitingRules

TYPE: Final = "mesh_proxy.filters.HotParameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class HotParameterRule:
    """One rule."""

    name: str
    by: tuple[str | dict[str, Any], ...]
    when: str = ""
    rate: float
    burst: float
    values: tuple[tuple[bytes, float], ...] = ()
    """rates of single values"""
    max_wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HotParametersConfig:
    """All rules; a request must pass each that concerns it."""

    rules: tuple[HotParameterRule, ...]
    status: int = 429
    identity: str = field(default="", compare=False)
    """see `definition.FilterConfig`"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it may wait."""
        rules = tuple(_Rule(one, context, self.identity) for one in self.rules)
        shared = WaitingRules(context, "hot_parameters", "hot_parameter_refused", rules, self.status)
        return lambda: HotParametersFilter(shared)


class _Rule:
    """A rule, compiled. What the table holds of a value is the moment from which on its bucket has been filling, see
    `mesh_filters.token_bucket`; with `max_wait` the moment of the last request."""

    __slots__ = ("_burst", "_max_wait", "_name", "_rate", "_rates", "_table", "key", "when")

    def __init__(self, rule: HotParameterRule, context: FilterContext, identity: str) -> None:
        self.when = condition_of(rule.when)
        self.key = key_of(rule.by)
        self._table: ValueTable = context.value_table()
        self._name = f"{identity}|{rule.name}|".encode()
        self._rate = rule.rate
        self._burst = rule.burst
        self._rates = dict(rule.values)
        self._max_wait = rule.max_wait_s

    def ask(self, value: bytes, now: float) -> float | None:
        """Seconds that a request with this value has to wait; None: it is refused."""
        rate = self._rates.get(value)
        if rate is None:
            rate, burst = self._rate, self._burst
        else:
            burst = max(1.0, rate)
        if not rate:
            return None
        table = self._table
        place = table.place(self._name + value)
        period = 1.0 / rate
        wait = 0.0
        for _ in range(RACES):
            since = table.get(place)
            if self._max_wait is not None:
                after = max(now, since + period)
                wait = after - now
                if wait > self._max_wait + 1e-9:
                    return None
            else:
                after = max(since, now - burst * period) + period
                if after > now + 1e-9:
                    return None
            if table.replace(place, since, after):
                return wait
        return wait if self._max_wait is not None or now - after >= min(SPARE, burst - 1.0) * period else None


class HotParametersFilter(Waiting[_Rule]):
    """One request."""

    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Pass, wait or refuse."""
        shared = self._shared
        now = shared.context.now()
        longest = 0.0
        for rule in shared.rules:
            if rule.when is None or rule.when(stream):
                value = rule.key(stream)
                if not value:
                    continue
                wait = rule.ask(value, now)
                if wait is None:
                    return shared.refuse(stream)
                if wait > longest:
                    longest = wait
        if longest <= SOONEST_S:
            shared.stats.passed += 1
            return FilterStatus.CONTINUE
        return self.wait(now + longest, stream)


def _rule(fields: Fields, number: int) -> HotParameterRule:
    fields.only("name", "when", "by", "rate", "burst", "values", "max_wait")
    by = check_keys(fields)
    if not by:
        raise fields.error("by", "is required")
    rate = fields.number("rate", low=0.001, high=1e9)
    values = fields.sub("values")
    if fields.has("burst") and fields.has("max_wait"):
        raise fields.error("burst", "cannot be given together with max_wait")
    return HotParameterRule(
        name=fields.text("name", str(number)),
        when=check_condition(fields),
        by=by,
        rate=rate,
        burst=max(1.0, fields.number("burst", rate, low=0.001, high=1e9)),
        values=tuple((key.encode(), values.number(key, high=1e9)) for key in values.values),
        max_wait_s=fields.seconds("max_wait", high=60.0) if fields.has("max_wait") else None,
    )


def configure(values: Mapping[str, Any]) -> HotParametersConfig:
    """The configuration from plain values."""
    rules, status = rules_and_status(values, _rule, 429)
    return HotParametersConfig(rules=rules, status=status)


definition = FilterDefinition(type_url=TYPE, configure=configure)
