"""At most so many requests under way: per rule, or for each route, method, caller or other value of the request.

    type_url: mesh_proxy.filters.ConcurrencyLimit
    value:
      rules:
      - {max: 200}                               # of everything that passes here
      - {by: [call], max: 50}                    # of each method
      - {when: method == POST, by: [caller], max: 5}
      status: 503

All workers share a rule without `by`, and the first SHARED_KEYS keys of one with it: each writes how many it has under way,
and adds up. Two workers that admit at the same moment may exceed the limit by one; what a worker that died had under way is
forgotten when its replacement uses the key for the first time. While a listener is replaced, its old requests are not counted
with its new ones. Of later keys each worker admits its share of the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext, FilterDefinition, FilterFactory
from mesh_filters.fields import Fields, rules_and_status
from mesh_filters.filter import RATE_LIMITED, Filter, FilterStatus, Stream
from mesh_filters.request_keys import MAX_KEYS, Keyed, check_condition, check_keys, condition_of, key_of
from mesh_filters.shared_state import SharedKeys, refusal_status
from mesh_filters.token_bucket import Cell

TYPE: Final = "mesh_proxy.filters.ConcurrencyLimit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyRule:
    """One rule."""

    name: str
    when: str = ""
    by: tuple[str | dict[str, Any], ...] = ()
    most: int
    """requests under way"""
    max_keys: int = MAX_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimitConfig:
    """All rules; a request must pass each that concerns it."""

    rules: tuple[ConcurrencyRule, ...]
    status: int = 503
    identity: str = field(default="", compare=False)
    """see `definition.FilterConfig`"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it counts until the stream is over."""
        shared = _Shared(self, context)
        return lambda: ConcurrencyLimitFilter(shared)


class Count:
    """Requests under way for one key."""

    __slots__ = ("_cell", "_most", "_others", "own")

    def __init__(self, most: int, cell: Cell, others: tuple[Cell, ...]) -> None:
        self._most = most
        self._cell = cell
        self._others = others
        self.own = 0
        """of this worker"""
        cell.set(0.0)

    def enter(self) -> bool:
        """One more, if there is room."""
        under_way = self.own
        for other in self._others:
            under_way += int(other.get())
        if under_way >= self._most:
            return False
        self.own += 1
        self._cell.set(self.own)
        return True

    def leave(self) -> None:
        """One less."""
        self.own -= 1
        self._cell.set(self.own)


class _Rule:
    """A rule, compiled."""

    __slots__ = ("counts", "key", "when")

    def __init__(self, rule: ConcurrencyRule, context: FilterContext, identity: str) -> None:
        self.when = condition_of(rule.when)
        self.key = key_of(rule.by)
        shared = SharedKeys(context, f"{identity}|{rule.name}|under way")

        def make(key: bytes) -> Count:
            cells, share = shared.cells(key, context.workers)
            own = cells.pop(context.worker_index)
            return Count(-(-rule.most // share), own, tuple(cells) if share == 1 else ())

        self.counts: Keyed[Count] = Keyed(make, rule.max_keys, lambda count: not count.own)


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("config", "rules", "stats")

    def __init__(self, config: ConcurrencyLimitConfig, context: FilterContext) -> None:
        self.config = config
        self.rules = tuple(_Rule(one, context, config.identity) for one in config.rules)
        self.stats: Any = context.stats(
            context.stat_prefix + "concurrency_limit.", counters=("passed", "refused"), gauges=("active",)
        )


class ConcurrencyLimitFilter(Filter):
    """One request."""

    __slots__ = ("_entered", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._entered: list[Count] = []

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Count it in every rule, or refuse it."""
        shared = self._shared
        for rule in shared.rules:
            if rule.when is None or rule.when(stream):
                count = rule.counts.of(rule.key(stream))
                if not count.enter():
                    self._leave()
                    shared.stats.refused += 1
                    status = shared.config.status
                    stream.send_local_reply(
                        status,
                        b"too many requests under way",
                        details="concurrency_limit_refused",
                        flag=RATE_LIMITED,
                        grpc_status=refusal_status(status),
                    )
                    return FilterStatus.STOP
                self._entered.append(count)
        if self._entered:
            shared.stats.passed += 1
            shared.stats.active += 1
        return FilterStatus.CONTINUE

    def _leave(self) -> None:
        for count in self._entered:
            count.leave()
        self._entered.clear()

    def on_complete(self, stream: Stream) -> None:
        """It is over."""
        if self._entered:
            self._shared.stats.active -= 1
            self._leave()


def _rule(fields: Fields, number: int) -> ConcurrencyRule:
    fields.only("name", "when", "by", "max", "max_keys")
    return ConcurrencyRule(
        name=fields.text("name", str(number)),
        when=check_condition(fields),
        by=check_keys(fields),
        most=fields.whole("max", low=1),
        max_keys=fields.whole("max_keys", MAX_KEYS, low=1, high=1_000_000),
    )


def configure(values: Mapping[str, Any]) -> ConcurrencyLimitConfig:
    """The configuration from plain values."""
    rules, status = rules_and_status(values, _rule, 503)
    return ConcurrencyLimitConfig(rules=rules, status=status)


definition = FilterDefinition(type_url=TYPE, configure=configure)
