"""A small HTTP service, one process per version: `python -m mesh_proxy.demo.service v1`.

It serves on a free port of loopback, says `listening PORT` on its standard output, answers every request with its own name,
and ends when its standard input does, that is with whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Callable
from typing import Final, cast

import uvloop

from mesh_proxy.demo.scenario import NAME_HEADER
from mesh_proxy.tasks import create_task

LOOPBACK: Final = "127.0.0.1"
MAX_REQUEST_BYTES: Final = 64 * 1024
"""of head and body together"""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,6})\r\n", re.IGNORECASE)
_FIRST_ATTEMPT: Final = re.compile(rb"\r\nx-envoy-attempt-count: 1\r\n", re.IGNORECASE)


class Service:
    """What all connections of a service share."""

    def __init__(self, name: str, fail_every: int = 0) -> None:
        self.name = name
        self._fail_every = fail_every
        """answer the first attempt of every so-manieth request with 503; 0: never"""
        self._first_attempts = 0

    def answer(self, head: bytes) -> bytes:
        """The whole response to one request head."""
        status = b"200 OK"
        if self._fail_every and _FIRST_ATTEMPT.search(head):
            self._first_attempts += 1
            if self._first_attempts % self._fail_every == 0:
                status = b"503 Service Unavailable"
        method, _, rest = head.partition(b" ")
        body = b"%s %s answered by %s\n" % (method, rest.partition(b" ")[0], self.name.encode())
        response = b"HTTP/1.1 %s\r\n%s: %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % (
            status,
            NAME_HEADER.encode(),
            self.name.encode(),
            len(body),
        )
        return response if method == b"HEAD" else response + body


class ServiceProtocol(asyncio.Protocol):
    """One connection. It understands keep-alive, pipelining and bodies with a content-length; a demo needs no more."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        answers = []
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end]
            found = _LENGTH.search(head)
            end += int(found[1]) if found else 0
            if len(self._buffer) < end:
                break
            self._buffer = self._buffer[end:]
            answers.append(self._service.answer(head))
        if answers:
            self._transport.write(b"".join(answers))
        elif len(self._buffer) > MAX_REQUEST_BYTES:
            self._transport.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()


async def serve(service: Service, host: str = LOOPBACK, port: int = 0) -> None:
    """Until standard input ends."""
    await until_input_ends(lambda: ServiceProtocol(service), host, port)


async def until_input_ends(protocol: Callable[[], asyncio.Protocol], host: str = LOOPBACK, port: int = 0) -> None:
    """Serve (0: on a free port), and say on which port, until whoever started us ends our standard input."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, host, port)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    serving = create_task(server.serve_forever(), name="serve")
    try:
        await reader.read()
    finally:
        transport.close()
        serving.cancel()
        server.close()


def main() -> int:
    """The command line of one service."""
    parser = argparse.ArgumentParser(description="A small HTTP service for the demo; it ends with its standard input.")
    parser.add_argument("name", help="what it calls itself")
    parser.add_argument("--fail-every", type=int, default=0, metavar="N", help="503 to the first attempt of every Nth request")
    parser.add_argument("--host", default=LOOPBACK, help="where to listen [127.0.0.1]")
    parser.add_argument("--port", type=int, default=0, help="[a free one]")
    options = parser.parse_args()
    uvloop.run(serve(Service(options.name, options.fail_every), options.host, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
