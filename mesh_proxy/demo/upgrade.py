"""The last act of the demo: the sidecar is upgraded while its callers go on, on the connections that they have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.processes import fetch
from mesh_proxy.demo.scenario import WEIGHTED
from mesh_proxy.demo.traffic import Connection, judge

TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
REQUESTS_BETWEEN: Final = 20
"""requests per connection before the upgrade begins, and after it is done"""


@dataclass(slots=True)
class UpgradeResult:
    """What the callers met."""

    requests: int = 0
    failed: int = 0
    connections: int = 0
    """that callers had"""
    made: int = 0
    """that they made, altogether"""
    seconds: float = 0.0
    """until the new process served and the old one was gone"""
    done: bool = False

    def problems(self) -> list[str]:
        """Why this is not what a hot upgrade promises."""
        found = []
        if not self.done:
            found.append(f"hot upgrade: not done after {TIMEOUT_S:.0f} s")
        if self.failed:
            found.append(f"hot upgrade: {self.failed} of {self.requests} requests failed")
        if self.made != self.connections:
            found.append(f"hot upgrade: {self.made - self.connections} connections were made anew")
        return found

    def text(self) -> str:
        """For a terminal."""
        return (
            f"Hot upgrade under load: {self.requests} requests over {self.connections} connections, {self.failed} failed, "
            f"{self.made - self.connections} connections made anew; the new process was alone after {self.seconds:.1f} s."
        )


async def upgrade_under_load(port: int, admin: int, connections: int, begin: Callable[[], None]) -> UpgradeResult:
    """Requests over so many connections all the time; `begin` tells the sidecar to upgrade itself."""
    result = UpgradeResult(connections=connections)
    over = asyncio.Event()
    callers = [asyncio.ensure_future(_caller(port, result, over)) for _ in range(connections)]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await _more(result, REQUESTS_BETWEEN * connections)
            before = await _generation(admin)
            began = time.monotonic()
            begin()
            while await _generation(admin) in (0, before) or await _number(admin, "server.parent_connections"):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            result.seconds = time.monotonic() - began
            await _more(result, REQUESTS_BETWEEN * connections)
            result.done = True
    except TimeoutError:
        pass  # said in the result
    finally:
        over.set()
        await asyncio.gather(*callers)
    return result


async def _caller(port: int, result: UpgradeResult, over: asyncio.Event) -> None:
    connection = Connection(Door(port))
    try:
        while not over.is_set():
            result.made += not connection.is_open
            result.requests += 1
            try:
                answer = await connection.get(WEIGHTED.path)
            except (OSError, EOFError, TimeoutError, ValueError):
                result.failed += 1
                await asyncio.sleep(POLL_S)
            else:
                result.failed += bool(judge(WEIGHTED, answer))
            await asyncio.sleep(0.001)
    finally:
        connection.close()


async def _more(result: UpgradeResult, count: int) -> None:
    goal = result.requests + count
    while result.requests < goal:  # noqa: ASYNC110 - many callers, one count
        await asyncio.sleep(POLL_S)


async def _generation(admin: int) -> int:
    return await _number(admin, "server.hot_restart_generation")


async def _number(admin: int, name: str) -> int:
    """A statistic; 0 when the admin interface does not answer."""
    text = await asyncio.to_thread(fetch, admin, f"/stats?filter=^{name}$")
    value = text.rpartition(": ")[2].strip()
    return int(value) if value.isdecimal() else 0
