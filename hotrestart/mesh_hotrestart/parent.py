"""The old process's side of an upgrade, without any input or output: which message may come when, and how long to wait for it.

    NEW ──Hello──▶ WELCOMED ──PassSockets──▶ PASSED ──Ready──▶ PROCEEDING ──Accepting──▶ MOVING ──Release──▶ RELEASED

Up to PROCEEDING nothing has changed: the old process serves, and whatever goes wrong ends the conversation only. In MOVING the
new one accepts and the old one gives its connections away; if the new one dies then, the old one comes back to life.
"""

from __future__ import annotations

import enum
from typing import Final

from mesh_hotrestart.messages import (
    Accepting,
    Adopted,
    AskStats,
    Hello,
    Message,
    NotAdopted,
    NotUnderstood,
    PassSockets,
    Ready,
    Release,
    Unknown,
    WireError,
)


class ParentState(enum.Enum):
    """What the old process has said so far."""

    NEW = enum.auto()
    WELCOMED = enum.auto()
    PASSED = enum.auto()
    PROCEEDING = enum.auto()
    MOVING = enum.auto()
    RELEASED = enum.auto()
    ENDED = enum.auto()


PARENT_TRANSITIONS: Final[dict[tuple[ParentState, type[Message]], ParentState]] = {
    (ParentState.NEW, Hello): ParentState.WELCOMED,
    (ParentState.WELCOMED, PassSockets): ParentState.PASSED,
    (ParentState.PASSED, Ready): ParentState.PROCEEDING,
    (ParentState.PROCEEDING, Accepting): ParentState.MOVING,
    (ParentState.MOVING, Adopted): ParentState.MOVING,
    (ParentState.MOVING, NotAdopted): ParentState.MOVING,
    (ParentState.MOVING, AskStats): ParentState.MOVING,
    (ParentState.MOVING, Release): ParentState.RELEASED,
    (ParentState.RELEASED, Adopted): ParentState.RELEASED,
    (ParentState.RELEASED, NotAdopted): ParentState.RELEASED,
    (ParentState.RELEASED, AskStats): ParentState.RELEASED,
}

PARENT_WAITS: Final[dict[ParentState, tuple[float, str]]] = {
    ParentState.NEW: (10.0, "say hello"),
    ParentState.WELCOMED: (120.0, "read its configuration"),
    ParentState.PASSED: (120.0, "make its configuration live"),
    ParentState.PROCEEDING: (60.0, "begin to accept"),
}
"""state -> (seconds, what the new process must do in that time)"""


class ParentConversation:
    """One new process that wants to take over."""

    def __init__(self, now: float, waits: dict[ParentState, tuple[float, str]] = PARENT_WAITS) -> None:
        self.state = ParentState.NEW
        self._waits = waits
        self._since = now

    def __repr__(self) -> str:
        return f"<ParentConversation {self.state.name}>"

    @property
    def handed_over(self) -> bool:
        """The new process accepts."""
        return self.state in (ParentState.MOVING, ParentState.RELEASED)

    def receive(self, message: Message, now: float) -> Message | None:
        """Take the child's message; what to answer if it is of an unknown type. Raises WireError when it may not come now."""
        if isinstance(message, Unknown):
            return NotUnderstood(what=message.what)
        if isinstance(message, NotUnderstood):
            return None
        following = PARENT_TRANSITIONS.get((self.state, type(message)))
        if following is None:
            raise WireError(f"{type(message).__name__} must not come in state {self.state.name}")
        if following is not self.state:
            self.state = following
            self._since = now
        return None

    def deadline(self) -> float | None:
        """When the next message must have come; None when there is no hurry."""
        wait = self._waits.get(self.state)
        return None if wait is None else self._since + wait[0]

    def overdue(self, now: float) -> str:
        """What the child has failed to do in time; empty as long as it may take its time."""
        wait = self._waits.get(self.state)
        if wait is None or now < self._since + wait[0]:
            return ""
        return f"it did not {wait[1]} within {wait[0]:.0f} s"

    def end(self) -> None:
        """Nothing more is expected."""
        self.state = ParentState.ENDED
