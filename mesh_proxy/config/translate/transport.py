"""Transport sockets: plain text, and TLS once there is TLS."""

from __future__ import annotations

from mesh_proxy.config.reader import Reader

_RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_TLS = "envoy.extensions.transport_sockets.tls.v3"


def downstream_transport(reader: Reader) -> object | None:
    """`TransportSocket` of a filter chain; None is plain text."""
    return _transport(reader)


def upstream_transport(reader: Reader) -> object | None:
    """`TransportSocket` of a cluster; None is plain text."""
    return _transport(reader)


def _transport(reader: Reader) -> object | None:
    name = reader.text("name")
    extension = reader.extension()
    if extension is None:
        raise reader.error(f"{name} needs typed_config")
    if extension.type.startswith(_TLS):
        raise reader.error("TLS is not supported", "typed_config")
    if extension.type != _RAW:
        raise extension.unsupported("transport socket")
    return None
