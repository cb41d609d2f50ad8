"""Raw HTTP/2 bytes for tests: frames as a hostile or careless peer would write them, and a reader of what we answer."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh_codecs.events import Event
from mesh_codecs.http2 import PREFACE, Http2Codec, Http2Settings

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 0x20

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"svc")]
POST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"svc")]
OK = [(b":status", b"200")]

Pairs = Iterable[tuple[bytes, bytes]]


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream_id) + payload


def block(pairs: Pairs) -> bytes:
    """A header block that touches no table: literals without indexing."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in pairs)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    out = bytearray([127])
    size -= 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + text


def headers(stream_id: int, pairs: Pairs = GET, *, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(pairs))


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in values))


def rst(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


SETTINGS_ACK = frame(SETTINGS, ACK)
HELLO = PREFACE + settings()
"""how a downstream peer begins"""


@dataclass
class Frame:
    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def number(self) -> int:
        """The error code of RST_STREAM or GOAWAY, the increment of WINDOW_UPDATE."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4], "big")


def parse(out: bytes | Sequence[bytes]) -> list[Frame]:
    """The frames in our output; a preface is skipped."""
    raw = out if isinstance(out, bytes) else b"".join(out)
    raw = raw.removeprefix(PREFACE)
    found = []
    while raw:
        word, flags, stream_id = struct.unpack_from(">IBI", raw)
        size = word >> 8
        found.append(Frame(word & 0xFF, flags, stream_id, raw[9 : 9 + size]))
        assert len(raw) >= 9 + size
        raw = raw[9 + size :]
    return found


def downstream(**limits: object) -> Http2Codec:
    """A codec in the role of the server after the opening."""
    codec = Http2Codec(downstream=True, settings=Http2Settings(**limits))  # type: ignore[arg-type]
    assert codec.receive_data(HELLO + SETTINGS_ACK) == []
    codec.data_to_send()
    return codec


def upstream(*peer_settings: tuple[int, int], **limits: object) -> Http2Codec:
    """A codec in the role of the client after the opening."""
    codec = Http2Codec(downstream=False, settings=Http2Settings(**limits))  # type: ignore[arg-type]
    codec.receive_data(settings(*peer_settings) + SETTINGS_ACK)
    codec.data_to_send()
    return codec


def pieces(raw: bytes, how: str) -> list[bytes]:
    """The same bytes `whole`, byte by byte (`bytes`), or in `random` cuts."""
    if how == "whole":
        return [raw]
    if how == "bytes":
        return [raw[i : i + 1] for i in range(len(raw))]
    source = random.Random(len(raw))
    out = []
    while raw:
        cut = source.randint(1, 40)
        out.append(raw[:cut])
        raw = raw[cut:]
    return out


CUTS = ("whole", "bytes", "random")


def feed(codec: Http2Codec, raw: bytes, how: str = "whole") -> list[Event]:
    """Feed bytes cut as asked; all events."""
    events: list[Event] = []
    for piece in pieces(raw, how):
        events.extend(codec.receive_data(piece))
    return events


def exchange(one: Http2Codec, other: Http2Codec) -> tuple[list[Event], list[Event]]:
    """Let two codecs talk until both are silent: (events of `one`, events of `other`)."""
    left: list[Event] = []
    right: list[Event] = []
    while True:
        to_other = b"".join(one.data_to_send())
        to_one = b"".join(other.data_to_send())
        if not to_other and not to_one:
            return left, right
        if to_other:
            right.extend(other.receive_data(to_other))
        if to_one:
            left.extend(one.receive_data(to_one))


def pair(**limits: object) -> tuple[Http2Codec, Http2Codec]:
    """(upstream side, downstream side) that have greeted each other."""
    client = Http2Codec(downstream=False, settings=Http2Settings(**limits))  # type: ignore[arg-type]
    server = Http2Codec(downstream=True, settings=Http2Settings(**limits))  # type: ignore[arg-type]
    exchange(client, server)
    return client, server
