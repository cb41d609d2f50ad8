"""Dubbo providers for the comparison with Envoy: they record what comes, and answer as the name of the method says.

Frames come from `dubbo_support.wire`, which shares nothing with the proxy's codec.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

from dubbo_support import wire

from .wire import EarlyEnd, Stream

DEADLINE_S = 20.0
"""only a failure waits so long"""


@dataclass(slots=True)
class Call:
    """One frame that a provider received."""

    endpoint: str
    flags: int
    service: str
    method: str
    body: bytes

    def __str__(self) -> str:
        kind = {0xC2: "two-way", 0x82: "one-way", 0xE2: "heartbeat"}.get(self.flags, f"0x{self.flags:02x}")
        if self.flags & 0x20:
            return f"{self.endpoint} {kind} {self.body.hex()}"
        return f"{self.endpoint} {kind} {self.service} {self.method} {self.body.hex()}"


@dataclass(slots=True)
class Providers:
    """What all providers of one side saw since the case began."""

    calls: list[Call] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def clear(self) -> None:
        with self.changed:
            self.calls = []

    def record(self, call: Call) -> None:
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def wait(self, count: int) -> list[Call]:
        """The calls, once there are `count` of them."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.calls) >= count, DEADLINE_S)
            return list(self.calls)

    def serve(self, name: str, sock: socket.socket, ordinal: int) -> None:
        """One connection of a provider. How it answers is told by the name of the method."""
        stream = Stream(sock, 60.0)
        while True:
            try:
                head = stream.exactly(16)
            except EarlyEnd:
                return
            flags, _, request_id, length = wire.header(head)
            body = stream.exactly(length) if length else b""
            if flags & 0x20:
                if flags & 0xC0 == 0xC0:
                    sock.sendall(wire.heartbeat_answer(request_id))
                continue
            _, service, _, method = wire.head_strings(body, flags & 0x1F)
            self.record(Call(name, flags, service, method, body))
            if flags & 0x40 == 0:
                continue
            answer = reply(name, method, request_id)
            if answer is None:
                return
            sock.sendall(answer)


def reply(endpoint: str, method: str, request_id: int) -> bytes | None:
    """The answer to a call; empty = none, None = close the connection."""
    kind, _, argument = method.partition("_")
    if kind == "status":
        return wire.error(request_id, int(argument), "told to fail")
    if kind == "throw":
        return wire.frame(0x02, 20, request_id, b"\x93" + wire.throwable("told to throw") + wire.value({"dubbo": "2.0.2"}))
    if kind == "throwold":
        return wire.frame(0x02, 20, request_id, b"\x90" + wire.throwable("told to throw"))
    if kind == "null":
        return wire.frame(0x02, 20, request_id, b"\x95" + wire.value({"dubbo": "2.0.2"}))
    if kind == "nullold":
        return wire.frame(0x02, 20, request_id, b"\x92")
    if kind == "golang":
        return wire.frame(0x02, 20, request_id, b"\x92N")
    if kind == "old":
        return wire.frame(0x02, 20, request_id, b"\x91" + wire.string(endpoint))
    if kind == "wrongid":
        return wire.answer(request_id + 1000, endpoint)
    if kind == "badtype":
        return wire.frame(0x02, 20, request_id, b"\x9f")
    if kind == "garbage":
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"
    if kind == "other":
        return wire.frame(int(argument), 20, request_id, b"\x94" + wire.string(endpoint) + b"HZ")
    if kind == "silent":
        return b""
    if kind == "close":
        return None
    return wire.answer(request_id, endpoint)
