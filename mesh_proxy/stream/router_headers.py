"""Request headers that speak to the router."""

from __future__ import annotations

from typing import Final

ROUTER_ONLY: Final = frozenset(
    {
        b"x-envoy-upstream-alt-stat-name",
        b"x-envoy-upstream-rq-timeout-alt-response",
        b"x-envoy-upstream-stream-duration-ms",
        b"x-envoy-hedge-on-per-try-timeout",
    }
)
ROUTER_HEADERS: Final = ROUTER_ONLY | {
    b"x-envoy-upstream-rq-timeout-ms",
    b"x-envoy-upstream-rq-per-try-timeout-ms",
    b"x-envoy-retry-on",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-max-retries",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retriable-header-names",
}
"""one look tells whether a request speaks to the router at all"""
