"""From the state of a connection of another process to the connection object that goes on with it."""

from __future__ import annotations

import asyncio

from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.detection import Detection
from mesh_proxy.network.dubbo_connection import DubboConnection
from mesh_proxy.network.http2_connection import Http2Connection
from mesh_proxy.network.http_connection import HttpConnection
from mesh_proxy.network.http_shell import HttpShell

_HTTP: dict[str, type[HttpShell]] = {"http1": HttpConnection, "http2": Http2Connection, "detect": Detection}


def successor(first: asyncio.Protocol, moved: MovingState) -> HttpShell | DubboConnection:
    """What the filter chain made for a new connection gives way to one in the state that is known already.

    Raises:
        ValueError: the chain has another protocol now.
        ProtocolError: the state is of another version.
    """
    if isinstance(first, HttpShell):
        kind = _HTTP.get(moved.protocol)
        if kind is not None and (type(first) is kind or type(first) is Detection):
            connection = first if type(first) is kind else kind(first.manager, first.info, first.owner)
            connection.take_over(moved)
            return connection
    elif isinstance(first, DubboConnection) and moved.protocol == "dubbo":
        first.take_over(moved)
        return first
    raise ValueError("the filter chain has another protocol now")
