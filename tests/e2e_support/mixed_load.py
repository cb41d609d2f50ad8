"""Eight kinds of load at once from one thread: every request is checked, every connection that was made is counted.

Each kind goes on until it is told to stop. A request fails when it is refused, reset, wrong, or takes longer than TIMEOUT_S;
nothing is tried again.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from dubbo_support import wire
from dubbo_support.plane import id_of, read_frame
from http2_support.caller import Caller

from e2e_support.backends import checksum
from mesh_codecs.events import GoAway
from mesh_proxy.tasks import create_task

TIMEOUT_S = 60.0
"""A slow machine is no failure."""
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
RECONNECT_FREE = frozenset({"http1 fresh", "grpc streams", "bytes"})
"""kinds that make new connections by themselves, or are told to (GOAWAY)"""


@dataclass(slots=True)
class Kind:
    """What one kind of load has seen."""

    done: int = 0
    connections: int = 0
    wanted_connections: int = 0
    in_flight: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def reconnects(self) -> int:
        return self.connections - self.wanted_connections


class MixedLoad:
    """`ports` of the proxy's listeners by name: `http`, `grpc`, `dubbo`, `bytes`. `scale` multiplies the numbers of callers."""

    def __init__(self, ports: Mapping[str, int], scale: int = 1, pause: float = 0.02) -> None:
        self.kinds: dict[str, Kind] = {}
        self._ports = ports
        self._pause = pause
        self._scale = scale
        self._stopping = False
        self._words = (b"%x" % number for number in itertools.count(1))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="mixed load")

    def __enter__(self) -> MixedLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(TIMEOUT_S * 2)
        assert not self._thread.is_alive(), "the load does not end"

    @property
    def in_flight(self) -> int:
        return sum(kind.in_flight for kind in self.kinds.values())

    @property
    def done(self) -> int:
        return sum(kind.done for kind in self.kinds.values())

    def failures(self) -> dict[str, Counter[str]]:
        return {name: kind.errors for name, kind in self.kinds.items() if kind.errors}

    def reconnects(self) -> dict[str, int]:
        """Of the kinds that should keep their connections."""
        return {name: kind.reconnects for name, kind in self.kinds.items() if name not in RECONNECT_FREE and kind.reconnects}

    def wait_for_all(self, count: int, timeout: float = 120.0) -> None:
        """Until every kind has so many more requests done."""
        deadline = time.monotonic() + timeout
        while len(self.kinds) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        goals = {
            name: kind.done + max(1, count // 10 if name in ("grpc streams", "bytes") else count)
            for name, kind in self.kinds.items()
        }
        while missing := {name: goal - self.kinds[name].done for name, goal in goals.items() if self.kinds[name].done < goal}:
            assert time.monotonic() < deadline, f"after {timeout} s these are missing: {missing}; {self.report()}"
            time.sleep(0.01)

    def report(self) -> str:
        lines = [f"{'kind':18}{'done':>8}{'failed':>8}{'connections':>13}{'anew':>6}"]
        for name, kind in self.kinds.items():
            lines.append(
                f"{name:18}{kind.done:>8}{sum(kind.errors.values()):>8}{kind.connections:>13}"
                f"{'' if name in RECONNECT_FREE else kind.reconnects:>6}  {dict(kind.errors) or ''}"
            )
        return "\n".join(lines)

    # The callers

    async def _run(self) -> None:
        scale = self._scale
        plan: list[tuple[str, int, Callable[[Kind], Awaitable[None]]]] = [
            ("http1 kept", 12 * scale, self._http1_kept),
            ("http1 slow", 50 * scale, self._http1_slow),
            ("http1 fresh", 2 * scale, self._http1_fresh),
            ("http2", 2 * scale, self._http2),
            ("grpc unary", 2 * scale, self._grpc_unary),
            ("grpc streams", 2 * scale, self._grpc_streams),
            ("dubbo", 4 * scale, self._dubbo),
            ("bytes", 2 * scale, self._bytes),
        ]
        tasks = []
        for name, count, caller in plan:
            kind = self.kinds[name] = Kind(wanted_connections=count)
            tasks += [create_task(self._again(kind, caller), name=name) for _ in range(count)]
        await asyncio.gather(*tasks)

    async def _again(self, kind: Kind, caller: Callable[[Kind], Awaitable[None]]) -> None:
        """A connection after the other; one that breaks is a failure."""
        while not self._stopping:
            try:
                await caller(kind)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError) as error:
                kind.errors[f"{type(error).__name__}: {error}"[:80]] += 1
                await asyncio.sleep(0.05)

    async def _open(self, kind: Kind, listener: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await asyncio.open_connection("127.0.0.1", self._ports[listener])
        kind.connections += 1
        return found

    async def _http1(self, kind: Kind, delay: int, count: int | None) -> None:
        reader, writer = await self._open(kind, "http")
        try:
            while not self._stopping and count != 0:
                word = next(self._words)
                kind.in_flight += 1
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        writer.write(b"GET /%d/%s HTTP/1.1\r\nhost: shop\r\n\r\n" % (delay, word))
                        head = await reader.readuntil(b"\r\n\r\n")
                        assert head.startswith(b"HTTP/1.1 200"), head[:40]
                        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                        assert await reader.readexactly(length) == word
                finally:
                    kind.in_flight -= 1
                kind.done += 1
                if count is not None:
                    count -= 1
                if b"connection: close" in head:
                    return
                await asyncio.sleep(self._pause)
        finally:
            writer.close()

    async def _http1_kept(self, kind: Kind) -> None:
        await self._http1(kind, 0, None)

    async def _http1_slow(self, kind: Kind) -> None:
        await self._http1(kind, 400, None)

    async def _http1_fresh(self, kind: Kind) -> None:
        await self._http1(kind, 0, 1)

    async def _http2(self, kind: Kind) -> None:
        caller = Caller(*await self._open(kind, "http"))
        try:
            await self._streams(kind, caller, b"/%d/%s", (), 5)
        finally:
            caller.writer.close()

    async def _grpc_unary(self, kind: Kind) -> None:
        caller = Caller(*await self._open(kind, "grpc"))
        try:
            await self._streams(kind, caller, b"/mesh.Test/Echo", GRPC, 5)
        finally:
            caller.writer.close()

    async def _streams(
        self, kind: Kind, caller: Caller, path: bytes, headers: tuple[tuple[bytes, bytes], ...], width: int
    ) -> None:
        """So many requests in flight all the time."""
        waiting: dict[int, bytes] = {}
        going = False
        try:
            while not (self._stopping or going) or waiting:
                while len(waiting) < width and not self._stopping and not going:
                    word = next(self._words)
                    if headers:
                        stream = caller.request(path, method=b"POST", headers=headers, end=False)
                        caller.data(stream, b"\0" + len(word).to_bytes(4, "big") + word, end=True)
                    else:
                        stream = caller.request(path % (len(waiting) % 3 * 20, word))
                    waiting[stream] = word
                    kind.in_flight += 1
                async with asyncio.timeout(TIMEOUT_S):
                    await caller.read()
                assert not caller.closed or not waiting, "closed"
                going = going or any(isinstance(event, GoAway) for event in caller.events)
                for stream in [stream for stream in waiting if caller.on(stream).ended]:
                    answer = caller.on(stream)
                    word = waiting.pop(stream)
                    kind.in_flight -= 1
                    assert answer.reset is None, f"reset {answer.reset}"
                    assert answer.status == 200, f"status {answer.status}"
                    assert answer.body == (b"\0" + len(word).to_bytes(4, "big") + word if headers else word), "wrong body"
                    if headers:
                        assert answer.trailers is not None
                        assert answer.trailers.get(b"grpc-status") == b"0", answer.trailers.get(b"grpc-status")
                    kind.done += 1
                    caller.events = [event for event in caller.events if event.stream_id != stream]
                await asyncio.sleep(self._pause)
        finally:
            kind.in_flight -= len(waiting)

    async def _grpc_streams(self, kind: Kind) -> None:
        """A stream in both directions that lives for some seconds, so that it spans an upgrade; then the next one."""
        caller = Caller(*await self._open(kind, "grpc"))
        kind.in_flight += 1
        try:
            stream = caller.request(b"/mesh.Test/Chat", method=b"POST", headers=GRPC, end=False)
            until = time.monotonic() + 5
            sent = b""
            while time.monotonic() < until and not self._stopping:
                word = next(self._words)
                caller.data(stream, word)
                sent += word
                async with asyncio.timeout(TIMEOUT_S):
                    assert await caller.body(stream, len(sent)) == sent, "wrong echo"
                await asyncio.sleep(self._pause * 5)
            caller.data(stream, b"", end=True)
            async with asyncio.timeout(TIMEOUT_S):
                answer = await caller.answer(stream)
            assert answer.trailers is not None, "no trailers"
            assert answer.trailers.get(b"grpc-status") == b"0"
            kind.done += 1
        finally:
            kind.in_flight -= 1
            caller.writer.close()

    async def _dubbo(self, kind: Kind) -> None:
        """A consumer's one connection: quick calls all the time, beside slow ones."""
        reader, writer = await self._open(kind, "dubbo")
        waiting: dict[int, str] = {}
        numbers = itertools.count(1)
        try:
            while not self._stopping or waiting:
                while len(waiting) < 16 and not self._stopping:
                    number = next(numbers)
                    delay = 1500 if number % 8 == 0 else number % 4 * 10
                    frame = wire.call(method=f"after{delay}", request_id=number, arguments=(next(self._words).decode(),))
                    waiting[number] = checksum(frame)
                    kind.in_flight += 1
                    writer.write(frame)
                async with asyncio.timeout(TIMEOUT_S):
                    frame = await read_frame(reader)
                if frame[2] & 0x80:
                    continue  # a heartbeat
                expected = waiting.pop(id_of(frame))
                kind.in_flight -= 1
                assert frame[3] == 20, f"status {frame[3]}"
                assert expected.encode() in frame, "wrong answer"
                kind.done += 1
                await asyncio.sleep(self._pause / 4)
        finally:
            kind.in_flight -= len(waiting)
            writer.close()

    async def _bytes(self, kind: Kind) -> None:
        """Some seconds of echo over the TCP proxy."""
        reader, writer = await self._open(kind, "bytes")
        kind.in_flight += 1
        try:
            until = time.monotonic() + 4
            while time.monotonic() < until and not self._stopping:
                word = next(self._words)
                writer.write(word)
                async with asyncio.timeout(TIMEOUT_S):
                    assert await reader.readexactly(len(word)) == word
                await asyncio.sleep(self._pause * 5)
            kind.done += 1
        finally:
            kind.in_flight -= 1
            writer.close()
