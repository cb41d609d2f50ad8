"""Response flags: why a response is what it is, as bits and in Envoy's short names (advanced/substitution_formatter)."""

from __future__ import annotations

from typing import Final

NO_HEALTHY_UPSTREAM: Final = 1 << 0
UPSTREAM_REQUEST_TIMEOUT: Final = 1 << 1
LOCAL_RESET: Final = 1 << 2
UPSTREAM_REMOTE_RESET: Final = 1 << 3
UPSTREAM_CONNECTION_FAILURE: Final = 1 << 4
UPSTREAM_CONNECTION_TERMINATION: Final = 1 << 5
UPSTREAM_OVERFLOW: Final = 1 << 6
NO_ROUTE_FOUND: Final = 1 << 7
DELAY_INJECTED: Final = 1 << 8
FAULT_INJECTED: Final = 1 << 9
RATE_LIMITED: Final = 1 << 10
UNAUTHORIZED_EXTERNAL_SERVICE: Final = 1 << 11
RATE_LIMIT_SERVICE_ERROR: Final = 1 << 12
DOWNSTREAM_CONNECTION_TERMINATION: Final = 1 << 13
UPSTREAM_RETRY_LIMIT_EXCEEDED: Final = 1 << 14
STREAM_IDLE_TIMEOUT: Final = 1 << 15
INVALID_ENVOY_REQUEST_HEADERS: Final = 1 << 16
DOWNSTREAM_PROTOCOL_ERROR: Final = 1 << 17
UPSTREAM_MAX_STREAM_DURATION_REACHED: Final = 1 << 18
NO_CLUSTER_FOUND: Final = 1 << 19
OVERLOAD_MANAGER: Final = 1 << 20
UPSTREAM_PROTOCOL_ERROR: Final = 1 << 21
DURATION_TIMEOUT: Final = 1 << 22
FAILED_LOCAL_HEALTH_CHECK: Final = 1 << 23
DROP_OVERLOAD: Final = 1 << 24
DOWNSTREAM_REMOTE_RESET: Final = 1 << 25

NAMES: Final = (
    (UPSTREAM_RETRY_LIMIT_EXCEEDED, "URX", "UpstreamRetryLimitExceeded"),
    (FAILED_LOCAL_HEALTH_CHECK, "LH", "FailedLocalHealthCheck"),
    (NO_HEALTHY_UPSTREAM, "UH", "NoHealthyUpstream"),
    (UPSTREAM_REQUEST_TIMEOUT, "UT", "UpstreamRequestTimeout"),
    (LOCAL_RESET, "LR", "LocalReset"),
    (UPSTREAM_REMOTE_RESET, "UR", "UpstreamRemoteReset"),
    (UPSTREAM_CONNECTION_FAILURE, "UF", "UpstreamConnectionFailure"),
    (UPSTREAM_CONNECTION_TERMINATION, "UC", "UpstreamConnectionTermination"),
    (UPSTREAM_OVERFLOW, "UO", "UpstreamOverflow"),
    (NO_ROUTE_FOUND, "NR", "NoRouteFound"),
    (DELAY_INJECTED, "DI", "DelayInjected"),
    (FAULT_INJECTED, "FI", "FaultInjected"),
    (RATE_LIMITED, "RL", "RateLimited"),
    (UNAUTHORIZED_EXTERNAL_SERVICE, "UAEX", "UnauthorizedExternalService"),
    (RATE_LIMIT_SERVICE_ERROR, "RLSE", "RateLimitServiceError"),
    (DOWNSTREAM_CONNECTION_TERMINATION, "DC", "DownstreamConnectionTermination"),
    (STREAM_IDLE_TIMEOUT, "SI", "StreamIdleTimeout"),
    (INVALID_ENVOY_REQUEST_HEADERS, "IH", "InvalidEnvoyRequestHeaders"),
    (DOWNSTREAM_PROTOCOL_ERROR, "DPE", "DownstreamProtocolError"),
    (UPSTREAM_MAX_STREAM_DURATION_REACHED, "UMSDR", "UpstreamMaxStreamDurationReached"),
    (NO_CLUSTER_FOUND, "NC", "NoClusterFound"),
    (OVERLOAD_MANAGER, "OM", "OverloadManagerTerminated"),
    (UPSTREAM_PROTOCOL_ERROR, "UPE", "UpstreamProtocolError"),
    (DURATION_TIMEOUT, "DT", "DurationTimeout"),
    (DROP_OVERLOAD, "DO", "DropOverload"),
    (DOWNSTREAM_REMOTE_RESET, "DR", "DownstreamRemoteReset"),
)
"""(bit, short name, long name) in the order in which Envoy prints several."""

_SHORT: dict[int, str] = {0: "-"}


def short_names(flags: int) -> str:
    """`UF,URX`, or `-` when no flag is set."""
    text = _SHORT.get(flags)
    if text is None:
        text = _SHORT[flags] = ",".join(short for bit, short, _ in NAMES if flags & bit)
    return text


def long_names(flags: int) -> str:
    """`UpstreamConnectionFailure,…`, or `-`."""
    return ",".join(name for bit, _, name in NAMES if flags & bit) or "-"
