"""`grpc-timeout`: at most eight digits and a unit (grpc: doc/PROTOCOL-HTTP2.md, Timeout)."""

from __future__ import annotations

from typing import Final

MAX_VALUE: Final = 99_999_999
"""the largest number of eight digits"""
_MS: Final[dict[bytes, int]] = {b"H": 3_600_000, b"M": 60_000, b"S": 1000, b"m": 1}
_PER_MS: Final[dict[bytes, int]] = {b"u": 1000, b"n": 1_000_000}


def parse_timeout_ms(value: bytes | None) -> int | None:
    """Milliseconds, fractions rounded up; None when the field is absent or not of its form."""
    if not value:
        return None
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > 20 or (number := int(digits)) > MAX_VALUE:
        return None
    if (factor := _MS.get(unit)) is not None:
        return number * factor
    if (divisor := _PER_MS.get(unit)) is not None:
        return -(-number // divisor)
    return None


def render_timeout(ms: int) -> bytes:
    """The field for so many milliseconds, in the smallest unit that eight digits suffice for; rounded down."""
    if ms <= MAX_VALUE:
        return b"%dm" % ms
    seconds = ms // 1000
    if seconds <= MAX_VALUE:
        return b"%dS" % seconds
    minutes = seconds // 60
    if minutes <= MAX_VALUE:
        return b"%dM" % minutes
    return b"%dH" % min(minutes // 60, MAX_VALUE)
