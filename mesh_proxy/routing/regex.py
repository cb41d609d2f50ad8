"""User-given regular expressions: RE2 on bytes, linear in time whatever a request holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import re2

REWRITE_TOKEN: Final = re.compile(rb"\\([0-9\\])")
"""what a backslash may stand before in a substitution (`RE2::CheckRewriteString`)"""


def compile_regex(pattern: str, *, captures: bool = False) -> Any:
    """An RE2 pattern over bytes (UTF-8, as Envoy compiles it).

    Raises:
        ValueError: the pattern is no valid RE2 expression.
    """
    options = re2.Options()
    options.log_errors = False
    options.never_capture = not captures
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid"
        raise ValueError(f"{pattern!r}: {reason.decode() if isinstance(reason, bytes) else reason}") from None


def compile_full_match(pattern: str) -> Callable[[bytes], bool]:
    """A test whether a whole value matches."""
    fullmatch = compile_regex(pattern).fullmatch
    return lambda value: fullmatch(value) is not None


class RegexRewrite:
    """`RegexMatchAndSubstitute`: replaces every match, as `RE2::GlobalReplace` does."""

    __slots__ = ("_pieces", "_search")

    def __init__(self, pattern: str, substitution: str) -> None:
        compiled = compile_regex(pattern, captures=True)
        self._search: Callable[[bytes, int], Any] = compiled.search
        text = substitution.encode()
        if b"\\" in REWRITE_TOKEN.sub(b"", text):
            raise ValueError(f"{substitution!r}: a backslash must be followed by a digit or a backslash")
        # Literals at even places, group numbers at odd ones.
        self._pieces: list[bytes | int] = []
        for index, piece in enumerate(REWRITE_TOKEN.split(text)):
            if index % 2 == 0:
                self._pieces.append(piece)
            elif piece == b"\\":
                self._pieces.append(b"\\")
            elif int(piece) > compiled.groups:
                raise ValueError(f"{substitution!r}: {pattern!r} has no group {int(piece)}")
            else:
                self._pieces.append(int(piece))

    def replace(self, text: bytes) -> bytes:
        """The text with every match replaced; an empty match right after a match counts for nothing."""
        out: list[bytes] = []
        position, last_end = 0, -1
        while position <= len(text):
            match = self._search(text, position)
            if match is None:
                break
            start, end = match.span()
            out.append(text[position:start])
            if start == end == last_end:
                out.append(text[start : start + 1])
                position = start + 1
                continue
            out += [piece if isinstance(piece, bytes) else (match.group(piece) or b"") for piece in self._pieces]
            position = last_end = end
        out.append(text[position:])
        return b"".join(out)
