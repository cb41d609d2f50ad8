"""A Dubbo provider and a consumer that cost little themselves.

    python dubbo_peers.py provider PORT
    python dubbo_peers.py load PORT CONNECTIONS IN_FLIGHT SECONDS [TAG]

Both read frames by their length field only. The provider answers every two-way call with a short string; the consumer keeps the
wanted number of calls in flight on each connection and prints how many were answered.
"""

from __future__ import annotations

import asyncio
import sys
from struct import Struct

HEADER = Struct(">HBBqi")
ANSWER = bytes.fromhex("940268694805647562626f05322e302e325a")
"""result type VALUE_WITH_ATTACHMENTS, "hi", {dubbo: 2.0.2}"""


def text(value: str) -> bytes:
    """A Hessian string of less than 32 characters, or of less than 1024."""
    raw = value.encode()
    return (bytes([len(raw)]) if len(raw) < 32 else bytes([0x30 + (len(raw) >> 8), len(raw) & 255])) + raw


def request_body(tag: str) -> bytes:
    """`demo.HelloService:1.0.0 sayHello("world")` with the attachments that Dubbo 2.7 sends, and a tag."""
    head = text("2.0.2") + text("demo.HelloService") + text("1.0.0") + text("sayHello") + text("Ljava/lang/String;")
    pairs = {
        "path": "demo.HelloService",
        "remote.application": "consumer",
        "interface": "demo.HelloService",
        "version": "1.0.0",
        "dubbo.tag": tag,
    }
    return head + text("world") + b"H" + b"".join(text(key) + text(value) for key, value in pairs.items()) + b"Z"


class Frames(asyncio.Protocol):
    """Cuts what comes into frames."""

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        pos, size, out = 0, len(data), []
        while size - pos >= 16:
            _, flags, status, number, length = HEADER.unpack_from(data, pos)
            if size - pos < 16 + length:
                break
            pos += 16 + length
            reply = self.frame(flags, status, number)
            if reply:
                out.append(reply)
        self.rest = data[pos:]
        if out:
            self.transport.write(b"".join(out))

    def frame(self, flags: int, status: int, number: int) -> bytes:
        raise NotImplementedError


class Provider(Frames):
    """Answers calls and heartbeats."""

    def frame(self, flags: int, status: int, number: int) -> bytes:
        if not flags & 0x40:
            return b""
        if flags & 0x20:
            return HEADER.pack(0xDABB, 0x22, 20, number, 1) + b"N"
        return HEADER.pack(0xDABB, 0x02, 20, number, len(ANSWER)) + ANSWER


class Consumer(Frames):
    """Sends the next call for every answer."""

    answered = 0
    wrong = 0
    going = True
    body = b""
    next_id = 0
    in_flight = 1

    def call(self) -> bytes:
        Consumer.next_id += 1
        return HEADER.pack(0xDABB, 0xC2, 0, Consumer.next_id, len(self.body)) + self.body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.write(b"".join(self.call() for _ in range(self.in_flight)))

    def frame(self, flags: int, status: int, number: int) -> bytes:
        Consumer.answered += 1
        if status != 20:
            Consumer.wrong += 1
        return self.call() if Consumer.going else b""


async def provide(port: int) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def load(port: int, connections: int, in_flight: int, seconds: float, tag: str) -> None:
    """Print how many calls were answered in how many seconds."""
    Consumer.body = request_body(tag)
    Consumer.in_flight = in_flight
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(Consumer, "127.0.0.1", port)
    await asyncio.sleep(seconds)
    Consumer.going = False
    before = -1
    while before != Consumer.answered:
        before = Consumer.answered
        await asyncio.sleep(0.1)
    print(Consumer.answered, Consumer.wrong)


def main() -> None:
    """See the module."""
    import uvloop

    arguments = sys.argv[2:]
    if sys.argv[1] == "provider":
        uvloop.run(provide(int(arguments[0])))
    else:
        port, connections, in_flight, seconds = int(arguments[0]), int(arguments[1]), int(arguments[2]), float(arguments[3])
        uvloop.run(load(port, connections, in_flight, seconds, arguments[4] if len(arguments) > 4 else "gray"))


if __name__ == "__main__":
    main()
