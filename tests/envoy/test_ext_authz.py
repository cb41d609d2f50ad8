"""A service decides: what it is asked over gRPC and HTTP, what its answers do, failures, bodies, routes, statistics."""

import json
from collections.abc import Iterator

import pytest
import yaml
from asked_services import AskedServices, serving, told
from parity import (
    Case,
    Client,
    Observation,
    Pair,
    Reply,
    Side,
    Suite,
    bootstrap,
    cluster,
    file_log,
    hcm,
    http2_cluster,
    listener,
    req,
)
from parity.config import LOG_OPERATORS

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
PLAIN = "[{match: {prefix: /}, route: {cluster: a}}]"
LOG = {**LOG_OPERATORS, "meta": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%"}
GRPC = "grpc_service: {envoy_grpc: {cluster_name: authz}, timeout: 20s, initial_metadata: [{key: x-meta, value: data}]}, transport_api_version: V3"
SERVERS: dict[int, AskedServices] = {}


@pytest.fixture(scope="module", autouse=True)
def services(pair: Pair) -> Iterator[None]:
    """One for each side, where its configuration looks for it."""
    with serving(SERVERS, (side.ports["port.authz"] for side in pair.sides)):
        yield


def site(name: str, fields: str, routes: str = PLAIN, before: str = "", more: str = "") -> object:
    chain = f"http_filters: [{before}{{name: authz, typed_config: {{'@type': {HTTP}ext_authz.v3.ExtAuthz, {fields}}}}}, {ROUTER}]\n{more}"
    return listener(name, hcm(name, yaml.safe_load(routes), chain, [file_log(f"$(dir)/{name}.log", LOG)]))


PER_ROUTE = f"'@type': {HTTP}ext_authz.v3.ExtAuthzPerRoute"
ROUTED = f"""[{{name: v, domains: ["*"], typed_per_filter_config: {{authz: {{{PER_ROUTE}, check_settings: {{context_extensions: {{host: v, both: host}}}}}}}}, routes: [
 {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{PER_ROUTE}, disabled: true}}}}}},
 {{match: {{prefix: /more}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{PER_ROUTE}, check_settings: {{context_extensions: {{both: route, own: r}}}}}}}}}},
 {{match: {{prefix: /nobody}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{PER_ROUTE}, check_settings: {{disable_request_body_buffering: true}}}}}}}},
 {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: hi}}}}}},
 {{match: {{prefix: /}}, route: {{cluster: a}}}}]}}]"""
BODY = "with_request_body: {max_request_bytes: 10, allow_partial_message: true}"
REROUTED = "[{match: {prefix: /, headers: [{name: x-to, string_match: {exact: b}}]}, route: {cluster: b}}, {match: {prefix: /}, route: {cluster: a}}]"
SERVICE = "server_uri: {uri: 'http://authz.test:99', cluster: web, timeout: 20s}"


def over_http(more: str = "", service: str = "", response: str = "", request: str = "") -> str:
    parts = [
        SERVICE,
        service,
        f"authorization_request: {{{request}}}" if request else "",
        f"authorization_response: {{{response}}}" if response else "",
    ]
    return f"http_service: {{{', '.join(part for part in parts if part)}}}{', ' + more if more else ''}"


SHADOW = f"{{name: rbac, typed_config: {{'@type': {HTTP}rbac.v3.RBAC, shadow_rules: {{action: DENY, policies: {{istio-ext-authz-x: {{permissions: [{{url_path: {{path: {{prefix: /ask}}}}}}], principals: [{{any: true}}]}}}}}}, shadow_rules_stat_prefix: istio_ext_authz_}}}}, "
BY_SHADOW = "filter_enabled_metadata: {filter: envoy.filters.http.rbac, path: [{key: istio_ext_authz_shadow_effective_policy_id}], value: {string_match: {prefix: istio-ext-authz-x}}}"
SUITE = Suite(
    bootstrap(
        [
            site("grpc", GRPC),
            site("allow", f"{GRPC}, failure_mode_allow: true, failure_mode_allow_header_add: true, stat_prefix: own"),
            site("status", f"{GRPC}, status_on_error: {{code: 503}}"),
            site("gone", f"{GRPC.replace('cluster_name: authz', 'cluster_name: gone')}"),
            site("slow", GRPC.replace("20s", "1s")),
            site("partial", f"{GRPC}, {BODY}"),
            site("whole", f"{GRPC}, with_request_body: {{max_request_bytes: 10}}"),
            site("bytes", f"{GRPC}, with_request_body: {{max_request_bytes: 100, pack_as_bytes: true}}"),
            site("routed", f"{GRPC}, {BODY}", routes=ROUTED),
            site("reroute", f"{GRPC}, clear_route_cache: true", routes=REROUTED),
            site("stay", GRPC, routes=REROUTED),
            site("listed", f"{GRPC}, allowed_headers: {{patterns: [{{exact: x-ask}}, {{prefix: x-a}}]}}, disallowed_headers: {{patterns: [{{exact: x-a-not}}]}}"),
            site("raw", f"{GRPC}, encode_raw_headers: true"),
            site("never", f"{GRPC}, filter_enabled: {{default_value: {{numerator: 0}}}}"),
            site("deny", f"{GRPC}, filter_enabled: {{default_value: {{numerator: 0}}}}, deny_at_disable: {{default_value: true, runtime_key: x}}"),
            site("istio", f"{GRPC}, {BY_SHADOW}, metadata_context_namespaces: [envoy.filters.http.rbac]", before=SHADOW),
            site("http", over_http()),
            site("http2way", over_http("allowed_headers: {patterns: [{exact: x-user}]}, failure_mode_allow: true", "path_prefix: /check", "allowed_upstream_headers: {patterns: [{prefix: x-up}]}, allowed_upstream_headers_to_append: {patterns: [{exact: x-app}]}, allowed_client_headers: {patterns: [{exact: x-why}]}, allowed_client_headers_on_success: {patterns: [{exact: x-ok}]}, dynamic_metadata_from_headers: {patterns: [{prefix: x-md}]}", "headers_to_add: [{key: x-added, value: static}]")),
            site("httpbody", over_http(BODY)),
        ],
        [cluster("a", "a"), cluster("b", "b"), http2_cluster("authz", "port.authz"), http2_cluster("gone", "refused.authz"), cluster("web", "web")],
        "node: {id: n, cluster: parity}",
    ),
)  # fmt: skip


def question(asked: dict[str, object], side: Side) -> str:
    """A CheckRequest as text, without what differs from call to call."""
    text = json.dumps(asked, sort_keys=True)
    tree = json.loads(text)
    attributes = tree["attributes"]
    attributes["request"].pop("time", None)
    http = attributes["request"]["http"]
    http.pop("id", None)
    headers = http.get("headers", {})
    for name in ("x-request-id", "x-ask"):
        headers.pop(name, None)
    for one in http.get("headerMap", {}).get("headers", []):
        if one["key"] in ("x-request-id", "x-ask"):
            one["rawValue"] = "…"
    if "headerMap" in http:
        http["headerMap"]["headers"].sort(key=lambda one: one["key"])
    attributes["source"]["address"]["socketAddress"]["portValue"] = 0
    attributes["destination"]["address"]["socketAddress"]["portValue"] = 0
    return json.dumps(tree, sort_keys=True)


def leaves(path: str, value: object) -> dict[str, str]:
    """One entry per leaf."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, inner in value.items() for key, leaf in leaves(f"{path}.{name}", inner).items()}
    return {path: json.dumps(value)}


def asks(name: str, at: str, status: int, request: bytes, *, again: bytes = b"", **more: object) -> Case:
    """One request, its answer, and what the service was asked."""

    def talk(pair: Pair, side: Side, seen: Observation) -> None:
        server = SERVERS[side.ports["port.authz"]]
        server.asked.clear()
        with Client(side, at) as client:
            client.send(request)
            seen.responses.append(client.response(request.split(b" ", 1)[0].decode()))
            pair.leave(client, seen)
        for i, asked in enumerate(server.asked):
            seen.notes |= leaves(f"check{i}", json.loads(question(asked, side)))

    want = {"response.status": str(status), **more.pop("want", {})}  # type: ignore[dict-item]
    return Case(f"{at}_{name}", run=talk, listener=at, want=want, **more)  # type: ignore[arg-type]


def says(text: str) -> str:
    return f"x-ask: {told(text)}"


def header(key: str, value: str, more: str = "") -> str:
    return f'{{"header": {{"key": "{key}", "value": "{value}"}}{", " + more if more else ""}}}'


OK = '{"status": {"code": 0}, "okResponse": {%s}}'
NO = '{"status": {"code": 7}%s}'
DURATION = {"log.meta": "ext_authz_duration is a time"}
CHANGES = (
    ("set", header("x-new", "1"), ()),
    ("set_over", header("x-old", "1"), ("x-old: 0",)),
    ("append_true", header("x-old", "1", '"append": true'), ("x-old: 0",)),
    ("append_true_absent", header("x-old", "1", '"append": true'), ()),
    ("append_false", header("x-old", "1", '"append": false'), ("x-old: 0",)),
    ("action_add", header("x-old", "1", '"appendAction": "APPEND_IF_EXISTS_OR_ADD"'), ("x-old: 0",)),
    ("action_absent", header("x-old", "1", '"appendAction": "ADD_IF_ABSENT"'), ("x-old: 0",)),
    ("action_absent_new", header("x-old", "1", '"appendAction": "ADD_IF_ABSENT"'), ()),
    ("action_over", header("x-old", "1", '"appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"'), ("x-old: 0",)),
    ("action_over_new", header("x-old", "1", '"appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"'), ()),
    ("action_replace", header("x-old", "1", '"appendAction": "OVERWRITE_IF_EXISTS"'), ("x-old: 0",)),
    ("action_replace_new", header("x-old", "1", '"appendAction": "OVERWRITE_IF_EXISTS"'), ()),
    ("path", header(":path", "/other"), ()),
    ("authority", header(":authority", "other.test"), ()),
    ("host", header("host", "other.test"), ()),
    ("method", header(":method", "PUT"), ()),
)  # fmt: skip
CLOSES = dict.fromkeys(("response.headers.connection", "end"), "Envoy closes although the whole request has come")
CASES = (
    asks("ok", "grpc", 200, req("GET", "/p?q=1", "x-a: 1", "x-a: 2")),
    asks("post", "grpc", 200, req("POST", "/p", body=b"hello")),
    asks("service", "grpc", 200, req("GET", "/", "x-envoy-downstream-service-cluster: them")),
    *(asks(f"header_{name}", "grpc", 200, req("GET", "/", *headers, says(OK % f'"headers": [{text}]'))) for name, text, headers in CHANGES),
    *(asks(f"response_{name}", "grpc", 200, req("GET", "/", says(OK % f'"responseHeadersToAdd": [{text}]')), replies=(Reply(headers=tuple(("x-old", "0") for _ in headers)),)) for name, text, headers in CHANGES if name not in ("path", "authority", "host", "method")),
    asks("remove", "grpc", 200, req("GET", "/", "x-a: 1", "x-b: 2", says(OK % '"headersToRemove": ["x-a", "X-B", "host", ":path", "x-none"]'))),
    asks("query_set", "grpc", 200, req("GET", "/p?b=1&a=2", says(OK % '"queryParametersToSet": [{"key": "c", "value": "xy"}, {"key": "a", "value": "9"}]'))),
    asks("query_remove", "grpc", 200, req("GET", "/p?b=1&a=2", says(OK % '"queryParametersToRemove": ["b"]'))),
    asks("query_remove_all", "grpc", 200, req("GET", "/p?b=1", says(OK % '"queryParametersToRemove": ["b"]'))),
    asks("metadata", "grpc", 200, req("GET", "/", says('{"status": {}, "dynamicMetadata": {"k": "v", "n": {"m": 1}}}')), accept=DURATION),
    asks("metadata_denied", "grpc", 403, req("GET", "/", says('{"status": {"code": 7}, "dynamicMetadata": {"k": "v"}}'))),
    asks("denied", "grpc", 403, req("GET", "/", says(NO % ""))),
    asks("denied_unauthenticated", "grpc", 403, req("GET", "/", says('{"status": {"code": 16}}'))),
    asks("denied_status", "grpc", 401, req("GET", "/", says(NO % ', "deniedResponse": {"status": {"code": 401}, "body": "go away", "headers": [%s, %s]}' % (header("www-authenticate", "Basic"), header("x-why", "because"))))),
    asks("denied_type", "grpc", 403, req("GET", "/", says(NO % ', "deniedResponse": {"body": "{}", "headers": [%s]}' % header("content-type", "application/json")))),
    asks("denied_redirect", "grpc", 302, req("GET", "/", says(NO % ', "deniedResponse": {"status": {"code": 302}, "headers": [%s]}' % header("location", "http://login")))),
    asks("denied_grpc", "grpc", 200, req("POST", "/s.S/M", "content-type: application/grpc", "te: trailers", "content-length: 0", says(NO % "")), want={"response.headers.grpc-status": "7"}),
    asks("denied_grpc_401", "grpc", 200, req("POST", "/s.S/M", "content-type: application/grpc", "te: trailers", "content-length: 0", says(NO % ', "deniedResponse": {"status": {"code": 401}, "body": "who"}')), want={"response.headers.grpc-status": "16"}),
    asks("failed", "grpc", 403, req("GET", "/", says("fail"))),
    asks("failed", "allow", 200, req("GET", "/", says("fail"))),
    asks("ok", "allow", 200, req("GET", "/")),
    asks("failed", "status", 503, req("GET", "/", says("fail"))),
    asks("failed_grpc", "status", 200, req("POST", "/s.S/M", "content-type: application/grpc", "te: trailers", "content-length: 0", says("fail")), want={"response.headers.grpc-status": "14"}),
    asks("ok", "gone", 403, req("GET", "/")),
    asks("late", "slow", 403, req("GET", "/", says("hang"))),
    asks("small", "partial", 200, req("POST", "/", body=b"hello")),
    asks("exact", "partial", 200, req("POST", "/", body=b"0123456789")),
    asks("large", "partial", 200, req("POST", "/", body=b"0123456789abcdef")),
    asks("none", "partial", 200, req("GET", "/")),
    asks("chunked", "partial", 200, req("POST", "/", "transfer-encoding: chunked", body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", length=False)),
    asks("denied", "partial", 403, req("POST", "/", says(NO % ""), body=b"hello")),
    asks("small", "whole", 200, req("POST", "/", body=b"hello")),
    asks("exact", "whole", 200, req("POST", "/", body=b"0123456789")),
    asks("large", "whole", 413, req("POST", "/", body=b"0123456789abcdef"), accept=CLOSES),
    asks("binary", "bytes", 200, req("POST", "/", body=b"\x00\xff\x80")),
    asks("host", "routed", 200, req("GET", "/")),
    asks("off", "routed", 200, req("GET", "/off", says(NO % ""))),
    asks("more", "routed", 200, req("GET", "/more")),
    asks("nobody", "routed", 200, req("POST", "/nobody", body=b"hello")),
    asks("body", "routed", 200, req("POST", "/", body=b"hello")),
    asks("direct", "routed", 200, req("GET", "/direct")),
    asks("direct_denied", "routed", 403, req("GET", "/direct", says(NO % ""))),
    asks("changed", "reroute", 200, req("GET", "/", says(OK % f'"headers": [{header("x-to", "b")}]')), want={"upstream.endpoint": "b"}),
    asks("changed", "stay", 200, req("GET", "/", says(OK % f'"headers": [{header("x-to", "b")}]')), want={"upstream.endpoint": "a"}),
    asks("some", "listed", 200, req("GET", "/", "x-a: 1", "x-abc: 2", "x-a-not: 3", "x-b: 4")),
    asks("all", "raw", 200, req("GET", "/", "x-a: 1", "x-a: 2", "x-b: \xe9")),
    asks("disabled", "never", 200, req("GET", "/", says(NO % ""))),
    asks("disabled", "deny", 403, req("GET", "/")),
    asks("not_asked", "istio", 200, req("GET", "/x", says(NO % ""))),
    asks("asked", "istio", 403, req("GET", "/ask", says(NO % ""))),
    asks("allowed", "istio", 200, req("GET", "/ask")),
)  # fmt: skip


def web(name: str, at: str, status: int, request: bytes, *replies: Reply, **more: object) -> Case:
    accept = DURATION | {"response.headers.x-envoy-upstream-service-time": "Envoy shows the caller how long the service took"}
    return Case(f"{at}_{name}", request, status, listener=at, replies=replies, accept=accept, **more)  # type: ignore[arg-type]


OVER_HTTP = (
    web("ok", "http", 200, req("GET", "/p?q=1", "x-a: 1", "authorization: me", "cookie: a=b"), Reply(headers=(("x-up", "1"), ("x-ok", "1")))),
    web("denied", "http", 403, req("GET", "/p"), Reply(status=403, headers=(("x-why", "because"), ("www-authenticate", "Basic")), body=b"go away")),
    web("unauthenticated", "http", 401, req("GET", "/p"), Reply(status=401, body=b"")),
    web("redirect", "http", 302, req("GET", "/p"), Reply(status=302, headers=(("location", "http://login"),), body=b"")),
    web("other_2xx", "http", 204, req("GET", "/p"), Reply(status=204, framing="none")),
    web("error", "http", 403, req("GET", "/p"), Reply(status=500)),
    web("reset", "http", 403, req("GET", "/p"), Reply(ending="reset_before")),
    web("post", "http", 200, req("POST", "/p", body=b"hello")),
    web("mutations", "http2way", 200, req("GET", "/p", "x-user: me", "x-up-1: old", "x-app: first", "x-gone: 1"), Reply(headers=(("x-up-1", "new"), ("x-up-2", "n"), ("x-app", "second"), ("x-ok", "yes"), ("x-md-a", "data"), ("x-other", "no"), ("x-envoy-auth-headers-to-remove", "x-gone, x-nothing")))),
    web("append_absent", "http2way", 200, req("GET", "/p"), Reply(headers=(("x-app", "second"),))),
    web("denied", "http2way", 403, req("GET", "/p"), Reply(status=403, headers=(("x-why", "because"), ("x-secret", "no"), ("location", "http://x"), ("content-type", "application/json")), body=b"{}")),
    web("error_allowed", "http2way", 200, req("GET", "/p"), Reply(status=503), Reply()),
    web("small", "httpbody", 200, req("POST", "/", body=b"hello")),
    web("large", "httpbody", 200, req("POST", "/", body=b"0123456789abcdef")),
)  # fmt: skip


@pytest.mark.parametrize("case", [*CASES, *OVER_HTTP], ids=str)
def test_decision(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    wanted = {name: value for name, value in envoy.items() if "ext_authz" in name and value and "P" not in name}
    assert len(wanted) > 15
    assert {name: ours.get(name) for name in wanted} == wanted
