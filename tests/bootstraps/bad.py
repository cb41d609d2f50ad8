"""Bootstraps that must be refused: where, in which words, and whether Envoy refuses them too."""

from __future__ import annotations

from dataclasses import dataclass

from bootstraps import (
    CLUSTER,
    ENDPOINT,
    EXT,
    HCM,
    HOST,
    LISTENER,
    LOCALHOST,
    ROUTE,
    ROUTER,
    TABLE,
    TCP,
    TCP_FILTER,
    TCP_LISTENER,
    TYPE,
    file_log,
    options,
    typed,
    web,
)

HC = "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1"


@dataclass(frozen=True)
class Bad:
    """A configuration that is refused."""

    name: str
    text: str
    path: str
    why: str
    """part of the reason"""
    envoy_refuses: bool = True
    """False where Envoy has the feature and we do not, or where it refuses later than at start-up"""


def unsupported(name: str, text: str, path: str, why: str = "not supported") -> Bad:
    """What Envoy can do and we cannot."""
    return Bad(name, text, path, why, envoy_refuses=False)


TCP_TYPE = f'"@type": {EXT}filters.network.tcp_proxy.v3.TcpProxy'
PREVIOUS = f'{{name: p, typed_config: {{"@type": {EXT}retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate}}}}'
LIMIT = typed("limit", "filters.network.connection_limit.v3.ConnectionLimit", "stat_prefix: l, max_connections: 1")
BAD_TEXT = 'log_format: {text_format_source: {inline_string: "%NOPE%"}}'
BAD_JSON = 'log_format: {json_format: {a: {b: "%NOPE%"}}}'
MONITOR = typed(
    "envoy.resource_monitors.global_downstream_max_connections",
    "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    "max_active_downstream_connections: 9",
)
EMPTY_PATH = 'path: ""'

SHAPE = [
    Bad("top-level list", "[1, 2]", "", "does not hold a mapping"),
    Bad("not yaml", "a: [", "--config-yaml", "not valid YAML: line"),
    Bad("unknown top-level key", "statics: {}", "statics", "unknown field of envoy.config.bootstrap.v3.Bootstrap"),
    Bad("unknown key", web(cluster="typ: STATIC"), f"{CLUSTER}.typ", "unknown field of envoy.config.cluster.v3.Cluster"),
    Bad("unknown key in an Any", web(hcm="stat_prefx: a"), f"{HCM}.stat_prefx", "unknown field of envoy.extensions"),
    Bad("unknown key in a route", web(match="prefx: /"), f"{ROUTE}.match.prefx", "unknown field"),
    Bad("merge key", "x: &x {id: a}\nnode: {<<: *x}", "x", "unknown field"),
    Bad("unknown enum value", web(cluster="type: STATICS"), f"{CLUSTER}.type", "must be one of STATIC, STRICT_DNS"),
    Bad("list instead of mapping", web(cluster="circuit_breakers: []"), f"{CLUSTER}.circuit_breakers", "must be a mapping"),
    Bad("mapping instead of list", web(hcm="access_log: {}"), f"{HCM}.access_log", "must be a list, not a mapping"),
    Bad("text instead of mapping", web(cluster="metadata: x"), f"{CLUSTER}.metadata", "must be a mapping, not 'x'"),
    Bad("number instead of bool", web(hcm="normalize_path: 1"), f"{HCM}.normalize_path", "must be true or false, not 1"),
    Bad("text instead of bool", web(hcm='merge_slashes: "maybe"'), f"{HCM}.merge_slashes", "must be true or false"),
    Bad("bool instead of text", web(hcm="via: yes"), f"{HCM}.via", "must be a string, not true"),
    Bad("text instead of number", web(hcm="max_request_headers_kb: many"), f"{HCM}.max_request_headers_kb", "a whole number"),
    Bad("negative for unsigned", web(hcm="xff_num_trusted_hops: -1"), f"{HCM}.xff_num_trusted_hops", "between 0 and 4294967295"),
    Bad("fraction for a whole number", web(hcm="xff_num_trusted_hops: 1.5"), f"{HCM}.xff_num_trusted_hops", "a whole number"),
    Bad("duration without unit", web(cluster="connect_timeout: 5"), f"{CLUSTER}.connect_timeout", "a duration such as 1.5s"),
    Bad(
        "duration in ms", web(cluster="connect_timeout: 5ms"), f"{CLUSTER}.connect_timeout", "a duration such as 1.5s, not '5ms'"
    ),
    Bad(
        "null in a list",
        web(table="internal_only_headers: [~]"),
        f"{TABLE}.internal_only_headers[0]",
        "not null",
        envoy_refuses=False,
    ),
    Bad(
        "two members of a oneof",
        web(route="match: {prefix: /, path: /a}, route: {cluster: a}"),
        f"{ROUTE}.match.path",
        "cannot be given together with prefix",
    ),
    Bad(
        "a field under both names",
        web(cluster="lb_policy: RANDOM, lbPolicy: RANDOM"),
        f"{CLUSTER}.lb_policy",
        "given twice, as lb_policy and lbPolicy",
        envoy_refuses=False,
    ),
    Bad("Any without @type", web(tcp_chain="filters: [{name: x, typed_config: {a: 1}}]"), TCP, "needs @type"),
    Bad(
        "unknown @type",
        web(tcp_chain='filters: [{name: x, typed_config: {"@type": type.googleapis.com/acme.Filter}}]'),
        TCP,
        "unknown or unsupported type type.googleapis.com/acme.Filter",
    ),
    Bad(
        "TypedStruct of an unknown type",
        web(
            tcp_chain="filters: [{name: x, typed_config: {"
            '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/acme.Filter, value: {a: 1}}}]'
        ),
        f"{TCP}.value",
        "acme.Filter is not a supported network filter",
    ),
    Bad(
        "unknown key in a TypedStruct",
        web(
            tcp_chain="filters: [{name: x, typed_config: {"
            f'"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: {EXT}filters.network.tcp_proxy.v3.TcpProxy, '
            "value: {stat_prefix: a, cluster: a, clusterr: b}}}]"
        ),
        f"{TCP}.value.clusterr",
        "unknown field",
    ),
]

SHAPE += [
    Bad("number where text is wanted", "node: {id: 010}", "node.id", "must be a string, not 8; put it in quotes"),
    Bad("!ignore on a value", "x: !ignore {a: 1}", "x", "unknown field"),
]

RULES = [
    Bad("cluster without name", "static_resources: {clusters: [{type: STATIC}]}", f"{CLUSTER}.name", "must not be empty"),
    Bad("connect_timeout zero", web(cluster="connect_timeout: 0s"), f"{CLUSTER}.connect_timeout", "must be more than 0s"),
    Bad("stat_prefix missing", web(hcm='stat_prefix: ""'), f"{HCM}.stat_prefix", "must not be empty"),
    Bad("no route specifier", web(hcm="route_config: ~"), HCM, "needs one of rds, route_config, scoped_routes"),
    Bad("tcp_proxy without cluster", web(tcp="cluster: ~"), TCP, "needs one of cluster, weighted_clusters"),
    Bad("headers too large", web(hcm="max_request_headers_kb: 9000"), f"{HCM}.max_request_headers_kb", "at most 8192"),
    Bad(
        "port too large",
        web(endpoint="endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 70000}}}"),
        f"{CLUSTER}.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value",
        "at most 65535",
    ),
    Bad(
        "no port",
        web(endpoint="endpoint: {address: {socket_address: {address: 127.0.0.1}}}"),
        f"{CLUSTER}.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address",
        "needs one of port_value",
    ),
    Bad(
        "endpoint weight zero",
        web(endpoint="load_balancing_weight: 0"),
        f"{CLUSTER}.load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight",
        "must be at least 1",
    ),
    Bad("vhost without domains", web(host="domains: []"), f"{HOST}.domains", "must not be empty"),
    Bad("route without match", web(route="route: {cluster: a}"), f"{ROUTE}.match", "is required"),
    Bad("route without action", web(route="match: {prefix: /}"), ROUTE, "needs one of route, redirect, direct_response"),
    Bad(
        "match without path",
        web(route="match: {}, route: {cluster: a}"),
        f"{ROUTE}.match",
        "needs one of prefix, path, safe_regex",
    ),
    Bad(
        "empty cluster name", web(route='match: {prefix: /}, route: {cluster: ""}'), f"{ROUTE}.route.cluster", "must not be empty"
    ),
    Bad(
        "status out of range",
        web(route="match: {prefix: /}, direct_response: {status: 99}"),
        f"{ROUTE}.direct_response.status",
        "at least 200",
    ),
    Bad(
        "separated prefix with query",
        web(route='match: {path_separated_prefix: "/a?b"}, route: {cluster: a}'),
        f"{ROUTE}.match.path_separated_prefix",
        "must match",
    ),
    Bad(
        "separated prefix ends with slash",
        web(route="match: {path_separated_prefix: /a/}, route: {cluster: a}"),
        f"{ROUTE}.match.path_separated_prefix",
        "must match",
    ),
    Bad(
        "no weighted clusters",
        web(route="match: {prefix: /}, route: {weighted_clusters: {clusters: []}}"),
        f"{ROUTE}.route.weighted_clusters.clusters",
        "must not be empty",
    ),
    Bad(
        "line break in a header name",
        web(host='request_headers_to_remove: ["a\\nb"]'),
        f"{HOST}.request_headers_to_remove[0]",
        "must not hold a line break",
    ),
    Bad(
        "empty header matcher prefix",
        web(match='headers: [{name: a, string_match: {prefix: ""}}]'),
        f"{ROUTE}.match.headers[0].string_match.prefix",
        "must not be empty",
    ),
    Bad(
        "string matcher without pattern",
        web(match="headers: [{name: a, string_match: {}}]"),
        f"{ROUTE}.match.headers[0].string_match",
        "needs one of exact, prefix, suffix",
    ),
    Bad(
        "header option without header",
        web(host="request_headers_to_add: [{append_action: ADD_IF_ABSENT}]"),
        f"{HOST}.request_headers_to_add[0].header",
        "is required",
    ),
    Bad("pipe mode", "admin: {address: {pipe: {path: /tmp/a, mode: 01000}}}", "admin.address.pipe.mode", "at most 511"),
    Bad(
        "chain match port",
        web(tcp_chain="filter_chain_match: {destination_port: 0}"),
        f"{TCP_LISTENER}.filter_chains[0].filter_chain_match.destination_port",
        "at least 1",
    ),
    Bad(
        "scheme",
        web(hcm="scheme_header_transformation: {scheme_to_overwrite: ftp}"),
        f"{HCM}.scheme_header_transformation.scheme_to_overwrite",
        "must be one of http, https",
    ),
    Bad(
        "log without path",
        web(hcm=f"access_log: [{file_log(EMPTY_PATH)}]"),
        f"{HCM}.access_log[0].typed_config.path",
        "must not be empty",
    ),
    Bad(
        "empty file name",
        web(route='match: {prefix: /}, direct_response: {status: 200, body: {filename: ""}}'),
        f"{ROUTE}.direct_response.body.filename",
        "must not be empty",
    ),
    Bad(
        "choice count",
        web(cluster="lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 1}"),
        f"{CLUSTER}.least_request_lb_config.choice_count",
        "at least 2",
    ),
    Bad(
        "strict_check_headers",
        web(hcm=f"http_filters: [{typed('r', 'filters.http.router.v3.Router', 'strict_check_headers: [x-foo]')}]"),
        f"{HCM}.http_filters[0].typed_config.strict_check_headers[0]",
        "must be one of",
    ),
    Bad(
        "runtime layer without name",
        "layered_runtime: {layers: [{static_layer: {}}]}",
        "layered_runtime.layers[0].name",
        "must not be empty",
    ),
    Bad("stats flush interval", "stats_flush_interval: 400s", "stats_flush_interval", "less than 300s"),
    Bad(
        "fraction without default",
        web(match="runtime_fraction: {runtime_key: a}"),
        f"{ROUTE}.match.runtime_fraction.default_value",
        "is required",
    ),
    Bad(
        "hash policy without specifier",
        web(action="hash_policy: [{}]"),
        f"{ROUTE}.route.hash_policy[0]",
        "needs one of header, cookie",
    ),
    Bad(
        "max_connections of connection_limit",
        web(
            tcp_chain=f"filters: [{typed('l', 'filters.network.connection_limit.v3.ConnectionLimit', 'stat_prefix: a, max_connections: 0')}]"
        ),
        f"{TCP}.max_connections",
        "at least 1",
    ),
    Bad(
        "status code filter without comparison",
        web(hcm=f"access_log: [{file_log(log_filter='{status_code_filter: {}}')}]"),
        f"{HCM}.access_log[0].filter.status_code_filter.comparison",
        "is required",
    ),
    Bad(
        "and_filter with one member",
        web(hcm=f"access_log: [{file_log(log_filter='{and_filter: {filters: [{not_health_check_filter: {}}]}}')}]"),
        f"{HCM}.access_log[0].filter.and_filter.filters",
        "at least 2 entries",
    ),
]

MEANING = [
    Bad(
        "two resource monitors",
        f"overload_manager: {{resource_monitors: [{MONITOR}, {MONITOR}]}}",
        "overload_manager.resource_monitors[1]",
        "is a second monitor of the same kind",
    ),
    Bad(
        "unknown operator in a log",
        web(hcm=f"access_log: [{file_log(BAD_TEXT)}]"),
        f"{HCM}.access_log[0].typed_config.log_format.text_format_source",
        "not a valid format string: unknown operator %NOPE%",
    ),
    Bad(
        "unknown operator in JSON",
        web(hcm=f"access_log: [{file_log(BAD_JSON)}]"),
        f"{HCM}.access_log[0].typed_config.log_format.json_format.a.b",
        "unknown operator %NOPE%",
    ),
    Bad(
        "half an operator in a header",
        web(host='request_headers_to_add: [{header: {key: a, value: "50%"}}]'),
        f"{HOST}.request_headers_to_add[0].header.value",
        "not a valid format string",
    ),
    Bad(
        "null in the runtime",
        "layered_runtime: {layers: [{name: a, static_layer: {x: {y: ~}}}]}",
        "layered_runtime.layers[0].static_layer.x.y",
        "must be a number, text, true or false, not null",
    ),
    Bad(
        "list in the runtime",
        "layered_runtime: {layers: [{name: a, static_layer: {x: [1]}}]}",
        "layered_runtime.layers[0].static_layer.x",
        "must be a number, text, true or false, not a list",
    ),
    Bad(
        "address taken",
        web(listener="address: {socket_address: {address: 127.0.0.1, port_value: 7}}").replace(
            "- name: tcp\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
            "- name: tcp\n    address: {socket_address: {address: 127.0.0.1, port_value: 7}}",
        ),
        "listeners[1].address",
        "listener 'web' has the address 127.0.0.1:7 already",
    ),
    Bad(
        "unknown cluster", web(route="match: {prefix: /}, route: {cluster: zz}"), f"{ROUTE}.route.cluster", "unknown cluster 'zz'"
    ),
    Bad(
        "unknown weighted cluster",
        web(route="match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: zz, weight: 1}]}}"),
        f"{ROUTE}.route.weighted_clusters.clusters[0].name",
        "unknown cluster 'zz'",
    ),
    Bad(
        "weights sum to 0",
        web(route="match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}"),
        f"{ROUTE}.route.weighted_clusters.clusters",
        "sum of the weights must be more than 0",
    ),
    Bad(
        "weighted cluster with name and header",
        web(route="match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, cluster_header: x, weight: 1}]}}"),
        f"{ROUTE}.route.weighted_clusters.clusters[0]",
        "takes only one of name, cluster_header",
    ),
    Bad("duplicate cluster", web(static="- {name: a}"), "clusters[2].name", "another cluster is named 'a' too"),
    Bad(
        "duplicate domain",
        web(table="virtual_hosts: [{name: v, domains: [x.test]}, {name: w, domains: [X.test]}]"),
        f"{TABLE}.virtual_hosts[1].domains[0]",
        "domain x.test is taken already",
    ),
    Bad(
        "two wildcards",
        web(table='virtual_hosts: [{name: v, domains: ["*"]}, {name: w, domains: ["*"]}]'),
        f"{TABLE}.virtual_hosts[1].domains[0]",
        "only one virtual host may have the domain *",
    ),
    Bad(
        "bad regex in route",
        web(route='match: {safe_regex: {regex: "(a"}}, route: {cluster: a}'),
        f"{ROUTE}.match.safe_regex.regex",
        "not a valid regular expression (RE2): missing )",
    ),
    Bad(
        "look-ahead",
        web(match='headers: [{name: a, string_match: {safe_regex: {regex: "(?=a)"}}}]'),
        f"{ROUTE}.match.headers[0].string_match.safe_regex.regex",
        "not a valid regular expression",
    ),
    Bad(
        "substitution names a missing group",
        web(action='regex_rewrite: {pattern: {regex: "a"}, substitution: "\\\\1"}'),
        f"{ROUTE}.route.regex_rewrite.substitution",
        "names a group that the pattern does not have",
        envoy_refuses=False,
    ),
    Bad(
        "two rewrites",
        web(action='prefix_rewrite: /b, regex_rewrite: {pattern: {regex: "a"}, substitution: b}'),
        f"{ROUTE}.route",
        "only one of prefix_rewrite, regex_rewrite",
    ),
    Bad(
        "direct response too long",
        web(route=f"match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {'a' * 4097}}}}}"),
        f"{ROUTE}.direct_response.body",
        "is 4097 bytes long, the maximum is 4096",
    ),
    Bad(
        "body file missing",
        web(route="match: {prefix: /}, direct_response: {status: 200, body: {filename: /nonexistent/x}}"),
        f"{ROUTE}.direct_response.body.filename",
        "cannot read /nonexistent/x",
    ),
    Bad(
        "back-off upside down",
        web(action="retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}"),
        f"{ROUTE}.route.retry_policy.retry_back_off.max_interval",
        "must be at least base_interval",
    ),
    Bad(
        "connect_config for websocket",
        web(action="upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]"),
        f"{ROUTE}.route.upgrade_configs[0].connect_config",
        "only for the upgrade type CONNECT",
    ),
    Bad("negative timeout", web(action="timeout: -1s"), f"{ROUTE}.route.timeout", "must not be negative"),
    Bad(
        "pseudo header added",
        web(host='request_headers_to_add: [{header: {key: ":path", value: /}}]'),
        f"{HOST}.request_headers_to_add[0].header.key",
        ":path cannot be added or set",
    ),
    Bad(
        "host header removed",
        web(host="request_headers_to_remove: [host]"),
        f"{HOST}.request_headers_to_remove[0]",
        "host cannot be removed",
    ),
    Bad(
        "append twice",
        web(host="request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]"),
        f"{HOST}.request_headers_to_add[0].append_action",
        "cannot be given together with append",
    ),
    Bad("no http filters", web(hcm="http_filters: []"), f"{HCM}.http_filters", "needs at least the router", envoy_refuses=False),
    Bad(
        "router not last", web(hcm=f"http_filters: [{ROUTER}, {ROUTER}]"), f"{HCM}.http_filters[0]", "the router must be the last"
    ),
    Bad(
        "router disabled",
        web(hcm=f"http_filters: [{ROUTER[:-1]}, disabled: true}}]"),
        f"{HCM}.http_filters[0].disabled",
        "cannot be disabled",
    ),
    Bad(
        "filter without config",
        web(hcm="http_filters: [{name: envoy.filters.http.router}]"),
        f"{HCM}.http_filters[0]",
        "needs typed_config",
    ),
    Bad(
        "network filter as HTTP filter",
        web(hcm=f"http_filters: [{{name: x, typed_config: {{{TCP_TYPE}, stat_prefix: a, cluster: a}}}}]"),
        f"{HCM}.http_filters[0].typed_config",
        "is not a supported HTTP filter",
    ),
    Bad("HTTP filter as network filter", web(tcp_chain=f"filters: [{ROUTER}]"), TCP, "is not a supported network filter"),
    Bad(
        "per-route config of no filter",
        web(host=f'typed_per_filter_config: {{x: {{"@type": {EXT}filters.http.router.v3.Router}}}}'),
        f"{HOST}.typed_per_filter_config[x]",
        "is not a supported per-route configuration",
    ),
    Bad(
        "terminal filter not last",
        web(tcp_chain=f"filters: [{{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: a, cluster: a}}}}, {LIMIT}]"),
        TCP_FILTER,
        "so it must be the last one",
    ),
    Bad(
        "no terminal filter", web(tcp_chain=f"filters: [{LIMIT}]"), TCP_FILTER, "the last filter must be one that ends the chain"
    ),
    Bad(
        "no filter chains",
        web(listener="").replace("  - name: tcp\n", f"  - {{name: none, address: {{{LOCALHOST}}}}}\n  - name: tcp\n"),
        "listeners[1]",
        "needs filter_chains or default_filter_chain",
    ),
    Bad(
        "listener on a name",
        web(listener="address: {socket_address: {address: localhost, port_value: 0}}"),
        f"{LISTENER}.address.socket_address.address",
        "must be an IP address, not 'localhost'",
    ),
    Bad(
        "duplicate listener",
        web().replace("- name: tcp", "- name: web"),
        "listeners[1].name",
        "another listener is named 'web' too",
        envoy_refuses=False,
    ),
    Bad(
        "same chain match twice",
        web(
            listener=(
                "default_filter_chain: ~\n"
                f"filter_chains: [{{name: a, filters: [{{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: a, cluster: a}}}}]}}, "
                f"{{name: b, filters: [{{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: a, cluster: a}}}}]}}]"
            )
        ).replace("    filter_chains:\n    - {filters: [{name: hcm", "    !ignore x:\n    - {filters: [{name: hcm", 1),
        f"{LISTENER}.filter_chains[1].filter_chain_match",
        "matches the same connections as filter_chains[0]",
    ),
    Bad(
        "partial wildcard SNI",
        web(tcp_chain='filter_chain_match: {server_names: ["*foo.com"]}'),
        f"{TCP_LISTENER}.filter_chains[0].filter_chain_match.server_names[0]",
        "a wildcard can only be the whole first label",
    ),
    Bad(
        "bad CIDR",
        web(tcp_chain="filter_chain_match: {prefix_ranges: [{address_prefix: a.b, prefix_len: 8}]}"),
        f"{TCP_LISTENER}.filter_chains[0].filter_chain_match.prefix_ranges[0].address_prefix",
        "must be an IP address",
    ),
    Bad(
        "STATIC with a name",
        web(endpoint="endpoint: {address: {socket_address: {address: localhost, port_value: 1}}}"),
        f"{CLUSTER}.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
        "must be an IP address",
    ),
    Bad(
        "LOGICAL_DNS with two endpoints",
        web(
            cluster=f"type: LOGICAL_DNS, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{{ENDPOINT}}}, {{{ENDPOINT}}}]}}]}}"
        ),
        f"{CLUSTER}.load_assignment",
        "exactly one locality with one endpoint",
    ),
    Bad(
        "ORIGINAL_DST with ROUND_ROBIN",
        web(cluster="type: ORIGINAL_DST, load_assignment: ~"),
        f"{CLUSTER}.lb_policy",
        "must be CLUSTER_PROVIDED",
    ),
    Bad(
        "ORIGINAL_DST with endpoints",
        web(cluster="type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED"),
        f"{CLUSTER}.load_assignment",
        "has no endpoints of its own",
    ),
    Bad(
        "CLUSTER_PROVIDED for STATIC",
        web(cluster="lb_policy: CLUSTER_PROVIDED"),
        f"{CLUSTER}.lb_policy",
        "provides no load balancer",
    ),
    Bad(
        "gap in priorities",
        web(cluster=f"load_assignment: {{cluster_name: a, endpoints: [{{priority: 1, lb_endpoints: [{{{ENDPOINT}}}]}}]}}"),
        f"{CLUSTER}.load_assignment.endpoints",
        "priorities must start at 0",
        envoy_refuses=False,
    ),
    Bad(
        "unknown response flag",
        web(hcm=f"access_log: [{file_log(log_filter='{response_flag_filter: {flags: [XX]}}')}]"),
        f"{HCM}.access_log[0].filter.response_flag_filter.flags[0]",
        "must be one of LH, UH",
    ),
    Bad(
        "original_ip_detection with use_remote_address",
        web(
            hcm=(
                "use_remote_address: true, original_ip_detection_extensions: "
                f"[{typed('x', 'http.original_ip_detection.xff.v3.XffConfig', 'xff_num_trusted_hops: 1')}]"
            )
        ),
        f"{HCM}.original_ip_detection_extensions",
        "cannot be given together with use_remote_address",
    ),
    Bad(
        "both ways of stripping ports",
        web(hcm="strip_matching_host_port: true, strip_any_host_port: true"),
        f"{HCM}.strip_any_host_port",
        "cannot be given together",
    ),
    Bad(
        "upgrade type twice",
        web(hcm="upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: WebSocket}]"),
        f"{HCM}.upgrade_configs[1].upgrade_type",
        "another entry has the type websocket too",
    ),
    Bad(
        "two admin layers",
        "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]}",
        "layered_runtime.layers[1].admin_layer",
        "only one admin layer",
    ),
    Bad(
        "runtime layer twice",
        "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: a, static_layer: {}}]}",
        "layered_runtime.layers[1].name",
        "another layer is named 'a' too",
    ),
    Bad(
        "protocol options under another key",
        web(
            cluster=(
                "typed_extension_protocol_options: {envoy.x: "
                f'{{"@type": {EXT}upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http_protocol_options: {{}}}}}}}}'
            )
        ),
        f"{CLUSTER}.typed_extension_protocol_options[envoy.x]",
        "the key must be",
    ),
    Bad(
        "protocol options without a choice",
        web(cluster=options("common_http_protocol_options: {}")),
        f"{CLUSTER}.typed_extension_protocol_options[envoy.extensions.upstreams.http.v3.HttpProtocolOptions]",
        "needs one of explicit_http_config",
    ),
]

UNSUPPORTED = [
    Bad(
        "upstream protocol by ALPN",
        web(cluster=options("auto_config: {http2_protocol_options: {}}")),
        f"{CLUSTER}.typed_extension_protocol_options[envoy.extensions.upstreams.http.v3.HttpProtocolOptions].auto_config",
        "choosing the protocol by ALPN",
    ),
    unsupported(
        "listener filter",
        web(listener=f"listener_filters: [{typed('t', 'filters.listener.proxy_protocol.v3.ProxyProtocol')}]"),
        f"{LISTENER}.listener_filters[0]",
        "the listener filter proxy_protocol is not supported",
    ),
    unsupported("tracing", web(hcm="tracing: {}"), f"{HCM}.tracing"),
    unsupported(
        "config_discovery",
        web(
            top="node: {id: a, cluster: b}",
            hcm='http_filters: [{name: a, config_discovery: {config_source: {path_config_source: {path: /dev/null}}, apply_default_config_without_warming: true, default_config: {"@type": '
            + EXT
            + "filters.http.router.v3.Router}, type_urls: ["
            + EXT
            + "filters.http.router.v3.Router]}}]",
        ),
        f"{HCM}.http_filters[0].config_discovery",
    ),
    Bad(
        "health check thresholds",
        web(cluster="health_checks: [{timeout: 1s, interval: 1s, healthy_threshold: 1, tcp_health_check: {}}]"),
        f"{CLUSTER}.health_checks[0].unhealthy_threshold",
        "required",
    ),
    Bad(
        "health check payload",
        web(cluster=f"health_checks: [{{{HC}, tcp_health_check: {{send: {{text: xy}}}}}}]"),
        f"{CLUSTER}.health_checks[0].tcp_health_check.send.text",
        "hexadecimal",
    ),
    Bad(
        "health check statuses",
        web(cluster=f"health_checks: [{{{HC}, http_health_check: {{path: /, expected_statuses: [{{start: 300, end: 300}}]}}}}]"),
        f"{CLUSTER}.health_checks[0].http_health_check.expected_statuses[0]",
        "start < end",
    ),
    Bad(
        "health check body",
        web(cluster=f"health_checks: [{{{HC}, http_health_check: {{path: /, send: {{text: ff}}}}}}]"),
        f"{CLUSTER}.health_checks[0].http_health_check.send",
        "has no body",
    ),
    Bad(
        "health check expects too much",
        web(
            cluster=f"health_checks: [{{{HC}, http_health_check: {{path: /, receive: [{{text: ffff}}], response_buffer_size: 1}}}}]"
        ),
        f"{CLUSTER}.health_checks[0].http_health_check.receive",
        "longer",
    ),
    Bad(
        "two health checks",
        web(cluster=f"health_checks: [{{{HC}, tcp_health_check: {{}}}}, {{{HC}, tcp_health_check: {{}}}}]"),
        f"{CLUSTER}.health_checks[1]",
        "only one",
    ),
    Bad(
        "custom health check",
        web(cluster=f"health_checks: [{{{HC}, custom_health_check: {{name: x}}}}]"),
        f"{CLUSTER}.health_checks[0].custom_health_check",
        "not supported",
    ),
    Bad(
        "grpc health check over http/1",
        web(cluster=f"health_checks: [{{{HC}, grpc_health_check: {{}}}}]"),
        f"{CLUSTER}.health_checks[0].grpc_health_check",
        "HTTP/2",
    ),
    unsupported(
        "health check events",
        web(cluster=f"health_checks: [{{{HC}, event_log_path: /x, tcp_health_check: {{}}}}]"),
        f"{CLUSTER}.health_checks[0].event_log_path",
    ),
    Bad("balancing policy", web(cluster="lb_policy: LOAD_BALANCING_POLICY_CONFIG"), f"{CLUSTER}.lb_policy", "is not supported"),
    Bad(
        "hashed names of a static cluster",
        web(cluster="common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}"),
        f"{CLUSTER}.common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
        "only for clusters of type STRICT_DNS",
    ),
    unsupported(
        "ring hash function",
        web(cluster="lb_policy: RING_HASH, ring_hash_lb_config: {hash_function: MURMUR_HASH_2}"),
        f"{CLUSTER}.ring_hash_lb_config.hash_function",
        "only XX_HASH",
    ),
    Bad(
        "ring sizes",
        web(cluster="lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}"),
        f"{CLUSTER}.ring_hash_lb_config.minimum_ring_size",
        "larger",
    ),
    Bad(
        "maglev table",
        web(cluster="lb_policy: MAGLEV, maglev_lb_config: {table_size: 65536}"),
        f"{CLUSTER}.maglev_lb_config.table_size",
        "prime",
    ),
    Bad(
        "locality weights of subsets",
        web(
            cluster="lb_subset_config: {subset_selectors: [{keys: [a]}], locality_weight_aware: true, scale_locality_weight: true}"
        ),
        f"{CLUSTER}.lb_subset_config.scale_locality_weight",
        "not support",
    ),
    Bad(
        "single host with two keys",
        web(cluster="lb_subset_config: {subset_selectors: [{keys: [a, b], single_host_per_subset: true}]}"),
        f"{CLUSTER}.lb_subset_config.subset_selectors[0].single_host_per_subset",
        "exactly one key",
        envoy_refuses=False,
    ),
    Bad(
        "fallback to all keys",
        web(
            cluster="lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]}"
        ),
        f"{CLUSTER}.lb_subset_config.subset_selectors[0].fallback_keys_subset",
        "not all",
    ),
    unsupported("hedging", web(action="hedge_policy: {hedge_on_per_try_timeout: true}"), f"{ROUTE}.route.hedge_policy"),
    unsupported(
        "host predicate",
        web(action=f"retry_policy: {{retry_host_predicate: [{PREVIOUS}]}}"),
        f"{ROUTE}.route.retry_policy.retry_host_predicate[0].typed_config",
        "is not a supported retry host predicate",
    ),
    unsupported("tcp tunneling", web(tcp='tunneling_config: {hostname: "a:1"}'), f"{TCP}.tunneling_config"),
    unsupported("on_demand tcp", web(tcp="backoff_options: {base_interval: 1s}"), f"{TCP}.backoff_options"),
    unsupported(
        "original_dst for some connections",
        web(
            listener='listener_filters: [{name: a, filter_disabled: {any_match: true}, typed_config: {"@type": '
            f"{EXT}filters.listener.original_dst.v3.OriginalDst}}}}]"
        ),
        f"{LISTENER}.listener_filters[0].filter_disabled",
        "which address a connection was made to is always looked at",
    ),
    unsupported(
        "match by metadata",
        web(match="dynamic_metadata: [{filter: a, path: [{key: a}], value: {present_match: true}}]"),
        f"{ROUTE}.match.dynamic_metadata",
    ),
    unsupported(
        "extension filter of a log",
        web(hcm=f"access_log: [{file_log(log_filter='{metadata_filter: {}}')}]"),
        f"{HCM}.access_log[0].filter.metadata_filter",
        "this condition is not supported",
    ),
    unsupported(
        "original_src on a listener that hands over",
        web(
            listener="use_original_dst: true\nlistener_filters: "
            f"[{typed('a', 'filters.listener.original_src.v3.OriginalSrc', 'mark: 1337')}]"
        ),
        f"{LISTENER}.listener_filters[0]",
        "use_original_dst",
    ),
    Bad(
        "somebody's wasm",
        web(
            hcm="http_filters: ["
            + typed("a", "filters.http.wasm.v3.Wasm", "config: {vm_config: {runtime: envoy.wasm.runtime.v8}}")
            + f", {ROUTER}]"
        ),
        f"{HCM}.http_filters[0].typed_config",
        "Wasm is not a supported HTTP filter",
    ),
    unsupported("stats sinks", web(top="stats_flush_on_admin: true"), "stats_flush_on_admin"),
    unsupported(
        "admin socket options",
        f"admin: {{address: {{{LOCALHOST}}}, socket_options: [{{level: 1, name: 9, int_value: 1, state: 0}}]}}",
        "admin.socket_options",
    ),
    unsupported(
        "disk layer",
        "layered_runtime: {layers: [{name: a, disk_layer: {symlink_root: /nonexistent}}]}",
        "layered_runtime.layers[0].disk_layer",
        "this kind of layer is not supported",
    ),
    Bad(
        "UDP",
        web(listener="address: {socket_address: {address: 127.0.0.1, port_value: 0, protocol: UDP}}"),
        f"{LISTENER}.address.socket_address.protocol",
        "only TCP is supported",
    ),
]

BAD = [*SHAPE, *RULES, *MEANING, *UNSUPPORTED]
assert TYPE
