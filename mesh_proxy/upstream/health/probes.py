"""How an endpoint is asked: by a TCP connection, an HTTP request or a call of grpc.health.v1.

A probe keeps its connection from one check to the next unless `reuse_connection` says otherwise. One check at a time; the
session around it sets the time-out. This is no part of the data path, so it is written with tasks.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from mesh_codecs.events import RequestHeaders
from mesh_codecs.grpc import is_grpc_content_type, render_timeout, status_of_value
from mesh_codecs.grpc.health import CHECK_PATH, MAX_RESPONSE, SERVING, check_request, serving_status
from mesh_codecs.grpc.messages import PREFIX, PREFIX_SIZE
from mesh_codecs.headers import Headers
from mesh_proxy.config.model.health import GrpcCheckConfig, HealthCheckConfig, HttpCheckConfig, TcpCheckConfig
from mesh_proxy.routing.matchers import compile_string_matcher
from mesh_proxy.routing.mutations import HeaderMutation
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo
from mesh_proxy.upstream.dial import dial
from mesh_proxy.upstream.health.exchange import Answer, HttpExchange, RawExchange, new_codec
from mesh_proxy.upstream.health.target import check_target

if TYPE_CHECKING:
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.health.checker import HealthStats

USER_AGENT = b"Envoy/HC"
"""what services that treat health checks specially look for"""


class Finding(enum.Enum):
    """What a check came to."""

    GOOD = "good"
    DEGRADED = "degraded"
    BAD = "bad answer"
    BAD_AND_EXCLUDED = "bad answer, asks to be left out"
    RETRIABLE = "bad answer, may be better next time"
    NETWORK = "no connection, or a broken one"
    SILENCE = "no answer in time"
    PASSIVE = "asked to be left out"


class Probe(Protocol):
    """One endpoint's way of being asked."""

    async def ask(self) -> Finding:
        """One check. OSError: no connection, or it broke."""

    def close(self) -> None:
        """Drop the connection, if there is one."""


def make_probe(cluster: Cluster, endpoint: Endpoint, config: HealthCheckConfig, stats: HealthStats) -> Probe:
    """The probe that the configuration asks for."""
    check = config.check
    if isinstance(check, TcpCheckConfig):
        return TcpProbe(cluster, endpoint, config, check)
    if isinstance(check, HttpCheckConfig):
        return HttpProbe(cluster, endpoint, config, check, stats)
    return GrpcProbe(cluster, endpoint, config, check)


def _contains(expected: tuple[bytes, ...], data: bytes) -> bool:
    """Whether the pieces follow each other in the data, with anything between."""
    at = 0
    for piece in expected:
        found = data.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class TcpProbe:
    """A connection that opens, and perhaps an answer to some bytes."""

    __slots__ = ("_check", "_cluster", "_endpoint", "_exchange", "_reuse")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, config: HealthCheckConfig, check: TcpCheckConfig) -> None:
        self._cluster = cluster
        self._endpoint = endpoint
        self._check = check
        self._reuse = config.reuse_connection
        self._exchange: RawExchange | None = None

    async def ask(self) -> Finding:
        """See `Probe`."""
        exchange = self._exchange
        expected = self._check.receive
        try:
            if exchange is None or exchange.closed:
                environment = self._cluster.environment
                target = check_target(self._endpoint)
                exchange = self._exchange = await dial(environment.loop, target, self._cluster.config, RawExchange)
            if not expected:
                self.close()
                return Finding.GOOD
            await exchange.ask(self._check.send, lambda data: _contains(expected, data))
        except OSError:
            self.close()
            raise
        if not self._reuse:
            self.close()
        return Finding.GOOD

    def close(self) -> None:
        """See `Probe`."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None


class _HttpProbe:
    """What both probes over HTTP share: the connection."""

    __slots__ = ("_cluster", "_endpoint", "_exchange", "_http2", "_info", "_reuse")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, config: HealthCheckConfig, http2: bool) -> None:
        self._cluster = cluster
        self._endpoint = endpoint
        self._reuse = config.reuse_connection
        self._http2 = http2
        self._exchange: HttpExchange | None = None
        self._info = StreamInfo(ConnectionInfo(0, 0.0, 0.0), 0.0)
        self._info.upstream = endpoint
        self._info.cluster = cluster
        self._info.cluster_name = cluster.name

    async def _exchange_one(self, request: RequestHeaders, body: bytes, limit: int) -> Answer:
        exchange = self._exchange
        try:
            if exchange is None or not exchange.usable:
                self.close()
                loop, config = self._cluster.environment.loop, self._cluster.config
                codec = new_codec(config, http2=self._http2)
                exchange = await dial(loop, check_target(self._endpoint), config, lambda: HttpExchange(codec))
                self._exchange = exchange
            answer = await exchange.ask(request, body, limit)
        except OSError:
            self.close()
            raise
        if not self._reuse or not exchange.usable:
            self.close()
        return answer

    def _host(self, configured: str) -> bytes:
        own = self._endpoint.config.health_check.hostname
        return (own or configured or self._cluster.name).encode()

    def close(self) -> None:
        """See `Probe`."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None


class HttpProbe(_HttpProbe):
    """A request whose answer is judged by status, body and headers."""

    __slots__ = ("_check", "_headers", "_limit", "_matches", "_stats")

    def __init__(
        self, cluster: Cluster, endpoint: Endpoint, config: HealthCheckConfig, check: HttpCheckConfig, stats: HealthStats
    ) -> None:
        super().__init__(cluster, endpoint, config, check.http2)
        self._check = check
        self._stats = stats
        self._headers = HeaderMutation(check.request_headers, "request_headers")
        self._matches = compile_string_matcher(check.service_name) if check.service_name is not None else None
        self._limit = (check.response_buffer_size or 1 << 30) if check.receive else 0

    async def ask(self) -> Finding:
        """See `Probe`."""
        check = self._check
        headers = Headers([(b"user-agent", USER_AGENT)])
        self._headers.apply(headers, self._info)
        if check.send:
            headers.set(b"content-length", b"%d" % len(check.send))
        request = RequestHeaders(
            0, check.method.encode(), b"http", self._host(check.host), check.path.encode(), headers, not check.send
        )
        answer = await self._exchange_one(request, check.send, self._limit)
        first = answer.headers.first
        bad = Finding.BAD_AND_EXCLUDED if b"x-envoy-immediate-health-check-fail" in first else Finding.BAD
        if check.receive and not _contains(check.receive, answer.body):
            return bad
        if not any(start <= answer.status < end for start, end in check.expected):
            if any(start <= answer.status < end for start, end in check.retriable):
                return Finding.RETRIABLE
            return bad
        if self._matches is not None:
            self._stats.verify_cluster += 1
            if not self._matches(first.get(b"x-envoy-upstream-healthchecked-cluster", b"")):
                return Finding.BAD
        return Finding.DEGRADED if b"x-envoy-degraded" in first else Finding.GOOD


class GrpcProbe(_HttpProbe):
    """A call of grpc.health.v1.Health/Check."""

    __slots__ = ("_body", "_check", "_headers", "_timeout")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, config: HealthCheckConfig, check: GrpcCheckConfig) -> None:
        super().__init__(cluster, endpoint, config, True)
        self._check = check
        self._headers = HeaderMutation(check.initial_metadata, "initial_metadata")
        self._body = check_request(check.service_name)
        self._timeout = render_timeout(round(config.timeout_s * 1000))

    async def ask(self) -> Finding:
        """See `Probe`."""
        headers = Headers([(b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", USER_AGENT)])
        self._headers.apply(headers, self._info)
        headers.set(b"grpc-timeout", self._timeout)
        authority = self._host(self._check.authority)
        request = RequestHeaders(0, b"POST", b"http", authority, CHECK_PATH, headers, False)
        answer = await self._exchange_one(request, self._body, MAX_RESPONSE)
        return Finding.GOOD if self._serves(answer) else Finding.BAD

    def _serves(self, answer: Answer) -> bool:
        if answer.status != 200 or answer.trailers is None:
            # Also a trailers-only response: whoever serves says so in a message.
            return False
        if not is_grpc_content_type(answer.headers.first.get(b"content-type")):
            return False
        if status_of_value(answer.trailers.first.get(b"grpc-status")) != 0:
            return False
        body = answer.body
        if len(body) < PREFIX_SIZE:
            return False
        flag, size = PREFIX.unpack_from(body)
        return flag == 0 and len(body) == PREFIX_SIZE + size and serving_status(body[PREFIX_SIZE:]) == SERVING
