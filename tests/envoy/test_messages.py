"""HTTP/1.1 messages through the proxy: framing, HEAD, 204, 304, 1xx, expectations, trailers, pipelining, early answers, keep-alive."""

import pytest
from parity import LATE, Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /}, route: {cluster: a}}
"""
HINTS = ((103, (("link", "</x>; rel=preload"),)),)
CHUNKED = "transfer-encoding: chunked"
BIG = b"0123456789abcdef" * 8192


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n" + trailers + b"\r\n"


def keep_alive(pair: Pair, side: Side, seen: Observation) -> None:
    """Three requests over one downstream connection share one upstream connection."""
    with Client(side, "main") as client:
        for i in range(3):
            client.send(req("GET", f"/{i}"))
            seen.responses.append(client.response())
        pair.leave(client, seen)
    connections = {one.connection for one in side.upstream.finish()}
    seen.notes["upstream connections"] = str(len(connections))


def upstream_says_close(pair: Pair, side: Side, seen: Observation) -> None:
    """An upstream `connection: close` ends that connection only."""
    with Client(side, "main") as client:
        for i in range(2):
            client.send(req("GET", f"/{i}"))
            seen.responses.append(client.response())
        pair.leave(client, seen)
    first, second = side.upstream.finish()
    seen.notes["upstream connections"] = "two" if first.connection != second.connection else "one"


def half_close_after_request(pair: Pair, side: Side, seen: Observation) -> None:
    """A client that ends its side after the request."""
    with Client(side, "main") as client:
        client.send(req("GET", "/half"))
        side.upstream.reached(1)
        client.half_close()
        seen.responses.append(client.response())
        pair.leave(client, seen, 1.0)


def client_leaves(pair: Pair, side: Side, seen: Observation) -> None:
    """A client that goes away while the upstream thinks: the upstream request is dropped, the log says DC."""
    with Client(side, "main") as client:
        client.send(req("GET", "/leave"))
        side.upstream.reached(1)


def expect_then_body(pair: Pair, side: Side, seen: Observation) -> None:
    """Wait for the 100 before the body."""
    with Client(side, "main") as client:
        client.send(req("POST", "/expect", "expect: 100-continue", "content-length: 4"))
        seen.notes["first"] = client.stream.until(b"\r\n\r\n").decode().split("\r\n")[0]
        client.send(b"body")
        seen.responses.append(client.response("POST"))
        pair.leave(client, seen)


def many_on_one(pair: Pair, side: Side, seen: Observation) -> None:
    """Fifty pipelined requests: every answer, in order."""
    with Client(side, "main") as client:
        client.send(b"".join(req("GET", f"/{i}") for i in range(50)))
        answers = [client.response() for _ in range(50)]
        seen.responses.append(answers[-1])
        pair.leave(client, seen)
    seen.notes["statuses"] = str({a.status for a in answers})
    seen.notes["order"] = str([one.target for one in side.upstream.finish()] == [f"/{i}" for i in range(50)])
    side.upstream.received.clear()


SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("nocont", ROUTES, "proxy_100_continue: true"),
            http("trailers", ROUTES, "http_protocol_options: {enable_trailers: true}"),
            http("onlyone", ROUTES, "common_http_protocol_options: {max_requests_per_connection: 1}"),
        ],
        [
            cluster("a", "a"),
        ],
    ),
    (
        Case("get", req("GET", "/"), 200, "a"),
        Case("get_with_body", req("GET", "/", body=b"odd"), 200, "a", want={"upstream.body": "odd"}),
        Case("post", req("POST", "/", body=b"hello"), 200, want={"upstream.body": "hello", "upstream.headers.content-length": "5"}),
        Case("post_empty", req("POST", "/", "content-length: 0"), 200, want={"upstream.headers.content-length": "0"}),
        Case("post_without_length", req("POST", "/"), 200),
        Case("post_large", req("POST", "/", body=BIG), 200, want={"log.rx": str(len(BIG))}),
        Case("post_in_pieces", (req("POST", "/", "content-length: 10"), b"01234", b"56789"), 200, want={"upstream.body": "0123456789"}),
        Case("head_in_pieces", (b"GET / HT", b"TP/1.1\r\nho", b"st: a.test\r", b"\n\r", b"\n"), 200),
        Case("post_chunked", req("POST", "/", CHUNKED) + chunked(b"abc", b"defg"), 200, want={"upstream.body": "abcdefg"}),
        Case("post_chunked_empty", req("POST", "/", CHUNKED) + chunked(), 200),
        Case("post_chunked_extension", req("POST", "/", CHUNKED) + b"3;x=y\r\nabc\r\n0;last\r\n\r\n", 200, want={"upstream.body": "abc"}),
        Case("post_chunked_upper_hex", req("POST", "/", CHUNKED) + b"00A\r\n0123456789\r\n000\r\n\r\n", 200),
        Case("post_chunked_trailers_dropped", req("POST", "/", CHUNKED, "trailer: x-t") + chunked(b"abc", trailers=b"x-t: 1\r\n"), 200),
        Case("post_chunked_trailers", req("POST", "/", CHUNKED, "trailer: x-t") + chunked(b"abc", trailers=b"X-T: 1\r\n"), 200, listener="trailers"),
        Case("put_patch_delete_options", req("DELETE", "/d") + req("OPTIONS", "/o") + req("PATCH", "/p", body=b"p") + req("PUT", "/q", body=b"q"), 200, methods=("DELETE", "OPTIONS", "PATCH", "PUT")),
        Case("unusual_method", req("PROPFIND", "/"), 200, want={"upstream.method": "PROPFIND"}),
        Case("unknown_method", req("BREW", "/pot"), None),
        Case("trace", req("TRACE", "/"), None),
        Case("head", req("HEAD", "/"), 200, want={"response.headers.content-length": "12"}),
        Case("head_without_length", req("HEAD", "/"), 200, replies=(Reply(framing="none"),)),
        Case("head_chunked", req("HEAD", "/"), 200, replies=(Reply(framing="chunked"),)),
        Case("head_then_get", req("HEAD", "/1") + req("GET", "/2"), 200, methods=("HEAD", "GET"), want={"response[1].body": "hello from a"}),
        Case("no_content", req("GET", "/"), 204, replies=(Reply(status=204, framing="none"),)),
        Case("not_modified", req("GET", "/"), 304, replies=(Reply(status=304, framing="none", headers=(("etag", '"1"'),)),)),
        Case("not_modified_with_length", req("GET", "/"), 304, replies=(Reply(status=304, raw=b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n"),)),
        Case("no_content_with_length", req("GET", "/"), 204, replies=(Reply(status=204, raw=b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"),)),
        Case("empty_body", req("GET", "/"), 200, replies=(Reply(body=b""),)),
        Case("response_chunked", req("GET", "/"), 200, replies=(Reply(framing="chunked"),), want={"response.headers.transfer-encoding": "chunked"}),
        Case("response_chunked_empty", req("GET", "/"), 200, replies=(Reply(framing="chunked", body=b""),)),
        Case("response_trailers_dropped", req("GET", "/", "te: trailers"), 200, replies=(Reply(framing="chunked", trailers=(("x-t", "1"),)),)),
        Case("response_until_close", req("GET", "/"), 200, replies=(Reply(framing="close"),)),
        Case("response_large", req("GET", "/"), 200, replies=(Reply(body=BIG),), want={"log.tx": str(len(BIG))}),
        Case("response_large_chunked", req("GET", "/"), 200, replies=(Reply(body=BIG, framing="chunked"),)),
        Case("response_large_until_close", req("GET", "/"), 200, replies=(Reply(body=BIG, framing="close"),)),
        Case("response_slow_body", req("GET", "/"), 200, replies=(Reply(body_delay=0.05),)),
        Case("response_odd_status", req("GET", "/"), 299, replies=(Reply(status=299),)),
        Case("response_reason_is_replaced", req("GET", "/"), 200, replies=(Reply(raw=b"HTTP/1.1 200 Fabulous\r\ncontent-length: 0\r\n\r\n"),)),
        Case("response_without_reason", req("GET", "/"), 200, replies=(Reply(raw=b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"),)),
        Case("response_http_10", req("GET", "/"), 200, replies=(Reply(raw=b"HTTP/1.0 200 OK\r\n\r\nbody", ending="close"),)),
        Case("response_404_passes", req("GET", "/"), 404, replies=(Reply(status=404, body=b"not here"),), want={"log.details": "via_upstream"}),
        Case("response_503_passes", req("GET", "/"), 503, replies=(Reply(status=503),), want={"log.flags": "-"}),
        Case("early_hints", req("GET", "/"), 200, replies=(Reply(informational=HINTS),)),
        Case("early_hints_proxied", req("GET", "/"), 200, listener="nocont", replies=(Reply(informational=HINTS),)),
        Case("processing", req("GET", "/"), 200, replies=(Reply(informational=((102, ()),)),)),
        Case("unasked_continue", req("POST", "/", body=b"x"), 200, replies=(Reply(informational=((100, ()),)),)),
        Case("unasked_continue_proxied", req("POST", "/", body=b"x"), 200, listener="nocont", replies=(Reply(informational=((100, ()),)),)),
        Case("expect_continue", status=200, run=expect_then_body, want={"note.first": "HTTP/1.1 100 Continue"}),
        Case("expect_continue_whole", req("POST", "/", "expect: 100-continue", body=b"body"), 200, replies=(Reply(expect_continue=False),)),
        Case("expect_continue_by_upstream", req("POST", "/", "expect: 100-continue", body=b"body"), 200, listener="nocont"),
        Case("expect_continue_refused", req("POST", "/", "expect: 100-continue", "content-length: 4"), 417, methods=("POST",), listener="nocont", replies=(Reply(status=417, early=True),)),
        Case("expect_unknown", req("POST", "/", "expect: 200-ok", body=b"body"), None),
        Case("early_response", (req("POST", "/", "content-length: 100000"), b"x" * 10), 413, replies=(Reply(status=413, early=True),)),
        Case("pipelined", req("GET", "/1") + req("GET", "/2") + req("POST", "/3", body=b"3"), 200, methods=("GET", "GET", "POST"), want={"upstream[2].target": "/3"}),
        Case("pipelined_slow_first", req("GET", "/1") + req("GET", "/2"), 200, methods=("GET", "GET"), replies=(Reply(delay=0.05), Reply())),
        Case("pipelined_after_close", req("GET", "/1", "connection: close") + req("GET", "/2"), 200, methods=("GET",)),
        Case("pipelined_fifty", status=200, run=many_on_one, log=50, want={"note.order": "True"}),
        Case("leading_empty_line", b"\r\n" + req("GET", "/"), 200, methods=("GET",)),
        Case("connection_close", req("GET", "/", "connection: close"), 200, want={"end": "closed"}),
        Case("connection_close_upper_case", req("GET", "/", "Connection: Close"), 200, want={"end": "closed"}),
        Case("keep_alive", status=200, run=keep_alive, log=3, want={"note.upstream connections": "1"}),
        Case("upstream_connection_close", status=200, run=upstream_says_close, log=2, replies=(Reply(headers=(("connection", "close"),), ending="close"), Reply())),
        Case("max_requests_per_connection", req("GET", "/"), 200, listener="onlyone"),
        Case("client_half_close", run=half_close_after_request, replies=(Reply(delay=0.5),)),
        Case("client_leaves", run=client_leaves, replies=(Reply(delay=LATE),), want={"log.flags": "DC", "upstream.outcome": "aborted"}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_message(pair: Pair, case: Case) -> None:
    pair.check(case)
