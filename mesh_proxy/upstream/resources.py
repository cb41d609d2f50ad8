"""Circuit breakers: how much of each resource a cluster may use at one priority (`envoy.config.cluster.v3.CircuitBreakers`).

The pools and the router count what they use with `add_*` and `remove_*` and ask `can_*` before. The limits are soft in one
place only, as in Envoy: a pool without any connection may always open one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh_proxy.config.model import ThresholdsConfig


class Resources:
    """The counts and limits of one priority of one cluster."""

    __slots__ = (
        "budget_min",
        "budget_percent",
        "connections",
        "max_connections",
        "max_pending_requests",
        "max_requests",
        "max_retries",
        "pending_requests",
        "requests",
        "retries",
        "track_remaining",
    )

    def __init__(self, thresholds: ThresholdsConfig, runtime: Mapping[str, Any], runtime_prefix: str) -> None:
        self.connections = 0
        self.pending_requests = 0
        self.requests = 0
        self.retries = 0
        self.configure(thresholds, runtime, runtime_prefix)

    def configure(self, thresholds: ThresholdsConfig, runtime: Mapping[str, Any], runtime_prefix: str) -> None:
        """Take new limits; the counts stay. `runtime_prefix` is `circuit_breakers.<cluster>.<priority>.`."""

        def limit(name: str, configured: int) -> int:
            return int(runtime.get(runtime_prefix + name, configured)) if runtime else configured

        self.max_connections = limit("max_connections", thresholds.max_connections)
        self.max_pending_requests = limit("max_pending_requests", thresholds.max_pending_requests)
        self.max_requests = limit("max_requests", thresholds.max_requests)
        self.max_retries = limit("max_retries", thresholds.max_retries)
        self.budget_percent = thresholds.retry_budget_percent
        """share of active and pending requests that may be retries; None: max_retries counts"""
        self.budget_min = thresholds.retry_budget_min_concurrency
        self.track_remaining = thresholds.track_remaining

    def can_create_connection(self) -> bool:
        """One more upstream connection is allowed."""
        return self.connections < self.max_connections

    def can_create_pending(self) -> bool:
        """One more request may wait for a connection."""
        return self.pending_requests < self.max_pending_requests

    def can_create_request(self) -> bool:
        """One more request may be active upstream."""
        return self.requests < self.max_requests

    def can_retry(self) -> bool:
        """One more retry may be under way."""
        return self.retries < self.retry_limit()

    def retry_limit(self) -> int:
        """How many retries may be under way at this moment."""
        percent = self.budget_percent
        if percent is None:
            return self.max_retries
        return max(int(percent / 100.0 * (self.requests + self.pending_requests)), self.budget_min)

    def add_connection(self) -> None:
        """A connection was begun."""
        self.connections += 1

    def remove_connection(self) -> None:
        """A connection is gone."""
        self.connections -= 1

    def add_pending(self) -> None:
        """A request waits for a connection."""
        self.pending_requests += 1

    def remove_pending(self) -> None:
        """A request waits no more."""
        self.pending_requests -= 1

    def add_request(self) -> None:
        """A request was given to a connection."""
        self.requests += 1

    def remove_request(self) -> None:
        """A request is over."""
        self.requests -= 1

    def add_retry(self) -> None:
        """A retry was begun."""
        self.retries += 1

    def remove_retry(self) -> None:
        """A retry is over."""
        self.retries -= 1

    def totals(self) -> tuple[int, int, int, int]:
        """What is compared with the limits: connections, pending requests, requests, retries."""
        return self.connections, self.pending_requests, self.requests, self.retries

    def __repr__(self) -> str:
        return (
            f"<Resources cx={self.connections}/{self.max_connections} rq={self.requests}/{self.max_requests} "
            f"pending={self.pending_requests}/{self.max_pending_requests} retries={self.retries}/{self.max_retries}>"
        )
