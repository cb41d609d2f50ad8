"""Answers that we make ourselves: one table from what happened to what each protocol's caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes

from mesh_codecs.errors import ResetReason
from mesh_proxy.stream import flags


@dataclass(frozen=True, slots=True)
class ResetAnswer:
    """What a caller is told when its upstream request died."""

    http_status: int
    grpc_status: int
    dubbo_status: int
    flag: int
    """response flag"""


UNAVAILABLE: Final = 14
DUBBO_SERVER_ERROR: Final = 80
DUBBO_SERVER_TIMEOUT: Final = 31
DUBBO_CHANNEL_INACTIVE: Final = 35
DUBBO_EXHAUSTED: Final = 100

RESET_ANSWERS: Final[dict[ResetReason, ResetAnswer]] = {
    ResetReason.LOCAL_RESET: ResetAnswer(503, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.LOCAL_RESET),
    ResetReason.LOCAL_REFUSED: ResetAnswer(503, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.LOCAL_RESET),
    ResetReason.REMOTE_RESET: ResetAnswer(503, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.UPSTREAM_REMOTE_RESET),
    ResetReason.REMOTE_REFUSED: ResetAnswer(503, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.UPSTREAM_REMOTE_RESET),
    ResetReason.PROTOCOL_ERROR: ResetAnswer(502, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.UPSTREAM_PROTOCOL_ERROR),
    ResetReason.CONNECTION_TERMINATION: ResetAnswer(
        503, UNAVAILABLE, DUBBO_CHANNEL_INACTIVE, flags.UPSTREAM_CONNECTION_TERMINATION
    ),
    ResetReason.LOCAL_CONNECTION_FAILURE: ResetAnswer(
        503, UNAVAILABLE, DUBBO_CHANNEL_INACTIVE, flags.UPSTREAM_CONNECTION_FAILURE
    ),
    ResetReason.REMOTE_CONNECTION_FAILURE: ResetAnswer(
        503, UNAVAILABLE, DUBBO_CHANNEL_INACTIVE, flags.UPSTREAM_CONNECTION_FAILURE
    ),
    ResetReason.CONNECTION_TIMEOUT: ResetAnswer(503, UNAVAILABLE, DUBBO_CHANNEL_INACTIVE, flags.UPSTREAM_CONNECTION_FAILURE),
    ResetReason.OVERFLOW: ResetAnswer(503, UNAVAILABLE, DUBBO_EXHAUSTED, flags.UPSTREAM_OVERFLOW),
}
"""Every reason has its row; a test checks it (Envoy: source/common/router/router.cc, streamResetReasonToResponseFlag)."""

GRPC_STATUS_OF_HTTP: Final[dict[int, int]] = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""doc/http-grpc-status-mapping.md of gRPC; anything else is UNKNOWN (2)."""


def reset_body(reason: ResetReason, retried: bool) -> bytes:
    """Envoy's text for a request that died before its response began.

    Why the transport failed stands in the log only: since 1.38.1 Envoy does not tell callers about the inside of the mesh.
    """
    latest = "retried and the latest " if retried else ""
    return f"upstream connect error or disconnect/reset before headers. {latest}reset reason: {reason.value}".encode()


def grpc_status_of(http_status: int) -> int:
    """The gRPC status that stands for an HTTP status of ours."""
    return GRPC_STATUS_OF_HTTP.get(http_status, 2)


def grpc_message(body: bytes) -> bytes:
    """A `grpc-message` value: percent-encoded as the gRPC-over-HTTP/2 specification asks."""
    return quote_from_bytes(body, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()


def is_grpc_content_type(value: bytes | None) -> bool:
    """`application/grpc`, with or without a `+suffix` or parameters."""
    return (
        value is not None
        and value.startswith(b"application/grpc")
        and (len(value) == len(b"application/grpc") or value[len(b"application/grpc") :][:1] in (b"+", b";"))
    )
