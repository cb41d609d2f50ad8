"""Access-log operators that few formats use, apart from the others so that a proxy without them can run the rest."""

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, file_log, hcm, listener, req

pytestmark = pytest.mark.envoy

OPERATORS = {
    "up-header-tx": "%UPSTREAM_HEADER_BYTES_SENT%",
    "up-header-rx": "%UPSTREAM_HEADER_BYTES_RECEIVED%",
}
ROUTES = "- {match: {prefix: /}, route: {cluster: a}}"
SUITE = Suite(
    bootstrap([listener("main", hcm("main", ROUTES, "", [file_log("$(dir)/main.log", OPERATORS)]))], [cluster("a", "a")]),
    (
        Case("upstream_header_bytes", req("GET", "/"), 200),
        Case(
            "upstream_header_bytes_with_body",
            req("POST", "/", "x-one: 1", body=b"12345"),
            200,
            replies=(Reply(headers=(("x-up", "1"),)),),
        ),
    ),
    optional="the operators for upstream header bytes are not supported",
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_rare_operator(pair: Pair, case: Case) -> None:
    pair.check(case)
