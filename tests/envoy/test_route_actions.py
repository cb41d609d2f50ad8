"""What a route does: direct responses, redirects, clusters by name and by header, weights, path and host rewrites."""

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

DIRECT = r"""
- {match: {path: /d/plain}, direct_response: {status: 200, body: {inline_string: "made here\n"}}}
- {match: {path: /d/empty}, direct_response: {status: 204}}
- {match: {path: /d/teapot}, direct_response: {status: 418, body: {inline_string: short}}, response_headers_to_add: [{header: {key: x-pot, value: tea}}]}
- {match: {path: /d/typed}, direct_response: {status: 403, body: {inline_string: "{}"}}, response_headers_to_add: [{header: {key: content-type, value: application/json}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]}
- {match: {path: /d/nobody}, direct_response: {status: 503}}
"""
REDIRECT = r"""
- {match: {path: /r/host}, redirect: {host_redirect: new.test}}
- {match: {path: /r/port}, redirect: {port_redirect: 8443}}
- {match: {path: /r/path}, redirect: {path_redirect: /elsewhere}}
- {match: {path: /r/path-query}, redirect: {path_redirect: "/elsewhere?fixed=1"}}
- {match: {prefix: /r/prefix/}, redirect: {prefix_rewrite: /p/}}
- {match: {prefix: /r/regex/}, redirect: {regex_rewrite: {pattern: {regex: "/r/regex/([0-9]+)/(.*)"}, substitution: "/\\2/\\1"}}}
- {match: {path: /r/scheme}, redirect: {scheme_redirect: https}}
- {match: {path: /r/https}, redirect: {https_redirect: true}}
- {match: {path: /r/https-port}, redirect: {https_redirect: true, port_redirect: 9443}}
- {match: {path: /r/strip}, redirect: {host_redirect: new.test, strip_query: true}}
- {match: {path: /r/302}, redirect: {path_redirect: /n, response_code: FOUND}}
- {match: {path: /r/303}, redirect: {path_redirect: /n, response_code: SEE_OTHER}}
- {match: {path: /r/307}, redirect: {path_redirect: /n, response_code: TEMPORARY_REDIRECT}}
- {match: {path: /r/308}, redirect: {path_redirect: /n, response_code: PERMANENT_REDIRECT}}
- {match: {path: /r/all}, redirect: {scheme_redirect: https, host_redirect: all.test, port_redirect: 444, path_redirect: /x, strip_query: true, response_code: FOUND}}
- {match: {path: /r/header}, redirect: {host_redirect: new.test}, response_headers_to_add: [{header: {key: x-why, value: moved}}]}
- {match: {path: /r/port443}, redirect: {scheme_redirect: https, port_redirect: 443}}
"""
REWRITE = r"""
- {match: {prefix: /w/prefix/}, route: {cluster: a, prefix_rewrite: /new/}}
- {match: {prefix: /w/root}, route: {cluster: a, prefix_rewrite: /}}
- {match: {path: /w/exact}, route: {cluster: a, prefix_rewrite: /other}}
- {match: {prefix: /W/Case/, case_sensitive: false}, route: {cluster: a, prefix_rewrite: /lower/}}
- {match: {path_separated_prefix: /w/sep}, route: {cluster: a, prefix_rewrite: /s}}
- {match: {prefix: /w/regex/}, route: {cluster: a, regex_rewrite: {pattern: {regex: "^/w/regex/([^/]+)(/.*)$"}, substitution: "\\2/was/\\1"}}}
- {match: {prefix: /w/many/}, route: {cluster: a, regex_rewrite: {pattern: {regex: "x"}, substitution: "yy"}}}
- {match: {prefix: /w/host-literal}, route: {cluster: a, host_rewrite_literal: literal.test}}
- {match: {prefix: /w/host-append}, route: {cluster: a, host_rewrite_literal: literal.test, append_x_forwarded_host: true}}
- {match: {prefix: /w/host-header}, route: {cluster: a, host_rewrite_header: x-new-host}}
- {match: {prefix: /w/host-path/}, route: {cluster: a, host_rewrite_path_regex: {pattern: {regex: "^/w/host-path/([^/]+)/.*$"}, substitution: "\\1.path.test"}}}
- {match: {prefix: /w/host-auto}, route: {cluster: dns, auto_host_rewrite: true}}
- {match: {prefix: /w/both/}, route: {cluster: a, prefix_rewrite: /n/, host_rewrite_literal: both.test}}
- {match: {prefix: /w/header-cluster}, route: {cluster_header: x-cluster}}
- {match: {prefix: /w/404-cluster}, route: {cluster_header: x-cluster, cluster_not_found_response_code: NOT_FOUND}}
- {match: {prefix: /w/500-cluster}, route: {cluster_header: x-cluster, cluster_not_found_response_code: INTERNAL_SERVER_ERROR}}
- {match: {prefix: /w/weight-one}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}, {name: b, weight: 1}]}}}
- {match: {prefix: /w/weight-headers}, route: {weighted_clusters: {clusters: [{name: a, weight: 1, request_headers_to_add: [{header: {key: x-weighted, value: "yes"}}], response_headers_to_remove: [x-gone]}]}}}
- {match: {prefix: /w/weight-host}, route: {weighted_clusters: {clusters: [{name: a, weight: 1, host_rewrite_literal: weighted.test}]}}}
- {match: {prefix: /w/weight-by-header}, route: {weighted_clusters: {clusters: [{cluster_header: x-cluster, weight: 1}]}}}
"""


def redirect(
    name: str, target: str, location: str, status: int = 301, *headers: str, host: str = "a.test", method: str = "GET"
) -> Case:
    return Case(name, req(method, target, *headers, host=host), status, "", want={"response.headers.location": location})


def rewrite(name: str, target: str, *headers: str, path: str = "", host: str = "a.test", to: str = "a") -> Case:
    """Envoy must send it upstream with this path (default: unchanged) and host."""
    want = {"upstream.target": path or target, "upstream.headers.host": host}
    return Case(name, req("GET", target, *headers), 200, to, want=want)


SUITE = Suite(
    bootstrap(
        [http("main", DIRECT + REDIRECT + REWRITE)],
        [
            cluster("a", "a"),
            cluster("b", "b"),
            cluster(
                "dns",
                extra="""
type: STRICT_DNS
dns_lookup_family: V4_ONLY
load_assignment: {cluster_name: dns, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: $(up.a)}}}}]}]}
""",
            ),
        ],
    ),
    (
        Case("direct_body", req("GET", "/d/plain"), 200, "", want={"response.body": "made here\n"}),
        Case("direct_head", req("HEAD", "/d/plain"), 200, "", want={"response.headers.content-length": "10"}),
        Case("direct_with_request_body", req("POST", "/d/plain", body=b"ignored"), 200, ""),
        Case("direct_204", req("GET", "/d/empty"), 204, ""),
        Case("direct_with_header", req("GET", "/d/teapot"), 418, "", want={"response.headers.x-pot": "tea"}),
        Case("direct_content_type", req("GET", "/d/typed"), 403, "", want={"response.headers.content-type": "application/json"}),
        Case("direct_without_body", req("GET", "/d/nobody"), 503, ""),
        Case("direct_log", req("GET", "/d/plain"), 200, "", want={"log.details": "direct_response", "log.cluster": "-"}),
        redirect("redirect_host", "/r/host?a=1", "http://new.test/r/host?a=1"),
        redirect("redirect_host_drops_port", "/r/host", "http://new.test/r/host", host="a.test:8080"),
        redirect("redirect_port", "/r/port?a=1", "http://a.test:8443/r/port?a=1"),
        redirect("redirect_port_replaces", "/r/port", "http://a.test:8443/r/port", host="a.test:81"),
        redirect("redirect_path_keeps_query", "/r/path?a=1", "http://a.test/elsewhere?a=1"),
        redirect("redirect_path_with_own_query", "/r/path-query?a=1", "http://a.test/elsewhere?fixed=1"),
        redirect("redirect_prefix", "/r/prefix/rest/x?q", "http://a.test/p/rest/x?q"),
        redirect("redirect_regex", "/r/regex/42/deep/x?q=1", "http://a.test/deep/x/42?q=1"),
        redirect("redirect_scheme", "/r/scheme", "https://a.test/r/scheme"),
        redirect("redirect_scheme_drops_default_port", "/r/scheme", "https://a.test/r/scheme", host="a.test:80"),
        redirect("redirect_scheme_keeps_other_port", "/r/scheme", "https://a.test:8080/r/scheme", host="a.test:8080"),
        redirect("redirect_https", "/r/https?x", "https://a.test/r/https?x"),
        redirect("redirect_https_port", "/r/https-port", "https://a.test:9443/r/https-port"),
        redirect("redirect_port_443", "/r/port443", "https://a.test:443/r/port443"),
        redirect("redirect_strip_query", "/r/strip?a=1", "http://new.test/r/strip"),
        redirect("redirect_302", "/r/302", "http://a.test/n", 302),
        redirect("redirect_303", "/r/303", "http://a.test/n", 303, method="POST"),
        redirect("redirect_307", "/r/307", "http://a.test/n", 307),
        redirect("redirect_308", "/r/308", "http://a.test/n", 308),
        redirect("redirect_all_fields", "/r/all?gone", "https://all.test:444/x", 302),
        redirect("redirect_scheme_from_forwarded_proto", "/r/host", "https://new.test/r/host", 301, "x-forwarded-proto: https"),
        redirect("redirect_extra_header", "/r/header", "http://new.test/r/header"),
        rewrite("prefix_rewrite", "/w/prefix/x?q=1", path="/new/x?q=1"),
        rewrite("prefix_rewrite_to_root", "/w/root/x", path="//x"),
        rewrite("prefix_rewrite_of_exact", "/w/exact?q", path="/other?q"),
        rewrite("prefix_rewrite_caseless", "/w/cASE/Rest", path="/lower/Rest"),
        rewrite("prefix_rewrite_separated", "/w/sep/x", path="/s/x"),
        rewrite("regex_rewrite", "/w/regex/one/two?q=/w", path="/two/was/one?q=/w"),
        rewrite("regex_rewrite_all_matches", "/w/many/axbx?x=x", path="/w/many/ayybyy?x=x"),
        rewrite("regex_rewrite_no_match", "/w/many/none", path="/w/many/none"),
        rewrite("host_literal", "/w/host-literal", host="literal.test"),
        rewrite("host_literal_forwarded", "/w/host-append", host="literal.test"),
        rewrite("host_literal_forwarded_appends", "/w/host-append", "x-forwarded-host: before.test", host="literal.test"),
        rewrite("host_from_header", "/w/host-header", "x-new-host: chosen.test", host="chosen.test"),
        rewrite("host_from_missing_header", "/w/host-header", host="a.test"),
        rewrite("host_from_path", "/w/host-path/shard7/rest?q", host="shard7.path.test"),
        rewrite("host_auto", "/w/host-auto", host="localhost"),
        rewrite("host_and_prefix", "/w/both/x", path="/n/x", host="both.test"),
        rewrite("original_path_is_not_trusted", "/w/prefix/y", "x-envoy-original-path: /faked", path="/new/y"),
        rewrite("cluster_header", "/w/header-cluster", "x-cluster: b", to="b"),
        Case("cluster_header_missing", req("GET", "/w/header-cluster"), 503, "", want={"log.flags": "NC"}),
        Case("cluster_header_unknown", req("GET", "/w/header-cluster", "x-cluster: nope"), 503, "", want={"log.flags": "NC"}),
        Case("cluster_header_unknown_404", req("GET", "/w/404-cluster", "x-cluster: nope"), 404, ""),
        Case("cluster_header_unknown_500", req("GET", "/w/500-cluster", "x-cluster: nope"), 500, ""),
        rewrite("weight_zero_never", "/w/weight-one", to="b"),
        rewrite("weight_headers", "/w/weight-headers"),
        rewrite("weight_host_rewrite", "/w/weight-host", host="weighted.test"),
        rewrite("weight_cluster_header", "/w/weight-by-header", "x-cluster: b", to="b"),
        Case("no_route", req("GET", "/nowhere"), 404, "", want={"log.flags": "NR", "log.details": "route_not_found"}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_route_action(pair: Pair, case: Case) -> None:
    pair.check(case)
