"""What a Dubbo call asks of the connection that it came on; a described call has a connection of nobody (`explain/dubbo.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_proxy.upstream.dubbo_calls import Blocking

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.stats.dubbo_group import DubboStats
    from mesh_proxy.stream.dubbo_call import DubboCall
    from mesh_proxy.stream.info import ConnectionInfo
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.dubbo_pool import DubboPool
    from mesh_proxy.upstream.endpoint import Endpoint


class DubboConsumer(Blocking):
    """Abstract, and a class rather than a protocol: what is compiled then knows where its attributes and methods are."""

    __slots__ = ("closed", "info", "manager", "owner", "pinned", "stats")

    manager: DubboManager
    stats: DubboStats
    """the manager's"""
    info: ConnectionInfo
    owner: ConnectionOwner
    closed: bool
    pinned: dict[str, DubboPool] | None
    """by cluster: upstream connections of this consumer alone. None where all others are everybody's: those of a consumer with a
    source are not"""

    def answer(self, call: DubboCall, frame: bytes) -> None:
        """The one answer to a call, under the consumer's id."""
        raise NotImplementedError

    def pin(self, cluster: Cluster, endpoint: Endpoint) -> DubboPool:
        """From now on this connection has an upstream connection of its own for the cluster."""
        raise NotImplementedError
