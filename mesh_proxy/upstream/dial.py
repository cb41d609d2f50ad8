"""Connecting to an endpoint, TCP or unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mesh_proxy.config.model import ClusterConfig
    from mesh_proxy.upstream.endpoint import Endpoint

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(loop: asyncio.AbstractEventLoop, endpoint: Endpoint, config: ClusterConfig, factory: Callable[[], P]) -> P:
    """Connect to an endpoint as its cluster says: from which address, with which keepalive. Raises OSError; the caller sets the
    time-out."""
    if endpoint.path:
        path = endpoint.path
        _, protocol = await loop.create_unix_connection(factory, "\0" + path[1:] if path.startswith("@") else path)
        return protocol
    bind = config.bind_address
    local = (bind.host, bind.port) if bind is not None else None
    transport, protocol = await loop.create_connection(factory, endpoint.host, endpoint.port, local_addr=local)
    if config.tcp_keepalive is not None:
        _keep_alive(transport.get_extra_info("socket"), config.tcp_keepalive)
    return protocol


def _keep_alive(sock: socket.socket, values: tuple[int, int, int]) -> None:
    """Let the kernel probe a silent peer; 0 leaves its own value in place."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL), values, strict=True):
        if value:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def plain_error(error: OSError) -> str:
    """Envoy's words for a connection that failed: the system's reason without Python's address list."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return f"delayed connect error: {error.strerror or error}"
    return f"delayed connect error: {os.strerror(error.errno)}"
