"""A table in shared memory on which the workers of a sidecar tell each other something, and who follows what stands there.

There is no lock and no signal: as long as somebody follows, a worker looks at the table at an interval. What stands in it, and
what a race may cost, says each board (`ejection_board`, `health.board`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from mesh_proxy.upstream.ticker import Tick, Ticker

F = TypeVar("F")


class Board(Generic[F]):
    """Abstract: `look` reads the table and tells `followers`."""

    __slots__ = ("_poll_s", "_tick", "followers")

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._tick: Tick | None = None
        self.followers: dict[F, None] = {}
        """in the order in which they came"""

    def look(self) -> None:
        """See whether another worker wrote."""
        raise NotImplementedError

    def join(self, follower: F, ticker: Ticker) -> None:
        """Follow what the others write from now on."""
        self.followers[follower] = None
        if self._tick is None:
            self._tick = ticker.every(self._poll_s, self.look)

    def leave(self, follower: F) -> None:
        """Follow no more."""
        self.followers.pop(follower, None)
        if not self.followers and self._tick is not None:
            self._tick.stop()
            self._tick = None
