"""Counters and gauges after known traffic: every stat of a listener, its HTTP or TCP manager and its cluster that is not zero.

Each group has a listener, a stat prefix and clusters of its own name. The traffic of all groups is sent once, then the stats
are read once on each side; each case compares the stats of one group.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from parity import (
    LATE,
    Case,
    Client,
    Observation,
    Pair,
    Reply,
    Side,
    Suite,
    bootstrap,
    cluster,
    http,
    listener,
    req,
    taken,
    tcp_proxy,
)
from parity.config import TYPE

pytestmark = pytest.mark.envoy

# The time the upstream took has one digit more or less from run to run, and bytes are counted.
QUIET = f"""
http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": {TYPE}envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}}}]
"""
LEFT_OUT: tuple[tuple[str, str], ...] = (
    # (regular expression over the name, why it is not compared)
    (r"\.upstream_cx_length_ms$|\.connect_timeout$", "a matter of time"),
    (r"\.upstream_cx_rx_bytes_buffered$", "Envoy leaves the size of the last read in it, though nothing is buffered any more"),
    (r"\.default\.total_match_count$", "counts the endpoints of the default transport socket: configuration, not traffic"),
)
NOT_OURS = {
    "note.*http3*": "there is no HTTP/3",
    "note.*0rtt": "there is no HTTP/3",
    "note.*0_rtt": "there is no HTTP/3",
    "note.*.tracing.*": "there is no tracing yet",
    "note.cluster.*.http1.*": "the codec's counters: a response that breaks a rule counts as upstream_cx_protocol_error",
    "note.*.watchdog_*": "Envoy's watchdog threads have no counterpart",
    "note.*.fips_mode": "about Envoy's TLS library",
    "note.*.lb_zone_*": "there is no zone-aware routing",
    "note.*.lb_local_cluster_not_ok": "there is no zone-aware routing",
    "note.*.passthrough_internal_redirect_*": "there are no internal redirects",
    "note.*.http1.metadata_not_supported_error": "about Envoy's METADATA frames",
    "note.*extension_config_missing": "there is no extension discovery",
    "note.tcp.*.early_data_received_count_total": "bytes before the upstream connection are not told apart",
    "note.server.hot_restart_generation": "Envoy has it only with hot restart, which the comparison switches off",
    "note.*.workers_pinned": "processes, not pinned threads",
}
"""Stats that exist for what this proxy does not have, by path -> why."""
SETTLE_SECONDS = 1.5
"""A worker's counters reach the admin about once a second."""


def get(target: str = "/", *headers: str) -> bytes:
    return req("GET", target, *headers)


def once(*requests: bytes, replies: tuple[Reply, ...] = (), methods: tuple[str, ...] = ("GET",)) -> "Traffic":
    """Each request on a connection of its own."""

    def send(pair: Pair, side: Side, name: str) -> None:
        side.upstream.begin(replies)
        for data in requests:
            with Client(side, name) as client:
                client.send(data)
                for method in methods:
                    client.response(method)
        side.upstream.finish()

    return send


def together(*requests: bytes, replies: tuple[Reply, ...] = ()) -> "Traffic":
    """All requests on one connection, one after the other."""

    def send(pair: Pair, side: Side, name: str) -> None:
        side.upstream.begin(replies)
        with Client(side, name) as client:
            for data in requests:
                client.send(data)
                client.response()
        side.upstream.finish()

    return send


def leave(pair: Pair, side: Side, name: str) -> None:
    """Go away before the answer."""
    side.upstream.begin((Reply(delay=LATE),))
    with Client(side, name) as client:
        client.send(get())
        side.upstream.reached(1)
    side.upstream.finish()


def silent(pair: Pair, side: Side, name: str) -> None:
    """Say nothing until the proxy closes, or at once close."""
    with Client(side, name) as client:
        client.stream.wait_end(20.0)


def websocket(pair: Pair, side: Side, name: str) -> None:
    side.upstream.begin((Reply(status=101),))
    with Client(side, name) as client:
        client.send(get("/", "connection: upgrade", "upgrade: websocket"))
        client.response()
        client.send(b"ping")
        client.stream.exactly(4)
    side.upstream.finish()


def raw(pair: Pair, side: Side, name: str) -> None:
    with Client(side, name) as client:
        client.send(b"hello")
        client.half_close()
        client.stream.rest()
    side.upstream.finish()


def parallel(pair: Pair, side: Side, name: str) -> None:
    """Three slow requests at the same time."""
    side.upstream.begin((Reply(held=True),))
    clients = [Client(side, name) for _ in range(3)]
    for client in clients:
        client.send(get())
        taken(client.sock)  # in this order
    side.upstream.release()
    for client in clients:
        client.response()
        client.close()
    side.upstream.finish()


Traffic = Callable[[Pair, Side, str], None]
RETRY = "retry_policy: {retry_on: '5xx,connect-failure,reset', retry_back_off: {base_interval: 0.001s}}"


def group(
    name: str, traffic: Traffic, route: str = "", *, settings: str = "", extra: str = "", endpoint: str = "a", routes: str = ""
) -> tuple[str, Traffic, dict[str, Any], dict[str, Any]]:
    routes = routes or f"- {{match: {{prefix: /}}, route: {{cluster: {name}{', ' + route if route else ''}}}}}"
    return name, traffic, http(name, routes, settings + QUIET), cluster(name, endpoint, extra=extra)


def tcp(name: str, traffic: Traffic, endpoint: str = "tcp.e") -> tuple[str, Traffic, dict[str, Any], dict[str, Any]]:
    return name, traffic, listener(name, tcp_proxy(name, f"cluster: {name}")), cluster(name, endpoint)


BREAKER = "circuit_breakers: {thresholds: [{%s}]}"
GROUPS = (
    group("ok", once(get(), get(), get())),
    group("post", once(req("POST", "/", body=b"x" * 1000), methods=("POST",))),
    group("codes", once(get(), get(), get(), get(), replies=tuple(Reply(status=s) for s in (201, 302, 404, 500)))),
    group("keepalive", together(get(), get(), get())),
    group("upclose", together(get(), get(), replies=(Reply(headers=(("connection", "close"),), ending="close"), Reply()))),
    group("downclose", once(get("/", "connection: close"))),
    group("retried", once(get(), replies=(Reply(status=503), Reply())), RETRY),
    group("exhausted", once(get(), replies=(Reply(status=503),)), RETRY),
    group("refusedretry", once(get()), RETRY, endpoint="refused.r"),
    group("refused", once(get()), endpoint="refused.r"),
    group("blackhole", once(get()), endpoint="blackhole.b", extra="connect_timeout: 1s"),
    group("timeout", once(get(), replies=(Reply(delay=LATE),)), "timeout: 1s"),
    group("pertry", once(get(), replies=(Reply(delay=LATE), Reply())), "retry_policy: {retry_on: 5xx, per_try_timeout: 1s}"),
    group("idle", once(get(), replies=(Reply(delay=LATE),)), "idle_timeout: 1s"),
    group("reset", once(get(), replies=(Reply(ending="reset_before"),))),
    group("closed", once(get(), replies=(Reply(ending="close_before"),))),
    group("cut", once(get(), replies=(Reply(ending="close_middle"),))),
    group("garbage", once(get(), replies=(Reply(raw=b"nonsense\r\n\r\n", ending="close"),))),
    group("leave", leave),
    group("noroute", once(get("/none")), routes="- {match: {path: /only}, route: {cluster: noroute}}"),
    group("nocluster", once(get()), routes="- {match: {prefix: /}, route: {cluster_header: x-none}}"),
    group("direct", once(get()), routes="- {match: {prefix: /}, direct_response: {status: 200}}"),
    group("redirect", once(get()), routes="- {match: {prefix: /}, redirect: {path_redirect: /x}}"),
    group("badrequest", once(b"BAD\r\n\r\n")),
    group("toolarge", once(get("/", "x-big: " + "x" * 5000)), settings="max_request_headers_kb: 4"),
    group("norequests", once(get()), extra=BREAKER % "max_requests: 0"),
    group("nopending", once(get()), extra=BREAKER % "max_pending_requests: 0"),
    group("oneconnection", parallel, extra=BREAKER % "max_connections: 1, max_pending_requests: 1"),
    group("noretries", once(get(), replies=(Reply(status=503),)), RETRY, extra=BREAKER % "max_retries: 0"),
    group("maintained", once(get())),
    group("headertimeout", once(b"GET / HT"), settings="request_headers_timeout: 1s"),
    group("connectionidle", silent, settings="common_http_protocol_options: {idle_timeout: 1s}"),
    group("upgrade", websocket, settings="upgrade_configs: [{upgrade_type: websocket}]"),
    group("normalised", once(get("/x%2fy")), settings="path_with_escaped_slashes_action: REJECT_REQUEST"),
    tcp("tcpok", raw),
    tcp("tcprefused", silent, "refused.r"),
)  # fmt: skip
TABLE = {name: (traffic, at) for name, traffic, at, _ in GROUPS}
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
        by_port = {f"listener.127.0.0.1_{side.ports[f'port.{name}']}.": f"listener.{name}." for name in TABLE}
        found = {}
        for stat, value in side.stats().items():
            if match := re.match(r"listener\.127\.0\.0\.1_\d+\.", stat):
                stat = stat.replace(match[0], by_port[match[0]])
            found[stat] = value
        SNAPSHOTS[id(side)] = found
    return SNAPSHOTS[id(side)]


def compare(name: str):
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        stats = snapshot(pair, side)
        prefixes = (f"http.{name}.", f"cluster.{name}.", f"tcp.{name}.", f"listener.{name}.")
        for stat, value in stats.items():
            if value and stat.startswith(prefixes) and not any(re.search(pattern, stat) for pattern, _ in LEFT_OUT):
                seen.notes[stat] = str(value)

    return run


def names(prefix: str):
    """Which stats exist, zero or not."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        for stat in snapshot(pair, side):
            if stat.startswith(prefix):
                seen.notes[stat] = "exists"

    return run


SUITE = Suite(
    bootstrap(
        [at for _, _, at, _ in GROUPS],
        [c for _, _, _, c in GROUPS],
        "layered_runtime: {layers: [{name: s, static_layer: {upstream.maintenance_mode.maintained: 100}}]}",
    ),
    (
        *(Case(f"stats_{name}", run=compare(name), listener="nolog", log=0) for name in TABLE),
        Case("names_http", run=names("http.ok."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_cluster", run=names("cluster.ok."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_listener", run=names("listener.ok."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_tcp", run=names("tcp.tcpok."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_server", run=names("server."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_listener_manager", run=names("listener_manager."), log=0, listener="nolog", accept=NOT_OURS),
        Case("names_cluster_manager", run=names("cluster_manager."), log=0, listener="nolog", accept=NOT_OURS),
    ),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_stats(pair: Pair, case: Case) -> None:
    pair.check(case)
