"""Checks for the small languages inside strings: regular expressions (RE2) and `%…%` format strings."""

from __future__ import annotations

from typing import Any

import re2

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.reader import Reader

_options = re2.Options()
_options.log_errors = False


def compiled(pattern: str, path: str) -> Any:
    """The compiled pattern, or an error with the reason that RE2 gives."""
    try:
        return re2.compile(pattern, _options)
    except re2.error as error:
        reason = error.args[0] if error.args else "syntax error"
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise ConfigError(path, f"not a valid regular expression (RE2): {reason}") from None


def regex(reader: Reader) -> str:
    """`envoy.type.matcher.v3.RegexMatcher`."""
    pattern = reader.text("regex")
    compiled(pattern, reader.at("regex"))
    return pattern


def check_format(text: str, path: str) -> None:
    """Refuse a format string that the formatter cannot compile."""
    if "%" not in text:
        return
    # Not at the top: whoever only translates clusters need not load the operators.
    from mesh_proxy.formatting import compile_format

    try:
        compile_format(text)
    except ValueError as error:
        raise ConfigError(path, f"not a valid format string: {error}") from None
