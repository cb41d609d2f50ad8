"""A data plane in the test's own process and loop: real sockets on loopback, no other process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import AddressConfig, WorkerSnapshot
from mesh_proxy.worker.data_plane import DataPlane
from mesh_proxy.worker.options import WorkerOptions

LIMIT_S = 60.0
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Plane:
    """Applies bootstraps as the supervisor does: a worker gets the socket of an address once."""

    def __init__(self, **options: Any) -> None:
        self.data = DataPlane(asyncio.get_running_loop(), worker_index=0, options=WorkerOptions(**options), shared=None)
        self.ports: dict[tuple[str, str], int] = {}
        self._version = 0

    async def apply(self, yaml: str) -> None:
        bootstrap = load_bootstrap(None, yaml)
        self._version += 1
        sockets = {}
        for listener in bootstrap.listeners:
            key = (listener.name, str(listener.address))
            if key not in self.ports:
                sockets[key] = socket.create_server(("127.0.0.1", 0))
                self.ports[key] = sockets[key].getsockname()[1]
        snapshot = WorkerSnapshot(
            version=self._version,
            node=bootstrap.node,
            listeners=bootstrap.listeners,
            clusters=bootstrap.clusters,
            runtime=bootstrap.runtime,
        )
        await self.data.apply(snapshot, sockets)

    async def connect(self, listener: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = next(port for (name, _), port in self.ports.items() if name == listener)
        return await asyncio.open_connection("127.0.0.1", port)

    def stat(self, prefix: str, name: str) -> Any:
        """A counter or gauge of the group with that prefix."""
        groups = [g for g in self.data.registry if g.prefix == prefix and hasattr(g, name)]
        return getattr(groups[0], name)


@asynccontextmanager
async def plane(yaml: str, **options: Any) -> AsyncIterator[Plane]:
    """A running one; at the end no gauge of connections may have leaked."""
    one = Plane(**options)
    await one.apply(yaml)
    try:
        yield one
    finally:
        one.data.close()
        for turn in range(500):
            await asyncio.sleep(0 if turn < 20 else 0.01)
            if turn >= 20 and not (one.data.active_connections or one.data._context.upstream_connections):
                break
    assert one.data.active_connections == 0
    assert one.data._context.upstream_connections == 0


@asynccontextmanager
async def upstream(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[AddressConfig]:
    """An endpoint that does as it is told, over TLS if there is a context."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
    try:
        yield AddressConfig(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def at(address: AddressConfig) -> str:
    """Fields for the endpoint of `bootstraps.web`."""
    return f"endpoint: {{address: {{socket_address: {{address: {address.host}, port_value: {address.port}}}}}}}"


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test

    asyncio.run(limited())


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An endpoint that answers every head with 200."""
    while await head(reader):
        writer.write(ANSWER)


async def until(ready: Callable[[], bool]) -> None:
    """What nothing tells: a counter that is to reach a value."""
    while not ready():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
