"""The configuration for mixed load: a listener and a cluster for each protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity.config import bootstrap
from parity.dubbo import dubbo

from .config import http_listener, static_cluster, tcp_listener

LISTENERS = ("http", "grpc", "dubbo", "bytes")
HTTP2 = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""


def configuration(ports: Mapping[str, int]) -> dict[str, Any]:
    """For backends on these ports."""
    return bootstrap(
        [
            http_listener("http", "web", timeout="0s"),
            http_listener("grpc", "grpc", timeout="0s"),
            dubbo(
                "dubbo",
                "[{name: r, interface: '*', routes: [{match: {method: {name: {prefix: after}}}, route: {cluster: dubbo}}]}]",
            ),
            tcp_listener("bytes", "bytes"),
        ],
        [
            static_cluster("web", ports["http1"]),
            static_cluster("grpc", ports["grpc"], HTTP2),
            static_cluster("dubbo", ports["dubbo"]),
            static_cluster("bytes", ports["bytes"]),
        ],
    )
