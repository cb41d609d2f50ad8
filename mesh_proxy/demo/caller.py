"""What the callers of multiplexed protocols share: connections that keep several calls in flight and miss no answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import Result, Rule

IN_FLIGHT: Final = 8
"""calls at a time on each connection"""
CALL_TIMEOUT_S: Final = 10.0
READ_BYTES: Final = 65536


class Caller(ABC):
    """One connection. A protocol says how a call is written and what the bytes that come mean."""

    def __init__(self, door: Door, waiting: deque[Rule], results: dict[str, Result]) -> None:
        self._door = door
        self._waiting = waiting
        self._results = results

    async def run(self) -> None:
        """Send what waits until nothing does. Calls that get no answer fail."""
        try:
            reader, writer = await self._door.open()
        except OSError as error:
            self._fail(type(error).__name__)
            return
        try:
            self._fill(writer)
            while self._in_flight():
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    data = await reader.read(READ_BYTES)
                if not data:
                    self._fail("the connection ended")
                    break
                self._received(data)
                self._fill(writer)
        except (OSError, TimeoutError) as error:
            self._fail(type(error).__name__)
        finally:
            writer.close()

    def _fill(self, writer: asyncio.StreamWriter) -> None:
        parts: list[bytes] = []
        while self._waiting and self._in_flight() < IN_FLIGHT and self._may_call():
            rule = self._waiting.popleft()
            self._results[rule.name].sent += 1
            parts += self._call(rule)
        writer.writelines([*parts, *self._owed()])

    def _fail(self, why: str) -> None:
        for rule in self._forget():
            self._results[rule.name].failures[f"no answer: {why}"] += 1

    def _may_call(self) -> bool:
        """Whether the connection takes one more call."""
        return True

    def _owed(self) -> Iterable[bytes]:
        """Bytes that are due besides the calls."""
        return ()

    @abstractmethod
    def _in_flight(self) -> int:
        """How many calls wait for their answer."""

    @abstractmethod
    def _call(self, rule: Rule) -> Iterable[bytes]:
        """Begin a call; its bytes."""

    @abstractmethod
    def _received(self, data: bytes) -> None:
        """Book the answers in these bytes."""

    @abstractmethod
    def _forget(self) -> Iterable[Rule]:
        """Give up the calls in flight; their rules."""


async def send_over(
    make: Callable[[deque[Rule], dict[str, Result]], Caller], rules: Iterable[Rule], known: Iterable[Rule], connections: int
) -> dict[str, Result]:
    """Send the calls over so many connections; the results by name of the known rules."""
    waiting = deque(rules)
    results = {rule.name: Result(rule) for rule in known}
    await asyncio.gather(*(make(waiting, results).run() for _ in range(connections)))
    for rule in waiting:  # no connection was left for them
        results[rule.name].sent += 1
        results[rule.name].failures["not sent"] += 1
    return results
