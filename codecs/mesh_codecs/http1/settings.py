"""What an operator may set about HTTP/1.1, and the limits nobody may lift. Each limit says why it is what it is."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 60 * 1024
"""Start line and header fields, in bytes: Envoy's `max_request_headers_kb` default."""

MAX_HEADER_COUNT: Final = 100
"""Header fields of one block, Host included: Envoy's `max_headers_count` default."""

MAX_LEADING_CRLF: Final = 16
"""Empty lines before a request line (RFC 9112, 2.2 asks for one at least). Old browsers sent one after a POST."""

MAX_CHUNK_EXTENSION_BYTES: Final = 256
"""Extensions are dropped, but they cost reading: a body of one-byte chunks must not carry kilobytes of them."""

MAX_CHUNK_SIZE_DIGITS: Final = 13
"""Hexadecimal digits of a chunk size: 2**52 - 1, so that no peer with doubles or signed integers reads another number."""

MAX_CONTENT_LENGTH_DIGITS: Final = 18
"""Decimal digits of Content-Length: below 2**63, so that no peer's integer overflows."""

MAX_INFORMATIONAL: Final = 32
"""1xx heads before one final response; more is an upstream that never answers."""

MAX_EARLY_TUNNEL_BYTES: Final = 64 * 1024
"""Tunnel bytes kept until the upstream accepts the tunnel: one high watermark."""

UNLIMITED_WINDOW: Final = 2**31 - 1
"""HTTP/1 has no flow control of its own, TCP does it: `send_window` answers with this."""


class UnderscoreAction(enum.Enum):
    """Envoy's `common_http_protocol_options.headers_with_underscores_action`."""

    ALLOW = "ALLOW"
    REJECT_REQUEST = "REJECT_REQUEST"
    DROP_HEADER = "DROP_HEADER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Settings:
    """Settings of one side of a connection; the names are Envoy's where Envoy has one."""

    max_head_bytes: int = MAX_HEAD_BYTES
    """start line and header fields, in bytes; more is answered with 431"""
    max_header_count: int = MAX_HEADER_COUNT
    """header fields of one block, Host included; more is answered with 431"""
    accept_http_10: bool = False
    """`http_protocol_options.accept_http_10`; without it HTTP/1.0 is answered with 426"""
    default_host_for_http_10: bytes = b""
    """authority of an HTTP/1.0 request that names none"""
    allow_absolute_url: bool = True
    """`http_protocol_options.allow_absolute_url`; without it an absolute-form target is passed on as the path, as Envoy does"""
    headers_with_underscores_action: UnderscoreAction = UnderscoreAction.ALLOW
    """what becomes of a header whose name holds `_`, on the downstream side only"""
    enable_trailers: bool = False
    """`http_protocol_options.enable_trailers`; without it trailers are read and dropped, in both directions"""
    farewell_fields: Callable[[], bytes] = bytes
    """more header lines (`server: x` CR LF …) for the answers that this codec makes itself; asked each time, for
    the sake of `date`"""
