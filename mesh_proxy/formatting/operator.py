"""What one `%COMMAND(parameter):length%` is once compiled, and the table in which commands are found."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.stream.info import StreamInfo

if TYPE_CHECKING:
    from mesh_proxy.formatting.timing import TimeFormat

Text = Callable[[StreamInfo], bytes | None]
"""the operator's text, None when there is nothing to say"""
Value = Callable[[StreamInfo], Any]
"""the operator's value for JSON: a string, number, bool, list, dict or None"""

# How an operator's text comes about for a request that goes the shortest way (`mesh_proxy.stream.planned_stream`).

UNKNOWN: Final = -3
"""it is known only of a request that went the long way"""
EACH: Final = -2
"""it is known, and asked for each request"""
SAME: Final = -1
"""it is the same for all requests with the same plan, the same known response head and the rest of `log_planned`'s key"""
START_TIME: Final = 0
"""from here on: what differs from request to request, as a place in the values that `PlannedLine.pick` takes"""
DURATION: Final = 1
SERVICE_TIME: Final = 2
"""`x-envoy-upstream-service-time`"""
REQUEST_ID: Final = 3
"""`x-request-id`"""
UPSTREAM_LOCAL: Final = 4
DOWNSTREAM_REMOTE: Final = 5
DOWNSTREAM_LOCAL: Final = 6
DOWNSTREAM_DIRECT: Final = 7
CONNECTION_ID: Final = 8
UPSTREAM_HOST: Final = 9
NUMBERS: Final = (DURATION, CONNECTION_ID)
"""the places whose values are integers; those of the others are bytes"""


class Kind(enum.Enum):
    """What an operator is in JSON."""

    STRING = enum.auto()
    """its text in quotes"""
    NUMBER = enum.auto()
    """its text as it is"""
    ANY = enum.auto()
    """whatever `value` says"""


class Operator:
    """One compiled operator.

    Args:
        text: its text.
        value: its value in JSON.
        kind: what that value is.
        place: `UNKNOWN`, `EACH`, `SAME` or a place in the values of each request.
        clock: how it writes a time, where the place is `START_TIME`.
        fact: the attribute of `StreamInfo` on which alone its text depends, if that has few values; else empty.
        field: the header of the request that its text is; empty if it is another.
        raw: the attribute of `StreamInfo`, an int or bytes, that is its text as it is; if it is empty there is nothing to say.
    """

    __slots__ = ("clock", "fact", "field", "kind", "place", "raw", "text", "value")

    def __init__(
        self,
        text: Text,
        value: Value,
        kind: Kind = Kind.ANY,
        place: int = UNKNOWN,
        clock: TimeFormat | None = None,
        fact: str = "",
        field: bytes = b"",
        raw: str = "",
    ) -> None:
        self.text = text
        self.value = value
        self.kind = kind
        self.place = place
        self.clock = clock
        self.fact = fact
        self.field = field
        self.raw = raw


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


def string_operator(
    text: Text,
    length: int | None = None,
    place: int = UNKNOWN,
    *,
    clock: TimeFormat | None = None,
    fact: str = "",
    field: bytes = b"",
    raw: str = "",
) -> Operator:
    """An operator whose value is a string, cut to `length` bytes."""
    if length is None:
        return Operator(text, lambda info: text_of(text(info)), Kind.STRING, place, clock, fact, field, raw)
    size: int = length

    def cut(info: StreamInfo) -> bytes | None:
        value = text(info)
        return None if value is None else value[:size]

    return Operator(cut, lambda info: text_of(cut(info)), Kind.STRING, place if place < 0 else EACH, None, fact)


def number_operator(
    number: Callable[[StreamInfo], int | None], place: int = UNKNOWN, *, fact: str = "", raw: str = ""
) -> Operator:
    """An operator whose value is a number."""

    def text(info: StreamInfo) -> bytes | None:
        value = number(info)
        return None if value is None else b"%d" % value

    return Operator(text, number, Kind.NUMBER, place, None, fact, b"", raw)


def register(name: str, factory: Factory, syntax: Syntax = Syntax.PLAIN) -> None:
    """Make a command known."""
    OPERATORS[name] = (syntax, factory)


def register_text(name: str, text: Text, place: int = UNKNOWN, *, fact: str = "", raw: str = "") -> None:
    """A command without parameters whose value is a string."""
    operator = string_operator(text, None, place, fact=fact, raw=raw)
    register(name, lambda parameter, length: operator)


def register_number(
    name: str, number: Callable[[StreamInfo], int | None], place: int = UNKNOWN, *, fact: str = "", raw: str = ""
) -> None:
    """A command without parameters whose value is a number."""
    operator = number_operator(number, place, fact=fact, raw=raw)
    register(name, lambda parameter, length: operator)
