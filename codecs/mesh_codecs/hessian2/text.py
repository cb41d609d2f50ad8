"""Hessian 2 strings: where one ends, and what it says.

A Hessian string counts UTF-16 code units and encodes every unit on its own in one to three bytes (CESU-8), so that a character
outside the basic plane is two three-byte sequences and counts twice. The length in bytes is therefore not known before the text
is looked at. Nearly all text in calls is ASCII, where units are bytes: that case is one slice and one `isascii`.

Stricter than Java in one point: hessian-lite does not look at continuation bytes and takes overlong forms. Text that is not
well-formed CESU-8 is refused here (the overlong NUL `c0 80` of Java's modified UTF-8 excepted), because a name that we read
differently from the provider could slip past a route or an access rule.
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.errors import RemoteProtocolError

_CONTINUATION: Final = bytes(range(0x80, 0xC0))
_BELOW_F0: Final = bytes(range(0xF0))
_UNIT: Final = rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf][\x80-\xbf]|\xc0\x80"
_WELL_FORMED: Final = re.compile(rb"(?:" + _UNIT + rb")*+")
_short: Final[list[re.Pattern[bytes] | None]] = [None] * 32
"""patterns of exactly so many code units, made when the first such string comes"""


def truncated() -> RemoteProtocolError:
    """The error for a value that goes on after the last byte."""
    return RemoteProtocolError("hessian2.truncated")


def bad_string() -> RemoteProtocolError:
    """The error for text that is not CESU-8."""
    return RemoteProtocolError("hessian2.bad_string")


def units_end(data: bytes, pos: int, units: int) -> int:
    """The offset after `units` UTF-16 code units of well-formed CESU-8 that start at `pos`.

    Works in steps: as many bytes as units are missing, less those that are continuation bytes. Well-formed text has a lead byte
    in any three, so each step brings at least a third of what is missing, or the text is refused.
    """
    stop = pos + units
    piece = data[pos:stop]
    if piece.isascii():
        if len(piece) < units:
            raise truncated()
        return stop
    if units < 32:
        pattern = _short[units]
        if pattern is None:
            pattern = _short[units] = re.compile(rb"(?:" + _UNIT + rb"){%d}+" % units)
        match = pattern.match(data, pos)
        if match is not None:
            return match.end()
    stop = pos
    missing = units
    barren = 0
    size = len(data)
    while missing:
        if stop + missing > size:
            raise truncated()
        piece = data[stop : stop + missing]
        gain = len(piece.translate(None, _CONTINUATION))
        if gain * 3 + 2 < missing:
            raise bad_string()
        barren = 0 if gain else barren + 1
        if barren > 2:
            raise bad_string()
        stop += missing
        missing -= gain
    # The last step held lead bytes only, so the byte before `stop` leads the last unit. Its continuation bytes are counted, not
    # looked for: the tag of the next value may look like one.
    lead = data[stop - 1]
    if lead >= 0xC0:
        stop += 1 if lead < 0xE0 else 2
        if stop > size:
            raise truncated()
    _check(data[pos:stop])
    return stop


def _check(raw: bytes) -> None:
    """Refuse what is not CESU-8."""
    if b"\xed" not in raw and not raw.translate(None, _BELOW_F0):
        # No surrogates and no four-byte form: the C decoder is the quickest judge.
        try:
            raw.decode()
        except UnicodeDecodeError:
            pass
        else:
            return
    match = _WELL_FORMED.match(raw)
    assert match is not None
    if match.end() != len(raw):
        raise bad_string()


def string_end(data: bytes, pos: int) -> int:
    """The offset after the string whose tag is at `pos`, chunks included.

    Raises:
        RemoteProtocolError: no string, malformed, or cut short.
    """
    try:
        while True:
            tag = data[pos]
            if tag < 0x20:
                return units_end(data, pos + 1, tag)
            if 0x30 <= tag < 0x34:
                return units_end(data, pos + 2, ((tag - 0x30) << 8) + data[pos + 1])
            if tag == 0x53:  # 'S', the final chunk
                return units_end(data, pos + 3, (data[pos + 1] << 8) + data[pos + 2])
            if tag != 0x52:  # 'R', a chunk with more to come
                raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} where a string was expected")
            pos = units_end(data, pos + 3, (data[pos + 1] << 8) + data[pos + 2])
    except IndexError:
        raise truncated() from None


def raw_string(data: bytes, pos: int) -> tuple[bytes, int]:
    """The CESU-8 bytes of the string at `pos`, chunks joined, and the offset after it."""
    try:
        tag = data[pos]
        if tag < 0x20:
            end = units_end(data, pos + 1, tag)
            return data[pos + 1 : end], end
        if 0x30 <= tag < 0x34:
            end = units_end(data, pos + 2, ((tag - 0x30) << 8) + data[pos + 1])
            return data[pos + 2 : end], end
        chunks: list[bytes] = []
        while tag == 0x52:
            end = units_end(data, pos + 3, (data[pos + 1] << 8) + data[pos + 2])
            chunks.append(data[pos + 3 : end])
            pos = end
            tag = data[pos]
        if tag == 0x53:
            end = units_end(data, pos + 3, (data[pos + 1] << 8) + data[pos + 2])
            last = data[pos + 3 : end]
        elif chunks and (tag < 0x20 or 0x30 <= tag < 0x34):
            last, end = raw_string(data, pos)
        else:
            raise RemoteProtocolError("hessian2.bad_tag", detail=f"0x{tag:02x} where a string was expected")
    except IndexError:
        raise truncated() from None
    if not chunks:
        return last, end
    chunks.append(last)
    return b"".join(chunks), end


def to_utf8(raw: bytes) -> bytes:
    """Checked CESU-8 as UTF-8; a surrogate without its partner stays as its three bytes."""
    if raw.isascii() or (b"\xed" not in raw and b"\xc0\x80" not in raw):
        return raw
    return to_str(raw).encode("utf-8", "surrogatepass")


def to_str(raw: bytes) -> str:
    """Checked CESU-8 as text; a surrogate without its partner stays one."""
    if b"\xc0\x80" in raw:
        raw = raw.replace(b"\xc0\x80", b"\x00")
    if b"\xed" not in raw:
        return raw.decode()
    text = raw.decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def from_str(text: str) -> tuple[bytes, int]:
    """Text as CESU-8 and its length in UTF-16 code units."""
    if text.isascii():
        return text.encode(), len(text)
    if max(text) < "\U00010000":
        return text.encode("utf-8", "surrogatepass"), len(text)
    wide = text.encode("utf-16-le", "surrogatepass")
    units = memoryview(wide).cast("H")
    return "".join(map(chr, units)).encode("utf-8", "surrogatepass"), len(units)
