"""Where this process stands in a chain of hot upgrades: first of all, or after another whose place it takes."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import Message, RendezvousError, close_all, socket_name
from mesh_hotrestart import messages as hr
from mesh_proxy.supervisor.moving import Arrivals
from mesh_proxy.supervisor.takeover import Takeover, TakeoverError

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

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

    async def meet(self) -> None:
        """Find the process that serves now, or become the one whom others find. Raises TakeoverError or RendezvousError."""
        supervisor = self._supervisor
        options = supervisor.options
        if options.disable_hot_restart:
            return
        if options.use_dynamic_base_id:
            self._write_base_id(self._choose_base_id())
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
        await takeover.take_sockets(bootstrap.listeners, admin, forced=supervisor.options.epoch_given)
        count = takeover.give_sockets(supervisor.sockets)
        _log.info("hot upgrade: got %d listening sockets from pid %d", count, takeover.parent.pid)
        return takeover.take_admin_socket()

    async def replace(self) -> None:
        """The configuration is live in every worker: begin to accept, then let the old process go."""
        takeover = self._takeover
        if takeover is None:
            return
        supervisor = self._supervisor
        await takeover.ready()
        supervisor.sockets.release()
        await supervisor.apply_again()
        await supervisor.admin.take_back()
        control = takeover.take_control_socket()
        if control is not None:
            supervisor.handover.serve(self._name, control, takeover.control_inode)
        else:
            supervisor.handover.listen(self._name, supervisor.options.socket_mode)
        arrivals = supervisor.pool.arrivals = Arrivals(supervisor.pool, takeover.send)

        def receive(message: Message, descriptors: list[int]) -> None:
            match message:
                case hr.Connection():
                    arrivals.arrive(message, descriptors)
                case hr.Late():
                    arrivals.late(message)
                case hr.Finished():
                    _log.info("hot upgrade: the old process (pid %d) is done", takeover.parent.pid)
                case _:
                    pass
            close_all(descriptors)

        takeover.on_message = receive
        takeover.accepting()
        supervisor.sockets.own()

    def give_up(self, why: str) -> None:
        """We cannot start: the old process goes on."""
        if self._takeover is not None:
            self._takeover.give_up(why)

    def release(self) -> None:
        """We end: the process before us must not take that for a crash and come back to life."""
        if self._takeover is not None:
            self._takeover.release()

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
