"""Where an intercepted connection was going, and which listener serves that address.

REDIRECT rewrites the destination of a connection; the kernel keeps the one before in its connection table and tells it by
SO_ORIGINAL_DST. TPROXY changes nothing: there the local address of the accepted socket is the destination (Envoy's
`original_dst` listener filter knows both).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mesh_proxy.config.model import AddressConfig
    from mesh_proxy.listener.listener import Listener

SO_ORIGINAL_DST: Final = 80
"""linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h"""
_IPV4: Final = struct.Struct("!2xH4s8x")
"""sockaddr_in: family, port, address"""
_IPV6: Final = struct.Struct("!2xH4x16s4x")
"""sockaddr_in6: family, port, flow, address, scope"""
MAPPED: Final = "::ffff:"
"""begins an IPv4 address on an IPv6 socket"""

Destination = tuple[str, int]


def original_destination(accepted: socket.socket, local: Any, *, transparent: bool, listening_port: int) -> Destination | None:
    """The address that the caller asked for; None when it asked for ours.

    A connection that was made to the listening address itself counts as not intercepted: to forward it to "its destination" would
    be to call ourselves for ever.
    """
    if not isinstance(local, tuple):
        return None  # a unix socket
    ours = (plain(local[0]), local[1])
    try:
        if accepted.family == socket.AF_INET6 and not local[0].startswith(MAPPED):
            port, packed = _IPV6.unpack(accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _IPV6.size))
            host = socket.inet_ntop(socket.AF_INET6, packed)
        else:
            port, packed = _IPV4.unpack(accepted.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, _IPV4.size))
            host = socket.inet_ntoa(packed)
        if (host, port) != ours:
            return host, port
    except (OSError, struct.error):
        pass  # no connection tracking, so nothing was redirected
    return ours if transparent and ours[1] != listening_port else None


def plain(host: str) -> str:
    """An IPv4 address as such, also when an IPv6 socket says it; without a zone."""
    return host.removeprefix(MAPPED).partition("%")[0] if "." in host else host.partition("%")[0]


class Directory:
    """The listeners of a worker by address: who serves a connection that another one accepted (`use_original_dst`)."""

    __slots__ = ("_any", "_exact")

    def __init__(self) -> None:
        self._exact: dict[Destination, Listener] = {}
        self._any: dict[tuple[bool, int], Listener] = {}
        """by (IPv6, port), those on a wildcard address"""

    def update(self, listeners: Iterable[Listener]) -> None:
        """These are there now."""
        self._exact = {}
        self._any = {}
        for listener in listeners:
            config = listener.config
            for address in (config.address, *config.additional_addresses):
                self._add(address, listener)

    def _add(self, address: AddressConfig, listener: Listener) -> None:
        if address.path:
            return
        if address.host == "0.0.0.0":
            self._any[False, address.port] = listener
        elif address.host == "::":
            self._any[True, address.port] = listener
            if address.ipv4_compat:
                self._any.setdefault((False, address.port), listener)
        else:
            self._exact[address.host, address.port] = listener

    def find(self, destination: Destination) -> Listener | None:
        """The one with exactly this address, else the one on the wildcard of its family and port."""
        found = self._exact.get(destination)
        return found if found is not None else self._any.get((":" in destination[0], destination[1]))
