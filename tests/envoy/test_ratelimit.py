"""A service counts: what it is asked, what its answers do, failures, headers, routes, statistics."""

import json
from collections.abc import Iterator

import pytest
import yaml
from asked_services import AskedServices, serving, told
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, file_log, hcm, http2_cluster, listener, req
from parity.config import LOG_OPERATORS

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
LOG = {**LOG_OPERATORS, "meta": "%DYNAMIC_METADATA(envoy.filters.http.ratelimit)%"}
SERVICE = "rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: limits}}, transport_api_version: V3}, domain: shop"
LIMITS = f"{SERVICE}, timeout: 20s"
SERVERS: dict[int, AskedServices] = {}


@pytest.fixture(scope="module", autouse=True)
def services(pair: Pair) -> Iterator[None]:
    """One for each side, where its configuration looks for it."""
    with serving(SERVERS, (side.ports["port.limits"] for side in pair.sides)):
        yield


ASK = "{request_headers: {header_name: x-ask, descriptor_key: ask, skip_if_absent: true}}"


def limit(*actions: str, stage: int = 0) -> str:
    own = f"stage: {stage}, " if stage else ""
    return f"{{{own}actions: [{ASK}, {', '.join(actions) or '{generic_key: {descriptor_value: g}}'}]}}"


def route(path: str, *limits: str, more: str = "", action: str = "") -> str:
    wanted = f", rate_limits: [{', '.join(limits)}]" if limits else ""
    return f"{{match: {{prefix: {path}}}, route: {{cluster: a{wanted}{action}}}{more}}}"


def per_route(fields: str) -> str:
    return f", typed_per_filter_config: {{limit: {{'@type': {HTTP}ratelimit.v3.RateLimitPerRoute, {fields}}}}}"


ROUTES = ", ".join(
    [
        route("/plain", limit()),
        route("/two", limit(), limit("{remote_address: {}}")),
        route(
            "/keys",
            limit(
                "{request_headers: {header_name: x-user, descriptor_key: user}}",
                "{generic_key: {descriptor_key: k, descriptor_value: v}}",
            ),
        ),
        route("/cluster", limit("{destination_cluster: {}}", "{source_cluster: {}}")),
        route("/match", limit("{header_value_match: {descriptor_value: m, headers: [{name: x-m}]}}")),
        route("/stage", limit(stage=1)),
        route("/none"),
        route("/over", limit("{generic_key: {descriptor_value: r}}"), more=per_route("vh_rate_limits: OVERRIDE")),
        route("/include", limit("{generic_key: {descriptor_value: r}}"), more=per_route("vh_rate_limits: INCLUDE")),
        route("/ignore", more=per_route("vh_rate_limits: IGNORE")),
        route(
            "/own", limit(), more=per_route(f"rate_limits: [{limit('{generic_key: {descriptor_value: own}}')}], domain: other")
        ),
        route("/flag", limit("{generic_key: {descriptor_value: r}}"), action=", include_vh_rate_limits: true"),
        "{match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: hi}}}",
        route("/"),
    ]
)
TABLE = f"{{virtual_hosts: [{{name: v, domains: ['*'], routes: [{ROUTES}], rate_limits: [{limit('{generic_key: {descriptor_value: h}}')}]}}]}}"


def site(name: str, fields: str = LIMITS, more: str = "") -> object:
    chain = (
        f"http_filters: [{{name: limit, typed_config: {{'@type': {HTTP}ratelimit.v3.RateLimit, {fields}}}}}, {ROUTER}]\n{more}"
    )
    return listener(name, hcm(name, yaml.safe_load(TABLE), chain, [file_log(f"$(dir)/{name}.log", LOG)]))


SUITE = Suite(
    bootstrap(
        [
            site("main"),
            site("headers", f"{LIMITS}, enable_x_ratelimit_headers: DRAFT_VERSION_03"),
            site("deny", f"{LIMITS}, failure_mode_deny: true"),
            site("denystatus", f"{LIMITS}, failure_mode_deny: true, status_on_error: {{code: 503}}"),
            site("status", f"{LIMITS}, rate_limited_status: {{code: 503}}, response_headers_to_add: [{{header: {{key: x-limited, value: 'yes'}}}}], disable_x_envoy_ratelimited_header: true"),
            site("lowstatus", f"{LIMITS}, rate_limited_status: {{code: 200}}"),
            site("exhausted", f"{LIMITS}, rate_limited_as_resource_exhausted: true, stat_prefix: own"),
            site("stage", f"{LIMITS}, stage: 1"),
            site("late", f"{SERVICE}, timeout: 1s, failure_mode_deny: true"),
            site("gone", f"{LIMITS.replace('cluster_name: limits', 'cluster_name: gone')}"),
            site("internal", f"{LIMITS}, request_type: internal", "use_remote_address: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"),
            site("external", f"{LIMITS}, request_type: external", "use_remote_address: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"),
            site("off", f"{LIMITS}, filter_enabled: {{default_value: {{numerator: 0}}}}"),
            site("watch", f"{LIMITS}, filter_enforced: {{default_value: {{numerator: 0}}}}"),
            site("own", f"{LIMITS}, rate_limits: [{limit('{generic_key: {descriptor_value: filter}}')}]"),
        ],
        [cluster("a", "a"), http2_cluster("limits", "port.limits"), http2_cluster("gone", "refused.limits")],
        "node: {id: n, cluster: parity}",
    ),
)  # fmt: skip


def asks(name: str, at: str, status: int, request: bytes, **more: object) -> Case:
    """One request, its answer, and what the service was asked."""

    def talk(pair: Pair, side: Side, seen: Observation) -> None:
        server = SERVERS[side.ports["port.limits"]]
        server.asked.clear()
        with Client(side, at) as client:
            client.send(request)
            seen.responses.append(client.response(request.split(b" ", 1)[0].decode()))
            pair.leave(client, seen)
        seen.notes["asked"] = json.dumps(server.asked, sort_keys=True)

    want = {"response.status": str(status), **more.pop("want", {})}  # type: ignore[dict-item]
    return Case(f"{at}_{name}", run=talk, listener=at, want=want, **more)  # type: ignore[arg-type]


def says(text: str) -> str:
    return f"x-ask: {told(text)}"


OVER = '{"overallCode": "OVER_LIMIT"%s}'
STATUS = '"statuses": [{"code": "OK", "currentLimit": {"name": "a", "requestsPerUnit": 10, "unit": "MINUTE"}, "limitRemaining": 4, "durationUntilReset": "12s"}, {"code": "OK", "currentLimit": {"requestsPerUnit": 3, "unit": "SECOND"}, "limitRemaining": 2, "durationUntilReset": "1s"}, {"code": "OK", "limitRemaining": 0}, {"code": "OK", "currentLimit": {"requestsPerUnit": 300, "unit": "DAY"}, "limitRemaining": 200}]'
GRPC = ("content-type: application/grpc", "te: trailers", "content-length: 0")
CASES = (
    asks("ok", "main", 200, req("GET", "/plain")),
    asks("over", "main", 429, req("GET", "/plain", says(OVER % ""))),
    asks("over_grpc", "main", 200, req("POST", "/plain", *GRPC, says(OVER % "")), want={"response.headers.grpc-status": "14"}),
    asks("over_grpc", "exhausted", 200, req("POST", "/plain", *GRPC, says(OVER % "")), want={"response.headers.grpc-status": "8"}),
    asks("body", "main", 429, req("GET", "/plain", says(OVER % ', "rawBody": "e30=", "responseHeadersToAdd": [{"key": "content-type", "value": "application/json"}, {"key": "x-r", "value": "1"}]'))),
    asks("ok_headers", "main", 200, req("GET", "/plain", says('{"overallCode": "OK", "responseHeadersToAdd": [{"key": "x-r", "value": "1"}], "requestHeadersToAdd": [{"key": "X-Q", "value": "2"}]}'))),
    asks("metadata", "main", 200, req("GET", "/plain", says('{"overallCode": "OK", "dynamicMetadata": {"k": "v"}}'))),
    asks("unknown", "main", 200, req("GET", "/plain", says('{"overallCode": "UNKNOWN"}'))),
    asks("two", "main", 200, req("GET", "/two")),
    asks("keys", "main", 200, req("GET", "/keys", "x-user: me")),
    asks("keys_absent", "main", 200, req("GET", "/keys")),
    asks("cluster", "main", 200, req("GET", "/cluster")),
    asks("match", "main", 200, req("GET", "/match", "x-m: 1")),
    asks("no_match", "main", 200, req("GET", "/match")),
    asks("stage", "main", 200, req("GET", "/stage")),
    asks("stage", "stage", 200, req("GET", "/stage")),
    asks("host", "main", 200, req("GET", "/none")),
    asks("override", "main", 200, req("GET", "/over")),
    asks("include", "main", 200, req("GET", "/include")),
    asks("ignore", "main", 200, req("GET", "/ignore")),
    asks("own", "main", 200, req("GET", "/own")),
    asks("flag", "main", 200, req("GET", "/flag")),
    asks("direct", "main", 200, req("GET", "/direct")),
    asks("post", "main", 200, req("POST", "/plain", body=b"hello")),
    asks("failed", "main", 200, req("GET", "/plain", says("fail"))),
    asks("failed", "deny", 500, req("GET", "/plain", says("fail"))),
    asks("failed_grpc", "deny", 200, req("POST", "/plain", *GRPC, says("fail"))),
    asks("failed", "denystatus", 503, req("GET", "/plain", says("fail"))),
    asks("over", "status", 503, req("GET", "/plain", says(OVER % ""))),
    asks("ok", "status", 200, req("GET", "/plain")),
    asks("over", "lowstatus", 429, req("GET", "/plain", says(OVER % ""))),
    asks("late", "late", 500, req("GET", "/plain", says("hang"))),
    asks("gone", "gone", 200, req("GET", "/plain")),
    asks("statuses", "headers", 200, req("GET", "/plain", says(f'{{"overallCode": "OK", {STATUS}}}'))),
    asks("statuses_over", "headers", 429, req("GET", "/plain", says(OVER % f", {STATUS}"))),
    asks("no_statuses", "headers", 200, req("GET", "/plain")),
    asks("inside", "internal", 429, req("GET", "/plain", says(OVER % ""))),
    asks("outside", "internal", 200, req("GET", "/plain", says(OVER % ""), "x-forwarded-for: 8.8.8.8")),
    asks("inside", "external", 200, req("GET", "/plain", says(OVER % ""))),
    asks("over", "off", 200, req("GET", "/plain", says(OVER % ""))),
    asks("over", "watch", 200, req("GET", "/plain", says(OVER % ""))),
    asks("filter", "own", 200, req("GET", "/plain")),
    asks("route", "own", 200, req("GET", "/own")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_limit(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    wanted = {name: value for name, value in envoy.items() if ".ratelimit." in name and value}
    assert len(wanted) >= 5
    assert {name: ours.get(name) for name in wanted} == wanted
