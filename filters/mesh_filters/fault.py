"""`envoy.filters.http.fault`: delays and aborts for a share of the requests (Envoy: `http/fault/fault_filter.cc`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import Cancellable, FilterContext, FilterFactory
from mesh_filters.filter import DELAY_INJECTED, FAULT_INJECTED, Filter, FilterStatus, Stream
from mesh_filters.route_rules import RouteRules

DELAY_HEADER: Final = b"x-envoy-fault-delay-request"
DELAY_SHARE_HEADER: Final = b"x-envoy-fault-delay-request-percentage"
ABORT_HEADER: Final = b"x-envoy-fault-abort-request"
ABORT_GRPC_HEADER: Final = b"x-envoy-fault-abort-grpc-request"
ABORT_SHARE_HEADER: Final = b"x-envoy-fault-abort-request-percentage"


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
    upstream_cluster: str = ""
    """only requests for this cluster"""
    headers: tuple[Any, ...] = ()
    """matchers, all of which must match"""
    downstream_nodes: tuple[str, ...] = ()
    max_active_faults: int | None = None
    max_active_faults_runtime: str = "fault.http.max_active_faults"

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it may have a timer."""
        shared = _Shared(self, context)
        return lambda: FaultFilter(shared)


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
        seconds = self._delay(event)
        if seconds and self._admitted():
            shared.stats.delays_injected += 1
            stream.flags |= DELAY_INJECTED
            self._timer = shared.context.call_later(seconds, self._delayed, stream)
            return FilterStatus.STOP
        return FilterStatus.STOP if self._abort(stream, event) else FilterStatus.CONTINUE

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
        stream.send_local_reply(
            status or 200,  # also for a plain HTTP caller when a gRPC status is configured
            b"fault filter abort",
            details="fault_filter_abort",
            flag=FAULT_INJECTED,
            grpc_status=grpc_status,
        )
        return True

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


def _integer(value: Any, default: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
