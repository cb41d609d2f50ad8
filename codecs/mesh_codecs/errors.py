"""The errors every floor shares, and the reasons for which a stream can end early."""

from __future__ import annotations

import enum


class MeshError(Exception):
    """Root of all our exceptions."""


class ResetReason(enum.Enum):
    """Why a stream ended before its end. The value is Envoy's wording, which appears in local replies and details."""

    LOCAL_RESET = "local reset"
    REMOTE_RESET = "remote reset"
    REMOTE_REFUSED = "remote refused stream reset"
    LOCAL_REFUSED = "local refused stream reset"
    CONNECT_ERROR = "remote error with CONNECT request"
    PROTOCOL_ERROR = "protocol error"
    CONNECTION_TERMINATION = "connection termination"
    LOCAL_CONNECTION_FAILURE = "local connection failure"
    REMOTE_CONNECTION_FAILURE = "remote connection failure"
    CONNECTION_TIMEOUT = "connection timeout"
    OVERFLOW = "overflow"


class ProtocolError(MeshError):
    """A rule of a protocol was broken.

    `code` is a stable string such as `http1.content_length_and_chunked_not_allowed` (it ends up in
    `%RESPONSE_CODE_DETAILS%`); `status` is the HTTP status that fits, where one does.
    """

    def __init__(self, code: str, status: int = 400, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.status = status
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids: a bug of ours. The codec's state is untouched."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Never raised by `receive_data`: it travels inside an event."""
