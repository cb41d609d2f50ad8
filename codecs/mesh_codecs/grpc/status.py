"""gRPC status codes, what they are in HTTP, and how a `grpc-message` is written."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_from_bytes

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
INVALID: Final = -1
"""a `grpc-status` that is not one of the codes"""

STATUS_NAMES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""names by number (grpc: doc/statuscodes.md)"""

_OF_HTTP: Final[dict[int, int]] = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""doc/http-grpc-status-mapping.md of gRPC; anything else is UNKNOWN"""

_TO_HTTP: Final = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
"""by gRPC status, as google.rpc.Code and Envoy have it"""

_PRINTABLE: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}"


def status_of_http(http_status: int) -> int:
    """The gRPC status that stands for an HTTP answer without one."""
    return _OF_HTTP.get(http_status, UNKNOWN)


def http_of_status(status: int) -> int:
    """The HTTP status that says about the same; 500 for codes that nobody defined."""
    return _TO_HTTP[status] if 0 <= status < len(_TO_HTTP) else 500


def status_of_value(value: bytes | None) -> int | None:
    """What a `grpc-status` field says: a code, INVALID for anything that is none, None when it is absent or empty."""
    if not value:
        return None
    code = _KNOWN.get(value)
    if code is not None:
        return code
    if value.isdigit() and len(value) < 20 and int(value) < len(STATUS_NAMES):
        return int(value)
    return INVALID


_KNOWN: Final[dict[bytes, int]] = {b"%d" % code: code for code in range(len(STATUS_NAMES))}


def encode_message(text: bytes) -> bytes:
    """A `grpc-message` value: percent-encoded as the gRPC-over-HTTP/2 specification asks."""
    return quote_from_bytes(text, safe=_PRINTABLE).encode()


def is_grpc_content_type(value: bytes | None) -> bool:
    """`application/grpc`, alone or with `+` and a format; `application/grpc-web` and parameters are something else (Envoy)."""
    return value is not None and value[:16] == b"application/grpc" and (len(value) == 16 or value[16] == 0x2B)
