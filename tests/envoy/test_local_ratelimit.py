"""Local rate limits: buckets, descriptors from every action, enforcement, headers, per connection, per route."""

import pytest
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
ON = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"


def bucket(tokens: int, fill: int = 1, seconds: str = "100s") -> str:
    return f"token_bucket: {{max_tokens: {tokens}, tokens_per_fill: {fill}, fill_interval: {seconds}}}"


def limit(fields: str) -> str:
    return f'"@type": {HTTP}local_ratelimit.v3.LocalRateLimit, stat_prefix: rl, {fields}'


def chain(fields: str) -> str:
    return f"http_filters: [{{name: limit, typed_config: {{{limit(fields)}}}}}, {ROUTER}]"


def route(path: str, fields: str, action: str = "", more: str = "") -> str:
    per_filter = f"typed_per_filter_config: {{limit: {{{limit(fields)}}}}}"
    return f"{{match: {{prefix: {path}}}, route: {{cluster: a{action}}}, {per_filter}{more}}}"


def described(entries: str, actions: str, tokens: int = 1, default: int = 50) -> str:
    """A bucket for one descriptor, and a large default one."""
    return f"{bucket(default)}, {ON}, descriptors: [{{entries: [{entries}], {bucket(tokens)}}}], rate_limits: [{{actions: [{actions}]}}]"


HEADERS = "enable_x_ratelimit_headers: DRAFT_VERSION_03"
ADD = "response_headers_to_add: [{header: {key: x-limited, value: 'yes'}}]"
ROUTES = ", ".join(
    [
        route("/two", f"{bucket(2)}, {ON}"),
        route("/none", f"{bucket(1)}"),
        route(
            "/counted",
            f"{bucket(1)}, filter_enabled: {{default_value: {{numerator: 100}}}}, request_headers_to_add_when_not_enforced: [{{header: {{key: x-over, value: 'yes'}}}}]",
        ),
        route("/status", f"{bucket(1)}, {ON}, status: {{code: 503}}, {ADD}"),
        route("/lowstatus", f"{bucket(1)}, {ON}, status: {{code: 200}}"),
        route("/headers", f"{bucket(3)}, {ON}, {HEADERS}"),
        route("/grpc", f"{bucket(1)}, {ON}"),
        route("/exhausted", f"{bucket(1)}, {ON}, rate_limited_as_resource_exhausted: true"),
        route("/generic", described("{key: k, value: a}", "{generic_key: {descriptor_key: k, descriptor_value: a}}")),
        route("/header", described("{key: who, value: me}", "{request_headers: {header_name: x-who, descriptor_key: who}}")),
        route(
            "/query", described("{key: who, value: me}", "{query_parameters: {query_parameter_name: who, descriptor_key: who}}")
        ),
        route(
            "/match",
            described(
                "{key: header_match, value: v}",
                "{header_value_match: {descriptor_value: v, headers: [{name: x-m, string_match: {exact: 'on'}}]}}",
            ),
        ),
        route(
            "/unmatch",
            described(
                "{key: header_match, value: v}",
                "{header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: x-m}]}}",
            ),
        ),
        route(
            "/qmatch",
            described(
                "{key: query_match, value: v}",
                "{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: m}]}}",
            ),
        ),
        route("/remote", described("{key: remote_address, value: 127.0.0.1}", "{remote_address: {}}")),
        route(
            "/masked",
            described("{key: masked_remote_address, value: 127.0.0.0/8}", "{masked_remote_address: {v4_prefix_mask_len: 8}}"),
        ),
        route("/destination", described("{key: destination_cluster, value: a}", "{destination_cluster: {}}")),
        route("/source", described("{key: source_cluster, value: parity-cluster}", "{source_cluster: {}}")),
        route(
            "/entry",
            described(
                "{key: m, value: gold}",
                "{metadata: {descriptor_key: m, source: ROUTE_ENTRY, metadata_key: {key: f, path: [{key: level}]}}}",
            ),
            more=", metadata: {filter_metadata: {f: {level: gold}}}",
        ),
        route(
            "/default",
            described(
                "{key: m, value: none}",
                "{metadata: {descriptor_key: m, source: ROUTE_ENTRY, metadata_key: {key: f, path: [{key: level}]}, default_value: none}}",
            ),
        ),
        route(
            "/entries2",
            described(
                "{key: a, value: x}, {key: generic_key, value: g}",
                "{request_headers: {header_name: x-a, descriptor_key: a}}, {generic_key: {descriptor_value: g}}",
            ),
        ),
        route(
            "/skip",
            described(
                "{key: generic_key, value: g}",
                "{request_headers: {header_name: x-a, descriptor_key: a, skip_if_absent: true}}, {generic_key: {descriptor_value: g}}",
            ),
        ),
        *(
            route(
                f"/hits{name}",
                f"{bucket(50)}, {ON}, descriptors: [{{entries: [{{key: generic_key, value: g}}], {bucket(4)}}}], "
                f"rate_limits: [{{actions: [{{generic_key: {{descriptor_value: g}}}}], hits_addend: {{{hits}}}}}]",
            )
            for name, hits in (
                ("number", "number: 3"),
                ("zero", "number: 0"),
                ("many", "number: 5"),
                ("format", "format: '%REQ(x-cost)%'"),
                ("text", "format: '%REQ(x-cost)%'"),
                ("absent", "format: '%REQ(x-cost)%'"),
            )
        ),
        route("/any", described("{key: who, value: ''}", "{request_headers: {header_name: x-who, descriptor_key: who}}")),
        route(
            "/strict",
            f"{bucket(50)}, {ON}, {HEADERS}, descriptors: [{{entries: [{{key: generic_key, value: a}}], {bucket(9)}}}, {{entries: [{{key: generic_key, value: b}}], {bucket(1, seconds='1000s')}}}], rate_limits: [{{actions: [{{generic_key: {{descriptor_value: a}}}}]}}, {{actions: [{{generic_key: {{descriptor_value: b}}}}]}}]",
        ),
        route("/consume", described("{key: generic_key, value: g}", "{generic_key: {descriptor_value: g}}", tokens=9, default=1)),
        route(
            "/spare",
            described("{key: generic_key, value: g}", "{generic_key: {descriptor_value: g}}", tokens=9, default=1)
            + ", always_consume_default_token_bucket: false",
        ),
        route(
            "/ofroute",
            f"{bucket(50)}, {ON}, descriptors: [{{entries: [{{key: generic_key, value: r}}], {bucket(1)}}}]",
            ", rate_limits: [{actions: [{generic_key: {descriptor_value: r}}]}]",
        ),
        route(
            "/stage",
            f"{bucket(50)}, {ON}, stage: 1, descriptors: [{{entries: [{{key: generic_key, value: r}}], {bucket(1)}}}]",
            ", rate_limits: [{actions: [{generic_key: {descriptor_value: r}}]}]",
        ),
        route("/ofhost", f"{bucket(50)}, {ON}, descriptors: [{{entries: [{{key: generic_key, value: h}}], {bucket(1)}}}]"),
        route(
            "/hostover",
            f"{bucket(50)}, {ON}, descriptors: [{{entries: [{{key: generic_key, value: h}}], {bucket(1)}}}]",
            ", rate_limits: [{actions: [{generic_key: {descriptor_value: r}}]}]",
        ),
        route(
            "/hostinclude",
            f"{bucket(50)}, {ON}, vh_rate_limits: INCLUDE, descriptors: [{{entries: [{{key: generic_key, value: h}}], {bucket(1)}}}]",
            ", rate_limits: [{actions: [{generic_key: {descriptor_value: r}}]}]",
        ),
        route(
            "/hostignore",
            f"{bucket(50)}, {ON}, vh_rate_limits: IGNORE, descriptors: [{{entries: [{{key: generic_key, value: h}}], {bucket(1)}}}]",
        ),
        "{match: {prefix: /}, route: {cluster: a}}",
    ]
)
TABLE = f"""{{virtual_hosts: [{{name: v, domains: ["*"], routes: [{ROUTES}], rate_limits: [{{actions: [{{generic_key: {{descriptor_value: h}}}}]}}]}}]}}"""


def many(name: str, path: str, statuses: str, *headers: str, listener: str = "main", **more: object) -> Case:
    """Requests one after the other; the statuses that Envoy gives."""
    count = len(statuses.split())
    want = {f"response[{i}].status" if i else "response.status": status for i, status in enumerate(statuses.split())}
    return Case(name, req("GET", path, *headers) * count, methods=("GET",) * count, listener=listener, want=want, **more)  # type: ignore[arg-type]


def two_connections(pair: Pair, side: Side, seen: Observation) -> None:
    for _ in range(2):
        with Client(side, "connection") as client:
            for _ in range(2):
                client.send(req("GET", "/"))
                seen.responses.append(client.response())


def refill(pair: Pair, side: Side, seen: Observation) -> None:
    """Empty the bucket, wait for a token and half of the next, take one: two seconds either way for a busy machine."""
    import time

    with Client(side, "refill") as client:
        for pause in (0, 0, 6.0, 0):
            time.sleep(pause)
            client.send(req("GET", "/"))
            seen.responses.append(client.response())


TIMED = {"response*.headers.x-ratelimit-reset": "time goes on"}
SUITE = Suite(
    bootstrap(
        [
            http("main", TABLE, chain(f"{bucket(1000)}")),
            http("plain", "[{match: {prefix: /}, route: {cluster: a}}]", chain(f"{bucket(1)}, {ON}")),
            http(
                "nobucket",
                "[{match: {prefix: /}, route: {cluster: a}}]",
                chain(
                    f"{ON}, descriptors: [{{entries: [{{key: generic_key, value: a}}], {bucket(1)}}}], rate_limits: [{{actions: [{{generic_key: {{descriptor_value: a}}}}]}}]"
                ),
            ),
            http(
                "connection",
                "[{match: {prefix: /}, route: {cluster: a}}]",
                chain(f"{bucket(1)}, {ON}, local_rate_limit_per_downstream_connection: true"),
            ),
            http("refill", "[{match: {prefix: /}, route: {cluster: a}}]", chain(f"{bucket(1, seconds='4s')}, {ON}")),
        ],
        [cluster("a", "a")],
        "node: {id: n, cluster: parity}",
    ),
    (
        many("plain", "/", "200 429", listener="plain"),
        many("two", "/two", "200 200 429"),
        many("not_enabled", "/none", "200 200"),
        many("not_enforced", "/counted", "200 200"),
        many("status_and_headers", "/status", "200 503"),
        many("low_status", "/lowstatus", "200 429"),
        many("x_headers", "/headers", "200 200 200 429", accept=TIMED),
        Case(
            "grpc",
            req("POST", "/grpc", "content-type: application/grpc", "content-length: 0") * 2,
            methods=("POST",) * 2,
            want={"response[1].headers.grpc-status": "14"},
        ),
        Case(
            "grpc_exhausted",
            req("POST", "/exhausted", "content-type: application/grpc", "content-length: 0") * 2,
            methods=("POST",) * 2,
            want={"response[1].headers.grpc-status": "8"},
        ),
        many("without_default_bucket", "/", "200 429", listener="nobucket"),
        many("generic_key", "/generic", "200 429"),
        many("request_header", "/header", "200 429", "x-who: me"),
        many("request_header_other", "/header", "200 200", "x-who: you"),
        many("request_header_absent", "/header", "200 200"),
        many("query", "/query?who=me", "200 429"),
        many("query_other", "/query?who=you", "200 200"),
        many("header_match", "/match", "200 429", "x-m: on"),
        many("header_no_match", "/match", "200 200", "x-m: off"),
        many("header_expected_absent", "/unmatch", "200 429"),
        many("header_unexpected", "/unmatch", "200 200", "x-m: 1"),
        many("query_match", "/qmatch?m=1", "200 429"),
        many("query_no_match", "/qmatch", "200 200"),
        many("remote_address", "/remote", "200 429"),
        many("masked_remote_address", "/masked", "200 429"),
        many("destination_cluster", "/destination", "200 429"),
        many("source_cluster", "/source", "200 429"),
        many("route_metadata", "/entry", "200 429"),
        many("route_metadata_default", "/default", "200 429"),
        many("two_entries", "/entries2", "200 429", "x-a: x"),
        many("two_entries_one_absent", "/entries2", "200 200"),
        many("skipped_entry", "/skip", "200 429"),
        many("hits_number", "/hitsnumber", "200 429"),
        many("hits_zero", "/hitszero", "429 429"),
        many("hits_more_than_there_are", "/hitsmany", "429 429"),
        many("hits_format", "/hitsformat", "200 200 429", "x-cost: 2"),
        many("hits_no_number", "/hitstext", "200 200 200 200 200", "x-cost: much"),
        many("hits_absent", "/hitsabsent", "200 200 200 200 200"),
        many("any_value_one", "/any", "200 429", "x-who: one"),
        many("any_value_other", "/any", "200 429", "x-who: other"),
        many("strictest_first", "/strict", "200 429", accept=TIMED),
        many("default_is_consumed_too", "/consume", "200 429"),
        many("default_is_spared", "/spare", "200 200"),
        many("limits_of_route", "/ofroute", "200 429"),
        many("other_stage", "/stage", "200 200"),
        many("limits_of_host", "/ofhost", "200 429"),
        many("route_overrides_host", "/hostover", "200 200"),
        many("host_included", "/hostinclude", "200 429"),
        many("host_ignored", "/hostignore", "200 200"),
        Case(
            "per_connection",
            run=two_connections,
            listener="connection",
            log=4,
            want={"response[1].status": "429", "response[2].status": "200"},
        ),
        Case(
            "refill",
            run=refill,
            listener="refill",
            log=4,
            want={"response[1].status": "429", "response[2].status": "200", "response[3].status": "429"},
        ),
    ),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_limit(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    names = [f"rl.http_local_rate_limit.{what}" for what in ("enabled", "enforced", "rate_limited", "ok")]
    assert {name: ours.get(name) for name in names} == {name: envoy.get(name) for name in names}
