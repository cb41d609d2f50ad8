"""Whole heads that were parsed before.

Probes, pollers and services without tracing send the same head again and again, and an upstream's answers differ only by the
second in `date`. Such a head is found again by one look-up of its raw bytes. What is new with every message (identifiers,
cookies) is never stored, and a table that is of no use to its traffic rests for a while, so that unlike heads cost one failed
look-up and nothing else.

What another sidecar sends has one field that is new with every message: its request id, or the time that its endpoint took.
Such a head is kept, and found again, without that value (`cut`).
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

E = TypeVar("E")
Cut = tuple[bytes, bytes]
"""a head up to the value of a field, and from the end of that line on"""

ENTRIES: Final = 256
"""heads kept; with HEAD_BYTES that is at most about half a megabyte"""
HEAD_BYTES: Final = 1024
"""longer heads are rare and vary"""
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


class HeadTable(Generic[E]):
    """Raw head, or what `cut` left of it -> what it says. The look-up is `entries.get`; callers count their hits."""

    __slots__ = ("entries", "hits", "resting")

    def __init__(self) -> None:
        self.entries: dict[bytes | Cut, E] = {}
        self.hits = 0
        """since the table was last emptied"""
        self.resting = 0

    def store(self, head: bytes, entry: E, parts: Cut | None = None) -> None:
        """Keep a head that was parsed without a fault and that holds nothing secret or unique, but for what was cut out of
        `parts`."""
        if self.resting:
            self.resting -= 1
            return
        if len(head) > HEAD_BYTES:
            return
        if len(self.entries) >= ENTRIES:
            if self.hits < ENTRIES:
                self.resting = REST
            self.entries.clear()
            self.hits = 0
        self.entries[parts or head] = entry
