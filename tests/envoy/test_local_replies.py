"""Answers that the proxy makes itself: status, body, response flag and details for each way in which a request can fail."""

from typing import Any

import pytest
from parity import LATE, Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /nocluster}, route: {cluster_header: x-c}}
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /blackhole}, route: {cluster: blackhole}}
- {match: {prefix: /slow}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /pertry}, route: {cluster: a, retry_policy: {per_try_timeout: 1s}}}
- {match: {prefix: /norequests}, route: {cluster: full}}
- {match: {prefix: /maintenance}, route: {cluster: maintenance}}
- {match: {prefix: /up}, route: {cluster: a}}
"""


def bad(name: str, raw: bytes, status: int, details: str = "", **more: Any) -> Case:
    """Bytes that the codec refuses."""
    want = {"log.details": details} if details else {}
    return Case(name, raw, status, "", want=want, **more)


SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("small", ROUTES, "max_request_headers_kb: 4"),
            http("few", ROUTES, "common_http_protocol_options: {max_headers_count: 10}"),
            http("http10", ROUTES, "http_protocol_options: {accept_http_10: true, default_host_for_http_10: ten.test}"),
        ],
        [
            cluster("a", "a"),
            cluster("empty"),
            cluster("refused", "refused.r"),
            cluster("blackhole", "blackhole.b", extra="connect_timeout: 1s"),
            cluster("full", "b", extra="circuit_breakers: {thresholds: [{max_requests: 0}]}"),
            cluster("maintenance", "b"),
        ],
        "layered_runtime: {layers: [{name: s, static_layer: {upstream.maintenance_mode.maintenance: 100}}]}",
    ),
    (
        Case("no_route", req("GET", "/none"), 404, "", want={"log.flags": "NR", "log.details": "route_not_found"}),
        Case("no_cluster", req("GET", "/nocluster", "x-c: none"), 503, "", want={"log.flags": "NC", "log.details": "cluster_not_found"}),
        Case("no_endpoint", req("GET", "/empty"), 503, "", want={"log.flags": "UH", "response.body": "no healthy upstream"}),
        Case("connection_refused", req("GET", "/refused"), 503, "", want={"log.flags": "UF"}),
        Case("connect_timeout", req("GET", "/blackhole"), 503, "", want={"log.flags": "UF"}, seconds=(0.6, LATE - 5)),
        Case("reset_before_answer", req("GET", "/up"), 503, replies=(Reply(ending="reset_before"),), want={"log.flags": "UC"}),
        Case("close_before_answer", req("GET", "/up"), 503, replies=(Reply(ending="close_before"),), want={"log.flags": "UC"}),
        Case("close_in_body", req("GET", "/up"), 200, replies=(Reply(ending="close_middle"),), want={"log.flags": "UPE"}),
        Case("reset_in_body", req("GET", "/up"), 200, replies=(Reply(ending="reset_middle", body_delay=0.05),), want={"log.flags": "UPE"}),
        Case("close_in_chunked_body", req("GET", "/up"), 200, replies=(Reply(ending="close_middle", framing="chunked"),)),
        Case("overflow", req("GET", "/norequests"), 503, "", want={"log.flags": "UO", "response.headers.x-envoy-overloaded": "true"}),
        Case("maintenance", req("GET", "/maintenance"), 503, "", want={"log.details": "maintenance_mode"}),
        Case("upstream_timeout", req("GET", "/slow"), 504, replies=(Reply(delay=LATE),), want={"log.flags": "UT", "response.body": "upstream request timeout"}, seconds=(0.6, LATE - 5)),
        Case("per_try_timeout", req("GET", "/pertry"), 504, replies=(Reply(delay=LATE),), want={"log.details": "upstream_per_try_timeout"}, seconds=(0.6, LATE - 5)),
        Case("timeout_in_body", req("GET", "/slow"), 200, replies=(Reply(body_delay=LATE),), want={"log.details": "response_timeout"}),
        Case("head_no_route", req("HEAD", "/none"), 404, ""),
        Case("head_refused", req("HEAD", "/refused"), 503, "", want={"response.body": ""}),
        Case("post_refused", req("POST", "/refused", body=b"x" * 100), 503, ""),
        Case("post_no_route", req("POST", "/none", body=b"x" * 1000), 404, ""),
        Case("grpc_no_route", req("POST", "/none", "content-type: application/grpc"), 200, "", want={"response.headers.grpc-status": "12"}),
        Case("grpc_refused", req("POST", "/refused", "content-type: application/grpc+x"), 200, "", want={"response.headers.grpc-status": "14"}),
        Case("garbage_from_upstream", req("GET", "/up"), None, replies=(Reply(raw=b"garbage\r\n\r\n", ending="close"),), want={"log.flags": "UPE"}),
        Case("bad_status_from_upstream", req("GET", "/up"), None, replies=(Reply(raw=b"HTTP/1.1 abc OK\r\n\r\n", ending="close"),)),
        Case("both_lengths_from_upstream", req("GET", "/up"), None, replies=(Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", ending="close"),)),
        Case("bad_chunk_from_upstream", req("GET", "/up"), None, replies=(Reply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n", ending="close"),)),
        Case("two_lengths_from_upstream", req("GET", "/up"), None, replies=(Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", ending="close"),)),
        Case("excess_from_upstream", req("GET", "/up"), 200, replies=(Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),)),
        bad("bad_first_line", b"GARBAGE\r\n\r\n", 400),
        bad("bad_method", b"G@T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        bad("bad_version", b"GET / HTTP/9.9\r\nhost: a\r\n\r\n", 426),
        bad("http_10_refused", b"GET /up HTTP/1.0\r\nhost: a\r\n\r\n", 426),
        bad("http_09_refused", b"GET /up\r\n\r\n", 426),
        bad("length_and_chunked", b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        bad("unknown_coding", b"POST /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        bad("bad_length", b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", 400),
        bad("two_lengths", b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400),
        bad("nul_in_value", b"GET /up HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", 400),
        bad("space_before_colon", b"GET /up HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n", 400),
        bad("bad_name", b"GET /up HTTP/1.1\r\nhost: a\r\nx(y): b\r\n\r\n", 400),
        bad("no_colon", b"GET /up HTTP/1.1\r\nhost: a\r\nxyz\r\n\r\n", 400),
        bad("bad_host", req("GET", "/up", host="a b"), 400),
        bad("headers_too_large", req("GET", "/up", "x-big: " + "b" * 5000), 431, listener="small"),
        bad("headers_too_large_default", req("GET", "/up", "x-big: " + "b" * 70000), 431),
        bad("too_many_headers", req("GET", "/up", *(f"x-{i}: 1" for i in range(20))), 431, listener="few"),
        bad("uri_too_large", req("GET", "/up" + "u" * 5000), 431, listener="small"),
        Case("http_10", b"GET /up HTTP/1.0\r\n\r\n", 200, "a", listener="http10", want={"upstream.headers.host": "ten.test"}),
        Case("http_10_keep_alive", b"GET /up HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", 200, "a", listener="http10"),
        Case("http_10_chunked_upstream", b"GET /up HTTP/1.0\r\nhost: a\r\n\r\n", 200, "a", listener="http10", replies=(Reply(framing="chunked"),)),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_local_reply(pair: Pair, case: Case) -> None:
    pair.check(case)
