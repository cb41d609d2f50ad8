"""Retries: which failures are tried again, how often, where, and what the headers of an internal client change."""

import pytest
from parity import LATE, Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy


def route(name: str, policy: str, cluster_name: str = "a", more: str = "") -> str:
    back_off = "retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}"
    return f"- {{name: {name}, match: {{prefix: /{name}}}, route: {{cluster: {cluster_name}{more}, retry_policy: {{{policy}, {back_off}}}}}}}\n"


ROUTES = "".join(
    (
        route("fivexx", 'retry_on: "5xx"'),
        route("thrice", 'retry_on: "5xx", num_retries: 3'),
        route("zero", 'retry_on: "5xx", num_retries: 0'),
        route("gateway", "retry_on: gateway-error"),
        route("connect", "retry_on: connect-failure", "refused"),
        route("reset", "retry_on: reset"),
        route("before", "retry_on: reset-before-request", "refused"),
        route("four", "retry_on: retriable-4xx"),
        route("codes", "retry_on: retriable-status-codes, retriable_status_codes: [418, 200]"),
        route("headers", "retry_on: retriable-headers, retriable_headers: [{name: x-again, present_match: true}]"),
        route("several", 'retry_on: "retriable-4xx,gateway-error"'),
        route("pertry", 'retry_on: "5xx", per_try_timeout: 1s'),
        route("pertryreset", "retry_on: reset, per_try_timeout: 1s"),
        route("whole", 'retry_on: "5xx", per_try_timeout: 2s, num_retries: 10', more=", timeout: 5s"),
        route("idle", 'retry_on: "5xx", per_try_idle_timeout: 1s'),
        route("mixed", "retry_on: connect-failure, num_retries: 4", "half-dead"),
        route("previous", 'retry_on: "5xx", num_retries: 2, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, '
              "typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], "
              "host_selection_retry_max_attempts: 5", "three"),
        route("limited", 'retry_on: "5xx,envoy-ratelimited"'),
        route("notlimited", 'retry_on: "5xx"'),
        route("request", 'retry_on: "5xx", retriable_request_headers: [{name: x-may, string_match: {exact: "yes"}}]'),
        route("noretry", 'retry_on: "5xx", num_retries: 5', "noretry"),
        "- {name: plain, match: {prefix: /plain}, route: {cluster: a}}\n",
    )
)  # fmt: skip
VHOST = f"""
- name: own
  domains: [policy.test]
  retry_policy: {{retry_on: "5xx", num_retries: 2, retry_back_off: {{base_interval: 0.001s}}}}
  routes:
  - {{match: {{prefix: /}}, route: {{cluster: a}}}}
- name: all
  domains: ["*"]
  routes:
{"".join("  " + line for line in ROUTES.splitlines(True))}
"""
INTERNAL = "{use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}}"
BAD = Reply(status=503, body=b"bad")
OK = Reply()
SOON = (0.6, LATE - 5)
"""Seconds of a case that waits for a limit of one second."""
HALF = Reply(ending="close_middle")


def tries(
    name: str,
    target: str,
    replies: tuple[Reply, ...],
    status: int | None,
    attempts: int,
    *headers: str,
    method: str = "GET",
    body: bytes = b"",
    host: str = "a.test",
    **more: object,
) -> Case:
    """Envoy answers `status` after `attempts` upstream requests."""
    want = {"log.attempts": str(attempts)}
    return Case(name, req(method, target, *headers, body=body, host=host), status, replies=replies, want=want, **more)


SUITE = Suite(
    bootstrap(
        [http("main", VHOST), http("internal", VHOST, INTERNAL)],
        [
            cluster("a", "a"),
            cluster("refused", "refused.r"),
            cluster("half-dead", "refused.r", "a"),
            cluster("three", "a", "b", "c"),
            cluster("noretry", "a", extra="circuit_breakers: {thresholds: [{max_retries: 0}]}"),
        ],
    ),
    (
        tries("fivexx_then_ok", "/fivexx", (BAD, OK), 200, 2),
        tries("fivexx_twice", "/fivexx", (BAD, BAD, OK), 503, 2),
        tries("fivexx_500", "/fivexx", (Reply(status=500), OK), 200, 2),
        tries("fivexx_not_404", "/fivexx", (Reply(status=404), OK), 404, 1),
        tries("fivexx_on_reset", "/fivexx", (Reply(ending="reset_before"), OK), 200, 2),
        tries("fivexx_on_close", "/fivexx", (Reply(ending="close_before"), OK), 200, 2),
        tries("fivexx_post_body_is_repeated", "/fivexx", (BAD, OK), 200, 2, method="POST", body=b"again"),
        tries("fivexx_large_body_is_repeated", "/fivexx", (BAD, OK), 200, 2, method="POST", body=b"0123456789" * 2000),
        tries("fivexx_body_too_large_to_repeat", "/fivexx", (BAD, OK), 503, 1, method="POST", body=b"0123456789" * 200_000),
        tries("not_after_response_began", "/fivexx", (HALF, OK), 200, 1),
        tries("num_retries_three", "/thrice", (BAD, BAD, BAD, OK), 200, 4),
        tries("num_retries_exhausted", "/thrice", (BAD,), 503, 4),
        tries("num_retries_zero", "/zero", (BAD, OK), 503, 1),
        tries("gateway_error_502", "/gateway", (Reply(status=502), OK), 200, 2),
        tries("gateway_error_not_500", "/gateway", (Reply(status=500), OK), 500, 1),
        tries("connect_failure", "/connect", (OK,), 503, 2),
        Case("connect_failure_next_endpoint", req("GET", "/mixed"), 200, accept={"log.attempts": "1 or 2: the round robin starts at random"}),
        tries("reset", "/reset", (Reply(ending="close_before"), OK), 200, 2),
        tries("reset_not_503", "/reset", (BAD, OK), 503, 1),
        tries("reset_before_request", "/before", (OK,), 503, 2),
        tries("retriable_4xx", "/four", (Reply(status=409), OK), 200, 2),
        tries("retriable_4xx_not_404", "/four", (Reply(status=404), OK), 404, 1),
        tries("retriable_codes", "/codes", (Reply(status=418), Reply(status=404)), 404, 2),
        tries("retriable_headers", "/headers", (Reply(headers=(("x-again", "1"),)), OK), 200, 2),
        tries("several_words", "/several", (Reply(status=409), OK), 200, 2),
        tries("per_try_timeout", "/pertry", (Reply(delay=LATE), OK), 200, 2, seconds=SOON),
        tries("per_try_timeout_twice", "/pertry", (Reply(delay=LATE),), 504, 2, seconds=(1.5, LATE - 5)),
        tries("per_try_timeout_is_not_a_reset", "/pertryreset", (Reply(delay=LATE), OK), None, 2, seconds=SOON),
        tries("route_timeout_covers_retries", "/whole", (Reply(delay=LATE),), 504, 3, seconds=(4.5, LATE - 5)),
        tries("per_try_idle_timeout", "/idle", (Reply(delay=LATE), OK), 200, 2, seconds=SOON),
        tries("previous_hosts", "/previous", (BAD,), 503, 3, accept={"upstream*.endpoint": "the round robin starts at random", "log.upstream": "likewise", "response.body": "likewise"}),
        tries("rate_limited_is_retried", "/limited", (Reply(status=503, headers=(("x-envoy-ratelimited", "1"),)), OK), 200, 2),
        tries("rate_limited_is_not_retried", "/notlimited", (Reply(status=503, headers=(("x-envoy-ratelimited", "1"),)), OK), 503, 1),
        tries("request_header_allows", "/request", (BAD, OK), 200, 2, "x-may: yes"),
        tries("request_header_forbids", "/request", (BAD, OK), 503, 1, "x-may: no"),
        tries("retry_overflow", "/noretry", (BAD, OK), 503, 1),
        tries("virtual_host_policy", "/any", (BAD, BAD, OK), 200, 3, host="policy.test"),
        tries("no_policy", "/plain", (BAD, OK), 503, 1),
        tries("header_of_external_client_is_ignored", "/plain", (BAD, OK), 503, 1, "x-envoy-retry-on: 5xx"),
        tries("header_retry_on", "/plain", (BAD, OK), 200, 2, "x-envoy-retry-on: 5xx", listener="internal"),
        tries("header_max_retries", "/plain", (BAD, BAD, BAD, OK), 200, 4, "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 3", listener="internal"),
        tries("header_adds_to_policy", "/gateway", (Reply(status=409), OK), 200, 2, "x-envoy-retry-on: retriable-4xx", listener="internal"),
        tries("header_max_retries_zero", "/fivexx", (BAD, OK), 503, 1, "x-envoy-max-retries: 0", listener="internal"),
        tries("header_retriable_codes", "/plain", (Reply(status=410), OK), 200, 2, "x-envoy-retry-on: retriable-status-codes", "x-envoy-retriable-status-codes: 410,411", listener="internal"),
        tries("header_retriable_names", "/plain", (Reply(headers=(("x-r", "1"),)), OK), 200, 2, "x-envoy-retry-on: retriable-headers", "x-envoy-retriable-header-names: x-q,x-r", listener="internal"),
        tries("header_per_try_timeout", "/plain", (Reply(delay=LATE), OK), 200, 2, "x-envoy-retry-on: 5xx", "x-envoy-upstream-rq-per-try-timeout-ms: 1000", listener="internal", seconds=SOON),
        tries("header_timeout", "/plain", (Reply(delay=LATE),), 504, 1, "x-envoy-upstream-rq-timeout-ms: 1000", listener="internal", seconds=SOON),
        tries("header_timeout_alt_response", "/plain", (Reply(delay=LATE),), 204, 1, "x-envoy-upstream-rq-timeout-ms: 1000", "x-envoy-upstream-rq-timeout-alt-response: 1", listener="internal"),
        tries("header_grpc_retry", "/plain", (Reply(headers=(("grpc-status", "14"), ("content-type", "application/grpc"))), OK), 200, 2, "x-envoy-retry-grpc-on: unavailable", "content-type: application/grpc", listener="internal", method="POST"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_retry(pair: Pair, case: Case) -> None:
    pair.check(case)
