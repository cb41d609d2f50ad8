"""Heartbeats and other events of Dubbo, the same in both directions."""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo import DubboMessage, answer_heartbeat
from mesh_codecs.dubbo.frame import HEADER_SIZE
from mesh_codecs.dubbo.message import READONLY, WRITEABLE

MAX_EVENT_BODY: Final = 50
"""Bytes of an event that is answered, which repeats it. Dubbo itself takes no larger one (`deserialization.event.size`)."""

EVENTS_PER_WINDOW: Final = 100
EVENT_WINDOW_S: Final = 10.0
"""Who sends more events than that is no Dubbo peer: one every 60 s is usual."""


def event_answer(message: DubboMessage) -> bytes | None:
    """What an event is answered with; None for those that want no answer.

    The body is not looked at more than needed: each serialization has its own null, also those that we cannot read, and the
    answer repeats it.
    """
    if not message.two_way or len(message.frame) > HEADER_SIZE + MAX_EVENT_BODY:
        return None
    if message.event_kind in (READONLY, WRITEABLE):
        return None
    return answer_heartbeat(message.frame)


class EventBudget:
    """Counts the events of one connection."""

    __slots__ = ("_count", "_since")

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """One event more; False when there were too many."""
        if now - self._since > EVENT_WINDOW_S:
            self._since = now
            self._count = 0
        self._count += 1
        return self._count <= EVENTS_PER_WINDOW
