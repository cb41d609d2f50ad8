"""HTTP filters that look at callers' addresses and at how requests went: ip_tagging, adaptive_concurrency, admission_control."""

import pytest
from parity import Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
TO_A = "{match: {prefix: /}, route: {cluster: a}}"


def chain(kind: str, fields: str) -> str:
    return f'http_filters: [{{name: it, typed_config: {{"@type": {HTTP}{kind}, {fields}}}}}, {ROUTER}]'


TAGS = """ip_tags: [
  {ip_tag_name: ten, ip_list: [{address_prefix: 10.0.0.0, prefix_len: 8}]},
  {ip_tag_name: narrow, ip_list: [{address_prefix: 10.1.0.0, prefix_len: 16}, {address_prefix: 1.2.3.4, prefix_len: 32}]},
  {ip_tag_name: all_four, ip_list: [{address_prefix: 0.0.0.0, prefix_len: 0}]},
  {ip_tag_name: six, ip_list: [{address_prefix: "2001:db8::", prefix_len: 32}]}]"""
ONE = "ip_tags: [{ip_tag_name: ten, ip_list: [{address_prefix: 10.0.0.0, prefix_len: 8}]}]"
BY_TAG = f"[{{match: {{prefix: /, headers: [{{name: x-envoy-ip-tags, string_match: {{exact: ten}}}}]}}, route: {{cluster: b}}}}, {TO_A}]"
BY_OWN = f"[{{match: {{prefix: /, headers: [{{name: x-own, string_match: {{contains: ten}}}}]}}, route: {{cluster: b}}}}, {TO_A}]"


def tagging(name: str, fields: str, routes: str = f"[{TO_A}]") -> dict:  # type: ignore[type-arg]
    ranges = "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}"
    return http(name, routes, f"{chain('ip_tagging.v3.IPTagging', fields)}\n{ranges}")


ANY_ORDER = {"upstream.headers.x-envoy-ip-tags": "Envoy's order is that of a hash set; ours is the alphabet's"}


def tagged(name: str, listener: str, to: str, ip: str = "10.1.2.3", *headers: str, **want: str) -> Case:
    shown = {f"upstream.headers.{key.replace('_', '-')}": value for key, value in want.items()}
    return Case(name, req("GET", "/", f"x-forwarded-for: {ip}", *headers), 200, to, listener=listener, want=shown)


def concurrency(
    name: str, fields: str = "", rtt: str = "{min_concurrency: 1, interval: 60s, request_count: 3, jitter: {value: 0}}"
) -> dict:  # type: ignore[type-arg]
    gradient = f"gradient_controller_config: {{concurrency_limit_params: {{concurrency_update_interval: 0.1s}}, min_rtt_calc_params: {rtt}}}"
    return http(name, f"[{TO_A}]", chain("adaptive_concurrency.v3.AdaptiveConcurrency", f"{gradient}{fields}"))


def crowded(listener: str, *headers: str):  # type: ignore[no-untyped-def]
    """While one request is under way another one comes; then a third, when nobody is."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, listener) as one, Client(side, listener) as two:
            one.send(req("GET", "/held"))
            side.upstream.reached(1)
            two.send(req("POST", "/", *headers, "content-length: 0"))
            seen.responses.append(two.response("POST"))
            side.upstream.release()
            seen.responses.append(one.response())
            two.send(req("GET", "/"))
            seen.responses.append(two.response())

    return run


HELD = (Reply(held=True), Reply(), Reply())


def admission(name: str, fields: str = "", to: str = "a") -> dict:  # type: ignore[type-arg]
    steep = "aggression: {default_value: 1000000000.0, runtime_key: a}, max_rejection_probability: {default_value: {value: 100}, runtime_key: m}"
    criteria = "" if "success_criteria" in fields else ", success_criteria: {}"
    routes = f"[{{match: {{prefix: /}}, route: {{cluster: {to}}}}}]"
    return http(name, routes, chain("admission_control.v3.AdmissionControl", f"{steep}{criteria}{fields}"))


def then(name: str, listener: str, first: Reply, statuses: str, *headers: str, **more: object) -> Case:
    """A request that `first` answers, and another one: let through if that was a success, else refused."""
    want = {f"response[{i}].status" if i else "response.status": status for i, status in enumerate(statuses.split())}
    request = req("POST", "/", "content-length: 0", *headers)
    return Case(name, request * 2, methods=("POST",) * 2, listener=listener, replies=(first, Reply(body=b"")), want=want, **more)  # type: ignore[arg-type]


GRPC = ("content-type", "application/grpc")


def grpc(status: int, trailers: bool = False) -> Reply:
    told = (("grpc-status", str(status)),)
    return (
        Reply(headers=(GRPC,), body=b"\0\0\0\0\0", framing="chunked", trailers=told)
        if trailers
        else Reply(headers=(GRPC, *told), body=b"")
    )


SUCCESSES = (0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16)
CODES = tuple(range(17))
TRAILERS = """typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
  explicit_http_config: {http_protocol_options: {enable_trailers: true}}}}"""
RANGES = ", success_criteria: {http_criteria: {http_success_status: [{start: 200, end: 300}, {start: 500, end: 501}]}, grpc_criteria: {grpc_success_status: [14]}}"
SUITE = Suite(
    bootstrap(
        [
            tagging("tags", TAGS),
            tagging("tagroute", ONE, BY_TAG),
            tagging("internal", f"{ONE}, request_type: INTERNAL"),
            tagging("external", f"{ONE}, request_type: EXTERNAL"),
            tagging("sanitize", f"{ONE}, ip_tag_header: {{header: x-own}}", BY_OWN),
            tagging("append", f"{ONE}, ip_tag_header: {{header: x-own, action: APPEND_IF_EXISTS_OR_ADD}}", BY_OWN),
            concurrency("one"),
            concurrency("teapot", ", concurrency_limit_exceeded_status: {code: 429}"),
            concurrency("low", ", concurrency_limit_exceeded_status: {code: 200}"),
            concurrency("switched", ", enabled: {default_value: false, runtime_key: switch}"),
            concurrency("fixed", rtt="{min_concurrency: 1, fixed_value: 1s}"),
            *(admission(f"http{i}x") for i in range(6)),
            *(admission(f"grpc{i}x") for i in CODES),
            *(admission(f"range{i}", RANGES) for i in range(5)),
            admission("trailers", to="t"),
            admission("trailersbad", to="t"),
            admission("trailerslost"),
            admission("off", ", enabled: {default_value: false, runtime_key: switch}"),
            admission("slow", ", rps_threshold: {default_value: 1000, runtime_key: r}"),
            admission("threshold", ", sr_threshold: {default_value: {value: 1}, runtime_key: t}"),
            admission("reset"),
        ],
        [cluster("a", "a"), cluster("b", "b"), cluster("t", "a", extra=TRAILERS)],
    ),
    (
        tagged("one_tag_of_several_lists", "tags", "a", "172.16.0.1", x_envoy_ip_tags="all_four"),
        tagged("ip_v6", "tags", "a", "2001:db8::7", x_envoy_ip_tags="six"),
        tagged("no_tag", "tags", "a", "2001:db9::7"),
        tagged("route_by_tag", "tagroute", "b", x_envoy_ip_tags="ten"),
        tagged("no_route_by_tag", "tagroute", "a", "9.9.9.9"),
        tagged("header_of_the_caller", "tagroute", "a", "9.9.9.9", "x-envoy-ip-tags: ten"),
        Case(
            "header_of_an_internal_caller",
            req("GET", "/", "x-forwarded-for: 10.1.2.3", "x-envoy-ip-tags: mine"),
            200,
            "a",
            listener="tags",
            accept=ANY_ORDER,
            ours={"upstream.headers.x-envoy-ip-tags": "mine,all_four,narrow,ten"},
        ),
        tagged("internal_only", "internal", "a", x_envoy_ip_tags="ten"),
        tagged("not_internal", "internal", "a", "10.1.1.1, 9.9.9.9"),
        tagged("external_only", "external", "a"),
        tagged("external_hit", "external", "a", "9.9.9.9, 10.0.0.1"),
        tagged("own_header", "sanitize", "b", x_own="ten"),
        tagged("own_header_is_sanitized", "sanitize", "b", "10.1.2.3", "x-own: forged", x_own="ten"),
        tagged("own_header_is_removed", "sanitize", "a", "9.9.9.9", "x-own: ten"),
        tagged("own_header_is_appended_to", "append", "b", "10.1.2.3", "x-own: first", x_own="first,ten"),
        tagged("own_header_stays", "append", "b", "9.9.9.9", "x-own: ten", x_own="ten"),
        Case("limit_reached", run=crowded("one"), replies=HELD, listener="one", log=3, want={"response.status": "503", "response.body": "reached concurrency limit", "response[2].status": "200"}),
        Case("limit_reached_grpc", run=crowded("one", "content-type: application/grpc"), replies=HELD, listener="one", log=3, want={"response.headers.grpc-status": "14"}),
        Case("limit_reached_status", run=crowded("teapot"), replies=HELD, listener="teapot", log=3, want={"response.status": "429"}),
        Case("limit_reached_low_status", run=crowded("low"), replies=HELD, listener="low", log=3, want={"response.status": "503"}),
        Case("limit_switched_off", run=crowded("switched"), replies=HELD, listener="switched", log=3, want={"response.status": "200"}),
        Case("limit_with_fixed_rtt", run=crowded("fixed"), replies=HELD, listener="fixed", log=3, want={"response.status": "503"}),
        *(
            then(f"after_{status}", f"http{i}x", Reply(status=status, body=b""), f"{status} {200 if status < 500 else 503}")
            for i, status in enumerate((200, 302, 404, 429, 500, 503))
        ),
        *(
            then(f"after_grpc_{i}", f"grpc{i}x", grpc(i), f"200 {200 if i in SUCCESSES else 503}")
            for i in CODES
        ),
        then("after_200_in_range", "range0", Reply(body=b""), "200 200"),
        then("after_404_out_of_range", "range1", Reply(status=404, body=b""), "404 503"),
        then("after_500_in_range", "range2", Reply(status=500, body=b""), "500 200"),
        then("after_grpc_in_list", "range3", grpc(14), "200 200"),
        then("after_grpc_not_in_list", "range4", grpc(0), "200 503"),
        then("after_grpc_trailers", "trailers", grpc(0, True), "200 200"),
        then("after_bad_grpc_trailers", "trailersbad", grpc(13, True), "200 503"),
        then("after_lost_trailers", "trailerslost", grpc(13, True), "200 200"),
        Case(
            "refusal_for_grpc",
            req("POST", "/", "content-length: 0", "content-type: application/grpc") * 2,
            methods=("POST",) * 2,
            listener="reset",
            replies=(Reply(ending="reset_before"),),
            want={"response.headers.grpc-status": "14", "response[1].headers.grpc-status": "14", "log[1].details": "denied_by_admission_control"},
        ),
        then("admission_switched_off", "off", Reply(status=500, body=b""), "500 200"),
        then("below_rps_threshold", "slow", Reply(status=500, body=b""), "500 200"),
        then("low_threshold", "threshold", Reply(status=500, body=b""), "500 503"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_filter(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_counters(pair: Pair) -> None:
    """Of everything that the cases above did."""
    envoy, ours = (side.stats() for side in pair.sides)
    wanted = (".ip_tagging.", ".admission_control.", ".adaptive_concurrency.")
    moving = ("_msecs", ".gradient", "burst_queue_size", "concurrency_limit")  # ours move with the next request
    names = [name for name in envoy if any(part in name for part in wanted) and not name.endswith(moving)]
    assert len(names) > 60
    assert {name: ours.get(name, 0) for name in names} == {name: envoy[name] for name in names}
