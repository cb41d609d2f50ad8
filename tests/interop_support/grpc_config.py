"""Configurations of a sidecar between gRPC peers, in Envoy's form."""

from __future__ import annotations

from typing import Any

from e2e_support import at, forward, http_listener
from parity.config import bootstrap

Tree = Any

HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


def grpc_cluster(name: str, *ports: int, **fields: Tree) -> dict[str, Tree]:
    """A cluster that speaks HTTP/2."""
    endpoints = [{"endpoint": {"address": at(port)}} for port in ports]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment} | HTTP2 | fields


def in_front_of_grpc(*ports: int, settings: str = "", cluster: Tree = None, **action: Tree) -> dict[str, Tree]:
    """Listener `in`, everything to cluster `back`, without a time-out of the route."""
    return bootstrap(
        [http_listener("in", "back", settings, **({"timeout": "0s"} | action))], [grpc_cluster("back", *ports, **(cluster or {}))]
    )


__all__ = ["HTTP2", "forward", "grpc_cluster", "in_front_of_grpc"]
