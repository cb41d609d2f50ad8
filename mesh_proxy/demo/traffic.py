"""The caller of the demo: keep-alive HTTP/1.1 connections that send one request after the other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import NAME_HEADER, RULES, SIDECAR, Result, Rule

REQUEST_TIMEOUT_S: Final = 10.0
"""twice the route's own; beyond it something hangs"""


class Answer:
    """Status, headers (lower-case names) and body of a response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connection:
    """One keep-alive connection, opened with the first request and again after a failure."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """One request. Raises OSError, EOFError, TimeoutError, ValueError."""
        lines = [f"GET {path} HTTP/1.1", "host: shop.demo", *(f"{name}: {value}" for name, value in headers), "", ""]
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._streams is None:
                    self._streams = await self._door.open()
                reader, writer = self._streams
                writer.write("\r\n".join(lines).encode())
                answer = await _read_answer(reader)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    @property
    def is_open(self) -> bool:
        """The next request needs no new connection."""
        return self._streams is not None

    def close(self) -> None:
        """Close it if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split(" ")[1]), headers, body)


def judge(rule: Rule, answer: Answer) -> str:
    """What is wrong with an answer; empty if nothing."""
    if answer.status != rule.status:
        return f"status {answer.status} instead of {rule.status}"
    location = answer.headers.get("location", "")
    if not location.endswith(rule.location):
        return f"location {location!r} instead of …{rule.location}"
    return ""


async def send(
    rules: Iterable[Rule],
    door: Door,
    connections: int,
    progress: Callable[[int], None] = lambda done: None,
    known: Iterable[Rule] = RULES,
) -> dict[str, Result]:
    """Send the requests over so many connections at once; the results by name of the known rules. `progress` hears how many are
    done."""
    waiting = deque(rules)
    results = {rule.name: Result(rule) for rule in known}
    done = 0

    async def one_connection() -> None:
        nonlocal done
        connection = Connection(door)
        try:
            while waiting:
                rule = waiting.popleft()
                await _one_request(connection, rule, results[rule.name])
                done += 1
                progress(done)
        finally:
            connection.close()

    await asyncio.gather(*(one_connection() for _ in range(connections)))
    return results


async def _one_request(connection: Connection, rule: Rule, result: Result) -> None:
    result.sent += 1
    began = time.perf_counter()
    try:
        answer = await connection.get(rule.path, rule.headers)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        result.failures[f"no answer: {type(error).__name__}"] += 1
        return
    result.latencies.append(time.perf_counter() - began)
    if wrong := judge(rule, answer):
        result.failures[wrong] += 1
    else:
        result.answered[answer.headers.get(NAME_HEADER, SIDECAR)] += 1
