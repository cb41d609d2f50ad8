"""Checks for the small languages inside strings: regular expressions (RE2) and `%…%` format strings."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
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
    check = _checker()
    if check is not None:
        try:
            check(text)
        except ValueError as error:
            raise ConfigError(path, f"not a valid format string: {error}") from None


_found: list[Callable[[str], object] | None] = []


def _checker() -> Callable[[str], object] | None:
    """The formatter's compiler, None as long as it does not know the operators of Envoy's default access log line."""
    if not _found:
        _found.append(None)
        if importlib.util.find_spec("mesh_proxy.formatting") is not None:
            module = importlib.import_module("mesh_proxy.formatting")
            try:
                module.compile_format(module.DEFAULT_FORMAT)
                _found[0] = module.compile_format
            except ValueError:
                pass
    return _found[0]
