"""Counters and gauges of clusters that speak HTTP/2 after known traffic, as `test_stats` does for HTTP/1."""

import re
import time
from typing import Any

import pytest
from parity import LATE, Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, http, http2_cluster, req
from test_stats import BREAKER, LEFT_OUT, NOT_OURS, QUIET, SETTLE_SECONDS, Traffic, get, leave, once, parallel, together

pytestmark = pytest.mark.envoy

RETRY = "retry_policy: {retry_on: 'refused-stream,reset', num_retries: 1, retry_back_off: {base_interval: 0.001s}}"
WIRE = {
    "note.cluster.*.upstream_cx_?x_bytes_total": "another encoder writes other bytes, and other SETTINGS and window updates",
    "note.cluster.*.http2.*ghttp2_*": "about Envoy's two codecs",
}
CLOSING = {**WIRE, "note.cluster.*.http2.goaway_sent": "we say GOAWAY before we close (RFC 9113, 6.8)"}
AFTER_LAST = {**CLOSING, "note.*.upstream_cx_protocol_error": "Envoy counts it when it closes within a read; nothing was wrong"}
MOVED = {**CLOSING, "note.*": "what a GOAWAY leaves behind moves to another connection; Envoy fails it"}
PATIENT = {**WIRE, "note.*": "requests wait for the endpoint's SETTINGS and for each other; Envoy sends them to be refused"}
KINDER = {**WIRE, "note.*": "a fault within a stream ends that stream; Envoy ends the connection"}


def frame(kind: int, flags: int, payload: bytes) -> str:
    return (len(payload).to_bytes(3, "big") + bytes((kind, flags))).hex() + "<stream>" + payload.hex()


def group(
    name: str,
    traffic: Traffic,
    route: str = "",
    *,
    options: str = "",
    extra: str = "",
    endpoint: str = "up2.a",
    accept: dict[str, str] | None = None,
) -> tuple[str, Traffic, dict[str, Any], dict[str, Any], dict[str, str]]:
    routes = f"- {{match: {{prefix: /}}, route: {{cluster: {name}{', ' + route if route else ''}}}}}"
    at = http(name, routes, "http_protocol_options: {enable_trailers: true}\n" + QUIET)
    return name, traffic, at, http2_cluster(name, endpoint, options=options, extra=extra), accept or WIRE


def two(first: Reply) -> Traffic:
    """Two requests one after the other; the second is answered as usual."""

    def send(pair: Pair, side: Side, name: str) -> None:
        side.upstream.begin((first, Reply()))
        with Client(side, name) as client:
            for _ in range(2):
                client.send(get())
                client.response()
                time.sleep(0.5)  # for the GOAWAY or RST_STREAM behind the answer
        side.upstream.finish()

    return send


def idle(pair: Pair, side: Side, name: str) -> None:
    once(get())(pair, side, name)
    deadline = time.monotonic() + 20
    while side.stats().get(f"cluster.{name}.upstream_cx_active") and time.monotonic() < deadline:
        time.sleep(0.1)


GROUPS = (
    group("ok", once(get(), get(), get())),
    group("kept", together(get(), get(), get())),
    group("post", once(req("POST", "/", body=b"x" * 1000), methods=("POST",))),
    group("codes", once(get(), get(), get(), get(), replies=tuple(Reply(status=s) for s in (201, 302, 404, 500)))),
    group("trailers", once(get(), replies=(Reply(framing="stream", trailers=(("x-t", "1"),)),))),
    group("parallel", parallel),
    group("maxrequests", together(get(), get(), get()), options="common_http_protocol_options: {max_requests_per_connection: 2}", accept=AFTER_LAST),
    group("idle", idle, options="common_http_protocol_options: {idle_timeout: 1s}", accept=CLOSING),
    group("refusedstream", once(get(), replies=(Reply(h2="refuse"),))),
    group("refusedretried", once(get(), replies=(Reply(h2="refuse"), Reply())), RETRY),
    group("reset", once(get(), replies=(Reply(h2="reset 2"),))),
    group("resetprotocol", once(get(), replies=(Reply(h2="reset 1"),))),
    group("resetconnect", once(get(), replies=(Reply(h2="reset 10"),))),
    group("resetretried", once(get(), replies=(Reply(h2="reset 2"), Reply())), RETRY),
    group("resetafterheaders", once(get(), replies=(Reply(h2="reset_after_headers 2"),))),
    group("resetmiddle", once(get(), replies=(Reply(h2="reset_middle 8"),))),
    group("goaway", once(get(), replies=(Reply(h2="goaway"), Reply())), accept=MOVED),
    group("goawayfirst", two(Reply(h2="goaway_first")), accept=AFTER_LAST),
    group("goawayafter", two(Reply(h2="goaway_after")), accept=CLOSING),
    group("closed", once(get(), replies=(Reply(ending="close_before"),)), accept=CLOSING),
    group("cut", once(get(), replies=(Reply(ending="close_middle"),)), accept=CLOSING),
    group("refused", once(get()), endpoint="refused.r"),
    group("blackhole", once(get()), endpoint="blackhole.b", extra="connect_timeout: 1s"),
    group("timeout", once(get(), replies=(Reply(delay=LATE),)), "timeout: 1s"),
    group("life", once(get(), replies=(Reply(delay=LATE),)), options="common_http_protocol_options: {max_stream_duration: 1s}"),
    group("leave", leave),
    group("early", once(req("POST", "/", "content-length: 10", body=b"abc", length=False), replies=(Reply(early=True),), methods=("POST",))),
    group("malformed", once(get(), replies=(Reply(h2="raw " + frame(1, 5, b"\x00\x01x\x011")),)), accept=CLOSING),
    group("datafirst", once(get(), replies=(Reply(h2="raw " + frame(0, 1, b"abc")),)), accept=KINDER),
    group("http1", once(get()), endpoint="h1", accept=CLOSING),
    group("norequests", once(get()), extra=BREAKER % "max_requests: 0"),
    group("nopending", once(get()), extra=BREAKER % "max_pending_requests: 0"),
    group("onestream", parallel, endpoint="up2.one", accept=PATIENT),
)  # fmt: skip
TABLE = {name: (traffic, accept) for name, traffic, _, _, accept in GROUPS}
SNAPSHOTS: dict[int, dict[str, int]] = {}
"""The stats of each side (by id) after all traffic."""


def snapshot(pair: Pair, side: Side) -> dict[str, int]:
    if id(side) not in SNAPSHOTS:
        for name, (traffic, _) in TABLE.items():
            try:
                traffic(pair, side, name)
            except Exception as error:  # the stats of that group will tell, the other groups are not to suffer
                print(f"{side.label}: traffic of {name} failed: {error!r}")
        time.sleep(SETTLE_SECONDS)
        SNAPSHOTS[id(side)] = side.stats()
    return SNAPSHOTS[id(side)]


def compare(name: str):
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        for stat, value in snapshot(pair, side).items():
            if value and stat.startswith(f"cluster.{name}.") and not any(re.search(pattern, stat) for pattern, _ in LEFT_OUT):
                seen.notes[stat] = str(value)

    return run


def names(pair: Pair, side: Side, seen: Observation) -> None:
    """Which stats exist, zero or not."""
    for stat in snapshot(pair, side):
        if stat.startswith("cluster.ok."):
            seen.notes[stat] = "exists"


SUITE = Suite(
    bootstrap([at for _, _, at, _, _ in GROUPS], [c for _, _, _, c, _ in GROUPS]),
    (
        *(Case(f"h2_stats_{name}", run=compare(name), listener="nolog", log=0, accept=accept) for name, (_, accept) in TABLE.items()),
        Case("h2_names", run=names, log=0, listener="nolog", accept=NOT_OURS | WIRE | {"note.cluster.*.http2.co*_too_large": "1.40 counts large cookies apart", "note.cluster.*.http2.header_list_size_too_large": "1.40 counts it apart from header_overflow"}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_stats(pair: Pair, case: Case) -> None:
    pair.check(case)
