"""Where an endpoint is asked: its own address, or the one that its `health_check_config` names."""

from __future__ import annotations

from dataclasses import replace

from mesh_proxy.upstream.endpoint import Endpoint


def check_target(endpoint: Endpoint) -> Endpoint:
    """The endpoint itself, or a stand-in with the other address or port."""
    config = endpoint.config.health_check
    if config.address is None and not config.port:
        return endpoint
    address = config.address or endpoint.config.address
    if config.port and not address.path:
        address = replace(address, port=config.port)
    host = config.address.host if config.address is not None else endpoint.host
    moved = replace(endpoint.config, address=address)
    target = Endpoint(endpoint.cluster_name, moved, host, endpoint.locality, endpoint.priority, endpoint.hostname)
    target.tls = endpoint.tls
    return target
