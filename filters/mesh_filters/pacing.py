"""Pacing and warm-up of requests: Sentinel's flow rules (`ThrottlingController`, `WarmUpController`) as a filter.

    type_url: mesh_proxy.filters.Pacing
    value:
      rules:
      - when: header user-agent contains robot   # every request without it
        by: [call]                               # a rate for each method; none: one for all
        rate: 100                                # requests per second
        max_wait: 0.5s                           # requests are spaced evenly and wait in a queue up to so long
        warm_up: 10s                             # a cold service gets a third of the rate, and more every second
        cold_factor: 3

With `max_wait` a request passes at the earliest 1 / rate seconds after the one before it; it waits for its moment, or is refused
with `status` (429) when that is further away than `max_wait` (0s: it never waits). Without `max_wait` requests pass as they
come, as many in a second as the rate allows.

Warm-up keeps a store of tokens that fills with `rate` tokens a second while less than rate / cold_factor requests pass, and from
which those of each second are taken. Above the warning line it slows requests down:

    warning = warm_up * rate / (cold_factor - 1)
    full    = warning + 2 * warm_up * rate / (1 + cold_factor)
    slope   = (cold_factor - 1) / rate / (full - warning)
    allowed = 1 / ((stored - warning) * slope + 1 / rate)

All workers of the sidecar share a rule without `by`; with it, and with the first keys of it, likewise: the state is a few
numbers in shared memory. A race of two workers costs one update, that is one request too many. Beyond SHARED_KEYS keys states
are those of the worker, which then lets its share of the rate through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext, FilterDefinition, FilterFactory
from mesh_filters.fields import Fields, rules_and_status
from mesh_filters.filter import FilterStatus, Stream
from mesh_filters.request_keys import MAX_KEYS, Keyed, check_condition, check_keys, condition_of, key_of
from mesh_filters.shared_state import SharedKeys
from mesh_filters.token_bucket import Cell
from mesh_filters.waiting_line import SOONEST_S, Waiting, WaitingRules

TYPE: Final = "mesh_proxy.filters.Pacing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingRule:
    """One rule."""

    name: str
    when: str = ""
    by: tuple[str | dict[str, Any], ...] = ()
    rate: float
    """requests per second"""
    max_wait_s: float | None = None
    """None: requests are not spaced"""
    warm_up_s: float = 0.0
    """0: none"""
    cold_factor: float = 3.0
    max_keys: int = MAX_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """All rules; a request must pass each that concerns it."""

    rules: tuple[PacingRule, ...]
    status: int = 429
    identity: str = field(default="", compare=False)
    """see `definition.FilterConfig`"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it may wait."""
        rules = tuple(_Rule(one, context, self.identity) for one in self.rules)
        shared = WaitingRules(context, "pacing", "pacing_refused", rules, self.status)
        return lambda: PacingFilter(shared)


class WarmUp:
    """How many requests a second may pass now. Sentinel's `WarmUpController`; the state is shared by its cells."""

    __slots__ = ("_cold_rate", "_filled", "_full", "_line", "_rate", "_slope", "_stored")

    def __init__(self, rate: float, warm_up_s: float, cold_factor: float, stored: Cell, filled: Cell) -> None:
        self._rate = rate
        self._cold_rate = rate / cold_factor
        self._line = warm_up_s * rate / (cold_factor - 1)
        self._full = self._line + 2 * warm_up_s * rate / (1 + cold_factor)
        self._slope = (cold_factor - 1) / rate / (self._full - self._line)
        self._stored = stored
        """tokens"""
        self._filled = filled
        """the whole second up to which it was filled; 0 at the start, which makes a full store"""

    def allowed(self, second: float, passed_before: float) -> float:
        """Requests a second. `second` is the running one, a whole number; `passed_before` those of the one before it."""
        stored = self._stored.get()
        filled = self._filled.get()
        if second > filled:
            if stored < self._line or (stored > self._line and passed_before < self._cold_rate):
                stored = min(self._full, stored + (second - filled) * self._rate)
            stored = max(0.0, stored - passed_before)
            self._stored.set(stored)
            self._filled.set(second)
        if stored < self._line:
            return self._rate
        return 1.0 / ((stored - self._line) * self._slope + 1.0 / self._rate)


class Pace:
    """The state of a rule, or of one of its keys. Times are monotonic seconds."""

    __slots__ = ("_before", "_count", "_latest", "_max_wait", "_rate", "_second", "_warm_up")

    def __init__(self, rule: PacingRule, cells: list[Cell], share: int = 1) -> None:
        """`cells` are six numbers; `share` is how many workers share the rate without sharing the cells."""
        self._rate = rule.rate / share
        self._max_wait = rule.max_wait_s
        self._latest, self._second, self._count, self._before, stored, filled = cells
        self._warm_up = WarmUp(self._rate, rule.warm_up_s, rule.cold_factor, stored, filled) if rule.warm_up_s else None

    def _passed_before(self, second: float) -> float:
        """Requests that passed in the second before; begins to count a new one."""
        known = self._second.get()
        if known != second:
            self._before.set(self._count.get() if known == second - 1 else 0.0)
            self._count.set(0.0)
            self._second.set(second)
        return self._before.get()

    def ask(self, now: float) -> float | None:
        """Seconds that a request has to wait; None: it is refused."""
        warm_up = self._warm_up
        rate = self._rate
        if warm_up is not None or self._max_wait is None:
            second = float(int(now))
            before = self._passed_before(second)
            if warm_up is not None:
                rate = warm_up.allowed(second, before)
        wait = 0.0
        if self._max_wait is None:
            if self._count.get() + 1 > rate + 1e-9:
                return None
        else:
            moment = self._latest.get() + 1.0 / rate
            if moment <= now:
                moment = now
            wait = moment - now
            if wait > self._max_wait + 1e-9:
                return None
            self._latest.set(moment)
        if warm_up is not None or self._max_wait is None:
            self._count.set(self._count.get() + 1)
        return wait


class _Rule:
    """A rule, compiled."""

    __slots__ = ("key", "paces", "when")

    def __init__(self, rule: PacingRule, context: FilterContext, identity: str) -> None:
        self.when = condition_of(rule.when)
        self.key = key_of(rule.by)
        shared = SharedKeys(context, f"{identity}|{rule.name}|{rule.rate}|{rule.warm_up_s}")

        def make(key: bytes) -> Pace:
            cells, share = shared.cells(key, 6)
            return Pace(rule, cells, share)

        self.paces: Keyed[Pace] = Keyed(make, rule.max_keys)


class PacingFilter(Waiting[_Rule]):
    """One request."""

    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Pass, wait or refuse."""
        shared = self._shared
        now = shared.context.now()
        longest = 0.0
        for rule in shared.rules:
            if rule.when is None or rule.when(stream):
                wait = rule.paces.of(rule.key(stream)).ask(now)
                if wait is None:
                    return shared.refuse(stream)
                if wait > longest:
                    longest = wait
        if longest <= SOONEST_S:
            shared.stats.passed += 1
            return FilterStatus.CONTINUE
        return self.wait(now + longest, stream)


def _rule(fields: Fields, number: int) -> PacingRule:
    fields.only("name", "when", "by", "rate", "max_wait", "warm_up", "cold_factor", "max_keys")
    return PacingRule(
        name=fields.text("name", str(number)),
        when=check_condition(fields),
        by=check_keys(fields),
        rate=fields.number("rate", low=0.001, high=1e9),
        max_wait_s=fields.seconds("max_wait", high=60.0) if fields.has("max_wait") else None,
        warm_up_s=fields.seconds("warm_up", 0.0),
        cold_factor=fields.number("cold_factor", 3.0, low=1.01, high=1000.0),
        max_keys=fields.whole("max_keys", MAX_KEYS, low=1, high=1_000_000),
    )


def configure(values: Mapping[str, Any]) -> PacingConfig:
    """The configuration from plain values."""
    rules, status = rules_and_status(values, _rule, 429)
    return PacingConfig(rules=rules, status=status)


definition = FilterDefinition(type_url=TYPE, configure=configure)
