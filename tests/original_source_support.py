"""Callers from several addresses of this machine, endpoints that note from where they are called, and a data plane between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bootstraps import typed
from dubbo_support import wire
from dubbo_support.plane import bootstrap, id_of
from plane_support import ANSWER, GET, Plane, head, until
from plane_support import plane as bare_plane

from mesh_proxy.upstream.endpoint import Endpoint

FIRST, SECOND = "127.0.0.21", "127.0.0.22"
FILTER = f"listener_filters: [{typed('s', 'filters.listener.original_src.v3.OriginalSrc')}]"


class Endpoints:
    """An endpoint on 127.0.0.1 that notes from where its connections come: (address, port)."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, int]] = []
        self.open = 0
        self.port = 0

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.peers]

    @asynccontextmanager
    async def serving(self, kind: type[asyncio.Protocol]) -> Any:
        noted = self

        class Noting(kind):  # type: ignore[misc,valid-type]
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                noted.peers.append(transport.get_extra_info("peername"))
                noted.open += 1
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                noted.open -= 1
                super().connection_lost(error)

        server = await asyncio.get_running_loop().create_server(Noting, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def address(self) -> str:
        return f"endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.port}}}}}}}"


class Http1(asyncio.Protocol):
    """Answers every head with 200."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


class Telling(Http1):
    """Answers with the address that it sees."""

    def data_received(self, data: bytes) -> None:
        host = self.transport.get_extra_info("peername")[0].encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(host), host))


class Dubbo(asyncio.Protocol):
    """Answers every call, whole frames only."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 16 and len(self.buffer) >= (size := 16 + int.from_bytes(self.buffer[12:16], "big")):
            frame, self.buffer = self.buffer[:size], self.buffer[size:]
            if frame[2] & 0xE0 == 0xC0:
                self.transport.write(wire.answer(id_of(frame)))


class Echo(Http1):
    """What comes goes back."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]
callers_left: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def plane(yaml: str) -> AsyncIterator[Plane]:
    """A data plane whose callers have left at the end."""
    async with bare_plane(yaml) as one:
        try:
            yield one
        finally:
            await all_left(one)


async def all_left(*made: Plane) -> None:
    while callers_left:
        writer = callers_left.pop()
        writer.transport.abort()
    await until(lambda: not any(one.data.active_connections for one in made))


async def connect(one: Plane, listener: str, host: str) -> Caller:
    """From one of this machine's addresses."""
    port = next(port for (name, _), port in one.ports.items() if name == listener)
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for bind_port: both ends are on this machine
    sock.bind((host, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock)
    callers_left.append(writer)
    return reader, writer


async def asked(connection: Caller, request: bytes = GET) -> bytes:
    reader, writer = connection
    writer.write(request)
    found = await head(reader)
    size = int(found.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return found + await reader.readexactly(size)


def endpoint_of(one: Plane, name: str = "a") -> Endpoint:
    cluster = one.data._context.clusters.get(name)
    assert cluster is not None
    return cluster.endpoints[0]


def pools_of(one: Plane) -> int:
    return len(endpoint_of(one).pools)


def dubbo_yaml(there: Endpoints, *, filtered: bool = True, **fields: str) -> str:
    text = bootstrap({}, **fields)  # type: ignore[arg-type]
    cluster = f"  - {{name: a, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{{there.address()}}}]}}]}}}}\n"
    text += cluster
    return text.replace("    filter_chains:", f"    {FILTER}\n    filter_chains:", 1) if filtered else text
