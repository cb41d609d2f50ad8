"""Listeners: filter-chain match, default chain, TCP proxy, unix sockets, IPv6, connection limits."""

import socket
import time
from typing import Any

import pytest
import yaml
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, file_log, hcm, http, listener, req, tcp_proxy
from parity.proxy import has_ipv6

pytestmark = pytest.mark.envoy


def says(text: str, match: str = "") -> dict[str, Any]:
    """A filter chain whose every answer is `text`."""
    import yaml

    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}]
    chain: dict[str, Any] = {"name": text, "filters": [hcm("chains", routes)]}
    return chain | ({"filter_chain_match": yaml.safe_load(match)} if match else {})


def chains(name: str, *rows: dict[str, Any], default: dict[str, Any] | None = None) -> dict[str, Any]:
    made = listener(name) | {"filter_chains": list(rows), "access_log": [file_log(f"$(dir)/{name}-listener.log")]}
    return made | ({"default_filter_chain": default} if default else {})


OTHER = "10.0.0.0"
LISTENERS = [
    chains(
        "sources",
        says("wide", "source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]"),
        says("narrow", "source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]"),
        says("elsewhere", "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
    ),
    chains("destination", says("near", "prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}]"), says("all")),
    chains("port", says("right", "destination_port: $(port.port)"), says("wrong", "destination_port: 1")),
    chains(
        "nobacktrack",
        says(
            "specific",
            "{prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}], source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
        ),
        says("general", "prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]"),
    ),
    chains(
        "default", says("never", "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"), default=says("default")
    ),
    chains("nothing", says("never", "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]")),
    chains("sourcetype", says("local", "source_type: SAME_IP_OR_LOOPBACK"), says("external", "source_type: EXTERNAL")),
    chains("transport", says("raw", "transport_protocol: raw_buffer"), says("tls", "transport_protocol: tls")),
    chains("servernames", says("named", "server_names: [x.test]"), says("unnamed")),
    chains("sourceports", says("odd", "source_ports: [1, 2, 3]"), says("any")),
]
TCP = [
    listener("tcp", tcp_proxy("tcp", "cluster: echo")),
    listener("weighted", tcp_proxy("weighted", "weighted_clusters: {clusters: [{name: echo, weight: 0}, {name: other, weight: 1}]}".replace("weight: 0", "weight: 1").replace("{name: echo, weight: 1}, ", ""))),
    listener("tcpidle", tcp_proxy("tcpidle", "{cluster: echo, idle_timeout: 1s}")),
    listener("tcprefused", tcp_proxy("tcprefused", "cluster: refused")),
    listener("tcpnone", tcp_proxy("tcpnone", "cluster: missing")),
    listener("tcpempty", tcp_proxy("tcpempty", "cluster: empty")),
    listener("tcpattempts", tcp_proxy("tcpattempts", "{cluster: refused, max_connect_attempts: 3}")),
    listener("tcplife", tcp_proxy("tcplife", "{cluster: echo, max_downstream_connection_duration: 1s}")),
]  # fmt: skip
ROUTES = "- {match: {prefix: /}, route: {cluster: a}}"
UNIX = http("unix", ROUTES) | {"address": {"pipe": {"path": "$(uds.unix)"}}}
LIMITED = http("limited", ROUTES)
RATE = """{name: rate, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit,
  stat_prefix: cxrate, token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 1000s}}}"""
RATED = http("rated", ROUTES)
RATED["filter_chains"][0]["filters"].insert(0, yaml.safe_load(RATE))


def chain(name: str, expected: str, at: str, source: str = "127.0.0.1") -> Case:
    """Connect from `source` to the listener `at`; Envoy takes the chain that says `expected`, or none."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with socket.create_connection(("127.0.0.1", side.ports[f"port.{at}"]), 20, (source, 0)) as sock:
            try:
                sock.sendall(req("GET", "/", "connection: close"))
                answer = b""
                while more := sock.recv(65536):
                    answer += more
            except OSError:
                pass  # what came before the reset counts
        seen.notes["answer"] = answer.decode().rpartition("\r\n\r\n")[2]
        lines = side.new_lines(f"{at}-listener.log", 1)
        for part in "".join(lines).split("\t"):
            key, _, value = part.partition("=")
            if key in ("flags", "details"):
                seen.notes[f"listener log {key}"] = value

    return Case(name, run=run, listener="chains", log=1 if expected else 0, want={"note.answer": expected})


def talk(at: str, *data: bytes, end: bool = True):
    """Send `data` one by one, each echoed, then half-close and read the rest."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, at) as client:
            heard = b""
            for piece in data:
                client.send(piece)
                while not heard.endswith(piece) and (more := client.stream.some()):
                    heard += more
            if end:
                client.half_close()
                heard += client.stream.rest()
            seen.ends.append(seen.stand(side, client.stream.wait_end, 10.0))
            seen.client_ports.append(client.port)
            seen.notes["heard"] = heard.decode() if len(heard) < 1000 else f"{len(heard)} bytes, {heard[:9]!r}…{heard[-9:]!r}"

    return run


def upstream_half_close(pair: Pair, side: Side, seen: Observation) -> None:
    """Client ends its side; the upstream still answers `:bye` and ends its own."""
    talk("tcp", b"hello")(pair, side, seen)


def reset_by_client(pair: Pair, side: Side, seen: Observation) -> None:
    import struct

    with Client(side, "tcp") as client:
        client.send(b"x")
        while not bytes(client.stream.raw).endswith(b":x"):
            client.stream.some()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def connection_limit(pair: Pair, side: Side, seen: Observation) -> None:
    """Two connections may be open; the third is closed at once; after one leaves there is room again."""
    with Client(side, "limited") as one, Client(side, "limited") as two:
        for client in (one, two):
            client.send(req("GET", "/"))
            seen.responses.append(client.response())
        with Client(side, "limited") as three:
            seen.notes["third"] = three.stream.wait_end(20.0)
        two.close()
        deadline = time.monotonic() + 20
        while True:
            with Client(side, "limited") as four:
                four.send(req("GET", "/"))
                answer = four.response()
                if not answer.error or time.monotonic() > deadline:
                    break
        seen.responses.append(answer)


def connection_rate(pair: Pair, side: Side, seen: Observation) -> None:
    """There are tokens for two connections; later ones are closed at once."""
    ends = []
    for _ in range(4):
        with Client(side, "rated") as client:
            if len(ends) < 2:
                client.send(req("GET", "/"))
                seen.responses.append(client.response())
                ends.append("answered")
            else:
                ends.append(client.stream.wait_end(20.0))
    seen.notes["ends"] = " ".join(ends)
    seen.notes["limited"] = str(side.stats().get("local_rate_limit.cxrate.rate_limited"))


V6_CASES = (
    Case("v6_listener", req("GET", "/"), 200, "a", listener="v6"),
    Case("v6_upstream", req("GET", "/six", "x-six: upsix"), 200, "s", listener="ups"),
)
SUITE = Suite(
    bootstrap(
        [
            *LISTENERS,
            *TCP,
            UNIX,
            LIMITED,
            RATED,
            *([http("v6", ROUTES, ip="::1")] if has_ipv6() else []),
            http("ups", "- {match: {prefix: /unix}, route: {cluster: upunix}}\n- {match: {prefix: /six}, route: {cluster_header: x-six}}"),
        ],
        [
            cluster("a", "a"),
            cluster("echo", "tcp.e"),
            cluster("other", "tcp.o"),
            cluster("refused", "refused.r"),
            cluster("empty"),
            cluster("upunix", "uds.up1"),
            *([cluster("upsix", "up6.s")] if has_ipv6() else []),
        ],
        "layered_runtime: {layers: [{name: s, static_layer: {envoy.resource_limits.listener.limited.connection_limit: 2}}]}",
    ),
    (
        chain("chain_source_longest_prefix", "narrow", "sources", "127.0.0.2"),
        chain("chain_source_shorter_prefix", "wide", "sources", "127.0.0.3"),
        chain("chain_destination_prefix", "near", "destination"),
        chain("chain_destination_port", "right", "port"),
        chain("chain_does_not_backtrack", "", "nobacktrack"),
        chain("chain_default", "default", "default"),
        chain("chain_none", "", "nothing"),
        chain("chain_source_type", "local", "sourcetype"),
        chain("chain_transport_protocol", "raw", "transport"),
        chain("chain_server_names_without_tls", "unnamed", "servernames"),
        chain("chain_source_ports", "any", "sourceports"),
        Case("tcp_echo", run=talk("tcp", b"hello", b"again"), listener="tcp", want={"note.heard": "e:helloagain:bye", "log.tx": "16"}),
        Case("tcp_large", run=talk("tcp", b"x" * 300_000 + b"!"), listener="tcp"),
        Case("tcp_half_close", run=upstream_half_close, listener="tcp", want={"note.heard": "e:hello:bye"}),
        Case("tcp_reset_by_client", run=reset_by_client, listener="tcp"),
        Case("tcp_weighted", run=talk("weighted", b"hi"), listener="weighted", want={"note.heard": "o:hi:bye"}),
        Case("tcp_idle_timeout", run=talk("tcpidle", b"hi", end=False), listener="tcpidle", want={"end": "closed"}, seconds=(0.6, 20)),
        Case("tcp_refused", run=talk("tcprefused", end=False), listener="tcprefused", want={"log.flags": "UF,URX"}),
        Case("tcp_attempts", run=talk("tcpattempts", end=False), listener="tcpattempts", want={"log.flags": "UF,URX"}),
        Case("tcp_no_cluster", run=talk("tcpnone", end=False), listener="tcpnone", want={"log.flags": "NC"}),
        Case("tcp_no_endpoint", run=talk("tcpempty", end=False), listener="tcpempty", want={"log.flags": "UH"}),
        Case("tcp_max_duration", run=talk("tcplife", b"hi", end=False), listener="tcplife", seconds=(0.6, 20)),
        Case("unix_listener", req("GET", "/"), 200, "a", listener="unix"),
        Case("unix_upstream", req("GET", "/unix"), 200, "up1", listener="ups"),
        Case("connection_limit", run=connection_limit, status=200, listener="limited", log=3, want={"note.third": "closed"}),
        Case("connection_rate", run=connection_rate, status=200, listener="rated", log=2, want={"note.ends": "answered answered closed closed", "note.limited": "2"}),
        *(V6_CASES if has_ipv6() else ()),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_listener(pair: Pair, case: Case) -> None:
    pair.check(case)
