"""`envoy.filters.http.health_check`: answers probes, by itself or with the service's last answer (Envoy: `http/health_check`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import FAILED_LOCAL_HEALTH_CHECK, Filter, FilterStatus, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckConfig:
    """`HealthCheck`."""

    pass_through: bool
    """probes go to the service"""
    cache_s: float = 0.0
    """how long its answer serves for further probes"""
    headers: tuple[Any, ...] = ()
    """matchers: what a probe is"""
    min_healthy: tuple[tuple[str, float], ...] = ()
    """(cluster, percentage of its endpoints that must be healthy or degraded)"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream."""
        shared = _Shared(self, context)
        return lambda: HealthCheckFilter(shared)


class _Shared:
    """What the filters of one chain share: the last answer of the service."""

    __slots__ = ("config", "context", "degraded", "known_until", "matches", "status")

    def __init__(self, config: HealthCheckConfig, context: FilterContext) -> None:
        self.config = config
        self.context = context
        self.matches = context.request_matcher(config.headers)
        self.known_until = 0.0
        self.status = 200
        self.degraded = False

    def verdict(self) -> tuple[int, str]:
        """Status and details of our own answer."""
        context = self.context
        if context.health_check_failed():
            return 503, "health_check_failed"
        for name, percentage in self.config.min_healthy:
            health = context.cluster_health(name)
            if health is None:
                return 503, "health_check_failed_no_cluster_found"
            healthy, degraded, total = health
            if percentage and not total:
                return 503, "health_check_failed_cluster_empty"
            if total and 100.0 * (healthy + degraded) < total * percentage:
                return 503, "health_check_failed_cluster_unhealthy"
        if self.config.min_healthy:
            return 200, "health_check_ok_cluster_healthy"
        return 200, "health_check_ok"


class HealthCheckFilter(Filter):
    """One request, a probe perhaps."""

    __slots__ = ("_answered", "_cached", "_probe", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._probe = False
        self._answered = False
        self._cached = False

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Answer a probe."""
        shared = self._shared
        if not shared.matches(event):
            return FilterStatus.CONTINUE
        self._probe = True
        stream.health_check = True
        context = shared.context
        if shared.config.pass_through and not context.health_check_failed():
            if not shared.config.cache_s or context.now() >= shared.known_until:
                return FilterStatus.CONTINUE
            self._cached = True
        self._answered = True
        if not event.end_stream:
            return FilterStatus.STOP_AND_BUFFER
        self._answer(stream)
        return FilterStatus.STOP

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """A probe is answered when it has ended."""
        if self._answered and event.end_stream:
            self._answer(stream)
        return FilterStatus.STOP_AND_BUFFER if self._answered else FilterStatus.CONTINUE

    def on_request_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """That is its end, too."""
        if self._answered:
            self._answer(stream)
        return FilterStatus.CONTINUE

    def _answer(self, stream: Stream) -> None:
        shared = self._shared
        context = shared.context
        degraded = False
        if self._cached:
            status, degraded, details = shared.status, shared.degraded, "health_check_cached"
        else:
            status, details = shared.verdict()
        headers = [(b"x-envoy-upstream-healthchecked-cluster", context.service_cluster)]
        if degraded:
            headers.append((b"x-envoy-degraded", b"true"))
        stream.send_local_reply(status, details=details, flag=FAILED_LOCAL_HEALTH_CHECK if status == 503 else 0, headers=headers)

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Remember what the service said; tell the callers of a sidecar that is out of service."""
        shared = self._shared
        headers = event.headers
        if self._probe:
            if not self._answered:
                if shared.config.cache_s:
                    shared.status = event.status
                    shared.degraded = b"x-envoy-degraded" in headers
                    shared.known_until = shared.context.now() + shared.config.cache_s
                headers.set(b"x-envoy-upstream-healthchecked-cluster", shared.context.service_cluster)
        elif shared.context.health_check_failed():
            headers.set(b"x-envoy-immediate-health-check-fail", b"true")
        return FilterStatus.CONTINUE
