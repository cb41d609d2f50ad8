"""A whole line, compiled: literals and operators, one after the other.

Of the operators of usual lines most say the same for every request with a known head that a known response answers. So where the
shortest way is taken (`mesh_proxy.stream.planned_stream`) a line is a `PlannedLine`: the text with what is the same in it, and
places for the few values that each request has of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any, Final

from mesh_proxy.formatting.metadata import json_bytes
from mesh_proxy.formatting.operator import (
    EACH,
    NUMBERS,
    REQUEST_ID,
    SAME,
    SERVICE_TIME,
    START_TIME,
    UNKNOWN,
    Kind,
    Operator,
    Text,
)
from mesh_proxy.formatting.timing import TimeFormat
from mesh_proxy.stream.info import StreamInfo

_SAFE: Final = bytes(byte for byte in range(32, 128) if byte not in b'"\\')
"""what stands in a JSON string as it is"""


def unsafe(text: bytes) -> bytes:
    """What of a text is not to stand in a JSON string as it is."""
    return text.translate(None, _SAFE)


def quoted(text: bytes) -> bytes:
    """Text from the wire as a JSON string; what is no UTF-8 becomes the replacement character."""
    return encode_basestring(text.decode("utf-8", "replace")).encode("utf-8", "replace")


class Part:
    """An operator of a line."""

    __slots__ = ("as_json", "operator")

    def __init__(self, operator: Operator, as_json: bool) -> None:
        self.operator = operator
        self.as_json = as_json
        """written as a JSON value, null where it is missing; else bare, with something in place of what is missing"""


class PlannedLine:
    """The line of equal requests."""

    __slots__ = ("pick", "template")

    def __init__(self, template: bytes, places: list[int]) -> None:
        self.template = template
        """with a conversion for each place"""
        self.pick: Callable[[tuple[object, ...]], Any] = itemgetter(*places) if places else itemgetter(slice(0))
        """takes those for the template from the values of a request, which are in the order of `operator.START_TIME` and so on"""


class Formatter:
    """Turns what is known about a stream into one byte string.

    Args:
        parts: literals and operators.
        missing: stands for a bare operator that has nothing to say.
    """

    __slots__ = ("_bare", "_steps", "_template", "answerable", "clock", "literal", "missing", "parts", "plannable")

    def __init__(self, parts: list[bytes | Part], missing: bytes = b"-") -> None:
        self.parts = parts
        self.missing = missing
        dynamic = [part for part in parts if isinstance(part, Part)]
        self._bare: tuple[Text, ...] | None = None
        """all operators, if none of them is a JSON value"""
        if not any([part.as_json for part in dynamic]):
            self._bare = tuple([part.operator.text for part in dynamic])
        self._steps: tuple[tuple[Text, bool], ...] = tuple([step_of(part.operator) for part in dynamic])
        """all operators as JSON values, and which are to be quoted"""
        self._template = b"".join([part.replace(b"%", b"%%") if isinstance(part, bytes) else b"%b" for part in parts])
        self.literal: bytes | None = None if dynamic else self._template % ()
        """the result, when it is always the same"""
        clocks = [part for part in dynamic if part.operator.place == START_TIME]
        self.clock: TimeFormat | None = clocks[0].operator.clock if clocks else None
        """how the time of the beginning is written"""
        self.plannable = (
            all([part.operator.place > EACH for part in dynamic])
            and len(clocks) < 2
            and (self.clock is None or self.clock.plain or not clocks[0].as_json)
        )
        """nothing is in it but what is the same for equal requests, or has a place"""
        self.answerable = all([part.operator.place != UNKNOWN for part in dynamic])
        """nothing is in it but what is known of requests that go the shortest way"""

    def format(self, info: StreamInfo) -> bytes:
        """The text for one stream."""
        bare = self._bare
        if bare is not None:
            texts = [text_of(info) for text_of in bare]
            if None in texts:
                missing = self.missing
                return self._template % tuple([missing if text is None else text for text in texts])
            return self._template % tuple(texts)
        values: list[bytes] = []
        for text_of, quotes in self._steps:
            text = text_of(info)
            if text is None:
                values.append(b"null")
            elif not quotes:
                values.append(text)
            elif text.translate(None, _SAFE):
                values.append(quoted(text))
            else:
                values.append(b'"%b"' % text)
        return self._template % tuple(values)

    def plan(self, info: StreamInfo, *, has_id: bool, timed: bool) -> PlannedLine:
        """The line of all streams that equal this one, which is as it is at its end. For a format that is `plannable`.

        Args:
            info: what is known.
            has_id: every request has an id of its own.
            timed: every response says how long it took, which is another time each time.
        """
        template: list[bytes] = []
        places: list[int] = []
        for part in self.parts:
            if isinstance(part, bytes):
                template.append(part.replace(b"%", b"%%"))
                continue
            operator = part.operator
            place = operator.place
            if (place == REQUEST_ID and not has_id) or (place == SERVICE_TIME and not timed):
                place = SAME
            if place >= 0:
                conversion = b"%d" if place in NUMBERS else b"%b"
                template.append(b'"%b"' if part.as_json and place not in NUMBERS else conversion)
                places.append(place)
            else:
                template.append(Formatter([part], self.missing).format(info).replace(b"%", b"%%"))
        return PlannedLine(b"".join(template), places)


def step_of(operator: Operator) -> tuple[Text, bool]:
    """What an operator writes in JSON, and whether it is to be quoted."""
    if operator.kind is Kind.ANY:
        value = operator.value
        return lambda info: encode(value(info)), False
    return operator.text, operator.kind is Kind.STRING


def encode(value: Any) -> bytes:
    """One JSON value."""
    if isinstance(value, str):
        return encode_basestring(value).encode("utf-8", "replace")
    return json_bytes(value)
