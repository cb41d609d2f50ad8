"""Connections moved between data planes in one process, with a mover and its messages but without supervisors."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import uvloop
from bootstraps import web
from plane_support import ANSWER, LIMIT_S, Plane, Serve, at, head, plane, until, upstream

from mesh_proxy.listener.mover import Mover, MovingState


def run(test: Coroutine[Any, Any, None]) -> None:
    """On the loop that workers use."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S * 3):
            await test
        # uvloop complains of transports that are not closed yet when their loop is.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=LIMIT_S)
        for _ in range(20):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


class Held:
    """An endpoint that answers when it may."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            self.asked.set()
            await self.release.wait()
            writer.write(ANSWER)


class Handing:
    """One hand-over from a plane to another."""

    def __init__(self, old: Plane, new: Plane) -> None:
        self.old, self.new = old, new
        self.mover = Mover(asyncio.get_running_loop(), self._send)
        self.adopted: dict[int, Any] = {}
        self.refused: list[str] = []
        self.most_offered = 0
        self.late = 0
        self.travelling: set[socket.socket] = set()
        self.held: list[Callable[[], None]] | None = None
        """answers that wait for `release`; None: answers come at once"""

    def begin(self, *, hold: bool = False) -> Handing:
        if hold:
            self.held = []
        self.old.data.hand_over(frozenset(key[:2] for key in self.old.ports), self.mover)
        return self

    def release(self) -> None:
        held, self.held = self.held or [], None
        for answer in held:
            answer()

    def fail(self) -> None:
        """The new process dies before it has answered."""
        for sock in self.travelling:
            sock.close()
        self.old.data.resume()
        self.mover.cancel()

    async def done(self) -> Handing:
        """Nothing is left in the old plane."""
        await until(lambda: self.old.data.active_connections == 0)
        return self

    def _send(self, what: str, number: int, content: Any, descriptors: Sequence[int]) -> None:
        if what == "late":
            self.late += bool(content)
            self.adopted[number].write_late(content)
            return
        state, listener = content
        state = replace(state, facts=json.loads(json.dumps(state.facts)))
        sock = socket.socket(fileno=os.dup(descriptors[0]))
        self.travelling.add(sock)
        loop = asyncio.get_running_loop()

        def settle() -> None:
            self.travelling.discard(sock)
            adopted, why = self._adopt(number, listener, state, sock)
            if not adopted:
                sock.close()
                self.refused.append(why)
            loop.call_soon(self.mover.settle, number, adopted, why)

        self.most_offered = max(self.most_offered, len(self.mover._offered))
        if self.held is None:
            loop.call_soon(settle)
        else:
            self.held.append(settle)

    def _adopt(self, number: int, listener: str, state: MovingState, sock: socket.socket) -> tuple[bool, str]:
        try:
            self.adopted[number] = self.new.data.adopt(listener, state, sock)
        except (ValueError, OSError) as error:
            return False, str(error)
        return True, ""


async def ok(reader: asyncio.StreamReader) -> bytes:
    """The head of one answer of `plane_support.answer`."""
    found = await head(reader)
    assert found.startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(2) == b"ok"
    return found


@asynccontextmanager
async def web_planes(serve: Serve, **parts: str) -> AsyncIterator[list[Plane]]:
    """An old and a new plane with `bootstraps.web`, in front of this endpoint."""
    async with upstream(serve) as address:
        text = web(endpoint=at(address), **parts)
        async with planes(text, text) as both:
            yield both


@asynccontextmanager
async def planes(yaml: str, *more: str, **options: Any) -> AsyncIterator[list[Plane]]:
    """Planes with these bootstraps; callers connect to the first, and have left before the planes close."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(plane(text, **options)) for text in (yaml, *more)]
        writers: list[asyncio.StreamWriter] = []
        connect = made[0].connect

        async def connect_and_remember(listener: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await connect(listener)
            writers.append(writer)
            return reader, writer

        made[0].connect = connect_and_remember  # type: ignore[method-assign]
        try:
            yield list(made)
        finally:
            for writer in writers:
                writer.transport.abort()
            await until(lambda: not any(one.data.active_connections for one in made))
