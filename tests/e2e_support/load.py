"""HTTP/1.1 load from a thread of the test: keep-alive connections and connections for one request, every outcome kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from mesh_proxy.tasks import create_task

REQUEST_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Outcome:
    """One request."""

    began: float
    """monotonic seconds"""
    local_port: int = 0
    """of the connection that carried it; 0 when there was none"""
    first: bool = True
    """it was the first on its connection"""
    ended: float = 0.0
    status: int = 0
    close: bool = False
    """the answer said `connection: close`"""
    error: str = ""
    """empty, or how it failed: `refused` (no connection), else the name of the exception"""


class Load:
    """Start it, do something to the proxy, stop it, look at `outcomes`."""

    def __init__(self, port: int, *, kept: int = 8, fresh: int = 4, pause: float = 0.0, request: bytes = b"") -> None:
        self.port = port
        self.outcomes: list[Outcome] = []
        self._kept = kept
        self._fresh = fresh
        self._pause = pause
        """seconds between two requests of a client"""
        self._request = request or b"GET /load HTTP/1.1\r\nhost: shop\r\n\r\n"
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "the load does not end"

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        """Until so many more requests are finished."""
        goal = len(self.outcomes) + count
        deadline = time.monotonic() + timeout
        while len(self.outcomes) < goal:
            assert time.monotonic() < deadline, f"{goal - len(self.outcomes)} of {count} requests are missing after {timeout} s"
            time.sleep(0.005)

    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.error or one.status != 200]

    def summary(self) -> str:
        seen = Counter(one.error or str(one.status) for one in self.outcomes)
        return ", ".join(f"{what}: {count}" for what, count in seen.most_common())

    # The clients

    async def _run(self) -> None:
        clients = [create_task(self._client(True), name="kept") for _ in range(self._kept)]
        clients += [create_task(self._client(False), name="fresh") for _ in range(self._fresh)]
        await asyncio.gather(*clients)

    async def _client(self, keep: bool) -> None:
        while not self._stopping:
            outcome = Outcome(time.monotonic())
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                outcome.error = "refused" if isinstance(error, ConnectionRefusedError) else type(error).__name__
                self._end(outcome)
                await asyncio.sleep(0.02)
                continue
            try:
                await self._requests(outcome, reader, writer, keep)
            finally:
                writer.close()

    async def _requests(self, outcome: Outcome, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        local_port = writer.get_extra_info("sockname")[1]
        while True:
            outcome.local_port = local_port
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    writer.write(self._request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                outcome.status = int(head[9:12])
                outcome.close = b"\r\nconnection: close\r\n" in head.lower()
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                outcome.error = type(error).__name__
            self._end(outcome)
            if outcome.error or outcome.close or not keep or self._stopping:
                return
            if self._pause:
                await asyncio.sleep(self._pause)
            outcome = Outcome(time.monotonic(), first=False)

    def _end(self, outcome: Outcome) -> None:
        outcome.ended = time.monotonic()
        self.outcomes.append(outcome)
