"""`envoy.filters.http.ext_authz`: a service of its own decides about each request, over gRPC or HTTP (Envoy: `http/ext_authz`).

What is asked and what an answer means is said by `ext_authz_grpc` and `ext_authz_http`, and what it changes by
`ext_authz_verdict`; here is when it is asked, and what becomes of the request. A Dubbo call is `POST /<service>/<method>` for the
service, and its attachments are headers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.async_filter import guarded
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.ext_authz_verdict import Verdict, apply, change, valid
from mesh_filters.filter import UNAUTHORIZED, Filter, FilterStatus, Stream
from mesh_filters.metadata_match import MetadataMatcherConfig, compile_metadata
from mesh_filters.service import GrpcServiceConfig, ServiceError

METADATA: Final = "envoy.filters.http.ext_authz"
PARTIAL: Final = b"x-envoy-auth-partial-body"
FAILURE_ALLOWED: Final = b"x-envoy-auth-failure-mode-allowed"
COUNTERS: Final = ("ok", "denied", "error", "disabled", "failure_mode_allowed", "invalid")
CLUSTER_COUNTERS: Final = ("ok", "denied", "error", "failure_mode_allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyConfig:
    """`BufferSettings`."""

    max_bytes: int
    allow_partial: bool = False
    as_bytes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServiceConfig:
    """`HttpService`. Each list of matchers is None when the configuration does not have it."""

    cluster: str
    scheme: str
    authority: str
    timeout_s: float
    path_prefix: str = ""
    allowed_headers: tuple[Any, ...] | None = None
    headers_to_add: tuple[tuple[str, str], ...] = ()
    upstream_headers: tuple[Any, ...] | None = None
    upstream_headers_to_append: tuple[Any, ...] | None = None
    client_headers: tuple[Any, ...] | None = None
    client_headers_on_success: tuple[Any, ...] | None = None
    metadata_headers: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtAuthzConfig:
    """`ExtAuthz`."""

    grpc: GrpcServiceConfig | None = None
    http: HttpServiceConfig | None = None
    """one of both"""
    timeout_s: float = 0.2
    failure_mode_allow: bool = False
    failure_mode_header: bool = False
    body: BodyConfig | None = None
    clear_route: bool = False
    status_on_error: int = 403
    validate: bool = False
    metadata_namespaces: tuple[str, ...] = ()
    route_metadata_namespaces: tuple[str, ...] = ()
    enabled: Any = None
    """share of requests that are asked about; None = all"""
    enabled_metadata: MetadataMatcherConfig | None = None
    deny_at_disable: bool = False
    deny_at_disable_key: str = ""
    include_certificate: bool = False
    include_tls_session: bool = False
    stat_prefix: str = ""
    labels_key: str = ""
    allowed_headers: tuple[Any, ...] | None = None
    disallowed_headers: tuple[Any, ...] | None = None
    charge_cluster: bool = True
    raw_headers: bool = False
    take_metadata: bool = True
    max_denied_body: int = 0
    """0 = all of it"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it waits."""
        shared = Shared(self, context)
        return lambda: ExtAuthzFilter(shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtAuthzRouteConfig:
    """`ExtAuthzPerRoute`."""

    disabled: bool = False
    extensions: tuple[tuple[str, str], ...] = ()
    disable_body: bool = False
    body: BodyConfig | None = None


@dataclass(slots=True)
class Question:
    """What is asked."""

    stream: Stream
    request: RequestHeaders
    extensions: Mapping[str, str]
    size: int = 0
    """bytes of the body that have come"""
    body: bytes | None = None
    partial: bool = False
    body_as_bytes: bool = False


class Client(Protocol):
    """Asks the service."""

    def ask(self, question: Question) -> Awaitable[Verdict]:
        """Raises ServiceError."""


class Shared:
    """What the filters of one chain share."""

    __slots__ = ("_clusters", "_enabled", "_enabled_by", "client", "config", "context", "name", "stats")

    def __init__(self, config: ExtAuthzConfig, context: FilterContext) -> None:
        self.config = config
        self.context = context
        self.name = context.name
        prefix = f"{config.stat_prefix}." if config.stat_prefix else ""
        self.stats = context.stats(f"{context.stat_prefix}ext_authz.{prefix}", counters=COUNTERS)
        self._clusters: dict[str, Any] = {}
        self._enabled = context.share(config.enabled) if config.enabled is not None else None
        self._enabled_by = compile_metadata(config.enabled_metadata, context) if config.enabled_metadata is not None else None
        self.client: Client
        if config.grpc is not None:
            from mesh_filters.ext_authz_grpc import GrpcClient

            self.client = GrpcClient(config, config.grpc, context)
        else:
            from mesh_filters.ext_authz_http import HttpClient

            assert config.http is not None
            self.client = HttpClient(config, config.http, context)

    def enabled(self, stream: Stream) -> bool:
        """Whether this request is asked about."""
        if self._enabled is not None and not self._enabled():
            return False
        return self._enabled_by is None or self._enabled_by(stream.dynamic_metadata)

    def denies_when_disabled(self) -> bool:
        """`deny_at_disable`, which the runtime may override."""
        value = self.context.runtime.get(self.config.deny_at_disable_key) if self.config.deny_at_disable_key else None
        return value if isinstance(value, bool) else self.config.deny_at_disable

    def count(self, stream: Stream, name: str) -> None:
        """Here, and with the cluster to which the request is going."""
        setattr(self.stats, name, getattr(self.stats, name) + 1)
        if not self.config.charge_cluster or name not in CLUSTER_COUNTERS:
            return
        prefix = self.context.cluster_stat_prefix(stream.target_cluster())
        if prefix is None:
            return
        stats = self._clusters.get(prefix)
        if stats is None:
            inner = f"{self.config.stat_prefix}." if self.config.stat_prefix else ""
            stats = self._clusters[prefix] = self.context.stats(f"{prefix}ext_authz.{inner}", counters=CLUSTER_COUNTERS)
        setattr(stats, name, getattr(stats, name) + 1)


class ExtAuthzFilter(Filter):
    """One request."""

    __slots__ = ("_asked", "_body", "_extensions", "_limits", "_response_headers", "_shared", "_size", "_task")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._task: Any = None
        self._asked = False
        self._limits: BodyConfig | None = None
        """set while the body is collected"""
        self._body: list[bytes] = []
        self._size = 0
        self._extensions: dict[str, str] = {}
        self._response_headers: list[tuple[str, bytes, bytes]] = []

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Ask, or collect the body first."""
        shared = self._shared
        config = shared.config
        limits = config.body
        routes: list[ExtAuthzRouteConfig] = stream.per_route_configs(shared.name)
        if routes:
            if routes[-1].disabled:
                return FilterStatus.CONTINUE
            for route in routes:
                self._extensions.update(route.extensions)
            limits = None if routes[-1].disable_body else routes[-1].body or limits
        if not shared.enabled(stream):
            shared.count(stream, "disabled")
            if not shared.denies_when_disabled():
                return FilterStatus.CONTINUE
            stream.send_local_reply(config.status_on_error, details="ext_authz_error", flag=UNAUTHORIZED)
            return FilterStatus.STOP
        if limits is None or event.end_stream or event.protocol or event.method == b"CONNECT":
            self._ask(stream, None)
            return FilterStatus.STOP
        self._limits = limits
        if not limits.allow_partial:
            stream.limit_request_buffer(limits.max_bytes)
        return FilterStatus.STOP_AND_BUFFER

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """More of the body."""
        limits = self._limits
        if limits is None:
            return FilterStatus.CONTINUE
        self._body.append(event.data)
        self._size += len(event.data)
        if event.end_stream or (limits.allow_partial and self._size >= limits.max_bytes):
            if self._size > limits.max_bytes and not limits.allow_partial:
                return FilterStatus.STOP_AND_BUFFER  # which is too much, and answered with 413
            self._ask(stream, limits)
            return FilterStatus.STOP
        return FilterStatus.STOP_AND_BUFFER

    def on_request_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """The end of the body."""
        limits = self._limits
        if limits is None:
            return FilterStatus.CONTINUE
        self._ask(stream, limits)
        return FilterStatus.STOP

    def _ask(self, stream: Stream, limits: BodyConfig | None) -> None:
        self._limits = None
        question = Question(stream, stream.request, self._extensions, self._size)
        if limits is not None:
            whole = b"".join(self._body)
            question.body = whole[: limits.max_bytes]
            question.partial = self._size > limits.max_bytes
            question.body_as_bytes = limits.as_bytes
            self._body.clear()
        self._task = stream.start_task(guarded(stream, self._wait(stream, question)), "ext_authz")

    async def _wait(self, stream: Stream, question: Question) -> None:
        shared = self._shared
        config = shared.config
        started = shared.context.now()
        try:
            verdict = await shared.client.ask(question)
        except ServiceError:
            self._task = None
            self._failed(stream)
            return
        self._task = None
        if verdict.metadata and config.take_metadata:
            if verdict.allowed:
                verdict.metadata["ext_authz_duration"] = int((shared.context.now() - started) * 1000)
            metadata = stream.dynamic_metadata
            if metadata is None:
                metadata = stream.dynamic_metadata = {}
            metadata[METADATA] = {**metadata.get(METADATA, {}), **verdict.metadata}
        if config.validate and not valid(verdict):
            shared.count(stream, "invalid")
            stream.send_local_reply(500, details="ext_authz_invalid")
            return
        if not verdict.allowed:
            shared.count(stream, "denied")
            body = verdict.body[: config.max_denied_body] if config.max_denied_body else verdict.body
            self._response_headers = verdict.response_headers
            stream.send_local_reply(verdict.status, body, details="ext_authz_denied", flag=UNAUTHORIZED)
            return
        shared.count(stream, "ok")
        changed = apply(stream.request, verdict)
        if changed and config.clear_route:
            stream.clear_route()
        self._response_headers = verdict.response_headers
        stream.continue_request(self)

    def _failed(self, stream: Stream) -> None:
        shared = self._shared
        config = shared.config
        shared.count(stream, "error")
        if not config.failure_mode_allow:
            stream.send_local_reply(config.status_on_error, details="ext_authz_error", flag=UNAUTHORIZED)
            return
        shared.count(stream, "failure_mode_allowed")
        if config.failure_mode_header:
            stream.request.headers.add(FAILURE_ALLOWED, b"true")
        stream.continue_request(self)

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """What the service wants the caller to have."""
        for action, name, value in self._response_headers:
            change(event.headers, action, name, value)
        return FilterStatus.CONTINUE

    def on_complete(self, stream: Stream) -> None:
        """Wait for nobody."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()


NameTest = Callable[[bytes], bool]


def name_test(matchers: tuple[Any, ...] | None, context: FilterContext) -> NameTest | None:
    """A test of header names by a list of `StringMatcher`s; None without a list."""
    if matchers is None:
        return None
    tests = tuple(context.value_matcher(one) for one in matchers)
    return lambda name: any(test(name) for test in tests)
