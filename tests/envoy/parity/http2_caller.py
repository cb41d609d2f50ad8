"""HTTP/2 from the caller's side: exact frames out, and what comes back read by `hpack`, which is nobody's codec here."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import hpack

from .wire import Fields, Response

if TYPE_CHECKING:
    from .case import Client, Observation, Pair
    from .proxy import Side

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
DEADLINE_S = 20.0
Script = Callable[["Pair", "Side", "Observation"], None]
Part = bytes | Callable[["Caller"], None]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream_id) + payload


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Literals without indexing: the bytes exactly as given, right or wrong."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    return hpack.hpack.encode_integer(len(data), 7) + data


def head(
    stream_id: int = 1,
    path: str | None = "/",
    *fields: tuple[str, str],
    method: str = "GET",
    authority: str | None = "a.test",
    scheme: str = "http",
    end: bool = True,
) -> bytes:
    """HEADERS of a request."""
    pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    pairs = [(name, value) for name, value in pseudo if value is not None]
    return raw_head(stream_id, *pairs, *fields, end=end)


def raw_head(stream_id: int, *fields: tuple[str, str], end: bool = True) -> bytes:
    """HEADERS with these fields and no others."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields))


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def rst(stream_id: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


class Caller:
    """One HTTP/2 connection to the proxy."""

    def __init__(self, client: Client) -> None:
        self.sock = client.sock
        self.side = client.side
        self.deadline_s = DEADLINE_S
        self.responses: dict[int, Response] = {}
        self.over: dict[int, str] = {}
        """stream -> `ended` or `reset <code>`"""
        self.goaways: list[tuple[int, int]] = []
        """last stream, code"""
        self.ended = ""
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, raw: bytes) -> None:
        with contextlib.suppress(OSError):  # the proxy closed; the answers say so
            self.sock.sendall(raw)

    def read(self, wait: float = DEADLINE_S) -> bool:
        """What comes within so many seconds; False when nothing did."""
        if self.ended or not select.select([self.sock], [], [], wait)[0]:
            return False
        try:
            received = self.sock.recv(65536)
        except OSError:
            received = b""
        if not received:
            self.ended = "closed"
            return False
        self._buffer += received
        while len(self._buffer) >= 9:
            word, flags, stream_id = struct.unpack_from(">IBI", self._buffer)
            end = 9 + (word >> 8)
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[9:end])
            del self._buffer[:end]
            self._frame(word & 0xFF, flags, stream_id, payload)
        return True

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._head(stream_id, payload)
        elif kind == DATA:
            self.responses[stream_id].body += payload
            if payload:
                credit = struct.pack(">I", len(payload))
                self.send(frame(WINDOW_UPDATE, 0, 0, credit) + frame(WINDOW_UPDATE, 0, stream_id, credit))
        elif kind == RST_STREAM:
            self.over[stream_id] = f"reset {int.from_bytes(payload, 'big')}" + (
                " after its end" if stream_id in self.over else ""
            )
            self.responses.setdefault(stream_id, Response())
            return
        elif kind == SETTINGS and not flags & 1:
            self.send(frame(SETTINGS, 1, 0))
        elif kind == PING and not flags & 1:
            self.send(frame(PING, 1, 0, payload))
        elif kind == GOAWAY:
            last, code = struct.unpack_from(">II", payload)
            self.goaways.append((last, code))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.over[stream_id] = "ended"

    def _head(self, stream_id: int, payload: bytes) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._decoder.decode(payload, raw=True)]
        fields: Fields = [pair for pair in pairs if pair[0] != ":status"]
        status = int(dict(pairs).get(":status", 0))
        response = self.responses.setdefault(stream_id, Response(version="2"))
        if not status:
            response.trailers = fields
        elif status < 200:
            response.informational.append((status, fields))
        else:
            response.status = status
            response.headers = fields

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.deadline_s
        while not done() and not self.ended and time.monotonic() < deadline:
            self.read(max(deadline - time.monotonic(), 0))

    def head_of(self, stream_id: int) -> None:
        """Wait for a response head."""
        self.until(lambda: stream_id in self.over or (stream_id in self.responses and bool(self.responses[stream_id].status)))

    def look(self, seconds: float) -> str:
        """Read on until nothing has come for so long: `closed`, or still `open`."""
        while self.read(seconds):
            pass
        return self.ended or "open"

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)


def call(
    *parts: Part, streams: tuple[int, ...] = (1,), listener: str = "main", rest: float = 0.05, goaway: bool = False
) -> Script:
    """Send the parts (a function among them waits for something in between), read until the streams are over, and note how
    each ended and how the connection stands `rest` seconds later. Whether GOAWAY comes before an end of the connection is
    compared only if asked for: Envoy never says it when the caller broke a rule."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        from .case import Client

        with Client(side, listener) as client:
            caller = Caller(client)
            for part in parts:
                if isinstance(part, bytes):
                    caller.send(part)
                else:
                    part(caller)
            caller.until(lambda: all(stream_id in caller.over for stream_id in streams))
            connection = seen.stand(side, caller.look, rest)
            for stream_id in streams:
                seen.responses.append(caller.responses.get(stream_id, Response()))
                seen.notes[f"stream {stream_id}"] = caller.over.get(stream_id, "open")
            seen.notes["connection"] = connection
            if goaway:
                seen.notes["goaway"] = str(caller.goaways)
            seen.client_ports.append(client.port)

    return run
