"""Configurations of a sidecar in front of Dubbo providers, in Envoy's form."""

from __future__ import annotations

from typing import Any

from e2e_support import at, http_listener
from parity.config import NETWORK, TYPE, bootstrap, listener

Tree = Any


def ours(kind: str, **value: Tree) -> dict[str, Tree]:
    """`mesh_proxy.dubbo.v1.<kind>`."""
    return {"@type": TYPE + "xds.type.v3.TypedStruct", "type_url": TYPE + f"mesh_proxy.dubbo.v1.{kind}", "value": value}


def route(cluster: str, match: Tree = None, **options: Tree) -> dict[str, Tree]:
    """A route to a cluster; `options` are those of our RouteOptions."""
    action: dict[str, Tree] = {"cluster": cluster}
    if options:
        action["metadata_match"] = {"typed_filter_metadata": {"mesh_proxy.dubbo": ours("RouteOptions", **options)}}
    return {"match": match or {}, "route": action}


def dubbo_listener(name: str, *routes: Tree, manager: Tree = None) -> dict[str, Tree]:
    """A listener with a Dubbo manager of the same name."""
    filters = [{"name": "options", "config": ours("ManagerOptions", **manager)}] if manager else []
    proxy = {
        "@type": NETWORK + "dubbo_proxy.v3.DubboProxy",
        "stat_prefix": name,
        "route_config": [{"name": "all", "interface": "*", "routes": list(routes)}],
        "dubbo_filters": [*filters, {"name": "envoy.filters.dubbo.router"}],
    }
    return listener(name, {"name": "envoy.filters.network.dubbo_proxy", "typed_config": proxy})


def provider_cluster(name: str, *ports: int, options: Tree = None, **fields: Tree) -> dict[str, Tree]:
    """A cluster of providers; `options` are those of our ClusterOptions."""
    if options:
        fields["metadata"] = {"typed_filter_metadata": {"mesh_proxy.dubbo": ours("ClusterOptions", **options)}}
    endpoints = [{"endpoint": {"address": at(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    } | fields


def in_front_of(
    *ports: int, route_options: Tree = None, cluster_options: Tree = None, cluster_fields: Tree = None, manager: Tree = None
) -> dict[str, Tree]:
    """Listener `dubbo`, everything to cluster `providers`."""
    return bootstrap(
        [dubbo_listener("dubbo", route("providers", **(route_options or {})), manager=manager)],
        [provider_cluster("providers", *ports, options=cluster_options, **(cluster_fields or {}))],
    )


HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


def triple_in_front_of(*ports: int) -> dict[str, Tree]:
    """Listener `dubbo` for Dubbo 2, listener `tri` for Triple, and providers that speak both on one port."""
    return bootstrap(
        [
            dubbo_listener("dubbo", route("providers")),
            http_listener("tri", "triple-providers", "{codec_type: AUTO, stream_idle_timeout: 60s}", timeout="0s"),
        ],
        [provider_cluster("providers", *ports), provider_cluster("triple-providers", *ports, **HTTP2)],
    )
