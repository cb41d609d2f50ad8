"""`envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`. Imported, with its protobuf messages, when it is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from mesh_filters.definition import FilterContext
from mesh_filters.rate_limit_actions import Descriptor
from mesh_filters.ratelimit import Answer, GlobalRateLimitConfig
from mesh_filters.service import Failure, ServiceError, call_grpc

PATH: Final = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_WINDOWS: Final = (0, 1, 60, 3600, 86400, 604800, 2592000, 31536000)
"""seconds by `RateLimit.Unit`"""
_FIXED: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
"""headers of the message itself, which no service may change"""


class GrpcClient:
    """See `ratelimit.Client`."""

    __slots__ = ("_context", "_service", "_timeout")

    def __init__(self, config: GlobalRateLimitConfig, context: FilterContext) -> None:
        self._context = context
        self._service = config.service
        self._timeout = config.timeout_s

    async def ask(self, domain: str, descriptors: list[Descriptor]) -> Answer:
        """Raises ServiceError."""
        message = rls_pb2.RateLimitRequest(domain=domain)
        for descriptor in descriptors:
            entries = message.descriptors.add().entries
            for key, value in descriptor:
                entries.add(key=key, value=value)
        answer = await call_grpc(self._context, self._service, PATH, message.SerializeToString(), self._timeout)
        response = rls_pb2.RateLimitResponse()
        try:
            response.ParseFromString(answer)
        except DecodeError:
            raise ServiceError(Failure.MALFORMED) from None
        return answer_of(response)


def answer_of(response: Any) -> Answer:
    """What a `RateLimitResponse` means. One that does not say OVER_LIMIT lets the request pass, as with Envoy."""
    metadata = json_format.MessageToDict(response.dynamic_metadata) if response.HasField("dynamic_metadata") else {}
    return Answer(
        response.overall_code == rls_pb2.RateLimitResponse.OVER_LIMIT,
        request_headers=_pairs(response.request_headers_to_add),
        response_headers=_pairs(response.response_headers_to_add),
        body=response.raw_body,
        metadata=metadata,
        x_headers=x_headers(response.statuses),
    )


def _pairs(headers: Any) -> list[tuple[bytes, bytes]]:
    pairs = [(one.key.lower().encode(), one.raw_value or one.value.encode()) for one in headers]
    return [(name, value) for name, value in pairs if name not in _FIXED and not name.startswith(b":")]


def x_headers(statuses: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """The headers of draft-polli-ratelimit-headers-03: of the limit that is nearest, and all limits with their windows."""
    nearest: Any = None
    policies: list[str] = []
    for status in statuses:
        if not status.HasField("current_limit"):
            continue
        limit = status.current_limit
        if nearest is None or status.limit_remaining < nearest.limit_remaining:
            nearest = status
        window = _WINDOWS[limit.unit] if limit.unit < len(_WINDOWS) else 0
        if window:
            name = f';name="{limit.name}"' if limit.name else ""
            policies.append(f"{limit.requests_per_unit};w={window}{name}")
    if nearest is None:
        return []
    limits = ", ".join([str(nearest.current_limit.requests_per_unit), *policies])
    return [
        (b"x-ratelimit-limit", limits.encode()),
        (b"x-ratelimit-remaining", b"%d" % nearest.limit_remaining),
        (b"x-ratelimit-reset", b"%d" % nearest.duration_until_reset.seconds),
    ]
