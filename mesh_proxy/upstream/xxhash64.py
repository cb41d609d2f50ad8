"""XXH64, the hash of Envoy's hash policies and rings (xxHash specification, 0.1.1). For short inputs: names, addresses."""

from __future__ import annotations

from struct import Struct
from typing import Final

_P1: Final = 0x9E3779B185EBCA87
_P2: Final = 0xC2B2AE3D27D4EB4F
_P3: Final = 0x165667B19E3779F9
_P4: Final = 0x85EBCA77C2B2AE63
_P5: Final = 0x27D4EB2F165667C5
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_STRIPE: Final = Struct("<4Q")
_LONG: Final = Struct("<Q")
_INT: Final = Struct("<I")


def xxhash64(data: bytes, seed: int = 0) -> int:
    """64 bits."""
    size = len(data)
    position = 0
    if size >= 32:
        a, b, c, d = (seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK
        while position <= size - 32:
            one, two, three, four = _STRIPE.unpack_from(data, position)
            a, b, c, d = _round(a, one), _round(b, two), _round(c, three), _round(d, four)
            position += 32
        value = (_rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)) & _MASK
        for part in (a, b, c, d):
            value = ((value ^ _round(0, part)) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + size) & _MASK
    while position <= size - 8:
        value ^= _round(0, _LONG.unpack_from(data, position)[0])
        value = (((value << 27 | value >> 37) & _MASK) * _P1 + _P4) & _MASK
        position += 8
    if position <= size - 4:
        value ^= _INT.unpack_from(data, position)[0] * _P1 & _MASK
        value = (((value << 23 | value >> 41) & _MASK) * _P2 + _P3) & _MASK
        position += 4
    for byte in data[position:]:
        value ^= byte * _P5 & _MASK
        value = ((value << 11 | value >> 53) & _MASK) * _P1 & _MASK
    value = (value ^ value >> 33) * _P2 & _MASK
    value = (value ^ value >> 29) * _P3 & _MASK
    return value ^ value >> 32


def _round(accumulator: int, value: int) -> int:
    accumulator = (accumulator + value * _P2) & _MASK
    return ((accumulator << 31 | accumulator >> 33) & _MASK) * _P1 & _MASK


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK
