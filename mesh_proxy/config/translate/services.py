"""Services that filters ask: `GrpcService`, `HttpUri`."""

from __future__ import annotations

from urllib.parse import urlsplit

from mesh_filters.service import MAX_MESSAGE, GrpcServiceConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context


def grpc_service(reader: Reader, context: Context) -> GrpcServiceConfig:
    """`envoy.config.core.v3.GrpcService`, called through our own clusters."""
    if reader.oneof("target_specifier") != "envoy_grpc":
        raise reader.error("only envoy_grpc is supported", reader.oneof("target_specifier"))
    target = required(reader, "envoy_grpc")
    cluster = target.text("cluster_name")
    context.cluster_references.append((target.at("cluster_name"), cluster))
    return GrpcServiceConfig(
        cluster=cluster,
        authority=target.text("authority"),
        timeout_s=reader.timeout("timeout"),
        metadata=reader.each("initial_metadata", lambda r: (r.lower("key"), r.text("value"))),
        skip_envoy_headers=target.flag("skip_envoy_headers"),
        max_message=target.number("max_receive_message_length", MAX_MESSAGE),
    )


def http_uri(reader: Reader, context: Context) -> tuple[str, str, str, str, float]:
    """`HttpUri`: cluster, scheme, authority, path with query, and time-out in seconds."""
    uri = reader.text("uri")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise reader.error(f"{uri!r} is not an http or https URL", "uri")
    cluster = reader.text("cluster")
    context.cluster_references.append((reader.at("cluster"), cluster))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return cluster, parts.scheme, parts.netloc, path, reader.seconds("timeout", 0.0) or 0.0
