"""Bootstraps that must be accepted, by Envoy too, and what becomes of their fields.

An expectation names a place in the result (`listeners.0.name`) and the value there; together they touch every field that the
translation reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstraps import CLUSTER, ENDPOINT, EXT, HCM, LOCALHOST, ROUTER, TCP_LISTENER, file_log, options, typed, web

TEXT_FILE = Path(__file__).parents[2] / ".gitignore"
"""some text file"""

L = "listeners.0"
C = L + ".filter_chains.0"
H = C + ".filters.0"
T = H + ".route_table"
V = T + ".virtual_hosts.0"
R = V + ".routes.0"
A = R + ".action"
LOG = H + ".access_logs.0"
TCP_CHAIN = "listeners.1.filter_chains.0"
TCP = TCP_CHAIN + ".filters.0"
K = "clusters.0"
E = K + ".endpoints.localities.0"


@dataclass(frozen=True)
class Good:
    """A configuration that is accepted."""

    name: str
    text: str
    expect: Mapping[str, Any] = field(default_factory=dict)
    """place → value"""
    warnings: tuple[str, ...] = ()
    """the paths that are warned of; without this there must be none"""
    envoy_accepts: bool = True
    """False for deprecated fields that Envoy takes only when its runtime says so"""


def matcher(specifier: str) -> str:
    return web(match=f"headers: [{{name: X-A, {specifier}}}]")


def log(fields: str = "", log_filter: str = "") -> str:
    return web(hcm=f"access_log: [{file_log(fields, log_filter)}]")


MATCH = R + ".match"
HEADER = MATCH + ".headers.0"
RETRY = A + ".retry_policy"
TCP_TYPE = f'"@type": {EXT}filters.network.tcp_proxy.v3.TcpProxy'

BOOTSTRAP = [
    Good(
        "empty", "{}", {"listeners": (), "clusters": (), "admin": None, "header_prefix": "x-envoy", "stats_flush_interval_s": 5.0}
    ),
    Good(
        "node",
        "node: {id: n1, cluster: c, locality: {region: r, zone: z, sub_zone: s}, metadata: {A: 1, B: [x, {c: 1.5}]}}",
        {
            "node.id": "n1",
            "node.cluster": "c",
            "node.locality.region": "r",
            "node.locality.zone": "z",
            "node.locality.sub_zone": "s",
            "node.metadata": {"A": 1, "B": ["x", {"c": "1.5"}]},
        },
    ),
    Good(
        "fractions and huge numbers are text",
        "node: {id: 1.50, cluster: 9007199254740993}",
        {"node.id": "1.50", "node.cluster": "9007199254740993"},
    ),
    Good("lowerCamel names", "headerPrefix: x-mesh", {"header_prefix": "x-mesh"}),
    Good(
        "numbers and bools as text",
        web(hcm='maxRequestHeadersKb: "70", mergeSlashes: "true"'),
        {f"{H}.max_request_headers_kb": 70, f"{H}.merge_slashes": True},
    ),
    Good(
        "enum by number",
        web(cluster='lb_policy: "3", dns_lookup_family: 1'),
        {f"{K}.lb_policy": "RANDOM", f"{K}.dns_lookup_family": "V4_ONLY"},
    ),
    Good("null is not set", web(hcm="via: ~, normalize_path: null"), {f"{H}.via": "", f"{H}.normalize_path": False}),
    Good("anchor under !ignore", "!ignore x: {a: &a n1}\nnode: {id: *a}", {"node.id": "n1"}),
    Good("key twice", "node: {id: a, id: b}", {"node.id": "b"}),
    Good(
        "admin",
        f"admin: {{address: {{pipe: {{path: /tmp/mesh-admin.sock, mode: 0600}}}}, access_log: [{file_log()}], ignore_global_conn_limit: true}}",
        {
            "admin.address.path": "/tmp/mesh-admin.sock",
            "admin.address.mode": 0o600,
            "admin.access_logs.0.path": "/dev/null",
            "admin.ignore_global_conn_limit": True,
        },
    ),
    Good(
        "old access_log_path of admin",
        f"admin: {{address: {{{LOCALHOST}}}, access_log_path: /dev/null}}",
        {"admin.access_logs.0.path": "/dev/null", "admin.address.host": "127.0.0.1", "admin.address.port": 0},
    ),
    Good(
        "runtime",
        "layered_runtime: {layers: [{name: a, static_layer: {x: {y: 1, z: s}, b: true, f: {numerator: 5, denominator: MILLION}}}, "
        "{name: b, static_layer: {x.y: 2}}, {name: c, admin_layer: {}}]}",
        {"runtime": {"x.y": 2, "x.z": "s", "b": True, "f": {"numerator": 5, "denominator": "MILLION"}}},
    ),
    Good(
        "connection limits in the runtime",
        web(
            top="layered_runtime: {layers: [{name: a, static_layer: {overload.global_downstream_max_connections: 50000, "
            "envoy.resource_limits.listener.web.connection_limit: 7}}]}"
        ),
        {"max_downstream_connections": 50000, f"{L}.max_connections": 7, "listeners.1.max_connections": None},
    ),
    Good(
        "connection limit of the overload manager",
        "overload_manager: {refresh_interval: 1s, resource_monitors: ["
        + typed(
            "envoy.resource_monitors.global_downstream_max_connections",
            "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections: 9",
        )
        + "]}",
        {"max_downstream_connections": 9},
    ),
    Good("flush interval", "stats_flush_interval: 1.5s", {"stats_flush_interval_s": 1.5}),
    Good(
        "default engines",
        "default_regex_engine: {name: re2, typed_config: "
        f'{{"@type": {EXT}regex_engines.v3.GoogleRE2}}}}\n'
        "typed_dns_resolver_config: {name: g, typed_config: "
        f'{{"@type": {EXT}network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig}}}}',
    ),
    Good("watchdog is ignored", "watchdogs: {main_thread_watchdog: {miss_timeout: 1s}}", {}, ("watchdogs",)),
]

LISTENERS = [
    Good(
        "sample",
        web(),
        {
            f"{L}.name": "web",
            "listeners.1.name": "tcp",
            f"{L}.bind_to_port": True,
            f"{L}.listener_filters_timeout_s": 15.0,
            f"{L}.per_connection_buffer_limit_bytes": 1_048_576,
            f"{L}.enable_reuse_port": True,
            f"{L}.tcp_backlog_size": None,
            f"{L}.traffic_direction": "UNSPECIFIED",
            f"{L}.drain_type": "DEFAULT",
            f"{C}.match": None,
            f"{C}.transport_socket": None,
        },
    ),
    Good(
        "listener fields",
        web(
            listener="stat_prefix: s\naddress: {socket_address: {address: 127.0.0.1, port_value: 9}}\nbind_to_port: false\nuse_original_dst: true\ntransparent: false\nfreebind: true\n"
            "per_connection_buffer_limit_bytes: 4096\ntcp_backlog_size: 9\nenable_reuse_port: false\ndrain_type: MODIFY_ONLY\n"
            "traffic_direction: OUTBOUND\nlistener_filters_timeout: 0s\ncontinue_on_listener_filters_timeout: true\n"
            f"ignore_global_conn_limit: true\naccess_log: [{file_log()}]\n"
            "additional_addresses: [{address: {socket_address: {address: '::1', port_value: 0}}}]"
        ),
        {
            f"{L}.stat_prefix": "s",
            f"{L}.bind_to_port": False,
            f"{L}.use_original_dst": True,
            f"{L}.transparent": False,
            f"{L}.freebind": True,
            f"{L}.per_connection_buffer_limit_bytes": 4096,
            f"{L}.tcp_backlog_size": 9,
            f"{L}.enable_reuse_port": False,
            f"{L}.drain_type": "MODIFY_ONLY",
            f"{L}.traffic_direction": "OUTBOUND",
            f"{L}.listener_filters_timeout_s": None,
            f"{L}.continue_on_listener_filters_timeout": True,
            f"{L}.ignore_global_conn_limit": True,
            f"{L}.access_logs.0.path": "/dev/null",
            f"{L}.additional_addresses.0.host": "::1",
        },
    ),
    Good(
        "listener filters for some ports, socket options",
        web(
            listener="socket_options: [{level: 1, name: 9, int_value: 1, state: STATE_BOUND}, "
            "{level: 1, name: 9, int_value: 1, type: {datagram: {}}}]\n"
            "listener_filters: ["
            '{name: a, typed_config: {"@type": ' + EXT + "filters.listener.http_inspector.v3.HttpInspector}, "
            "filter_disabled: {or_match: {rules: [{destination_port_range: {start: 1, end: 3}}, {and_match: {rules: "
            "[{any_match: true}, {not_match: {destination_port_range: {start: 5, end: 6}}}]}}]}}}]"
        ),
        {
            f"{L}.socket_options.0.state": "STATE_BOUND",
            f"{L}.socket_options.0.value": 1,
            f"{L}.listener_filters.0.disabled.kind": "or",
            f"{L}.listener_filters.0.disabled.rules.0.end": 3,
            f"{L}.listener_filters.0.disabled.rules.1.rules.1.rules.0.start": 5,
        },
    ),
    Good(
        "source addresses",
        web(
            cluster="upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}, freebind: true, "
            "additional_source_addresses: [{address: '::6', port_value: 0}], "
            "socket_options: [{level: 1, name: 36, int_value: 1337, state: STATE_PREBIND}]}"
        ),
        {
            f"{K}.bind.addresses.1.host": "::6",
            f"{K}.bind.freebind": True,
            f"{K}.bind.socket_options.0.name": 36,
        },
    ),
    Good(
        "another source address",
        web(
            cluster="upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}, "
            "extra_source_addresses: [{address: {address: '::6', port_value: 0}}]}"
        ),
        {f"{K}.bind.addresses.1.host": "::6"},
    ),
    Good(
        "listener filters",
        web(
            listener="listener_filters: ["
            + ", ".join(
                (
                    typed("d", "filters.listener.original_dst.v3.OriginalDst"),
                    typed(
                        "t",
                        "filters.listener.tls_inspector.v3.TlsInspector",
                        "initial_read_buffer_size: 512, max_client_hello_size: 1024",
                    ),
                    typed("h", "filters.listener.http_inspector.v3.HttpInspector"),
                    typed("s", "filters.listener.original_src.v3.OriginalSrc", "mark: 1337, bind_port: true"),
                )
            )
            + "]"
        ),
        {
            f"{L}.listener_filters.0.name": "d",
            f"{L}.listener_filters.1.type_url": "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            f"{L}.listener_filters.1.config": {"initial_read_buffer_size": 512, "max_client_hello_size": 1024},
            f"{L}.listener_filters.2.config": None,
            f"{L}.listener_filters.3.config": {"mark": 1337, "bind_port": True},
        },
    ),
    Good(
        "old bind_to_port",
        web(listener="address: {socket_address: {address: 127.0.0.1, port_value: 9}}\ndeprecated_v1: {bind_to_port: false}"),
        {f"{L}.bind_to_port": False},
    ),
    Good(
        "unix socket",
        web(listener="address: {pipe: {path: /tmp/mesh-web.sock, mode: 0660}}"),
        {f"{L}.address.path": "/tmp/mesh-web.sock", f"{L}.address.mode": 0o660},
    ),
    Good(
        "IPv6",
        web(listener="address: {socket_address: {address: '0:0::1', port_value: 0, ipv4_compat: false}}"),
        {f"{L}.address.host": "::1"},
    ),
    Good(
        "ipv4_compat",
        web(listener="address: {socket_address: {address: '::', port_value: 0, ipv4_compat: true}}"),
        {f"{L}.address.ipv4_compat": True},
    ),
    Good(
        "no name",
        web().replace(f"  - name: tcp\n    address: {{{LOCALHOST}}}", f"  - address: {{{LOCALHOST}}}"),
        {"listeners.1.name": "127.0.0.1:0"},
    ),
    Good(
        "default filter chain",
        web(
            listener=f"default_filter_chain: {{name: d, filters: [{{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: d, cluster: b}}}}]}}"
        ),
        {f"{L}.default_filter_chain.name": "d", f"{L}.default_filter_chain.filters.0.clusters.0.name": "b"},
    ),
    Good(
        "filter chain match",
        web(
            tcp_chain="name: c, transport_socket_connect_timeout: 2s, filter_chain_match: {destination_port: 80, server_names: [A.test, '*.b.test'], "
            "prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}], transport_protocol: raw_buffer, application_protocols: [h2c], "
            "direct_source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}], source_type: EXTERNAL, "
            "source_prefix_ranges: [{address_prefix: 1.2.3.4}], source_ports: [1, 2]}"
        ),
        {
            f"{TCP_CHAIN}.name": "c",
            f"{TCP_CHAIN}.transport_socket_connect_timeout_s": 2.0,
            f"{TCP_CHAIN}.match.destination_port": 80,
            f"{TCP_CHAIN}.match.server_names": ("a.test", "*.b.test"),
            f"{TCP_CHAIN}.match.prefix_ranges": ("10.0.0.0/8",),
            f"{TCP_CHAIN}.match.transport_protocol": "raw_buffer",
            f"{TCP_CHAIN}.match.application_protocols": ("h2c",),
            f"{TCP_CHAIN}.match.direct_source_prefix_ranges": ("::1/128",),
            f"{TCP_CHAIN}.match.source_type": "EXTERNAL",
            f"{TCP_CHAIN}.match.source_prefix_ranges": ("0.0.0.0/0",),
            f"{TCP_CHAIN}.match.source_ports": (1, 2),
        },
    ),
    Good(
        "raw_buffer",
        web(chain=f"transport_socket: {typed('raw', 'transport_sockets.raw_buffer.v3.RawBuffer')}"),
        {f"{C}.transport_socket": None},
    ),
    Good("no filters", web(tcp_chain="filters: []"), {f"{TCP_CHAIN}.filters": ()}),
    Good(
        "connection limit",
        web(
            tcp_chain="filters: ["
            + typed(
                "l",
                "filters.network.connection_limit.v3.ConnectionLimit",
                "stat_prefix: l, max_connections: 3, delay: 1s, runtime_enabled: {default_value: true, runtime_key: k}",
            )
            + f", {{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: t, cluster: a}}}}]"
        ),
        {f"{TCP}.stat_prefix": "l", f"{TCP}.max_connections": 3, f"{TCP}.delay_s": 1.0},
    ),
    Good(
        "rate of connections",
        web(
            tcp_chain="filters: ["
            + typed(
                "l",
                "filters.network.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix: l, token_bucket: {max_tokens: 3, fill_interval: 2s}, share_key: s, runtime_enabled: {default_value: true, runtime_key: k}",
            )
            + f", {{name: t, typed_config: {{{TCP_TYPE}, stat_prefix: t, cluster: a}}}}]"
        ),
        {
            f"{TCP}.stat_prefix": "l",
            f"{TCP}.max_tokens": 3,
            f"{TCP}.tokens_per_fill": 1,
            f"{TCP}.fill_interval_s": 2.0,
            f"{TCP}.share_key": "s",
            f"{TCP}.runtime_key": "k",
        },
    ),
    Good(
        "ignored listener fields",
        web(listener="metadata: {filter_metadata: {a: {b: c}}}\nconnection_balance_config: {exact_balance: {}}"),
        {},
        ("listeners[0].metadata", "listeners[0].connection_balance_config"),
    ),
    Good(
        "TypedStruct",
        web(
            tcp_chain=f'filters: [{{name: t, typed_config: {{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: {EXT}filters.network.tcp_proxy.v3.TcpProxy, '
            "value: {stat_prefix: x, cluster: a, idle_timeout: 5s}}}]"
        ),
        {f"{TCP}.stat_prefix": "x", f"{TCP}.idle_timeout_s": 5.0},
    ),
]

TCP_PROXIES = [
    Good(
        "tcp defaults",
        web(),
        {
            f"{TCP}.stat_prefix": "tcp",
            f"{TCP}.clusters.0.name": "a",
            f"{TCP}.idle_timeout_s": 3600.0,
            f"{TCP}.max_connect_attempts": 1,
        },
    ),
    Good(
        "tcp fields",
        web(
            tcp="idle_timeout: 0s, max_connect_attempts: 3, max_downstream_connection_duration: 9s, "
            f"access_log: [{file_log()}], access_log_options: {{access_log_flush_interval: 2s}}, metadata_match: {{filter_metadata: {{envoy.lb: {{v: 1}}}}}}"
        ),
        {
            f"{TCP}.idle_timeout_s": None,
            f"{TCP}.max_connect_attempts": 3,
            f"{TCP}.max_downstream_connection_duration_s": 9.0,
            f"{TCP}.access_logs.0.path": "/dev/null",
            f"{TCP}.access_log_flush_interval_s": 2.0,
            f"{TCP}.clusters.0.metadata_match": {"envoy.lb": {"v": 1}},
        },
    ),
    Good("old tcp flush interval", web(tcp="access_log_flush_interval: 3s"), {f"{TCP}.access_log_flush_interval_s": 3.0}),
    Good(
        "tcp weighted clusters",
        web(
            tcp="cluster: ~, weighted_clusters: {clusters: [{name: a, weight: 2}, {name: b, weight: 3, metadata_match: {filter_metadata: {envoy.lb: {v: 1}}}}]}"
        ),
        {
            f"{TCP}.clusters.0.weight": 2,
            f"{TCP}.clusters.1.name": "b",
            f"{TCP}.clusters.1.metadata_match": {"envoy.lb": {"v": 1}},
        },
    ),
]

MANAGERS = [
    Good(
        "hcm defaults",
        web(),
        {
            f"{H}.stat_prefix": "web",
            f"{H}.codec_type": "AUTO",
            f"{H}.server_name": "envoy",
            f"{H}.server_header_transformation": "OVERWRITE",
            f"{H}.generate_request_id": True,
            f"{H}.max_request_headers_kb": 60,
            f"{H}.max_headers_count": 100,
            f"{H}.idle_timeout_s": 3600.0,
            f"{H}.stream_idle_timeout_s": 300.0,
            f"{H}.request_timeout_s": None,
            f"{H}.drain_timeout_s": 5.0,
            f"{H}.delayed_close_timeout_s": 1.0,
            f"{H}.path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            f"{H}.forward_client_cert_details": "SANITIZE",
            f"{H}.http1.allow_absolute_url": True,
            f"{H}.router.dynamic_stats": True,
            f"{H}.request_id_pack_trace_reason": True,
            f"{H}.filters": (),
            f"{H}.rds": None,
        },
    ),
    Good(
        "hcm fields",
        web(
            hcm="codec_type: HTTP1, server_name: me, server_header_transformation: APPEND_IF_ABSENT, "
            "scheme_header_transformation: {scheme_to_overwrite: https}, use_remote_address: true, xff_num_trusted_hops: 2, "
            "skip_xff_append: true, append_x_forwarded_port: true, via: v, generate_request_id: false, preserve_external_request_id: true, "
            "always_set_request_id_in_response: true, add_user_agent: true, max_request_headers_kb: 96, stream_idle_timeout: 0s, "
            "request_timeout: 7s, request_headers_timeout: 8s, drain_timeout: 9s, delayed_close_timeout: 0s, normalize_path: true, merge_slashes: true, "
            "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT, strip_matching_host_port: true, strip_trailing_host_dot: true, "
            "stream_error_on_invalid_http_message: true, proxy_100_continue: true, forward_client_cert_details: SANITIZE_SET, "
            "set_current_client_cert_details: {subject: true, cert: true, chain: true, dns: true, uri: true}, "
            "internal_address_config: {unix_sockets: true, cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}, "
            "access_log_options: {access_log_flush_interval: 2s, flush_access_log_on_new_request: true}, "
            "upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: CONNECT, enabled: false}]"
        ),
        {
            f"{H}.codec_type": "HTTP1",
            f"{H}.server_name": "me",
            f"{H}.server_header_transformation": "APPEND_IF_ABSENT",
            f"{H}.scheme_to_overwrite": "https",
            f"{H}.use_remote_address": True,
            f"{H}.xff_num_trusted_hops": 2,
            f"{H}.skip_xff_append": True,
            f"{H}.append_x_forwarded_port": True,
            f"{H}.via": "v",
            f"{H}.generate_request_id": False,
            f"{H}.preserve_external_request_id": True,
            f"{H}.always_set_request_id_in_response": True,
            f"{H}.add_user_agent": True,
            f"{H}.max_request_headers_kb": 96,
            f"{H}.stream_idle_timeout_s": None,
            f"{H}.request_timeout_s": 7.0,
            f"{H}.request_headers_timeout_s": 8.0,
            f"{H}.drain_timeout_s": 9.0,
            f"{H}.delayed_close_timeout_s": 0.0,
            f"{H}.normalize_path": True,
            f"{H}.merge_slashes": True,
            f"{H}.path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
            f"{H}.strip_matching_host_port": True,
            f"{H}.strip_trailing_host_dot": True,
            f"{H}.stream_error_on_invalid_http_message": True,
            f"{H}.proxy_100_continue": True,
            f"{H}.forward_client_cert_details": "SANITIZE_SET",
            f"{H}.set_current_client_cert_details": ("subject", "cert", "chain", "dns", "uri"),
            f"{H}.unix_sockets_internal": True,
            f"{H}.internal_cidr_ranges": ("10.0.0.0/8",),
            f"{H}.access_log_flush_interval_s": 2.0,
            f"{H}.access_log_on_new_request": True,
            f"{H}.upgrades.0.upgrade_type": "websocket",
            f"{H}.upgrades.0.enabled": True,
            f"{H}.upgrades.1.enabled": False,
        },
    ),
    Good(
        "local replies",
        web(
            hcm="local_reply_config: {body_format: {json_format: {a: '%RESPONSE_CODE%'}, content_type: x/y, omit_empty_values: true, json_format_options: {sort_properties: true}}, "
            "mappers: [{filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: k}}}}, status_code: 200, body: {inline_string: b}, "
            "body_format_override: {text_format: t}, headers_to_add: [{header: {key: A, value: b}}]}]}"
        ),
        {
            f"{H}.local_reply.body_format.json": {"a": "%RESPONSE_CODE%"},
            f"{H}.local_reply.body_format.content_type": "x/y",
            f"{H}.local_reply.body_format.omit_empty_values": True,
            f"{H}.local_reply.mappers.0.filter.value": 404,
            f"{H}.local_reply.mappers.0.status": 200,
            f"{H}.local_reply.mappers.0.body": "b",
            f"{H}.local_reply.mappers.0.body_format.text": "t",
            f"{H}.local_reply.mappers.0.headers_to_add.0.name": "a",
        },
    ),
    Good("strip_any_host_port", web(hcm="strip_any_host_port: true"), {f"{H}.strip_any_host_port": True}),
    Good(
        "old log fields",
        web(hcm="access_log_flush_interval: 1s, flush_access_log_on_new_request: true"),
        {f"{H}.access_log_flush_interval_s": 1.0, f"{H}.access_log_on_new_request": True},
    ),
    Good(
        "common options",
        web(
            hcm="common_http_protocol_options: {idle_timeout: 0s, max_connection_duration: 5s, max_headers_count: 50, max_stream_duration: 6s, "
            "headers_with_underscores_action: DROP_HEADER, max_requests_per_connection: 8}"
        ),
        {
            f"{H}.idle_timeout_s": None,
            f"{H}.max_connection_duration_s": 5.0,
            f"{H}.max_headers_count": 50,
            f"{H}.max_stream_duration_s": 6.0,
            f"{H}.headers_with_underscores_action": "DROP_HEADER",
            f"{H}.max_requests_per_connection": 8,
        },
    ),
    Good(
        "HTTP/1 options",
        web(
            hcm="http_protocol_options: {accept_http_10: true, default_host_for_http_10: h, allow_absolute_url: false, enable_trailers: true, "
            "override_stream_error_on_invalid_http_message: true}"
        ),
        {
            f"{H}.http1.accept_http_10": True,
            f"{H}.http1.default_host_for_http_10": "h",
            f"{H}.http1.allow_absolute_url": False,
            f"{H}.http1.enable_trailers": True,
            f"{H}.http1.override_stream_error_on_invalid_http_message": True,
        },
    ),
    Good(
        "HTTP/2 options",
        web(
            hcm="codec_type: HTTP2, http2_protocol_options: {hpack_table_size: 1, max_concurrent_streams: 2, initial_stream_window_size: 65535, initial_connection_window_size: 65536, allow_connect: true, max_outbound_frames: 3, max_outbound_control_frames: 4, max_consecutive_inbound_frames_with_empty_payload: 5, max_inbound_priority_frames_per_stream: 6, max_inbound_window_update_frames_per_data_frame_sent: 7, override_stream_error_on_invalid_http_message: true, connection_keepalive: {interval: 8s, timeout: 9s, interval_jitter: {value: 10}, connection_idle_interval: 11s}}"
        ),
        {
            f"{H}.codec_type": "HTTP2",
            f"{H}.http2.hpack_table_size": 1,
            f"{H}.http2.max_concurrent_streams": 2,
            f"{H}.http2.initial_stream_window_size": 65535,
            f"{H}.http2.initial_connection_window_size": 65536,
            f"{H}.http2.allow_connect": True,
            f"{H}.http2.max_outbound_frames": 3,
            f"{H}.http2.max_outbound_control_frames": 4,
            f"{H}.http2.max_consecutive_inbound_frames_with_empty_payload": 5,
            f"{H}.http2.max_inbound_priority_frames_per_stream": 6,
            f"{H}.http2.max_inbound_window_update_frames_per_data_frame_sent": 7,
            f"{H}.http2.bad_message_ends_stream_only": True,
            f"{H}.http2.keepalive_interval_s": 8.0,
            f"{H}.http2.keepalive_timeout_s": 9.0,
            f"{H}.http2.keepalive_jitter_percent": 10.0,
            f"{H}.http2.connection_idle_interval_s": 11.0,
        },
    ),
    Good(
        "request id",
        web(
            hcm=f'request_id_extension: {{typed_config: {{"@type": {EXT}request_id.uuid.v3.UuidRequestIdConfig, pack_trace_reason: false, use_request_id_for_trace_sampling: false}}}}'
        ),
        {f"{H}.request_id_pack_trace_reason": False, f"{H}.request_id_for_trace_sampling": False},
    ),
    Good(
        "xff detection",
        web(
            hcm=f"original_ip_detection_extensions: [{typed('xff', 'http.original_ip_detection.xff.v3.XffConfig', 'xff_num_trusted_hops: 3, skip_xff_append: true')}]"
        ),
        {f"{H}.xff_num_trusted_hops": 3},
    ),
    Good(
        "router fields",
        web(
            hcm="http_filters: ["
            + typed(
                "envoy.filters.http.router",
                "filters.http.router.v3.Router",
                "dynamic_stats: false, suppress_envoy_headers: true, respect_expected_rq_timeout: true, "
                f"strict_check_headers: [x-envoy-max-retries], upstream_log: [{file_log()}]",
            )
            + "]"
        ),
        {
            f"{H}.router.dynamic_stats": False,
            f"{H}.router.suppress_envoy_headers": True,
            f"{H}.router.respect_expected_rq_timeout": True,
            f"{H}.router.strict_check_headers": ("x-envoy-max-retries",),
            f"{H}.router.upstream_logs.0.path": "/dev/null",
        },
    ),
    Good("router flags", web(hcm=f"http_filters: [{ROUTER[:-1]}, is_optional: true}}]"), {f"{H}.filters": ()}),
]

ACCESS_LOGS = [
    Good(
        "text_format environment",
        log("log_format: {text_format_source: {environment_variable: PATH}}"),
        {f"{LOG}.text_format": os.environ.get("PATH")},
    ),
    Good(
        "default line",
        log(),
        {f"{LOG}.path": "/dev/null", f"{LOG}.text_format": None, f"{LOG}.json_format": None, f"{LOG}.filter": None},
    ),
    Good("old text", log('format: "%PROTOCOL%\\n"'), {f"{LOG}.text_format": "%PROTOCOL%\n"}),
    Good("old json", log('json_format: {a: "%PROTOCOL%"}'), {f"{LOG}.json_format": {"a": "%PROTOCOL%"}}),
    Good("old typed json", log("typed_json_format: {a: 1, b: {c: x}}"), {f"{LOG}.json_format": {"a": 1, "b": {"c": "x"}}}),
    Good(
        "text_format",
        log('log_format: {text_format: "x\\n", omit_empty_values: true}'),
        {f"{LOG}.text_format": "x\n", f"{LOG}.omit_empty_values": True},
    ),
    Good("text_format_source", log('log_format: {text_format_source: {inline_string: "y\\n"}}'), {f"{LOG}.text_format": "y\n"}),
    Good("text_format bytes", log("log_format: {text_format_source: {inline_bytes: YQo=}}"), {f"{LOG}.text_format": "a\n"}),
    Good(
        "text_format file",
        log(f"log_format: {{text_format_source: {{filename: {TEXT_FILE}}}}}"),
        {f"{LOG}.text_format": TEXT_FILE.read_text()},
    ),
    Good(
        "json_format",
        log(
            'log_format: {json_format: {a: "%PROTOCOL%", b: [x]}, json_format_options: {sort_properties: true}, content_type: application/json}'
        ),
        {f"{LOG}.json_format": {"a": "%PROTOCOL%", "b": ["x"]}, f"{LOG}.sort_properties": True},
    ),
    Good(
        "stdout",
        web(hcm=f"access_log: [{typed('o', 'access_loggers.stream.v3.StdoutAccessLog', 'log_format: {text_format: o}')}]"),
        {f"{LOG}.path": "/dev/stdout"},
    ),
    Good(
        "stderr",
        web(hcm=f"access_log: [{typed('e', 'access_loggers.stream.v3.StderrAccessLog', 'log_format: {text_format: e}')}]"),
        {f"{LOG}.path": "/dev/stderr", f"{LOG}.text_format": "e"},
    ),
    Good(
        "status filter",
        log(log_filter="{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: k}}}}"),
        {
            f"{LOG}.filter.kind": "status_code",
            f"{LOG}.filter.op": "GE",
            f"{LOG}.filter.value": 500,
            f"{LOG}.filter.runtime_key": "k",
        },
    ),
    Good(
        "duration filter",
        log(log_filter="{duration_filter: {comparison: {op: LE, value: {default_value: 9, runtime_key: k}}}}"),
        {f"{LOG}.filter.kind": "duration", f"{LOG}.filter.op": "LE"},
    ),
    Good("traceable", log(log_filter="{traceable_filter: {}}"), {f"{LOG}.filter.kind": "traceable"}),
    Good(
        "runtime filter",
        log(log_filter="{runtime_filter: {runtime_key: k, percent_sampled: {numerator: 3, denominator: TEN_THOUSAND}}}"),
        {
            f"{LOG}.filter.kind": "runtime",
            f"{LOG}.filter.fraction.numerator": 3,
            f"{LOG}.filter.fraction.denominator": 10_000,
            f"{LOG}.filter.fraction.runtime_key": "k",
        },
    ),
    Good(
        "and/or filter",
        log(
            log_filter="{and_filter: {filters: [{not_health_check_filter: {}}, {or_filter: {filters: [{header_filter: {header: {name: a}}}, {grpc_status_filter: {statuses: [OK, UNAVAILABLE], exclude: true}}]}}]}}"
        ),
        {
            f"{LOG}.filter.kind": "and",
            f"{LOG}.filter.children.0.kind": "not_health_check",
            f"{LOG}.filter.children.1.kind": "or",
            f"{LOG}.filter.children.1.children.0.header.name": "a",
            f"{LOG}.filter.children.1.children.1.values": ("OK", "UNAVAILABLE"),
            f"{LOG}.filter.children.1.children.1.exclude": True,
        },
    ),
    Good(
        "flag filter",
        log(log_filter="{response_flag_filter: {flags: [NR, UH]}}"),
        {f"{LOG}.filter.kind": "response_flag", f"{LOG}.filter.values": ("NR", "UH")},
    ),
]

TABLES = [
    Good(
        "table fields",
        web(
            table="internal_only_headers: [X-In], most_specific_header_mutations_wins: true, ignore_port_in_host_matching: true, "
            "ignore_path_parameters_in_path_matching: true, validate_clusters: false, max_direct_response_body_size_bytes: 9, "
            "request_headers_to_add: [{header: {key: X-A, value: a}}], request_headers_to_remove: [X-B], "
            "response_headers_to_add: [{header: {key: X-C, value: c}, append: false}], response_headers_to_remove: [X-D]",
            route="match: {prefix: /}, route: {cluster: unknown}",
        ),
        {
            f"{T}.name": "r",
            f"{T}.internal_only_headers": ("x-in",),
            f"{T}.most_specific_header_mutations_wins": True,
            f"{T}.ignore_port_in_host_matching": True,
            f"{T}.ignore_path_parameters_in_path_matching": True,
            f"{T}.validate_clusters": False,
            f"{T}.max_direct_response_body_size_bytes": 9,
            f"{T}.request_headers.add.0.name": "x-a",
            f"{T}.request_headers.add.0.value": "a",
            f"{T}.request_headers.add.0.action": "APPEND_IF_EXISTS_OR_ADD",
            f"{T}.request_headers.remove": ("x-b",),
            f"{T}.response_headers.add.0.action": "OVERWRITE_IF_EXISTS_OR_ADD",
            f"{T}.response_headers.remove": ("x-d",),
        },
    ),
    Good(
        "host fields",
        web(
            host="domains: [A.test, '*.b.test'], require_tls: ALL, include_request_attempt_count: true, include_attempt_count_in_response: true, "
            "include_is_timeout_retry_header: true, per_request_buffer_limit_bytes: 77, retry_policy: {retry_on: reset}, "
            "request_headers_to_add: [{header: {key: a, raw_value: Yg==}, append_action: ADD_IF_ABSENT, keep_empty_value: true}]"
        ),
        {
            f"{V}.name": "v",
            f"{V}.domains": ("a.test", "*.b.test"),
            f"{V}.require_tls": "ALL",
            f"{V}.include_request_attempt_count": True,
            f"{V}.include_attempt_count_in_response": True,
            f"{V}.include_is_timeout_retry_header": True,
            f"{V}.per_request_buffer_limit_bytes": 77,
            f"{V}.retry_policy.retry_on": ("reset",),
            f"{V}.request_headers.add.0.value": "b",
            f"{V}.request_headers.add.0.action": "ADD_IF_ABSENT",
            f"{V}.request_headers.add.0.keep_empty": True,
        },
    ),
    Good(
        "equal host names",
        web(table="virtual_hosts: [{name: v, domains: [a]}, {name: v, domains: [b]}]"),
        {f"{T}.virtual_hosts.1.name": "v"},
    ),
    Good(
        "ignored host fields",
        web(host="virtual_clusters: [{name: x, headers: [{name: a}]}]"),
        {},
        (f"{'listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]'}.virtual_clusters",),
    ),
    Good(
        "route fields",
        web(
            route='name: n1, match: {prefix: /}, route: {cluster: a}, metadata: {filter_metadata: {x: {y: 1}}}, decorator: {operation: o}, stat_prefix: s, request_headers_to_remove: [a], response_headers_to_add: [{header: {key: b, value: "%PROTOCOL%"}}]'
        ),
        {
            f"{R}.name": "n1",
            f"{R}.metadata": {"x": {"y": 1}},
            f"{R}.decorator_operation": "o",
            f"{R}.stat_prefix": "s",
            f"{R}.request_headers.remove": ("a",),
            f"{R}.response_headers.add.0.value": "%PROTOCOL%",
        },
    ),
]

MATCHERS = [
    Good("prefix", web(), {f"{MATCH}.kind.value": "prefix", f"{MATCH}.path": "/", f"{MATCH}.case_sensitive": True}),
    Good(
        "path",
        web(route="match: {path: /a, case_sensitive: false}, route: {cluster: a}"),
        {f"{MATCH}.kind.value": "path", f"{MATCH}.case_sensitive": False},
    ),
    Good(
        "separated prefix",
        web(route="match: {path_separated_prefix: /a}, route: {cluster: a}"),
        {f"{MATCH}.kind.value": "path_separated_prefix"},
    ),
    Good(
        "regex",
        web(route="match: {safe_regex: {regex: '/[a-z]+'}}, route: {cluster: a}"),
        {f"{MATCH}.kind.value": "safe_regex", f"{MATCH}.path": "/[a-z]+"},
    ),
    Good(
        "connect",
        web(
            route="match: {connect_matcher: {}}, route: {cluster: a, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}"
        ),
        {
            f"{MATCH}.kind.value": "connect_matcher",
            f"{A}.upgrades.0.upgrade_type": "connect",
            f"{A}.upgrades.0.terminate_connect": True,
            f"{A}.upgrades.0.enabled": True,
        },
    ),
    Good(
        "grpc and fraction",
        web(match="grpc: {}, runtime_fraction: {default_value: {numerator: 5, denominator: MILLION}, runtime_key: k}"),
        {
            f"{MATCH}.grpc": True,
            f"{MATCH}.runtime_fraction.numerator": 5,
            f"{MATCH}.runtime_fraction.denominator": 1_000_000,
            f"{MATCH}.runtime_fraction.runtime_key": "k",
        },
    ),
    Good(
        "header name only",
        matcher("invert_match: true, treat_missing_header_as_empty: true"),
        {
            f"{HEADER}.kind.value": "present",
            f"{HEADER}.present": True,
            f"{HEADER}.invert": True,
            f"{HEADER}.treat_missing_as_empty": True,
        },
    ),
    Good("header absent", matcher("present_match: false"), {f"{HEADER}.kind.value": "present", f"{HEADER}.present": False}),
    Good(
        "header range",
        matcher("range_match: {start: -3, end: 10}"),
        {f"{HEADER}.kind.value": "range", f"{HEADER}.range_start": -3, f"{HEADER}.range_end": 10},
    ),
    *(
        Good(
            f"header {name}",
            matcher(f"string_match: {{{name}: aB, ignore_case: true}}"),
            {
                f"{HEADER}.name": "x-a",
                f"{HEADER}.string.kind.value": name,
                f"{HEADER}.string.value": "aB",
                f"{HEADER}.string.ignore_case": True,
            },
        )
        for name in ("exact", "prefix", "suffix", "contains")
    ),
    Good(
        "header regex",
        matcher("string_match: {safe_regex: {regex: a+}}"),
        {f"{HEADER}.string.kind.value": "safe_regex", f"{HEADER}.string.value": "a+"},
    ),
    *(
        Good(
            f"header {old}",
            matcher(f"{old}: aB"),
            {f"{HEADER}.string.kind.value": old.removesuffix("_match"), f"{HEADER}.string.value": "aB"},
        )
        for old in ("exact_match", "prefix_match", "suffix_match", "contains_match")
    ),
    Good("header safe_regex_match", matcher("safe_regex_match: {regex: a+}"), {f"{HEADER}.string.kind.value": "safe_regex"}),
    Good(
        "query parameters",
        web(match="query_parameters: [{name: a}, {name: b, present_match: true}, {name: c, string_match: {exact: x}}]"),
        {
            f"{MATCH}.query_parameters.0.present": True,
            f"{MATCH}.query_parameters.1.name": "b",
            f"{MATCH}.query_parameters.2.string.value": "x",
        },
    ),
]

ACTIONS = [
    Good(
        "action defaults",
        web(),
        {
            f"{A}.clusters.0.name": "a",
            f"{A}.clusters.0.weight": 1,
            f"{A}.timeout_s": 15.0,
            f"{A}.has_idle_timeout": False,
            f"{A}.cluster_not_found_status": 503,
            f"{A}.priority": "DEFAULT",
            f"{A}.retry_policy": None,
        },
    ),
    Good(
        "action fields",
        web(
            action="cluster_not_found_response_code: NOT_FOUND, prefix_rewrite: /b, host_rewrite_literal: h, append_x_forwarded_host: true, timeout: 0s, "
            "idle_timeout: 0s, priority: HIGH, metadata_match: {filter_metadata: {envoy.lb: {v: 1}}}, "
            "max_stream_duration: {max_stream_duration: 3s, grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.5s}, "
            "upgrade_configs: [{upgrade_type: websocket, enabled: false}], "
            "hash_policy: [{header: {header_name: X-H}, terminal: true}, {cookie: {name: c, ttl: 1s, path: /p}}, {connection_properties: {source_ip: true}}, {query_parameter: {name: q}}, {filter_state: {key: k}}]"
        ),
        {
            f"{A}.cluster_not_found_status": 404,
            f"{A}.prefix_rewrite": "/b",
            f"{A}.host_rewrite_literal": "h",
            f"{A}.append_x_forwarded_host": True,
            f"{A}.timeout_s": None,
            f"{A}.idle_timeout_s": None,
            f"{A}.has_idle_timeout": True,
            f"{A}.priority": "HIGH",
            f"{A}.metadata_match": {"envoy.lb": {"v": 1}},
            f"{A}.max_stream_duration_s": 3.0,
            f"{A}.grpc_timeout_header_max_s": 0.0,
            f"{A}.grpc_timeout_header_offset_s": 0.5,
            f"{A}.upgrades.0.enabled": False,
            f"{A}.hash_policies.0.kind": "header",
            f"{A}.hash_policies.0.name": "x-h",
            f"{A}.hash_policies.0.terminal": True,
            f"{A}.hash_policies.1.cookie_ttl_s": 1.0,
            f"{A}.hash_policies.1.cookie_path": "/p",
            f"{A}.hash_policies.2.kind": "source_ip",
            f"{A}.hash_policies.3.name": "q",
            f"{A}.hash_policies.4.name": "k",
        },
    ),
    Good(
        "regex rewrite",
        web(action="regex_rewrite: {pattern: {regex: '(a)b'}, substitution: '\\1\\\\x'}"),
        {f"{A}.regex_rewrite.pattern": "(a)b", f"{A}.regex_rewrite.substitution": "\\1\\\\x"},
    ),
    Good(
        "rate limits",
        web(
            action="rate_limits: [{stage: 1, disable_key: k, actions: [{source_cluster: {}}, {destination_cluster: {}}, {remote_address: {}}, "
            "{request_headers: {header_name: x, descriptor_key: k, skip_if_absent: true}}, "
            "{query_parameters: {query_parameter_name: q, descriptor_key: k, skip_if_absent: true}}, "
            "{generic_key: {descriptor_key: k, descriptor_value: v}}, {masked_remote_address: {v4_prefix_mask_len: 8, v6_prefix_mask_len: 64}}, "
            "{header_value_match: {descriptor_key: k, descriptor_value: v, expect_match: false, headers: [{name: x}]}}, "
            "{query_parameter_value_match: {descriptor_key: k, descriptor_value: v, expect_match: false, query_parameters: [{name: q}]}}, "
            "{metadata: {descriptor_key: k, metadata_key: {key: f, path: [{key: a}]}, default_value: d, source: ROUTE_ENTRY, skip_if_absent: true}}]}], "
            "include_vh_rate_limits: true",
            host="rate_limits: [{actions: [{remote_address: {}}]}]",
            top="layered_runtime: {layers: [{name: old, static_layer: {envoy.features.enable_all_deprecated_features: true}}]}",
        ),
        {
            f"{A}.rate_limits.0.stage": 1,
            f"{A}.rate_limits.0.actions.9.path": ("f", "a"),
            f"{A}.rate_limits.0.actions.4.name": "q",
            f"{A}.include_vh_rate_limits": True,
            f"{V}.rate_limits.0.actions.0.kind": "remote_address",
        },
    ),
    Good(
        "rate limits by the deprecated action",
        web(
            action="rate_limits: [{actions: [{dynamic_metadata: {descriptor_key: k, metadata_key: {key: f, path: [{key: a}]}, default_value: d}}]}]"
        ),
        {f"{A}.rate_limits.0.actions.0.path": ("f", "a")},
        envoy_accepts=False,
    ),
    Good(
        "mirrors",
        web(
            action="request_mirror_policies: [{cluster: b, runtime_fraction: {default_value: {numerator: 1}}, disable_shadow_host_suffix_append: true}]",
            host="request_mirror_policies: [{cluster: b}]",
            table="request_mirror_policies: [{cluster: b}]",
        ),
        {
            f"{A}.mirrors.0.cluster": "b",
            f"{A}.mirrors.0.fraction.numerator": 1,
            f"{V}.mirrors.0.cluster": "b",
            f"{T}.mirrors.0.cluster": "b",
        },
    ),
    Good("auto_host_rewrite", web(action="auto_host_rewrite: true"), {f"{A}.auto_host_rewrite": True}),
    Good("host_rewrite_header", web(action="host_rewrite_header: X-H"), {f"{A}.host_rewrite_header": "x-h"}),
    Good(
        "host_rewrite_path_regex",
        web(action="host_rewrite_path_regex: {pattern: {regex: '^/(.+)/.+$'}, substitution: '\\1'}"),
        {f"{A}.host_rewrite_path_regex.substitution": "\\1"},
    ),
    Good(
        "old grpc timeouts",
        web(action="max_grpc_timeout: 2s, grpc_timeout_offset: 1s"),
        {f"{A}.max_grpc_timeout_s": 2.0, f"{A}.grpc_timeout_offset_s": 1.0},
    ),
    Good(
        "http health check",
        web(
            cluster="ignore_health_on_host_removal: true, common_lb_config: {ignore_new_hosts_until_first_hc: true}, health_checks: [{timeout: 1s, interval: 2s, "
            "initial_jitter: 3s, interval_jitter: 4s, interval_jitter_percent: 5, unhealthy_threshold: 6, healthy_threshold: 7, reuse_connection: false, "
            "no_traffic_interval: 8s, no_traffic_healthy_interval: 9s, unhealthy_interval: 10s, unhealthy_edge_interval: 11s, healthy_edge_interval: 12s, "
            "http_health_check: {host: h, path: /p, method: POST, send: {text: '6869'}, receive: [{text: '6f6B'}, {binary: AAE=}], response_buffer_size: 100, "
            "request_headers_to_add: [{header: {key: X-A, value: b}}], request_headers_to_remove: [X-R], expected_statuses: [{start: 200, end: 300}], "
            "retriable_statuses: [{start: 500, end: 600}], codec_client_type: HTTP2, service_name_matcher: {prefix: s}}}]",
            endpoint="endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}, health_check_config: {port_value: 2, hostname: hh, "
            "address: {socket_address: {address: 127.0.0.2, port_value: 3}}, disable_active_health_check: true}}",
        ),
        {
            f"{K}.ignore_health_on_removal": True,
            f"{K}.ignore_new_until_checked": True,
            f"{K}.health_check.timeout_s": 1.0,
            f"{K}.health_check.interval_s": 2.0,
            f"{K}.health_check.initial_jitter_s": 3.0,
            f"{K}.health_check.interval_jitter_s": 4.0,
            f"{K}.health_check.interval_jitter_percent": 5,
            f"{K}.health_check.unhealthy_threshold": 6,
            f"{K}.health_check.healthy_threshold": 7,
            f"{K}.health_check.reuse_connection": False,
            f"{K}.health_check.no_traffic_interval_s": 8.0,
            f"{K}.health_check.no_traffic_healthy_interval_s": 9.0,
            f"{K}.health_check.unhealthy_interval_s": 10.0,
            f"{K}.health_check.unhealthy_edge_interval_s": 11.0,
            f"{K}.health_check.healthy_edge_interval_s": 12.0,
            f"{K}.health_check.check.host": "h",
            f"{K}.health_check.check.method": "POST",
            f"{K}.health_check.check.send": b"hi",
            f"{K}.health_check.check.receive": (b"ok", b"\0\1"),
            f"{K}.health_check.check.response_buffer_size": 100,
            f"{K}.health_check.check.request_headers.remove": ("x-r",),
            f"{K}.health_check.check.expected": ((200, 300),),
            f"{K}.health_check.check.retriable": ((500, 600),),
            f"{K}.health_check.check.http2": True,
            f"{K}.health_check.check.service_name.value": "s",
            f"{K}.endpoints.localities.0.endpoints.0.health_check.port": 2,
            f"{K}.endpoints.localities.0.endpoints.0.health_check.hostname": "hh",
            f"{K}.endpoints.localities.0.endpoints.0.health_check.address.host": "127.0.0.2",
            f"{K}.endpoints.localities.0.endpoints.0.health_check.disabled": True,
        },
    ),
    Good(
        "tcp health check",
        web(
            cluster="health_checks: [{timeout: 1s, interval: 2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {send: {binary: AAE=}, receive: [{text: ff}]}}]"
        ),
        {
            f"{K}.health_check.check.send": b"\0\1",
            f"{K}.health_check.check.receive": (b"\xff",),
            f"{K}.health_check.no_traffic_healthy_interval_s": 60.0,
            f"{K}.health_check.unhealthy_edge_interval_s": 2.0,
            f"{K}.health_check.healthy_edge_interval_s": 2.0,
        },
    ),
    Good(
        "grpc health check",
        web(
            cluster="health_checks: [{timeout: 1s, interval: 2s, unhealthy_threshold: 1, healthy_threshold: 1, grpc_health_check: {service_name: s, authority: a, "
            "initial_metadata: [{header: {key: k, value: v}}]}}], "
            + options("explicit_http_config: {http2_protocol_options: {}}")
        ),
        {
            f"{K}.health_check.check.service_name": "s",
            f"{K}.health_check.check.authority": "a",
            f"{K}.health_check.check.initial_metadata.add.0.name": "k",
        },
    ),
    Good(
        "cluster_header",
        web(route="match: {prefix: /}, route: {cluster_header: X-C}"),
        {f"{A}.clusters.0.cluster_header": "x-c", f"{A}.clusters.0.name": ""},
    ),
    Good(
        "weighted clusters",
        web(
            route="match: {prefix: /}, route: {weighted_clusters: {header_name: X-R, clusters: [{name: a, weight: 9, host_rewrite_literal: h, "
            "metadata_match: {filter_metadata: {envoy.lb: {v: 1}}}, request_headers_to_add: [{header: {key: a, value: b}}], response_headers_to_remove: [c]}, "
            "{cluster_header: X-C, weight: 1, request_headers_to_remove: [d], response_headers_to_add: [{header: {key: e, value: f}}]}, {name: b, weight: 0}]}}"
        ),
        {
            f"{A}.random_value_header": "x-r",
            f"{A}.clusters.0.weight": 9,
            f"{A}.clusters.0.host_rewrite_literal": "h",
            f"{A}.clusters.0.metadata_match": {"envoy.lb": {"v": 1}},
            f"{A}.clusters.0.request_headers.add.0.name": "a",
            f"{A}.clusters.0.response_headers.remove": ("c",),
            f"{A}.clusters.1.cluster_header": "x-c",
            f"{A}.clusters.1.request_headers.remove": ("d",),
            f"{A}.clusters.1.response_headers.add.0.value": "f",
            f"{A}.clusters.2.weight": 0,
        },
    ),
    Good(
        "retry policy",
        web(
            action="retry_policy: {retry_on: 'connect-failure, 5xx', num_retries: 4, per_try_timeout: 1s, per_try_idle_timeout: 2s, retriable_status_codes: [503], "
            "retriable_headers: [{name: a}], retriable_request_headers: [{name: b}], retry_back_off: {base_interval: 0.1s, max_interval: 3s}, "
            "rate_limited_retry_back_off: {reset_headers: [{name: Retry-After, format: SECONDS}], max_interval: 9s}, host_selection_retry_max_attempts: 5, "
            f"retry_host_predicate: [{typed('envoy.retry_host_predicates.previous_hosts', 'retry.host.previous_hosts.v3.PreviousHostsPredicate')}]}}"
        ),
        {
            f"{RETRY}.retry_on": ("connect-failure", "5xx"),
            f"{RETRY}.num_retries": 4,
            f"{RETRY}.per_try_timeout_s": 1.0,
            f"{RETRY}.per_try_idle_timeout_s": 2.0,
            f"{RETRY}.retriable_status_codes": (503,),
            f"{RETRY}.retriable_headers.0.name": "a",
            f"{RETRY}.retriable_request_headers.0.name": "b",
            f"{RETRY}.base_interval_s": 0.1,
            f"{RETRY}.max_interval_s": 3.0,
            f"{RETRY}.rate_limited_reset_headers": (("retry-after", "SECONDS"),),
            f"{RETRY}.rate_limited_max_interval_s": 9.0,
            f"{RETRY}.host_selection_max_attempts": 5,
            f"{RETRY}.avoid_previous_hosts": True,
        },
    ),
    Good(
        "retry defaults",
        web(action="retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.1s}}"),
        {f"{RETRY}.num_retries": 1, f"{RETRY}.max_interval_s": 1.0, f"{RETRY}.rate_limited_max_interval_s": 300.0},
    ),
    Good(
        "redirect",
        web(
            route="match: {prefix: /}, redirect: {https_redirect: true, host_redirect: h, port_redirect: 8443, path_redirect: /p, response_code: FOUND, strip_query: true}"
        ),
        {
            f"{A}.https_redirect": True,
            f"{A}.scheme": "https",
            f"{A}.host": "h",
            f"{A}.port": 8443,
            f"{A}.path": "/p",
            f"{A}.status": 302,
            f"{A}.strip_query": True,
        },
    ),
    Good(
        "redirect scheme and prefix",
        web(route="match: {prefix: /}, redirect: {scheme_redirect: ftp, prefix_rewrite: /q}"),
        {f"{A}.scheme": "ftp", f"{A}.prefix_rewrite": "/q", f"{A}.status": 301},
    ),
    Good(
        "redirect regex",
        web(
            route="match: {prefix: /}, redirect: {regex_rewrite: {pattern: {regex: a}, substitution: b}, response_code: PERMANENT_REDIRECT}"
        ),
        {f"{A}.regex_rewrite.pattern": "a", f"{A}.status": 308},
    ),
    Good(
        "direct response",
        web(
            route="match: {prefix: /}, direct_response: {status: 418, body: {inline_string: tea}, body_format: {text_format_source: {inline_string: '%PROTOCOL%'}}}"
        ),
        {f"{A}.status": 418, f"{A}.body": b"tea", f"{A}.body_format": "%PROTOCOL%"},
    ),
    Good("non-forwarding", web(route="match: {prefix: /}, non_forwarding_action: {}"), {f"{A}": None}),
]

EXCHANGE = '{"@type": type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, protocol: istio-peer-exchange}'
NULL_VM = "vm_config: {runtime: envoy.wasm.runtime.null, code: {local: {inline_string: "
ALPN = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
ISTIO = [  # Envoy itself knows none of these
    Good(
        "istio's filters",
        web(
            hcm=f"""http_filters: [
          {{name: istio.metadata_exchange, typed_config: {{"@type": {EXT}filters.http.wasm.v3.Wasm,
            config: {{{NULL_VM}envoy.wasm.metadata_exchange}}}}}}, configuration: {EXCHANGE}}}}}}},
          {{name: istio.alpn, typed_config: {{"@type": {ALPN}, alpn_override: [
            {{upstream_protocol: HTTP11, alpn_override: [istio-peer-exchange, istio-http/1.1, istio]}},
            {{upstream_protocol: HTTP2, alpn_override: [istio-h2]}}]}}}},
          {{name: istio.stats, typed_config: {{"@type": type.googleapis.com/udpa.type.v1.TypedStruct,
            type_url: type.googleapis.com/stats.PluginConfig, value: {{metrics: []}}}}}},
          {ROUTER}]""",
            tcp_chain=f"filters: [{{name: istio.metadata_exchange, typed_config: {EXCHANGE}}}, "
            + typed("tcp", "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix: tcp, cluster: a")
            + "]",
            cluster=f"filters: [{{name: istio.metadata_exchange, typed_config: {EXCHANGE}}}]",
        ),
        {
            f"{H}.filters.0.name": "istio.metadata_exchange",
            f"{H}.filters.0.config.mutations.request.0.remove": "x-envoy-peer-metadata",
            f"{H}.alpn_overrides": (("HTTP11", ("istio-http/1.1", "istio")), ("HTTP2", ("istio-h2",))),
            "listeners.1.filter_chains.0.filters.0.stat_prefix": "tcp",
        },
        warnings=(
            f"{CLUSTER}.filters[0]",
            f"{HCM}.http_filters[0].typed_config",
            f"{HCM}.http_filters[1].typed_config.alpn_override[0].alpn_override",
            f"{HCM}.http_filters[2].typed_config.value",
            f"{TCP_LISTENER}.filter_chains[0].filters[0].typed_config",
        ),
    ),
]
CLUSTERS = [
    Good(
        "cluster defaults",
        web(),
        {
            f"{K}.kind": "STATIC",
            f"{K}.connect_timeout_s": 5.0,
            f"{K}.lb_policy": "ROUND_ROBIN",
            f"{K}.thresholds.max_connections": 1024,
            f"{K}.thresholds.max_retries": 3,
            f"{K}.upstream_protocol": "HTTP1",
            f"{K}.idle_timeout_s": 3600.0,
            f"{K}.panic_threshold_percent": 50.0,
            f"{K}.dns_refresh_rate_s": 5.0,
            f"{K}.per_connection_buffer_limit_bytes": 1_048_576,
            f"{K}.endpoints.overprovisioning_factor": 140,
            f"{E}.endpoints.0.weight": 1,
            f"{E}.endpoints.0.address.port": 1,
            "clusters.1.endpoints.localities": (),
        },
    ),
    Good(
        "cluster fields",
        web(
            cluster="type: STRICT_DNS, alt_stat_name: alt, connect_timeout: 0.25s, per_connection_buffer_limit_bytes: 9, lb_policy: LEAST_REQUEST, "
            "least_request_lb_config: {choice_count: 3}, dns_refresh_rate: 7s, respect_dns_ttl: true, dns_lookup_family: V4_PREFERRED, wait_for_warm_on_init: false, "
            "upstream_bind_config: {source_address: {address: 127.0.0.2, port_value: 0}}, metadata: {filter_metadata: {a: {b: 1}}}, cleanup_interval: 6s, "
            "upstream_connection_options: {tcp_keepalive: {keepalive_probes: 1, keepalive_time: 2, keepalive_interval: 3}}, "
            "common_lb_config: {healthy_panic_threshold: {value: 12.5}}, close_connections_on_host_health_failure: true, "
            "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 2, max_requests: 3, max_retries: 4, track_remaining: true}, "
            "{priority: HIGH, max_retries: 9, retry_budget: {budget_percent: {value: 30}, min_retry_concurrency: 5}}], per_host_thresholds: [{max_connections: 8}]}"
        ),
        {
            f"{K}.kind": "STRICT_DNS",
            f"{K}.alt_stat_name": "alt",
            f"{K}.connect_timeout_s": 0.25,
            f"{K}.per_connection_buffer_limit_bytes": 9,
            f"{K}.lb_policy": "LEAST_REQUEST",
            f"{K}.least_request_choice_count": 3,
            f"{K}.dns_refresh_rate_s": 7.0,
            f"{K}.respect_dns_ttl": True,
            f"{K}.dns_lookup_family": "V4_PREFERRED",
            f"{K}.wait_for_warm_on_init": False,
            f"{K}.bind.addresses.0.host": "127.0.0.2",
            f"{K}.metadata": {"a": {"b": 1}},
            f"{K}.cleanup_interval_s": 6.0,
            f"{K}.tcp_keepalive": (1, 2, 3),
            f"{K}.panic_threshold_percent": 12.5,
            f"{K}.close_connections_on_host_health_failure": True,
            f"{K}.thresholds.max_connections": 1,
            f"{K}.thresholds.max_pending_requests": 2,
            f"{K}.thresholds.max_requests": 3,
            f"{K}.thresholds.max_retries": 4,
            f"{K}.thresholds.track_remaining": True,
            f"{K}.high_thresholds.max_retries": 9,
            f"{K}.high_thresholds.retry_budget_percent": 30.0,
            f"{K}.high_thresholds.retry_budget_min_concurrency": 5,
            f"{K}.per_host_max_connections": 8,
        },
    ),
    Good(
        "outlier detection",
        web(cluster="outlier_detection: {consecutive_5xx: 3, base_ejection_time: 400s}"),
        {
            f"{K}.outlier_detection.consecutive_5xx": 3,
            f"{K}.outlier_detection.base_ejection_time_s": 400.0,
            f"{K}.outlier_detection.max_ejection_time_s": 400.0,
            f"{K}.outlier_detection.max_ejection_percent": 10,
        },
    ),
    Good(
        "refresh of failed names",
        web(
            cluster="type: STRICT_DNS, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 9s}, dns_jitter: 1s, "
            f"typed_dns_resolver_config: {typed('c', 'network.dns_resolver.cares.v3.CaresDnsResolverConfig')}"
        ),
        {f"{K}.dns_failure_refresh_base_s": 2.0, f"{K}.dns_failure_refresh_max_s": 9.0, f"{K}.dns_jitter_s": 1.0},
    ),
    Good(
        "ring hash",
        web(
            cluster="type: STRICT_DNS, lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 7, maximum_ring_size: 9, hash_function: XX_HASH}, "
            "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}"
        ),
        {
            f"{K}.lb_policy": "RING_HASH",
            f"{K}.ring_hash_minimum_size": 7,
            f"{K}.ring_hash_maximum_size": 9,
            f"{K}.hash_by_hostname": True,
        },
    ),
    Good(
        "maglev",
        web(cluster="lb_policy: MAGLEV, maglev_lb_config: {table_size: 13}"),
        {f"{K}.lb_policy": "MAGLEV", f"{K}.maglev_table_size": 13, f"{K}.ring_hash_minimum_size": 1024},
    ),
    Good(
        "locality weights",
        web(cluster="common_lb_config: {locality_weighted_lb_config: {}}"),
        {f"{K}.locality_weighted": True, f"{K}.panic_threshold_percent": 50.0},
    ),
    Good(
        "panic threshold zero",
        web(cluster="common_lb_config: {healthy_panic_threshold: {value: 0}}"),
        {f"{K}.panic_threshold_percent": 0.0},
    ),
    Good(
        "retry budget defaults",
        web(cluster="circuit_breakers: {thresholds: [{retry_budget: {}}]}"),
        {f"{K}.thresholds.retry_budget_percent": 20.0, f"{K}.thresholds.retry_budget_min_concurrency": 3},
    ),
    Good(
        "LOGICAL_DNS",
        web(cluster="type: LOGICAL_DNS", endpoint="endpoint: {address: {socket_address: {address: a.test, port_value: 1}}}"),
        {f"{K}.kind": "LOGICAL_DNS", f"{E}.endpoints.0.address.host": "a.test"},
    ),
    Good(
        "ORIGINAL_DST",
        web(
            cluster="type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, load_assignment: ~, original_dst_lb_config: {use_http_header: true, http_header_name: X-Dst}"
        ),
        {f"{K}.kind": "ORIGINAL_DST", f"{K}.original_dst_http_header": "x-dst", f"{K}.endpoints": None},
    ),
    Good(
        "ORIGINAL_DST default header",
        web(
            cluster="type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, load_assignment: ~, original_dst_lb_config: {use_http_header: true}"
        ),
        {f"{K}.original_dst_http_header": "x-envoy-original-dst-host"},
    ),
    Good(
        "protocol options",
        web(
            cluster=options(
                "common_http_protocol_options: {idle_timeout: 4s, max_connection_duration: 5s, max_stream_duration: 9s, headers_with_underscores_action: DROP_HEADER, max_requests_per_connection: 6, max_headers_count: 7, max_response_headers_kb: 8}, "
                "explicit_http_config: {http_protocol_options: {enable_trailers: true}}"
            )
        ),
        {
            f"{K}.upstream_protocol": "HTTP1",
            f"{K}.idle_timeout_s": 4.0,
            f"{K}.max_connection_duration_s": 5.0,
            f"{K}.max_stream_duration_s": 9.0,
            f"{K}.max_requests_per_connection": 6,
            f"{K}.max_response_headers_count": 7,
            f"{K}.max_response_headers_kb": 8,
            f"{K}.http1_enable_trailers": True,
        },
    ),
    Good(
        "upstream HTTP/2",
        web(cluster=options("explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 7}}")),
        {f"{K}.upstream_protocol": "HTTP2", f"{K}.http2.max_concurrent_streams": 7, f"{K}.http2.hpack_table_size": 4096},
    ),
    Good(
        "upstream protocol of the request",
        web(
            cluster=options(
                "use_downstream_protocol_config: {http_protocol_options: {enable_trailers: true}, http2_protocol_options: {max_concurrent_streams: 8}}"
            )
        ),
        {f"{K}.upstream_protocol": "DOWNSTREAM", f"{K}.http2.max_concurrent_streams": 8, f"{K}.http1_enable_trailers": True},
    ),
    Good(
        "old HTTP/2 options",
        web(cluster="http2_protocol_options: {stream_error_on_invalid_http_messaging: true}"),
        {f"{K}.upstream_protocol": "HTTP2", f"{K}.http2.bad_message_ends_stream_only": True},
    ),
    Good(
        "old protocol options",
        web(
            cluster="max_requests_per_connection: 3, common_http_protocol_options: {idle_timeout: 0s}, http_protocol_options: {enable_trailers: true}"
        ),
        {f"{K}.max_requests_per_connection": 3, f"{K}.idle_timeout_s": None, f"{K}.http1_enable_trailers": True},
    ),
    Good(
        "subsets",
        web(
            cluster="lb_subset_config: {fallback_policy: DEFAULT_SUBSET, default_subset: {v: 1}, subset_selectors: [{keys: [v, w], "
            "fallback_policy: KEYS_SUBSET, fallback_keys_subset: [v]}, {keys: [v], single_host_per_subset: true}], locality_weight_aware: true, "
            "panic_mode_any: true, list_as_any: true, metadata_fallback_policy: FALLBACK_LIST}, common_lb_config: {locality_weighted_lb_config: {}}"
        ),
        {
            f"{K}.subsets.fallback_policy": "DEFAULT_SUBSET",
            f"{K}.subsets.default_subset": {"v": 1},
            f"{K}.subsets.selectors.0.keys": ("v", "w"),
            f"{K}.subsets.selectors.1.single_host_per_subset": True,
            f"{K}.subsets.metadata_fallback_list": True,
        },
    ),
    Good("subsets without selectors", web(cluster="lb_subset_config: {fallback_policy: ANY_ENDPOINT}"), {f"{K}.subsets": None}),
    Good(
        "endpoints",
        web(
            cluster="load_assignment: {cluster_name: other, policy: {overprovisioning_factor: 200}, endpoints: [{locality: {region: r, zone: z, sub_zone: s}, load_balancing_weight: 3, "
            "priority: 0, lb_endpoints: [{endpoint: {hostname: h, address: {socket_address: {address: 127.0.0.1, port_value: 1}}}, load_balancing_weight: 4, health_status: DRAINING, "
            f"metadata: {{filter_metadata: {{envoy.lb: {{v: 1}}}}}}}}]}}, {{priority: 1, lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: /tmp/e.sock}}}}}}}}, {{{ENDPOINT}}}]}}]}}"
        ),
        {
            f"{K}.endpoints.cluster_name": "other",
            f"{K}.endpoints.overprovisioning_factor": 200,
            f"{E}.locality.region": "r",
            f"{E}.locality.zone": "z",
            f"{E}.locality.sub_zone": "s",
            f"{E}.weight": 3,
            f"{E}.priority": 0,
            f"{E}.endpoints.0.hostname": "h",
            f"{E}.endpoints.0.weight": 4,
            f"{E}.endpoints.0.health_status": "DRAINING",
            f"{E}.endpoints.0.metadata": {"envoy.lb": {"v": 1}},
            f"{K}.endpoints.localities.1.priority": 1,
            f"{K}.endpoints.localities.1.endpoints.0.address.path": "/tmp/e.sock",
        },
    ),
    Good(
        "raw_buffer upstream",
        web(cluster=f"transport_socket: {typed('raw', 'transport_sockets.raw_buffer.v3.RawBuffer')}"),
        {f"{K}.transport_socket": None},
    ),
]

GOOD = [*BOOTSTRAP, *LISTENERS, *TCP_PROXIES, *MANAGERS, *ACCESS_LOGS, *TABLES, *MATCHERS, *ACTIONS, *CLUSTERS]
