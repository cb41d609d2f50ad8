"""Bootstraps with a Dubbo manager: accepted here and by Envoy, accepted only here (our own options), refused."""

from __future__ import annotations

from pathlib import Path

from bootstraps import EXT, LOCALHOST, file_log
from bootstraps.bad import Bad, unsupported
from bootstraps.good import Good

FILE = Path(__file__).parents[1] / "data" / "dubbo" / "drds.yaml"
ROUTER = f'{{name: envoy.filters.dubbo.router, config: {{"@type": {EXT}filters.network.dubbo_proxy.router.v3.Router}}}}'
ANY = 'method: {name: {safe_regex: {regex: ".*"}}}'
MANAGER = "listeners[0].filter_chains[0].filters[0].typed_config"
ROUTE = MANAGER + ".multiple_route_config.route_config[0].routes[0]"
M = "listeners.0.filter_chains.0.filters.0"
R = M + ".routes.0"
X = R + ".routes.0"


def struct(kind: str, fields: str) -> str:
    """Our options as a TypedStruct."""
    name = f"type.googleapis.com/mesh_proxy.dubbo.v1.{kind}"
    return f'{{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: {name}, value: {{{fields}}}}}'


def dubbo(manager: str = "", cluster: str = "", top: str = "") -> str:
    """A listener with a Dubbo manager, and a cluster."""
    kind = f"{EXT}filters.network.dubbo_proxy.v3.DubboProxy"
    return f"""
static_resources:
  listeners:
  - name: dubbo
    address: {{{LOCALHOST}}}
    filter_chains:
    - filters: [{{name: dubbo, typed_config: {{"@type": {kind}, stat_prefix: d{f", {manager}" if manager else ""}}}}}]
  clusters: [{{name: a{f", {cluster}" if cluster else ""}}}]
{top}"""


def routes(config: str) -> str:
    """With a RouteConfiguration."""
    return dubbo(f"multiple_route_config: {{name: m, route_config: [{{name: x, interface: demo.A, {config}}}]}}")


def route(match: str = ANY, action: str = "cluster: a") -> str:
    """With one route."""
    return routes(f"routes: [{{match: {{{match}}}, route: {{{action}}}}}]")


def options(fields: str) -> str:
    """With RouteOptions."""
    metadata = f"typed_filter_metadata: {{mesh_proxy.dubbo: {struct('RouteOptions', fields)}}}"
    return route(action=f"cluster: a, metadata_match: {{{metadata}}}")


def manager_options(fields: str) -> str:
    """With ManagerOptions."""
    return dubbo(f"dubbo_filters: [{{name: o, config: {struct('ManagerOptions', fields)}}}, {ROUTER}]")


def cluster_options(fields: str) -> str:
    """With ClusterOptions."""
    return dubbo(cluster=f"metadata: {{typed_filter_metadata: {{mesh_proxy.dubbo: {struct('ClusterOptions', fields)}}}}}")


def weighted(clusters: str) -> str:
    """With weighted clusters."""
    return route(action=f"weighted_clusters: {{clusters: [{clusters}]}}")


def drds(source: str, name: str = "routes") -> str:
    """With routes from a file."""
    text = f"drds: {{route_config_name: {name}, config_source: {{{source}, resource_api_version: V3}}}}"
    return dubbo(text, top="node: {id: i, cluster: c}")


GOOD = [
    Good("dubbo manager without routes", dubbo(f"dubbo_filters: [{ROUTER}]"), {f"{M}.stat_prefix": "d", f"{M}.routes": ()}),
    Good("dubbo protocol and serialization", dubbo("protocol_type: Dubbo, serialization_type: Hessian2"), {f"{M}.filters": ()}),
    Good(
        "dubbo route",
        routes(f"group: g, version: 1.0.0, routes: [{{match: {{{ANY}}}, route: {{cluster: a}}}}]"),
        {
            f"{R}.name": "x",
            f"{R}.interface": "demo.A",
            f"{R}.group": "g",
            f"{R}.version": "1.0.0",
            f"{X}.name": "x[0]",
            f"{X}.method.value": ".*",
            f"{X}.clusters.0.name": "a",
        },
    ),
    Good(
        "dubbo inline routes",
        dubbo(f"route_config: [{{interface: demo.A, routes: [{{match: {{{ANY}}}, route: {{cluster: a}}}}]}}]"),
        {f"{R}.interface": "demo.A"},
    ),
    Good(
        "dubbo parameters and headers",
        route(
            "method: {name: {prefix: say}, params_match: {0: {exact_match: a}, 1: {range_match: {start: 1, end: 9}}}},"
            " headers: [{name: Dubbo.Tag, string_match: {exact: gray}}]"
        ),
        {
            f"{X}.parameters.0.index": 0,
            f"{X}.parameters.0.exact": "a",
            f"{X}.parameters.1.exact": None,
            f"{X}.parameters.1.range_start": 1,
            f"{X}.parameters.1.range_end": 9,
            f"{X}.headers.0.name": "dubbo.tag",
        },
    ),
    Good(
        "dubbo weighted clusters",
        weighted("{name: a, weight: 3, metadata_match: {filter_metadata: {envoy.lb: {v: 2}}}}, {cluster_header: X-C, weight: 1}"),
        {
            f"{X}.clusters.0.weight": 3,
            f"{X}.clusters.0.metadata_match": {"envoy.lb": {"v": 2}},
            f"{X}.clusters.1.cluster_header": "x-c",
        },
    ),
    Good(
        "dubbo route options",
        options(
            "timeout: 3s, use_request_timeout: true, fallback_cluster: b, retry_policy: {num_retries: 2, retry_on:"
            " [connect-failure, reset], retriable_statuses: [100], per_try_timeout: 1s}, request_mirror_policies:"
            " [{cluster: m, runtime_fraction: {default_value: {numerator: 5}, runtime_key: k}}]"
        ),
        {
            f"{X}.options.timeout_s": 3.0,
            f"{X}.options.use_request_timeout": True,
            f"{X}.options.fallback_cluster": "b",
            f"{X}.options.retries": 2,
            f"{X}.options.retry_on_connect_failure": True,
            f"{X}.options.retry_on_reset": True,
            f"{X}.options.retry_on_statuses": (100,),
            f"{X}.options.per_try_timeout_s": 1.0,
            f"{X}.options.mirrors.0.cluster": "m",
            f"{X}.options.mirrors.0.fraction.numerator": 5,
            f"{X}.options.mirrors.0.fraction.runtime_key": "k",
        },
    ),
    Good(
        "dubbo cluster options",
        cluster_options(
            "connections_per_endpoint: 4, heartbeat_interval: 20s, heartbeat_timeout: 60s, idle_timeout: 300s, pinning: ALWAYS,"
            " max_body_bytes: 1000"
        ),
        {
            "clusters.0.dubbo.connections_per_endpoint": 4,
            "clusters.0.dubbo.heartbeat_interval_s": 20.0,
            "clusters.0.dubbo.heartbeat_timeout_s": 60.0,
            "clusters.0.dubbo.idle_timeout_s": 300.0,
            "clusters.0.dubbo.pinning.name": "ALWAYS",
            "clusters.0.dubbo.max_body_bytes": 1000,
            "clusters.0.metadata": {},
        },
    ),
    Good(
        "dubbo routes from a file",
        drds(f"path_config_source: {{path: {FILE}}}"),
        {f"{M}.routes": (), f"{M}.drds.name": "routes", f"{M}.drds.source.path": str(FILE), f"{M}.drds.kind": "drds"},
    ),
    Good(
        "dubbo routes from a file, old form",
        drds(f"path: {FILE}, initial_fetch_timeout: 1s"),
        {f"{M}.drds.name": "routes", f"{M}.drds.source.initial_fetch_timeout_s": 1.0},
    ),
]

OURS = [
    Good(
        "dubbo manager options",
        manager_options(
            f"opaque_cluster: o, access_log: [{file_log()}], idle_timeout: 60s, heartbeat_interval: 30s, max_body_bytes: 1000,"
            " max_search_values: 500, route_defaults: {timeout: 2s}, forward_client_cert_details: SANITIZE_SET,"
            " set_current_client_cert_details: {uri: true, subject: true}"
        ),
        {
            f"{M}.opaque_cluster": "o",
            f"{M}.access_logs.0.path": "/dev/null",
            f"{M}.idle_timeout_s": 60.0,
            f"{M}.heartbeat_interval_s": 30.0,
            f"{M}.max_body_bytes": 1000,
            f"{M}.max_search_values": 500,
            f"{M}.forward_client_cert_details": "SANITIZE_SET",
            f"{M}.set_current_client_cert_details": ("subject", "uri"),
            f"{M}.default_options.timeout_s": 2.0,
        },
    ),
    Good("dubbo route for any method", route(match=""), {f"{X}.method": None}),
]
"""Envoy does not know our Dubbo filters, and wants a matcher of the method"""

_METADATA = f"{ROUTE}.route.metadata_match.typed_filter_metadata[mesh_proxy.dubbo]"
_CLUSTER = "clusters[0].metadata.typed_filter_metadata[mesh_proxy.dubbo]"
_OPTIONS = MANAGER + ".dubbo_filters[0].config"

BAD = [
    Bad("dubbo without stat_prefix", dubbo().replace("stat_prefix: d", ""), f"{MANAGER}.stat_prefix", "must not be empty"),
    Bad("dubbo route without action", routes(f"routes: [{{match: {{{ANY}}}}}]"), f"{ROUTE}.route", "is required"),
    Bad("dubbo route without cluster", route(action=""), f"{ROUTE}.route", "needs one of"),
    Bad(
        "dubbo method without name",
        route("method: {params_match: {0: {exact_match: a}}}"),
        f"{ROUTE}.match.method.name",
        "is required",
    ),
    Bad(
        "dubbo bad regex",
        route('method: {name: {safe_regex: {regex: "("}}}'),
        f"{ROUTE}.match.method.name.safe_regex.regex",
        "RE2",
    ),
    Bad(
        "dubbo weights of nothing",
        weighted("{name: a, weight: 0}"),
        f"{ROUTE}.route.weighted_clusters.clusters",
        "more than 0",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo weighted cluster without name",
        weighted("{weight: 1}"),
        f"{ROUTE}.route.weighted_clusters.clusters[0]",
        "needs one of",
        envoy_refuses=False,
    ),
    unsupported(
        "dubbo weighted headers",
        weighted("{name: a, weight: 1, request_headers_to_remove: [a]}"),
        f"{ROUTE}.route.weighted_clusters.clusters[0].request_headers_to_remove",
    ),
    Bad(
        "dubbo two kinds of routes",
        dubbo("route_config: [{interface: a}], multiple_route_config: {name: m}"),
        f"{MANAGER}.route_config",
        "together with multiple_route_config",
    ),
    unsupported("dubbo routes by ads", drds("ads: {}"), f"{MANAGER}.drds.config_source.ads", "only files"),
    Bad(
        "dubbo routes from no file",
        drds("path_config_source: {path: /nonexistent/d.yaml}"),
        f"{MANAGER}.drds.config_source.path_config_source.path",
        "/nonexistent/d.yaml does not exist",
    ),
    Bad(
        "dubbo filter of an unknown type",
        dubbo(f"dubbo_filters: [{{name: o, config: {struct('Nothing', '')}}}, {ROUTER}]"),
        f"{MANAGER}.dubbo_filters[0].config.value",
        "is not a supported Dubbo filter",
    ),
    Bad(
        "dubbo filter without config",
        dubbo(f"dubbo_filters: [{{name: o}}, {ROUTER}]"),
        f"{MANAGER}.dubbo_filters[0]",
        "needs config",
    ),
    Bad(
        "dubbo without router",
        dubbo(f"dubbo_filters: [{{name: o, config: {struct('ManagerOptions', '')}}}]"),
        f"{MANAGER}.dubbo_filters[0]",
        "must be the router",
    ),
    Bad(
        "dubbo router first",
        dubbo(f"dubbo_filters: [{ROUTER}, {{name: o, config: {struct('ManagerOptions', '')}}}]"),
        f"{MANAGER}.dubbo_filters[0]",
        "must be the last one",
    ),
    Bad(
        "dubbo route options as a filter",
        dubbo(f"dubbo_filters: [{{name: o, config: {struct('RouteOptions', '')}}}, {ROUTER}]"),
        f"{_OPTIONS}.value",
        "is not a supported Dubbo filter",
    ),
    Bad(
        "dubbo manager options twice",
        dubbo(
            f"dubbo_filters: [{{name: o, config: {struct('ManagerOptions', '')}}}, {{name: p, config: {struct('ManagerOptions', '')}}}, {ROUTER}]"
        ),
        f"{MANAGER}.dubbo_filters[1]",
        "only once",
    ),
    Bad("dubbo manager option unknown", manager_options("nothing: 1"), f"{_OPTIONS}.value.nothing", "unknown field"),
    Bad(
        "dubbo client certificate mode",
        manager_options("forward_client_cert_details: FORWARD"),
        f"{_OPTIONS}.value.forward_client_cert_details",
        "FORWARD is not one of SANITIZE,",
    ),
    Bad(
        "dubbo client certificate details without a mode",
        manager_options("set_current_client_cert_details: {uri: true}"),
        f"{_OPTIONS}.value.set_current_client_cert_details",
        "no effect without",
    ),
    Bad(
        "dubbo client certificate detail unknown",
        manager_options("forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {ip: true}"),
        f"{_OPTIONS}.value.set_current_client_cert_details.ip",
        "unknown field",
    ),
    Bad("dubbo body limit", manager_options("max_body_bytes: 0"), f"{_OPTIONS}.value.max_body_bytes", "between 1"),
    Bad("dubbo duration", options("timeout: 3"), f"{_METADATA}.value.timeout", "duration", envoy_refuses=False),
    Bad(
        "dubbo options of another kind",
        options("").replace("RouteOptions", "ClusterOptions"),
        f"{_METADATA}.value",
        "must be mesh_proxy.dubbo.v1.RouteOptions",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo retry word",
        options("retry_policy: {retry_on: [5xx]}"),
        f"{_METADATA}.value.retry_policy.retry_on[0]",
        "connect-failure, reset",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo retry of a success",
        options("retry_policy: {retriable_statuses: [20]}"),
        f"{_METADATA}.value.retry_policy.retriable_statuses[0]",
        "other than 20",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo retry of nothing",
        options("retry_policy: {num_retries: 3}"),
        f"{_METADATA}.value.retry_policy",
        "needs one of",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo mirror of nothing",
        options("request_mirror_policies: [{}]"),
        f"{_METADATA}.value.request_mirror_policies[0].cluster",
        "is required",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo pinning",
        cluster_options("pinning: MAYBE"),
        f"{_CLUSTER}.value.pinning",
        "AUTO, ALWAYS, NEVER",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo connections",
        cluster_options("connections_per_endpoint: 0"),
        f"{_CLUSTER}.value.connections_per_endpoint",
        "between 1 and 1024",
        envoy_refuses=False,
    ),
    Bad(
        "dubbo heartbeat timeout",
        cluster_options("heartbeat_interval: 60s, heartbeat_timeout: 10s"),
        f"{_CLUSTER}.value.heartbeat_timeout",
        "at least heartbeat_interval",
        envoy_refuses=False,
    ),
]
