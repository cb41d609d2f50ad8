"""The old process's side of hot upgrades: whoever connects may take over, one at a time; until it has, nothing changes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import (
    MAX_DESCRIPTORS,
    Link,
    Message,
    ParentConversation,
    ParentState,
    WireError,
    close_all,
    listen,
    path_inode,
    peer_of,
    unlink,
)
from mesh_hotrestart import messages as hr
from mesh_proxy import __version__
from mesh_proxy.supervisor.moving import Departures
from mesh_proxy.supervisor.sockets import AddressKey
from mesh_proxy.supervisor.stage import Stage
from mesh_proxy.supervisor.takeover import socket_entry
from mesh_proxy.tasks import create_task

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

STATS_INTERVAL_S: Final = 1.0
"""how old the old process's part of the statistics may be"""
ADMIN_GRACE_S: Final = 2.0
"""how long somebody who has just connected to the admin interface here may take for his request"""
FAREWELL_S: Final = 5.0
"""how long the last messages may wait for a new process that reads slowly"""

_log = logging.getLogger("main")


class Handover:
    """Listens at the meeting point, for as long as this process is the serving one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._name = ""
        self._control: socket.socket | None = None
        self._inode = 0
        self._link: Link | None = None
        self._conversation = ParentConversation(0.0)
        self._child = hr.Hello(program="", pid=0)
        self._timer: asyncio.TimerHandle | None = None
        self._passed: frozenset[AddressKey] = frozenset()
        self._inodes: Mapping[AddressKey, int] = {}
        self._moving: asyncio.Task[None] | None = None
        self._began = 0.0

    @property
    def under_way(self) -> bool:
        """A new process is being talked to."""
        return self._link is not None

    @property
    def handed_over(self) -> bool:
        """A new process serves."""
        return self._link is not None and self._conversation.handed_over

    def listen(self, name: str, mode: int) -> None:
        """Become the serving process. Raises RendezvousError."""
        self._name = name
        self.serve(name, listen(name, mode), path_inode(name))

    def serve(self, name: str, control: socket.socket, inode: int) -> None:
        """Become the serving process on a socket that listens already."""
        self._name = name
        self._control = control
        self._inode = inode
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._accept)

    def close(self) -> None:
        """End; the name goes too unless it is somebody else's now."""
        self._drop_link()
        if self._control is not None:
            if not self._conversation.handed_over:
                self._loop.remove_reader(self._control.fileno())
                unlink(self._name, self._inode)
            self._control.close()
            self._control = None

    # Who comes.

    def _accept(self) -> None:
        assert self._control is not None
        try:
            sock, _ = self._control.accept()
        except OSError:
            return  # it went away again
        pid, uid = peer_of(sock)
        why = self._objection(uid)
        if why:
            _log.warning("hot upgrade by pid %d refused: %s", pid, why)
            link = Link(self._loop, sock, lambda message, fds: close_all(fds), lambda why: None)
            link.send(hr.Refused(why=why))
            link.close()
            return
        self._conversation = ParentConversation(time.monotonic())
        self._child = hr.Hello(program="", pid=pid)
        self._link = Link(self._loop, sock, self._receive, self._on_end)
        self._watch()

    def _objection(self, uid: int) -> str:
        if uid != os.geteuid():
            return f"it runs as user {uid}, this process as {os.geteuid()}"
        if self._link is not None:
            return f"another upgrade is under way, by pid {self._child.pid}"
        stage = self._supervisor.stage
        if stage in (Stage.PRE_INITIALIZING, Stage.INITIALIZING):
            return "this process is still initializing; try again"
        if stage is not Stage.LIVE:
            return "this process was told to end"
        return ""

    # The conversation.

    def _receive(self, message: Message, descriptors: list[int]) -> None:
        close_all(descriptors)  # a new process has none to give
        if isinstance(message, hr.GiveUp):
            self._fail(f"it gave up: {message.why}")
            return
        try:
            answer = self._conversation.receive(message, time.monotonic())
        except WireError as error:
            self._fail(str(error))
            return
        assert self._link is not None
        if answer is not None:
            self._link.send(answer)
        match message:
            case hr.Hello():
                self._welcome(message)
            case hr.PassSockets():
                self._pass_sockets(message)
            case hr.Ready():
                self._link.send(hr.Proceed())
            case hr.Accepting():
                self._commit()
            case hr.Adopted() | hr.NotAdopted():
                if self._supervisor.pool.departures is not None:
                    self._supervisor.pool.departures.answer(message)
            case hr.AskStats():
                create_task(self._tell_statistics(), name="tell statistics")
            case _:
                pass
        self._watch()

    def _refuse(self, why: str) -> None:
        assert self._link is not None
        self._link.send(hr.Refused(why=why))
        self._fail(why)

    def _welcome(self, hello: hr.Hello) -> None:
        supervisor = self._supervisor
        self._child = hello
        _log.info("hot upgrade: pid %d (version %s) wants to take over", hello.pid, hello.program)
        if hello.epoch >= 0 and hello.epoch != supervisor.epoch + 1:
            self._refuse(f"its --restart-epoch is {hello.epoch}; after epoch {supervisor.epoch} comes {supervisor.epoch + 1}")
            return
        assert self._link is not None
        self._link.send(
            hr.Welcome(
                program=__version__,
                pid=os.getpid(),
                epoch=supervisor.epoch,
                generation=supervisor.generation,
                started_at=supervisor.first_started_at,
            )
        )

    def _pass_sockets(self, asked: hr.PassSockets) -> None:
        supervisor = self._supervisor
        keys = [(str(name), str(address)) for name, address in asked.listeners]
        found = supervisor.sockets.passed(keys)
        if not found and not supervisor.sockets.empty and not asked.restart_epoch_given:
            self._refuse("it has no listener in common with this process; is it another proxy that needs a --base-id of its own?")
            return
        supervisor.pool.share_sockets("successor", True)
        assert self._control is not None
        entries = [({"kind": "control", "inode": self._inode}, self._control.fileno())]
        entries.append(({"kind": "traces"}, supervisor.pool.traces))
        admin = supervisor.admin.socket_for(asked.admin)
        if admin is not None:
            entries.append(({"kind": "admin"}, admin.fileno()))
        for key, bound in found.items():
            entries += [(socket_entry(key, bound), sock.fileno()) for sock in bound.sockets]
        self._passed = frozenset(found)
        assert self._link is not None
        for start in range(0, len(entries), MAX_DESCRIPTORS):
            part = entries[start : start + MAX_DESCRIPTORS]
            last = start + MAX_DESCRIPTORS >= len(entries)
            self._link.send(hr.Sockets(entries=[entry for entry, _ in part], last=last), [fd for _, fd in part])
        _log.info("hot upgrade: passed %d sockets of %d addresses to pid %d", len(entries), len(found), self._child.pid)

    # Time, and failure.

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._conversation.deadline() if self._link is not None else None
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._overdue)

    def _overdue(self) -> None:
        why = self._conversation.overdue(time.monotonic())
        if why:
            self._refuse(why)
        else:
            self._watch()

    def _on_end(self, why: str) -> None:
        self._fail(why or "it has ended")

    def _fail(self, why: str) -> None:
        """The new process will not make it; this one goes on."""
        handed_over = self._conversation.handed_over
        released = self._conversation.state is ParentState.RELEASED
        self._drop_link()
        pid = self._child.pid
        if not handed_over:
            self._conversation.end()
            _log.error("hot upgrade by pid %d failed: %s; this process goes on serving", pid, why)
            self._supervisor.stats.hot_restart.upgrades_failed += 1
            self._supervisor.pool.share_sockets("successor", False)
        elif released:
            _log.info("hot upgrade: the new process (pid %d) has ended, as it said it would; what is left here ends here", pid)
            if self._supervisor.pool.departures is not None:
                self._supervisor.pool.departures.give_up()
        elif self._moving is not None and not self._supervisor.ending:
            self._conversation.end()
            self._moving.cancel()
            self._moving = None
            self._supervisor.stats.hot_restart.upgrades_failed += 1
            _log.error("hot upgrade: the new process (pid %d) failed after it took over: %s; serving again", pid, why)
            create_task(self._resume(), name="resume")

    def _drop_link(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.close()
            self._link = None

    # Giving way.

    def _commit(self) -> None:
        """The new process accepts."""
        supervisor = self._supervisor
        self._began = time.monotonic()
        _log.info(
            "hot upgrade: pid %d accepts; %d connections are left here", self._child.pid, supervisor.pool.active_connections
        )
        if supervisor.health_check_failed or supervisor.draining.listeners_stopped:
            _log.warning("hot upgrade: /healthcheck/fail and /drain_listeners hold for this process only, not for the new one")
        assert self._control is not None
        self._loop.remove_reader(self._control.fileno())
        supervisor.succession.release()
        if supervisor.configuration.dynamic is not None:
            supervisor.configuration.dynamic.hold()
        self._inodes = supervisor.sockets.disown(self._passed)
        supervisor.sockets.close_all_but(self._passed)
        supervisor.admin.give_away()
        supervisor.pool.departures = Departures(supervisor.pool, self._send)
        self._moving = create_task(self._move(), name="hand over")

    def _send(self, message: Message, descriptors: list[int]) -> None:
        if self._link is not None:
            self._link.send(message, descriptors)
        elif self._supervisor.pool.departures is not None:
            self._supervisor.pool.departures.give_up()

    async def _move(self) -> None:
        supervisor = self._supervisor
        moving = create_task(
            supervisor.pool.hand_over(self._passed, float(supervisor.options.parent_shutdown_time_s)), name="hand over"
        )
        try:
            while not moving.done():
                await self._tell_statistics()
                await asyncio.wait([moving], timeout=STATS_INTERVAL_S)
        except asyncio.CancelledError:
            moving.cancel()
            raise
        await self._finish(*moving.result())

    async def _tell_statistics(self, *, final: bool = False) -> None:
        """The new process shows our counts and its own as one."""
        supervisor = self._supervisor
        if not final:
            await supervisor.statistics.fresh()
        if self._link is not None and self._link.queued < MAX_DESCRIPTORS:
            connections = 0 if final else supervisor.pool.active_connections
            self._link.send(hr.Stats(groups=supervisor.stats.export(), connections=connections, final=final))

    async def _finish(self, moved: int, drained: int, cut: int) -> None:
        supervisor = self._supervisor
        supervisor.ending = True
        await supervisor.pool.stop_now()
        await self._tell_statistics(final=True)
        if self._link is not None:
            self._link.send(hr.Finished(moved=moved, drained=drained, cut=cut))
            await self._link.sent(FAREWELL_S)
        await supervisor.admin.ended(ADMIN_GRACE_S)
        took = time.monotonic() - self._began
        counts = f"{moved} connections moved, {drained} drained, {cut} cut"
        _log.info("hot upgrade: handed over to pid %d in %.3f s: %s", self._child.pid, took, counts)
        supervisor.hand_over_done()

    def end_now(self, deadline_s: float) -> None:
        """Told to end while a new process serves: what is left here has that much time."""
        supervisor = self._supervisor
        if self._moving is not None and not supervisor.ending:
            self._moving.cancel()
            self._moving = create_task(self._end(deadline_s), name="hand over")

    async def _end(self, deadline_s: float) -> None:
        self._supervisor.ending = True
        if deadline_s:
            await self._supervisor.pool.drain_and_stop(deadline_s)
        await self._finish(0, 0, 0)

    async def _resume(self) -> None:
        supervisor = self._supervisor
        supervisor.sockets.disown(self._passed, back=self._inodes)
        assert self._control is not None
        self._loop.add_reader(self._control.fileno(), self._accept)
        supervisor.pool.share_sockets("successor", False)
        await supervisor.admin.take_back()
        await supervisor.resume()
