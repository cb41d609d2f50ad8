"""HTTP/1 callers, HTTP/2 endpoints: what crosses over, and what a caller is told when the endpoint resets, refuses or goes away."""

from typing import Any

import pytest
from parity import LATE, Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, http, http2_cluster, req
from test_upgrades import WEBSOCKET, tunnel

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {connect_matcher: {}}, route: {cluster: tunnels}}
- {match: {prefix: /retry}, route: {cluster: a, retry_policy: {retry_on: refused-stream, num_retries: 2}}}
- {match: {prefix: /reset}, route: {cluster: a, retry_policy: {retry_on: reset, num_retries: 1}}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /narrow}, route: {cluster: narrow}}
- {match: {prefix: /one}, route: {cluster: one}}
- {match: {prefix: /h1}, route: {cluster: h1}}
- {match: {prefix: /tunnels}, route: {cluster: tunnels, timeout: 2s}}
- {match: {prefix: /nosettings}, route: {cluster: a, timeout: 2s}}
- {match: {prefix: /down}, route: {cluster: down}}
- {match: {prefix: /lives}, route: {cluster: life, retry_policy: {retry_on: reset, num_retries: 1}}}
- {match: {prefix: /life}, route: {cluster: life}}
- {match: {prefix: /}, route: {cluster: a}}
"""
SETTINGS = (
    "{http_protocol_options: {enable_trailers: true}, upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]}"
)
CHUNKED = "transfer-encoding: chunked"

CANCELLED: Any = {
    "accept": {"upstream.outcome": "RFC 9113, 7: CANCEL says that nobody wants the answer any more; Envoy says INTERNAL_ERROR"},
    "ours": {"upstream.outcome": "reset by proxy: 8"},
}
MOVED: Any = {
    "accept": {
        "*": "RFC 9113, 6.8: what a GOAWAY leaves behind was not processed and may be sent again; Envoy fails it without a policy"
    },
    "ours": {"response.status": "200", "log.status": "200", "upstream.outcome": "answered"},
}
WITHIN_A_STREAM: Any = {
    "accept": {"upstream.outcome": "RFC 9113, 5.4.2: a fault within a stream ends that stream; Envoy ends the connection"},
    "ours": {"upstream.outcome": "reset by proxy: 1"},
}
QUEUED: Any = {
    "accept": {"*": "requests wait for the endpoint's SETTINGS instead of being refused by it"},
    "ours": {"note.statuses": "[200, 200, 200, 200]"},
}
NOT_OFFERED: Any = {
    "accept": {"*": "RFC 8441, 3: an endpoint that does not offer extended CONNECT must not be sent it; Envoy does"},
    "ours": {"response.status": "502"},
}
HALF_CLOSE: Any = {
    "accept": {
        "upstream.outcome": "half-close: the tunnel ends when both directions ended; Envoy cuts it at the first FIN",
        "log.details": "half-close",
        "log.flags": "half-close",
        "response.headers.sec-websocket-accept": "RFC 6455, 4.1: without it an HTTP/1 caller does not believe in the websocket",
    },
    "ours": {"upstream.outcome": "answered"},
}


def frame(kind: int, flags: int, payload: bytes) -> str:
    """An HTTP/2 frame in hex, on the stream of the request."""
    return (len(payload).to_bytes(3, "big") + bytes((kind, flags))).hex() + "<stream>" + payload.hex()


def literal(*pairs: tuple[bytes, bytes]) -> bytes:
    """A header block of literals that leave no trace in the table."""
    return b"".join(b"\x00" + bytes((len(n),)) + n + bytes((len(v),)) + v for n, v in pairs)


def raw(*frames: str) -> Reply:
    return Reply(h2="raw " + "".join(frames)) if frames else Reply()


def leave_early(pair: Pair, side: Side, seen: Observation) -> None:
    """A caller that hangs up while it waits."""
    with Client(side, "main") as client:
        client.send(req("GET", "/"))
        side.upstream.reached(1)
    seen.notes["left"] = "yes"


def in_turn(*paths: str, listener: str = "main") -> Any:
    """One request after the other on one connection; which upstream connection carried each."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, listener) as client:
            for path in paths:
                client.send(req("GET", path))
                seen.responses.append(client.response("GET"))
                pair.pause()
            pair.leave(client, seen)
        first = side.upstream.received[0].connection
        seen.notes["connections"] = " ".join(str(one.connection - first) for one in side.upstream.received)

    return run


def at_once(count: int, path: str) -> Any:
    """Several callers at the same time."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        clients = [Client(side, "main") for _ in range(count)]
        for client in clients:
            client.send(req("GET", path))
        statuses = sorted(client.response("GET").status for client in clients)
        for client in clients:
            client.close()
        seen.notes["statuses"] = str(statuses)
        side.upstream.received = []

    return run


SUITE = Suite(
    bootstrap(
        [http("main", ROUTES, SETTINGS)],
        [
            http2_cluster("a", "up2.a"),
            http2_cluster("narrow", "up2.narrow"),
            http2_cluster("one", "up2.one"),
            http2_cluster("tunnels", "up2.connect"),
            http2_cluster("h1", "h1"),
            http2_cluster("down", "refused.down"),
            http2_cluster("life", "up2.life", options="common_http_protocol_options: {max_stream_duration: 1s}"),
        ],
    ),
    (
        # messages
        Case("h2_get", req("GET", "/p?q=1"), 200, "a", want={"upstream.version": "2"}),
        Case("h2_head", req("HEAD", "/"), 200, "a"),
        Case("h2_options", req("OPTIONS", "/x"), 200, "a"),
        Case("h2_post_length", req("POST", "/", body=b"abcde"), 200, "a", want={"upstream.body": "abcde", "log.rx": "5"}),
        Case("h2_post_empty", req("POST", "/", "content-length: 0"), 200, "a"),
        Case("h2_post_chunked", req("POST", "/", CHUNKED, body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", length=False), 200, "a", want={"upstream.body": "abcde"}),
        Case("h2_request_trailers", req("POST", "/", CHUNKED, "te: trailers", "trailer: x-t", body=b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n", length=False), 200, "a", want={"upstream.trailers.x-t": "1"}),
        Case("h2_post_large", req("POST", "/", body=b"x" * 300_000), 200, "a"),
        Case("h2_post_narrow_windows", req("POST", "/narrow", body=b"x" * 20_000), 200, "narrow"),
        Case("h2_connection_headers", req("GET", "/", "connection: keep-alive, x-hop", "keep-alive: timeout=5", "x-hop: 1", "proxy-connection: keep-alive", "te: gzip, trailers"), 200, "a"),
        Case("h2_te_gzip", req("GET", "/", "te: gzip"), 200, "a"),
        Case("h2_cookies", req("GET", "/", "cookie: a=1", "cookie: b=2; c=3"), 200, "a"),
        Case("h2_repeated_fields", req("GET", "/", "x-a: 1", "x-b: 2", "x-a: 3"), 200, "a"),
        Case("h2_mixed_case_fields", req("GET", "/", "X-Mixed-Case: V"), 200, "a"),
        Case("h2_absolute_form", req("GET", "http://a.test/x"), 200, "a"),
        Case("h2_expect_continue", req("POST", "/", "expect: 100-continue", body=b"abc"), 200, "a"),
        Case("h2_response_trailers", req("GET", "/"), 200, "a", replies=(Reply(framing="stream", trailers=(("x-t", "1"),)),)),
        Case("h2_response_without_length", req("GET", "/"), 200, "a", replies=(Reply(framing="stream"),)),
        Case("h2_response_large", req("GET", "/"), 200, "a", replies=(Reply(body=b"y" * 400_000),)),
        Case("h2_response_empty", req("GET", "/"), 200, "a", replies=(Reply(framing="none"),)),
        Case("h2_response_204", req("GET", "/"), 204, "a", replies=(Reply(status=204, framing="none"),)),
        Case("h2_response_304", req("GET", "/"), 304, "a", replies=(Reply(status=304, framing="none", headers=(("etag", '"x"'),)),)),
        Case("h2_response_fields", req("GET", "/"), 200, "a", replies=(Reply(headers=(("set-cookie", "a=1"), ("set-cookie", "b=2"), ("server", "up"), ("x-a", "1"), ("x-a", "2"))),)),
        Case("h2_early_hints", req("GET", "/"), 200, "a", replies=(Reply(informational=((103, (("link", "</x>"),)),)),), accept={"response.1xx*": "RFC 9110, 15.2: a proxy forwards 1xx answers; Envoy drops all but 100"}),
        Case("h2_status_5xx", req("GET", "/"), 500, "a", replies=(Reply(status=500),)),
        # refused, reset, going away
        Case("h2_refused", req("GET", "/"), 503, "a", replies=(Reply(h2="refuse"),)),
        Case("h2_refused_retried", req("GET", "/retry"), 200, "a", replies=(Reply(h2="refuse"), Reply())),
        Case("h2_refused_too_often", req("GET", "/retry"), 503, "a", replies=(Reply(h2="refuse"),)),
        *(Case(f"h2_reset_{code}", req("GET", "/"), 503, "a", replies=(Reply(h2=f"reset {code}"),)) for code in (0, 2, 8, 10, 11, 99)),
        Case("h2_reset_1", req("GET", "/"), 502, "a", replies=(Reply(h2="reset 1"),)),
        Case("h2_reset_retried", req("GET", "/reset"), 200, "a", replies=(Reply(h2="reset 2"), Reply())),
        Case("h2_reset_after_headers", req("GET", "/"), 200, "a", replies=(Reply(h2="reset_after_headers 2"),)),
        Case("h2_reset_middle", req("GET", "/"), 200, "a", replies=(Reply(h2="reset_middle 2"),)),
        Case("h2_reset_after", req("GET", "/"), 200, "a", replies=(Reply(h2="reset_after 0"),)),
        Case("h2_early_answer", req("POST", "/", "content-length: 10", body=b"abc", length=False), 200, "a", replies=(Reply(early=True),), **CANCELLED),
        Case("h2_close_before", req("GET", "/"), 503, "a", replies=(Reply(ending="close_before"),)),
        Case("h2_close_middle", req("GET", "/"), 200, "a", replies=(Reply(ending="close_middle"),)),
        Case("h2_goaway_unprocessed", req("GET", "/"), None, "a", replies=(Reply(h2="goaway"), Reply()), **MOVED),
        Case("h2_goaway_unprocessed_post", req("POST", "/", body=b"abc"), None, "a", replies=(Reply(h2="goaway"), Reply()), **MOVED),
        Case("h2_goaway_retried", req("GET", "/retry"), 200, "a", replies=(Reply(h2="goaway"), Reply()), **MOVED),
        Case("h2_goaway_error", req("GET", "/"), None, "a", replies=(Reply(h2="goaway 11"), Reply()), **MOVED),
        Case("h2_goaway_first", run=in_turn("/1", "/2"), log=2, replies=(Reply(h2="goaway_first"), Reply()), want={"note.connections": "0 1"}),
        Case("h2_goaway_after", run=in_turn("/1", "/2"), log=2, replies=(Reply(h2="goaway_after"), Reply()), want={"note.connections": "0 1"}),
        Case("h2_reuse", run=in_turn("/1", "/2", "/3"), log=3, want={"note.connections": "0 0 0"}),
        Case("h2_one_stream_at_a_time", run=at_once(4, "/one"), log=4, replies=(Reply(delay=0.1),), **QUEUED),
        Case("h2_timeout", req("GET", "/timeout"), 504, "a", replies=(Reply(delay=LATE),), **CANCELLED),
        Case("h2_life_over", req("GET", "/life"), 504, "life", replies=(Reply(delay=LATE),), **CANCELLED),
        Case("h2_life_over_in_body", req("GET", "/life"), 200, "life", replies=(Reply(body_delay=LATE),), **CANCELLED),
        Case("h2_life_over_retried", req("GET", "/lives"), 200, "life", replies=(Reply(delay=LATE), Reply()), **CANCELLED),
        Case("h2_life_over_while_sending", req("POST", "/life", "content-length: 10", body=b"abc", length=False), 408, replies=(Reply(),), **CANCELLED),
        Case("h2_caller_leaves", run=leave_early, replies=(Reply(delay=LATE),), **CANCELLED),
        Case("h2_refused_connection", req("GET", "/down"), 503, ""),
        Case("h2_endpoint_speaks_http1", req("GET", "/h1"), None),
        # malformed answers
        Case("h2_no_status", req("GET", "/"), None, "a", replies=(raw(frame(1, 5, literal((b"x", b"1")))),)),
        Case("h2_bad_status", req("GET", "/"), None, "a", replies=(raw(frame(1, 5, literal((b":status", b"2x0")))),)),
        Case("h2_upper_case_field", req("GET", "/"), None, "a", replies=(raw(frame(1, 5, literal((b":status", b"200"), (b"X-Up", b"1")))),)),
        Case("h2_connection_field", req("GET", "/"), None, "a", replies=(raw(frame(1, 5, literal((b":status", b"200"), (b"connection", b"close")))),)),
        Case("h2_data_first", req("GET", "/"), None, "a", replies=(raw(frame(0, 1, b"abc")),), **WITHIN_A_STREAM),
        Case("h2_body_shorter_than_length", req("GET", "/"), None, "a", replies=(raw(frame(1, 4, literal((b":status", b"200"), (b"content-length", b"9"))), frame(0, 1, b"abc")),)),
        Case("h2_window_zero_increment", req("GET", "/"), None, "a", replies=(raw(frame(8, 0, bytes(4))),), **WITHIN_A_STREAM),
        Case("h2_push", req("GET", "/"), None, "a", replies=(raw(frame(5, 4, b"\0\0\0\2" + literal((b":method", b"GET")))),)),
        Case("h2_unknown_frame", req("GET", "/"), 200, "a", replies=(raw(frame(0xEE, 0, b"abc"), frame(1, 5, literal((b":status", b"200")))),)),
        # tunnels
        Case("h2_websocket", run=tunnel("main", req("GET", "/tunnels", *WEBSOCKET)), status=101, want={"note.echo": "True", "upstream.method": "CONNECT"}, **HALF_CLOSE),
        Case("h2_websocket_large", run=tunnel("main", req("GET", "/tunnels", *WEBSOCKET), size=300_000), status=101, want={"note.echo": "True"}, **HALF_CLOSE),
        Case("h2_websocket_refused", req("GET", "/tunnels", *WEBSOCKET), 403, "connect", replies=(Reply(status=403),), **CANCELLED),
        Case("h2_websocket_not_offered", req("GET", "/nosettings", *WEBSOCKET), None, **NOT_OFFERED),
        Case("h2_connect", run=tunnel("main", req("CONNECT", "b.test:443", host="b.test:443"), "CONNECT"), status=200, want={"upstream.method": "CONNECT"}, **HALF_CLOSE),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_http2_upstream(pair: Pair, case: Case) -> None:
    pair.check(case)
