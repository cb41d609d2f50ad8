"""Which route a request takes: path, header, query-parameter and runtime matchers of a virtual host."""

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = r"""
- {name: exact, match: {path: /exact}, route: {cluster: a}}
- {name: exact-nocase, match: {path: /CaseLess, case_sensitive: false}, route: {cluster: a}}
- {name: prefix-nocase, match: {prefix: /PreLess, case_sensitive: false}, route: {cluster: a}}
- {name: prefix, match: {prefix: /pre}, route: {cluster: a}}
- {name: separated, match: {path_separated_prefix: /sep}, route: {cluster: a}}
- {name: regex, match: {safe_regex: {regex: "/re/[0-9]+(/x)?"}}, route: {cluster: a}}
- {name: q-exact, match: {prefix: /q, query_parameters: [{name: e, string_match: {exact: "1"}}]}, route: {cluster: a}}
- {name: q-prefix, match: {prefix: /q, query_parameters: [{name: p, string_match: {prefix: "ab"}}]}, route: {cluster: a}}
- {name: q-regex, match: {prefix: /q, query_parameters: [{name: r, string_match: {safe_regex: {regex: "[0-9]+"}}}]}, route: {cluster: a}}
- {name: q-present, match: {prefix: /q, query_parameters: [{name: here, present_match: true}]}, route: {cluster: a}}
- {name: q-absent, match: {prefix: /q2, query_parameters: [{name: gone, present_match: false}]}, route: {cluster: a}}
- {name: q-two, match: {prefix: /q, query_parameters: [{name: x, string_match: {exact: "1"}}, {name: y, string_match: {exact: "2"}}]}, route: {cluster: a}}
- {name: h-exact, match: {prefix: /h, headers: [{name: x-exact, string_match: {exact: one}}]}, route: {cluster: a}}
- {name: h-nocase, match: {prefix: /h, headers: [{name: x-nocase, string_match: {exact: One, ignore_case: true}}]}, route: {cluster: a}}
- {name: h-prefix, match: {prefix: /h, headers: [{name: x-prefix, string_match: {prefix: onl}}]}, route: {cluster: a}}
- {name: h-suffix, match: {prefix: /h, headers: [{name: x-suffix, string_match: {suffix: ne}}]}, route: {cluster: a}}
- {name: h-contains, match: {prefix: /h, headers: [{name: x-contains, string_match: {contains: mid}}]}, route: {cluster: a}}
- {name: h-regex, match: {prefix: /h, headers: [{name: x-regex, string_match: {safe_regex: {regex: "a+b"}}}]}, route: {cluster: a}}
- {name: h-range, match: {prefix: /h, headers: [{name: x-range, range_match: {start: -3, end: 10}}]}, route: {cluster: a}}
- {name: h-present, match: {prefix: /h, headers: [{name: x-present, present_match: true}]}, route: {cluster: a}}
- {name: h-absent, match: {prefix: /ha, headers: [{name: x-absent, present_match: false}]}, route: {cluster: a}}
- {name: h-invert, match: {prefix: /hi, headers: [{name: x-invert, string_match: {exact: one}, invert_match: true}]}, route: {cluster: a}}
- {name: h-empty, match: {prefix: /he, headers: [{name: x-empty, string_match: {exact: ""}, treat_missing_header_as_empty: true}]}, route: {cluster: a}}
- {name: h-empty-invert, match: {prefix: /hy, headers: [{name: x-ei, string_match: {exact: one}, invert_match: true, treat_missing_header_as_empty: true}]}, route: {cluster: a}}
- {name: h-and, match: {prefix: /h, headers: [{name: x-one, string_match: {exact: "1"}}, {name: x-two, string_match: {exact: "2"}}]}, route: {cluster: a}}
- {name: h-name-only, match: {prefix: /hn, headers: [{name: x-only}]}, route: {cluster: a}}
- {name: h-method, match: {prefix: /m, headers: [{name: ":method", string_match: {exact: PUT}}]}, route: {cluster: a}}
- {name: h-authority, match: {prefix: /m, headers: [{name: ":authority", string_match: {prefix: special.}}]}, route: {cluster: a}}
- {name: h-path, match: {prefix: /m, headers: [{name: ":path", string_match: {contains: "q=7"}}]}, route: {cluster: a}}
- {name: h-old-exact, match: {prefix: /o, headers: [{name: x-old, exact_match: one}]}, route: {cluster: a}}
- {name: h-old-prefix, match: {prefix: /o, headers: [{name: x-oldp, prefix_match: onl}]}, route: {cluster: a}}
- {name: h-old-suffix, match: {prefix: /o, headers: [{name: x-olds, suffix_match: ne}]}, route: {cluster: a}}
- {name: h-old-contains, match: {prefix: /o, headers: [{name: x-oldc, contains_match: nl}]}, route: {cluster: a}}
- {name: h-old-regex, match: {prefix: /o, headers: [{name: x-oldr, safe_regex_match: {regex: "o.e"}}]}, route: {cluster: a}}
- {name: fraction-all, match: {prefix: /f100, runtime_fraction: {default_value: {numerator: 100, denominator: HUNDRED}}}, route: {cluster: a}}
- {name: fraction-none, match: {prefix: /f0, runtime_fraction: {default_value: {numerator: 0, denominator: HUNDRED}}}, route: {cluster: a}}
- {name: fraction-runtime, match: {prefix: /fr, runtime_fraction: {default_value: {numerator: 0}, runtime_key: parity.fraction}}, route: {cluster: a}}
- {name: grpc, match: {prefix: /g, grpc: {}}, route: {cluster: a}}
- {name: rest, match: {prefix: /}, route: {cluster: b}}
"""

RUNTIME = """
layered_runtime: {layers: [{name: static, static_layer: {parity.fraction: 100}}]}
"""


def to(name: str, route: str, target: str, *headers: str, method: str = "GET", host: str = "a.test") -> Case:
    """A request that Envoy sends over `route`."""
    endpoint = "b" if route == "rest" else "a"
    return Case(name, req(method, target, *headers, host=host), 200, endpoint, want={"log.route": route})


SUITE = Suite(
    bootstrap([http("main", ROUTES)], [cluster("a", "a"), cluster("b", "b")], RUNTIME),
    (
        to("exact", "exact", "/exact"),
        to("exact_with_query", "exact", "/exact?a=1"),
        to("exact_is_not_prefix", "rest", "/exact/"),
        to("exact_case_counts", "rest", "/Exact"),
        to("exact_caseless", "exact-nocase", "/cASElESS"),
        to("prefix_caseless", "prefix-nocase", "/preless/Deep"),
        to("prefix", "prefix", "/prefix/deep?x"),
        to("prefix_itself", "prefix", "/pre"),
        to("separated_itself", "separated", "/sep"),
        to("separated_slash", "separated", "/sep/x"),
        to("separated_query", "separated", "/sep?x=1"),
        to("separated_not_word", "rest", "/separate"),
        to("regex", "regex", "/re/42/x?q=1"),
        to("regex_is_anchored", "rest", "/re/42/xy"),
        to("query_exact", "q-exact", "/q?e=1"),
        to("query_exact_wrong", "rest", "/q?e=2"),
        to("query_exact_second_value", "rest", "/q?e=2&e=1"),
        to("query_is_not_percent_decoded", "rest", "/q?e=%31"),
        to("query_prefix", "q-prefix", "/q?z=1&p=abc"),
        to("query_regex_anchored", "rest", "/q?r=12x"),
        to("query_regex", "q-regex", "/q?r=12"),
        to("query_present_without_value", "q-present", "/q?here"),
        to("query_present_with_value", "q-present", "/q?here=9"),
        to("query_absent", "q-absent", "/q2"),
        to("query_absent_but_there", "rest", "/q2?gone=1"),
        to("query_both", "q-two", "/q?y=2&x=1"),
        to("query_only_one_of_two", "rest", "/q?y=2"),
        to("header_exact", "h-exact", "/h", "x-exact: one"),
        to("header_exact_wrong", "rest", "/h", "x-exact: two"),
        to("header_exact_one_of_two_lines", "h-exact", "/h", "x-exact: one", "x-exact: two"),
        to("header_exact_name_case", "h-exact", "/h", "X-EXACT: one"),
        to("header_ignore_case", "h-nocase", "/h", "x-nocase: oNE"),
        to("header_prefix", "h-prefix", "/h", "x-prefix: only"),
        to("header_suffix", "h-suffix", "/h", "x-suffix: done"),
        to("header_contains", "h-contains", "/h", "x-contains: amidst"),
        to("header_regex", "h-regex", "/h", "x-regex: aaab"),
        to("header_regex_anchored", "rest", "/h", "x-regex: aaabc"),
        to("header_range", "h-range", "/h", "x-range: -3"),
        to("header_range_end_is_open", "rest", "/h", "x-range: 10"),
        to("header_range_no_number", "rest", "/h", "x-range: 3x"),
        to("header_present", "h-present", "/h", "x-present: "),
        to("header_present_missing", "rest", "/h"),
        to("header_absent", "h-absent", "/ha"),
        to("header_absent_but_there", "rest", "/ha", "x-absent: 1"),
        to("header_invert", "h-invert", "/hi", "x-invert: two"),
        to("header_invert_missing", "rest", "/hi"),
        to("header_invert_equal", "rest", "/hi", "x-invert: one"),
        to("header_missing_as_empty", "h-empty", "/he"),
        to("header_missing_as_empty_set", "rest", "/he", "x-empty: x"),
        to("header_missing_as_empty_inverted", "h-empty-invert", "/hy"),
        to("header_all_must_match", "h-and", "/h", "x-one: 1", "x-two: 2"),
        to("header_one_of_two", "rest", "/h", "x-one: 1"),
        to("header_name_only", "h-name-only", "/hn", "x-only: y"),
        to("header_method", "h-method", "/m", method="PUT"),
        to("header_authority", "h-authority", "/m", host="special.test"),
        to("header_path_with_query", "h-path", "/m?q=7"),
        to("header_old_exact", "h-old-exact", "/o", "x-old: one"),
        to("header_old_prefix", "h-old-prefix", "/o", "x-oldp: only"),
        to("header_old_suffix", "h-old-suffix", "/o", "x-olds: one"),
        to("header_old_contains", "h-old-contains", "/o", "x-oldc: only"),
        to("header_old_regex", "h-old-regex", "/o", "x-oldr: one"),
        to("fraction_all", "fraction-all", "/f100"),
        to("fraction_none", "rest", "/f0"),
        to("fraction_from_runtime", "fraction-runtime", "/fr"),
        to("grpc_content_type", "grpc", "/g", "content-type: application/grpc"),
        to("grpc_content_type_suffix", "grpc", "/g", "content-type: application/grpc+proto"),
        to("grpc_other_content_type", "rest", "/g", "content-type: application/json"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_route_match(pair: Pair, case: Case) -> None:
    pair.check(case)
