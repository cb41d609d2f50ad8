"""Short forms of the configurations that these tests use."""

from __future__ import annotations

from typing import Any

from parity.config import address, bootstrap, cluster, http, listener, merge, tcp_proxy

Tree = Any


def forward(cluster_name: str, prefix: str = "/", **action: Tree) -> dict[str, Tree]:
    """A route to a cluster."""
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name} | action}


def static_cluster(name: str, port: int | str, extra: str = "") -> dict[str, Tree]:
    """A cluster of one endpoint on loopback, given as a port or as an endpoint spec of `parity.config`."""
    if isinstance(port, str):
        return cluster(name, port, extra=extra)
    endpoint = {"endpoint": {"address": at(port)}}
    base = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return merge(base, extra)


def at(port: int) -> dict[str, Tree]:
    return address(port)  # type: ignore[arg-type]


def http_listener(name: str, cluster_name: str, settings: str = "", *, extra: str = "", **action: Tree) -> dict[str, Tree]:
    """An HTTP listener that sends everything to one cluster."""
    return http(name, [forward(cluster_name, **action)], settings, extra=extra)


def tcp_listener(name: str, cluster_name: str, settings: str = "") -> dict[str, Tree]:
    """A TCP proxy to one cluster."""
    return listener(name, tcp_proxy(name, f"cluster: {cluster_name}\n{settings}"))


def one_listener(
    port: int | str, settings: str = "", *, cluster_extra: str = "", extra: str = "", **action: Tree
) -> dict[str, Tree]:
    """HTTP listener `in`, cluster `back` with one endpoint, and the admin interface."""
    return bootstrap(
        [http_listener("in", "back", settings, extra=extra, **action)], [static_cluster("back", port, cluster_extra)]
    )
