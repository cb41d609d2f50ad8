"""What the lazy views ask of a serialization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from mesh_codecs.dubbo.invocation import InvocationHead


class KnownAttachments:
    """Attachments that came before, in these bytes."""

    __slots__ = ("end", "values")

    def __init__(self, end: int, values: dict[bytes, bytes]) -> None:
        self.end = end
        """offset of the end of the map, from where it begins"""
        self.values = values
        """never change it"""


class Attachments:
    """The attachments of one message, read. Text is UTF-8.

    Where a key comes twice the last one counts, as in Java's map; a null value is no value.
    """

    __slots__ = ("at", "end", "known", "others", "state", "values")

    def __init__(
        self,
        at: int,
        end: int,
        values: dict[bytes, bytes],
        others: frozenset[bytes],
        state: object,
        known: KnownAttachments | None = None,
    ) -> None:
        self.at = at
        """offset in the frame of the map itself, or of the place where it would stand"""
        self.end = end
        """offset of the mark after the last entry; 0 when no map stands here"""
        self.values = values
        """strings as they are, numbers in decimal, booleans as true and false; never change it"""
        self.others = others
        """keys whose values are no plain values: lists, maps, objects, binary, dates"""
        self.state = state
        """what the serialization must know to edit"""
        self.known = known
        """the same object for messages whose bytes are the same from `at` on; None where nobody looks"""

    def get(self, name: bytes) -> bytes | None:
        """One value as text."""
        return self.values.get(name)

    def __contains__(self, name: bytes) -> bool:
        return name in self.values or name in self.others

    def __repr__(self) -> str:
        return f"<Attachments {self.values!r} {sorted(self.others)!r}>"


MAX_VALUES: Final = 1 << 18
"""Values (numbers, strings, the beginnings of lists, …) that are stepped over or read to find the attachments of one message.

The size of a message says little about the time that this takes: a megabyte of text is one step, a megabyte of empty lists is a
million. At this limit a hostile message costs some tenths of a second; a call with 30,000 records of eight fields stays below."""


class AttachmentMemo:
    """Attachments by their bytes, as long as that pays.

    Most calls of one consumer carry the same attachments, unless it traces its calls: then nearly all differ, and looking them
    up and keeping them would be work for nothing. So the memo watches its luck, and where it fails it rests for a while.
    """

    __slots__ = ("_hits", "_looks", "_rest", "_table", "max_values")

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self.max_values = max_values
        self._table: dict[bytes, KnownAttachments] = {}
        self._hits = 0
        self._looks = 0
        self._rest = 0

    def get(self, tail: bytes) -> KnownAttachments | None:
        """What these bytes are known to mean."""
        if self._rest:
            self._rest -= 1
            return None
        self._looks += 1
        known = self._table.get(tail)
        if known is not None:
            self._hits += 1
            return known
        if self._looks >= _TRIAL:
            if self._hits * 2 < self._looks:
                self._table.clear()
                self._rest = _REST
            self._looks = self._hits = 0
        return None

    def put(self, tail: bytes, end: int, values: dict[bytes, bytes]) -> None:
        """Keep what was read."""
        if self._rest or len(tail) > _MAX_TAIL:
            return
        if len(self._table) >= _MAX_TAILS:
            self._table.clear()
        self._table[tail] = KnownAttachments(end, values)


_TRIAL: Final = 256
"""look-ups after which the luck is judged"""
_REST: Final = 8192
"""messages that go without the memo when fewer than half of the look-ups hit"""
_MAX_TAIL: Final = 1024
"""bytes of attachments that are worth keeping"""
_MAX_TAILS: Final = 512


Changes = Mapping[bytes, bytes | None]
"""attachments to set, and those to remove (None)"""


def plain_text(value: object) -> bytes | None:
    """A plain value as text, as a Java peer reads one where it expects a string; None for null."""
    if value is None:
        return None
    if value is True:
        return b"true"
    if value is False:
        return b"false"
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    assert isinstance(value, int | float)
    return str(value).encode() if isinstance(value, float) else b"%d" % value


class Body(Protocol):
    """The bodies of one serialization. Every method but `head_end` raises RemoteProtocolError for malformed input, no other."""

    def head_end(self, frame: bytes) -> int:
        """Where the head of a request ends if its text is ASCII; where it begins when that cannot be told quickly.

        Raises:
            IndexError: cut short.
        """

    def parse_head(self, frame: bytes) -> InvocationHead:
        """Read the head of a request."""

    def real_method(self, frame: bytes, head: InvocationHead) -> bytes | None:
        """The first argument of a generic call, which is the name of the real method; None when it is null."""

    def attachments(self, frame: bytes, head: InvocationHead | None, memo: AttachmentMemo) -> Attachments | None:
        """Find and read the attachments; None when the format hides them. `head` is None for a response."""

    def edit(self, frame: bytes, found: Attachments, changes: Changes) -> bytes:
        """The frame with other attachments; every byte that is not concerned stays."""

    def plain_argument(self, frame: bytes, head: InvocationHead, index: int, max_values: int) -> object:
        """One argument if it is a number, a boolean, null or text; something else if it is not."""

    def arguments(self, frame: bytes, head: InvocationHead, count: int) -> list[object]:
        """The first `count` arguments as values."""

    def result_type(self, frame: bytes) -> int:
        """The type byte of an OK response, 0 to 5 (`DubboCodec.RESPONSE_*`); -1 when there is none."""
