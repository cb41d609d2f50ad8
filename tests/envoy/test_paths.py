"""Path normalisation, merged and escaped slashes, fragments, header names with underscores: what is changed, redirected or refused."""

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {name: admin, match: {prefix: /admin}, route: {cluster: b}}
- {name: rest, match: {prefix: /}, route: {cluster: a}}
"""

SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("normal", ROUTES, "normalize_path: true"),
            http("merge", ROUTES, "{normalize_path: true, merge_slashes: true}"),
            http("mergeonly", ROUTES, "merge_slashes: true"),
            http("redirect", ROUTES, "{normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT}"),
            http("forward", ROUTES, "{normalize_path: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD}"),
            http("reject", ROUTES, "path_with_escaped_slashes_action: REJECT_REQUEST"),
            http("underscore", ROUTES, "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"),
            http("dropunder", ROUTES, "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}"),
        ],
        [cluster("a", "a"), cluster("b", "b")],
    ),
    tuple(
        Case(f"{listener}_{name}", req("GET", target), status, to, listener=listener)
        for listener, name, target, status, to in (
            ("main", "untouched_dots", "/x/../admin", 200, "a"),
            ("main", "untouched_slashes", "//admin", 200, "a"),
            ("main", "escaped_slash", "/x%2Fadmin", 200, "a"),
            ("main", "query_only", "/?a=b", 200, "a"),
            ("main", "fragment", "/x#frag", 400, ""),
            ("main", "star", "*", 400, ""),
            ("main", "no_slash", "admin", 400, ""),
            ("main", "odd_but_legal", "/a;b=c,d/@:!$&'()*+", 200, "a"),
            ("main", "percent_encoded", "/%41%7e", 200, "a"),
            ("main", "question_marks", "/a??b?", 200, "a"),
            ("normal", "dot_dot", "/x/../admin", 200, "b"),
            ("normal", "dot", "/./x/./y", 200, "a"),
            ("normal", "dot_dot_at_end", "/x/y/..", 200, "a"),
            ("normal", "above_root", "/../../admin", 200, "b"),
            ("normal", "encoded_dots", "/x/%2e%2E/admin", 200, "b"),
            ("normal", "unreserved_decoded", "/%61dmin", 200, "b"),
            ("normal", "query_untouched", "/x/../y?a=../b", 200, "a"),
            ("normal", "double_slashes_stay", "/x//y", 200, "a"),
            ("normal", "backslash", "/x\\..\\admin", 200, "b"),
            ("normal", "encoded_backslash", "/x%5cy", 200, "a"),
            ("normal", "encoded_nul", "/x%00y", 400, ""),
            ("normal", "bad_percent", "/x%zz", 200, None),
            ("normal", "absolute_form", "http://a.test/x/../admin", 200, "b"),
            ("merge", "slashes", "//x///y//?q=//", 200, "a"),
            ("merge", "slashes_and_dots", "/x//..//admin", 200, None),
            ("mergeonly", "slashes", "//admin", 200, "b"),
            ("redirect", "escaped_slash", "/x%2fy?q=%2f", 307, ""),
            ("redirect", "escaped_backslash", "/x%5cadmin", 307, ""),
            ("redirect", "not_escaped", "/x//y", 200, "a"),
            ("forward", "escaped_slash", "/x%2f..%2Fadmin", 200, "b"),
            ("reject", "escaped_slash", "/x%2fy", 400, ""),
            ("reject", "query_may", "/x?y=%2f", 200, "a"),
        )
    )
    + (
        Case("underscore_allowed", req("GET", "/", "x_under: 1"), 200, "a", want={"upstream.headers.x_under": "1"}),
        Case("underscore_rejected", req("GET", "/", "x_under: 1"), 400, "", listener="underscore"),
        Case("underscore_dropped", req("GET", "/", "x_under: 1", "x-over: 1"), 200, "a", listener="dropunder"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_path(pair: Pair, case: Case) -> None:
    pair.check(case)
