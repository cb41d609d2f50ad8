"""Regular expressions that somebody types into a query: RE2, which takes linear time for all of them."""

from __future__ import annotations

from typing import Any

import re2


class BadRegex(Exception):
    """Not a regular expression; the text is RE2's."""


def compile_regex(pattern: str) -> Any:
    """Raises BadRegex."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid"
        raise BadRegex(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
