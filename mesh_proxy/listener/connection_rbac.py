"""`envoy.filters.network.rbac`: who may connect through one filter chain, whatever its protocol.

The decision is made when the connection is there (after the handshake, where there is one), before its first byte is read and
before anything goes to an upstream: Envoy waits for the first byte, and so lets a server that speaks first be heard.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from mesh_filters.rbac import RbacConfig, Rules, details_of
from mesh_filters.rbac_rules import ConnectionSubject
from mesh_proxy.listener.connection_limit import RefusedConnection
from mesh_proxy.network.filter_context import WorkerFilterContext
from mesh_proxy.stats.group import sanitize

if TYPE_CHECKING:
    from mesh_proxy.config.model import NetworkRbacConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.listener import Listener, ProtocolFactory
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo

NAME = "envoy.filters.network.rbac"


class ConnectionRbac:
    """Stands before the other filters of a chain.

    Args:
        encrypted: the chain has a handshake, and the peer is known only after it.
    """

    __slots__ = ("_config", "_context", "_encrypted", "_next", "_rules")

    def __init__(self, config: NetworkRbacConfig, context: WorkerContext, after: ProtocolFactory, *, encrypted: bool) -> None:
        self._config = config
        self._context = context
        self._next = after
        self._encrypted = encrypted
        prefix = f"{sanitize(config.stat_prefix).rstrip('.')}."
        rules = RbacConfig(rules=config.rules, shadow_rules=config.shadow_rules, shadow_prefix=config.shadow_prefix)
        self._rules = Rules(rules, WorkerFilterContext(context, NAME, prefix), f"{prefix}rbac.")

    def make(self, info: ConnectionInfo, listener: Listener) -> asyncio.Protocol:
        """The protocol of a connection: that of the next filter, or one that closes it."""
        if self._encrypted and info.tls is None:
            return Undecided(self, info, listener)
        return self.decide(info, listener)

    def decide(self, info: ConnectionInfo, listener: Any) -> asyncio.Protocol:
        """The same, now that all is known."""
        rules = self._rules
        subject = ConnectionSubject(info)
        found: dict[str, Any] = {}
        rules.check(subject, shadow=True, found=found)
        allowed, policy = rules.check(subject, shadow=False, found=found)
        if allowed:
            return self._next(info, listener)
        info.termination_details = details_of(policy)
        return RefusedConnection(info, listener, self._context, self._config.delay_s)


class Undecided(asyncio.Protocol):
    """A connection whose handshake has to end first."""

    __slots__ = ("_rbac", "_transport", "connection_info", "owner")

    def __init__(self, rbac: ConnectionRbac, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        self._rbac = rbac
        self.connection_info = info
        self.owner = owner
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Decide, and become what the decision says."""
        transport = self._transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        connection = self._rbac.decide(self.connection_info, self.owner)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The handshake failed."""
        self.owner.connection_closed(self)

    def close_when_idle(self) -> None:
        """Nothing was asked yet."""
        self.abort()

    def abort(self) -> None:
        """End now."""
        if self._transport is not None:
            self._transport.abort()

    def move(self, mover: Mover) -> None:
        """The connection that it becomes will be asked."""
