"""What is counted for known Dubbo traffic: each case has a listener, a stat prefix and a cluster of its own name."""

from __future__ import annotations

import re
import time

import pytest
from dubbo_support.wire import call, frame, heartbeat
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster
from parity.dubbo import dubbo, read_answer

pytestmark = pytest.mark.envoy

LEFT_OUT = re.compile(r"\.(cx_(total|active|idle_timeout|drain_readonly|protocol_error|rx_bytes_total|tx_bytes_total))$")
"""ours"""
WAIT_S = 20.0


def counted(
    name: str,
    *frames: bytes,
    answers: int = 0,
    upstream: int = 0,
    leave: str = "",
    accept: dict[str, str] | None = None,
    **want: str,
) -> Case:
    """Send the frames, read the answers, go; then note the counters. `leave` is a counter to wait for."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        side.providers.clear()
        with Client(side, name) as client:
            client.send(b"".join(frames))
            for _ in range(answers):
                read_answer(client)
            side.providers.wait(upstream)
        deadline = time.monotonic() + WAIT_S
        while True:
            stats = side.stats()
            gone = stats.get(f"listener.127.0.0.1_{side.ports[f'port.{name}']}.downstream_cx_active", 0) == 0
            if gone and (not leave or stats.get(f"dubbo.{name}.{leave}", 0)):
                break
            assert time.monotonic() < deadline, stats
            time.sleep(0.05)
        for key, value in stats.items():
            if value and key.startswith(f"dubbo.{name}.") and not LEFT_OUT.search(key):
                seen.notes[key.removeprefix(f"dubbo.{name}.")] = str(value)

    wanted = {f"note.{key}": value for key, value in want.items()}
    accepted = {
        "note.request_no_route": "ours",
        "note.request_no_cluster": "ours",
        "note.request_opaque": "ours",
        **(accept or {}),
    }
    return Case(f"dubbo_stats_{name}", run=run, want=wanted, log=0, listener=name, accept=accepted)


S = "demo.A"
EXCEPTION = "an exception of the business code has the status OK; Envoy counts every other status as one, too"
CLOSES = "a malformed call is a call and is answered; Envoy closes the connection"
CASES = (
    counted(
        "calls", call(S), call(S, request_id=2), answers=2, upstream=2, request="2", request_twoway="2", response_success="2"
    ),
    counted("oneway", call(S, one_way=True), upstream=1, request_oneway="1"),
    counted("events", heartbeat(), answers=1, request_event="1"),
    counted(
        "noroute",
        call("nobody"),
        answers=1,
        local_response_business_exception="1",
        accept={
            "note.local_response_*": "an answer of ours with an error status is an error, no exception of the business code",
            "note.request_twoway": "a call that found no route was a two-way call as well",
        },
    ),
    counted(
        "failed",
        call(S, "status_70"),
        answers=1,
        upstream=1,
        response_error="1",
        accept={"note.response_business_exception": EXCEPTION},
    ),
    counted("threw", call(S, "throw"), answers=1, upstream=1, response_business_exception="1"),
    counted("nullresult", call(S, "null"), answers=1, upstream=1, response_success="1"),
    counted("left", call(S, "silent"), upstream=1, leave="cx_destroy_remote_with_active_rq"),
    counted("badbody", frame(0xC2, 0, 1, b"\x40\x40"), request_decoding_error="1", accept={"note.*": CLOSES}),
)
ROUTES = "[{{name: r, interface: demo.A, routes: [{{match: {{ANY}}, route: {{cluster: {0}}}}}]}}]"
NAMES = tuple(case.listener for case in CASES)
SUITE = Suite(
    bootstrap([dubbo(name, ROUTES.format(name)) for name in NAMES], [cluster(name, f"dubbo.{name}") for name in NAMES]), CASES
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_case(case: Case, pair: Pair) -> None:
    pair.check(case)
