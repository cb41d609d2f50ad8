"""A format string, compiled: what access-log lines, header values and local reply bodies are made by."""

from __future__ import annotations

from typing import Final

from mesh_proxy.formatting.operator import Operator, Text
from mesh_proxy.formatting.parser import parse
from mesh_proxy.stream.info import StreamInfo

DEFAULT_FORMAT: Final = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
"""Envoy's default access-log line"""


class Formatter:
    """Turns what is known about a stream into one byte string."""

    __slots__ = ("_missing", "_template", "_texts", "literal")

    def __init__(self, pieces: list[bytes | Operator], missing: bytes = b"-") -> None:
        self._missing = missing
        """stands for an operator that has nothing to say"""
        self._texts: tuple[Text, ...] = tuple(piece.text for piece in pieces if isinstance(piece, Operator))
        self._template = b"".join(b"%b" if isinstance(p, Operator) else p.replace(b"%", b"%%") for p in pieces)
        self.literal: bytes | None = None if self._texts else self._template % ()
        """the result, when it is always the same"""

    def format(self, info: StreamInfo) -> bytes:
        """The text for one stream."""
        values = [text(info) for text in self._texts]
        if None in values:
            missing = self._missing
            return self._template % tuple([missing if value is None else value for value in values])
        return self._template % tuple(values)


def compile_format(text: str, path: str = "", *, omit_empty: bool = False) -> Formatter:
    """Compile a format string.

    Args:
        text: literals, `%COMMAND(parameter):length%` and `%%`.
        path: where it stands in the configuration, for the error's text.
        omit_empty: an operator with nothing to say leaves nothing, as in header values, and not `-`, as in logs.

    Raises:
        ValueError: the syntax is wrong or a command is unknown.
    """
    return Formatter(parse(text, path), b"" if omit_empty else b"-")
