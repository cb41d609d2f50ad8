"""Dubbo frames by hand: bytes as Dubbo's documentation gives them, made without the codec that is tested with them.

Hessian 2 only as far as calls with strings, small numbers and maps of them need it. Text is ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack, unpack

STRING = "Ljava/lang/String;"
GENERIC = f"{STRING}[{STRING}[Ljava/lang/Object;"


def string(text: str) -> bytes:
    """A Hessian string."""
    raw = text.encode("ascii")
    if len(raw) < 32:
        return bytes([len(raw)]) + raw
    if len(raw) < 1024:
        return bytes([0x30 + (len(raw) >> 8), len(raw) & 255]) + raw
    assert len(raw) <= 32768
    return b"S" + pack(">H", len(raw)) + raw


def value(item: object) -> bytes:
    """Null, a boolean, an int, a double, a string, a list or a map."""
    if item is None:
        return b"N"
    if item is True:
        return b"T"
    if item is False:
        return b"F"
    if isinstance(item, int):
        return b"I" + pack(">i", item)
    if isinstance(item, float):
        return b"D" + pack(">d", item)
    if isinstance(item, str):
        return string(item)
    if isinstance(item, bytes):
        return item
    if isinstance(item, Mapping):
        return b"H" + b"".join(value(key) + value(one) for key, one in item.items()) + b"Z"
    assert isinstance(item, list)
    return b"X" + b"I" + pack(">i", len(item)) + b"".join(map(value, item))


def frame(flags: int, status: int, request_id: int, body: bytes) -> bytes:
    """Sixteen bytes of header and a body."""
    return b"\xda\xbb" + pack(">BBqi", flags, status, request_id, len(body)) + body


def call_body(
    service: str = "demo.HelloService",
    method: str = "sayHello",
    *,
    version: str | None = "1.0.0",
    types: str = "",
    arguments: tuple[object, ...] = (),
    attachments: Mapping[str, object] | None = None,
    tail: bytes = b"",
) -> bytes:
    """The body of a request."""
    head = string("2.0.2") + string(service) + value(version) + string(method) + string(types)
    rest = {"path": service, **attachments} if attachments is not None else {"path": service}
    return head + b"".join(map(value, arguments)) + value(rest) + tail


def call(
    service: str = "demo.HelloService",
    method: str = "sayHello",
    *,
    request_id: int = 1,
    one_way: bool = False,
    version: str | None = "1.0.0",
    types: str = "",
    arguments: tuple[object, ...] = (),
    attachments: Mapping[str, object] | None = None,
    tail: bytes = b"",
) -> bytes:
    """A request in hessian2."""
    body = call_body(service, method, version=version, types=types, arguments=arguments, attachments=attachments, tail=tail)
    return frame(0x82 if one_way else 0xC2, 0, request_id, body)


def generic_call(
    method: str, *, service: str = "demo.HelloService", attachments: Mapping[str, object] | None = None, name: str = "$invoke"
) -> bytes:
    """`$invoke(method, ["java.lang.String"], ["world"])`."""
    arguments = (method, ["java.lang.String"], ["world"])
    return call(service, name, types=GENERIC, arguments=arguments, attachments={"generic": "true", **(attachments or {})})


def heartbeat(request_id: int = 2) -> bytes:
    """A heartbeat request."""
    return frame(0xE2, 0, request_id, b"N")


def heartbeat_answer(request_id: int = 2) -> bytes:
    """What a provider answers to it."""
    return frame(0x22, 20, request_id, b"N")


def answer(request_id: int, text: str = "hi") -> bytes:
    """An OK response with a string for a result."""
    return frame(0x02, 20, request_id, b"\x94" + string(text) + value({"dubbo": "2.0.2"}))


def error(request_id: int, status: int, text: str) -> bytes:
    """A response with another status."""
    return frame(0x02, status, request_id, string(text))


def header(data: bytes) -> tuple[int, int, int, int]:
    """Flags, status, id and length of body of a frame."""
    assert data[:2] == b"\xda\xbb", data[:16]
    return unpack(">BBqi", data[2:16])


def head_strings(body: bytes, serialization: int = 2) -> list[str]:
    """The first four strings of a request body in hessian2 or fastjson2: protocol version, service, its version, method."""
    found: list[str] = []
    pos = 0
    if serialization == 23:
        for _ in range(4):
            (size,) = unpack(">I", body[pos : pos + 4])
            found.append(body[pos + 5 : pos + 4 + size].decode("ascii"))
            pos += 4 + size
        return found
    for _ in range(4):
        tag = body[pos]
        if tag == 0x4E:
            found.append("")
            pos += 1
            continue
        assert tag < 0x34, hex(tag)
        size, pos = (tag, pos + 1) if tag < 0x20 else ((tag - 0x30 << 8) + body[pos + 1], pos + 2)
        found.append(body[pos : pos + size].decode("ascii"))
        pos += size
    return found


def throwable(text: str) -> bytes:
    """A java.lang.RuntimeException with nothing but a message."""
    return b"C" + string("java.lang.RuntimeException") + b"\x91" + string("detailMessage") + b"\x60" + string(text)
