"""What circuit breakers show: gauges, worked out from the counts (`mesh_proxy.upstream.resources`) when they are read.

They are in a file of their own because the counts run for every request and may be compiled, which a statistics group may not.
"""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.config.model import ThresholdsConfig
from mesh_proxy.stats.group import StatGroup
from mesh_proxy.upstream.resources import Resources


class CircuitBreakerStats(StatGroup):
    """`cluster.<name>.circuit_breakers.<priority>.*_open`: worked out when they are read, so that counting costs nothing here."""

    GAUGES: ClassVar[tuple[str, ...]] = ("cx_open", "cx_pool_open", "rq_pending_open", "rq_open", "rq_retry_open")
    SHARED: ClassVar[frozenset[str]] = frozenset(GAUGES)
    __slots__ = ("resources",)

    def __init__(self, prefix: str) -> None:
        # Not the base's: the gauges are properties.
        self.prefix = prefix
        self.resources = Resources(ThresholdsConfig(), {}, "")
        """whose state this is; the cluster puts its own here"""

    def _open(self, index: int, limit: int) -> int:
        used = self.resources.totals()[index]
        return 1 if used >= limit and used > 0 else 0

    @property
    def cx_open(self) -> int:
        """1 when no further connection is allowed."""
        return self._open(0, self.resources.max_connections)

    @property
    def cx_pool_open(self) -> int:
        """Always 0: the number of pools is not limited."""
        return 0

    @property
    def rq_pending_open(self) -> int:
        """1 when no further request may wait."""
        return self._open(1, self.resources.max_pending_requests)

    @property
    def rq_open(self) -> int:
        """1 when no further request may be active."""
        return self._open(2, self.resources.max_requests)

    @property
    def rq_retry_open(self) -> int:
        """1 when no further retry is allowed."""
        return self._open(3, self.resources.retry_limit())


class RemainingStats(StatGroup):
    """`cluster.<name>.circuit_breakers.<priority>.remaining_*`: there only with `track_remaining`."""

    GAUGES: ClassVar[tuple[str, ...]] = (
        "remaining_cx",
        "remaining_cx_pools",
        "remaining_pending",
        "remaining_rq",
        "remaining_retries",
    )
    SHARED: ClassVar[frozenset[str]] = frozenset(GAUGES)
    __slots__ = ("resources",)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.resources = Resources(ThresholdsConfig(), {}, "")
        """whose state this is; the cluster puts its own here"""

    def _remaining(self, index: int, limit: int) -> int:
        return max(0, limit - self.resources.totals()[index])

    @property
    def remaining_cx(self) -> int:
        """Connections left."""
        return self._remaining(0, self.resources.max_connections)

    @property
    def remaining_cx_pools(self) -> int:
        """As many as a gauge can say: the number of pools is not limited."""
        return (1 << 63) - 1

    @property
    def remaining_pending(self) -> int:
        """Places left among the waiting."""
        return self._remaining(1, self.resources.max_pending_requests)

    @property
    def remaining_rq(self) -> int:
        """Requests left."""
        return self._remaining(2, self.resources.max_requests)

    @property
    def remaining_retries(self) -> int:
        """Retries left."""
        return self._remaining(3, self.resources.retry_limit())
