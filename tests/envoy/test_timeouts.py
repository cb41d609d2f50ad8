"""Time-outs of the connection manager and the router, with what the client, the upstream and the log see of them."""

import pytest
from parity import LATE, Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /route}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /idle}, route: {cluster: a, timeout: 0s, idle_timeout: 1s}}
- {match: {prefix: /maxstream}, route: {cluster: a, timeout: 0s, max_stream_duration: {max_stream_duration: 1s}}}
- {match: {prefix: /long}, route: {cluster: a, timeout: 20s}}
- {match: {prefix: /none}, route: {cluster: a, timeout: 0s}}
- {match: {prefix: /}, route: {cluster: a}}
"""
QUICK = (0.6, LATE - 5)


def stalled_body(pair: Pair, side: Side, seen: Observation) -> None:
    """Half of the request body, then silence."""
    with Client(side, "idle") as client:
        client.send(req("POST", "/route", "content-length: 10"), b"01234")
        seen.responses.append(client.response("POST"))
        pair.leave(client, seen)


def idle_connection(pair: Pair, side: Side, seen: Observation) -> None:
    """A connection that says nothing at all is closed."""
    with Client(side, "connidle") as client:
        seen.notes["end"] = client.stream.wait_end(20.0)


def idle_after_request(pair: Pair, side: Side, seen: Observation) -> None:
    """Keep-alive ends with the idle time-out after the last answer."""
    with Client(side, "connidle") as client:
        client.send(req("GET", "/"))
        seen.responses.append(client.response())
        seen.notes["end"] = client.stream.wait_end(20.0)


def max_duration(pair: Pair, side: Side, seen: Observation) -> None:
    """A connection may only live so long; a request after that gets `connection: close`, an idle one is closed."""
    with Client(side, "maxlife") as client:
        client.send(req("GET", "/"))
        seen.responses.append(client.response())
        seen.notes["end"] = client.stream.wait_end(20.0)


SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("idle", ROUTES, "stream_idle_timeout: 1s"),
            http("headers", ROUTES, "request_headers_timeout: 1s"),
            http("patient", ROUTES, "request_headers_timeout: 20s"),
            http("request", ROUTES, "request_timeout: 1s"),
            http("connidle", ROUTES, "{drain_timeout: 0.1s, common_http_protocol_options: {idle_timeout: 1s}}"),
            http("maxlife", ROUTES, "{drain_timeout: 0.1s, common_http_protocol_options: {max_connection_duration: 1s}}"),
            http("maxstream", ROUTES, "common_http_protocol_options: {max_stream_duration: 1s}"),
        ],
        [cluster("a", "a")],
    ),
    (
        Case("route_timeout", req("GET", "/route"), 504, replies=(Reply(delay=LATE),), want={"log.flags": "UT", "upstream.outcome": "aborted"}, seconds=QUICK),
        Case("route_timeout_post", req("POST", "/route", body=b"body"), 504, replies=(Reply(delay=LATE),), seconds=QUICK),
        Case("route_timeout_head", req("HEAD", "/route"), 504, replies=(Reply(delay=LATE),), seconds=QUICK),
        Case("route_timeout_not_reached", req("GET", "/long"), 200, replies=(Reply(delay=0.5),)),
        Case("route_timeout_in_body", req("GET", "/route"), 200, replies=(Reply(body_delay=LATE),), want={"log.flags": "UT"}),
        Case("route_timeout_starts_after_the_request", (req("POST", "/route", "content-length: 4"), b"ab", b"cd"), 200),
        Case("no_timeout", req("GET", "/none"), 200, replies=(Reply(delay=0.5),)),
        Case("route_idle_timeout", req("GET", "/idle"), 504, replies=(Reply(delay=LATE),), want={"log.flags": "SI"}, seconds=QUICK),
        Case("route_idle_timeout_in_body", req("GET", "/idle"), 200, replies=(Reply(body_delay=LATE),)),
        Case("stream_idle_timeout", req("GET", "/none"), 504, listener="idle", replies=(Reply(delay=LATE),), want={"log.flags": "SI"}, seconds=QUICK),
        Case("stream_idle_timeout_body", run=stalled_body, status=408, listener="idle", want={"log.details": "stream_idle_timeout"}, seconds=QUICK),
        Case("stream_idle_in_response", req("GET", "/none"), 200, listener="idle", replies=(Reply(body_delay=LATE),)),
        Case("request_headers_timeout", b"GET / HTTP/1.1\r\nhost: a", 408, listener="headers", want={"log.details": "request_header_timeout"}, seconds=QUICK),
        Case("request_headers_in_time", (b"GET / HTTP/1.1\r\nho", b"st: a\r\n\r\n"), 200, listener="patient"),
        Case("request_timeout", req("POST", "/", "content-length: 10"), 408, listener="request", want={"log.details": "request_overall_timeout"}, seconds=QUICK),
        Case("request_timeout_not_the_answer", req("GET", "/"), 200, listener="request", replies=(Reply(delay=1.5),)),
        Case("connection_idle", run=idle_connection, listener="connidle", log=0, want={"note.end": "closed"}, seconds=QUICK),
        Case("connection_idle_after_request", run=idle_after_request, status=200, listener="connidle", want={"note.end": "closed"}, seconds=QUICK),
        Case("connection_idle_does_not_cut_a_request", req("GET", "/"), 200, listener="connidle", replies=(Reply(delay=1.5),)),
        Case("max_connection_duration", run=max_duration, status=200, listener="maxlife", want={"note.end": "closed"}),
        Case("max_stream_duration", req("GET", "/none"), 504, listener="maxstream", replies=(Reply(delay=LATE),), seconds=QUICK),
        Case("max_stream_duration_of_route", req("GET", "/maxstream"), 504, replies=(Reply(delay=LATE),), seconds=QUICK),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_timeout(pair: Pair, case: Case) -> None:
    pair.check(case)
