"""HTTP/2 callers and HTTP/2 endpoints: bodies, trailers, resets and tunnels from one to the other; the protocol of the request."""

from typing import Any

import pytest
from parity import LATE, Case, Reply, Suite, bootstrap, cluster, http, http2_cluster, req
from parity.http2_caller import Caller, call, data, head, raw_head, rst
from test_http2_downstream import HALF_CLOSE, on, pause, reached, tunnel, wait_head, websocket
from test_http2_upstream import CANCELLED, MOVED

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /retry}, route: {cluster: a, retry_policy: {retry_on: refused-stream, num_retries: 1}}}
- {match: {prefix: /late}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /down}, route: {cluster: down}}
- {match: {prefix: /}, route: {cluster: a}}
"""
TUNNELS = "- {match: {connect_matcher: {}}, route: {cluster: tunnels}}\n- {match: {prefix: /}, route: {cluster: tunnels}}"
SAME = "- {match: {prefix: /two}, route: {cluster: same2}}\n- {match: {prefix: /}, route: {cluster: same1}}"
DOWNSTREAM = "{explicit_http_config: null, use_downstream_protocol_config: {http2_protocol_options: {}}}"
GRPC = ("content-type", "application/grpc")
BODY = (("content-length", "5"),)
CALL = head(1, "/pkg.Service/Method", GRPC, ("te", "trailers"), method="POST", end=False) + data(1, b"\0\0\0\0\0", end=True)
CUT: Any = {"accept": {"upstream.outcome": CANCELLED["accept"]["upstream.outcome"]}}


def grpc(status: str, *, framing: str = "stream") -> Reply:
    return Reply(headers=(GRPC,), framing=framing, body=b"\0\0\0\0\0", trailers=(("grpc-status", status), ("grpc-message", "m")))


def body(size: int) -> Any:
    """Send a body in frames, within the windows that the proxy grants: they are large once its SETTINGS have come."""

    def send(caller: Caller) -> None:
        caller.read()
        for start in range(0, size, 16_384):
            caller.send(data(1, b"x" * min(16_384, size - start)))
        caller.send(data(1, b"", end=True))

    return send


SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("tunnel", TUNNELS, "http2_protocol_options: {allow_connect: true}\nupgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]"),
            http("same", SAME),
        ],
        [
            http2_cluster("a", "up2.a"),
            http2_cluster("tunnels", "up2.connect"),
            http2_cluster("down", "refused.down"),
            http2_cluster("same2", "up2.same", options=DOWNSTREAM),
            http2_cluster("same1", "same", options=DOWNSTREAM),
            cluster("unused", "unused"),
        ],
    ),
    (
        # messages
        Case("both_get", status=200, to="a", run=call(head(1, "/p?q=1"))),
        Case("both_head", status=200, run=call(head(1, "/", method="HEAD"))),
        Case("both_post", status=200, want={"upstream.body": "hello"}, run=call(head(1, "/", *BODY, method="POST", end=False) + data(1, b"hello", end=True))),
        Case("both_post_unknown_length", status=200, want={"upstream.body": "hello"}, run=call(head(1, "/", method="POST", end=False) + data(1, b"hello", end=True))),
        Case("both_post_large", status=200, run=call(head(1, "/", method="POST", end=False), body(300_000))),
        Case("both_response_large", status=200, replies=(Reply(body=b"y" * 400_000),), run=call(head(1, "/"))),
        Case("both_request_trailers", status=200, want={"upstream.trailers.x-sum": "1"}, run=call(head(1, "/", method="POST", end=False) + data(1, b"hello") + raw_head(1, ("x-sum", "1")))),
        Case("both_response_trailers", status=200, want={"response.trailers.x-sum": "7"}, replies=(Reply(framing="stream", trailers=(("x-sum", "7"),)),), run=call(head(1, "/"))),
        Case("both_cookies", status=200, run=call(head(1, "/", ("cookie", "a=1"), ("cookie", "b=2"))), accept={"upstream.headers.cookie": "RFC 9113, 8.2.3: crumbs are joined or apart"}),
        Case("both_te", status=200, run=call(head(1, "/", ("te", "trailers")))),
        Case("both_early_hints", status=200, replies=(Reply(informational=((103, (("link", "</x>"),)),)),), run=call(head(1, "/")), accept={"response.1xx*": "RFC 9110, 15.2: a proxy forwards 1xx answers; Envoy drops all but 100"}),
        Case("both_no_content", status=204, replies=(Reply(status=204, framing="none"),), run=call(head(1, "/"))),
        Case("both_streams", log=2, run=call(head(1, "/") + head(3, "/"), streams=(1, 3))),
        # gRPC
        Case("both_grpc", status=200, want={"response.trailers.grpc-status": "0"}, replies=(grpc("0"),), run=call(CALL)),
        Case("both_grpc_error", status=200, replies=(grpc("13"),), run=call(CALL)),
        Case("both_grpc_trailers_only", status=200, replies=(Reply(headers=(GRPC, ("grpc-status", "12")), framing="none"),), run=call(CALL)),
        Case("both_grpc_reset", status=200, replies=(Reply(h2="reset 2"),), run=call(CALL)),
        Case("both_grpc_refused_connection", status=200, run=call(head(1, "/down", GRPC, method="POST", end=False) + data(1, b"", end=True))),
        # ends
        *(Case(f"both_reset_{code}", status=503, replies=(Reply(h2=f"reset {code}"),), run=call(head(1, "/"))) for code in (0, 2, 7, 11)),
        Case("both_reset_after_headers", status=200, replies=(Reply(h2="reset_after_headers 2"),), run=call(head(1, "/"))),
        Case("both_reset_middle", status=200, replies=(Reply(h2="reset_middle 2"),), run=call(head(1, "/"))),
        Case("both_refused_retried", status=200, replies=(Reply(h2="refuse"), Reply()), run=call(head(1, "/retry"))),
        Case("both_goaway", replies=(Reply(h2="goaway"), Reply()), run=call(head(1, "/")), **MOVED),
        Case("both_goaway_post", replies=(Reply(h2="goaway"), Reply()), run=call(head(1, "/", method="POST", end=False) + data(1, b"hello", end=True)), **MOVED),
        Case("both_close_before", status=503, replies=(Reply(ending="close_before"),), run=call(head(1, "/"))),
        Case("both_close_middle", status=200, replies=(Reply(ending="close_middle"),), run=call(head(1, "/"))),
        Case("both_timeout", status=504, replies=(Reply(delay=LATE),), run=call(head(1, "/late")), **CANCELLED),
        Case("both_caller_resets", replies=(Reply(delay=LATE),), run=call(head(1, "/"), reached(), rst(1), pause, streams=()), **CANCELLED),
        Case("both_caller_resets_body", replies=(Reply(body=b"x" * 500, body_delay=LATE),), run=call(head(1, "/"), wait_head, rst(1), pause, streams=()), **CUT),
        Case("both_caller_leaves", replies=(Reply(delay=LATE),), run=call(head(1, "/"), reached(), streams=()), **CANCELLED),
        Case("both_early_answer", status=200, replies=(Reply(early=True),), run=call(head(1, "/", ("content-length", "10"), method="POST", end=False) + data(1, b"hello")), **CANCELLED),
        # tunnels
        Case("both_websocket", status=200, run=tunnel(websocket(1), b"ping"), listener="tunnel", accept={**HALF_CLOSE, "upstream.outcome": "half-close"}),
        Case("both_websocket_refused", status=403, replies=(Reply(status=403),), **on("tunnel", websocket(1)), **CUT),
        Case("both_connect", status=200, run=tunnel(raw_head(1, (":method", "CONNECT"), (":authority", "a.test:443"), end=False), b"ping"), listener="tunnel", accept={**HALF_CLOSE, "upstream.outcome": "half-close"}),
        # the protocol of the request
        Case("same_http2", status=200, to="same", want={"upstream.version": "2"}, **on("same", head(1, "/two"))),
        Case("same_http1", req("GET", "/"), 200, "same", want={"upstream.version": "1.1"}, listener="same"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_same_as_envoy(pair: Any, case: Case) -> None:
    pair.check(case)
