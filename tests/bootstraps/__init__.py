"""Bootstraps for tests: one with a web and a TCP listener, into any part of which a test puts its own fields.

Fields are given as flow YAML (`idle_timeout: 1s, via: x`). Of two equal keys the last one wins, in Envoy and here, so a
fragment also replaces what the sample says itself.
"""

from __future__ import annotations

import pytest

from mesh_proxy.config import features

TYPE = "type.googleapis.com/envoy."
EXT = TYPE + "extensions."
ROUTER = f'{{name: envoy.filters.http.router, typed_config: {{"@type": {EXT}filters.http.router.v3.Router}}}}'
LOCALHOST = "socket_address: {address: 127.0.0.1, port_value: 0}"
ENDPOINT = "endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}"

LISTENER = "listeners[0]"
CHAIN = LISTENER + ".filter_chains[0]"
HCM = CHAIN + ".filters[0].typed_config"
TABLE = HCM + ".route_config"
HOST = TABLE + ".virtual_hosts[0]"
ROUTE = HOST + ".routes[0]"
TCP_LISTENER = "listeners[1]"
TCP_FILTER = TCP_LISTENER + ".filter_chains[0].filters[0]"
TCP = TCP_FILTER + ".typed_config"
CLUSTER = "clusters[0]"


def _more(fragment: str) -> str:
    return f", {fragment}" if fragment else ""


def web(
    *,
    listener: str = "",
    chain: str = "",
    hcm: str = "",
    table: str = "",
    host: str = "",
    route: str = "match: {prefix: /}, route: {cluster: a}",
    action: str = "",
    match: str = "",
    tcp: str = "",
    tcp_chain: str = "",
    cluster: str = "",
    endpoint: str = "",
    static: str = "",
    top: str = "",
) -> str:
    """The sample, with fields put into the named parts: `action` into the route's RouteAction, `match` into its RouteMatch."""
    if action or match:
        route = f"match: {{prefix: /{_more(match)}}}, route: {{cluster: a{_more(action)}}}"
    return f"""
static_resources:
  listeners:
  - name: web
    address: {{{LOCALHOST}}}
    <listener>: 0
    filter_chains:
    - {{filters: [{{name: hcm, typed_config: {{
        "@type": {EXT}filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: web,
        route_config: {{name: r, virtual_hosts: [{{name: v, domains: ["*"], routes: [{{{route}}}]{_more(host)}}}]{_more(table)}}},
        http_filters: [{ROUTER}]{_more(hcm)}}}}}]{_more(chain)}}}
  - name: tcp
    address: {{{LOCALHOST}}}
    filter_chains:
    - {{filters: [{{name: tcp, typed_config: {{
        "@type": {EXT}filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: a{_more(tcp)}}}}}]{_more(tcp_chain)}}}
  clusters:
  - {{name: a, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{{ENDPOINT}{_more(endpoint)}}}]}}]}}{_more(cluster)}}}
  - {{name: b}}
{_indented(static)}
{top}
""".replace("    <listener>: 0\n", _block(listener))


def _block(fragment: str) -> str:
    return "".join(f"    {line}\n" for line in fragment.splitlines())


def _indented(fragment: str) -> str:
    return "".join(f"  {line}\n" for line in fragment.splitlines())


def typed(name: str, url: str, fields: str = "") -> str:
    """`{name, typed_config}` of an extension of Envoy."""
    return f'{{name: {name}, typed_config: {{"@type": {EXT}{url}{_more(fields)}}}}}'


def file_log(fields: str = "", log_filter: str = "") -> str:
    """An access log to a file."""
    config = f'{{"@type": {EXT}access_loggers.file.v3.FileAccessLog, path: /dev/null{_more(fields)}}}'
    return f"{{name: log, typed_config: {config}{_more(f'filter: {log_filter}' if log_filter else '')}}}"


def options(fields: str) -> str:
    """A cluster's HttpProtocolOptions."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return f'typed_extension_protocol_options: {{{name}: {{"@type": type.googleapis.com/{name}, {fields}}}}}'


def everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the translation accept all it understands, also what the data path does not do so far."""
    monkeypatch.setattr(features, "NOT_YET", {})
    monkeypatch.setattr(features, "OTHER", {"local_reply", "outlier_detection"})
    monkeypatch.setattr(features, "UPSTREAM_PROTOCOLS", {"HTTP1", "HTTP2", "DOWNSTREAM", "AUTO"})
    monkeypatch.setattr(features, "DOWNSTREAM_CODECS", {"AUTO", "HTTP1", "HTTP2"})
    monkeypatch.setattr(features, "LISTENER_FILTERS", {"original_dst", "original_src", "tls_inspector", "http_inspector"})
