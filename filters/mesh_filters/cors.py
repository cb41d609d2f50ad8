"""`envoy.filters.http.cors`: cross-origin requests, by policies of routes and hosts (Envoy: `http/cors/cors_filter.cc`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.route_rules import Compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicyConfig:
    """`CorsPolicy`; empty texts and None leave the word to the wider scope."""

    allow_origins: tuple[Any, ...] = ()
    """string matchers, one of which must match"""
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    allow_credentials: bool | None = None
    allow_private_network: bool | None = None
    forward_not_matching_preflights: bool | None = None
    enabled: Any = None
    """a share of requests; None = all, unless `shadow` is given"""
    shadow: Any = None
    """the share that is counted and not enforced"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsConfig:
    """`Cors` itself says nothing."""

    idle: ClassVar[bool] = True

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: the response must know of the request's origin."""
        shared = _Shared(context)
        return lambda: CorsFilter(shared)


class _Policy:
    """A policy, compiled."""

    __slots__ = ("config", "enabled", "origins", "shadow")

    def __init__(self, config: CorsPolicyConfig, context: FilterContext) -> None:
        self.config = config
        self.origins = tuple(context.value_matcher(one) for one in config.allow_origins)
        self.enabled: Callable[[], bool] = (
            context.share(config.enabled) if config.enabled is not None else lambda: config.shadow is None
        )
        self.shadow: Callable[[], bool] = context.share(config.shadow) if config.shadow is not None else lambda: False


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("_policies", "name", "stats")

    def __init__(self, context: FilterContext) -> None:
        self.name = context.name
        self.stats = context.stats(context.stat_prefix + "cors.", counters=("origin_valid", "origin_invalid"))
        self._policies: Compiled[CorsPolicyConfig, _Policy] = Compiled(lambda one: _Policy(one, context))

    def policies(self, stream: Stream) -> list[_Policy]:
        """The narrowest scope first."""
        return [self._policies.of(config) for config in reversed(stream.per_route_configs(self.name))]


class CorsFilter(Filter):
    """One request and what its policies say."""

    __slots__ = ("_origin", "_policies", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._policies: list[_Policy] = []
        self._origin = b""
        """of a request that may cross origins"""

    def _first(self, field: str) -> Any:
        for policy in self._policies:
            value = getattr(policy.config, field)
            if value not in (None, ""):
                return value
        return None

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Check the origin, answer a preflight."""
        policies = self._policies = self._shared.policies(stream)
        if not policies:
            return FilterStatus.CONTINUE
        enabled = policies[0].enabled()
        if not enabled and not policies[0].shadow():
            return FilterStatus.CONTINUE
        headers = event.headers
        origin = headers.get(b"origin")
        if not origin:
            return FilterStatus.CONTINUE
        preflight = event.method == b"OPTIONS" and bool(headers.get(b"access-control-request-method"))
        origins = next((policy.origins for policy in policies if policy.origins), ())
        if not any(test(origin) for test in origins):
            self._shared.stats.origin_invalid += 1
            if preflight and enabled and self._first("forward_not_matching_preflights") is False:
                self._answer(stream, headers)
                return FilterStatus.STOP
            return FilterStatus.CONTINUE
        self._shared.stats.origin_valid += 1
        if not enabled:
            return FilterStatus.CONTINUE
        self._origin = origin
        if not preflight:
            return FilterStatus.CONTINUE
        self._answer(stream, headers)
        return FilterStatus.STOP

    def _answer(self, stream: Stream, headers: Headers) -> None:
        """Tell a preflight what is allowed; whether its origin is, the response hook says."""
        reply = []
        for name, field in (
            (b"access-control-allow-methods", "allow_methods"),
            (b"access-control-allow-headers", "allow_headers"),
            (b"access-control-max-age", "max_age"),
        ):
            value = self._first(field)
            if value:
                reply.append((name, value.encode()))
        if headers.get(b"access-control-request-private-network") == b"true" and self._first("allow_private_network"):
            reply.append((b"access-control-allow-private-network", b"true"))
        stream.send_local_reply(200, details="cors_response", headers=reply)

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Tell the browser that its script may read this."""
        if self._origin:
            headers = event.headers
            headers.set(b"access-control-allow-origin", self._origin)
            if self._first("allow_credentials"):
                headers.set(b"access-control-allow-credentials", b"true")
            exposed = self._first("expose_headers")
            if exposed:
                headers.set(b"access-control-expose-headers", exposed.encode())
        return FilterStatus.CONTINUE
