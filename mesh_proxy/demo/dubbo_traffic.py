"""The Dubbo consumer of the demo: connections with several calls in flight on each, told apart by their ids."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, build_frame
from mesh_codecs.dubbo.frame import FLAG_REQUEST, FLAG_TWO_WAY, HEADER_SIZE, HESSIAN2, OK
from mesh_codecs.hessian2.write import string_bytes
from mesh_proxy.demo.scenario import DUBBO_RULES, SIDECAR, Result, Rule

SERVICE: Final = "demo.Shop"
IN_FLIGHT: Final = 8
"""calls at a time on each connection"""
CALL_TIMEOUT_S: Final = 10.0
_NO_SERVICE: Final = 60


def call_frame(request_id: int, rule: Rule) -> bytes:
    """A two-way call in hessian2; the rule's path is `service/method`, its headers are attachments."""
    service, _, method = rule.path.partition("/")
    head = b"".join(string_bytes(text.encode()) for text in ("2.0.2", service, "1.0.0", method, "Ljava/lang/String;", "cart"))
    pairs = (("path", service), *rule.headers)
    attachments = b"".join(string_bytes(text.encode()) for pair in pairs for text in pair)
    return build_frame(FLAG_REQUEST | FLAG_TWO_WAY | HESSIAN2, 0, request_id, head + b"H" + attachments + b"Z")


class Consumer:
    """One connection."""

    def __init__(self, port: int, waiting: deque[Rule], results: dict[str, Result]) -> None:
        self._port = port
        self._waiting = waiting
        self._results = results
        self._codec = DubboCodec(HeadMemo())
        self._calls: dict[int, tuple[Rule, float]] = {}
        self._next_id = 0

    async def run(self) -> None:
        """Send what waits until nothing does. Calls that get no answer fail."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            self._fail(type(error).__name__)
            return
        try:
            self._send(writer)
            while self._calls:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    data = await reader.read(65536)
                if not data:
                    self._fail("the connection ended")
                    break
                for message in self._codec.receive_data(data):
                    if isinstance(message, DubboMessage) and not message.is_request:
                        self._answered(message)
                self._send(writer)
        except (OSError, TimeoutError) as error:
            self._fail(type(error).__name__)
        finally:
            writer.close()

    def _send(self, writer: asyncio.StreamWriter) -> None:
        while self._waiting and len(self._calls) < IN_FLIGHT:
            rule = self._waiting.popleft()
            self._results[rule.name].sent += 1
            self._next_id += 1
            self._calls[self._next_id] = (rule, time.perf_counter())
            writer.write(call_frame(self._next_id, rule))

    def _answered(self, message: DubboMessage) -> None:
        found = self._calls.pop(message.request_id, None)
        if found is None:
            return
        rule, began = found
        result = self._results[rule.name]
        result.latencies.append(time.perf_counter() - began)
        if message.status != rule.status:
            result.failures[f"status {message.status} instead of {rule.status}"] += 1
        else:
            result.answered[_name(message) if message.status == OK else SIDECAR] += 1

    def _fail(self, why: str) -> None:
        for rule, _ in self._calls.values():
            self._results[rule.name].failures[f"no answer: {why}"] += 1
        self._calls.clear()


def _name(message: DubboMessage) -> str:
    """The string behind the result type and its length."""
    return message.frame[HEADER_SIZE + 2 :].decode("utf-8", "replace")


async def send_calls(rules: Iterable[Rule], port: int, connections: int) -> dict[str, Result]:
    """Send the calls over so many connections; the results by rule name."""
    waiting = deque(rules)
    results = {rule.name: Result(rule) for rule in DUBBO_RULES}
    await asyncio.gather(*(Consumer(port, waiting, results).run() for _ in range(connections)))
    for rule in waiting:  # no connection was left for them
        results[rule.name].sent += 1
        results[rule.name].failures["not sent"] += 1
    return results
