"""Health checks as a worker sees them that does not check itself: it follows the board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mesh_proxy.upstream.ejection_board import tag
from mesh_proxy.upstream.health import flags
from mesh_proxy.upstream.health.board import HealthBoard

if TYPE_CHECKING:
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint


class HealthWatch(Protocol):
    """What a cluster has when its configuration asks for active health checks."""

    def watch(self, endpoints: Sequence[Endpoint]) -> None:
        """These are the cluster's endpoints now. New ones count as failed until they have been checked."""

    def immediate_failure(self, endpoint: Endpoint) -> None:
        """The endpoint asked in a response not to be called any more."""

    def close(self) -> None:
        """Stop; nothing is said of any endpoint any more."""


def is_checked(endpoint: Endpoint) -> bool:
    """Whether the configuration does not except this endpoint."""
    return not endpoint.config.health_check.disabled


class HealthFollower:
    """One cluster's health in a worker that does not check."""

    __slots__ = ("_board", "_cluster", "_endpoints", "_traffic_noted")

    def __init__(self, cluster: Cluster, board: HealthBoard) -> None:
        self._cluster = cluster
        self._board = board
        self._endpoints: tuple[Endpoint, ...] = ()
        self._traffic_noted = False
        board.join(self, cluster.environment.ticker)

    def watch(self, endpoints: Sequence[Endpoint]) -> None:
        """See `HealthWatch`."""
        self._endpoints = tuple(endpoint for endpoint in endpoints if is_checked(endpoint))
        self._adopt()

    def follow(self) -> None:
        """The table may have changed."""
        before = [endpoint for endpoint in self._endpoints if not endpoint.health & flags.FAILED]
        if self._adopt():
            self._cluster.health_changed([endpoint for endpoint in before if endpoint.health & flags.FAILED])
        if not self._traffic_noted and self._cluster.stats.upstream_cx_total:
            noted = [self._board.note_traffic(tag(endpoint.cluster_name, endpoint.address)) for endpoint in self._endpoints]
            self._traffic_noted = bool(noted) and all(noted)

    def _adopt(self) -> bool:
        board = self._board
        missing = 0 if board.overflowed else initial_flags(self._cluster)
        changed = False
        waiting = False
        for endpoint in self._endpoints:
            found = board.states.get(tag(endpoint.cluster_name, endpoint.address))
            if found is None:
                waiting = waiting or not board.overflowed
                found = missing
            state = found | (endpoint.health & flags.REMOVAL)
            if state != endpoint.health:
                endpoint.set_health(state)
                changed = True
        environment = self._cluster.environment
        if waiting:
            environment.unchecked.add(self._cluster)
        else:
            environment.became_checked(self._cluster)
        return changed

    def immediate_failure(self, endpoint: Endpoint) -> None:
        """See `HealthWatch`."""
        self._board.note_immediate_failure(tag(endpoint.cluster_name, endpoint.address))

    def close(self) -> None:
        """See `HealthWatch`."""
        self._board.leave(self)
        for endpoint in self._endpoints:
            endpoint.set_health(0)
        self._endpoints = ()
        self._cluster.environment.became_checked(self._cluster)


def initial_flags(cluster: Cluster) -> int:
    """Of an endpoint that nobody has checked yet."""
    return flags.FAILED | (flags.PENDING if cluster.config.ignore_new_until_checked else 0)
