"""A format string, compiled: what access-log lines, header values and local reply bodies are made by."""

from __future__ import annotations

from typing import Final

from mesh_proxy.formatting.line import Formatter, Part
from mesh_proxy.formatting.parser import parse

DEFAULT_FORMAT: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
"""Envoy's default access-log line"""


def compile_format(text: str, path: str = "", *, omit_empty: bool = False) -> Formatter:
    """Compile a format string.

    Args:
        text: literals, `%COMMAND(parameter):length%` and `%%`.
        path: where it stands in the configuration, for the error's text.
        omit_empty: an operator with nothing to say leaves nothing, as in header values, and not `-`, as in logs.

    Raises:
        ValueError: the syntax is wrong or a command is unknown.
    """
    pieces = parse(text, path)
    parts = [piece if isinstance(piece, bytes) else Part(piece, False) for piece in pieces]
    return Formatter(parts, b"" if omit_empty else b"-")
