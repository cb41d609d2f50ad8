"""A Dubbo message as filters and logs of any protocol see one: attachments as headers, read only when somebody asks.

Names are lower-case there, as everywhere in `Headers`. What a filter changed becomes one splice of the attachments when the
message goes on; keys that the sender wrote keep their case. Numbers and booleans read as text and stay what they are unless
they are changed. Attachments that cannot be had (opaque serialization, too far behind, malformed) count as none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from mesh_codecs.dubbo import DubboMessage
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.hessian2.values import Map, Object

PROTOCOL = b"Dubbo"
NO_VERSION = b"0.0.0"
"""how Dubbo writes that a service has none"""


_FIRST: Final[Any] = vars(Headers)["first"]
"""the attribute itself"""


class AttachmentHeaders(Headers):
    """See the module. What is interpreted reads `first` as below. Compiled code would read the attribute of `Headers` itself,
    which is not there before the first look: where attachments may come it calls methods, or takes the headers as `Any`."""

    __slots__ = ("_before", "_message", "_names", "_values", "unreadable")

    def __init__(self, message: DubboMessage) -> None:
        self._message = message
        self._values: dict[bytes, bytes] | None = None
        self._before: dict[bytes, bytes] = {}
        self._names: dict[bytes, bytes] = {}
        """lower-case name → the sender's"""
        self.more = None
        self.unreadable = False
        """somebody looked, and the attachments cannot be had"""

    @property
    def first(self) -> dict[bytes, bytes]:
        """Name → value; the attachments are read at the first look."""
        values = self._values
        if values is None:
            values = self._values = self._read()
            _FIRST.__set__(self, values)
        return values

    @first.setter
    def first(self, values: dict[bytes, bytes]) -> None:
        self.first.clear()
        self.first.update(values)

    def get(self, name: bytes) -> bytes | None:
        """The first value of a name."""
        return self.first.get(name)

    def get_joined(self, name: bytes) -> bytes | None:
        """All values of a name joined by a comma."""
        return self.first.get(name) if self.more is None else super().get_joined(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """All values of a name, in order."""
        return super().get_all(name) if name in self.first else []

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all values of a name by one."""
        self.first[name] = value
        if self.more is not None:
            self._drop_repeats(name)

    def add(self, name: bytes, value: bytes) -> None:
        """Add a value after those that are there."""
        if name not in self.first:
            self.first[name] = value
        else:
            super().add(name, value)

    def setdefault(self, name: bytes, value: bytes) -> None:
        """Add a value only if the name is absent."""
        self.first.setdefault(name, value)

    def remove(self, name: bytes) -> bytes | None:
        """Remove every value of a name; the first one is returned."""
        return super().remove(name) if name in self.first else None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (name, value)."""
        return iter([*self.first.items(), *(self.more or ())])

    def copy(self) -> Headers:
        """An independent copy, of what the attachments say now."""
        return Headers(list(self.items()))

    def __contains__(self, name: bytes) -> bool:
        return name in self.first

    def __len__(self) -> int:
        return len(self.first) + len(self.more or ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.first == other.first and (self.more or []) == (other.more or [])

    __hash__ = None  # mutable

    @property
    def service_version(self) -> bytes:
        """What the call itself says, which needs no attachments; empty when it has none."""
        version = self._message.service_version
        return version if version != NO_VERSION else b""

    def _read(self) -> dict[bytes, bytes]:
        message = self._message
        try:
            found = message.attachments
        except RemoteProtocolError:
            found = None
        if found is None:
            self.unreadable = True
            return {}
        self._names = {name.lower(): name for name in found.values}
        self._before = {name.lower(): value for name, value in found.values.items()}
        return self._before.copy()

    def apply(self) -> bool:
        """Write the changes into the message. False when its attachments are out of reach and there are changes."""
        values = self._values
        if values is None or (values == self._before and self.more is None):
            return True
        after = {name: self.get_joined(name) for name in values}
        names = self._names
        changes = {names.get(name, name): value for name, value in after.items() if self._before.get(name) != value}
        changes |= {names.get(name, name): None for name in self._before if name not in after}
        try:
            self._message.edit_attachments(changes)
        except (LocalProtocolError, RemoteProtocolError):
            return False
        self._before = {name: value for name, value in after.items() if value is not None}
        return True


def argument_text(message: DubboMessage, index: int, fields: Sequence[str]) -> bytes | None:
    """An argument, or a field of an object or entry of a map within it, if it is a text, number or boolean."""
    try:
        found = message.arguments(index + 1)
    except (LocalProtocolError, RemoteProtocolError):
        return None
    if index >= len(found):
        return None
    value = found[index]
    for name in fields:
        if isinstance(value, Object) and name in value.definition.fields:
            value = value.values[value.definition.fields.index(name)]
        elif isinstance(value, Map):
            value = next((held for key, held in value.pairs if key == name), None)
        else:
            return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode("utf-8", "replace") if isinstance(value, (str, int, float)) else None


def request_view(message: DubboMessage) -> RequestHeaders:
    """The head of a call in the words of HTTP: `POST /<service>/<method>` to the authority `<service>`.

    Of a generic call the method is the one that it really calls. A call in a serialization that nobody can read has neither.

    Raises:
        RemoteProtocolError: the head is malformed.
    """
    service = message.service
    try:
        method = message.real_method
    except RemoteProtocolError:
        method = message.method
    path = b"/%b/%b" % (service, method) if service else b"/"
    return RequestHeaders(0, b"POST", b"dubbo", service, path, AttachmentHeaders(message), True, http_version=PROTOCOL)
