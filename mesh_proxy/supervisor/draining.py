"""Drains: of all connections before the end, or of listeners while the rest goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from mesh_proxy.health.termination import Termination
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

IDLE_POLL_S: Final = 0.2
"""how often is looked whether a connection is left, of which workers tell once a second"""


class Draining:
    """One per supervisor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self.termination: Termination | None = None
        """how the environment wants us to end; None = by the options alone"""
        self.listeners_stopped = False
        """all of them have closed, by /drain_listeners"""
        self._loop = loop
        self._supervisor = supervisor
        self._timer: asyncio.TimerHandle | None = None

    @property
    def longest_s(self) -> float:
        """Until the end, whoever is still there."""
        wanted = self.termination
        return wanted.accept_s if wanted and not wanted.until_idle else float(self._supervisor.options.drain_time_s)

    async def drain(self) -> None:
        """Let every connection end, then the workers."""
        supervisor = self._supervisor
        left = self.longest_s
        if self.termination is not None:
            left = await self._go_on_accepting(self.termination, left)
        # Our copies first: then a worker that has emptied its accept queue and closes its own leaves nobody waiting.
        supervisor.sockets.close()
        await supervisor.pool.drain_and_stop(left)

    async def _go_on_accepting(self, wanted: Termination, longest_s: float) -> float:
        """Callers are asked to leave while new ones are still served; the seconds that are left for the rest."""
        self.drain_listeners(inbound_only=True, graceful=True, skip_exit=True)
        started = time.monotonic()
        await asyncio.sleep(min(wanted.accept_s, longest_s))
        while wanted.until_idle and self._supervisor.pool.active_connections and time.monotonic() < started + longest_s:  # noqa: ASYNC110
            await asyncio.sleep(IDLE_POLL_S)
        return max(started + longest_s - time.monotonic(), 0.0)

    def drain_listeners(self, *, inbound_only: bool, graceful: bool, skip_exit: bool) -> None:
        """/drain_listeners: without `graceful` the listeners close now, with it after the drain time, with skip_exit never."""
        self._supervisor.pool.broadcast(m.StartDrain(inbound_only=inbound_only, graceful=graceful), sticky="drain")
        if skip_exit:
            return
        if not graceful:
            self._stop_listening(inbound_only)
        elif self._timer is None:
            self._timer = self._loop.call_later(self._supervisor.options.drain_time_s, self._stop_listening, inbound_only)

    def _stop_listening(self, inbound_only: bool) -> None:
        if not inbound_only:
            self.listeners_stopped = True
        self._supervisor.stats.listeners.listener_stopped += 1
        self._supervisor.pool.broadcast(m.StopListening(inbound_only=inbound_only), sticky="stop_listening")
