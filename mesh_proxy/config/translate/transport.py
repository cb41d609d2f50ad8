"""Transport sockets: plain text (`raw_buffer`) and TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from mesh_proxy.config.model.tls import DownstreamTlsConfig, SecretConfig, TransportMatchConfig, UpstreamTlsConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.tls import downstream_tls, upstream_tls

T = TypeVar("T")

_RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_TLS = "envoy.extensions.transport_sockets.tls.v3"


def downstream_transport(reader: Reader, context: Context) -> DownstreamTlsConfig | None:
    """`TransportSocket` of a filter chain; None is plain text."""
    return _transport(reader, context, f"{_TLS}.DownstreamTlsContext", downstream_tls)


def upstream_transport(reader: Reader, context: Context, alpn: tuple[str, ...] = ()) -> UpstreamTlsConfig | None:
    """`TransportSocket` of a cluster; None is plain text. `alpn`: what is offered when the socket says nothing of it."""
    found = _transport(reader, context, f"{_TLS}.UpstreamTlsContext", upstream_tls)
    if found is None or found.common.alpn:
        return found
    return replace(found, common=replace(found.common, alpn=alpn))


def _transport(reader: Reader, context: Context, wanted: str, translate: Callable[[Reader, Context], T]) -> T | None:
    name = reader.text("name")
    extension = reader.extension()
    if extension is None:
        if name in ("raw_buffer", "envoy.transport_sockets.raw_buffer"):
            return None
        raise reader.error(f"{name} needs typed_config")
    if extension.type == wanted:
        return translate(extension.reader, context)
    if extension.type != _RAW:
        raise extension.unsupported("transport socket")
    return None


def used_secrets(context: Context, sockets: Iterable[DownstreamTlsConfig | UpstreamTlsConfig | None]) -> tuple[SecretConfig, ...]:
    """The secrets that some transport sockets name."""
    names: dict[str, None] = {}
    for socket in sockets:
        if socket is not None:
            names |= dict.fromkeys((*socket.common.certificates, socket.common.validation_secret))
    return tuple(context.secrets[name] for name in names if name)


def transport_matches(reader: Reader, context: Context, alpn: tuple[str, ...] = ()) -> tuple[TransportMatchConfig, ...]:
    """`Cluster.transport_socket_matches`."""
    found: list[TransportMatchConfig] = []
    for entry in reader.subs("transport_socket_matches"):
        name = entry.text("name")
        if any(one.name == name for one in found):
            raise entry.error(f"another match is named {name!r} too", "name")
        match = entry.struct("match")
        for key, value in match.items():
            if not isinstance(value, str | int | float | bool):
                raise entry.error("only numbers, text and booleans can be matched", f"match.{key}")
        socket = entry.sub("transport_socket")
        found.append(
            TransportMatchConfig(
                name=name,
                match=tuple(sorted(match.items())),
                socket=upstream_transport(socket, context, alpn) if socket is not None else None,
            )
        )
    return tuple(found)
