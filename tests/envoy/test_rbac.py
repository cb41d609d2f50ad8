"""Authorization policies of the structure that Istio gives them: the same decision, details, metadata and counts from both."""

import pytest
import yaml
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, file_log, hcm, listener, req, tcp_proxy
from parity.config import LOG_OPERATORS

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
PLAIN = "[{match: {prefix: /}, route: {cluster: a}}]"
TOLD = "response_headers_to_add: [{header: {key: x-told, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac)%'}}, {header: {key: x-hint, value: '%DYNAMIC_METADATA(envoy.common)%'}}]"
LOG = {**LOG_OPERATORS, "told": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%", "hint": "%DYNAMIC_METADATA(envoy.common)%"}


def policy(permissions: str = "{any: true}", principals: str = "{any: true}") -> str:
    return f"{{permissions: [{permissions}], principals: [{principals}]}}"


def rule(namespace: str, name: str, permissions: str = "{any: true}", principals: str = "{any: true}", index: int = 0) -> str:
    """One rule as Istio names it."""
    return f'"ns[{namespace}]-policy[{name}]-rule[{index}]": {policy(permissions, principals)}'


def rbac(*rules: str, action: str = "ALLOW", shadow: str = "", more: str = "") -> str:
    text = f'"@type": {HTTP}rbac.v3.RBAC, rules: {{action: {action}, policies: {{{", ".join(rules)}}}}}'
    return f"{text}{', shadow_rules: ' + shadow if shadow else ''}{', ' + more if more else ''}"


def chain(*configs: str) -> str:
    filters = [f"{{name: rbac{i}, typed_config: {{{config}}}}}" for i, config in enumerate(configs)]
    return f"http_filters: [{', '.join(filters)}, {ROUTER}]"


def site(name: str, *configs: str, routes: str = PLAIN, extra: str = "") -> object:
    table = yaml.safe_load(routes)
    if isinstance(table, list):
        table = {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": table}], **yaml.safe_load(f"{{{TOLD}}}")}
    return listener(name, hcm(name, table, f"{chain(*configs)}\n{extra}", [file_log(f"$(dir)/{name}.log", LOG)]))


def both(*rules: str) -> str:
    return f"{{and_rules: {{rules: [{', '.join(rules)}]}}}}"


def either(*rules: str) -> str:
    return f"{{or_rules: {{rules: [{', '.join(rules)}]}}}}"


def no(one: str) -> str:
    return f"{{not_rule: {one}}}"


def ids(*rules: str) -> str:
    return f"{{and_ids: {{ids: [{', '.join(rules)}]}}}}"


def any_id(*rules: str) -> str:
    return f"{{or_ids: {{ids: [{', '.join(rules)}]}}}}"


def path(match: str) -> str:
    return f"{{url_path: {{path: {{{match}}}}}}}"


def host(match: str) -> str:
    return f"{{header: {{name: ':authority', string_match: {{{match}, ignore_case: true}}}}}}"


def method(match: str) -> str:
    return f"{{header: {{name: ':method', string_match: {{{match}}}}}}}"


def header(name: str, match: str) -> str:
    return f"{{header: {{name: {name}, {match}}}}}"


def principal(match: str) -> str:
    return f"{{authenticated: {{principal_name: {{{match}}}}}}}"


def regex(text: str) -> str:
    return f"safe_regex: {{regex: '{text}'}}"


def remote(prefix: str, length: int) -> str:
    return f"{{remote_ip: {{address_prefix: '{prefix}', prefix_len: {length}}}}}"


LISTED = header(
    "x-group",
    "string_match: {" + regex("^admin$|^admin,.*|.*,admin,.*|.*,admin$") + "}",
)
TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"


def template(text: str) -> str:
    return f"{{uri_template: {{name: uri-template, typed_config: {{'@type': {TEMPLATE}, path_template: '{text}'}}}}}}"


FULL = rule(
    "foo",
    "httpbin-1",
    both(
        either(host("exact: exact.com"), host("suffix: .suffix.com"), host("prefix: prefix.")),
        no(either(host("exact: not.suffix.com"), host("prefix: prefix.not"))),
        either(method("exact: GET"), method("prefix: P"), method("suffix: TIONS")),
        no(either(method("exact: PUT"))),
        either(path("exact: /exact"), path("prefix: /prefix/"), path("suffix: /suffix"), path(regex("/api/v[0-9]+/.*"))),
        no(either(path("prefix: /prefix/private"))),
        either("{destination_port: 80}", "{destination_port: $(port.full)}"),
        no(either("{destination_port: 9000}")),
        either("{destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}"),
        no(either("{destination_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}")),
        no(either("{requested_server_name: {exact: not-exact.com}}")),
    ),
    ids(
        any_id(remote("1.2.3.4", 32), remote("5.6.0.0", 16)),
        f"{{not_id: {any_id(remote('5.6.9.0', 24))}}}",
        any_id("{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}"),
        any_id(LISTED, header("x-group", "string_match: {prefix: dev-}")),
    ),
)
PER_ROUTE = f"'@type': {HTTP}rbac.v3.RBACPerRoute"
ROUTED = f"""[
 {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{rbac0: {{{PER_ROUTE}}}}}}},
 {{match: {{prefix: /post}}, route: {{cluster: a}}, typed_per_filter_config: {{rbac0: {{{PER_ROUTE}, rbac: {{rules_stat_prefix: theirs_, track_per_rule_stats: true, rules: {{policies: {{p: {policy(method("exact: POST"))}}}}}}}}}}}}},
 {{match: {{prefix: /gone}}, direct_response: {{status: 200, body: {{inline_string: direct}}}}}},
 {{match: {{prefix: /meta}}, route: {{cluster: a}}, metadata: {{filter_metadata: {{owner: {{team: red, level: 3, list: [a, b]}}}}}}}},
 {{match: {{prefix: /}}, route: {{cluster: a}}}}]"""


def sourced(value: str, key: str = "team") -> str:
    return f"{{sourced_metadata: {{metadata_source: ROUTE, metadata_matcher: {{filter: owner, path: [{{key: {key}}}], value: {{{value}}}}}}}}}"


def tcp(name: str, settings: str) -> object:
    filter_ = yaml.safe_load(
        f"{{name: rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, {settings}}}}}"
    )
    return listener(name, filter_, tcp_proxy(name, "cluster: echo"))


def connection(name: str, passes: bool) -> Case:
    """Bytes go through, or the connection ends without any."""

    def talk(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, name) as client:
            client.send(b"hello")
            got = client.stream.exactly(10) if passes else b""
            if not passes:
                # With Envoy the endpoint, which speaks first, may be heard before the decision.
                while piece := client.stream.some():
                    got += piece
                assert side.kind == "envoy" or not got
            seen.notes["answered"] = str(b"hello" in got)

    return Case(
        name,
        run=talk,
        listener="none",
        log=0,
        want={"note.answered": str(passes)},
        accept={"log*": "ours logs no session that never was", "tcp*": "likewise"},
    )


SHADOW = f"{{action: DENY, policies: {{{rule('foo', 'dry', path('prefix: /dry'))}}}}}"
TRUSTED = "use_remote_address: false"
SUITE = Suite(
    bootstrap(
        [
            site("none", rbac()),
            site("everybody", rbac(rule("foo", "open"))),
            site("denyall", rbac(rule("foo", "deny-all"), action="DENY")),
            site("full", rbac(FULL), extra="normalize_path: true"),
            site(
                "layers",
                rbac(rule("foo", "audit", path("prefix: /audit")), action="LOG"),
                rbac(rule("foo", "deny-admin", path("prefix: /admin")), rule("foo", "deny-put", method("exact: PUT")), action="DENY"),
                rbac(rule("foo", "get", method("exact: GET")), rule("foo", "any-audit", path("prefix: /audit"))),
            ),
            site(
                "dry",
                rbac(rule("foo", "all"), shadow=SHADOW, more="shadow_rules_stat_prefix: istio_dry_run_deny_, track_per_rule_stats: true"),
            ),
            site("routed", rbac(rule("foo", "get", method("exact: GET")), more="rules_stat_prefix: own_"), routes=f"{{virtual_hosts: [{{name: v, domains: ['*'], routes: {ROUTED}}}], {TOLD}}}"),
            site("meta", rbac(rule("foo", "team", sourced("string_match: {exact: red}"))), routes=ROUTED),
            site("list", rbac(rule("foo", "list", both(sourced("list_match: {one_of: {string_match: {exact: b}}}", "list"), sourced("double_match: {range: {start: 1, end: 4}}", "level"), sourced("present_match: true", "level")))), routes=ROUTED),
            site("absent", rbac(rule("foo", "absent", both(no(sourced("present_match: true", "nothing")), sourced("or_match: {value_matchers: [{null_match: {}}, {string_match: {prefix: r}}]}")))), routes=ROUTED),
            site("mtls", rbac(rule("foo", "sa", principals=any_id(principal("exact: spiffe://cluster.local/ns/foo/sa/a"), principal(regex(".*/ns/bar/.*"))))),),
            site("anytls", rbac(rule("foo", "tls", principals="{authenticated: {}}")),),
            site("notls", rbac(rule("foo", "plain", principals="{not_id: {authenticated: {}}}")),),
            site("template", rbac(rule("foo", "t", either(template("/users/{*}/books/{**}".replace("{*}", "*").replace("{**}", "**")), template("/one/{name}"), template("/files/{rest=**}.txt".replace(".txt", "")))))),
            site("sources", rbac(rule("foo", "s", principals=any_id("{source_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}")), rule("foo", "never", "{destination_port_range: {start: 1, end: 2}}")), extra=TRUSTED),
            site("sixes", rbac(rule("foo", "v6", principals=remote("2001:db8::", 32))), extra=TRUSTED),
            site("headers", rbac(rule("foo", "h", either(header("x-a", "present_match: true"), header("x-b", "range_match: {start: 5, end: 10}"), header("x-c", "string_match: {exact: 'no'}, invert_match: true"), LISTED)))),
            site("denyheader", rbac(rule("foo", "h", header("x-role", "string_match: {exact: bad}")), action="DENY")),
            tcp("tcpall", f"rules: {{policies: {{p: {policy()}}}}}, stat_prefix: tcp."),
            tcp("tcpnone", "rules: {}, stat_prefix: none"),
            tcp("tcphere", f"rules: {{policies: {{p: {policy('{destination_port: $(port.tcphere)}', '{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}')}}}}}, stat_prefix: here."),
            tcp("tcpdeny", f"rules: {{action: DENY, policies: {{p: {policy('{requested_server_name: {exact: x}}')}, q: {policy('{any: true}', remote('127.0.0.0', 8))}}}}}, stat_prefix: deny."),
            tcp("tcpheader", f"rules: {{action: DENY, policies: {{q: {policy(path('prefix: /'))}}}}}, stat_prefix: header."),
            tcp("tcpdry", f"rules: {{policies: {{p: {policy()}}}}}, shadow_rules: {{action: DENY, policies: {{p: {policy()}}}}}, shadow_rules_stat_prefix: dry_, stat_prefix: dry."),
        ],
        [cluster("a", "a"), cluster("echo", "tcp.echo")],
    ),
)  # fmt: skip


def ask(name: str, listener: str, status: int, request: bytes, **more: object) -> Case:
    accept = {
        "response*.headers.x-told": "Envoy tells of a denial after its answer; our log, written with the answer, has to know it"
    }
    return Case(f"{listener}_{name}", request, status, listener=listener, accept=accept, **more)  # type: ignore[arg-type]


GOOD = ("x-forwarded-for: 1.2.3.4", "x-group: admin")


def full(
    name: str, status: int, *, verb: str = "GET", target: str = "/exact", at: str = "exact.com", headers: tuple[str, ...] = GOOD
) -> Case:
    return ask(name, "full", status, req(verb, target, *headers, host=at))


GRPC = ("content-type: application/grpc", "te: trailers", "content-length: 0")
CASES = (
    ask("get", "none", 403, req(), want={"log.details": "rbac_access_denied_matched_policy[none]"}),
    ask("grpc", "none", 200, req("POST", "/s.S/M", *GRPC), want={"response.headers.grpc-status": "7"}),
    ask("get", "everybody", 200, req()),
    ask("get", "denyall", 403, req(), want={"log.details": "rbac_access_denied_matched_policy[ns[foo]-policy[deny-all]-rule[0]]"}),
    full("exact", 200),
    full("host_case", 200, at="EXACT.com"),
    full("host_suffix", 200, at="a.suffix.com"),
    full("host_prefix", 200, at="prefix.net"),
    full("host_not", 403, at="not.suffix.com"),
    full("host_not_prefix", 403, at="prefix.not.org"),
    full("host_other", 403, at="other.com"),
    full("host_with_port", 403, at="exact.com:80"),
    full("method_prefix", 200, verb="POST"),
    full("method_suffix", 200, verb="OPTIONS"),
    full("method_other", 403, verb="DELETE"),
    full("method_not", 403, verb="PUT"),
    full("path_query", 200, target="/exact?x=1"),
    full("path_fragment_free", 200, target="/exact?/other"),
    full("path_prefix", 200, target="/prefix/a"),
    full("path_prefix_not", 403, target="/prefix/private/a"),
    full("path_suffix", 200, target="/some/suffix"),
    full("path_suffix_in_query", 403, target="/some?/suffix"),
    full("path_regex", 200, target="/api/v12/x"),
    full("path_regex_not_whole", 403, target="/x/api/v12/x"),
    full("path_case", 403, target="/EXACT"),
    full("path_other", 403, target="/"),
    full("path_dots", 403, target="/prefix/../secret"),
    full("path_escaped", 200, target="/%65xact"),
    full("remote_net", 200, headers=("x-forwarded-for: 5.6.7.8", "x-group: admin")),
    full("remote_not_net", 403, headers=("x-forwarded-for: 5.6.9.8", "x-group: admin")),
    full("remote_other", 403, headers=("x-forwarded-for: 9.9.9.9", "x-group: admin")),
    full("remote_direct", 403, headers=("x-group: admin",)),
    full("remote_last_hop", 200, headers=("x-forwarded-for: 9.9.9.9, 1.2.3.4", "x-group: admin")),
    full("remote_first_hop", 403, headers=("x-forwarded-for: 1.2.3.4, 9.9.9.9", "x-group: admin")),
    full("group_in_list", 200, headers=("x-forwarded-for: 1.2.3.4", "x-group: dev,admin,ops")),
    full("group_last", 200, headers=("x-forwarded-for: 1.2.3.4", "x-group: dev,admin")),
    full("group_repeated", 200, headers=("x-forwarded-for: 1.2.3.4", "x-group: dev", "x-group: admin")),
    full("group_prefix", 200, headers=("x-forwarded-for: 1.2.3.4", "x-group: dev-1")),
    full("group_prefix_second", 200, headers=("x-forwarded-for: 1.2.3.4", "x-group: a", "x-group: dev-1")),
    full("group_part", 403, headers=("x-forwarded-for: 1.2.3.4", "x-group: administrator")),
    full("group_absent", 403, headers=("x-forwarded-for: 1.2.3.4",)),
    ask("get", "layers", 200, req()),
    ask("admin", "layers", 403, req("GET", "/admin/x"), want={"log.details": "rbac_access_denied_matched_policy[ns[foo]-policy[deny-admin]-rule[0]]"}),
    ask("put", "layers", 403, req("PUT", "/")),
    ask("post", "layers", 403, req("POST", "/")),
    ask("audit", "layers", 200, req("POST", "/audit")),
    ask("audit_put", "layers", 403, req("PUT", "/audit")),
    ask("admin_in_query", "layers", 200, req("GET", "/?/admin")),
    ask("get", "dry", 200, req()),
    ask("would_deny", "dry", 200, req("GET", "/dry/x")),
    ask("get", "routed", 200, req("GET", "/x")),
    ask("delete", "routed", 403, req("DELETE", "/x")),
    ask("off", "routed", 200, req("DELETE", "/off")),
    ask("route_get", "routed", 403, req("GET", "/post")),
    ask("route_post", "routed", 200, req("POST", "/post")),
    ask("direct", "routed", 200, req("GET", "/gone")),
    ask("direct_denied", "routed", 403, req("PUT", "/gone")),
    ask("team", "meta", 200, req("GET", "/meta")),
    ask("no_team", "meta", 403, req("GET", "/x")),
    ask("values", "list", 200, req("GET", "/meta")),
    ask("no_values", "list", 403, req("GET", "/x")),
    ask("values", "absent", 200, req("GET", "/meta")),
    ask("no_values", "absent", 403, req("GET", "/x")),
    ask("plain", "mtls", 403, req()),
    ask("plain", "anytls", 403, req()),
    ask("plain", "notls", 200, req()),
    ask("segments", "template", 200, req("GET", "/users/7/books/a/b")),
    ask("rest_empty", "template", 200, req("GET", "/users/7/books/")),
    ask("two_segments", "template", 403, req("GET", "/users/7/8/books/a")),
    ask("named", "template", 200, req("GET", "/one/a?b=c")),
    ask("named_empty", "template", 403, req("GET", "/one/")),
    ask("named_rest", "template", 200, req("GET", "/files/a/b.txt")),
    ask("no_template", "template", 403, req("GET", "/user/7/books/a")),
    ask("peer", "sources", 200, req("GET", "/", "x-forwarded-for: 8.8.8.8")),
    ask("inside", "sixes", 200, req("GET", "/", "x-forwarded-for: 2001:db8::1")),
    ask("outside", "sixes", 403, req("GET", "/", "x-forwarded-for: 2001:db9::1")),
    ask("version_4", "sixes", 403, req("GET", "/", "x-forwarded-for: 1.2.3.4")),
    ask("none", "headers", 403, req()),
    ask("present", "headers", 200, req("GET", "/", "x-a: 1")),
    ask("in_range", "headers", 200, req("GET", "/", "x-b: 5")),
    ask("out_of_range", "headers", 403, req("GET", "/", "x-b: 10")),
    ask("inverted", "headers", 200, req("GET", "/", "x-c: yes")),
    ask("inverted_not", "headers", 403, req("GET", "/", "x-c: no")),
    ask("bad", "denyheader", 403, req("GET", "/", "x-role: bad")),
    ask("bad_second", "denyheader", 403, req("GET", "/", "x-role: good", "x-role: bad")),
    ask("bad_joined", "denyheader", 200, req("GET", "/", "x-role: good,bad")),
    ask("good", "denyheader", 200, req("GET", "/", "x-role: good")),
)  # fmt: skip


CONNECTIONS = (
    connection("tcpall", True),
    connection("tcpnone", False),
    connection("tcphere", True),
    connection("tcpdeny", False),
    connection("tcpheader", True),
    connection("tcpdry", True),
)


@pytest.mark.parametrize("case", CONNECTIONS, ids=str)
def test_connection(pair: Pair, case: Case) -> None:
    pair.check(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decision(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_at_least_sixty() -> None:
    assert len(CASES) >= 60


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    wanted = {name: value for name, value in envoy.items() if "rbac" in name and value}
    assert len(wanted) > 20
    assert {name: ours.get(name) for name in wanted} == wanted
