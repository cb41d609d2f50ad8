"""A strict HTTP/1.1 reader over a blocking socket, used on both ends of the proxy under test.

It accepts only what RFC 9112 lets a sender write, so that a proxy that emits something sloppy is seen
here and not forgiven. It never normalises: names and values come back as they were sent.
"""

from __future__ import annotations

import re
import select
import socket
from dataclasses import dataclass, field

REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/(\d\.\d)\r\n")
STATUS_LINE = re.compile(rb"HTTP/(\d\.\d) (\d{3}) ([\t\x20-\x7e\x80-\xff]*)\r\n")
FIELD_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*\r\n"
)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,13})\r\n")

Fields = list[tuple[str, str]]


class WireError(Exception):
    """What arrived is not HTTP/1.1, or ended too early."""


class EarlyEnd(WireError):
    """The peer closed before the first byte of a message."""


def parse_fields(block: bytes) -> Fields:
    """Header or trailer lines, each ending in CRLF, without the empty line."""
    found: Fields = []
    at = 0
    while at < len(block):
        match = FIELD_LINE.match(block, at)
        if match is None:
            raise WireError(f"bad field line {block[at : at + 120]!r}")
        found.append((match[1].decode("latin-1"), match[2].decode("latin-1")))
        at = match.end()
    return found


def values(fields: Fields, name: str) -> list[str]:
    return [v for n, v in fields if n.lower() == name]


class Stream:
    """A blocking socket with a buffer. Every read has the deadline of the socket (`timeout`, seconds)."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self.sock = sock
        self.raw = bytearray()
        """Everything ever received, for reports."""
        self.ended = ""
        """`closed` or `reset` once the peer ended its side, else empty."""
        self._buffer = bytearray()
        sock.settimeout(timeout)

    def _fill(self) -> bool:
        if self.ended:
            return False
        try:
            data = self.sock.recv(65536)
        except TimeoutError as error:
            raise WireError("nothing came before the deadline") from error
        except OSError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "closed"
            return False
        self.raw += data
        self._buffer += data
        return True

    def until(self, mark: bytes, limit: int = 1 << 20) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise WireError("head too long")
            if not self._fill():
                if not self._buffer:
                    raise EarlyEnd(self.ended)
                raise WireError(f"{self.ended} after {bytes(self._buffer[:200])!r}")
        at += len(mark)
        data = bytes(self._buffer[:at])
        del self._buffer[:at]
        return data

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._fill():
                raise WireError(f"{self.ended} {size - len(self._buffer)} bytes too early")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def some(self) -> bytes:
        """Whatever comes next; empty at the end."""
        if not self._buffer:
            self._fill()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def rest(self) -> bytes:
        while self._fill():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def wait_end(self, timeout: float) -> str:
        """`closed`, `reset`, `open` (nothing came within `timeout` seconds) or `data` (unasked bytes came)."""
        if self._buffer:
            return "data"
        if not self.ended:
            readable, _, _ = select.select([self.sock], [], [], timeout)
            if not readable:
                return "open"
            if self._fill():
                return "data"
        return self.ended

    def chunked(self) -> tuple[bytes, Fields]:
        body = bytearray()
        while True:
            line = self.until(b"\r\n", 64)
            match = CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise WireError(f"bad chunk size {line!r}")
            size = int(match[1], 16)
            if size == 0:
                break
            body += self.exactly(size)
            if self.exactly(2) != b"\r\n":
                raise WireError("chunk without CRLF at its end")
        block = bytearray()
        while (line := self.until(b"\r\n")) != b"\r\n":
            block += line
        return bytes(body), parse_fields(bytes(block))


@dataclass(slots=True)
class Response:
    """One answer as the downstream side received it."""

    status: int = 0
    version: str = ""
    reason: str = ""
    headers: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    informational: list[tuple[int, Fields]] = field(default_factory=list)
    error: str = ""
    """What was wrong with it, or how the connection ended instead of an answer."""


@dataclass(slots=True)
class Head:
    """The first line and the fields of a request or a response."""

    first: re.Match[bytes]
    fields: Fields


def read_head(stream: Stream, first_line: re.Pattern[bytes]) -> Head:
    block = stream.until(b"\r\n\r\n")
    match = first_line.match(block)
    if match is None:
        raise WireError(f"bad first line {block[:200]!r}")
    return Head(match, parse_fields(block[match.end() : -2]))


def content_length(fields: Fields) -> int | None:
    lengths = values(fields, "content-length")
    if not lengths:
        return None
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise WireError(f"bad content-length {lengths}")
    return int(lengths[0])


def is_chunked(fields: Fields) -> bool:
    codings = values(fields, "transfer-encoding")
    if codings and codings != ["chunked"]:
        raise WireError(f"bad transfer-encoding {codings}")
    if codings and content_length(fields) is not None:
        raise WireError("content-length and transfer-encoding together")
    return bool(codings)


def read_response(stream: Stream, method: str) -> Response:
    """Read one final response and the 1xx before it (101 and a 2xx to CONNECT are final and have no body)."""
    response = Response()
    try:
        while True:
            head = read_head(stream, STATUS_LINE)
            response.version = head.first[1].decode()
            response.status = int(head.first[2])
            response.reason = head.first[3].decode("latin-1")
            if response.status >= 200 or response.status == 101:
                break
            response.informational.append((response.status, head.fields))
        response.headers = head.fields
        tunnel = response.status == 101 or (method == "CONNECT" and 200 <= response.status < 300)
        if method == "HEAD" or response.status in (204, 304) or tunnel:
            is_chunked(head.fields), content_length(head.fields)
        elif is_chunked(head.fields):
            response.body, response.trailers = stream.chunked()
        elif (length := content_length(head.fields)) is not None:
            response.body = stream.exactly(length)
        else:
            response.body = stream.rest()
    except EarlyEnd as end:
        response.error = f"connection {end} without an answer"
    except WireError as error:
        response.error = str(error)
    return response
