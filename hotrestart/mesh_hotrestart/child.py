"""The new process's side of an upgrade, without any input or output.

    GREETING ──Welcome──▶ WELCOMED ─(ask)─▶ ASKING ──last Sockets──▶ PREPARING
        ─(ready)─▶ READY ──Proceed──▶ STARTING ─(accepting)─▶ SERVING ──Finished──▶ ALONE

Arrows in brackets are the process's own steps. Until SERVING the old process serves everything, and any failure here ends the new
process and nothing else.
"""

from __future__ import annotations

import enum
from typing import Final

from mesh_hotrestart.messages import (
    Connection,
    Finished,
    Late,
    Message,
    NotUnderstood,
    Proceed,
    Refused,
    Sockets,
    Stats,
    Unknown,
    Welcome,
    WireError,
)


class TakeoverRefused(Exception):
    """The old process said no."""


class ChildState(enum.Enum):
    """How far the new process has come."""

    GREETING = enum.auto()
    WELCOMED = enum.auto()
    ASKING = enum.auto()
    PREPARING = enum.auto()
    READY = enum.auto()
    STARTING = enum.auto()
    SERVING = enum.auto()
    ALONE = enum.auto()
    """the old process has ended"""


CHILD_TRANSITIONS: Final[dict[tuple[ChildState, type[Message]], ChildState]] = {
    (ChildState.GREETING, Welcome): ChildState.WELCOMED,
    (ChildState.ASKING, Sockets): ChildState.ASKING,
    (ChildState.READY, Proceed): ChildState.STARTING,
    (ChildState.SERVING, Connection): ChildState.SERVING,
    (ChildState.SERVING, Late): ChildState.SERVING,
    (ChildState.SERVING, Finished): ChildState.ALONE,
}
"""Stats may come at any time once welcomed. A Sockets that is the last one leads on to PREPARING."""

CHILD_STEPS: Final[dict[tuple[ChildState, str], ChildState]] = {
    (ChildState.WELCOMED, "ask"): ChildState.ASKING,
    (ChildState.PREPARING, "ready"): ChildState.READY,
    (ChildState.STARTING, "accepting"): ChildState.SERVING,
}

REPLY_TIMEOUT_S: Final = 30.0
"""longest time that the old process may take for an answer: its loop may be busy, but it does not wait for anything"""


class ChildConversation:
    """The way from a greeting to serving alone."""

    def __init__(self) -> None:
        self.state = ChildState.GREETING

    def __repr__(self) -> str:
        return f"<ChildConversation {self.state.name}>"

    @property
    def serving(self) -> bool:
        """The old process has been told to stop accepting."""
        return self.state in (ChildState.SERVING, ChildState.ALONE)

    def step(self, name: str) -> None:
        """A step of our own: `ask`, `ready`, `accepting`."""
        self.state = CHILD_STEPS[self.state, name]

    def receive(self, message: Message) -> Message | None:
        """Take the parent's message; what to answer if this version does not know it.

        Raises:
            TakeoverRefused: with the parent's reason.
            WireError: it must not come now.
        """
        if isinstance(message, Refused):
            raise TakeoverRefused(message.why)
        if isinstance(message, Unknown):
            return NotUnderstood(what=message.what)
        if isinstance(message, NotUnderstood):
            return None
        if isinstance(message, Stats) and self.state is not ChildState.GREETING:
            return None
        following = CHILD_TRANSITIONS.get((self.state, type(message)))
        if following is None:
            raise WireError(f"{type(message).__name__} must not come in state {self.state.name}")
        if isinstance(message, Sockets) and message.last:
            following = ChildState.PREPARING
        self.state = following
        return None
