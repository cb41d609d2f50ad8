"""Frame layout of HTTP/2 (RFC 9113, sections 4, 6 and 7): numbers, and how each frame that we send is built.

Faults found in what the peer sent travel as two exceptions that never leave the codec: a `StreamFault` becomes one RST_STREAM,
a `ConnectionFault` becomes the farewell GOAWAY.
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""what every client sends first (RFC 9113, 3.4)"""

# Frame types (RFC 9113, 6).
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

# Error codes (RFC 9113, 7).
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

# Settings (RFC 9113, 6.5.2; RFC 8441, 3).
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8

FRAME_HEADER_SIZE: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_MAX_FRAME_SIZE: Final = 16_384
LARGEST_FRAME_SIZE: Final = 16_777_215
LARGEST_WINDOW: Final = 0x7FFFFFFF
LARGEST_STREAM_ID: Final = 0x7FFFFFFF

_head = struct.Struct(">IBI")
pack_frame_header = _head.pack
"""(length << 8 | type, flags, stream id) -> the nine bytes before a payload"""
unpack_frame_header = _head.unpack_from
"""the reverse; mask the stream id with LARGEST_STREAM_ID"""
unpack_kinds = struct.Struct(">HBHi").unpack_from
"""the nine bytes for a reader in a hurry: (length >> 8, length & 0xFF, type << 8 | flags, stream id, negative if its reserved bit
is set)"""
COMPILED: Final = not __file__.endswith(".py")
"""Machine code reads a byte in a fraction of the time that it takes to call `struct`; the interpreter does not."""
_start = struct.Struct(">IB").pack
STARTS: Final = 256
"""payload sizes below this have their place in the four lists that follow"""
DATA_STARTS: Final = [_start(size << 8 | DATA, 0) for size in range(STARTS)]
"""the nine bytes without the stream id: by size of the payload, for each kind of frame that messages are made of"""
DATA_END_STARTS: Final = [_start(size << 8 | DATA, END_STREAM) for size in range(STARTS)]
HEADERS_STARTS: Final = [_start(size << 8 | HEADERS, END_HEADERS) for size in range(STARTS)]
HEADERS_END_STARTS: Final = [_start(size << 8 | HEADERS, END_HEADERS | END_STREAM) for size in range(STARTS)]
_settings_entry = struct.Struct(">HI")
pack_u32 = struct.Struct(">I").pack
_rst = struct.Struct(">IBII")
_goaway = struct.Struct(">IBIII")


class StreamFault(Exception):
    """The peer broke a rule within one stream (RFC 9113, 5.4.2)."""

    def __init__(self, stream_id: int, error_code: int, why: str) -> None:
        super().__init__(why)
        self.stream_id = stream_id
        self.error_code = error_code
        self.why = why


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection (RFC 9113, 5.4.1)."""

    def __init__(self, error_code: int, why: str) -> None:
        super().__init__(why)
        self.error_code = error_code
        self.why = why


def settings_frame(values: list[tuple[int, int]]) -> bytes:
    """SETTINGS with these (identifier, value) entries."""
    payload = b"".join([_settings_entry.pack(key, value) for key, value in values])
    return pack_frame_header(len(payload) << 8 | SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = pack_frame_header(SETTINGS, ACK, 0)


def iter_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) entries of a SETTINGS payload, whose length is a multiple of six."""
    return list(_settings_entry.iter_unpack(payload))


def rst_stream_frame(stream_id: int, error_code: int) -> bytes:
    """RST_STREAM."""
    return _rst.pack(4 << 8 | RST_STREAM, 0, stream_id, error_code)


def ping_frame(flags: int, opaque: bytes) -> bytes:
    """PING with its eight opaque bytes."""
    return pack_frame_header(8 << 8 | PING, flags, 0) + opaque


def goaway_frame(last_stream_id: int, error_code: int, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return _goaway.pack((8 + len(debug)) << 8 | GOAWAY, 0, 0, last_stream_id, error_code) + debug


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream id 0 is the connection."""
    return _rst.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def header_frames(stream_id: int, end_stream: bool, block: bytes, max_frame_size: int) -> bytes:
    """A header block longer than the peer's frame size as HEADERS and CONTINUATION frames."""
    flags = END_STREAM if end_stream else 0
    size = len(block)
    parts = [pack_frame_header(max_frame_size << 8 | HEADERS, flags, stream_id), block[:max_frame_size]]
    start = max_frame_size
    while start < size:
        piece = block[start : start + max_frame_size]
        start += max_frame_size
        parts.append(pack_frame_header(len(piece) << 8 | CONTINUATION, END_HEADERS if start >= size else 0, stream_id))
        parts.append(piece)
    return b"".join(parts)
