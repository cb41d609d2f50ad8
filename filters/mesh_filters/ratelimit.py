"""`envoy.filters.http.ratelimit`: a service of its own counts requests by their descriptors (Envoy: `http/ratelimit`).

The service is `envoy.service.ratelimit.v3.RateLimitService`. Descriptors come from `rate_limits` of the route, its virtual host,
the route's configuration of the filter, or the filter's own, which is where a Dubbo manager has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_filters.async_filter import guarded
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import RATE_LIMITED, Filter, FilterStatus, Stream
from mesh_filters.rate_limit_actions import CompiledRateLimit, Descriptor, RateLimitConfig
from mesh_filters.service import GrpcServiceConfig, ServiceError

SERVICE_ERROR: Final = 1 << 12
"""the response flag RLSE"""
METADATA: Final = "envoy.filters.http.ratelimit"
RESOURCE_EXHAUSTED: Final = 8
UNAVAILABLE: Final = 14
COUNTERS: Final = ("ok", "error", "over_limit", "failure_mode_allowed")
COMPILED: Final = 10_000
"""rate limits that are kept compiled; then it starts anew, as tables come and go"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalRateLimitConfig:
    """`RateLimit` of the filter."""

    domain: str
    service: GrpcServiceConfig
    stage: int = 0
    request_type: str = "both"
    timeout_s: float = 0.02
    failure_mode_deny: bool = False
    failure_mode_deny_percent: Any = None
    """share of the failures that deny; counts before `failure_mode_deny`"""
    resource_exhausted: bool = False
    x_ratelimit_headers: bool = False
    limited_header: bool = True
    """`x-envoy-ratelimited`"""
    status: int = 429
    status_on_error: int = 500
    response_headers: tuple[Any, ...] = ()
    """added to the refusal"""
    stat_prefix: str = ""
    enabled: Any = None
    """share of requests that are counted; None = all"""
    enforced: Any = None
    """share of the limited requests that are refused; None = all"""
    rate_limits: tuple[RateLimitConfig, ...] = ()

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it waits."""
        shared = Shared(self, context)
        return lambda: RateLimitFilter(shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitRouteConfig:
    """`RateLimitPerRoute`."""

    vh_rate_limits: str = "OVERRIDE"
    """`OVERRIDE`, `INCLUDE` or `IGNORE`"""
    rate_limits: tuple[RateLimitConfig, ...] = ()
    domain: str = ""


@dataclass(slots=True)
class Answer:
    """What the service said."""

    limited: bool
    request_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict)
    x_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """`x-ratelimit-*`"""


class Client(Protocol):
    """Asks the service."""

    async def ask(self, domain: str, descriptors: list[Descriptor]) -> Answer:
        """Raises ServiceError."""


class Shared:
    """What the filters of one chain share."""

    __slots__ = (
        "_clusters",
        "_compiled",
        "client",
        "config",
        "context",
        "deny_lot",
        "enabled",
        "enforced",
        "name",
        "own",
        "refusal",
    )

    def __init__(self, config: GlobalRateLimitConfig, context: FilterContext) -> None:
        from mesh_filters.ratelimit_grpc import GrpcClient  # protobuf, only for those who have the filter

        self.config = config
        self.context = context
        self.name = context.name
        self.client: Client = GrpcClient(config, context)
        self.own = tuple(CompiledRateLimit(one, context) for one in config.rate_limits)
        self.enabled = context.share(config.enabled) if config.enabled is not None else None
        self.enforced = context.share(config.enforced) if config.enforced is not None else None
        deny = config.failure_mode_deny_percent
        self.deny_lot = context.share(deny) if deny is not None else None
        self.refusal = context.header_changes(config.response_headers) if config.response_headers else None
        self._compiled: dict[int, tuple[RateLimitConfig, CompiledRateLimit]] = {}
        self._clusters: dict[str, Any] = {}

    def descriptors(self, stream: Stream, route: RateLimitRouteConfig | None) -> list[Descriptor]:
        """What the actions make of the request."""
        config = self.config
        if route is not None and route.rate_limits:
            limits: Any = [self._compile(one) for one in route.rate_limits]
        elif self.own:
            limits = self.own
        else:
            runtime = self.context.runtime
            limits = [
                self._compile(one)
                for one in stream.rate_limits(route.vh_rate_limits if route is not None else "OVERRIDE")
                if one.stage == config.stage
                and not (one.disable_key and runtime.get(f"ratelimit.{one.disable_key}.http_filter_enabled", 100) == 0)
            ]
        return [made for one in limits if (made := one.descriptor(stream)) is not None]

    def _compile(self, config: RateLimitConfig) -> CompiledRateLimit:
        found = self._compiled.get(id(config))
        if found is None or found[0] is not config:
            if len(self._compiled) >= COMPILED:
                self._compiled.clear()
            found = self._compiled[id(config)] = (config, CompiledRateLimit(config, self.context))
        return found[1]

    def stats(self, stream: Stream) -> Any:
        """Statistics of the cluster to which the request is going; on Dubbo without one, those of the manager."""
        prefix = self.context.cluster_stat_prefix(stream.target_cluster()) or self.context.stat_prefix
        stats = self._clusters.get(prefix)
        if stats is None:
            inner = f"{self.config.stat_prefix}." if self.config.stat_prefix else ""
            stats = self._clusters[prefix] = self.context.stats(f"{prefix}ratelimit.{inner}", counters=COUNTERS)
        return stats

    def denies_failures(self) -> bool:
        """Whether a request is refused when the service does not answer."""
        return self.deny_lot() if self.deny_lot is not None else self.config.failure_mode_deny


class RateLimitFilter(Filter):
    """One request."""

    __slots__ = ("_headers", "_refused", "_shared", "_task")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._task: Any = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._refused = False

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Ask, if there is anything to count."""
        shared = self._shared
        config = shared.config
        if config.request_type != "both" and stream.is_internal is not (config.request_type == "internal"):
            return FilterStatus.CONTINUE
        if shared.enabled is not None and not shared.enabled():
            return FilterStatus.CONTINUE
        if event.http_version != b"Dubbo" and not stream.target_cluster():
            return FilterStatus.CONTINUE  # nobody's request: no route, or one that does not forward
        route: RateLimitRouteConfig | None = stream.per_route_config(shared.name)
        descriptors = shared.descriptors(stream, route)
        if not descriptors:
            return FilterStatus.CONTINUE
        domain = route.domain if route is not None and route.domain else config.domain
        self._task = stream.start_task(guarded(stream, self._wait(stream, domain, descriptors)), "ratelimit")
        return FilterStatus.STOP

    async def _wait(self, stream: Stream, domain: str, descriptors: list[Descriptor]) -> None:
        shared = self._shared
        config = shared.config
        stats = shared.stats(stream)
        try:
            answer = await shared.client.ask(domain, descriptors)
        except ServiceError:
            self._task = None
            stats.error += 1
            if shared.denies_failures():
                stream.send_local_reply(config.status_on_error, details="rate_limiter_error", flag=SERVICE_ERROR)
                return
            stats.failure_mode_allowed += 1
            stream.continue_request(self)
            return
        self._task = None
        if answer.metadata:
            metadata = stream.dynamic_metadata
            if metadata is None:
                metadata = stream.dynamic_metadata = {}
            metadata[METADATA] = {**metadata.get(METADATA, {}), **answer.metadata}
        self._headers = answer.response_headers
        if config.x_ratelimit_headers:
            self._headers += answer.x_headers
        if not answer.limited:
            stats.ok += 1
            self._go_on(stream, answer)
            return
        stats.over_limit += 1
        if config.limited_header:
            self._headers.append((b"x-envoy-ratelimited", b"true"))
        if shared.enforced is not None and not shared.enforced():
            self._go_on(stream, answer)
            return
        self._refused = True
        stream.send_local_reply(
            config.status,
            answer.body or (b"rate limited" if stream.request.http_version == b"Dubbo" else b""),
            details="request_rate_limited",
            flag=RATE_LIMITED,
            grpc_status=RESOURCE_EXHAUSTED if config.resource_exhausted else UNAVAILABLE,
        )

    def _go_on(self, stream: Stream, answer: Answer) -> None:
        headers = stream.request.headers
        for name, value in answer.request_headers:
            headers.add(name, value)
        stream.continue_request(self)

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """What the service wants the caller to have."""
        headers = event.headers
        for name, value in self._headers:
            if self._refused and name == b"content-type":
                headers.set(name, value)
            else:
                headers.add(name, value)
        if self._refused and self._shared.refusal is not None:
            self._shared.refusal(headers, stream)
        return FilterStatus.CONTINUE

    def on_complete(self, stream: Stream) -> None:
        """Wait for nobody."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
