"""Endpoint sets (`envoy.config.endpoint.v3`)."""

from __future__ import annotations

from google.protobuf.message import Message

from mesh_proxy.config.model.cluster import EndpointConfig, EndpointSetConfig, LocalityConfig, LocalityEndpointsConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import address, metadata, required
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.health_check import endpoint_check


def translate_endpoints(message: Message, path: str, context: Context | None = None) -> EndpointSetConfig:
    """`ClusterLoadAssignment` as it comes from a control plane, where every address must be an IP address."""
    return run(message, path, lambda reader, _: endpoint_set(reader, names_allowed=False), context)


def endpoint_set(reader: Reader, *, names_allowed: bool) -> EndpointSetConfig:
    """`ClusterLoadAssignment`."""
    policy = reader.sub("policy")
    localities = reader.each("endpoints", lambda r: _locality(r, names_allowed))
    factor = policy.number("overprovisioning_factor", 140) if policy is not None else 140
    priorities = sorted({locality.priority for locality in localities})
    if priorities != list(range(len(priorities))):
        missing = next(i for i, priority in enumerate(priorities) if i != priority)
        raise reader.error(f"priorities must start at 0 without a gap, {missing} is missing", "endpoints")
    return EndpointSetConfig(cluster_name=reader.text("cluster_name"), localities=localities, overprovisioning_factor=factor)


def _locality(reader: Reader, names_allowed: bool) -> LocalityEndpointsConfig:
    place = reader.sub("locality")
    return LocalityEndpointsConfig(
        locality=locality(place) if place is not None else LocalityConfig(),
        endpoints=reader.each("lb_endpoints", lambda r: _endpoint(r, names_allowed)),
        weight=reader.optional_number("load_balancing_weight"),
        priority=reader.number("priority"),
    )


def locality(reader: Reader) -> LocalityConfig:
    """`Locality`."""
    return LocalityConfig(region=reader.text("region"), zone=reader.text("zone"), sub_zone=reader.text("sub_zone"))


def _endpoint(reader: Reader, names_allowed: bool) -> EndpointConfig:
    if reader.oneof("host_identifier") != "endpoint":
        raise reader.error("needs endpoint")
    inner = required(reader, "endpoint")
    return EndpointConfig(
        address=address(required(inner, "address"), names_allowed=names_allowed),
        hostname=inner.text("hostname"),
        weight=reader.number("load_balancing_weight", 1),
        health_status=reader.enum("health_status"),
        metadata=metadata(reader),
        health_check=endpoint_check(inner.sub("health_check_config")),
    )
