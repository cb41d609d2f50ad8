"""Dubbo frames: sixteen bytes of header, then a body of the length that the header says.

Everything is big-endian: magic `da bb`, flags (0x80 request, 0x40 an answer is expected, 0x20 event, five bits of serialization
id), a status that only responses use, a signed 64-bit id, a signed 32-bit length of the body. The layout is that of Apache
Dubbo's `ExchangeCodec`, the same from 2.6 to 3.3.

A Java peer treats bytes without the magic as a telnet command and looks for the next magic. A proxy that guessed where the next
frame starts could be led to see other frames than its peer, so here a wrong magic ends the connection.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

MAGIC: Final = b"\xda\xbb"
HEADER_SIZE: Final = 16

FLAG_REQUEST: Final = 0x80
FLAG_TWO_WAY: Final = 0x40
FLAG_EVENT: Final = 0x20
SERIALIZATION_MASK: Final = 0x1F

MAX_BODY: Final = 8 * 1024 * 1024
"""bytes of body; Dubbo's own default limit (`payload`)"""

HESSIAN2: Final = 2
JAVA: Final = 3
COMPACTED_JAVA: Final = 4
NATIVE_JAVA: Final = 7
FASTJSON2: Final = 23

SERIALIZATION_NAMES: Final = {
    2: "hessian2",
    3: "java",
    4: "compactedjava",
    6: "fastjson",
    7: "nativejava",
    8: "kryo",
    9: "fst",
    10: "native-hessian",
    11: "avro",
    12: "protostuff",
    16: "gson",
    18: "jackson",
    21: "protobuf-json",
    22: "protobuf",
    23: "fastjson2",
    25: "kryo2",
    27: "msgpack",
    28: "fury",
    29: "fury-compatible",
    31: "custom-msgpack",
}
"""names of the serialization ids, for logs"""

OK: Final = 20
SERIALIZATION_ERROR: Final = 25
CLIENT_TIMEOUT: Final = 30
SERVER_TIMEOUT: Final = 31
CHANNEL_INACTIVE: Final = 35
BAD_REQUEST: Final = 40
BAD_RESPONSE: Final = 50
SERVICE_NOT_FOUND: Final = 60
SERVICE_ERROR: Final = 70
SERVER_ERROR: Final = 80
CLIENT_ERROR: Final = 90
SERVER_THREADPOOL_EXHAUSTED: Final = 100

STATUS_NAMES: Final = {
    20: "OK",
    25: "SERIALIZATION_ERROR",
    30: "CLIENT_TIMEOUT",
    31: "SERVER_TIMEOUT",
    35: "CHANNEL_INACTIVE",
    40: "BAD_REQUEST",
    50: "BAD_RESPONSE",
    60: "SERVICE_NOT_FOUND",
    70: "SERVICE_ERROR",
    80: "SERVER_ERROR",
    90: "CLIENT_ERROR",
    100: "SERVER_THREADPOOL_EXHAUSTED_ERROR",
}
"""names of the response statuses; any other is passed on as it is and reads UNKNOWN"""

HEADER: Final = Struct(">HBBqi")
"""magic, flags, status, request id, length of the body"""

_ID: Final = Struct(">q")
_LENGTH: Final = Struct(">i")
_pack_id: Final = _ID.pack
_pack_header: Final = HEADER.pack

HEARTBEAT_REQUEST_FLAGS: Final = FLAG_REQUEST | FLAG_TWO_WAY | FLAG_EVENT
ONE_WAY_EVENT_FLAGS: Final = FLAG_REQUEST | FLAG_EVENT

NULL_BODIES: Final = {
    HESSIAN2: b"N",
    JAVA: bytes.fromhex("aced0005770100"),
    COMPACTED_JAVA: bytes.fromhex("aced0005770100"),
    NATIVE_JAVA: bytes.fromhex("aced000570"),
    FASTJSON2: bytes.fromhex("00000001af"),
}
"""Body of a heartbeat: null as each serialization writes it. Dubbo from 3.2 on compares the bytes and ignores any other body."""


def build_frame(flags: int, status: int, request_id: int, body: bytes) -> bytes:
    """A whole frame."""
    return _pack_header(0xDABB, flags, status, request_id, len(body)) + body


def with_id(frame: bytes, request_id: int) -> bytes:
    """The same frame under another id; nothing else is touched."""
    return frame[:4] + _pack_id(request_id) + frame[12:]


def with_body(frame: bytes, body: bytes) -> bytes:
    """The same header, with its length corrected, in front of another body."""
    return frame[:12] + _LENGTH.pack(len(body)) + body


def heartbeat_request(request_id: int, serialization: int = HESSIAN2) -> bytes:
    """A heartbeat that wants an answer."""
    return build_frame(HEARTBEAT_REQUEST_FLAGS | serialization, 0, request_id, NULL_BODIES[serialization])


def heartbeat_response(request_id: int, serialization: int = HESSIAN2) -> bytes:
    """The answer to a heartbeat of which only the head is known."""
    return build_frame(FLAG_EVENT | serialization, OK, request_id, NULL_BODIES[serialization])


def answer_heartbeat(frame: bytes) -> bytes:
    """The answer to a heartbeat request: same id, same serialization, same null.

    The null is copied from the request, which is right for every serialization, also one that we cannot read. An empty body,
    which some proxies send, is answered with a null where it is known: a Java peer fails on an empty answer.
    """
    serialization = frame[2] & SERIALIZATION_MASK
    if len(frame) == HEADER_SIZE:
        body = NULL_BODIES.get(serialization, b"")
        return bytes((0xDA, 0xBB, FLAG_EVENT | serialization, OK)) + frame[4:12] + _LENGTH.pack(len(body)) + body
    return bytes((0xDA, 0xBB, FLAG_EVENT | serialization, OK)) + frame[4:]


def readonly_event(request_id: int) -> bytes:
    """ "Send me no new calls on this connection": what a provider says before it stops. Always in hessian2: the receiver picks
    the decoder by the id in this frame, hessian2 is on every Dubbo class path, and Dubbo from 3.1 on cannot read its own
    READONLY in JDK serialization."""
    return build_frame(ONE_WAY_EVENT_FLAGS | HESSIAN2, 0, request_id, b"\x01R")


def writeable_event(request_id: int) -> bytes:
    """Takes a READONLY back; understood by Dubbo from 3.2 on."""
    return build_frame(ONE_WAY_EVENT_FLAGS | HESSIAN2, 0, request_id, b"\x01W")
