"""`envoy.filters.http.fault`: delays, aborts and slow responses for a share of the requests (Envoy: `http/fault`).

On Dubbo an abort is a response with the status SERVICE_ERROR, or with another one that Envoy's configuration has room for:

    filter_metadata: {dubbo_status: 31}          # of `mesh_codecs.dubbo.frame`: 31 is SERVER_TIMEOUT

or, where the fault comes from headers (`header_abort`), in the attachment `x-mesh-fault-dubbo-status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh_codecs.events import Data, RequestHeaders
from mesh_filters.definition import Cancellable, FilterContext, FilterFactory
from mesh_filters.filter import DELAY_INJECTED, FAULT_INJECTED, Filter, FilterStatus, Stream
from mesh_filters.response_rate import ResponseRate
from mesh_filters.route_rules import RouteRules

DUBBO_STATUSES: Final = frozenset({20, 25, 30, 31, 35, 40, 50, 60, 70, 80, 90, 100})
"""of `org.apache.dubbo.remoting.exchange.Response`; 20 is OK, with a null result"""
DELAY_HEADER: Final = b"x-envoy-fault-delay-request"
DELAY_SHARE_HEADER: Final = b"x-envoy-fault-delay-request-percentage"
ABORT_HEADER: Final = b"x-envoy-fault-abort-request"
ABORT_GRPC_HEADER: Final = b"x-envoy-fault-abort-grpc-request"
ABORT_SHARE_HEADER: Final = b"x-envoy-fault-abort-request-percentage"
RATE_HEADER: Final = b"x-envoy-fault-throughput-response"
RATE_SHARE_HEADER: Final = b"x-envoy-fault-throughput-response-percentage"
DUBBO_STATUS_HEADER: Final = b"x-mesh-fault-dubbo-status"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultShare:
    """A percentage: config of the worker's own fraction, and its parts for the header that may lower it."""

    numerator: int = 0
    denominator: int = 100
    runtime_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultConfig:
    """`HTTPFault`, for a filter and for a route."""

    delay_s: float | None = None
    """fixed delay; None = no delay, or that of the header"""
    delay_from_header: bool = False
    delay_share: FaultShare = FaultShare()
    delay_runtime: str = "fault.http.delay.fixed_duration_ms"
    abort_status: int = 0
    """fixed HTTP status; 0 = none"""
    abort_grpc_status: int | None = None
    abort_from_header: bool = False
    abort_share: FaultShare = FaultShare()
    abort_status_runtime: str = "fault.http.abort.http_status"
    abort_grpc_status_runtime: str = "fault.http.abort.grpc_status"
    dubbo_status: int | None = None
    """what aborted Dubbo calls get; None = SERVICE_ERROR"""
    rate_kbps: int | None = None
    """KiB per second of a response; None = no limit, or that of the header"""
    rate_from_header: bool = False
    rate_share: FaultShare = FaultShare()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """dynamic metadata of a request that gets a delay or an abort, under the filter's name"""
    upstream_cluster: str = ""
    """only requests for this cluster"""
    headers: tuple[Any, ...] = ()
    """matchers, all of which must match"""
    downstream_nodes: tuple[str, ...] = ()
    max_active_faults: int | None = None
    max_active_faults_runtime: str = "fault.http.max_active_faults"

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it may have a timer."""
        return _Factory(_Shared(self, context), self.slows)

    @property
    def idle(self) -> bool:
        """No fault but those of routes."""
        aborts = self.abort_status or self.abort_grpc_status is not None or self.abort_from_header
        return not (self.delay_s is not None or self.delay_from_header or aborts or self.slows)

    @property
    def slows(self) -> bool:
        """There may be slow responses."""
        return self.rate_kbps is not None or self.rate_from_header


class _Factory:
    """Makes filters without a hook for bodies unless a configuration asks for slow responses."""

    __slots__ = ("_shared", "_slow", "_slows")

    def __init__(self, shared: _Shared, slows: bool) -> None:
        self._shared = shared
        self._slows = slows
        self._slow: _Factory | None = None

    def __call__(self) -> FaultFilter:
        return SlowingFaultFilter(self._shared) if self._slows else FaultFilter(self._shared)

    def for_route(self, config: FaultConfig) -> FilterFactory:
        """See `definition.RouteDependent`."""
        if self._slows or not config.slows:
            return self
        if self._slow is None:
            self._slow = _Factory(self._shared, True)
        return self._slow


class _Rules:
    """One configuration, compiled."""

    __slots__ = ("config", "matches", "nodes")

    def __init__(self, config: FaultConfig, context: FilterContext) -> None:
        self.config = config
        self.matches = context.request_matcher(config.headers) if config.headers else None
        self.nodes = frozenset(node.encode() for node in config.downstream_nodes)


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("context", "rules", "stats")

    def __init__(self, config: FaultConfig, context: FilterContext) -> None:
        self.context = context
        self.rules: RouteRules[FaultConfig, _Rules] = RouteRules(config, context.name, lambda one: _Rules(one, context))
        self.stats = context.stats(
            context.stat_prefix + "fault.",
            counters=("delays_injected", "aborts_injected", "response_rl_injected", "faults_overflow"),
            gauges=("active_faults",),
        )

    def wins(self, share: FaultShare, lower: bytes | None) -> bool:
        """Draw a lot; a header may lower the share."""
        numerator, denominator = share.numerator, share.denominator
        value = self.context.runtime.get(share.runtime_key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            numerator, denominator = int(value), 100
        if lower is not None and lower.isdigit() and len(lower) < 10:
            numerator = min(numerator, int(lower))
        return numerator > 0 and self.context.random() * denominator < numerator


class FaultFilter(Filter):
    """The faults of one request."""

    __slots__ = ("_active", "_rules", "_shared", "_timer")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._rules = shared.rules.own
        self._timer: Cancellable | None = None
        self._active = False

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Delay, then abort."""
        shared = self._shared
        rules = self._rules = shared.rules.of(stream)
        config = rules.config
        if config.upstream_cluster and stream.target_cluster() != config.upstream_cluster:
            return FilterStatus.CONTINUE
        if rules.nodes and event.headers.get(b"x-envoy-downstream-service-node") not in rules.nodes:
            return FilterStatus.CONTINUE
        if rules.matches is not None and not rules.matches(event):
            return FilterStatus.CONTINUE
        self._slow_down(event)
        seconds = self._delay(event)
        if seconds and self._admitted():
            shared.stats.delays_injected += 1
            stream.flags |= DELAY_INJECTED
            self._tell(stream)
            self._timer = shared.context.call_later(seconds, self._delayed, stream)
            return FilterStatus.STOP
        return FilterStatus.STOP if self._abort(stream, event) else FilterStatus.CONTINUE

    def _slow_down(self, event: RequestHeaders) -> None:
        """Only where there is a hook for bodies."""

    def _tell(self, stream: Stream) -> None:
        metadata = self._rules.config.metadata
        if metadata:
            if stream.dynamic_metadata is None:
                stream.dynamic_metadata = {}
            stream.dynamic_metadata[self._shared.context.name] = dict(metadata)

    def _delay(self, event: RequestHeaders) -> float:
        config = self._rules.config
        shared = self._shared
        first = event.headers.first
        if config.delay_from_header:
            value = first.get(DELAY_HEADER)
            if value is None or not value.isdigit() or len(value) > 9:
                return 0.0
            return int(value) / 1000 if shared.wins(config.delay_share, first.get(DELAY_SHARE_HEADER)) else 0.0
        if config.delay_s is None or not shared.wins(config.delay_share, None):
            return 0.0
        milliseconds = shared.context.runtime.get(config.delay_runtime)
        return milliseconds / 1000 if isinstance(milliseconds, int) else config.delay_s

    def _delayed(self, stream: Stream) -> None:
        self._timer = None
        if not self._abort(stream, stream.request):
            stream.continue_request(self)

    def _abort(self, stream: Stream, event: RequestHeaders) -> bool:
        config = self._rules.config
        shared = self._shared
        status, grpc_status = config.abort_status, config.abort_grpc_status
        lower: bytes | None = None
        if config.abort_from_header:
            first = event.headers.first
            lower = first.get(ABORT_SHARE_HEADER)
            value, grpc_value = first.get(ABORT_HEADER), first.get(ABORT_GRPC_HEADER)
            if value is not None and value.isdigit() and len(value) == 3 and 200 <= int(value) < 600:
                status = int(value)
            elif grpc_value is not None and grpc_value.isdigit() and len(grpc_value) < 3:
                grpc_status = int(grpc_value)
        elif status:
            status = _integer(shared.context.runtime.get(config.abort_status_runtime), status)
        elif grpc_status is not None:
            grpc_status = _integer(shared.context.runtime.get(config.abort_grpc_status_runtime), grpc_status)
        if (not status and grpc_status is None) or not shared.wins(config.abort_share, lower) or not self._admitted():
            return False
        shared.stats.aborts_injected += 1
        self._tell(stream)
        stream.send_local_reply(
            status or 200,  # also for a plain HTTP caller when a gRPC status is configured
            b"fault filter abort",
            details="fault_filter_abort",
            flag=FAULT_INJECTED,
            grpc_status=grpc_status,
            dubbo_status=self._dubbo_status(event),
        )
        return True

    def _dubbo_status(self, event: RequestHeaders) -> int | None:
        config = self._rules.config
        if config.abort_from_header:
            asked = event.headers.first.get(DUBBO_STATUS_HEADER)
            if asked is not None and asked.isdigit() and int(asked) in DUBBO_STATUSES:
                return int(asked)
        return config.dubbo_status

    def _admitted(self) -> bool:
        """Whether one more request may be under a fault."""
        if self._active:
            return True
        shared = self._shared
        config = self._rules.config
        limit = _integer(shared.context.runtime.get(config.max_active_faults_runtime), config.max_active_faults)
        if limit is not None and shared.stats.active_faults >= limit:
            shared.stats.faults_overflow += 1
            return False
        shared.stats.active_faults += 1
        self._active = True
        return True

    def on_complete(self, stream: Stream) -> None:
        """No fault for nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._active:
            self._active = False
            self._shared.stats.active_faults -= 1


class SlowingFaultFilter(FaultFilter):
    """With slow responses."""

    __slots__ = ("_rate",)

    def __init__(self, shared: _Shared) -> None:
        super().__init__(shared)
        self._rate: ResponseRate | None = None

    def _slow_down(self, event: RequestHeaders) -> None:
        config, shared = self._rules.config, self._shared
        if not config.slows:
            return
        kbps, lower = config.rate_kbps, None
        if config.rate_from_header:
            first = event.headers.first
            value, lower = first.get(RATE_HEADER), first.get(RATE_SHARE_HEADER)
            kbps = int(value) if value is not None and value.isdigit() and len(value) < 10 else None
        if kbps and shared.wins(config.rate_share, lower) and self._admitted():
            shared.stats.response_rl_injected += 1
            self._rate = ResponseRate(kbps, shared.context, self)

    def on_response_data(self, stream: Stream, event: Data) -> FilterStatus:
        """At the rate."""
        return FilterStatus.CONTINUE if self._rate is None else self._rate.on_data(stream, event)

    def on_complete(self, stream: Stream) -> None:
        """No fault for nobody."""
        if self._rate is not None:
            self._rate.stop()
        super().on_complete(stream)


def _integer(value: Any, default: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
