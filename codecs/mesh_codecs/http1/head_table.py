"""Whole heads that were parsed before.

Probes, pollers and services without tracing send the same head again and again, and an upstream's answers differ only by the
second in `date`. Such a head is found again by one look-up of its raw bytes. What is new with every message (identifiers,
cookies) is never stored, and a table that is of no use to its traffic rests for a while, so that unlike heads cost one failed
look-up and nothing else.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

E = TypeVar("E")

ENTRIES: Final = 256
"""heads kept; with HEAD_BYTES that is at most about half a megabyte"""
HEAD_BYTES: Final = 1024
"""longer heads are rare and vary"""
UNKNOWN: Final = 16
"""heads in a row that no table knew, after which a connection no longer asks before it parses, until one is known again"""
REST: Final = 8192
"""heads that pass by before a table that did not help is tried again"""


class HeadTable(Generic[E]):
    """Raw head -> what it says. The look-up is `entries.get`; callers count their hits."""

    __slots__ = ("entries", "hits", "resting")

    def __init__(self) -> None:
        self.entries: dict[bytes, E] = {}
        self.hits = 0
        """since the table was last emptied"""
        self.resting = 0

    def store(self, head: bytes, entry: E) -> None:
        """Keep a head that was parsed without a fault and that holds nothing secret or unique."""
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
        self.entries[head] = entry
