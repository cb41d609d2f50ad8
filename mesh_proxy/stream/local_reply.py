"""Answers that we make ourselves: one table from what happened to what each protocol's caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    ResetReason.CONNECT_ERROR: ResetAnswer(503, UNAVAILABLE, DUBBO_SERVER_ERROR, flags.UPSTREAM_REMOTE_RESET),
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


def reset_body(reason: ResetReason, retried: bool) -> bytes:
    """Envoy's text for a request that died before its response began.

    Why the transport failed stands in the log only: since 1.38.1 Envoy does not tell callers about the inside of the mesh.
    """
    latest = "retried and the latest " if retried else ""
    return f"upstream connect error or disconnect/reset before headers. {latest}reset reason: {reason.value}".encode()
