"""Operators for points in time and durations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from mesh_proxy.formatting.operator import (
    DURATION,
    EACH,
    SAME,
    START_TIME,
    Operator,
    Syntax,
    Text,
    number_operator,
    register,
    register_number,
    string_operator,
)
from mesh_proxy.stream.info import StreamInfo

DEFAULT_UTC: Final = "%Y-%m-%dT%H:%M:%E3SZ"
DEFAULT_LOCAL: Final = "%Y-%m-%dT%H:%M:%E3S%z"

_SPECIFIER: Final = re.compile(r"%(?:([1-9]?)f|E([1-9])f|E([0-9]|\*)S|(E\*?z)|([0-9]?)s|(E\*f)|(.))", re.DOTALL)
_STRFTIME: Final = frozenset("aAbBcCdDeFgGhHIjklmMnprRStTuUVwWxXyYzZ%")
"""what strftime is asked for; another letter stays as it is, with its percent sign"""

Piece = str | int
"""strftime text, or the number of digits of a fraction of the second (negative: trailing zeros removed)"""

TRIMMED: Final = -9


def _split(text: str) -> list[Piece]:
    """A time format as text for strftime and fractions between it."""
    pieces: list[Piece] = []
    literal = ""

    def fraction(digits: int) -> None:
        nonlocal literal
        pieces.append(literal)
        pieces.append(digits)
        literal = ""

    position = 0
    for match in _SPECIFIER.finditer(text):
        literal += text[position : match.start()].replace("%", "%%")
        position = match.end()
        digits, e_digits, e_seconds, zone, seconds, e_fraction, letter = match.groups()
        if digits is not None:
            fraction(int(digits or 9))
        elif e_digits is not None:
            fraction(int(e_digits))
        elif e_seconds is not None:
            literal += "%S"
            if e_seconds != "0":
                # With a star the point goes too when no digit is left.
                literal += "." if e_seconds != "*" else ""
                fraction(TRIMMED - 1 if e_seconds == "*" else int(e_seconds))
        elif zone is not None:
            literal += "%:z"
        elif seconds is not None:
            literal += "%s"
        elif e_fraction is not None:
            fraction(TRIMMED)
        else:
            literal += f"%{letter}" if letter in _STRFTIME else f"%%{letter}"
    pieces.append(literal + text[position:].replace("%", "%%"))
    return pieces


def _seconds_text(template: str, seconds: int, *, local: bool) -> str:
    """strftime with `%s` and `%:z`, which depend on neither the locale nor the process's zone here."""
    broken_down = time.localtime(seconds) if local else time.gmtime(seconds)
    if not local:
        template = template.replace("%Z", "UTC").replace("%z", "+0000").replace("%:z", "+00:00")
    elif "%:z" in template:
        zone = time.strftime("%z", broken_down)
        template = template.replace("%:z", f"{zone[:3]}:{zone[3:]}")
    return time.strftime(template.replace("%s", str(seconds)), broken_down)


class TimeFormat:
    """A format of points in time. What changes only once a second is computed once a second."""

    __slots__ = ("_after", "_before", "_fractions", "_local", "_millis", "_second", "_template", "_texts", "plain")

    def __init__(self, text: str, *, local: bool = False) -> None:
        pieces = _split(text)
        self._texts = [piece for piece in pieces if isinstance(piece, str)]
        self._fractions = [piece for piece in pieces if isinstance(piece, int)]
        self._local = local
        self._second = -1
        self._template: list[bytes] = []
        self._millis = self._fractions == [3]
        """the common form: milliseconds are all that is not text"""
        self._before = b""
        self._after = b""
        literals = _SPECIFIER.sub("", text)
        self.plain = literals.isascii() and literals.isprintable() and '"' not in literals and "\\" not in literals
        """what it makes needs no escapes in JSON"""

    def format(self, wall: float) -> bytes:
        """The text for a number of seconds since the epoch."""
        second = int(wall)
        if second != self._second:
            self._template = [_seconds_text(text, second, local=self._local).encode() for text in self._texts]
            self._second = second
            self._before = self._template[0]
            self._after = self._template[-1]
        if self._millis:
            # A float of this size is exact to a quarter of a microsecond.
            micros = int((wall - second) * 1e6 + 0.25)
            return self._before + _MILLISECONDS[micros // 1000 if micros < 1_000_000 else 999] + self._after
        template = self._template
        fractions = self._fractions
        if not fractions:
            return template[0]
        micros = min(int((wall - second) * 1e6 + 0.25), 999_999)
        out = template[0]
        for index, digits in enumerate(fractions):
            out += _fraction(micros, digits) + template[index + 1]
        return out


_MILLISECONDS: Final = [b"%03d" % number for number in range(1000)]


def _fraction(micros: int, digits: int) -> bytes:
    whole = b"%06d000" % micros
    if digits > 0:
        return whole[:digits]
    trimmed = whole.rstrip(b"0")
    if digits == TRIMMED:
        return trimmed or b"0"
    return b"." + trimmed if trimmed else b""


# Points in time


def start_wall(info: StreamInfo) -> float:
    """When the stream began, in seconds since the epoch."""
    return info.start_wall or info.wall(info.start_time)


def _register_time(name: str, wall: Callable[[StreamInfo], float], place: int, *, local: bool) -> None:
    def factory(parameter: str, length: int | None) -> Operator:
        clock = TimeFormat(parameter or (DEFAULT_LOCAL if local else DEFAULT_UTC), local=local)

        def text(info: StreamInfo) -> bytes | None:
            return clock.format(wall(info))

        return string_operator(text, None, place, clock=clock)

    register(name, factory, Syntax.PARAMETER_OPTIONAL)


def _now(info: StreamInfo) -> float:
    return time.time()


_register_time("START_TIME", start_wall, START_TIME, local=False)
_register_time("START_TIME_LOCAL", start_wall, START_TIME, local=True)
_register_time("EMIT_TIME", _now, EACH, local=False)
_register_time("EMIT_TIME_LOCAL", _now, EACH, local=True)


# Durations; a microsecond's billionth part must not turn 6 ms into 5


def _milliseconds(start: float, end: float) -> int | None:
    if not start or not end or end < start:
        return None
    return int((end - start) * 1000 + 1e-6)


def _duration(info: StreamInfo) -> int:
    end = info.end_time or time.monotonic()
    return int((end - info.start_time) * 1000 + 1e-6)


register_number("DURATION", _duration, DURATION)
register_number("REQUEST_DURATION", lambda info: _milliseconds(info.start_time, info.request_end_time), SAME)
register_number("REQUEST_TX_DURATION", lambda info: _milliseconds(info.start_time, info.last_upstream_tx_time), EACH)
register_number("RESPONSE_DURATION", lambda info: _milliseconds(info.start_time, info.first_upstream_rx_time), DURATION)
register_number("RESPONSE_TX_DURATION", lambda info: _milliseconds(info.first_upstream_rx_time, info.end_time), EACH)

_POINTS: Final[dict[str, Callable[[StreamInfo], float]]] = {
    "DS_RX_BEG": attrgetter("start_time"),
    "DS_RX_END": attrgetter("request_end_time"),
    "US_TX_BEG": attrgetter("first_upstream_tx_time"),
    "US_TX_END": attrgetter("last_upstream_tx_time"),
    "US_RX_BEG": attrgetter("first_upstream_rx_time"),
    "US_RX_END": attrgetter("last_upstream_rx_time"),
    "DS_TX_BEG": attrgetter("first_downstream_tx_time"),
    "DS_TX_END": attrgetter("end_time"),
}
_PRECISIONS: Final = {"ms": 1e3, "us": 1e6, "ns": 1e9}


def _common_duration(parameter: str, length: int | None) -> Operator:
    """`COMMON_DURATION(START:END:PRECISION)`; a point that is unknown here never happens, as in Envoy."""
    names = parameter.split(":")
    if len(names) != 3:
        raise ValueError(f"{parameter!r}: START:END:PRECISION expected")
    factor = _PRECISIONS.get(names[2])
    if factor is None:
        raise ValueError(f"{names[2]!r}: the precision is ms, us or ns")
    start, end = _POINTS.get(names[0], _never), _POINTS.get(names[1], _never)

    def number(info: StreamInfo) -> int | None:
        first, last = start(info), end(info)
        return int((last - first) * factor + 1e-6) if first and last and last >= first else None

    return number_operator(number, EACH)


def _never(info: StreamInfo) -> float:
    return 0.0


register("COMMON_DURATION", _common_duration, Syntax.PARAMETER_REQUIRED)

_CERTIFICATE_TIME: Final = "%Y-%m-%dT%H:%M:%E3SZ"


def certificate_time(parameter: str, wall: Callable[[StreamInfo], float | None]) -> Text:
    """The time of a certificate's validity in the given format."""
    formatting = TimeFormat(parameter or _CERTIFICATE_TIME)

    def text(info: StreamInfo) -> bytes | None:
        moment = wall(info)
        return None if moment is None else formatting.format(moment)

    return text
