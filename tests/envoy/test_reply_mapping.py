"""Local replies rewritten by `local_reply_config`: mappers by status and flag, body formats."""

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /up}, route: {cluster: a}}
"""
MAPPED = """
local_reply_config:
  mappers:
  - filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: none}}}}
    status_code: 410
    body: {inline_string: gone}
    headers_to_add: [{header: {key: x-mapped, value: "yes"}}]
  - filter: {response_flag_filter: {flags: [UF]}}
    status_code: 502
    body_format_override: {json_format: {code: "%RESPONSE_CODE%", why: "%RESPONSE_CODE_DETAILS%", body: "%LOCAL_REPLY_BODY%"}}
  body_format: {text_format_source: {inline_string: "[%RESPONSE_CODE%] %LOCAL_REPLY_BODY% %REQ(:path)%\\n"}}
"""

SUITE = Suite(
    bootstrap(
        [http("mapped", ROUTES, MAPPED)],
        [cluster("a", "a"), cluster("empty"), cluster("refused", "refused.r")],
    ),
    (
        Case("mapped_status", req("GET", "/none"), 410, "", listener="mapped", want={"response.headers.x-mapped": "yes"}),
        Case("mapped_flag", req("GET", "/refused"), 502, "", listener="mapped", want={"response.headers.content-type": "application/json"}),
        Case("mapped_body_format", req("GET", "/empty"), 503, "", listener="mapped"),
        Case("mapped_not_upstream", req("GET", "/up"), 404, "a", listener="mapped", replies=(Reply(status=404),)),
    ),
    optional="local_reply_config is not part of what is supported",
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_reply_mapping(pair: Pair, case: Case) -> None:
    pair.check(case)
