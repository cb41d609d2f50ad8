"""Connections to endpoints in the name of the caller (the listener filter `original_src`).

Such a connection is bound to the caller's address, which is not ours: the kernel allows that to a transparent socket, and that to
who has CAP_NET_ADMIN. The mark is what rules and routes of the machine know its packets by, so that the answers, which go to the
caller's address, come back here (mangle table and `ip rule fwmark` in TPROXY mode).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.listener.destination import MAPPED
from mesh_proxy.listener.predicate import PortPredicate, compile_predicate, never
from mesh_proxy.network.socket_options import IP_TRANSPARENT, IPV6_TRANSPARENT

if TYPE_CHECKING:
    from mesh_proxy.config.model import ListenerConfig

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""linux/in.h: the port is chosen at connect(2), so that one port may serve connections to several addresses"""


RULES_USER: Final = 1337
"""`--proxy-uid` of the rules, by default"""
COMES_BACK: Final = (
    f"the proxy runs as user {RULES_USER}, whose connections to this machine's own address the interception rules send back: "
    f"run it as user 0, group {RULES_USER}"
)


class LocalConnectFailed(OSError):
    """The connection failed before anything was sent: its socket could not be made as wanted. The text is Envoy's transport
    failure reason, empty where Envoy gives none."""


@dataclass(frozen=True, slots=True)
class OriginalSource:
    """What upstream connections of one caller are bound to. Those of different sources are never shared."""

    host: str
    port: int
    """0: any"""
    mark: int
    """SO_MARK of the connection; 0: none"""
    key: str = field(init=False, compare=False)
    """tells the pools of an endpoint apart"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"from {self.host}:{self.port} {self.mark}")

    def bind(self, sock: socket.socket) -> None:
        """Before it connects. Raises LocalConnectFailed."""
        try:
            if self.mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            make_transparent(sock)
        except OSError:
            raise LocalConnectFailed from None
        try:
            if not self.port:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
        except OSError as error:
            host = f"[{self.host}]" if ":" in self.host else self.host
            # An address of the other IP version is for the standard library a name that nobody has.
            why = "Invalid argument" if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            raise LocalConnectFailed(f"failed to bind to {host}:{self.port}: {why}") from None


def make_transparent(sock: socket.socket) -> None:
    """Let it be bound to an address that is not ours. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


class SourceKeeper:
    """The filter of one listener."""

    __slots__ = ("_bind_port", "_disabled", "_mark")

    def __init__(self, mark: int, *, bind_port: bool = False, disabled: PortPredicate = never) -> None:
        self._mark = mark
        self._bind_port = bind_port
        self._disabled = disabled

    def source_of(self, peer: Any, destination_port: int) -> OriginalSource | None:
        """Of a connection from this address to this port; None for a unix socket's, and where the filter does not run."""
        if not isinstance(peer, tuple) or self._disabled(destination_port):
            return None
        host = peer[0].removeprefix(MAPPED) if "." in peer[0] else peer[0]
        return OriginalSource(host, peer[1] if self._bind_port else 0, self._mark)

    def missing(self) -> str:
        """What this process lacks to do it, in words; empty when nothing."""
        with socket.socket() as probe:
            for name, level, option, value in (
                ("SO_MARK", socket.SOL_SOCKET, socket.SO_MARK, self._mark),
                ("IP_TRANSPARENT", socket.IPPROTO_IP, IP_TRANSPARENT, 1),
            ):
                try:
                    if value:
                        probe.setsockopt(level, option, value)
                except OSError as error:
                    return f"{name} cannot be set ({os.strerror(error.errno or 0)}): the proxy needs CAP_NET_ADMIN"
        return ""


def runs_as_redirected_user() -> bool:
    """Whether the rules for TPROXY take this process for the one whose connections to the pod's own address go to the inbound
    port: they would come back for ever, unless endpoints are on 127.0.0.1. Istio runs its proxy as another user of the group."""
    return os.geteuid() == RULES_USER


def keeper_of(config: ListenerConfig) -> SourceKeeper | None:
    """The listener's `original_src` filter; None without one. Of several the last one counts, as with Envoy."""
    for one in reversed(config.listener_filters):
        if one.type_url.endswith(".OriginalSrc"):
            options = one.config
            return SourceKeeper(options["mark"], bind_port=options["bind_port"], disabled=compile_predicate(one.disabled))
    return None
