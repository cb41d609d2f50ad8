"""Headers that the connection manager and the router make, trust or strip: x-forwarded-*, x-request-id, server, via, x-envoy-*."""

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

ROUTES = """
- match: {prefix: /short}
  route: {cluster: a, timeout: 0.75s}
- match: {prefix: /notimeout}
  route: {cluster: a, timeout: 0s}
- match: {prefix: /per-try}
  route: {cluster: a, timeout: 5s, retry_policy: {retry_on: 5xx, per_try_timeout: 2s}}
- match: {prefix: /rewrite}
  route: {cluster: a, prefix_rewrite: /changed}
- match: {prefix: /}
  route: {cluster: a}
"""
COUNTING = """
virtual_hosts:
- {name: all, domains: ["*"], include_request_attempt_count: true, include_attempt_count_in_response: true,
   retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}, routes: [{match: {prefix: /}, route: {cluster: a}}]}
"""
LOOPBACK = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}, {address_prefix: 10.0.0.0, prefix_len: 8}]}"
ENVOY_HEADERS = (
    "x-envoy-retry-on: 5xx", "x-envoy-retry-grpc-on: cancelled", "x-envoy-max-retries: 3", "x-envoy-retriable-status-codes: 409",
    "x-envoy-retriable-header-names: x-r", "x-envoy-upstream-rq-timeout-ms: 3000", "x-envoy-upstream-rq-per-try-timeout-ms: 500",
    "x-envoy-upstream-rq-timeout-alt-response: 1", "x-envoy-upstream-alt-stat-name: alt", "x-envoy-expected-rq-timeout-ms: 77",
    "x-envoy-force-trace: 1", "x-envoy-ip-tags: t", "x-envoy-original-url: http://o/", "x-envoy-internal: true",
    "x-envoy-external-address: 9.9.9.9", "x-envoy-downstream-service-cluster: c", "x-envoy-downstream-service-node: n",
    "x-envoy-decorator-operation: op", "x-envoy-hedge-on-per-try-timeout: true", "x-envoy-original-path: /o", "x-envoy-attempt-count: 9",
    "x-envoy-is-timeout-retry: true", "x-envoy-original-host: h", "x-envoy-unknown: stays",
    "x-envoy-upstream-stream-duration-ms: 1000",
)  # fmt: skip
UP = "upstream.headers."

SUITE = Suite(
    bootstrap(
        [
            http("main", ROUTES),
            http("edge", ROUTES, "use_remote_address: true"),
            http("edgehops", ROUTES, "{use_remote_address: true, xff_num_trusted_hops: 1}"),
            http("hops", ROUTES, "xff_num_trusted_hops: 1"),
            http("skip", ROUTES, "{use_remote_address: true, skip_xff_append: true}"),
            http("internal", ROUTES, f"{{use_remote_address: true, {LOOPBACK}}}"),
            http("inside", ROUTES, f"{{use_remote_address: false, {LOOPBACK}}}"),
            http("named", ROUTES, "{server_name: our-server, via: parity}"),
            http("absent", ROUTES, "{server_name: our-server, server_header_transformation: APPEND_IF_ABSENT}"),
            http("pass", ROUTES, "{server_header_transformation: PASS_THROUGH}"),
            http("noid", ROUTES, "generate_request_id: false"),
            http("keepid", ROUTES, "{use_remote_address: true, preserve_external_request_id: true, always_set_request_id_in_response: true}"),
            http("setid", ROUTES, "{use_remote_address: true, always_set_request_id_in_response: true}"),
            http("counting", COUNTING),
            http("xfcc", ROUTES, "forward_client_cert_details: SANITIZE"),
            http("agent", ROUTES, "add_user_agent: true"),
            http("scheme", ROUTES, "scheme_header_transformation: {scheme_to_overwrite: https}"),
        ],
        [cluster("a", "a")],
    ),
    (
        Case("plain", req("GET", "/"), 200, want={UP + "x-forwarded-proto": "http", UP + "x-request-id": "<uuid>"}),
        Case("forwarded_for_is_kept", req("GET", "/", "x-forwarded-for: 1.2.3.4, 5.6.7.8"), 200, want={UP + "x-forwarded-for": "1.2.3.4, 5.6.7.8"}),
        Case("forwarded_proto_is_kept", req("GET", "/", "x-forwarded-proto: https"), 200, want={UP + "x-forwarded-proto": "https"}),
        Case("forwarded_proto_nonsense", req("GET", "/", "x-forwarded-proto: ftp"), 200),
        Case("forwarded_host_and_port_are_kept", req("GET", "/", "x-forwarded-host: h", "x-forwarded-port: 99", "forwarded: for=1"), 200),
        Case("edge_plain", req("GET", "/"), 200, listener="edge"),
        Case("edge_appends", req("GET", "/", "x-forwarded-for: 1.2.3.4"), 200, listener="edge"),
        Case("edge_two_lines", req("GET", "/", "x-forwarded-for: 1.2.3.4", "x-forwarded-for: 5.6.7.8"), 200, listener="edge"),
        Case("edge_overwrites_proto", req("GET", "/", "x-forwarded-proto: https"), 200, listener="edge", want={UP + "x-forwarded-proto": "http"}),
        Case("edge_trusted_hop_keeps_proto", req("GET", "/", "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https"), 200, listener="edgehops"),
        Case("edge_trusted_hop_alone", req("GET", "/", "x-forwarded-proto: https"), 200, listener="edgehops"),
        Case("hops", req("GET", "/", "x-forwarded-for: 1.2.3.4, 10.0.0.1"), 200, listener="hops"),
        Case("hops_too_few", req("GET", "/", "x-forwarded-for: 1.2.3.4"), 200, listener="hops"),
        Case("skip_append", req("GET", "/", "x-forwarded-for: 1.2.3.4"), 200, listener="skip", want={UP + "x-forwarded-for": "1.2.3.4"}),
        Case("skip_append_absent", req("GET", "/"), 200, listener="skip"),
        Case("external_address_from_xff", req("GET", "/", "x-forwarded-for: 8.8.8.8"), 200, listener="internal"),
        Case("external_is_sanitised", req("GET", "/", *ENVOY_HEADERS), 200),
        Case("external_edge_is_sanitised", req("GET", "/", *ENVOY_HEADERS), 200, listener="edge"),
        Case("internal_peer", req("GET", "/"), 200, listener="internal", want={UP + "x-envoy-internal": "true"}),
        Case("internal_peer_headers", req("GET", "/", *ENVOY_HEADERS), 200, listener="internal"),
        Case("internal_by_xff", req("GET", "/", "x-forwarded-for: 10.1.1.1", *ENVOY_HEADERS), 200, listener="inside"),
        Case("internal_needs_one_address", req("GET", "/", "x-forwarded-for: 10.1.1.1, 10.1.1.2", *ENVOY_HEADERS), 200, listener="inside"),
        Case("not_internal_without_xff", req("GET", "/", *ENVOY_HEADERS), 200, listener="inside"),
        Case("server_overwritten", req("GET", "/"), 200, replies=(Reply(headers=(("server", "up"),)),), want={"response.headers.server": "envoy"}),
        Case("server_named", req("GET", "/"), 200, listener="named", replies=(Reply(headers=(("server", "up"),)),), want={"response.headers.server": "our-server"}),
        Case("server_absent", req("GET", "/"), 200, listener="absent", want={"response.headers.server": "our-server"}),
        Case("server_absent_but_there", req("GET", "/"), 200, listener="absent", replies=(Reply(headers=(("server", "up"),)),), want={"response.headers.server": "up"}),
        Case("server_pass_through", req("GET", "/"), 200, listener="pass", replies=(Reply(headers=(("server", "up"),)),), want={"response.headers.server": "up"}),
        Case("server_pass_through_absent", req("GET", "/"), 200, listener="pass"),
        Case("server_local_reply_overwritten", req("GET", "bad"), 400, listener="named"),
        Case("via", req("GET", "/"), 200, listener="named", want={UP + "via": "parity", "response.headers.via": "parity"}),
        Case("via_appends", req("GET", "/", "via: 1.0 before"), 200, listener="named", replies=(Reply(headers=(("via", "1.1 up"),)),)),
        Case("request_id_kept_inside", req("GET", "/", "x-request-id: mine"), 200, want={UP + "x-request-id": "mine"}),
        Case("request_id_replaced_at_edge", req("GET", "/", "x-request-id: mine"), 200, listener="setid", want={UP + "x-request-id": "<uuid>"}),
        Case("request_id_preserved_at_edge", req("GET", "/", "x-request-id: mine"), 200, listener="keepid", want={"response.headers.x-request-id": "mine"}),
        Case("request_id_in_response", req("GET", "/"), 200, listener="setid", want={"response.headers.x-request-id": "<uuid>"}),
        Case("request_id_not_made", req("GET", "/"), 200, listener="noid"),
        Case("request_id_not_made_but_kept", req("GET", "/", "x-request-id: mine"), 200, listener="noid"),
        Case("upstream_request_id_passes", req("GET", "/"), 200, replies=(Reply(headers=(("x-request-id", "up"),)),)),
        Case("expected_timeout_default", req("GET", "/"), 200, want={UP + "x-envoy-expected-rq-timeout-ms": "15000"}),
        Case("expected_timeout_route", req("GET", "/short"), 200, want={UP + "x-envoy-expected-rq-timeout-ms": "750"}),
        Case("expected_timeout_none", req("GET", "/notimeout"), 200),
        Case("expected_timeout_per_try", req("GET", "/per-try"), 200, want={UP + "x-envoy-expected-rq-timeout-ms": "2000"}),
        Case("timeout_header_inside", req("GET", "/", "x-envoy-upstream-rq-timeout-ms: 1234"), 200, listener="internal", want={UP + "x-envoy-expected-rq-timeout-ms": "1234"}),
        Case("original_path", req("GET", "/rewrite?q"), 200, want={UP + "x-envoy-original-path": "/rewrite?q"}),
        Case("attempt_count", req("GET", "/"), 200, listener="counting", want={UP + "x-envoy-attempt-count": "1", "response.headers.x-envoy-attempt-count": "1"}),
        Case("attempt_count_retried", req("GET", "/"), 200, listener="counting", replies=(Reply(status=503), Reply()), want={"response.headers.x-envoy-attempt-count": "2", "upstream[1].headers.x-envoy-attempt-count": "2"}),
        Case("client_cert_header_is_removed", req("GET", "/", "x-forwarded-client-cert: By=x"), 200),
        Case("client_cert_header_is_removed_explicitly", req("GET", "/", "x-forwarded-client-cert: By=x"), 200, listener="xfcc"),
        Case("user_agent_added", req("GET", "/"), 200, listener="agent"),
        Case("user_agent_kept", req("GET", "/", "user-agent: mine"), 200, listener="agent"),
        Case("scheme_overwritten", req("GET", "/"), 200, listener="scheme"),
        Case("upstream_envoy_headers", req("GET", "/"), 200, replies=(Reply(headers=tuple((f"x-envoy-{n}", "1") for n in ("upstream-service-time", "upstream-healthchecked-cluster", "overloaded", "attempt-count", "decorator-operation", "upstream-canary", "ratelimited", "degraded", "immediate-health-check-fail", "other"))),), accept={}),
        Case("hop_by_hop_request", req("GET", "/", "connection: keep-alive, x-hop", "keep-alive: timeout=5", "x-hop: 1", "proxy-connection: keep-alive", "te: trailers, deflate", "upgrade-insecure-requests: 1"), 200),
        Case("te_trailers", req("GET", "/", "te: trailers", "connection: te"), 200),
        Case("hop_by_hop_response", req("GET", "/"), 200, replies=(Reply(headers=(("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("proxy-connection", "x"))),)),
        Case("proxy_authorization_passes", req("GET", "/", "proxy-authorization: Basic eA==", "authorization: Bearer x"), 200),
        Case("header_names_are_lowered", req("GET", "/", "X-MiXed: Value", "X-MiXed: Two"), 200, want={UP + "x-mixed": "Value ⏎ Two"}),
        Case("header_values_are_trimmed", req("GET", "/", "x-space:   padded \t "), 200, want={UP + "x-space": "padded"}),
        Case("response_names_are_lowered", req("GET", "/"), 200, replies=(Reply(headers=(("X-Mixed", "V"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))),)),
        Case("upstream_date_stays", req("GET", "/"), 200, replies=(Reply(headers=(("date", "Thu, 01 Jan 1970 00:00:00 GMT"),)),)),
        Case("obs_text_value", req("GET", "/", "x-high: caf\xe9"), 200),
        Case("cookie_lines", req("GET", "/", "cookie: a=1", "cookie: b=2"), 200),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_forwarding_headers(pair: Pair, case: Case) -> None:
    pair.check(case)
