"""What one `%COMMAND(parameter):length%` is once compiled, and the table in which commands are found."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mesh_proxy.stream.info import StreamInfo

Text = Callable[[StreamInfo], bytes | None]
"""the operator's text, None when there is nothing to say"""
Value = Callable[[StreamInfo], Any]
"""the operator's value for JSON: a string, number, bool, list, dict or None"""


@dataclass(frozen=True, slots=True)
class Operator:
    """One compiled operator."""

    text: Text
    value: Value


class Syntax(enum.Flag):
    """What may follow a command's name."""

    PLAIN = 0
    PARAMETER_REQUIRED = enum.auto()
    PARAMETER_OPTIONAL = enum.auto()
    LENGTH = enum.auto()


Factory = Callable[[str, int | None], Operator]
"""makes the operator from its parameter and length; raises ValueError"""

OPERATORS: Final[dict[str, tuple[Syntax, Factory]]] = {}
"""every known command; the modules of this package fill it when they are imported"""


def text_of(value: bytes | None) -> str | None:
    """Bytes from the wire as a JSON string; what is no UTF-8 becomes the replacement character."""
    return None if value is None else value.decode("utf-8", "replace")


def string_operator(text: Text, length: int | None = None) -> Operator:
    """An operator whose value is a string, cut to `length` bytes."""
    if length is not None:
        whole = text

        def text(info: StreamInfo) -> bytes | None:
            value = whole(info)
            return None if value is None else value[:length]

    return Operator(text, lambda info: text_of(text(info)))


def number_operator(number: Callable[[StreamInfo], int | None]) -> Operator:
    """An operator whose value is a number."""

    def text(info: StreamInfo) -> bytes | None:
        value = number(info)
        return None if value is None else b"%d" % value

    return Operator(text, number)


def register(name: str, factory: Factory, syntax: Syntax = Syntax.PLAIN) -> None:
    """Make a command known."""
    OPERATORS[name] = (syntax, factory)


def register_text(name: str, text: Text) -> None:
    """A command without parameters whose value is a string."""
    operator = string_operator(text)
    register(name, lambda parameter, length: operator)


def register_number(name: str, number: Callable[[StreamInfo], int | None]) -> None:
    """A command without parameters whose value is a number."""
    operator = number_operator(number)
    register(name, lambda parameter, length: operator)
