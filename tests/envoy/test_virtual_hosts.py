"""Which virtual host a request goes to: exact, suffix, prefix and catch-all domains, ports, case, missing host."""

from typing import Any

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

HOSTS = """
- {name: exact, domains: [exact.test, "withport.test:8080"], routes: [{name: exact, match: {prefix: /}, route: {cluster: a}}]}
- {name: long-suffix, domains: ["*.deep.suffix.test"], routes: [{name: long-suffix, match: {prefix: /}, route: {cluster: a}}]}
- {name: suffix, domains: ["*.suffix.test", "*-bar.test"], routes: [{name: suffix, match: {prefix: /}, route: {cluster: a}}]}
- {name: prefix, domains: ["prefix.*"], routes: [{name: prefix, match: {prefix: /}, route: {cluster: a}}]}
- {name: long-prefix, domains: ["prefix.long.*"], routes: [{name: long-prefix, match: {prefix: /}, route: {cluster: a}}]}
- {name: both, domains: ["both.suffix.test"], routes: [{name: both, match: {prefix: /}, route: {cluster: a}}]}
- {name: case, domains: [MixedCase.test], routes: [{name: case, match: {prefix: /}, route: {cluster: a}}]}
- {name: v6, domains: ["[::1]"], routes: [{name: v6, match: {prefix: /}, route: {cluster: a}}]}
- {name: few-routes, domains: [few.test], routes: [{name: few, match: {path: /only}, route: {cluster: a}}]}
- {name: tls, domains: [tls-external.test], require_tls: EXTERNAL_ONLY, routes: [{name: tls-ext, match: {prefix: /}, route: {cluster: a}}]}
- {name: tls-all, domains: [tls-all.test], require_tls: ALL, routes: [{name: tls-all, match: {prefix: /}, route: {cluster: a}}]}
"""
CATCH_ALL = '- {name: any, domains: ["*"], routes: [{name: any, match: {prefix: /}, route: {cluster: b}}]}\n'

STRICT_400: Any = {
    "accept": {"*": "RFC 9112 3.2: more than one host field must be answered with 400; Envoy takes the first or joins them"},
    "ours": {"response.status": "400"},
}
OTHER_HOST_400: Any = {
    "accept": {"*": "an absolute target and a host field that disagree are a smuggling vector; Envoy takes the target"},
    "ours": {"response.status": "400"},
}

SUITE = Suite(
    bootstrap(
        [
            http("main", HOSTS + CATCH_ALL),
            http("strict", HOSTS),
            http("anyport", HOSTS + CATCH_ALL, "strip_any_host_port: true"),
            http("ownport", HOSTS + CATCH_ALL, "strip_matching_host_port: true"),
            http("dot", HOSTS + CATCH_ALL, "strip_trailing_host_dot: true"),
            http(
                "ignoring",
                '{ignore_port_in_host_matching: true, virtual_hosts: [{name: i, domains: [exact.test], routes: [{name: ignored, match: {prefix: /}, route: {cluster: a}}]}]}',
            ),
        ],
        [cluster("a", "a"), cluster("b", "b")],
    ),
    tuple(
        Case(name, req("GET", "/x", host=host), status, want={"log.route": route}, listener=listener)
        for name, host, route, status, listener in (
            ("exact", "exact.test", "exact", 200, "main"),
            ("exact_ignores_case", "EXACT.tEst", "exact", 200, "main"),
            ("configured_case_is_ignored", "mixedcase.test", "case", 200, "main"),
            ("port_in_host_does_not_match", "exact.test:80", "any", 200, "main"),
            ("port_in_domain", "withport.test:8080", "exact", 200, "main"),
            ("suffix", "x.suffix.test", "suffix", 200, "main"),
            ("suffix_two_labels", "y.x.suffix.test", "suffix", 200, "main"),
            ("suffix_longest", "x.deep.suffix.test", "long-suffix", 200, "main"),
            ("suffix_needs_a_label", ".suffix.test", "any", 200, "main"),
            ("suffix_without_dot", "foo-bar.test", "suffix", 200, "main"),
            ("prefix", "prefix.example", "prefix", 200, "main"),
            ("prefix_longest", "prefix.long.example", "long-prefix", 200, "main"),
            ("exact_before_suffix", "both.suffix.test", "both", 200, "main"),
            ("suffix_before_prefix", "prefix.suffix.test", "suffix", 200, "main"),
            ("v6_literal", "[::1]", "v6", 200, "main"),
            ("catch_all", "unknown.test", "any", 200, "main"),
            ("no_virtual_host", "unknown.test", "-", 404, "strict"),
            ("no_route_in_virtual_host", "few.test", "-", 404, "strict"),
            ("strip_any_port", "exact.test:1234", "exact", 200, "anyport"),
            ("strip_any_port_v6", "[::1]:77", "v6", 200, "anyport"),
            ("strip_foreign_port_stays", "exact.test:1", "any", 200, "ownport"),
            ("strip_trailing_dot", "exact.test.", "exact", 200, "dot"),
            ("strip_trailing_dot_before_port", "withport.test.:8080", "exact", 200, "dot"),
            ("ignore_port_when_matching", "exact.test:99", "ignored", 200, "ignoring"),
        )
    )
    + (
        Case("missing_host", req("GET", "/x", host=None), 400, ""),
        Case("empty_host", req("GET", "/x", host=""), 200),
        Case("two_hosts", req("GET", "/x", "host: exact.test", host="unknown.test"), 200, **STRICT_400),
        Case("absolute_form", req("GET", "http://exact.test/y?z=1", host="exact.test"), 200, want={"log.route": "exact"}),
        Case("absolute_form_https", req("GET", "https://exact.test/y", host="exact.test"), 200),
        Case("absolute_form_upper_case", req("GET", "HTTP://exact.test/y", host="exact.test"), 200),
        Case("absolute_form_and_other_host", req("GET", "http://exact.test/y?z=1", host="unknown.test"), 200, **OTHER_HOST_400),
        Case("absolute_form_without_path", req("GET", "http://exact.test", host="exact.test"), 200),
        Case("require_tls_all", req("GET", "/p?q=1", host="tls-all.test"), 301, ""),
        Case("require_tls_external", req("GET", "/p?q=1", host="tls-external.test"), 301, ""),
        Case("require_tls_forwarded_https", req("GET", "/p", "x-forwarded-proto: https", host="tls-all.test"), 200),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_virtual_host(pair: Pair, case: Case) -> None:
    pair.check(case)
