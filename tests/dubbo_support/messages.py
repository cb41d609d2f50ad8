"""Dubbo messages without a connection: recorded bodies, and what the codec makes of bodies of our own."""

from __future__ import annotations

from dubbo_vectors import IDS, recorded_bodies

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, build_frame
from mesh_codecs.hessian2 import dumps

BODIES = recorded_bodies()
SERIALIZATIONS = sorted(IDS)


def request(serialization: str, body: bytes, memo: HeadMemo | None = None) -> DubboMessage:
    return receive(build_frame(0xC0 | IDS[serialization], 0, 7, body), memo)


def response(serialization: str, body: bytes) -> DubboMessage:
    return receive(build_frame(IDS[serialization], 20, 7, body))


def receive(frame: bytes, memo: HeadMemo | None = None) -> DubboMessage:
    (message,) = DubboCodec(memo or HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    return message


def values(message: DubboMessage) -> dict[bytes, bytes]:
    found = message.attachments
    assert found is not None
    return found.values


def body(types: str, *rest: object, service: str = "demo.S", method: str = "m", version: object = "1.0.0") -> bytes:
    return dumps("2.0.2", service, version, method, types, *rest)


def call(types: str, *rest: object, tail: bytes = b"", **head: object) -> DubboMessage:
    return receive(build_frame(0xC2, 0, 1, body(types, *rest, **head) + tail))  # type: ignore[arg-type]
