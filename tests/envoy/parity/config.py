"""Builders for the configuration that both proxies get: plain dicts in Envoy's v3 JSON form, with placeholders.

`$(port.NAME)` is a free port; `$(up.NAME)`, `$(up2.NAME)`, `$(up6.NAME)`, `$(tcp.NAME)`, `$(dubbo.NAME)` are ports of an HTTP/1,
HTTP/2, IPv6 HTTP/1, raw, Dubbo endpoint of the recording upstream (it starts by being named), `$(uds.NAME)` is the path of a unix
socket (an endpoint if NAME begins with `up`), `$(refused.NAME)` a port that refuses, `$(blackhole.NAME)` one that never answers,
`$(dir)` the proxy's own directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

PLACEHOLDER = re.compile(r"\$\(([a-z0-9_]+(?:\.[a-z0-9_-]+)?)\)")
TYPE = "type.googleapis.com/"
NETWORK = TYPE + "envoy.extensions.filters.network."
Tree = Any


def render(tree: Tree, resolve: Callable[[str], str | int]) -> Tree:
    """Replace the placeholders; a string that is one placeholder becomes its value with its type."""
    if isinstance(tree, dict):
        return {key: render(value, resolve) for key, value in tree.items()}
    if isinstance(tree, list):
        return [render(value, resolve) for value in tree]
    if isinstance(tree, str):
        if match := PLACEHOLDER.fullmatch(tree):
            return resolve(match[1])
        return PLACEHOLDER.sub(lambda m: str(resolve(m[1])), tree)
    return tree


def merge(base: dict[str, Tree], yaml_text: str) -> dict[str, Tree]:
    """`base` with the top-level keys of a YAML mapping put over it."""
    return base | (yaml.safe_load(yaml_text) or {})


LOG_OPERATORS = {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
    "upstream": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "terminated": "%CONNECTION_TERMINATION_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""What the access log of every test listener says, one `key=value` per operator, separated by tabs."""


def log_format(operators: dict[str, str]) -> str:
    return "\t".join(f"{key}={operator}" for key, operator in operators.items()) + "\n"


def file_log(path: str, operators: dict[str, str] | None = None) -> dict[str, Tree]:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"text_format_source": {"inline_string": log_format(operators or LOG_OPERATORS)}},
        },
    }


def address(port: str, ip: str = "127.0.0.1") -> dict[str, Tree]:
    return {"socket_address": {"address": ip, "port_value": port}}


def hcm(name: str, route_config: Tree, extra: str = "", log: Tree = None) -> dict[str, Tree]:
    """An HTTP connection manager as a network filter; `route_config` is a RouteConfiguration, a list of virtual hosts,
    or a list of routes (for one virtual host `*`)."""
    if isinstance(route_config, str):
        route_config = yaml.safe_load(route_config)
    if isinstance(route_config, list):
        if route_config and "match" in route_config[0]:
            route_config = [{"name": "all", "domains": ["*"], "routes": route_config}]
        route_config = {"virtual_hosts": route_config}
    base = {
        "@type": NETWORK + "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"name": f"routes-{name}"} | route_config,
        "access_log": [file_log(f"$(dir)/{name}.log")] if log is None else log,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": merge(base, extra)}


def tcp_proxy(name: str, settings: str) -> dict[str, Tree]:
    base = {
        "@type": NETWORK + "tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "access_log": [file_log(f"$(dir)/{name}.log")],
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": merge(base, settings)}


def listener(name: str, *filters: Tree, extra: str = "", ip: str = "127.0.0.1") -> dict[str, Tree]:
    """A listener on `$(port.NAME)`; without filters the chains come in `extra`."""
    base: dict[str, Tree] = {"name": name, "address": address(f"$(port.{name})", ip)}
    if filters:
        base["filter_chains"] = [{"filters": list(filters)}]
    return merge(base, extra)


def http(name: str, routes: Tree, settings: str = "", *, extra: str = "", ip: str = "127.0.0.1") -> dict[str, Tree]:
    """A listener with one HTTP connection manager of the same name."""
    return listener(name, hcm(name, routes, settings), extra=extra, ip=ip)


def endpoint(spec: str) -> dict[str, Tree]:
    """`a` (HTTP endpoint a), `up2.a`, `tcp.a`, `up6.a`, `refused.a`, `blackhole.a`, `uds.up1`, each with `*WEIGHT` if wanted."""
    where, _, weight = spec.partition("*")
    where = where if "." in where else f"up.{where}"
    if where.startswith("uds."):
        at: Tree = {"pipe": {"path": f"$({where})"}}
    else:
        at = address(f"$({where})", "::1" if where.startswith("up6.") else "127.0.0.1")
    found: dict[str, Tree] = {"endpoint": {"address": at}}
    if weight:
        found["load_balancing_weight"] = int(weight)
    return found


def cluster(name: str, *endpoints: str, extra: str = "") -> dict[str, Tree]:
    base: dict[str, Tree] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(e) for e in endpoints]}]},
    }
    return merge(base, extra)


def http2_cluster(name: str, *endpoints: str, options: str = "", extra: str = "") -> dict[str, Tree]:
    """A cluster that speaks HTTP/2; `options` are fields of HttpProtocolOptions, which may replace the choice."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    chosen = merge({"@type": TYPE + kind, "explicit_http_config": {"http2_protocol_options": {}}}, options)
    return cluster(name, *endpoints, extra=extra) | {"typed_extension_protocol_options": {kind: chosen}}


def bootstrap(listeners: list[Tree], clusters: list[Tree], extra: str = "") -> dict[str, Tree]:
    base = {
        "admin": {"address": address("$(port.admin)")},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    return merge(base, extra)
