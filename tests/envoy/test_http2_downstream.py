"""HTTP/2 callers: translation to an HTTP/1 upstream, header rules, errors, resets, ends, logs and counters."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from parity import LATE, Case, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, taken
from parity.http2_caller import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    Caller,
    Script,
    block,
    call,
    data,
    frame,
    head,
    raw_head,
    rst,
)

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /late}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /retry}, route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 1}}}
- {match: {prefix: /old}, redirect: {path_redirect: /new}}
- {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: from the route}}}
- {match: {path: /only}, route: {cluster: a}}
- {match: {prefix: /x}, route: {cluster: a}}
"""
ALL = "- {match: {prefix: /}, route: {cluster: a}}"
TUNNELS = """
- {match: {connect_matcher: {}}, route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}
- {match: {prefix: /}, route: {cluster: a}}
"""
WIRE = {
    "path": "%REQ(:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "wire-rx": "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    "header-rx": "%DOWNSTREAM_HEADER_BYTES_RECEIVED%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
}
KIND = "http2_protocol_options: {override_stream_error_on_invalid_http_message: true}"
SUITE_CONFIG = bootstrap(
    [
        http("main", ROUTES),
        http("kind", ALL, KIND),
        http("h2only", ALL, "codec_type: HTTP2"),
        http("tunnel", TUNNELS, "http2_protocol_options: {allow_connect: true}\nupgrade_configs: [{upgrade_type: websocket}]"),
        http(
            "two",
            ALL,
            "common_http_protocol_options: {max_requests_per_connection: 2}\ndrain_timeout: 0.1s\ndelayed_close_timeout: 0.1s",
        ),
        http("idle", ALL, "stream_idle_timeout: 1s"),
        http("slow", ALL, "request_timeout: 1s"),
        http("short", ALL, "common_http_protocol_options: {max_stream_duration: 1s}"),
        http("quiet", ALL, "common_http_protocol_options: {idle_timeout: 1s}\ndrain_timeout: 0.1s\ndelayed_close_timeout: 0.1s"),
        http("drop", ALL, "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}"),
        http("deny", ALL, "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"),
        http("few", ALL, "common_http_protocol_options: {max_headers_count: 10}"),
        http("streams", ALL, "http2_protocol_options: {max_concurrent_streams: 1}"),
        http("edge", ALL, "use_remote_address: true\nvia: edge\nserver_header_transformation: PASS_THROUGH"),
    ],
    [
        cluster("a", "a", extra="http_protocol_options: {enable_trailers: true}"),
        cluster("refused", "refused.x"),
        cluster("tcp", "tcp.t"),
    ],
)


def on(listener: str, *parts: Any, **more: Any) -> dict[str, Any]:
    """The keyword arguments of a case that calls a listener."""
    return {"run": call(*parts, listener=listener, **more), "listener": listener}


def websocket(stream_id: int, *fields: tuple[str, str]) -> bytes:
    pseudo = (
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.test"),
    )
    return raw_head(stream_id, *pseudo, ("sec-websocket-version", "13"), *fields, end=False)


def tunnel(request: bytes, expected: bytes) -> Script:
    """Open a tunnel, send bytes both ways, end it from the caller's side."""

    def talk(caller: Caller) -> None:
        caller.head_of(1)
        if caller.responses[1].status == 200:
            caller.send(data(1, b"ping"))
            caller.until(lambda: len(caller.responses[1].body) >= len(expected) or 1 in caller.over)
            caller.send(data(1, b"", end=True))
            caller.deadline_s = 8.0  # one of the two may never end it

    return call(request, talk, listener="tunnel")


def pause(caller: Caller) -> None:
    """The proxy must read the pieces one by one."""
    taken(caller.sock)


def reached(count: int = 1) -> Any:
    """So many requests of the case must be at the endpoint before it goes on."""
    return lambda caller: caller.side.upstream.reached(count)


def wait_head(caller: Caller) -> None:
    caller.head_of(1)


def release(caller: Caller) -> None:
    caller.side.upstream.release()


def stats(*names: str) -> Script:
    """Some requests of each kind, then the counters that they made."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        before = side.stats()
        for path in ("/x", "/direct", "/nowhere"):
            call(head(1, path))(pair, side, Observation())
        call(head(1, "/x"), reached(2), rst(1), pause, streams=())(pair, side, Observation())
        call(head(1, "/x", ("connection", "close")), streams=(1,))(pair, side, Observation())
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            now = side.stats()
            if (
                now.get("http.main.downstream_cx_http2_active") == 0
                and now["http.main.downstream_cx_http2_total"] - before.get("http.main.downstream_cx_http2_total", 0) >= 5
            ):
                break
            time.sleep(0.1)
        for name in names:
            seen.notes[name] = str(now.get(name, 0) - before.get(name, 0))

    return run


def refused(pair: Pair, side: Side, seen: Observation) -> None:
    """What streams beyond the limit count as, whether or not the caller could know of it."""
    names = ("http2.stream_refused_errors", "http2.tx_reset", "http.streams.downstream_rq_total")
    before = side.stats()
    call(head(1, "/x"), pause, head(3, "/x"), pause, release, streams=(1, 3), listener="streams")(pair, side, seen)
    side.upstream.released.clear()
    call(head(1, "/x") + head(3, "/x"), pause, release, streams=(1, 3), listener="streams")(pair, side, seen)
    deadline = time.monotonic() + 20
    while True:
        now = side.stats()
        gone = {name: now.get(name, 0) - before.get(name, 0) for name in names}
        if all(value >= 2 for value in gone.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    seen.notes.update({name: str(value) for name, value in gone.items()})


COUNTERS = tuple(
    f"http.main.downstream_{name}"
    for name in (
        "cx_http2_total",
        "cx_http1_total",
        "rq_http2_total",
        "rq_http1_total",
        "rq_total",
        "rq_completed",
        "rq_2xx",
        "rq_4xx",
        "rq_rx_reset",
        "rq_tx_reset",
        "cx_protocol_error",
        "cx_destroy_remote_active_rq",
        "rq_active",
        "cx_http2_active",
    )
) + tuple(f"http2.{name}" for name in ("rx_reset", "tx_reset", "rx_messaging_error", "trailers", "streams_active"))

BODY = (("content-length", "5"),)
CLOSED = {"note.connection": "closed"}
LENGTH = {
    "upstream": "head and body came in one read: the head was not yet on its way when the body turned out to be wrong",
    "log.details": "Envoy calls a reset of its own a remote one",
}
HALF_CLOSE = dict.fromkeys(
    ("note.stream 1", "log.details", "log.flags"), "the tunnel ends when both directions ended, as for HTTP/1 websockets"
)
CASES = (
    # Translation
    Case("h2_get", status=200, to="a", run=call(head(1, "/x"))),
    Case("h2_http2_codec", status=200, to="a", **on("h2only", head(1, "/x"))),
    Case("h2_post", status=200, to="a", run=call(head(1, "/x", *BODY, method="POST", end=False) + data(1, b"hello", end=True))),
    Case("h2_post_unknown_length", status=200, run=call(head(1, "/x", method="POST", end=False) + data(1, b"hello", end=True))),
    Case("h2_post_pieces", status=200, run=call(head(1, "/x", *BODY, method="POST", end=False), pause, data(1, b"he"), pause, data(1, b"llo", end=True))),
    Case("h2_head", status=200, run=call(head(1, "/x", method="HEAD"))),
    Case("h2_delete", status=200, run=call(head(1, "/x", method="DELETE"))),
    Case("h2_options_star", status=404, run=call(head(1, "*", method="OPTIONS"))),
    Case("h2_cookies_joined", status=200, run=call(head(1, "/x", ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")))),
    Case("h2_repeated_fields", status=200, run=call(head(1, "/x", ("x-a", "1"), ("x-a", "2"), ("accept", "a"), ("accept", "b"))), accept={"upstream.headers.accept": "RFC 9110, 5.3: two lines or one say the same"}),
    Case("h2_empty_value", status=200, run=call(head(1, "/x", ("x-empty", "")))),
    Case("h2_te_trailers", status=200, run=call(head(1, "/x", ("te", "trailers")))),
    Case("h2_user_agent", status=200, run=call(head(1, "/x", ("user-agent", "test/1"), ("accept", "*/*")))),
    Case("h2_trailers_up", status=200, run=call(head(1, "/x", method="POST", end=False) + data(1, b"hello") + raw_head(1, ("x-sum", "1")))),
    Case("h2_trailers_only_up", status=200, run=call(head(1, "/x", method="POST", end=False) + raw_head(1, ("x-sum", "1")))),
    Case("h2_trailers_down", status=200, replies=(Reply(framing="chunked", trailers=(("x-sum", "7"),)),), run=call(head(1, "/x"))),
    Case("h2_chunked_down", status=200, replies=(Reply(framing="chunked"),), run=call(head(1, "/x"))),
    Case("h2_close_down", status=200, replies=(Reply(framing="close"),), run=call(head(1, "/x"))),
    Case("h2_no_content", status=204, replies=(Reply(status=204, framing="none", body=b""),), run=call(head(1, "/x"))),
    Case("h2_not_modified", status=304, replies=(Reply(status=304, framing="none", body=b""),), run=call(head(1, "/x"))),
    Case("h2_hop_by_hop_down", status=200, replies=(Reply(headers=(("connection", "keep-alive"), ("keep-alive", "timeout=5"))),), run=call(head(1, "/x"))),
    Case("h2_large_down", status=200, replies=(Reply(body=b"x" * 300_000),), run=call(head(1, "/x"))),
    Case("h2_continuation", status=200, run=call(frame(HEADERS, END_STREAM, 1, block([(":method", "GET"), (":scheme", "http")])) + frame(CONTINUATION, END_HEADERS, 1, block([(":path", "/x"), (":authority", "a.test")])))),
    Case("h2_padded", status=200, run=call(frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, b"\x03" + block([(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")]) + b"\0\0\0"))),
    Case("h2_edge", status=200, **on("edge", head(1, "/x", ("x-forwarded-for", "1.2.3.4")))),
    Case("h2_scheme_https", status=200, run=call(head(1, "/x", scheme="https"))),
    Case("h2_early_data", status=200, replies=(Reply(early=True),), run=call(head(1, "/x", ("content-length", "10"), method="POST", end=False) + data(1, b"hello"))),
    # Authority and Host
    Case("h2_authority_wins", status=200, run=call(head(1, "/x", ("host", "b.test")))),
    Case("h2_host_alone", status=200, run=call(head(1, "/x", ("host", "b.test"), authority=None))),
    # Malformed: the connection ends
    Case("h2_connection_header", want=CLOSED, run=call(head(1, "/x", ("connection", "close")))),
    Case("h2_transfer_encoding", want=CLOSED, run=call(head(1, "/x", ("transfer-encoding", "chunked"), method="POST", end=False))),
    Case("h2_te_gzip", want=CLOSED, run=call(head(1, "/x", ("te", "gzip")))),
    Case("h2_upper_case", want=CLOSED, run=call(head(1, "/x", ("X-Upper", "1")))),
    Case("h2_newline", want=CLOSED, run=call(head(1, "/x", ("x-a", "b\r\nx-c: d")))),
    Case("h2_no_path", want=CLOSED, accept={"log.details": "we do not tell a missing path from a bad one"}, run=call(head(1, None))),
    Case("h2_path_twice", want=CLOSED, run=call(head(1, "/x", (":path", "/y")))),
    Case("h2_pseudo_late", want=CLOSED, run=call(raw_head(1, (":method", "GET"), (":scheme", "http"), ("x-a", "1"), (":path", "/x"), (":authority", "a")))),
    Case("h2_unknown_pseudo", want=CLOSED, run=call(head(1, "/x", (":what", "1")))),
    Case("h2_length_mismatch", accept=LENGTH, run=call(head(1, "/x", *BODY, method="POST", end=False) + data(1, b"hel", end=True))),
    # Malformed: only the stream ends
    Case("h2_kind_connection_header", **on("kind", head(1, "/x", ("connection", "close")) + head(3, "/x"), streams=(1, 3)), log=2),
    Case("h2_kind_upper_case", **on("kind", head(1, "/x", ("X-Upper", "1")) + head(3, "/x"), streams=(1, 3)), log=2),
    Case("h2_kind_length_mismatch", accept=LENGTH, **on("kind", head(1, "/x", *BODY, method="POST", end=False) + data(1, b"hel", end=True))),
    # Limits
    Case("h2_too_many_headers", accept={"note.stream 1": "ENHANCE_YOUR_CALM tells the caller whose fault it was"}, **on("few", head(1, "/x", *((f"x-{n}", "1") for n in range(8))) + head(3, "/x"), streams=(1, 3)), log=2),
    Case("h2_too_large", run=call(head(1, "/x", ("x-large", "x" * 15_000), ("x-l2", "x" * 1000)), wait_head, head(3, "/x", ("x-a", "1")), streams=(1, 3)), log=2),
    Case("h2_underscores_dropped", status=200, **on("drop", head(1, "/x", ("a_b", "1"), ("a-b", "2")))),
    Case("h2_underscores_refused", **on("deny", head(1, "/x", ("a_b", "1")) + head(3, "/x"), streams=(1, 3)), log=2),
    # Answers of the proxy's own
    Case("h2_not_found", status=404, to="", run=call(head(1, "/nowhere"))),
    Case("h2_redirect", status=301, to="", run=call(head(1, "/old"))),
    Case("h2_direct", status=200, to="", run=call(head(1, "/direct"))),
    Case("h2_direct_head", status=200, to="", run=call(head(1, "/direct", method="HEAD"))),
    Case("h2_refused", status=503, to="", run=call(head(1, "/refused"))),
    Case("h2_grpc_refused", status=200, to="", run=call(head(1, "/refused", ("content-type", "application/grpc"), method="POST", end=False) + data(1, b"\0\0\0\0\0", end=True))),
    Case("h2_route_timeout", status=504, replies=(Reply(delay=LATE),), run=call(head(1, "/late"))),
    Case("h2_retry", status=200, replies=(Reply(status=503), Reply()), run=call(head(1, "/retry"))),
    Case("h2_direct_with_body_coming", status=200, run=call(head(1, "/direct", method="POST", end=False))),
    Case("h2_expect_continue", status=200, run=call(head(1, "/x", ("expect", "100-continue"), *BODY, method="POST", end=False), pause, data(1, b"hello", end=True))),
    # Ends
    Case("h2_upstream_resets", status=503, replies=(Reply(ending="reset_before"),), run=call(head(1, "/x"))),
    Case("h2_upstream_closes", status=503, replies=(Reply(ending="close_before"),), run=call(head(1, "/x"))),
    Case("h2_cut_length", status=200, replies=(Reply(ending="close_middle"),), run=call(head(1, "/x"))),
    Case("h2_cut_chunked", status=200, replies=(Reply(ending="close_middle", framing="chunked"),), run=call(head(1, "/x"))),
    Case("h2_bad_response", status=502, replies=(Reply(raw=b"HTTP/1.1 2x0 OK\r\n\r\n"),), run=call(head(1, "/x"))),
    Case("h2_caller_resets", replies=(Reply(delay=LATE),), run=call(head(1, "/x"), reached(), rst(1), pause, streams=())),
    Case("h2_caller_resets_body", replies=(Reply(body=b"x" * 500, body_delay=LATE),), run=call(head(1, "/x"), wait_head, rst(1), streams=(), rest=0.7)),
    Case("h2_caller_resets_no_error", replies=(Reply(delay=LATE),), run=call(head(1, "/x"), reached(), rst(1, 0), pause, streams=())),
    Case("h2_caller_leaves", replies=(Reply(delay=LATE),), run=call(head(1, "/x"), reached(), streams=())),
    Case("h2_stream_idle", status=504, replies=(Reply(delay=LATE),), **on("idle", head(1, "/x"))),
    Case("h2_stream_idle_request", status=408, replies=(Reply(),), **on("idle", head(1, "/x", *BODY, method="POST", end=False))),
    Case("h2_stream_idle_body", status=200, replies=(Reply(body=b"x" * 50, body_delay=LATE),), **on("idle", head(1, "/x"))),
    Case("h2_request_timeout", status=408, **on("slow", head(1, "/x", *BODY, method="POST", end=False))),
    Case("h2_stream_duration", status=504, replies=(Reply(delay=LATE),), **on("short", head(1, "/x"))),
    Case("h2_max_requests", **on("two", head(1, "/x"), wait_head, head(3, "/x"), streams=(1, 3), rest=20.0, goaway=True), log=2, want=CLOSED),
    Case("h2_idle_connection", **on("quiet", head(1, "/x"), streams=(1,), rest=20.0, goaway=True), want=CLOSED),
    # Several streams and the connection
    Case("h2_two_streams", run=call(head(1, "/x") + head(3, "/direct"), streams=(1, 3)), log=2),
    Case("h2_ping_between", status=200, run=call(head(1, "/x", *BODY, method="POST", end=False) + frame(PING, 0, 0, b"12345678") + data(1, b"hello", end=True))),
    Case("h2_goaway_of_caller", status=200, run=call(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)) + head(1, "/x"))),
    Case("h2_too_many_streams", replies=(Reply(held=True),), **on("streams", head(1, "/x"), pause, head(3, "/x"), pause, release, streams=(1, 3)), log=None),
    Case("h2_too_many_streams_stats", replies=(Reply(held=True),), run=refused, listener="streams", log=2),
    # Tunnels
    Case("h2_connect", status=200, run=tunnel(raw_head(1, (":method", "CONNECT"), (":authority", "a.test:443"), end=False), b"t:ping"), listener="tunnel"),
    Case("h2_connect_refused", status=404, run=call(raw_head(1, (":method", "CONNECT"), (":authority", "a.test:443"), end=False))),
    Case("h2_websocket", status=200, replies=(Reply(status=101),), run=tunnel(websocket(1), b"ping"), listener="tunnel", accept=HALF_CLOSE),
    Case("h2_websocket_refused_upstream", status=403, replies=(Reply(status=403),), **on("tunnel", websocket(1))),
    Case("h2_websocket_not_offered", want=CLOSED, run=call(websocket(1))),
    Case("h2_stats", run=stats(*COUNTERS), log=5, replies=(Reply(), Reply(delay=LATE))),
)  # fmt: skip

SUITE = Suite(SUITE_CONFIG, CASES)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_same_as_envoy(pair: Pair, case: Case) -> None:
    pair.check(case)
