"""Dubbo in the comparison with Envoy: a consumer that notes its answers, and builders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from dubbo_support import wire

from .case import Case, Client, Observation
from .config import NETWORK, listener, merge
from .wire import EarlyEnd

if TYPE_CHECKING:
    from .case import Pair
    from .proxy import Side

ANY_METHOD = 'method: {name: {safe_regex: {regex: ".*"}}}'
"""for `ANY` in routes: Envoy 1.40 refuses a route without a matcher of the method"""


def dubbo(name: str, routes: str, extra: str = "") -> Any:
    """A listener with a Dubbo manager; `routes` is a list of RouteConfigurations."""
    base = {
        "@type": NETWORK + "dubbo_proxy.v3.DubboProxy",
        "stat_prefix": name,
        "multiple_route_config": {"name": "r", "route_config": yaml.safe_load(routes.replace("ANY", ANY_METHOD))},
    }
    return listener(name, {"name": "envoy.filters.network.dubbo_proxy", "typed_config": merge(base, extra)})


def calls(
    name: str,
    *frames: bytes,
    to: str | None = None,
    answers: int | None = None,
    upstream: int | None = None,
    want: Mapping[str, str] | None = None,
    listener: str = "main",
    at_once: bool = True,
    end: float = 0.05,
    **more: Any,
) -> Case:
    """Send the frames, note the answers (as many as there are two-way frames), how the connection stands, what came upstream."""
    two_way = sum(1 for one in frames if len(one) > 2 and one[2] & 0xC0 == 0xC0)
    expected = two_way if answers is None else answers

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        side.providers.clear()
        with Client(side, listener) as client:
            for one in [b"".join(frames)] if at_once else frames:
                client.send(one)
            answers_seen: list[Answer] = []
            try:
                answers_seen += [read_answer(client) for _ in range(expected)]
            except EarlyEnd:
                seen.notes["answers"] = f"cut after {len(answers_seen)}"
            # Answers to calls on one connection come in any order.
            for index, answer in enumerate(sorted(answers_seen, key=lambda one: (one.flags, one.request_id))):
                answer.note(seen, f"answer[{index}]" if index else "answer")
            seen.ends.append(seen.stand(side, client.stream.wait_end, end))
            seen.client_ports.append(client.port)
        count = upstream if upstream is not None else (1 if to else 0)
        for index, call in enumerate(sorted(side.providers.wait(count), key=str)):
            seen.notes[f"upstream[{index}]" if index else "upstream"] = str(call)
            seen.notes[f"endpoint[{index}]" if index else "endpoint"] = call.endpoint

    wanted = dict(want or {})
    if to is not None:
        wanted["note.endpoint"] = to
    return Case(f"dubbo_{name}", run=run, want=wanted, log=0, listener=listener, **more)


@dataclass(slots=True)
class Answer:
    """One frame that came back."""

    flags: int
    status: int
    request_id: int
    body: bytes

    def note(self, seen: Observation, name: str) -> None:
        """Put it among what is compared."""
        text = self.body.hex() if self.status == 20 else _text(self.body)
        seen.notes |= {
            f"{name}.flags": f"0x{self.flags:02x}",
            f"{name}.status": str(self.status),
            f"{name}.id": str(self.request_id),
            f"{name}.body": text,
        }


def _text(body: bytes) -> str:
    """A Hessian string of up to 1023 characters."""
    start = 1 if body[:1] < b"\x20" else 2
    return body[start:].decode("utf-8", "replace")


def read_answer(client: Client) -> Answer:
    """The next frame. EarlyEnd: the connection ended first."""
    flags, status, request_id, length = wire.header(client.stream.exactly(16))
    return Answer(flags, status, request_id, client.stream.exactly(length) if length else b"")


def settle(seconds: float = 1.5) -> None:
    """A worker's counters reach the admin about once a second."""
    time.sleep(seconds)
