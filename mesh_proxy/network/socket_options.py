"""Options of sockets that the standard library has no name for, and those that the configuration gives by number."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_proxy.config.model.common import SocketOptionConfig

IP_FREEBIND: Final = 15
IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
IPV6_FREEBIND: Final = 78


def set_transparent(sock: socket.socket) -> None:
    """Take connections to addresses that are not ours (TPROXY); needs CAP_NET_ADMIN."""
    sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


def set_freebind(sock: socket.socket) -> None:
    """Let it be bound to an address that this machine does not have."""
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)


def set_options(sock: socket.socket, options: Iterable[SocketOptionConfig], state: str) -> None:
    """Set those that belong to this state of the socket. Raises OSError."""
    for option in options:
        if option.state == state:
            sock.setsockopt(option.level, option.name, option.value)
