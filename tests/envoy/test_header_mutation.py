"""Headers added, overwritten and removed by weighted cluster, route, virtual host and table, with formatters."""

import pytest
from parity import Case, Pair, Reply, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

FORMATTERS = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "alternative": "%REQ(X-NONE?X-ONE)%",
    "cut": "%REQ(X-LONG):4%",
    "missing": "%REQ(X-NONE)%",
    "protocol": "%PROTOCOL%",
    "local-port": "%DOWNSTREAM_LOCAL_PORT%",
    "local-ip": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "remote-ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "direct-ip": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "literal": "100%% sure",
    "mixed": "a-%REQ(X-ONE)%-b",
    "two": "%REQ(X-ONE)%/%REQ(:METHOD)%",
}
ADD = ", ".join(f'{{header: {{key: x-f-{key}, value: "{value}"}}}}' for key, value in FORMATTERS.items())
RESPONSE_FORMATTERS = {
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "upstream": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "resp": "%RESP(X-UP)%",
    "req": "%REQ(X-ONE)%",
    "up-remote": "%UPSTREAM_REMOTE_ADDRESS%",
    "route": "%ROUTE_NAME%",
}
RESPONSE_ADD = ", ".join(f'{{header: {{key: x-f-{key}, value: "{value}"}}}}' for key, value in RESPONSE_FORMATTERS.items())


def four(kind: str, level: str) -> str:
    """One header per append action, named for the action, with the level as its value."""
    rows = ("append APPEND_IF_EXISTS_OR_ADD", "add ADD_IF_ABSENT", "over OVERWRITE_IF_EXISTS_OR_ADD", "exist OVERWRITE_IF_EXISTS")
    return ", ".join(
        f"{{header: {{key: x-{kind}-{row.split()[0]}, value: {level}}}, append_action: {row.split()[1]}}}" for row in rows
    )


ROUTES = f"""
request_headers_to_add: [{four("q", "table")}, {{header: {{key: x-q-order, value: table}}}}]
request_headers_to_remove: [x-drop-table]
response_headers_to_add: [{four("s", "table")}, {{header: {{key: x-s-order, value: table}}}}]
response_headers_to_remove: [x-drop-table]
virtual_hosts:
- name: mutating
  domains: [a.test]
  request_headers_to_add: [{four("q", "vhost")}, {{header: {{key: x-q-order, value: vhost}}}}]
  request_headers_to_remove: [x-drop-vhost]
  response_headers_to_add: [{four("s", "vhost")}, {{header: {{key: x-s-order, value: vhost}}}}]
  response_headers_to_remove: [x-drop-vhost]
  routes:
  - match: {{prefix: /all}}
    route: {{cluster: a}}
    request_headers_to_add: [{four("q", "route")}, {{header: {{key: x-q-order, value: route}}}}]
    request_headers_to_remove: [x-drop-route, X-Drop-Case]
    response_headers_to_add: [{four("s", "route")}, {{header: {{key: x-s-order, value: route}}}}]
    response_headers_to_remove: [x-drop-route]
  - match: {{prefix: /direct}}
    direct_response: {{status: 200}}
    response_headers_to_add: [{{header: {{key: x-s-order, value: route}}}}]
  - {{name: plain, match: {{prefix: /plain}}, route: {{cluster: a}}}}
- name: formatting
  domains: [f.test]
  routes:
  - name: formatted
    match: {{prefix: /}}
    route: {{cluster: a}}
    request_headers_to_add: [{ADD}]
    response_headers_to_add: [{RESPONSE_ADD}]
- name: special
  domains: [s.test]
  routes:
  - match: {{prefix: /empty}}
    route: {{cluster: a}}
    request_headers_to_add: [{{header: {{key: x-empty, value: ""}}, keep_empty_value: true}}, {{header: {{key: x-none, value: "%REQ(NONE)%"}}}}]
  - match: {{prefix: /host}}
    route: {{cluster: a}}
    request_headers_to_add: [{{header: {{key: x-agent, value: "%REQ(USER-AGENT)%"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]
    request_headers_to_remove: [user-agent, x-forwarded-proto]
  - match: {{prefix: /server}}
    route: {{cluster: a}}
    response_headers_to_remove: [server, date, x-envoy-upstream-service-time]
  - match: {{prefix: /upper}}
    route: {{cluster: a}}
    request_headers_to_add: [{{header: {{key: X-Upper-Case, value: "1"}}}}]
  - match: {{prefix: /weighted}}
    route:
      weighted_clusters:
        clusters:
        - {{name: a, weight: 1, request_headers_to_add: [{{header: {{key: x-order, value: cluster}}}}], response_headers_to_add: [{{header: {{key: x-order, value: cluster}}}}]}}
    request_headers_to_add: [{{header: {{key: x-order, value: route}}}}]
    response_headers_to_add: [{{header: {{key: x-order, value: route}}}}]
"""
MOST_SPECIFIC_LAST = "most_specific_header_mutations_wins: true\n" + ROUTES
ALL_SET = tuple(f"x-q-{name}: client" for name in ("append", "add", "over", "exist"))
UPSTREAM_SET = Reply(headers=(*((f"x-s-{name}", "upstream") for name in ("append", "add", "over", "exist")), ("x-up", "u")))
DROPS = Reply(headers=tuple((f"x-drop-{name}", "1") for name in ("route", "vhost", "table")))

SUITE = Suite(
    bootstrap([http("main", ROUTES), http("last", MOST_SPECIFIC_LAST)], [cluster("a", "a")]),
    (
        Case("request_absent", req("GET", "/all"), 200, want={"upstream.headers.x-q-order": "route ⏎ vhost ⏎ table"}),
        Case("request_present", req("GET", "/all", *ALL_SET), 200, want={"upstream.headers.x-q-add": "client"}),
        Case("request_present_twice", req("GET", "/all", *ALL_SET, *ALL_SET), 200),
        Case("request_vhost_and_table_only", req("GET", "/plain", *ALL_SET), 200, want={"upstream.headers.x-q-order": "vhost ⏎ table"}),
        Case("request_removed", req("GET", "/all", "x-drop-route: 1", "x-drop-vhost: 1", "x-drop-table: 1", "x-drop-case: 1"), 200),
        Case("request_removed_vhost_only", req("GET", "/plain", "x-drop-route: 1", "x-drop-vhost: 1", "x-drop-table: 1"), 200),
        Case("response_absent", req("GET", "/all"), 200, want={"response.headers.x-s-order": "route ⏎ vhost ⏎ table"}),
        Case("response_present", req("GET", "/all"), 200, replies=(UPSTREAM_SET,), want={"response.headers.x-s-add": "upstream"}),
        Case("response_removed", req("GET", "/all"), 200, replies=(DROPS,)),
        Case("response_removed_vhost_only", req("GET", "/plain"), 200, replies=(DROPS,)),
        Case("response_of_direct", req("GET", "/direct"), 200, "", want={"response.headers.x-s-order": "route ⏎ vhost ⏎ table"}),
        Case("response_of_no_route", req("GET", "/nowhere"), 404, ""),
        Case("request_specific_last", req("GET", "/all", *ALL_SET), 200, listener="last"),
        Case("response_specific_last", req("GET", "/all"), 200, listener="last", replies=(UPSTREAM_SET,)),
        Case("formatters", req("GET", "/f?q=1", "x-one: 1", "x-long: abcdefgh", host="f.test"), 200, replies=(UPSTREAM_SET,)),
        Case("formatters_post", req("POST", "/f", "x-one: 1", "x-one: 2", host="f.test", body=b"x"), 200),
        Case("formatters_local_reply", req("GET", "/f", host="f.test"), 503, replies=(Reply(ending="reset_before"),)),
        Case("keep_empty_value", req("GET", "/empty", host="s.test"), 200, want={"upstream.headers.x-empty": ""}),
        Case("add_reads_before_remove", req("GET", "/host", "user-agent: me", host="s.test"), 200),
        Case("remove_what_the_proxy_adds", req("GET", "/server", host="s.test"), 200),
        Case("added_name_is_lower_case", req("GET", "/upper", host="s.test"), 200, want={"upstream.headers.x-upper-case": "1"}),
        Case("weighted_cluster_level", req("GET", "/weighted", host="s.test"), 200, want={"upstream.headers.x-order": "cluster ⏎ route"}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_header_mutation(pair: Pair, case: Case) -> None:
    pair.check(case)
