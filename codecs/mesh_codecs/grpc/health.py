"""`grpc.health.v1`: the two messages of a health check, written and read by hand so that no worker needs protobuf.

message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { ServingStatus status = 1; }   // UNKNOWN 0, SERVING 1, NOT_SERVING 2, SERVICE_UNKNOWN 3
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.grpc.messages import frame

CHECK_PATH: Final = b"/grpc.health.v1.Health/Check"
SERVING: Final = 1
MAX_RESPONSE: Final = 4096
"""bytes of an answer that is worth reading: the message holds one number"""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_request(service: str) -> bytes:
    """The framed request; an empty name asks for the whole server."""
    if not service:
        return frame(b"")
    name = service.encode()
    return frame(b"\x0a" + _varint(len(name)) + name)


def serving_status(message: bytes) -> int | None:
    """The status in a response without its prefix (0 when it is left out); None when the message is not well-formed."""
    status = at = 0
    try:
        while at < len(message):
            key, at = _read_varint(message, at)
            kind = key & 7
            if kind == _VARINT:
                value, at = _read_varint(message, at)
                if key >> 3 == 1:
                    status = value
                continue
            if kind == _BYTES:
                size, at = _read_varint(message, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                return None
            at += size
    except IndexError:
        return None
    return status if at == len(message) else None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
