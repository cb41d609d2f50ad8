"""DER (X.690), as much as certificates need: walking over values, and the text of names and times.

Strict: definite lengths in their shortest form only. Everything else is refused with ValueError, so that a certificate is
either understood or not accepted.
"""

from __future__ import annotations

import calendar
import re
from typing import Final

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18

MOST_VALUES: Final = 4096
"""values in one sequence: a certificate with more names than that is refused"""

_TEXT: Final = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii", 0x1E: "utf-16-be"}
"""string types that names are made of (UTF8, Numeric, Printable, Teletex, IA5, Visible, BMP)"""
_NAMES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.42": "GN",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
"""short names as OpenSSL prints them"""
_SPECIAL: Final = re.compile(r'([,+"\\<>;])')


def read(data: bytes, position: int = 0) -> tuple[int, bytes, int]:
    """(tag, contents, position after it) of the value at `position`."""
    try:
        tag = data[position]
        length = data[position + 1]
        start = position + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4:
                raise ValueError("DER: a length that is not definite or too long")
            length = int.from_bytes(data[start : start + count], "big")
            start += count
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise ValueError("DER: a length that is not in its shortest form")
    except IndexError:
        raise ValueError("DER: it breaks off") from None
    if tag & 0x1F == 0x1F:
        raise ValueError("DER: a tag of several bytes")
    end = start + length
    if end > len(data):
        raise ValueError("DER: it breaks off")
    return tag, data[start:end], end


def expect(data: bytes, tag: int, position: int = 0) -> tuple[bytes, int]:
    """(contents, position after it) of a value that must have this tag."""
    found, contents, end = read(data, position)
    if found != tag:
        raise ValueError(f"DER: tag {found:#x} where {tag:#x} belongs")
    return contents, end


def values(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, contents) of all values one after the other: the inside of a sequence or set."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        tag, contents, position = read(data, position)
        found.append((tag, contents))
        if len(found) > MOST_VALUES:
            raise ValueError("DER: too many values")
    return found


def oid(contents: bytes) -> str:
    """An object identifier in dots."""
    if not contents or contents[-1] & 0x80:
        raise ValueError("DER: an object identifier that breaks off")
    numbers: list[int] = []
    value = 0
    for byte in contents:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _value(tag: int, contents: bytes) -> str:
    """The value of a name's part; what is no text, or of another type, in hexadecimal (RFC 4514, 2.4)."""
    encoding = _TEXT.get(tag)
    if encoding is not None:
        try:
            return _escape(contents.decode(encoding))
        except UnicodeDecodeError:
            pass
    return f"#{contents.hex()}"


def name(contents: bytes) -> str:
    """A distinguished name as RFC 2253 writes it, the last part first: `CN=web,O=Shop`."""
    parts: list[str] = []
    for tag, part in values(contents):
        if tag != SET:
            raise ValueError("DER: a name that is none")
        pieces: list[str] = []
        for _, pair in values(part):
            (_, kind), (value_tag, value) = values(pair)
            number = oid(kind)
            pieces.append(f"{_NAMES.get(number, number)}={_value(value_tag, value)}")
        parts.append("+".join(pieces))
    return ",".join(reversed(parts))


def _escape(value: str) -> str:
    value = _SPECIAL.sub(r"\\\1", value)
    if value.startswith((" ", "#")):
        value = "\\" + value
    if value.endswith(" "):
        value = value[:-1] + "\\ "
    return "".join(c if c >= " " and c != "\x7f" else "".join(f"\\{b:02X}" for b in c.encode()) for c in value)


def moment(tag: int, contents: bytes) -> int:
    """A UTCTime or GeneralizedTime in the form that RFC 5280, 4.1.2.5 prescribes, in seconds since the epoch."""
    digits = contents.decode("ascii", "replace")
    if tag == UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    elif tag != GENERALIZED_TIME:
        raise ValueError("DER: a time that is none")
    if not re.fullmatch(r"[0-9]{14}Z", digits):
        raise ValueError("DER: a time that is not written as RFC 5280 has it")
    year, month, day, hour, minute, second = (int(digits[a:b]) for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 59 and year >= 1):
        raise ValueError("DER: a time that does not exist")
    return calendar.timegm((year, month, day, hour, minute, second))
