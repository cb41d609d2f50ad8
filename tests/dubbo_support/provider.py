"""A Dubbo provider as a process of its own: `python provider.py NAME` prints its port and answers until it is killed.

A call of `big` is answered with as many bytes as its argument says, `slow` after 50 ms, `silent` never, anything else with the
provider's name. Standard library only, as it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from struct import Struct

HEADER = Struct(">HBBqi")


def answer(number: int, text: bytes) -> bytes:
    """An OK response with a string."""
    if len(text) < 32:
        value = bytes([len(text)]) + text
    else:
        chunks = [text[at : at + 32768] for at in range(0, len(text), 32768)]
        value = b"".join(b"R" + len(one).to_bytes(2, "big") + one for one in chunks) + b"\x00"
    body = b"\x91" + value
    return HEADER.pack(0xDABB, 0x02, 20, number, len(body)) + body


class Provider(asyncio.Protocol):
    """One connection."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.buffer = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        at = 0
        out = []
        while len(buffer) - at >= 16:
            _, flags, _, number, length = HEADER.unpack_from(buffer, at)
            end = at + 16 + length
            if len(buffer) < end:
                break
            reply = self.call(flags, number, bytes(buffer[at + 16 : end]))
            if reply:
                out.append(reply)
            at = end
        del buffer[:at]
        if out:
            self.transport.write(b"".join(out))

    def call(self, flags: int, number: int, body: bytes) -> bytes:
        """The answer, if there is one now."""
        if not flags & 0x40:
            return b""
        if flags & 0x20:
            return HEADER.pack(0xDABB, 0x22, 20, number, 1) + b"N"
        head = body[:200]
        if b"\x06silent" in head:
            return b""
        if b"\x03big" in head:
            size = int(body[body.index(b"#") + 1 : body.index(b"$")])
            return answer(number, b"x" * size)
        if b"\x04slow" in head:
            asyncio.get_running_loop().call_later(0.05, self.transport.write, answer(number, self.name))
            return b""
        return answer(number, self.name)


async def serve(name: bytes) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Provider(name), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class ProviderProcess:
    """Starts one; `with` it."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> ProviderProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1].encode()))
