"""The memo of heads: a call of a method that was seen before costs one dictionary look-up.

The head is the same bytes for every call of a method, so parsed heads are kept by their raw bytes. To find where the head ends
only the lengths of its strings are looked at, as if all text were ASCII; should it not be, those bytes are not in the memo and
the slow way parses them. A hit is exact: the strings are self-delimiting, so equal bytes are an equal head.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo.bodies import BODIES
from mesh_codecs.dubbo.body import MAX_VALUES, AttachmentMemo
from mesh_codecs.dubbo.frame import HEADER_SIZE
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.errors import RemoteProtocolError

MAX_HEADS: Final = 4096
"""heads in one memo: more than any service has methods, few enough to forget all of them when it is full"""

MAX_HEAD_SIZE: Final = 1024
"""bytes of a head that is worth keeping"""


class Counters:
    """What was really decoded: proof that nothing is decoded in vain."""

    __slots__ = ("argument_reads", "argument_skips", "attachment_decodes", "heads_from_memo", "heads_parsed")

    def __init__(self) -> None:
        self.heads_parsed = 0
        self.heads_from_memo = 0
        self.argument_skips = 0
        """messages whose arguments were stepped over (to reach the attachments)"""
        self.argument_reads = 0
        """arguments that were turned into values"""
        self.attachment_decodes = 0
        """messages whose attachments were read"""

    def __repr__(self) -> str:
        return (
            f"<Counters heads_parsed={self.heads_parsed} heads_from_memo={self.heads_from_memo}"
            f" argument_skips={self.argument_skips} argument_reads={self.argument_reads}"
            f" attachment_decodes={self.attachment_decodes}>"
        )


class HeadMemo:
    """Parsed heads by their bytes. One for all connections that share a route table; it goes when the table goes."""

    __slots__ = ("_last", "_last_head", "_last_serialization", "_tables", "attachments", "counters")

    def __init__(self, counters: Counters | None = None, max_values: int = MAX_VALUES) -> None:
        self.counters = counters if counters is not None else Counters()
        self.attachments = AttachmentMemo(max_values)
        self._tables: dict[int, dict[bytes, InvocationHead]] = {serialization: {} for serialization in BODIES}
        # Most calls repeat the one before: its bytes are compared in place, which spares the slice and the hash.
        self._last = b""
        self._last_serialization = -1
        self._last_head: InvocationHead | None = None

    def head(self, frame: bytes, serialization: int) -> InvocationHead | None:
        """The head of a request frame, or None when its serialization is opaque to us.

        Raises:
            RemoteProtocolError: malformed.
        """
        if serialization == self._last_serialization and frame.startswith(self._last, HEADER_SIZE):
            self.counters.heads_from_memo += 1
            return self._last_head
        table = self._tables.get(serialization)
        if table is None:
            return None
        body = BODIES[serialization]
        try:
            key = frame[HEADER_SIZE : body.head_end(frame)]
        except IndexError:
            raise RemoteProtocolError("dubbo.bad_head", detail="cut short") from None
        head = table.get(key)
        if head is not None:
            self.counters.heads_from_memo += 1
        else:
            head = body.parse_head(frame)
            self.counters.heads_parsed += 1
            size = head.arguments_at - HEADER_SIZE
            if size != len(key) or size > MAX_HEAD_SIZE:
                return head
            if len(table) >= MAX_HEADS:
                table.clear()
            table[key] = head
        self._last = key
        self._last_serialization = serialization
        self._last_head = head
        return head

    @property
    def size(self) -> int:
        """Heads that are kept."""
        return sum(map(len, self._tables.values()))

    def __repr__(self) -> str:
        return f"<HeadMemo {self.size} heads, {self.counters!r}>"
