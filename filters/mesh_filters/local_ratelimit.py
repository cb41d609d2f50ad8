"""`envoy.filters.http.local_ratelimit`: token buckets of this sidecar (Envoy: `http/local_ratelimit`, `common/local_ratelimit`).

The buckets are shared by all workers, as Envoy's are by its threads; with `local_rate_limit_per_downstream_connection` each
connection has its own. The runtime value `mesh_proxy.local_ratelimit.<stat_prefix>.per_worker` gives each worker buckets of
its own, so that the sidecar lets through as many times the rate as it has workers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import RATE_LIMITED, Filter, FilterStatus, Stream
from mesh_filters.rate_limit_actions import CompiledRateLimit, Descriptor, RateLimitConfig
from mesh_filters.route_rules import Compiled, RouteRules
from mesh_filters.token_bucket import LocalCell, TokenBucket

RESOURCE_EXHAUSTED: Final = 8
UNAVAILABLE: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketConfig:
    """`TokenBucket`."""

    max_tokens: int
    tokens_per_fill: int = 1
    fill_interval_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDescriptorConfig:
    """`LocalRateLimitDescriptor`; an empty value stands for any, each with a bucket of its own."""

    entries: tuple[tuple[str, str], ...]
    bucket: BucketConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRateLimitConfig:
    """`LocalRateLimit`, for the filter and for a route."""

    stat_prefix: str
    status: int = 429
    bucket: BucketConfig | None = None
    enabled: Any = None
    """share of requests that are counted; None = none"""
    enforced: Any = None
    """share of the limited requests that are refused; None = none"""
    request_headers: tuple[Any, ...] = ()
    """added when a limited request goes on because it is not enforced"""
    response_headers: tuple[Any, ...] = ()
    """added to the refusal"""
    descriptors: tuple[LocalDescriptorConfig, ...] = ()
    rate_limits: tuple[RateLimitConfig, ...] = ()
    """instead of those of the route"""
    stage: int = 0
    per_connection: bool = False
    x_ratelimit_headers: bool = False
    vh_rate_limits: str = "OVERRIDE"
    always_consume_default: bool = True
    resource_exhausted: bool = False
    max_dynamic_descriptors: int = 20
    identity: str = field(default="", compare=False)
    """what tells this configuration's buckets from others, the same in all workers"""

    @property
    def idle(self) -> bool:
        """No limit but those of routes."""
        return self.enabled is None

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: the response may tell of the request's bucket."""
        shared = _Shared(self, context)
        return lambda: LocalRateLimitFilter(shared)


class _Limiter:
    """The buckets of one configuration: for all workers, or of one connection."""

    __slots__ = ("_config", "_default", "_dynamic", "_exact", "_make", "_patterns")

    def __init__(self, config: LocalRateLimitConfig, cell: Callable[[str], Any]) -> None:
        self._config = config

        def make(one: BucketConfig, name: str) -> TokenBucket:
            rate = one.tokens_per_fill / one.fill_interval_s
            return TokenBucket(one.max_tokens, rate, cell(f"{config.identity}|{name}|{one.max_tokens}|{rate}"))

        self._make = make
        self._default = make(config.bucket, "default") if config.bucket is not None else None
        self._exact: dict[Descriptor, TokenBucket] = {}
        self._patterns: list[LocalDescriptorConfig] = []
        self._dynamic: OrderedDict[Descriptor, TokenBucket] = OrderedDict()
        for one in config.descriptors:
            if all(value for _, value in one.entries):
                self._exact[one.entries] = make(one.bucket, repr(one.entries))
            else:
                self._patterns.append(one)

    def _find(self, descriptor: Descriptor) -> TokenBucket | None:
        bucket = self._exact.get(descriptor)
        if bucket is not None or not self._patterns:
            return bucket
        bucket = self._dynamic.get(descriptor)
        if bucket is not None:
            self._dynamic.move_to_end(descriptor)
            return bucket
        for pattern in self._patterns:
            if len(pattern.entries) == len(descriptor) and all(
                key == own_key and (not own_value or value == own_value)
                for (key, value), (own_key, own_value) in zip(descriptor, pattern.entries, strict=True)
            ):
                bucket = self._dynamic[descriptor] = self._make(pattern.bucket, repr(descriptor))
                if len(self._dynamic) > self._config.max_dynamic_descriptors:
                    self._dynamic.popitem(last=False)
                return bucket
        return None

    def ask(self, descriptors: list[tuple[Descriptor, int]], now: float) -> tuple[bool, TokenBucket | None]:
        """Whether a request with these descriptors and what they cost may pass, and the bucket that its headers tell of."""
        matched = [(bucket, hits) for one, hits in descriptors if (bucket := self._find(one)) is not None]
        if len(matched) > 1:
            matched.sort(key=_rate)  # the strictest first
        for bucket, hits in matched:
            if not hits or not bucket.take(now, hits):  # Envoy refuses what costs nothing
                return False, bucket
        default = self._default
        if default is not None and (not matched or self._config.always_consume_default) and not default.take(now):
            return False, default
        return True, matched[0][0] if matched else default


def _rate(matched: tuple[TokenBucket, int]) -> float:
    return matched[0].rate


class _Rules:
    """One configuration, compiled."""

    __slots__ = ("config", "enabled", "enforced", "key", "limiter", "rate_limits", "refusal_headers", "request_headers", "stats")

    def __init__(self, config: LocalRateLimitConfig, context: FilterContext) -> None:
        self.config = config
        self.enabled: Callable[[], bool] = context.share(config.enabled) if config.enabled is not None else lambda: False
        self.enforced: Callable[[], bool] = context.share(config.enforced) if config.enforced is not None else lambda: False
        self.request_headers = context.header_changes(config.request_headers) if config.request_headers else None
        self.refusal_headers = context.header_changes(config.response_headers) if config.response_headers else None
        self.rate_limits = tuple(CompiledRateLimit(one, context) for one in config.rate_limits)
        per_worker = context.runtime.get(f"mesh_proxy.local_ratelimit.{config.stat_prefix}.per_worker") is True
        self.limiter = _Limiter(config, _local_cell if per_worker else context.shared_cell)
        self.key = ("local_ratelimit", config.identity)
        self.stats = context.stats(
            f"{config.stat_prefix}.http_local_rate_limit.", counters=("enabled", "enforced", "rate_limited", "ok")
        )

    def limiter_of(self, stream: Stream) -> _Limiter:
        """The buckets for a request."""
        if not self.config.per_connection:
            return self.limiter
        state = stream.connection.filter_state
        found = state.get(self.key)
        if found is None or found._config != self.config:
            found = state[self.key] = _Limiter(self.config, _local_cell)
        limiter: _Limiter = found
        return limiter


def _local_cell(name: str) -> LocalCell:
    return LocalCell()


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("_compiled", "context", "rules")

    def __init__(self, config: LocalRateLimitConfig, context: FilterContext) -> None:
        self.context = context
        self.rules: RouteRules[LocalRateLimitConfig, _Rules] = RouteRules(config, context.name, lambda one: _Rules(one, context))
        self._compiled: Compiled[RateLimitConfig, CompiledRateLimit] = Compiled(lambda one: CompiledRateLimit(one, context))

    def descriptors(self, stream: Stream, rules: _Rules) -> list[tuple[Descriptor, int]]:
        """What the actions make of the request, and what it costs."""
        config = rules.config
        if not config.descriptors:
            return []
        limits: Any = rules.rate_limits
        if not limits:
            limits = [self._compiled.of(one) for one in stream.rate_limits(config.vh_rate_limits) if one.stage == config.stage]
        return [
            (made, hits)
            for one in limits
            if (made := one.descriptor(stream)) is not None and (hits := one.hits(stream)) is not None
        ]


class LocalRateLimitFilter(Filter):
    """One request."""

    __slots__ = ("_bucket", "_refused", "_rules", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._rules = shared.rules.own
        self._bucket: TokenBucket | None = None
        self._refused = False

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Take tokens."""
        shared = self._shared
        rules = self._rules = shared.rules.of(stream)
        if not rules.enabled():
            return FilterStatus.CONTINUE
        stats = rules.stats
        stats.enabled += 1
        allowed, bucket = rules.limiter_of(stream).ask(shared.descriptors(stream, rules), shared.context.now())
        if rules.config.x_ratelimit_headers:
            self._bucket = bucket
        if allowed:
            stats.ok += 1
            return FilterStatus.CONTINUE
        stats.rate_limited += 1
        if not rules.enforced():
            if rules.request_headers is not None:
                rules.request_headers(event.headers, stream)
            return FilterStatus.CONTINUE
        stats.enforced += 1
        self._refused = True
        stream.send_local_reply(
            rules.config.status,
            b"local_rate_limited",
            details="local_rate_limited",
            flag=RATE_LIMITED,
            grpc_status=RESOURCE_EXHAUSTED if rules.config.resource_exhausted else UNAVAILABLE,
        )
        return FilterStatus.STOP

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Tell how much is left."""
        if self._refused and self._rules.refusal_headers is not None:
            self._rules.refusal_headers(event.headers, stream)
        bucket = self._bucket
        if bucket is not None:
            now = self._shared.context.now()
            headers = event.headers
            left = bucket.remaining(now)
            headers.set(b"x-ratelimit-limit", b"%d" % bucket.size)
            headers.set(b"x-ratelimit-remaining", b"%d" % left)
            headers.set(b"x-ratelimit-reset", b"%d" % ((bucket.size - left) / bucket.rate))
        return FilterStatus.CONTINUE
