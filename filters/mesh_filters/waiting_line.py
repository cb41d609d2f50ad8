"""Requests that wait for a moment each: they stand in a line by their moments, and one timer serves its head."""

from __future__ import annotations

import heapq
from typing import Any, Final, Generic, TypeVar

from mesh_filters.definition import FilterContext
from mesh_filters.filter import RATE_LIMITED, Filter, FilterStatus, Stream
from mesh_filters.shared_state import refusal_status

R = TypeVar("R")

MAX_WAITING: Final = 10_000
"""requests that wait in one line of one worker; each holds its connection"""
SOONEST_S: Final = 0.001
"""a moment nearer than this has come"""


class WaitingRules(Generic[R]):
    """What the filters of one chain share: rules, each of which may let a request wait or refuse it, and the line."""

    __slots__ = ("_details", "_status", "context", "line", "rules", "stats")

    def __init__(self, context: FilterContext, name: str, details: str, rules: tuple[R, ...], status: int) -> None:
        """`name` is that of the statistics; `details` and `status` are those of a refusal."""
        self.context = context
        self.rules = rules
        self.line = Line(context)
        self.stats: Any = context.stats(
            f"{context.stat_prefix}{name}.", counters=("passed", "waited", "refused"), gauges=("waiting",)
        )
        self._details = details
        self._status = status

    def refuse(self, stream: Stream) -> FilterStatus:
        """To be returned by the hook of the request's head."""
        self.stats.refused += 1
        stream.send_local_reply(
            self._status,
            b"too many requests",
            details=self._details,
            flag=RATE_LIMITED,
            grpc_status=refusal_status(self._status),
        )
        return FilterStatus.STOP


class Waiting(Filter, Generic[R]):
    """A filter that may hold its request until a moment."""

    __slots__ = ("_shared", "_waiting")

    def __init__(self, shared: WaitingRules[R]) -> None:
        self._shared = shared
        self._waiting = False

    def wait(self, moment: float, stream: Stream) -> FilterStatus:
        """To be returned by the hook of the request's head. Refused if too many wait already."""
        shared = self._shared
        if len(shared.line) >= MAX_WAITING:
            return shared.refuse(stream)
        shared.stats.waited += 1
        shared.stats.waiting += 1
        self._waiting = True
        shared.line.join(moment, self, stream)
        return FilterStatus.STOP

    def release(self, stream: Stream) -> None:
        """The moment has come, unless the caller has left."""
        if self._waiting:
            self.on_complete(stream)
            stream.continue_request(self)

    def on_complete(self, stream: Stream) -> None:
        """Nobody waits any more."""
        if self._waiting:
            self._waiting = False
            self._shared.stats.waiting -= 1


class Line:
    """See the module."""

    __slots__ = ("_armed", "_context", "_heap", "_number", "_timer")

    def __init__(self, context: FilterContext) -> None:
        self._context = context
        self._heap: list[tuple[float, int, Waiting[Any], Stream]] = []
        self._number = 0
        self._armed = 0.0
        """the moment of the timer; 0: there is none"""
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._heap)

    def join(self, moment: float, who: Waiting[Any], stream: Stream) -> None:
        """Go on at that moment."""
        self._number += 1
        heapq.heappush(self._heap, (moment, self._number, who, stream))
        if not self._armed or moment < self._armed:
            self._arm(moment)

    def _arm(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = moment
        self._timer = self._context.call_later(max(moment - self._context.now(), SOONEST_S), self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._armed = 0.0
        now = self._context.now() + SOONEST_S
        heap = self._heap
        try:
            while heap and heap[0][0] <= now:
                _, _, who, stream = heapq.heappop(heap)
                who.release(stream)
        finally:
            if heap and not self._armed:
                self._arm(heap[0][0])
