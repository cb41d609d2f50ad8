"""Giving established connections to a new process: the old worker's side.

A connection offers itself when nothing is in progress on it. Its reading is paused, its descriptor and its codec's state travel
to a worker of the new process, and only the answer settles whose it is: adopted, it is let go here without a word to the caller;
not adopted, it goes on here. Until the answer neither process reads from it and neither writes to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

_log = logging.getLogger("conn_handler")

MAX_OFFERED: Final = 64
"""offers of one worker that wait for their answer: each holds descriptors in four processes"""


@dataclass(slots=True)
class MovingState:
    """What a new process needs to go on with a connection."""

    protocol: str
    """`http1`, `http2`, `dubbo`, `detect`: which codec wrote the state"""
    state: bytes
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON: age, counts"""


class Movable(Protocol):
    """A connection that can go to a new process."""

    def export(self) -> MovingState | None:
        """Stop reading and say the state; None when it is not the moment (then it offers itself again), or never will be."""

    def listener_name(self) -> str:
        """Of the listener that accepted it."""

    def fileno(self) -> int:
        """Of its socket."""

    def let_go(self, late: Callable[[bytes], None]) -> None:
        """The new process has it. Whole messages that are still owed to the caller may be sent by `late`."""

    def keep(self) -> None:
        """The new process does not take it: go on, and end in the protocol's own way."""

    def stay(self) -> None:
        """There is no new process any more: go on as if nothing had been."""


Send = Callable[[str, int, Any, Sequence[int]], None]
"""(what, number, content, descriptors): `offer` with (MovingState, listener name), or `late` with bytes"""


class Mover:
    """One per hand-over and worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self.moved = 0
        self._loop = loop
        self._send = send
        self._next = 0
        self._waiting: dict[Movable, None] = {}
        """in the order in which they offered themselves"""
        self._offered: dict[int, Movable] = {}
        self._scheduled = False
        self._over = False

    def offer(self, connection: Movable) -> None:
        """Nothing is in progress on it. It is taken up in a turn of its own, as what it has written may still be unflushed."""
        if self._over:
            connection.stay()
            return
        self._waiting[connection] = None
        self._schedule()

    def withdraw(self, connection: Movable) -> None:
        """It has ended."""
        self._waiting.pop(connection, None)

    def settle(self, number: int, adopted: bool, why: str) -> None:
        """The new process has said whether it takes the connection."""
        connection = self._offered.pop(number, None)
        if connection is None:
            return
        if adopted:
            self.moved += 1
            connection.let_go(lambda data: self._send("late", number, data, ()))
        else:
            _log.debug("connection %d stays here: %s", number, why)
            connection.keep()
        self._schedule()

    def cancel(self) -> None:
        """There is no new process any more."""
        self._over = True
        staying = [*self._waiting, *self._offered.values()]
        self._waiting.clear()
        self._offered.clear()
        for connection in staying:
            connection.stay()

    def abandon(self) -> None:
        """Nobody is left who could tell us whose the offered connections are. A new process that has taken one keeps it; the
        caller of one that nobody has taken learns at once that it is gone."""
        self._over = True
        self._waiting.clear()
        offered, self._offered = self._offered, {}
        for connection in offered.values():
            connection.let_go(lambda data: None)

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting and len(self._offered) < MAX_OFFERED:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._offered) < MAX_OFFERED:
            connection = next(iter(self._waiting))
            del self._waiting[connection]
            state = connection.export()
            if state is not None:
                self._next += 1
                self._offered[self._next] = connection
                self._send("offer", self._next, (state, connection.listener_name()), [connection.fileno()])
