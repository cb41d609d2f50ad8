"""Configuration of one listener and its clusters, as Envoy and we read it (JSON is YAML), and the like for nginx and nghttpx."""

from __future__ import annotations

import json
from typing import Any, Final

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER: Final = {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}
Json = dict[str, Any]


def address(port: int) -> Json:
    """A port of loopback."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def endpoint(port: int, **lb: str) -> Json:
    """An endpoint with its labels."""
    one: Json = {"endpoint": {"address": address(port)}}
    return one | ({"metadata": {"filter_metadata": {"envoy.lb": lb}}} if lb else {})


def cluster(name: str, *endpoints: Json, http2: bool = False) -> Json:
    """A static cluster."""
    made: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": list(endpoints)}]},
    }
    if http2:
        explicit = {"explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {
            _OPTIONS: {"@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions", **explicit}
        }
    return made


def bootstrap(port: int, admin: int, network_filter: Json, clusters: list[Json]) -> str:
    """One listener with one network filter."""
    listener = {"name": "bench", "address": address(port), "filter_chains": [{"filters": [network_filter]}]}
    return json.dumps(
        {"admin": {"address": address(admin)}, "static_resources": {"listeners": [listener], "clusters": clusters}}, indent=1
    )


def route_all(cluster_name: str = "upstream", **more: Any) -> Json:
    """A route for everything."""
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster_name}, **more}


def http_manager(routes: list[Json], filters: tuple[Json, ...] = (), **more: Any) -> Json:
    """The HTTP connection manager with one virtual host."""
    typed = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [*filters, ROUTER],
        **more,
    }
    return {"name": "http", "typed_config": typed}


def tcp_proxy(cluster_name: str = "upstream") -> Json:
    """The TCP proxy."""
    return {
        "name": "tcp",
        "typed_config": {
            "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": cluster_name,
        },
    }


ACCESS_LOG: Final[Json] = {
    "name": "log",
    "typed_config": {"@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"},
}
RATE_LIMIT: Final[Json] = {
    "name": "limit",
    "typed_config": {
        "@type": f"{_TYPE}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    },
}


def nginx(port: int, upstream: int) -> str:
    """nginx as a reverse proxy that keeps its upstream connections."""
    return (
        "worker_processes 1; daemon off; pid proxy.pid; error_log proxy.err;\nevents { worker_connections 16384; }\n"
        "http { access_log off; keepalive_requests 1000000000; client_max_body_size 64m;\n"
        f"  upstream u {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;\n"
        '    proxy_set_header Connection ""; } } }\n'
    )


def nghttpx(port: int, upstream: int, *, http2: bool) -> str:
    """nghttpx as a reverse proxy."""
    return (
        f"frontend=127.0.0.1,{port};no-tls\nbackend=127.0.0.1,{upstream};;{'proto=h2' if http2 else 'proto=http/1.1'}\n"
        "accesslog-file=/dev/null\nerrorlog-file=/dev/null\nbackend-keep-alive-timeout=1h\n"
    )
