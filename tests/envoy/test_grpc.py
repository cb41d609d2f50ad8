"""gRPC semantics of the router, spoken over HTTP/1 with trailers: statuses of local replies, time-outs, retries, logs."""

import pytest
from parity import LATE, Case, Pair, Reply, Suite, bootstrap, cluster, req
from parity.case import Observation
from parity.config import LOG_OPERATORS, file_log, hcm, listener
from parity.proxy import Side

pytestmark = pytest.mark.envoy

POLICY = "num_retries: 1, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}"
ROUTES = f"""
- {{match: {{prefix: /r400}}, direct_response: {{status: 400, body: {{inline_string: "bad"}}}}}}
- {{match: {{prefix: /r401}}, direct_response: {{status: 401}}}}
- {{match: {{prefix: /r403}}, direct_response: {{status: 403}}}}
- {{match: {{prefix: /r418}}, direct_response: {{status: 418, body: {{inline_string: "50% tea\\n\\u00e9 done"}}}}}}
- {{match: {{prefix: /r429}}, direct_response: {{status: 429}}}}
- {{match: {{prefix: /r500}}, direct_response: {{status: 500}}}}
- {{match: {{prefix: /r200}}, direct_response: {{status: 200, body: {{inline_string: "fine"}}}}}}
- {{match: {{prefix: /redirect}}, redirect: {{path_redirect: /x}}}}
- {{match: {{prefix: /onlygrpc, grpc: {{}}}}, route: {{cluster: a}}}}
- {{match: {{prefix: /empty}}, route: {{cluster: empty}}}}
- {{match: {{prefix: /refused}}, route: {{cluster: refused}}}}
- {{match: {{prefix: /nocluster}}, route: {{cluster_header: x-cluster}}}}
- {{match: {{prefix: /slow}}, route: {{cluster: a, timeout: 1s}}}}
- {{match: {{prefix: /oldmax0}}, route: {{cluster: a, timeout: 60s, max_grpc_timeout: 0s}}}}
- {{match: {{prefix: /oldmax}}, route: {{cluster: a, timeout: 60s, max_grpc_timeout: 30s}}}}
- {{match: {{prefix: /oldshort}}, route: {{cluster: a, timeout: 60s, max_grpc_timeout: 1s}}}}
- {{match: {{prefix: /oldoffset}}, route: {{cluster: a, timeout: 60s, max_grpc_timeout: 0s, grpc_timeout_offset: 20s}}}}
- {{match: {{prefix: /oldtry}}, route: {{cluster: a, timeout: 60s, max_grpc_timeout: 40s, retry_policy: {{retry_on: "5xx", per_try_timeout: 20s, {POLICY}}}}}}}
- {{match: {{prefix: /newmax0}}, route: {{cluster: a, timeout: 0.1s, max_stream_duration: {{grpc_timeout_header_max: 0s}}}}}}
- {{match: {{prefix: /newmax}}, route: {{cluster: a, max_stream_duration: {{grpc_timeout_header_max: 30s}}}}}}
- {{match: {{prefix: /newshort}}, route: {{cluster: a, max_stream_duration: {{grpc_timeout_header_max: 1s}}}}}}
- {{match: {{prefix: /newoffset}}, route: {{cluster: a, max_stream_duration: {{grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 20s}}}}}}
- {{match: {{prefix: /duration}}, route: {{cluster: a, max_stream_duration: {{max_stream_duration: 30s}}}}}}
- {{match: {{prefix: /shortduration}}, route: {{cluster: a, max_stream_duration: {{max_stream_duration: 1s}}}}}}
- {{match: {{prefix: /both}}, route: {{cluster: a, max_grpc_timeout: 20s, max_stream_duration: {{max_stream_duration: 30s, grpc_timeout_header_max: 40s}}}}}}
- {{match: {{prefix: /retry}}, route: {{cluster: a, retry_policy: {{retry_on: "unavailable,cancelled,deadline-exceeded,internal,resource-exhausted", {POLICY}}}}}}}
- {{match: {{prefix: /onlyunavailable}}, route: {{cluster: a, retry_policy: {{retry_on: "unavailable", {POLICY}}}}}}}
- {{match: {{prefix: /judged}}, route: {{cluster: judged}}}}
- {{match: {{prefix: /}}, route: {{cluster: a}}}}
"""
OPERATORS = LOG_OPERATORS | {
    "grpc": "%GRPC_STATUS%",
    "grpc-snake": "%GRPC_STATUS(SNAKE_STRING)%",
    "grpc-camel": "%GRPC_STATUS(CAMEL_STRING)%",
    "grpc-number": "%GRPC_STATUS_NUMBER%",
    "rx-trailer": "%TRAILER(grpc-message)%",
}
TRAILERS = "http_protocol_options: {enable_trailers: true}"
INTERNAL = "{use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}, http_protocol_options: {enable_trailers: true}}"
UPSTREAM_TRAILERS = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {enable_trailers: true}}
"""
GRPC = ("content-type", "application/grpc")
MESSAGE = b"\0\0\0\0\2hi"


def call(path: str, *headers: str, kind: str = "application/grpc", body: bytes = MESSAGE) -> bytes:
    return req("POST", path, f"content-type: {kind}", "te: trailers", *headers, body=body)


def ok(status: str = "0", **more: str) -> Reply:
    return Reply(
        headers=(GRPC,),
        body=MESSAGE,
        framing="chunked",
        trailers=(("grpc-status", status), *((k.replace("_", "-"), v) for k, v in more.items())),
    )


def only(status: str, **more: str) -> Reply:
    """Trailers-only: the status stands in the head."""
    return Reply(headers=(GRPC, ("grpc-status", status), *((k.replace("_", "-"), v) for k, v in more.items())), body=b"")


def local(name: str, path: str, status: str, **want: object) -> Case:
    """A reply of the proxy's own: always 200, with this gRPC status."""
    more = {
        f"response.headers.{k.replace('_', '-')}": str(v)
        for k, v in want.items()
        if k not in ("listener", "send", "replies", "accept", "seconds", "to")
    }
    rest = {k: v for k, v in want.items() if k in ("listener", "replies", "accept", "seconds")}
    return Case(
        name,
        want.get("send", call(path)),
        200,
        want.get("to", ""),
        want={"response.headers.grpc-status": status, "log.grpc-number": status, **more},
        **rest,
    )


def timed(name: str, path: str, header: str | None, sent: str | None, **more: object) -> Case:
    """What the upstream gets as grpc-timeout for what the caller sent."""
    headers = () if header is None else (f"grpc-timeout: {header}",)
    want = {} if sent is None else {"upstream.headers.grpc-timeout": sent}
    return Case(name, call(path, *headers), 200, "a", want=want, replies=(ok(),), **more)


def late(name: str, path: str, header: str | None, status: str, kind: str = "application/grpc") -> Case:
    headers = () if header is None else (f"grpc-timeout: {header}",)
    return Case(
        name,
        call(path, *headers, kind=kind),
        200 if kind.endswith("grpc") else None,
        want={"response.headers.grpc-status": status} if kind.endswith("grpc") else {},
        replies=(Reply(delay=LATE),),
        seconds=(0.5, LATE - 1),
    )


LATE_MS = {"upstream[[]1].headers.grpc-timeout": "what is left of it is counted from a moment of the proxy's own"}


def filtered(exclude: bool) -> object:
    return file_log(f"$(dir)/{'without' if exclude else 'with'}.log", OPERATORS) | {
        "filter": {"grpc_status_filter": {"statuses": ["UNAVAILABLE", "CANCELED"], "exclude": exclude}}
    }


def manager(name: str, settings: str = TRAILERS) -> object:
    return listener(name, hcm(name, ROUTES, settings, log=[file_log(f"$(dir)/{name}.log", OPERATORS)]))


def judged(pair: Pair, side: Side, seen: Observation) -> None:
    """What calls came to, by the endpoint's counts and by outlier detection: two failures in a row eject."""
    replies = (
        ok(), ok("14"), ok("5"), only("0"), only("14"), only("12"), only("7"), only("x"), Reply(headers=(GRPC,), body=MESSAGE),
        Reply(headers=(GRPC,), body=b""), Reply(), Reply(status=404), only("13"), only("2"), ok("13"),
    )  # fmt: skip
    for reply in replies:
        side.upstream.begin((reply,))
        pair.talk(side, seen, call("/judged"))
    for line in side.admin("/clusters").body.decode().splitlines():
        if line.startswith("judged::127") and any(
            word in line for word in ("::rq_success::", "::rq_error::", "::health_flags::")
        ):
            seen.notes[line.rpartition("::")[0]] = line.rpartition("::")[2]
    for key, value in side.stats().items():
        if key.startswith("cluster.judged.outlier_detection.") and value:
            seen.notes[key] = str(value)


SUITE = Suite(
    bootstrap(
        [
            manager("main"),
            manager("internal", INTERNAL),
            listener("with", hcm("with", ROUTES, TRAILERS, log=[filtered(False)])),
            listener("without", hcm("without", ROUTES, TRAILERS, log=[filtered(True)])),
        ],
        [
            cluster("a", "a", extra=UPSTREAM_TRAILERS),
            cluster(
                "judged",
                "a",
                extra=UPSTREAM_TRAILERS + "outlier_detection: {consecutive_5xx: 2, interval: 60s, max_ejection_percent: 100}",
            ),
            cluster("empty"), cluster("refused", "refused.r"),
        ],
    ),
    (
        # Local replies: 200, and the status in the head.
        local("reply_400", "/r400", "13", grpc_message="bad"),
        local("reply_401", "/r401", "16"),
        local("reply_403", "/r403", "7"),
        local("reply_429", "/r429", "14"),
        local("reply_418_message_is_encoded", "/r418", "2", grpc_message="50%25 tea%0A%C3%A9 done"),
        local("reply_500", "/r500", "2"),
        local("reply_200", "/r200", "2", grpc_message="fine"),
        local("reply_redirect", "/redirect", "2"),
        local("reply_no_endpoint", "/empty", "14", grpc_message="no healthy upstream"),
        local("reply_refused", "/refused", "14"),
        local("reply_no_cluster", "/nocluster", "14"),
        local("reply_proto_suffix", "/r401", "16", send=call("/r401", kind="application/grpc+proto")),
        Case("reply_web_is_not_grpc", call("/r401", kind="application/grpc-web"), 401, ""),
        Case("reply_parameter_is_not_grpc", call("/r401", kind="application/grpc;charset=x"), 401, ""),
        Case("reply_upper_case_is_not_grpc", call("/r401", kind="Application/GRPC"), 401, ""),
        Case("reply_reset", call("/a"), 200, "a", replies=(Reply(ending="reset_before"),), want={"response.headers.grpc-status": "14"}),
        Case("reply_slow", call("/slow"), 200, "a", replies=(Reply(delay=LATE),), want={"response.headers.grpc-status": "14"}),
        # What an upstream says passes unchanged.
        Case("unary", call("/a"), 200, "a", replies=(ok(),), want={"response.trailers.grpc-status": "0", "log.grpc": "OK"}),
        Case("unary_error", call("/a"), 200, "a", replies=(ok("5", grpc_message="not%20here"),), want={"response.trailers.grpc-message": "not%20here", "log.grpc": "NotFound"}),
        Case("trailers_only", call("/a"), 200, "a", replies=(only("7", grpc_message="no"),), want={"log.grpc-snake": "PERMISSION_DENIED"}),
        Case("unknown_status", call("/a"), 200, "a", replies=(ok("99"),)),
        Case("status_is_no_number", call("/a"), 200, "a", replies=(ok("x"),)),
        Case("no_status", call("/a"), 200, "a", replies=(Reply(headers=(GRPC,), body=MESSAGE),)),
        Case("not_grpc_503", call("/a"), 503, "a", replies=(Reply(status=503, body=b"html"),), want={"log.grpc-number": "14"}),
        Case("not_grpc_200", call("/a"), 200, "a"),
        Case("binary_metadata", call("/a", "x-trace-bin: AAEC/w==", "x-two-bin: AA,/w"), 200, "a", replies=(ok("0", x_answer_bin="//4"),), want={"upstream.headers.x-trace-bin": "AAEC/w==", "response.trailers.x-answer-bin": "//4"}),
        Case("compression", call("/a", "grpc-encoding: gzip", "grpc-accept-encoding: identity,gzip", body=b"\1\0\0\0\1z"), 200, "a", replies=(ok(),)),
        Case("match_grpc", call("/onlygrpc"), 200, "a", replies=(ok(),)),
        Case("match_grpc_suffix", call("/onlygrpc", kind="application/grpc+json"), 200, "a", replies=(ok(),)),
        # Deadlines.
        timed("timeout_passes", "/a", "10S", "10S"),
        timed("old_within", "/oldmax", "25000m", "25000m"),
        timed("old_capped", "/oldmax", "100S", "30000m"),
        timed("old_absent", "/oldmax", None, "30000m"),
        timed("old_unlimited", "/oldmax0", "90S", "90000m"),
        timed("old_unlimited_absent", "/oldmax0", None, None),
        timed("old_microseconds_round_up", "/oldmax0", "20000500u", "20001m"),
        timed("old_microseconds_eight_digits", "/oldmax0", "99999999u", "100000m"),
        timed("old_hours", "/oldmax0", "100H", "360000S"),
        timed("old_bad_unit", "/oldmax0", "100x", "100x"),
        timed("old_nine_digits", "/oldmax", "100000000m", "30000m"),
        timed("old_offset", "/oldoffset", "60S", "40000m"),
        timed("old_offset_larger", "/oldoffset", "15000m", "15000m"),
        timed("old_per_try", "/oldtry", "100S", "20000m"),
        Case("old_not_for_http", req("POST", "/oldmax", "grpc-timeout: 1n", body=b"x"), 200, "a"),
        Case("old_retry_tells_what_is_left", call("/oldtry", "grpc-timeout: 30S"), 200, replies=(Reply(status=503), ok()), accept=LATE_MS),
        late("old_late", "/oldshort", "100S", "14"),
        late("old_late_by_header", "/oldmax0", "1000m", "14"),
        timed("new_within", "/newmax", "25000m", "25000m"),
        timed("new_capped", "/newmax", "100S", "30000m"),
        timed("new_absent", "/newmax", None, None),
        timed("new_unlimited", "/newmax0", "90S", "90000m"),
        timed("new_offset", "/newoffset", "60S", "40000m"),
        timed("new_duration_becomes_the_deadline", "/duration", None, "30000m"),
        timed("new_duration_replaces_the_header", "/duration", "100S", "30000m"),
        timed("new_beats_old", "/both", "100S", "40000m"),
        timed("new_both_absent", "/both", None, "30000m"),
        late("new_late", "/newshort", "100S", "4"),
        late("new_late_by_header", "/newmax0", "1000m", "4"),
        late("new_duration_late", "/shortduration", None, "4"),
        late("new_http_late", "/newshort", "100S", "", kind="text/plain"),
        Case("new_replaces_route_timeout", call("/newmax0"), 200, "a", replies=(Reply(headers=(GRPC, ("grpc-status", "0")), body=b"", delay=0.4),)),
        # Retries.
        *(
            Case(f"retry_{word}", call("/retry"), 200, replies=(only(status), ok()), want={"log.attempts": "2"})
            for word, status in (("cancelled", "1"), ("deadline_exceeded", "4"), ("resource_exhausted", "8"), ("internal", "13"), ("unavailable", "14"))
        ),
        Case("retry_not_ok", call("/retry"), 200, replies=(only("0"), ok()), want={"log.attempts": "1"}),
        Case("retry_not_unknown", call("/retry"), 200, replies=(only("2"), ok()), want={"log.attempts": "1"}),
        Case("retry_other_word", call("/onlyunavailable"), 200, replies=(only("8"), ok()), want={"log.attempts": "1"}),
        Case("retry_not_from_trailers", call("/retry"), 200, replies=(ok("14"), ok()), want={"log.attempts": "1"}),
        Case("retry_status_with_body", call("/retry"), 200, replies=(Reply(headers=(GRPC, ("grpc-status", "14"))), ok()), want={"log.attempts": "2"}),
        Case("retry_leading_zero", call("/retry"), 200, replies=(only("014"), ok()), want={"log.attempts": "2"}),
        Case("retry_not_http_503", call("/retry"), 503, replies=(Reply(status=503), ok()), want={"log.attempts": "1"}),
        Case("retry_exhausted", call("/retry"), 200, replies=(only("14"),), want={"log.attempts": "2", "log.flags": "URX"}),
        Case("header_grpc_words", call("/a", "x-envoy-retry-grpc-on: unavailable, internal"), 200, replies=(only("13"), ok()), listener="internal", want={"log.attempts": "2"}),
        Case("header_http_words_in_grpc_header", call("/a", "x-envoy-retry-grpc-on: 5xx"), 503, replies=(Reply(status=503), ok()), listener="internal", want={"log.attempts": "1"}),
        Case("header_grpc_words_in_http_header", call("/a", "x-envoy-retry-on: unavailable"), 200, replies=(only("14"), ok()), listener="internal", want={"log.attempts": "1"}),
        Case("judged", run=judged, log=15, want={"note.cluster.judged.outlier_detection.ejections_active": "1"}),
        # The log's own filter.
        Case("log_filter_takes", call("/empty"), 200, "", listener="with"),
        Case("log_filter_leaves", call("/a"), 200, "a", replies=(ok(),), listener="with", log=0),
        Case("log_filter_excludes", call("/empty"), 200, "", listener="without", log=0),
        Case("log_filter_excludes_not", call("/a"), 200, "a", replies=(ok(),), listener="without"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_grpc(pair: Pair, case: Case) -> None:
    pair.check(case)
