"""HTTP filters: header_mutation, fault, cors, buffer, health_check, and how routes configure and switch them."""

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
WRAPPER = '"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig'
OFF = f"{{{WRAPPER}, disabled: true}}"


def chain(*filters: str) -> str:
    return f"http_filters: [{', '.join((*filters, ROUTER))}]"


def one(name: str, kind: str, fields: str = "", more: str = "") -> str:
    return f'{{name: {name}, typed_config: {{"@type": {HTTP}{kind}{", " if fields else ""}{fields}}}{more}}}'


def route(match: str, per_filter: str = "", action: str = "route: {cluster: a}") -> str:
    return f"{{match: {{prefix: {match}}}, {action}{f', typed_per_filter_config: {{{per_filter}}}' if per_filter else ''}}}"


def table(*routes: str, host: str = "", top: str = "") -> str:
    return f"""
{{ {top}virtual_hosts: [{{name: v, domains: ["*"], routes: [{", ".join(routes)}]{host}}}] }}
"""


MUTATIONS = """request_mutations: [
  {append: {header: {key: x-add, value: own}}},
  {append: {header: {key: x-absent, value: own}, append_action: ADD_IF_ABSENT}},
  {append: {header: {key: x-over, value: own}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}},
  {append: {header: {key: x-exists, value: own}, append_action: OVERWRITE_IF_EXISTS}},
  {append: {header: {key: x-format, value: "%REQ(:METHOD)%-%REQ(X-ADD)%"}}},
  {append: {header: {key: x-nothing, value: "%REQ(X-NONE)%"}}},
  {remove: x-drop}, {remove_on_match: {key_matcher: {prefix: x-secret-}}}],
  response_mutations: [{append: {header: {key: x-answer, value: "%RESPONSE_CODE%"}}}, {remove: x-up-drop}]"""


def per_route_mutation(word: str) -> str:
    return (
        f'mutation: {{"@type": {HTTP}header_mutation.v3.HeaderMutationPerRoute, mutations: {{'
        f"request_mutations: [{{append: {{header: {{key: x-add, value: {word}}}}}}}, "
        f"{{append: {{header: {{key: x-last, value: {word}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}}}], "
        f"response_mutations: [{{append: {{header: {{key: x-answer, value: {word}}}}}}}]}}}}"
    )


QUERY = """query_parameter_mutations: [
  {append: {record: {key: added, value: "a b"}}},
  {append: {record: {key: over, value: new}, action: OVERWRITE_IF_EXISTS_OR_ADD}},
  {append: {record: {key: absent, value: new}, action: ADD_IF_ABSENT}},
  {remove: drop}]"""


def mutating(most_specific: str = "") -> str:
    return one("mutation", "header_mutation.v3.HeaderMutation", f"mutations: {{{MUTATIONS}}}{most_specific}")


MUTATING = table(
    route("/route", per_route_mutation("route")),
    route("/off", f"mutation: {OFF}"),
    route("/"),
    host=f", typed_per_filter_config: {{{per_route_mutation('host')}}}",
    top=f"typed_per_filter_config: {{{per_route_mutation('table')}}}, ",
)

HUNDRED = "percentage: {numerator: 100}"


def fault(fields: str) -> str:
    return f'fault: {{"@type": {HTTP}fault.v3.HTTPFault, {fields}}}'


BIG = Reply(body=b"x" * 1500)
BIG_CHUNKED = Reply(body=b"x" * 1500, framing="chunked")
THROUGHPUT = "x-envoy-fault-throughput-response"
TELLING = "route: {cluster: a}, request_headers_to_add: [{header: {key: x-told, value: '%DYNAMIC_METADATA(fault:who)%'}}]"
FAULTY = table(
    route("/abort", fault(f"abort: {{http_status: 418, {HUNDRED}}}")),
    route("/never", fault("abort: {http_status: 418, percentage: {numerator: 0}}")),
    route("/nothing", fault("abort: {http_status: 418}")),
    route("/grpc", fault(f"abort: {{grpc_status: 8, {HUNDRED}}}")),
    route("/delay", fault(f"delay: {{fixed_delay: 0.2s, {HUNDRED}}}")),
    route("/both", fault(f"delay: {{fixed_delay: 0.2s, {HUNDRED}}}, abort: {{http_status: 503, {HUNDRED}}}")),
    route(
        "/matching",
        fault(
            f"abort: {{http_status: 418, {HUNDRED}}}, headers: [{{name: x-fault, string_match: {{exact: on-purpose}}}}, {{name: x-two}}]"
        ),
    ),
    route("/cluster", fault(f"abort: {{http_status: 418, {HUNDRED}}}, upstream_cluster: b")),
    route("/ours", fault(f"abort: {{http_status: 418, {HUNDRED}}}, upstream_cluster: a")),
    route("/node", fault(f"abort: {{http_status: 418, {HUNDRED}}}, downstream_nodes: [n1, n2]")),
    route("/header", fault(f"abort: {{header_abort: {{}}, {HUNDRED}}}, delay: {{header_delay: {{}}, {HUNDRED}}}")),
    route("/fixed", fault(f"response_rate_limit: {{fixed_limit: {{limit_kbps: 4}}, {HUNDRED}}}")),
    route("/slowheader", fault(f"response_rate_limit: {{header_limit: {{}}, {HUNDRED}}}")),
    route("/slownever", fault("response_rate_limit: {fixed_limit: {limit_kbps: 1}, percentage: {numerator: 0}}")),
    route(
        "/slowabort",
        fault(f"response_rate_limit: {{fixed_limit: {{limit_kbps: 1}}, {HUNDRED}}}, abort: {{http_status: 418, {HUNDRED}}}"),
    ),
    route("/slowoverflow", fault(f"response_rate_limit: {{fixed_limit: {{limit_kbps: 1}}, {HUNDRED}}}, max_active_faults: 0")),
    route("/told", fault(f"delay: {{fixed_delay: 0.01s, {HUNDRED}}}, filter_metadata: {{who: tester}}"), TELLING),
    route("/untold", fault("delay: {fixed_delay: 0.01s, percentage: {numerator: 0}}, filter_metadata: {who: tester}"), TELLING),
    route("/overflow", fault(f"abort: {{http_status: 418, {HUNDRED}}}, max_active_faults: 0")),
    route("/off", f"fault: {OFF}"),
    route("/"),
)


def cors(fields: str) -> str:
    return f'cors: {{"@type": {HTTP}cors.v3.CorsPolicy, {fields}}}'


ORIGIN = "allow_origin_string_match: [{exact: http://good.test}, {suffix: .fine.test}]"
CORS = table(
    route(
        "/full",
        cors(
            f'{ORIGIN}, allow_methods: "GET, POST", allow_headers: x-a, expose_headers: x-b, max_age: "60", allow_credentials: true'
        ),
    ),
    route("/partial", cors("allow_methods: PUT")),
    route("/strict", cors(f"{ORIGIN}, forward_not_matching_preflights: false")),
    route("/off", cors(f"{ORIGIN}, filter_enabled: {{default_value: {{numerator: 0}}}}")),
    route(
        "/shadow",
        cors(
            f"{ORIGIN}, filter_enabled: {{default_value: {{numerator: 0}}}}, shadow_enabled: {{default_value: {{numerator: 100}}}}"
        ),
    ),
    route("/private", cors(f"{ORIGIN}, allow_private_network_access: true")),
    route("/"),
    host=f", typed_per_filter_config: {{{cors(ORIGIN + ', max_age: 10')}}}".replace("max_age: 10", 'max_age: "10"'),
)
PREFLIGHT = "access-control-request-method: PUT"


def per_route_buffer(fields: str) -> str:
    return f'buffer: {{"@type": {HTTP}buffer.v3.BufferPerRoute, {fields}}}'


BUFFERED = table(
    route("/small", per_route_buffer("buffer: {max_request_bytes: 5}")),
    route("/off", per_route_buffer("disabled: true")),
    route("/"),
)
CHUNKED = "transfer-encoding: chunked"


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


AT_ONCE = {"response.headers.connection": "the end of the request was read already", "end": "likewise"}


def health(name: str, fields: str) -> str:
    return one(name, "health_check.v3.HealthCheck", fields + ", headers: [{name: ':path', string_match: {exact: /health}}]")


PLAIN = "[{match: {prefix: /}, route: {cluster: a}}]"
SWITCHED = table(
    route("/on", f"fault: {{{WRAPPER}, config: {{}}}}"),
    route("/config", fault(f"abort: {{http_status: 419, {HUNDRED}}}")),
    route(
        "/wrapped", f'fault: {{{WRAPPER}, config: {{"@type": {HTTP}fault.v3.HTTPFault, abort: {{http_status: 420, {HUNDRED}}}}}}}'
    ),
    route(
        "/weighted",
        "",
        f"route: {{weighted_clusters: {{clusters: [{{name: a, weight: 1, typed_per_filter_config: {{{fault(f'abort: {{http_status: 421, {HUNDRED}}}')}}}}}]}}}}",
    ),
    route("/", ""),
)

SUITE = Suite(
    bootstrap(
        [
            http("main", MUTATING, chain(mutating())),
            http("specific", MUTATING, chain(mutating(", most_specific_header_mutations_wins: true"))),
            http("query", PLAIN, chain(one("mutation", "header_mutation.v3.HeaderMutation", f"mutations: {{{QUERY}}}"))),
            http("faulty", FAULTY, chain(one("fault", "fault.v3.HTTPFault"))),
            http("cors", CORS, chain(one("cors", "cors.v3.Cors"))),
            http("buffer", BUFFERED, chain(one("buffer", "buffer.v3.Buffer", "max_request_bytes: 20"))),
            http("health", PLAIN, chain(health("h", "pass_through_mode: false"))),
            http(
                "clusters",
                PLAIN,
                chain(health("h", "pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 50}}")),
            ),
            http(
                "empty",
                PLAIN,
                chain(health("h", "pass_through_mode: false, cluster_min_healthy_percentages: {empty: {value: 50}}")),
            ),
            http(
                "missing",
                PLAIN,
                chain(health("h", "pass_through_mode: false, cluster_min_healthy_percentages: {none: {value: 50}}")),
            ),
            http("through", PLAIN, chain(health("h", "pass_through_mode: true"))),
            http("cached", PLAIN, chain(health("h", "pass_through_mode: true, cache_time: 60s"))),
            http(
                "switched",
                SWITCHED,
                chain(one("fault", "fault.v3.HTTPFault", f"abort: {{http_status: 418, {HUNDRED}}}", ", disabled: true")),
            ),
        ],
        [cluster("a", "a"), cluster("b", "b"), cluster("empty")],
        "node: {id: n, cluster: here}",
    ),
    (
        Case(
            "mutation_all",
            req("GET", "/", "x-add: 1", "x-absent: 1", "x-over: 1", "x-exists: 1", "x-drop: 1", "x-secret-a: 1", "x-secret-b: 1"),
            200,
            replies=(Reply(headers=(("x-up-drop", "1"), ("x-answer", "up"))),),
            want={"upstream.headers.x-over": "own"},
        ),
        Case("mutation_none_there", req("GET", "/"), 200),
        Case("mutation_route", req("GET", "/route"), 200, want={"upstream.headers.x-last": "table"}),
        Case("mutation_off", req("GET", "/off", "x-drop: 1"), 200, want={"upstream.headers.x-drop": "1"}),
        Case(
            "mutation_most_specific_wins",
            req("GET", "/route"),
            200,
            listener="specific",
            want={"upstream.headers.x-last": "route"},
        ),
        Case("mutation_query", req("GET", "/p?over=1&drop=2&x=3&absent=4&over=5"), 200, listener="query"),
        Case("mutation_query_none", req("GET", "/p"), 200, listener="query"),
        Case("mutation_query_order", req("GET", "/p?y=b&x=a&y=a"), 200, listener="query"),
        Case(
            "fault_abort",
            req("GET", "/abort"),
            418,
            "",
            listener="faulty",
            want={"log.flags": "FI", "log.details": "fault_filter_abort", "response.body": "fault filter abort"},
        ),
        Case("fault_abort_body", req("POST", "/abort", body=b"x" * 10), 418, "", listener="faulty"),
        Case("fault_abort_head", req("HEAD", "/abort"), 418, "", listener="faulty"),
        Case("fault_zero_percent", req("GET", "/never"), 200, "a", listener="faulty"),
        Case("fault_without_percentage", req("GET", "/nothing"), 200, "a", listener="faulty"),
        Case("fault_grpc_status_for_http", req("GET", "/grpc"), 200, "", listener="faulty"),
        Case(
            "fault_grpc_status_for_grpc",
            req("POST", "/grpc", "content-type: application/grpc", body=b"x"),
            200,
            "",
            listener="faulty",
            want={"response.headers.grpc-status": "8"},
        ),
        Case(
            "fault_http_status_for_grpc",
            req("POST", "/abort", "content-type: application/grpc", body=b"x"),
            200,
            "",
            listener="faulty",
        ),
        Case("fault_delay", req("GET", "/delay"), 200, "a", listener="faulty", want={"log.flags": "DI"}, seconds=(0.19, 30)),
        Case("fault_delay_with_body", req("POST", "/delay", body=b"y" * 50), 200, "a", listener="faulty", seconds=(0.19, 30)),
        Case(
            "fault_delay_and_abort",
            req("GET", "/both"),
            503,
            "",
            listener="faulty",
            want={"log.flags": "DI,FI"},
            seconds=(0.19, 30),
        ),
        Case("fault_headers_match", req("GET", "/matching", "x-fault: on-purpose", "x-two: 1"), 418, "", listener="faulty"),
        Case("fault_headers_differ", req("GET", "/matching", "x-fault: on-purpose"), 200, "a", listener="faulty"),
        Case("fault_other_cluster", req("GET", "/cluster"), 200, "a", listener="faulty"),
        Case("fault_this_cluster", req("GET", "/ours"), 418, "", listener="faulty"),
        Case("fault_other_node", req("GET", "/node", "x-envoy-downstream-service-node: n3"), 200, "a", listener="faulty"),
        Case("fault_this_node", req("GET", "/node", "x-envoy-downstream-service-node: n2"), 418, "", listener="faulty"),
        Case("fault_header_abort", req("GET", "/header", "x-envoy-fault-abort-request: 444"), 444, "", listener="faulty"),
        Case(
            "fault_header_abort_zero",
            req("GET", "/header", "x-envoy-fault-abort-request: 444", "x-envoy-fault-abort-request-percentage: 0"),
            200,
            "a",
            listener="faulty",
        ),
        Case("fault_header_abort_invalid", req("GET", "/header", "x-envoy-fault-abort-request: 99"), 200, "a", listener="faulty"),
        Case("fault_header_abort_grpc", req("GET", "/header", "x-envoy-fault-abort-grpc-request: 5"), 200, "", listener="faulty"),
        Case(
            "fault_header_delay",
            req("GET", "/header", "x-envoy-fault-delay-request: 200"),
            200,
            "a",
            listener="faulty",
            seconds=(0.19, 30),
        ),
        Case("fault_header_nothing", req("GET", "/header"), 200, "a", listener="faulty"),
        Case("fault_overflow", req("GET", "/overflow"), 200, "a", listener="faulty"),
        Case("fault_slow", req("GET", "/fixed"), 200, "a", listener="faulty", replies=(BIG,), seconds=(0.25, 30)),
        Case("fault_slow_chunked", req("GET", "/fixed"), 200, "a", listener="faulty", replies=(BIG_CHUNKED,), seconds=(0.25, 30)),
        Case("fault_slow_small", req("GET", "/fixed"), 200, "a", listener="faulty"),
        Case("fault_slow_head", req("HEAD", "/fixed"), 200, "a", listener="faulty"),
        Case(
            "fault_slow_header",
            req("GET", "/slowheader", "x-envoy-fault-throughput-response: 4"),
            200,
            "a",
            listener="faulty",
            replies=(BIG,),
            seconds=(0.25, 30),
        ),
        Case(
            "fault_slow_header_zero",
            req("GET", "/slowheader", "x-envoy-fault-throughput-response: 1", f"{THROUGHPUT}-percentage: 0"),
            200,
            "a",
            listener="faulty",
            replies=(BIG,),
            seconds=(0.0, 20),
        ),
        Case("fault_slow_header_invalid", req("GET", "/slowheader", f"{THROUGHPUT}: x"), 200, "a", listener="faulty"),
        Case("fault_slow_never", req("GET", "/slownever"), 200, "a", listener="faulty", replies=(BIG,), seconds=(0.0, 20)),
        Case("fault_slow_abort", req("GET", "/slowabort"), 418, "", listener="faulty"),
        Case("fault_slow_overflow", req("GET", "/slowoverflow"), 200, "a", listener="faulty", replies=(BIG,), seconds=(0.0, 20)),
        Case("fault_metadata", req("GET", "/told"), 200, "a", listener="faulty", want={"upstream.headers.x-told": "tester"}),
        Case("fault_metadata_without_fault", req("GET", "/untold"), 200, "a", listener="faulty"),
        Case("fault_off", req("GET", "/off"), 200, "a", listener="faulty"),
        Case(
            "cors_simple",
            req("GET", "/full", "origin: http://good.test"),
            200,
            "a",
            listener="cors",
            want={"response.headers.access-control-allow-credentials": "true"},
        ),
        Case("cors_suffix", req("GET", "/full", "origin: http://very.fine.test"), 200, "a", listener="cors"),
        Case("cors_bad_origin", req("GET", "/full", "origin: http://bad.test"), 200, "a", listener="cors"),
        Case("cors_no_origin", req("GET", "/full"), 200, "a", listener="cors"),
        Case(
            "cors_preflight",
            req("OPTIONS", "/full", "origin: http://good.test", PREFLIGHT),
            200,
            "",
            listener="cors",
            want={"log.details": "cors_response"},
        ),
        Case(
            "cors_preflight_bad_origin", req("OPTIONS", "/full", "origin: http://bad.test", PREFLIGHT), 200, "a", listener="cors"
        ),
        Case("cors_options_without_method", req("OPTIONS", "/full", "origin: http://good.test"), 200, "a", listener="cors"),
        Case("cors_inherits_origin", req("OPTIONS", "/partial", "origin: http://good.test", PREFLIGHT), 200, "", listener="cors"),
        Case("cors_host_policy", req("OPTIONS", "/", "origin: http://good.test", PREFLIGHT), 200, "", listener="cors"),
        Case(
            "cors_strict_bad_preflight", req("OPTIONS", "/strict", "origin: http://bad.test", PREFLIGHT), 200, "", listener="cors"
        ),
        Case("cors_off", req("GET", "/off", "origin: http://good.test"), 200, "a", listener="cors"),
        Case("cors_shadow", req("OPTIONS", "/shadow", "origin: http://good.test", PREFLIGHT), 200, "a", listener="cors"),
        Case(
            "cors_private",
            req("OPTIONS", "/private", "origin: http://good.test", PREFLIGHT, "access-control-request-private-network: true"),
            200,
            "",
            listener="cors",
        ),
        Case(
            "cors_error_has_headers_too",
            req("GET", "/full", "origin: http://good.test"),
            503,
            "a",
            listener="cors",
            replies=(Reply(status=503),),
        ),
        Case("buffer_get", req("GET", "/"), 200, "a", listener="buffer"),
        Case(
            "buffer_known_length",
            (req("POST", "/", body=b"")[:-2] + b"content-length: 6\r\n\r\nabc", b"def"),
            200,
            "a",
            listener="buffer",
        ),
        Case(
            "buffer_chunked",
            (req("POST", "/", CHUNKED), chunks(b"abc", b"def")),
            200,
            "a",
            listener="buffer",
            want={"upstream.headers.content-length": "6"},
        ),
        Case(
            "buffer_too_large",
            (req("POST", "/", CHUNKED), chunks(b"x" * 30)),
            413,
            "",
            accept=AT_ONCE,
            listener="buffer",
            want={"log.details": "request_payload_too_large"},
        ),
        Case("buffer_too_large_length", req("POST", "/", body=b"x" * 30), 413, "", accept=AT_ONCE, listener="buffer"),
        Case("buffer_exactly", req("POST", "/", body=b"x" * 20), 200, "a", listener="buffer"),
        Case("buffer_route_small", req("POST", "/small", body=b"x" * 6), 413, "", accept=AT_ONCE, listener="buffer"),
        Case("buffer_route_fits", req("POST", "/small", body=b"x" * 5), 200, "a", listener="buffer"),
        Case("buffer_route_off", (req("POST", "/off", CHUNKED), chunks(b"x" * 30)), 200, "a", listener="buffer"),
        Case("health_ok", req("GET", "/health"), 200, "", listener="health", want={"log.details": "health_check_ok"}),
        Case("health_post", req("POST", "/health", body=b"x"), 200, "", listener="health"),
        Case("health_other", req("GET", "/other"), 200, "a", listener="health"),
        Case(
            "health_clusters",
            req("GET", "/health"),
            200,
            "",
            listener="clusters",
            want={"log.details": "health_check_ok_cluster_healthy"},
        ),
        Case("health_cluster_empty", req("GET", "/health"), 503, "", listener="empty"),
        Case("health_cluster_missing", req("GET", "/health"), 503, "", listener="missing"),
        Case("health_pass_through", req("GET", "/health"), 200, "a", listener="through"),
        Case("health_pass_through_fails", req("GET", "/health"), 500, "a", listener="through", replies=(Reply(status=500),)),
        Case("health_cached_first", req("GET", "/health"), 404, "a", listener="cached", replies=(Reply(status=404),)),
        Case("switch_default_off", req("GET", "/"), 200, "a", listener="switched"),
        Case("switch_on", req("GET", "/on"), 418, "", listener="switched"),
        Case("switch_by_config", req("GET", "/config"), 419, "", listener="switched"),
        Case("switch_by_wrapped_config", req("GET", "/wrapped"), 420, "", listener="switched"),
        Case("switch_by_weighted_cluster", req("GET", "/weighted"), 421, "", listener="switched"),
    ),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_filter(pair: Pair, case: Case) -> None:
    pair.check(case)


STATS = {
    "http.faulty.fault.aborts_injected",
    "http.faulty.fault.delays_injected",
    "http.faulty.fault.faults_overflow",
    "http.faulty.fault.response_rl_injected",
    "http.cors.cors.origin_valid",
    "http.cors.cors.origin_invalid",
    "http.buffer.downstream_rq_too_large",
}


def test_counters(pair: Pair) -> None:
    if not pair.sides:  # when this test runs alone: then both have counted nothing
        pair.start()
    envoy, ours = (side.stats() for side in pair.sides)
    assert {name: ours.get(name) for name in STATS} == {name: envoy.get(name) for name in STATS}
