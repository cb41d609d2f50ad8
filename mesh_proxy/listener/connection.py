"""What a connection asks of the listener that accepted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo


class DownstreamConnection(Protocol):
    """An accepted connection, as its listener sees it."""

    owner: ConnectionOwner
    """whom it tells of its beginning and end"""

    @property
    def connection_info(self) -> ConnectionInfo:
        """What is known about it."""

    def close_when_idle(self) -> None:
        """Draining: end as soon as nothing is in progress, and say so to the caller in the protocol's own words."""

    def abort(self) -> None:
        """End now."""

    def move(self, mover: Mover) -> None:
        """A new process serves: offer itself to it as soon as nothing is in progress. Who cannot be moved asks the caller to go
        elsewhere, or goes on here until either side ends it."""


class ConnectionOwner(Protocol):
    """The listener of a connection."""

    name: str
    """of the listener"""
    buffer_limit: int
    """per_connection_buffer_limit_bytes"""
    draining: bool
    ends_on_failed_check: bool
    """whether a failed health check of ours counts like a drain"""

    def connection_opened(self, connection: DownstreamConnection) -> None:
        """The connection has its transport."""

    def connection_replaced(self, old: DownstreamConnection, new: DownstreamConnection) -> None:
        """The protocol became known: the same connection is another object from here on."""

    def connection_closed(self, connection: DownstreamConnection) -> None:
        """The connection is gone."""

    def connection_moved(self, connection: DownstreamConnection) -> None:
        """The connection is a new process's; its caller knows nothing of it."""
