"""Many periodic jobs on one timer of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush


class Tick:
    """One periodic job."""

    __slots__ = ("callback", "interval_s", "stopped")

    def __init__(self, interval_s: float, callback: Callable[[], None]) -> None:
        self.interval_s = interval_s
        """may be changed; counts from the next turn on"""
        self.callback = callback
        self.stopped = False

    def stop(self) -> None:
        """Call no more."""
        self.stopped = True


class Ticker:
    """The jobs of one worker."""

    __slots__ = ("_heap", "_loop", "_order", "_timer", "_timer_due")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Tick]] = []
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    def every(self, interval_s: float, callback: Callable[[], None]) -> Tick:
        """Call after each interval, the first time one interval from now."""
        tick = Tick(interval_s, callback)
        self._push(self._loop.time() + interval_s, tick)
        self._arm()
        return tick

    def _push(self, due: float, tick: Tick) -> None:
        self._order += 1
        heappush(self._heap, (due, self._order, tick))

    def _arm(self) -> None:
        heap = self._heap
        while heap and heap[0][2].stopped:
            heappop(heap)
        if self._timer is not None:
            if heap and self._timer_due <= heap[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if heap:
            self._timer_due = heap[0][0]
            self._timer = self._loop.call_at(self._timer_due, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, tick = heappop(heap)
            if not tick.stopped:
                self._push(now + tick.interval_s, tick)
                tick.callback()
        self._arm()

    def close(self) -> None:
        """Stop everything."""
        self._heap.clear()
        self._arm()
