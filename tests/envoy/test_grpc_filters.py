"""The filters grpc_web and grpc_stats, over HTTP/1 with trailers."""

import base64

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, req
from parity.case import Observation
from parity.config import hcm, listener
from parity.proxy import Side

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
WEB = f'{{name: web, typed_config: {{"@type": {HTTP}grpc_web.v3.GrpcWeb}}}}'
ROUTES = """
- {match: {prefix: /direct}, direct_response: {status: 403, body: {inline_string: "keep 100% out"}}}
- {match: {prefix: /nobody}, direct_response: {status: 401}}
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /}, route: {cluster: a}}
"""
UPSTREAM_TRAILERS = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {enable_trailers: true}}
"""


def stats(fields: str) -> str:
    return f'{{name: envoy.filters.http.grpc_stats, typed_config: {{"@type": {HTTP}grpc_stats.v3.FilterConfig{", " if fields else ""}{fields}}}}}'


def manager(name: str, *filters: str) -> object:
    settings = f"http_filters: [{', '.join((*filters, ROUTER))}]\nhttp_protocol_options: {{enable_trailers: true}}"
    routes = ROUTES if name == "main" else ROUTES.replace("cluster: a}", f"cluster: {name}}}")
    return listener(name, hcm(name, routes, settings))


def message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


GRPC = ("content-type", "application/grpc")
ONE, TWO = message(b"hello"), message(b"x" * 1000)


def ok(*pieces: bytes, status: str = "0", **more: str) -> Reply:
    trailers = (("grpc-status", status), *((k.replace("_", "-"), v) for k, v in more.items()))
    return Reply(headers=(GRPC,), body=b"".join(pieces or (ONE,)), framing="chunked", trailers=trailers)


def web(kind: str = "application/grpc-web+proto", *headers: str, path: str = "/pkg.Svc/Get", body: bytes = ONE) -> bytes:
    return req("POST", path, f"content-type: {kind}", *headers, body=body)


def text(body: bytes, *headers: str, kind: str = "application/grpc-web-text", raw: bool = False) -> bytes:
    return web(kind, *headers, body=body if raw else base64.b64encode(body))


ACCEPT = "accept: application/grpc-web-text"
CALL = req("POST", "/pkg.Svc/Get", "content-type: application/grpc", "te: trailers", body=ONE + TWO)


def counted(name: str):  # type: ignore[no-untyped-def]
    """Calls of every outcome through a listener, then all statistics of its cluster with `grpc` in the name."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        calls = (
            (CALL, ok(ONE, TWO, ONE)),
            (CALL, ok(status="5")),
            (CALL, Reply(headers=(GRPC, ("grpc-status", "14")), body=b"")),
            (CALL.replace(b"/pkg.Svc/Get", b"/pkg.Svc/Other"), ok()),
            (CALL.replace(b"/pkg.Svc/Get", b"/a/b/c"), ok()),
            (CALL.replace(b"/pkg.Svc/Get", b"/pkg.Svc/Get?x=1"), ok()),
            (CALL.replace(b"application/grpc", b"application/json"), ok()),
            (CALL, Reply(status=503)),
        )
        for send, reply in calls:
            side.upstream.begin((reply,))
            pair.talk(side, seen, send, listener=name)
        for key, value in side.stats().items():
            if key.startswith(f"cluster.{name}.grpc"):
                seen.notes[key] = str(value)

    return run


def web_counted(pair: Pair, side: Side, seen: Observation) -> None:
    for reply in (ok(), ok(status="3"), Reply(headers=(GRPC, ("grpc-status", "12")), body=b"")):
        side.upstream.begin((reply,))
        pair.talk(side, seen, web(path="/counted.Svc/Call"))
    for key, value in side.stats().items():
        if key.startswith("cluster.a.grpc-web.counted"):
            seen.notes[key] = str(value)


STATS = {
    "plainly": stats(""),
    "all": stats("stats_for_all_methods: true"),
    "none": stats("stats_for_all_methods: false"),
    "listed": stats("individual_method_stats_allowlist: {services: [{name: pkg.Svc, method_names: [Get, Put]}]}"),
    "dotless": stats("stats_for_all_methods: true, replace_dots_in_grpc_service_name: true, emit_filter_state: true"),
}
KEPT = {
    "response.headers.connection": "the request was well-formed HTTP, so the connection goes on",
    "end": "likewise",
    "upstream": "Envoy has sent the head by then",
}
SUITE = Suite(
    bootstrap(
        [manager("main", WEB), *(manager(name, one) for name, one in STATS.items())],
        [
            *(cluster(name, "a", extra=UPSTREAM_TRAILERS) for name in ("a", *STATS)),
            cluster("empty"),
            cluster("refused", "refused.r"),
        ],
    ),
    (
        Case("web_unary", web(), 200, "a", replies=(ok(),), want={"response.headers.content-type": "application/grpc-web+proto", "upstream.headers.content-type": "application/grpc", "upstream.headers.te": "trailers"}),
        Case("web_without_format", web("application/grpc-web"), 200, "a", replies=(ok(ONE, TWO, message_x="ä y"),)),
        Case("web_error", web(), 200, "a", replies=(ok(b"", status="5", grpc_message="not%20here"),)),
        Case("web_trailers_only", web(), 200, "a", replies=(Reply(headers=(GRPC, ("grpc-status", "7")), body=b""),)),
        Case("web_no_trailers", web(), 200, "a", replies=(Reply(headers=(GRPC,), body=ONE),)),
        Case("web_keeps_accept_encoding", web("application/grpc-web", "grpc-accept-encoding: gzip"), 200, "a", replies=(ok(),), want={"upstream.headers.grpc-accept-encoding": "gzip"}),
        Case("web_other_kind", web("application/grpc-web+json"), 200, "a", replies=(ok(),)),
        Case("web_upper_case", web("Application/GRPC-web"), 200, "a", replies=(ok(),)),
        Case("not_web", CALL, 200, "a", replies=(ok(),)),
        Case("text_request", text(ONE), 200, "a", replies=(ok(),)),
        Case("text_request_proto", text(ONE + TWO, kind="application/grpc-web-text+proto"), 200, "a", replies=(ok(),)),
        Case("text_both", text(ONE, ACCEPT), 200, "a", replies=(ok(),), want={"response.headers.content-type": "application/grpc-web-text+proto"}),
        Case("text_response_only", web("application/grpc-web", ACCEPT), 200, "a", replies=(ok(ONE, TWO, message(b""), message(b"ab")),)),
        Case("text_response_proto", web("application/grpc-web", "accept: application/grpc-web-text+proto"), 200, "a", replies=(ok(),)),
        Case("text_other_accept", web("application/grpc-web", "accept: application/grpc-web-text, */*"), 200, "a", replies=(ok(),)),
        Case("text_trailers_only", text(ONE, ACCEPT), 200, "a", replies=(Reply(headers=(GRPC, ("grpc-status", "7")), body=b""),)),
        Case("text_bad_size", text(b"AAAAA", raw=True), 400, accept=KEPT, want={"log.details": "grpc_base_64_decode_failed_bad_size"}),
        Case("text_bad_data", text(b"AA!?", raw=True), 400, accept=KEPT, want={"log.details": "grpc_base_64_decode_failed"}),
        Case("text_empty", text(b"", raw=True), 200, "a", replies=(ok(),)),
        Case("plain_503", web(), 503, "a", replies=(Reply(status=503, body=b"<p>50% down\n"),), want={"response.headers.grpc-status": "14"}),
        Case("plain_200", web(), 200, "a", replies=(Reply(body=b"hello", headers=(("content-type", "text/html"),)),)),
        Case("plain_404_chunked", web(), 404, "a", replies=(Reply(status=404, body=b"x" * 100, framing="chunked"),)),
        Case("plain_empty", web(), 500, "a", replies=(Reply(status=500, body=b""),)),
        Case("plain_text_form", text(ONE, ACCEPT), 503, "a", replies=(Reply(status=503, body=b"down"),)),
        Case("reply_no_endpoint", web(path="/empty"), 503, "", want={"response.headers.grpc-status": "14", "response.headers.grpc-message": "no healthy upstream"}),
        Case("reply_refused", web(path="/refused"), 503),
        Case("reply_direct", web(path="/direct"), 403, "", want={"response.headers.grpc-status": "7"}),
        Case("reply_without_body", web(path="/nobody"), 401, ""),
        Case("reply_to_grpc", CALL.replace(b"/pkg.Svc/Get", b"/direct"), 200, "", want={"response.headers.grpc-status": "7"}),
        Case("web_stats", run=web_counted, log=3, want={"note.cluster.a.grpc-web.counted.Svc.Call.total": "3"}),
        *(Case(f"stats_{name}", run=counted(name), listener=name, log=8) for name in STATS),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_grpc_filter(pair: Pair, case: Case) -> None:
    pair.check(case)
