"""Connecting to an endpoint, TCP or unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from mesh_proxy.network.original_source import IP_BIND_ADDRESS_NO_PORT, LocalConnectFailed
from mesh_proxy.network.socket_options import set_freebind, set_options
from mesh_proxy.tls.client import TlsConnector, TlsFailed

if TYPE_CHECKING:
    from mesh_proxy.config.model import BindConfig, ClusterConfig
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.upstream.endpoint import Endpoint

P = TypeVar("P", bound=asyncio.Protocol)


async def dial(
    loop: asyncio.AbstractEventLoop,
    endpoint: Endpoint,
    config: ClusterConfig,
    factory: Callable[[], P],
    alpn: tuple[str, ...] = (),
    source: OriginalSource | None = None,
) -> P:
    """Connect to an endpoint as its cluster says: from which address, with which keepalive. `alpn`: what TLS offers instead of
    what the cluster says; `source`: whose connection it is made to look like. Raises OSError; the caller sets the time-out."""
    if endpoint.tls is not None:
        try:
            tls = endpoint.tls.offering(alpn) if alpn else endpoint.tls
        except ValueError as error:
            raise TlsFailed(f"TLS_error: {error}") from error
        return await _dial_tls(loop, endpoint, tls, config, factory, source)
    return await _dial(loop, endpoint, config, factory, source)


async def _dial_tls(
    loop: asyncio.AbstractEventLoop,
    endpoint: Endpoint,
    tls: TlsConnector,
    config: ClusterConfig,
    factory: Callable[[], P],
    source: OriginalSource | None,
) -> P:
    """The connection counts as made when the endpoint has shown who it is."""
    done: asyncio.Future[None] = loop.create_future()
    connection = tls.connection(endpoint, factory, done)
    await _dial(loop, endpoint, config, lambda: connection, source)
    try:
        await done
    except asyncio.CancelledError:
        connection.abort()
        raise
    return cast("P", connection.app)


async def _dial(
    loop: asyncio.AbstractEventLoop,
    endpoint: Endpoint,
    config: ClusterConfig,
    factory: Callable[[], P],
    source: OriginalSource | None,
) -> P:
    if endpoint.path:
        path = endpoint.path
        _, protocol = await loop.create_unix_connection(factory, "\0" + path[1:] if path.startswith("@") else path)
        return protocol
    if config.bind is None and source is None:
        transport, protocol = await loop.create_connection(factory, endpoint.host, endpoint.port)
    else:
        sock = await _connect_from(loop, endpoint.host, endpoint.port, config.bind, source)
        transport, protocol = await loop.create_connection(factory, sock=sock)
    if config.tcp_keepalive is not None:
        _keep_alive(transport.get_extra_info("socket"), config.tcp_keepalive)
    return protocol


async def _connect_from(
    loop: asyncio.AbstractEventLoop, host: str, port: int, bind: BindConfig | None, source: OriginalSource | None
) -> socket.socket:
    v6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if bind is not None:
            _prepare(sock, bind, named=source is None)
        if source is not None:
            source.bind(sock)
        if bind is not None:
            set_options(sock, bind.socket_options, "STATE_BOUND")
        await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket, bind: BindConfig, *, named: bool) -> None:
    """As the cluster says, up to the bound address (`named`) if nothing else decides that."""
    if bind.freebind:
        set_freebind(sock)
    set_options(sock, bind.socket_options, "STATE_PREBIND")
    if named and bind.addresses:
        v6 = sock.family == socket.AF_INET6
        address = next((one for one in bind.addresses if (":" in one.host) == v6), bind.addresses[0])
        if not address.port:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((address.host, address.port))


def _keep_alive(sock: socket.socket, values: tuple[int, int, int]) -> None:
    """Let the kernel probe a silent peer; 0 leaves its own value in place."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL), values, strict=True):
        if value:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def plain_error(error: OSError) -> str:
    """Envoy's words for a connection that failed: the system's reason without Python's address list."""
    if isinstance(error, TlsFailed | LocalConnectFailed):
        return str(error)
    if isinstance(error, socket.gaierror) or error.errno is None:
        return f"delayed connect error: {error.strerror or error}"
    return f"delayed connect error: {os.strerror(error.errno)}"
