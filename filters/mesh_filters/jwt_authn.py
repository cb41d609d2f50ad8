"""`envoy.filters.http.jwt_authn`: requests must have tokens of issuers that we know (Envoy: `http/jwt_authn`).

What a token says is left for later filters: in headers (or attachments), and as metadata for `rbac`, routes and labels. As long
as the keys are at hand everything is decided at once; a request whose keys have to be fetched first waits in a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.async_filter import guarded
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.jwt_provider import Provider, ProviderConfig
from mesh_filters.jwt_requirements import Check, RequirementConfig, Requirements, Search
from mesh_filters.jwt_source import KeysNeeded
from mesh_filters.jwt_token import Status, Token

CACHED: Final = 1000
"""tokens that are kept taken apart, with the proof of their signature: as long as the keys are the same"""
CACHED_BYTES: Final = 4096
"""longer ones are not kept"""
ROUNDS: Final = 8
"""how often a request may wait for keys: tokens of so many providers"""
MAX_REALM: Final = 256
"""bytes of the URL in www-authenticate"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """`RequirementRule`."""

    match: Any
    """a `RouteMatch` of the configuration"""
    requires: RequirementConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRouteConfig:
    """`PerRouteConfig`."""

    disabled: bool = False
    requirement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtAuthnConfig:
    """`JwtAuthentication`."""

    providers: tuple[ProviderConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    requirements: tuple[tuple[str, RequirementConfig], ...] = ()
    """for routes, by name"""
    bypass_cors_preflight: bool = False
    strip_failure_response: bool = False
    stat_prefix: str = ""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it may wait for keys."""
        shared = Shared(self, context)
        return lambda: JwtAuthnFilter(shared)


class Shared:
    """What the filters of one chain share."""

    __slots__ = ("_names", "_rules", "_tokens", "config", "made_headers", "name", "stats")

    def __init__(self, config: JwtAuthnConfig, context: FilterContext) -> None:
        self.config = config
        self.name = context.name
        prefix = f"{config.stat_prefix}." if config.stat_prefix else ""
        counters = ("allowed", "denied", "cors_preflight_bypassed", "jwks_fetch_success", "jwks_fetch_failed")
        self.stats = context.stats(f"{context.stat_prefix}jwt_authn.{prefix}", counters=counters)
        providers = {one.name: Provider(one, context, self.stats) for one in config.providers}
        requirements = Requirements(providers)
        self._rules = [(context.route_matcher(rule.match), requirements.compile(rule.requires)) for rule in config.rules]
        self._names = {name: requirements.compile(requirement) for name, requirement in config.requirements}
        self._tokens: dict[bytes, Token] = {}
        headers = [one.payload_header for one in config.providers]
        headers += [header for one in config.providers for header, _ in one.claims_to_headers]
        self.made_headers = tuple(name.encode() for name in dict.fromkeys(headers) if name)
        """headers that only we may set"""

    def required(self, stream: Stream, request: RequestHeaders) -> Check | None:
        """What the request must have; None: nothing. Raises LookupError when its route names a requirement that is none."""
        route = stream.per_route_config(self.name)
        if route is not None:
            if route.disabled:
                return None
            return self._names[route.requirement]
        for matches, check in self._rules:
            if matches(request):
                return check
        return None

    def parse(self, raw: bytes) -> Token:
        """Take a token apart, or remember it. Raises TokenError."""
        tokens = self._tokens
        token = tokens.pop(raw, None)
        if token is None:
            token = Token(raw)
            if len(raw) > CACHED_BYTES:
                return token
            if len(tokens) >= CACHED:
                del tokens[next(iter(tokens))]
        tokens[raw] = token  # at the end: the one that was not used for longest goes first
        return token


class JwtAuthnFilter(Filter):
    """One request."""

    __slots__ = ("_check", "_shared", "_task")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._check: Check | None = None
        self._task: Any = None

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Look for tokens."""
        shared = self._shared
        config = shared.config
        if config.bypass_cors_preflight and _is_preflight(event):
            shared.stats.cors_preflight_bypassed += 1
            shared.stats.allowed += 1
            return FilterStatus.CONTINUE
        for name in shared.made_headers:
            event.headers.remove(name)
        try:
            self._check = shared.required(stream, event)
        except LookupError:
            self._wrong_requirement(stream)
            return FilterStatus.STOP
        if self._check is None:
            shared.stats.allowed += 1
            return FilterStatus.CONTINUE
        try:
            return self._decide(stream, event)
        except KeysNeeded as needed:
            self._task = stream.start_task(guarded(stream, self._wait(stream, event, needed)), "jwt_authn")
            return FilterStatus.STOP

    def _decide(self, stream: Stream, request: RequestHeaders) -> FilterStatus:
        """Raises KeysNeeded."""
        assert self._check is not None
        shared = self._shared
        search = Search(request, shared.parse)
        status = self._check(search)
        if status is not Status.OK:
            shared.stats.denied += 1
            self._refuse(stream, request, status)
            return FilterStatus.STOP
        for provider, place, token in search.proofs:
            provider.use(stream, request, place, token)
        shared.stats.allowed += 1
        return FilterStatus.CONTINUE

    async def _wait(self, stream: Stream, request: RequestHeaders, needed: KeysNeeded) -> None:
        for _ in range(ROUNDS):
            await needed.source.fetch()
            try:
                status = self._decide(stream, request)
            except KeysNeeded as more:
                needed = more
                continue
            self._task = None
            if status is FilterStatus.CONTINUE:
                stream.continue_request(self)
            return
        self._task = None
        self._shared.stats.denied += 1
        self._refuse(stream, request, Status.FETCH)

    def on_complete(self, stream: Stream) -> None:
        """Wait for nobody."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _refuse(self, stream: Stream, request: RequestHeaders, status: Status) -> None:
        code = 403 if status is Status.AUDIENCE else 401
        details = f"jwt_authn_access_denied{{{status.value.replace(' ', '_')}}}"
        if self._shared.config.strip_failure_response:
            stream.send_local_reply(code, details=details)
            return
        scheme = request.headers.get(b"x-forwarded-proto") or request.scheme or b"http"
        url = b"%b://%b%b" % (scheme, request.authority, request.path)
        error = b"" if status is Status.MISSED else b', error="invalid_token"'
        headers = [(b"www-authenticate", b'Bearer realm="%b"%b' % (url[:MAX_REALM], error))]
        stream.send_local_reply(code, status.value.encode(), details=details, headers=headers)

    def _wrong_requirement(self, stream: Stream) -> None:
        self._shared.stats.denied += 1
        text = "Failed JWT authentication: the route names a requirement that is not configured"
        stream.send_local_reply(403, text.encode(), details="jwt_authn_access_denied{wrong_requirement_name}")


def _is_preflight(request: RequestHeaders) -> bool:
    first = request.headers.first
    return request.method == b"OPTIONS" and bool(first.get(b"origin")) and bool(first.get(b"access-control-request-method"))
