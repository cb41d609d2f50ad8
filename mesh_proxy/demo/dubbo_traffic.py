"""The Dubbo consumer of the demo: connections with several calls in flight on each, told apart by their ids."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, build_frame
from mesh_codecs.dubbo.frame import FLAG_REQUEST, FLAG_TWO_WAY, HEADER_SIZE, HESSIAN2, OK
from mesh_codecs.hessian2.write import string_bytes
from mesh_proxy.demo.caller import Caller, send_over
from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import DUBBO_RULES, SIDECAR, Result, Rule

SERVICE: Final = "demo.Shop"
_NO_SERVICE: Final = 60


def call_frame(request_id: int, rule: Rule) -> bytes:
    """A two-way call in hessian2; the rule's path is `service/method`, its headers are attachments."""
    service, _, method = rule.path.partition("/")
    head = b"".join(string_bytes(text.encode()) for text in ("2.0.2", service, "1.0.0", method, "Ljava/lang/String;", "cart"))
    pairs = (("path", service), *rule.headers)
    attachments = b"".join(string_bytes(text.encode()) for pair in pairs for text in pair)
    return build_frame(FLAG_REQUEST | FLAG_TWO_WAY | HESSIAN2, 0, request_id, head + b"H" + attachments + b"Z")


class Consumer(Caller):
    """One connection."""

    def __init__(self, door: Door, waiting: deque[Rule], results: dict[str, Result]) -> None:
        super().__init__(door, waiting, results)
        self._codec = DubboCodec(HeadMemo())
        self._calls: dict[int, tuple[Rule, float]] = {}
        self._next_id = 0

    def _in_flight(self) -> int:
        return len(self._calls)

    def _call(self, rule: Rule) -> Iterable[bytes]:
        self._next_id += 1
        self._calls[self._next_id] = (rule, time.perf_counter())
        return (call_frame(self._next_id, rule),)

    def _received(self, data: bytes) -> None:
        for message in self._codec.receive_data(data):
            if isinstance(message, DubboMessage) and not message.is_request:
                self._answered(message)

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

    def _forget(self) -> Iterable[Rule]:
        rules = [rule for rule, _ in self._calls.values()]
        self._calls.clear()
        return rules


def _name(message: DubboMessage) -> str:
    """The string behind the result type and its length."""
    return message.frame[HEADER_SIZE + 2 :].decode("utf-8", "replace")


async def send_calls(
    rules: Iterable[Rule], door: Door, connections: int, known: Iterable[Rule] = DUBBO_RULES
) -> dict[str, Result]:
    """Send the calls over so many connections; the results by name of the known rules."""
    return await send_over(lambda waiting, results: Consumer(door, waiting, results), rules, known, connections)
