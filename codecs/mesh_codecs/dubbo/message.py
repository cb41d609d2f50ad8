"""One Dubbo message: the frame as it came, and views of it that are worked out only when somebody asks."""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo.bodies import BODIES
from mesh_codecs.dubbo.body import Attachments, Changes, plain_text
from mesh_codecs.dubbo.frame import (
    FLAG_EVENT,
    FLAG_REQUEST,
    FLAG_TWO_WAY,
    HEADER_SIZE,
    HESSIAN2,
    NULL_BODIES,
    OK,
    SERIALIZATION_MASK,
    with_body,
    with_id,
)
from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.dubbo.memo import HeadMemo
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.hessian2.skip import plain_end

HEARTBEAT: Final = "heartbeat"
READONLY: Final = "readonly"
WRITEABLE: Final = "writeable"
OTHER_EVENT: Final = "other"

_READONLY_BODIES: Final = (
    b"\x01R",
    bytes.fromhex("aced000577010174000152"),
    bytes.fromhex("aced000574000152"),
    bytes.fromhex("000000024a52"),
)
"""READONLY in hessian2, java, nativejava, fastjson2"""
_WRITEABLE_BODIES: Final = tuple(body[:-1] + b"W" for body in _READONLY_BODIES)
_NULLS: Final = (b"N", *NULL_BODIES.values())


class DubboMessage:
    """A request, response or event. Text is UTF-8 in `bytes`, as in the events of the other protocols.

    The views raise RemoteProtocolError when the body is malformed, and nothing else; the frame can be passed on all the same.
    """

    __slots__ = ("_attachments", "_head", "_memo", "flags", "frame", "request_id", "status")

    def __init__(self, frame: bytes, flags: int, status: int, request_id: int, memo: HeadMemo) -> None:
        self.frame = frame
        """header and body"""
        self.flags = flags
        self.status = status
        """of a response, see `frame.STATUS_NAMES`; 0 in a request"""
        self.request_id = request_id
        """may be negative; unique for the peer's process, not for its connection"""
        self._memo = memo
        self._head: InvocationHead | None = None
        self._attachments: Attachments | RemoteProtocolError | None = None

    # What the sixteen bytes of header say.

    @property
    def is_request(self) -> bool:
        """A request or an event; otherwise a response."""
        return self.flags & FLAG_REQUEST != 0

    @property
    def two_way(self) -> bool:
        """The sender waits for an answer."""
        return self.flags & (FLAG_REQUEST | FLAG_TWO_WAY) == FLAG_REQUEST | FLAG_TWO_WAY

    @property
    def is_event(self) -> bool:
        """A heartbeat, READONLY and the like: no call."""
        return self.flags & FLAG_EVENT != 0

    @property
    def serialization_id(self) -> int:
        """See `frame.SERIALIZATION_NAMES`."""
        return self.flags & SERIALIZATION_MASK

    @property
    def readable(self) -> bool:
        """The serialization is one that we can look into; otherwise the body is opaque."""
        return self.flags & SERIALIZATION_MASK in BODIES

    @property
    def event_kind(self) -> str:
        """Which event it is: HEARTBEAT, READONLY, WRITEABLE or OTHER_EVENT.

        dubbo-go writes its null twice and others leave the body empty: heartbeats, too.
        """
        body = self.frame[HEADER_SIZE : HEADER_SIZE + 32]
        if not body or body in _NULLS or body == b"NN":
            return HEARTBEAT
        if body in _READONLY_BODIES:
            return READONLY
        if body in _WRITEABLE_BODIES:
            return WRITEABLE
        return OTHER_EVENT

    # What the head of a call says.

    @property
    def head(self) -> InvocationHead | None:
        """The head of a request, shared with every other call of the method. None for responses, events, opaque bodies."""
        head = self._head
        if head is None and self.flags & (FLAG_REQUEST | FLAG_EVENT) == FLAG_REQUEST:
            head = self._head = self._memo.head(self.frame, self.flags & SERIALIZATION_MASK)
        return head

    @property
    def service(self) -> bytes:
        """Name of the interface; empty when there is no head."""
        head = self.head
        return head.service if head is not None else b""

    @property
    def method(self) -> bytes:
        """Name of the method as it stands in the head: `$invoke` for a generic call."""
        head = self.head
        return head.method if head is not None else b""

    @property
    def service_version(self) -> bytes:
        """Version of the service; empty when null. `0.0.0` is how Dubbo writes "none"."""
        head = self.head
        return head.service_version or b"" if head is not None else b""

    @property
    def dubbo_version(self) -> bytes:
        """Version of the protocol, e.g. 2.0.2."""
        head = self.head
        return head.dubbo_version if head is not None else b""

    @property
    def parameter_types(self) -> bytes:
        """JVM descriptors of the parameters, one after the other."""
        head = self.head
        return head.parameter_types if head is not None else b""

    @property
    def real_method(self) -> bytes:
        """The method that is really called: of a generic call the one that its first argument names."""
        head = self.head
        if head is None:
            return b""
        if not head.generic:
            return head.method
        self._memo.counters.argument_reads += 1
        return BODIES[head.serialization].real_method(self.frame, head) or head.method

    # What stands behind the head.

    @property
    def attachments(self) -> Attachments | None:
        """The attachments of a call or of a response. None where there can be none, or where the serialization hides them."""
        found = self._attachments
        if found is None:
            found = self._find_attachments()
        if isinstance(found, RemoteProtocolError):
            raise found
        return found

    def _find_attachments(self) -> Attachments | RemoteProtocolError | None:
        flags = self.flags
        body = BODIES.get(flags & SERIALIZATION_MASK)
        if body is None or flags & FLAG_EVENT or (not flags & FLAG_REQUEST and self.status != OK):
            return None
        counters = self._memo.counters
        try:
            head = self._head or self.head
            if head is None or head.argument_count:
                counters.argument_skips += 1
            counters.attachment_decodes += 1
            self._attachments = body.attachments(self.frame, head, self._memo.attachments)
        except RemoteProtocolError as error:
            self._attachments = error
        return self._attachments

    def tail(self, head: InvocationHead) -> bytes | None:
        """All bytes from the attachments of a call on, where they are found at once: behind plain arguments, in hessian2. None
        where `attachments` must look for them."""
        if head.serialization != HESSIAN2 or head.argument_count < 0:
            return None
        frame = self.frame
        try:
            at = plain_end(frame, head.arguments_at, head.argument_count)
        except IndexError:
            return None
        return frame[at:] if at else None

    def attachment(self, name: bytes) -> bytes | None:
        """One attachment as text; None when absent or not plain."""
        found = self.attachments
        return found.values.get(name) if found is not None else None

    @property
    def group(self) -> bytes:
        """The service group, which only the attachments tell; empty when unset."""
        return self.attachment(b"group") or b""

    def edit_attachments(self, changes: Changes) -> None:
        """Set attachments, and remove those whose new value is None. Every byte that is not concerned stays as it is.

        Raises:
            LocalProtocolError: the attachments of this message are out of reach.
        """
        found = self.attachments
        if found is None:
            raise LocalProtocolError("dubbo.no_attachments")
        values = found.values
        changes = {key: value for key, value in changes.items() if values.get(key) != value or key in found.others}
        if not changes:
            return
        self.frame = BODIES[self.flags & SERIALIZATION_MASK].edit(self.frame, found, changes)
        self._attachments = None

    def replace_rest(self, at: int, rest: bytes) -> None:
        """Put other bytes in the place of all from an offset of the frame on: where another message has its attachments, those
        of a message whose head and arguments end there."""
        self.frame = with_body(self.frame, self.frame[HEADER_SIZE:at] + rest)
        self._attachments = None

    def plain_argument(self, index: int) -> bytes | None:
        """One argument as text; None when it is missing or null, and when it is no plain value.

        The arguments before it are stepped over, and no object is made of any.
        """
        head = self.head
        if head is None or not 0 <= index < head.argument_count:
            return None
        counters = self._memo.counters
        counters.argument_reads += 1
        if index:
            counters.argument_skips += 1
        value = BODIES[head.serialization].plain_argument(self.frame, head, index, self._memo.attachments.max_values)
        return plain_text(value) if isinstance(value, str | int | float) else None

    def arguments(self, count: int | None = None) -> list[object]:
        """The first `count` arguments (all of them without it) as values of `hessian2.values`, read now.

        Raises:
            LocalProtocolError: the arguments of this message are out of reach.
        """
        head = self.head
        if head is None or head.argument_count < 0:
            raise LocalProtocolError("dubbo.no_arguments")
        count = head.argument_count if count is None else min(count, head.argument_count)
        self._memo.counters.argument_reads += count
        return BODIES[head.serialization].arguments(self.frame, head, count)

    @property
    def has_callback(self) -> bool:
        """The provider will call back on the consumer's own connection (callback arguments)."""
        return b"sys_callback_arg-" in self.frame

    @property
    def threw(self) -> bool:
        """A response with status OK that carries an exception of the business code."""
        flags = self.flags
        if flags & (FLAG_REQUEST | FLAG_EVENT) or self.status != OK:
            return False
        body = BODIES.get(flags & SERIALIZATION_MASK)
        return body is not None and body.result_type(self.frame) in (0, 3)

    def frame_with_id(self, request_id: int) -> bytes:
        """The frame under another id."""
        return with_id(self.frame, request_id)

    def __repr__(self) -> str:
        kind = "request" if self.is_request else "response"
        event = " event" if self.is_event else ""
        return f"<DubboMessage {kind}{event} id={self.request_id} status={self.status} bytes={len(self.frame)}>"
