"""Protocol upgrades and CONNECT: accepted, refused, disabled, and what flows through the tunnel."""

from typing import Any

import pytest
from parity import Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {connect_matcher: {}}, route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}
- {match: {prefix: /off}, route: {cluster: a, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /}, route: {cluster: a}}
"""
PER_ROUTE = """
- {match: {prefix: /on}, route: {cluster: a, upgrade_configs: [{upgrade_type: websocket}]}}
- {match: {prefix: /}, route: {cluster: a}}
"""
CONNECT_PROXIED = """
- {match: {connect_matcher: {}}, route: {cluster: a}}
- {match: {prefix: /}, route: {cluster: a}}
"""
NO_CONNECT_ROUTE = "- {match: {prefix: /}, route: {cluster: a}}"
UPGRADES = "upgrade_configs: [{upgrade_type: websocket}]"
WEBSOCKET = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version: 13",
)
ACCEPT = Reply(status=101, headers=(("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),))

UNASKED_502: Any = {
    "accept": {"*": "RFC 9110 15.2.2: a 101 nobody asked for is the upstream's fault; Envoy passes it on"},
    "ours": {"response.status": "502"},
}


def tunnel(listener: str, request: bytes, method: str = "GET", size: int = 5):
    """Open the tunnel, send bytes both ways, end it from the client."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, listener) as client:
            client.send(request)
            seen.responses.append(client.response(method))
            if seen.responses[0].status not in (101, 200):
                pair.leave(client, seen)
                return
            data = (b"ping-" * (size // 5 + 1))[:size]
            client.send(data)
            expected = data if method == "GET" or listener == "proxied" else b"t:" + data
            seen.notes["echo"] = str(client.stream.exactly(len(expected)) == expected)
            client.half_close()
            client.sock.settimeout(8.0)  # one of the two may never end it
            seen.notes["rest"] = client.stream.rest().decode()
            pair.leave(client, seen, 1.0)

    return run


def early_data(pair: Pair, side: Side, seen: Observation) -> None:
    """Bytes sent right behind the upgrade request belong to the tunnel."""
    with Client(side, "main") as client:
        client.send(req("GET", "/", *WEBSOCKET) + b"early")
        seen.responses.append(client.response())
        seen.notes["echo"] = client.stream.exactly(5).decode()
        client.half_close()
        client.stream.rest()


def upstream_ends(pair: Pair, side: Side, seen: Observation) -> None:
    """An upstream that closes the tunnel."""
    with Client(side, "main") as client:
        client.send(req("GET", "/", *WEBSOCKET))
        seen.responses.append(client.response())
        seen.notes["end"] = seen.stand(side, client.stream.wait_end, 2.0)


SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES, "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]"),
            http("plain", ROUTES.split("\n", 2)[2]),
            http("perroute", PER_ROUTE),
            http("other", PER_ROUTE.replace("websocket", "spdy"), "upgrade_configs: [{upgrade_type: other}]"),
            http("proxied", CONNECT_PROXIED, "upgrade_configs: [{upgrade_type: CONNECT}]"),
            http("noconnect", NO_CONNECT_ROUTE, UPGRADES),
        ],
        [cluster("a", "a"), cluster("tcp", "tcp.t")],
    ),
    (
        Case("websocket", run=tunnel("main", req("GET", "/", *WEBSOCKET)), status=101, replies=(ACCEPT,), want={"note.echo": "True", "log.rx": "5"}),
        Case("websocket_large", run=tunnel("main", req("GET", "/", *WEBSOCKET), size=500_000), status=101, replies=(ACCEPT,), want={"note.echo": "True"}),
        Case("websocket_outlives_route_timeout", run=tunnel("main", req("GET", "/timeout", *WEBSOCKET)), status=101, replies=(ACCEPT,)),
        Case("websocket_case", run=tunnel("main", req("GET", "/", "Connection: keep-alive, UPGRADE", "Upgrade: WebSocket")), status=101, replies=(ACCEPT,)),
        Case("websocket_early_data", run=early_data, status=101, replies=(ACCEPT,)),
        Case("websocket_refused_by_upstream", req("GET", "/", *WEBSOCKET), 403, replies=(Reply(status=403),)),
        Case("websocket_ignored_by_upstream", req("GET", "/", *WEBSOCKET), 200, replies=(Reply(),)),
        Case("websocket_upstream_ends", run=upstream_ends, status=101, replies=(Reply(raw=b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", ending="close"),)),
        Case("websocket_not_configured", req("GET", "/", *WEBSOCKET), 403, "", listener="plain"),
        Case("websocket_off_for_route", req("GET", "/off", *WEBSOCKET), 403, ""),
        Case("websocket_on_for_route", run=tunnel("perroute", req("GET", "/on", *WEBSOCKET)), status=101, listener="perroute", replies=(ACCEPT,)),
        Case("websocket_not_on_for_other_route", req("GET", "/", *WEBSOCKET), 403, "", listener="perroute"),
        Case("upgrade_of_other_kind", req("GET", "/", *WEBSOCKET), 403, "", listener="other"),
        Case("upgrade_h2c_is_ignored", req("GET", "/", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"), 200, listener="plain"),
        Case("upgrade_without_connection", req("GET", "/", "upgrade: websocket"), None, listener="plain"),
        Case("unasked_101", req("GET", "/"), 101, replies=(Reply(raw=b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ending="close"),), **UNASKED_502),
        Case("connect_terminated", run=tunnel("main", req("CONNECT", "b.test:443", host="b.test:443"), "CONNECT"), status=200, want={"note.echo": "True"}),
        Case("connect_not_configured", req("CONNECT", "b.test:443", host="b.test:443"), None, listener="plain"),
        Case("connect_without_route", req("CONNECT", "b.test:443", host="b.test:443"), None, listener="noconnect"),
        Case("connect_proxied", run=tunnel("proxied", req("CONNECT", "b.test:443", host="b.test:443"), "CONNECT"), status=200, listener="proxied", want={"note.echo": "True"}),
        Case("connect_refused_by_upstream", req("CONNECT", "b.test:443", host="b.test:443"), 403, listener="proxied", replies=(Reply(status=403),)),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_upgrade(pair: Pair, case: Case) -> None:
    pair.check(case)
