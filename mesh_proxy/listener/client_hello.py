"""The first message of TLS (RFC 8446, 4.1.2): which host a caller asks for, and which protocols it offers.

It may come in any pieces: cut anywhere on the wire, and spread over several records. Nothing of it is kept but the two lists, and
a greeting that is not one, or a damaged one, only means that the connection is taken for something else than TLS.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

HANDSHAKE: Final = 22
"""content type of a record (RFC 8446, 5.1)"""
CLIENT_HELLO: Final = 1
LONGEST_RECORD: Final = 16_384
SERVER_NAME: Final = 0
"""extension (RFC 6066, 3)"""
ALPN: Final = 16
"""extension (RFC 7301)"""
_HOST: Final = re.compile(rb"[!-~]{1,255}")


class Greeting(Enum):
    """What there is instead of a ClientHello."""

    MORE = "more bytes are needed"
    NONE = "something else than TLS"
    TOO_LARGE = "longer than it may be"


class ClientHello(NamedTuple):
    """One that is complete."""

    server_name: str
    """lower-case; empty when none is asked for"""
    application_protocols: tuple[str, ...]


def read_client_hello(data: bytes, most: int) -> ClientHello | Greeting:
    """What a connection begins with; `most` bytes of the message are looked at."""
    message = b""
    position = 0
    while True:
        head = data[position : position + 5]
        if not b"\x16\x03".startswith(head[:2]):
            return Greeting.NONE
        if len(head) < 5:
            return Greeting.MORE
        length = head[3] << 8 | head[4]
        if not 0 < length <= LONGEST_RECORD:
            return Greeting.NONE
        position += 5
        message += data[position : position + length]
        position += length
        if message and message[0] != CLIENT_HELLO:
            return Greeting.NONE
        if len(message) >= 4:
            size = 4 + int.from_bytes(message[1:4], "big")
            if size > most:
                return Greeting.TOO_LARGE
            if len(message) >= size:
                return _parse(message[4:size])
        if position > len(data):
            return Greeting.MORE


class _Body:
    """Reads vectors one after the other; ValueError when they do not fit."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self._position + size
        if end > len(self._data):
            raise ValueError("it breaks off")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def vector(self, length_bytes: int) -> bytes:
        """What follows a length of so many bytes."""
        return self.take(int.from_bytes(self.take(length_bytes), "big"))

    @property
    def left(self) -> bool:
        """There is more."""
        return self._position < len(self._data)


def _parse(data: bytes) -> ClientHello | Greeting:
    name = ""
    protocols: tuple[str, ...] = ()
    try:
        body = _Body(data)
        body.take(34)  # version and random
        body.vector(1)  # session
        body.vector(2)  # cipher suites
        body.vector(1)  # compression
        extensions = _Body(body.vector(2) if body.left else b"")
        while extensions.left:
            kind = int.from_bytes(extensions.take(2), "big")
            content = _Body(extensions.vector(2))
            if kind == SERVER_NAME:
                name = _server_name(content)
            elif kind == ALPN:
                protocols = _protocols(content)
    except ValueError:
        return Greeting.NONE
    return ClientHello(name, protocols)


def _server_name(content: _Body) -> str:
    names = _Body(content.vector(2))
    while names.left:
        kind = names.take(1)
        name = names.vector(2)
        if kind == b"\0":
            if not _HOST.fullmatch(name):
                raise ValueError("a host name that is none")
            return name.decode("ascii").lower()
    return ""


def _protocols(content: _Body) -> tuple[str, ...]:
    found: list[str] = []
    names = _Body(content.vector(2))
    while names.left:
        found.append(names.vector(1).decode("latin-1"))
    return tuple(found)
