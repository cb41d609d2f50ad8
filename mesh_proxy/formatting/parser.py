"""Splits a format string into literals and operators (Envoy: `source/common/formatter/substitution_formatter.cc`)."""

from __future__ import annotations

import re
from typing import Final

from mesh_proxy.formatting import dubbo, facts, headers, metadata, timing, tls  # noqa: F401  they fill the table
from mesh_proxy.formatting.operator import OPERATORS, Operator, Syntax

COMMAND: Final = re.compile(r"%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%")
"""one operator; the parameter ends at the first `)` that a length or a `%` follows"""


def parse(text: str, path: str = "") -> list[bytes | Operator]:
    """The pieces of a format string; neighbouring literals are one piece.

    Args:
        text: the format; `%%` stands for one percent sign.
        path: where the format stands in the configuration, for the error's text.

    Raises:
        ValueError: the syntax is wrong or a command is unknown.
    """
    pieces: list[bytes | Operator] = []
    literal = ""
    position = 0
    while True:
        percent = text.find("%", position)
        if percent < 0:
            literal += text[position:]
            break
        literal += text[position:percent]
        if text.startswith("%%", percent):
            literal += "%"
            position = percent + 2
            continue
        match = COMMAND.match(text, percent)
        if match is None:
            raise ValueError(f"{_at(path)}no valid command at position {percent} of {text!r}")
        if literal:
            pieces.append(literal.encode())
            literal = ""
        pieces.append(compile_operator(match[1], match[2], match[3], path))
        position = match.end()
    if literal:
        pieces.append(literal.encode())
    return pieces


def compile_operator(name: str, parameter: str | None, length: str | None, path: str = "") -> Operator:
    """One operator of the table.

    Raises:
        ValueError: the command is unknown or its parameter or length is wrong.
    """
    entry = OPERATORS.get(name)
    if entry is None:
        raise ValueError(f"{_at(path)}unknown operator %{name}%")
    syntax, factory = entry
    if parameter is None and Syntax.PARAMETER_REQUIRED in syntax:
        raise ValueError(f"{_at(path)}%{name}% needs a parameter in parentheses")
    if parameter is not None and not syntax & (Syntax.PARAMETER_REQUIRED | Syntax.PARAMETER_OPTIONAL):
        raise ValueError(f"{_at(path)}%{name}% takes no parameter")
    if length is not None and Syntax.LENGTH not in syntax:
        raise ValueError(f"{_at(path)}%{name}% takes no length")
    try:
        return factory(parameter or "", None if length is None else int(length))
    except ValueError as error:
        raise ValueError(f"{_at(path)}%{name}%: {error}") from None


def _at(path: str) -> str:
    return f"{path}: " if path else ""
