"""Connecting to an endpoint, TCP or unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mesh_proxy.config.model import AddressConfig
    from mesh_proxy.upstream.endpoint import Endpoint

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(loop: asyncio.AbstractEventLoop, endpoint: Endpoint, bind: AddressConfig | None, factory: Callable[[], P]) -> P:
    """Connect to an endpoint, from the address `bind` if one is given. Raises OSError; the caller sets the time-out."""
    if endpoint.path:
        path = endpoint.path
        _, protocol = await loop.create_unix_connection(factory, "\0" + path[1:] if path.startswith("@") else path)
        return protocol
    local = (bind.host, bind.port) if bind is not None else None
    _, protocol = await loop.create_connection(factory, endpoint.host, endpoint.port, local_addr=local)
    return protocol


def plain_error(error: OSError) -> str:
    """Envoy's words for a connection that failed: the system's reason without Python's address list."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return f"delayed connect error: {error.strerror or error}"
    return f"delayed connect error: {os.strerror(error.errno)}"
