"""Status lines and field lines as bytes: made and checked once, then looked up and joined in C."""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.headers import Headers

# Envoy's wording (`Http::CodeUtility`), which is that of RFC 9110 with a few of its own.
_REASONS: Final[dict[int, bytes]] = {
    100: b"Continue",
    101: b"Switching Protocols",
    102: b"Processing",
    103: b"Early Hints",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    203: b"Non-Authoritative Information",
    204: b"No Content",
    205: b"Reset Content",
    206: b"Partial Content",
    207: b"Multi-Status",
    208: b"Already Reported",
    226: b"IM Used",
    300: b"Multiple Choices",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    305: b"Use Proxy",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Payload Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    422: b"Unprocessable Entity",
    423: b"Locked",
    424: b"Failed Dependency",
    425: b"Too Early",
    426: b"Upgrade Required",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    506: b"Variant Also Negotiates",
    507: b"Insufficient Storage",
    508: b"Loop Detected",
    510: b"Not Extended",
    511: b"Network Authentication Required",
}

_STATUS_LINES: Final[tuple[dict[int, bytes], dict[int, bytes]]] = (
    {status: b"HTTP/1.0 %d %b" % (status, _REASONS.get(status, b"Unknown")) for status in range(100, 1000)},
    {status: b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Unknown")) for status in range(100, 1000)},
)


def reason(status: int) -> bytes:
    """The reason phrase that Envoy prints."""
    return _REASONS.get(status, b"Unknown")


def status_line(status: int, minor: int) -> bytes:
    """Status line, without its CR LF.

    Raises:
        LocalProtocolError: this is no status.
    """
    line = _STATUS_LINES[minor].get(status)
    if line is None:
        raise LocalProtocolError("http1.invalid_status", 500, f"status {status}")
    return line


def render_fields(headers: Headers) -> bytes:
    """The header lines, joined by CR LF, without one at the end; empty for no header.

    The whole block is checked at once: every CR and LF in it must be one that joined two lines.

    Raises:
        LocalProtocolError: a name or value holds CR, LF or NUL, which would end the line or the message early.
    """
    lines = list(map(_line, headers.first.items()))
    if headers.more is not None:
        lines += map(_line, headers.more)
    block = b"\r\n".join(lines)
    if lines and (block.count(b"\n") != len(lines) - 1 or block.count(b"\r") != len(lines) - 1 or b"\0" in block):
        raise LocalProtocolError("http1.invalid_characters", 500, "CR, LF or NUL in a header field")
    return block


_line: Final = b": ".join
