"""Active health checks (`envoy.config.core.v3.HealthCheck`)."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_proxy.config.model.common import AddressConfig, HeaderMutationConfig, StringMatcherConfig

StatusRange = tuple[int, int]
"""first HTTP status, and the one after the last"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheckConfig:
    """`HttpHealthCheck`."""

    host: str = ""
    """empty: the cluster's name"""
    path: str = "/"
    method: str = "GET"
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    """what the body must contain, in this order"""
    response_buffer_size: int = 1024
    """bytes of the body that are looked at; 0 = all"""
    request_headers: HeaderMutationConfig = HeaderMutationConfig()
    expected: tuple[StatusRange, ...] = ((200, 201),)
    retriable: tuple[StatusRange, ...] = ()
    """failures that count towards `unhealthy_threshold` instead of ending trust at once"""
    http2: bool = False
    service_name: StringMatcherConfig | None = None
    """what `x-envoy-upstream-healthchecked-cluster` of the answer must be"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpCheckConfig:
    """`TcpHealthCheck`; without `receive` a connection that opens is enough."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcCheckConfig:
    """`GrpcHealthCheck`: a call of grpc.health.v1.Health/Check."""

    service_name: str = ""
    authority: str = ""
    """empty: the cluster's name"""
    initial_metadata: HeaderMutationConfig = HeaderMutationConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckConfig:
    """One active health check of a cluster. Times in seconds; intervals count from the end of one check to the next."""

    check: HttpCheckConfig | TcpCheckConfig | GrpcCheckConfig
    timeout_s: float
    interval_s: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter_s: float = 0.0
    interval_jitter_s: float = 0.0
    """a random part of this is added to each interval"""
    interval_jitter_percent: int = 0
    """a random part of so many percent of the interval is added as well"""
    no_traffic_interval_s: float = 60.0
    """while the cluster has never been called"""
    no_traffic_healthy_interval_s: float = 60.0
    """the same for an endpoint that is healthy"""
    unhealthy_interval_s: float = 0.0
    """after a failure of an endpoint that is unhealthy"""
    unhealthy_edge_interval_s: float = 0.0
    """after a failure while it still counts as healthy"""
    healthy_edge_interval_s: float = 0.0
    """after a success while it still counts as unhealthy"""
    reuse_connection: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCheckConfig:
    """`Endpoint.HealthCheckConfig`."""

    port: int = 0
    """0 = the endpoint's own"""
    hostname: str = ""
    address: AddressConfig | None = None
    disabled: bool = False
