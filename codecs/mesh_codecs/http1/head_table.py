"""Whole heads that were parsed before.

Probes, pollers and services without tracing send the same head again and again, and an upstream's answers differ only by the
second in `date`. Such a head is found again by one look-up of its raw bytes. What is new with every message (identifiers,
cookies) is never stored, and a table that is of no use to its traffic rests for a while, so that unlike heads cost one failed
look-up and nothing else.

What another sidecar sends has a field that is new with every message: its request id, or the time that its endpoint took; and
what is traced has several. Such a head is kept, and found again, without those values (`cut`, `cut_all`).
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

E = TypeVar("E")
Cut = tuple[bytes, ...]
"""what is left of a head: two parts of `cut`, three or more of `cut_all`"""

ENTRIES: Final = 256
"""heads kept"""
TABLE_BYTES: Final = 256 * 1024
"""of these heads together; with what they say that is at most about half a megabyte"""
HEAD_BYTES: Final = 2048
"""longer heads are rare and vary; what Istio's sidecars tell of themselves (x-envoy-peer-metadata) has about 1000"""
UNKNOWN: Final = 16
"""heads in a row that no table knew, after which a connection no longer asks before it parses, until one is known again"""
REST: Final = 8192
"""heads that pass by before a table that did not help is tried again"""
VALUE_BYTES: Final = 128
"""longer values are not cut out; a request id has 36"""


def cut(head: bytes, line: bytes, octets: bytes) -> Cut | None:
    """`head` without the value of the field that `line` begins (CR LF, name in lower case, colon, one space).

    Only what can be read in one way is cut: where that line occurs first, and a value of `octets` and nothing else, which are
    neither whitespace nor controls. None for all other spellings, which are left to the parser. As both parts are kept byte for
    byte, heads with the same parts differ in that value and in nothing else; a second such line is in both or in none.
    """
    start = head.find(line)
    if start < 0:
        return None
    start += len(line)
    end = head.find(b"\r\n", start)
    if end < 0:
        end = len(head)
    if not 0 < end - start <= VALUE_BYTES or head[start:end].translate(None, octets):
        return None
    return head[:start], head[end:]


def own_fields(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Name and value of each of these fields in a head, where they are spelt as `cut` asks for."""
    return re.compile(rb"\r\n(" + b"|".join(map(re.escape, sorted(names))) + rb"): ([\x21-\x7e]{1,%d})(?=\r\n|\Z)" % VALUE_BYTES)


def cut_all(head: bytes, fields: re.Pattern[bytes]) -> Cut:
    """The same for several fields, of `own_fields`: what stands before, between and behind them, and their names."""
    parts: list[bytes] = fields.split(head)
    del parts[2::3]
    return tuple(parts)


class HeadTable(Generic[E]):
    """Raw head, or what `cut` left of it -> what it says. The look-up is `entries.get`; callers count their hits."""

    __slots__ = ("entries", "hits", "resting", "size")

    def __init__(self) -> None:
        self.entries: dict[bytes | Cut, E] = {}
        self.hits = 0
        """since the table was last emptied"""
        self.resting = 0
        self.size = 0
        """bytes of all heads"""

    def store(self, head: bytes, entry: E, parts: Cut | None = None) -> None:
        """Keep a head that was parsed without a fault and that holds nothing secret or unique, but for what was cut out of
        `parts`."""
        if self.resting:
            self.resting -= 1
            return
        if len(head) > HEAD_BYTES:
            return
        self.size += len(head)
        if len(self.entries) >= ENTRIES or self.size > TABLE_BYTES:
            if self.hits < ENTRIES:
                self.resting = REST
            self.entries.clear()
            self.hits = 0
            self.size = len(head)
        self.entries[parts or head] = entry
