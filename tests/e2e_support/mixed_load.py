"""Eight kinds of load at once from one thread: every request is checked, every connection that was made is counted.

Each kind goes on until it is told to stop. A request fails when it is refused, reset, wrong, or takes longer than TIMEOUT_S;
nothing is tried again.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import uvloop

from mesh_proxy.tasks import create_task

from . import callers
from .callers import Caller, Kind

TIMEOUT_S = 60.0
"""A slow machine is no failure."""
PLAN: Mapping[str, tuple[type[Caller], int]] = {
    "http1 kept": (callers.Http1, 16),
    "http1 slow": (callers.Http1Slow, 60),
    "http1 fresh": (callers.Http1Fresh, 2),
    "http2": (callers.Http2, 3),
    "grpc unary": (callers.GrpcUnary, 3),
    "grpc streams": (callers.GrpcStream, 4),
    "dubbo": (callers.Dubbo, 4),
    "bytes": (callers.Bytes, 2),
}
"""kind -> (caller, connections). Slow requests alone are 140 in flight at any moment: 60 of HTTP/1, 20 on each Dubbo one"""
RECONNECT_FREE = frozenset({"http1 fresh", "grpc streams", "bytes"})
"""kinds that make new connections by themselves, or are told to (GOAWAY)"""
RARE: Mapping[str, int] = {"grpc streams": 1, "bytes": 0}
"""kinds whose requests take seconds: how many of them to wait for"""


class MixedLoad:
    """`ports` of the proxy's listeners by name: `http`, `grpc`, `dubbo`, `bytes`. `pause`: seconds between two rounds of quick
    requests. `tls`: everything over TLS."""

    def __init__(self, ports: Mapping[str, int], pause: float = 0.02, tls: ssl.SSLContext | None = None) -> None:
        self.kinds = {name: Kind(wanted_connections=count) for name, (_, count) in PLAN.items()}
        self.stopping = False
        self.in_flight = 0
        self.lowest = 0
        """the fewest requests in flight since somebody last set this"""
        self._ports = ports
        self._pause = pause
        self._tls: dict[str, Any] = {"ssl": tls, "server_hostname": "mesh"} if tls is not None else {}
        self._callers: dict[Caller, str] = {}
        self._due: list[Callable[[], None]] = []
        self._faults: list[str] = []
        self._thread = threading.Thread(target=self._main, name="mixed load")

    def __enter__(self) -> MixedLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let what is in flight end."""
        self.stopping = True
        self._thread.join(TIMEOUT_S * 2)
        assert not self._thread.is_alive(), "the load does not end"
        assert not self._faults, self._faults

    @property
    def done(self) -> int:
        return sum(kind.done for kind in self.kinds.values())

    def failures(self) -> dict[str, Counter[str]]:
        return {name: kind.errors for name, kind in self.kinds.items() if kind.errors}

    def reconnects(self) -> dict[str, int]:
        """Of the kinds that should keep their connections."""
        return {name: kind.reconnects for name, kind in self.kinds.items() if name not in RECONNECT_FREE and kind.reconnects}

    def wait_for(self, total: int, each: int, timeout: float = 180.0) -> None:
        """Until so many more requests are done, and of every kind so many (see RARE)."""
        deadline = time.monotonic() + timeout
        goal = self.done + total
        goals = {name: kind.done + RARE.get(name, each) for name, kind in self.kinds.items()}
        while missing := [name for name, least in goals.items() if self.kinds[name].done < least] or (
            [f"{goal - self.done} requests"] if self.done < goal else []
        ):
            assert time.monotonic() < deadline, f"after {timeout} s these are missing: {missing}\n{self.report()}"
            assert self._thread.is_alive(), "the load has ended"
            time.sleep(0.01)

    def report(self) -> str:
        lines = [f"{'kind':14}{'done':>9}{'failed':>8}{'connections':>13}{'anew':>6}"]
        for name, kind in self.kinds.items():
            lines.append(
                f"{name:14}{kind.done:>9}{sum(kind.errors.values()):>8}{kind.connections:>13}"
                f"{'' if name in RECONNECT_FREE else kind.reconnects:>6}  {dict(kind.errors) or ''}".rstrip()
            )
        return "\n".join(lines)

    # For callers.

    def later(self, call: Callable[[], None]) -> None:
        """At the next tick."""
        self._due.append(call)

    def counts(self, change: int) -> None:
        """So many requests more, or fewer, are in flight."""
        self.in_flight += change
        if self.in_flight < self.lowest:
            self.lowest = self.in_flight

    def gone(self, caller: Caller) -> None:
        """Its connection has ended: another takes its place."""
        name = self._callers.pop(caller)
        if not self.stopping:
            self._open(name)

    # The loop.

    def _main(self) -> None:
        uvloop.run(self._run())

    async def _run(self) -> None:
        for name, (_, count) in PLAN.items():
            for _ in range(count):
                self._open(name)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._faults.append(str(context)))
        looked = time.monotonic()
        while not self.stopping or self._callers:
            await asyncio.sleep(self._pause)
            due, self._due = self._due, []
            for call in due:
                call()
            now = time.monotonic()
            if now - looked > 1 or self.stopping:
                looked = now
                for caller in tuple(self._callers):
                    if hasattr(caller, "transport"):
                        caller.look(now, TIMEOUT_S)

    def _open(self, name: str) -> None:
        kind = PLAN[name][0]
        caller = kind(self, self.kinds[name])
        self._callers[caller] = name
        create_task(self._connect(caller, name), name=name)

    async def _connect(self, caller: Caller, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await loop.create_connection(lambda: caller, "127.0.0.1", self._ports[caller.listener], **self._tls)
        except (OSError, TimeoutError) as error:
            self.kinds[name].errors[f"cannot connect: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
            self.gone(caller)
