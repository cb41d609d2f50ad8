"""Where this process stands in a chain of hot upgrades: first of all, or after another whose place it takes."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import Message, RendezvousError, close_all, socket_name
from mesh_hotrestart import messages as hr
from mesh_proxy.supervisor.moving import Arrivals
from mesh_proxy.supervisor.takeover import Takeover, TakeoverError
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

STATS_TIMEOUT_S: Final = 5.0
"""how long the admin interface waits for the old process's counts"""
REFRESH_TIMEOUT_S: Final = 2.0
"""how long a look at the statistics waits for it; what it said last is at most a second old"""
BASE_ID_ATTEMPTS: Final = 100
"""how often `--use-dynamic-base-id` tries; a collision is one in two billion"""

_log = logging.getLogger("main")


class Succession:
    """The steps of a start, in order: `meet`, `inherit`, and when all workers are live `replace`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._takeover: Takeover | None = None
        self._name = ""
        self._arrivals: Arrivals | None = None
        self._last_counted: hr.Stats | None = None
        self._counted: asyncio.Future[None] = loop.create_future()
        """the old process has said its counts, or will not any more"""
        self._told: asyncio.Future[None] | None = None
        """somebody waits for the old process's counts as they are now"""
        self._began = 0.0

    @property
    def has_predecessor(self) -> bool:
        """The process before us lives."""
        return self._takeover is not None and not self._takeover.alone

    async def meet(self) -> None:
        """Find the process that serves now, or become the one whom others find. Raises TakeoverError or RendezvousError."""
        supervisor = self._supervisor
        options = supervisor.options
        if options.disable_hot_restart:
            return
        if options.use_dynamic_base_id:
            base_id = self._choose_base_id()
            self._write_base_id(base_id)
            supervisor.restarter.use_base_id(base_id)
            return
        self._write_base_id(options.base_id)
        name = self._name = socket_name(options.socket_path, options.base_id)
        if options.epoch_given and not options.restart_epoch:  # the first one, and nothing else: Envoy's meaning of 0
            supervisor.handover.listen(name, options.socket_mode)
            return
        takeover = await Takeover.begin(self._loop, name, options.restart_epoch if options.epoch_given else -1)
        if takeover is None:
            if options.restart_epoch and not options.skip_hot_restart_on_no_parent:
                raise TakeoverError(f"--restart-epoch {options.restart_epoch}: no process of an earlier epoch listens on {name}")
            supervisor.handover.listen(name, options.socket_mode)
            return
        self._takeover = takeover
        parent = takeover.parent
        supervisor.epoch = parent.epoch + 1
        supervisor.generation = parent.generation + 1
        supervisor.first_started_at = parent.started_at
        _log.info("hot upgrade: taking over from pid %d (version %s, epoch %d)", parent.pid, parent.program, parent.epoch)

    async def inherit(self) -> socket.socket | None:
        """Get the listening sockets for our configuration. The admin interface's is returned, if the address is the same."""
        takeover = self._takeover
        if takeover is None:
            return None
        supervisor = self._supervisor
        bootstrap = supervisor.bootstrap
        admin = bootstrap.admin.address if bootstrap.admin is not None else None
        forced = supervisor.options.epoch_given or supervisor.restarter.guarded
        await takeover.take_sockets(supervisor.configuration.listeners, admin, forced=forced)
        count = takeover.give_sockets(supervisor.sockets)
        _log.info("hot upgrade: got %d listening sockets from pid %d", count, takeover.parent.pid)
        traces = takeover.take_traces()
        if traces is not None:
            supervisor.pool.use_traces(traces)
        return takeover.take_admin_socket()

    async def replace(self) -> None:
        """The configuration is live in every worker: begin to accept, then let the old process go."""
        takeover = self._takeover
        if takeover is None:
            return
        supervisor = self._supervisor
        await takeover.ready()
        # If we fail, the old process must be able to accept from them as before.
        supervisor.pool.share_sockets("predecessor", not takeover.alone)
        supervisor.sockets.release()
        await supervisor.apply_again()
        control = takeover.take_control_socket()
        if control is not None:
            supervisor.handover.serve(self._name, control, takeover.control_inode)
        else:
            supervisor.handover.listen(self._name, supervisor.options.socket_mode)
        self._arrivals = supervisor.pool.arrivals = Arrivals(supervisor.pool, takeover.send)
        takeover.on_message = self._receive
        takeover.on_alone = self._alone
        self._began = time.monotonic()
        takeover.accepting()
        supervisor.sockets.own()
        if takeover.alone:
            supervisor.pool.share_sockets("predecessor", False)
        supervisor.stats.hot_restart.upgrades += 1
        # Our first answer to a scrape must not show less than the old process's last one.
        if not takeover.alone:
            await asyncio.wait([self._counted], timeout=STATS_TIMEOUT_S)
        await supervisor.admin.take_back()

    def _receive(self, message: Message, descriptors: list[int]) -> None:
        """From the old process, while both live."""
        assert self._arrivals is not None
        match message:
            case hr.Connection():
                self._arrivals.arrive(message, descriptors)
            case hr.Late():
                self._arrivals.late(message)
            case hr.Stats():
                self._inherit(message)
            case hr.Finished():
                self._finished(message)
            case _:
                pass
        close_all(descriptors)

    def _inherit(self, counted: hr.Stats) -> None:
        stats = self._supervisor.stats
        self._last_counted = counted
        if not self._supervisor.options.skip_hot_restart_parent_stats:
            try:
                stats.inherit(counted.groups, counted.connections, final=counted.final)
            except ValueError as error:
                _log.error("hot upgrade: the old process's statistics are lost: %s", error)
        if not self._counted.done():
            self._counted.set_result(None)
        if self._told is not None and not self._told.done():
            self._told.set_result(None)

    async def refresh(self) -> None:
        """Let the old process say its counts as they are now. What was asked of our own workers before comes first: a connection
        that moves at this moment is then counted here or nowhere, and never twice."""
        if self._takeover is None or self._takeover.alone or self._arrivals is None:
            return
        if self._told is None or self._told.done():
            self._told = self._loop.create_future()
            self._takeover.send(hr.AskStats())
        await asyncio.wait([self._told], timeout=REFRESH_TIMEOUT_S)

    def _finished(self, counts: hr.Finished) -> None:
        took = time.monotonic() - self._began
        stats = self._supervisor.stats.hot_restart
        stats.connections_moved += counts.moved
        stats.connections_drained += counts.drained
        stats.connections_cut += counts.cut
        stats.last_duration_ms = int(took * 1000)
        assert self._takeover is not None
        pid = self._takeover.parent.pid
        text = f"{counts.moved} connections moved, {counts.drained} drained, {counts.cut} cut"
        _log.info("hot upgrade: took over from pid %d in %.3f s: %s", pid, took, text)

    def _alone(self) -> None:
        """The old process is gone; if it could not say its last counts, those before must do."""
        if self._last_counted is not None and not self._last_counted.final:
            self._inherit(dataclasses.replace(self._last_counted, final=True))
        if not self._counted.done():
            self._counted.set_result(None)
        if self._told is not None and not self._told.done():
            self._told.set_result(None)
        self._supervisor.pool.share_sockets("predecessor", False)
        self._supervisor.pool.broadcast(m.NothingOwed())

    def give_up(self, why: str) -> None:
        """We cannot start: the old process goes on."""
        if self._takeover is not None:
            self._takeover.give_up(why)

    def release(self) -> None:
        """We end: the process before us must not take that for a crash and come back to life."""
        if self._takeover is not None and self._takeover.release():
            self._supervisor.pool.share_sockets("predecessor", False)

    def close(self) -> None:
        """End the conversation."""
        if self._takeover is not None:
            self._takeover.close()

    def _choose_base_id(self) -> int:
        options = self._supervisor.options
        problem = RendezvousError("no attempt")
        for _ in range(BASE_ID_ATTEMPTS):
            base_id = random.randrange(1 << 31)
            try:
                self._supervisor.handover.listen(socket_name(options.socket_path, base_id), options.socket_mode)
            except RendezvousError as error:
                problem = error
            else:
                return base_id
        raise problem

    def _write_base_id(self, base_id: int) -> None:
        path = self._supervisor.options.base_id_path
        if path:
            try:
                Path(path).write_text(str(base_id))
            except OSError as error:
                _log.error("cannot write the base id to %s: %s", path, error.strerror)
