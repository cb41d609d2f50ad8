"""What an old and a new process say to each other while one takes over from the other.

A message is a frozen dataclass. On the wire it is one frame:

    magic          4 bytes, `MPHR`
    version        u16, PROTOCOL_VERSION of the sender
    descriptors    u16, how many file descriptors came with the first byte of the frame (SCM_RIGHTS)
    text length    u32
    data length    u32
    text           JSON object: `{"type": "Hello", …fields}`
    data           raw bytes: the state of a connection; mostly empty

The head never changes between versions, so that a process of any version can at least be told why it is refused. Fields that a
receiver does not know are ignored and fields that are missing take their default: messages may grow without a new version.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

MAGIC: Final = b"MPHR"
PROTOCOL_VERSION: Final = 1
"""changes when an old process would misunderstand a new one; such processes refuse each other"""
HEAD: Final = struct.Struct("!4sHHII")
MAX_DESCRIPTORS: Final = 100
"""per message; the kernel takes 253 (SCM_MAX_FD), and who has more sends several messages"""
MAX_TEXT: Final = 64 << 20
"""bytes of JSON: a million statistics"""
MAX_DATA: Final = 16 << 20
"""bytes of connection state: more than any codec keeps unparsed"""


class WireError(Exception):
    """The peer sent what is no message of this protocol."""


class VersionMismatch(WireError):
    """The peer speaks another version."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"it speaks version {theirs} of the hot-restart protocol, this process version {PROTOCOL_VERSION}")
        self.theirs = theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Base of all messages. `data` is the raw part of the frame."""

    data: bytes = b""


# From the new process (the child).


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """The first message."""

    program: str
    """version of the program"""
    pid: int
    epoch: int = -1
    """`--restart-epoch`; -1 when not given: it is then the parent's plus one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSockets(Message):
    """Give me your listening sockets; answered by one or more Sockets."""

    listeners: list[list[str]] = field(default_factory=list)
    """[listener name, address] of each that the child's configuration has; the others stay with the parent"""
    admin: str = ""
    """address of the child's admin interface; its socket is passed only if it is the same"""
    restart_epoch_given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Message):
    """The configuration is live in every worker; I could accept now. Answered by Proceed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepting(Message):
    """I accept connections: stop accepting, hand me your connections, and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(Message):
    """The connection with this number is mine: forget it."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAdopted(Message):
    """I cannot take this connection: go on with it yourself."""

    number: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStats(Message):
    """Somebody looks at the statistics: how do yours stand now? Answered by Stats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(Message):
    """I cannot take over, for this reason, and end."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Message):
    """Never come back to life for my sake: I end, because I was asked to or because I was upgraded in turn."""


# From the old process (the parent).


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(Message):
    """The answer to Hello."""

    program: str
    pid: int
    epoch: int
    generation: int
    """how many processes there were before it, and itself (`server.hot_restart_generation`)"""
    started_at: float
    """wall-clock seconds when the first of them started"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Message):
    """No. The parent goes on as if nothing had been asked."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets(Message):
    """Listening sockets, one descriptor per entry."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    """`kind` (`listener`, `admin`, `control`), and for listeners `name`, `address` as configured, `real` with the bound port"""
    last: bool = True
    """no further message of this kind follows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed(Message):
    """Begin to accept. The parent still accepts too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Message):
    """An established connection with its descriptor; `data` is its codec's state. Answered by Adopted or NotAdopted."""

    number: int
    protocol: str
    """which codec wrote the state"""
    listener: str
    """name of the listener that accepted it"""
    facts: dict[str, Any] = field(default_factory=dict)
    """what is known about it: addresses, age, counts"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late(Message):
    """`data` is owed to the caller of a connection that was adopted: whole messages, to be written as they are."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Message):
    """Everything that the parent and those before it have counted. A later one replaces an earlier one."""

    groups: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    """downstream connections that it still has"""
    final: bool = False
    """its workers have ended; nothing will be added"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Message):
    """The parent ends now."""

    moved: int
    drained: int
    cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUnderstood(Message):
    """Either side, to a message whose type it does not know; nothing else happens."""

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Message):
    """What decoding makes of a type that this version does not know."""

    KIND: ClassVar[str] = "Unknown"
    what: str


M = TypeVar("M", bound=Message)
_TYPES: Final[Mapping[str, type[Message]]] = {
    kind.__name__: kind
    for kind in (
        Hello, PassSockets, Ready, Accepting, Adopted, NotAdopted, AskStats, GiveUp, Release,
        Welcome, Refused, Sockets, Proceed, Connection, Late, Stats, Finished, NotUnderstood,
    )
}  # fmt: skip
_PYTHON_TYPES: Final = {"int": int, "float": (int, float), "str": str, "bool": bool}


def encode(message: Message, descriptors: int = 0, *, version: int = PROTOCOL_VERSION) -> bytes:
    """The frame."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message) if f.name != "data"}
    text = json.dumps({"type": type(message).__name__, **fields}, separators=(",", ":")).encode()
    return HEAD.pack(MAGIC, version, descriptors, len(text), len(message.data)) + text + message.data


def decode_head(head: bytes | bytearray, position: int = 0) -> tuple[int, int, int, int]:
    """(version, descriptors, text length, data length). Raises WireError when it is not ours or breaks a limit."""
    magic, version, descriptors, text, data = HEAD.unpack_from(head, position)
    if magic != MAGIC:
        raise WireError("it does not speak the hot-restart protocol")
    if descriptors > MAX_DESCRIPTORS or text > MAX_TEXT or data > MAX_DATA:
        raise WireError(f"a message is too large: {descriptors} descriptors, {text} bytes of text, {data} of data")
    return version, descriptors, text, data


def decode(text: bytes, data: bytes = b"") -> Message:
    """The message; Unknown when its type is not known. Raises WireError."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("a message is not JSON") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("type"), str):
        raise WireError("a message has no type")
    kind = _TYPES.get(tree["type"])
    if kind is None:
        return Unknown(what=tree["type"][:100])
    values: dict[str, Any] = {"data": data}
    for known in dataclasses.fields(kind):
        if known.name != "data" and known.name in tree:
            value = tree[known.name]
            _check(kind, known, value)
            values[known.name] = value
    try:
        return kind(**values)
    except TypeError:
        raise WireError(f"{kind.__name__} lacks a field") from None


def _check(kind: type[Message], known: dataclasses.Field[Any], value: Any) -> None:
    """The JSON type fits the annotation."""
    annotation = str(known.type)
    expected: Any = _PYTHON_TYPES.get(annotation) or (list if annotation.startswith("list") else dict)
    if not isinstance(value, expected) or (isinstance(value, bool) and annotation != "bool"):
        raise WireError(f"{kind.__name__}.{known.name} is not {annotation}")
