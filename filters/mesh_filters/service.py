"""Services that filters ask (authorization, rate limits, keys), called through the proxy's own clusters.

`FilterContext.call_service` sends one request and gathers its response, within a deadline and a bound. What is here puts gRPC on
top, and says in the words of the configuration which service is meant.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.grpc import frame, render_timeout, status_of_value
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext

PREFIX: Final = 5
"""bytes before a gRPC message: compressed or not, and its length"""
MAX_MESSAGE: Final = 4 * 1024 * 1024
"""bytes of an answer that are taken; gRPC's usual limit"""


class Failure(enum.Enum):
    """Why there is no answer."""

    NO_CLUSTER = "no cluster"
    NO_ENDPOINT = "no healthy endpoint"
    CONNECT = "connection failure"
    RESET = "reset"
    TIMEOUT = "timeout"
    TOO_LARGE = "answer too large"
    STATUS = "status"
    """the service answered that it failed"""
    MALFORMED = "malformed answer"


class ServiceError(Exception):
    """A service gave no usable answer."""

    def __init__(self, failure: Failure, why: str = "") -> None:
        super().__init__(f"{failure.value}: {why}" if why else failure.value)
        self.failure = failure


@dataclass(slots=True)
class ServiceResponse:
    """A whole response."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcServiceConfig:
    """`GrpcService` with `envoy_grpc`."""

    cluster: str
    authority: str = ""
    """empty: the cluster's name"""
    timeout_s: float | None = None
    """None: what the filter says"""
    metadata: tuple[tuple[str, str], ...] = ()
    skip_envoy_headers: bool = False
    max_message: int = MAX_MESSAGE


async def call_grpc(
    context: FilterContext, service: GrpcServiceConfig, path: bytes, message: bytes, timeout_s: float | None
) -> bytes:
    """A unary call; the bytes of the answer's message.

    Raises:
        ServiceError: there is none.
    """
    headers = Headers([(b"te", b"trailers"), (b"content-type", b"application/grpc")])
    if timeout_s:
        headers.set(b"grpc-timeout", render_timeout(max(round(timeout_s * 1000), 1)))
    if not service.skip_envoy_headers:
        headers.set(b"x-envoy-internal", b"true")
    for name, value in service.metadata:
        headers.add(name.encode(), value.encode())
    authority = (service.authority or service.cluster).encode()
    request = RequestHeaders(0, b"POST", b"http", authority, path, headers, False, http_version=b"HTTP/2")
    limit = service.max_message + PREFIX
    answer = await context.call_service(service.cluster, request, frame(message), timeout_s=timeout_s, max_bytes=limit)
    if answer.status != 200:
        raise ServiceError(Failure.STATUS, f"HTTP {answer.status}")
    end = answer.trailers if answer.trailers is not None else answer.headers
    status = status_of_value(end.get(b"grpc-status"))
    if status != 0:
        raise ServiceError(Failure.STATUS, f"gRPC {status}")
    body = answer.body
    if len(body) < PREFIX or body[0] != 0 or int.from_bytes(body[1:PREFIX], "big") != len(body) - PREFIX:
        raise ServiceError(Failure.MALFORMED)
    return body[PREFIX:]
