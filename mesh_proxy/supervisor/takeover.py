"""The new process's side of a hot upgrade: find the old one, take its sockets, tell it when to stop accepting.

Whatever fails before the old process has been told leaves it serving as if nothing had happened. If the old one dies on the way,
this process goes on alone with what it has got.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from mesh_hotrestart import (
    REPLY_TIMEOUT_S,
    ChildConversation,
    ChildState,
    Link,
    Message,
    RendezvousError,
    TakeoverRefused,
    WireError,
    close_all,
    connect,
    peer_of,
)
from mesh_hotrestart import messages as hr
from mesh_proxy import __version__
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.supervisor.sockets import BoundAddress, ListenSockets, addresses_of

_log = logging.getLogger("main")


class TakeoverError(Exception):
    """This process cannot take over, and must not start beside the old one."""


class Takeover:
    """The conversation with one old process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.parent = hr.Welcome(program="", pid=0, epoch=0, generation=0, started_at=0.0)
        self.admin_socket: socket.socket | None = None
        self.control_socket: socket.socket | None = None
        self.control_inode = 0
        self.traces: int | None = None
        """descriptor of the labels of traces that the old process has remembered"""
        self.alone = False
        """the old process has ended, or died"""
        self.on_message: Callable[[Message, list[int]], None] = lambda message, fds: close_all(fds)
        """what comes while both processes live: Connection, Stats, Finished"""
        self.on_alone: Callable[[], None] = lambda: None
        """the old process is gone, after it was told that we serve"""
        self._loop = loop
        self._conversation = ChildConversation()
        self._entries: list[tuple[dict[str, Any], int]] = []
        self._problem = ""
        self._released = False
        self._changed = asyncio.Event()
        self._link = Link(loop, sock, self._receive, self._on_end)

    @classmethod
    async def begin(cls, loop: asyncio.AbstractEventLoop, name: str, epoch: int) -> Takeover | None:
        """Greet the process that listens there; None when there is none. Raises TakeoverError."""
        try:
            sock = connect(name)
        except RendezvousError as error:
            raise TakeoverError(str(error)) from None
        if sock is None:
            return None
        pid, uid = peer_of(sock)
        if uid != os.geteuid():
            sock.close()
            raise TakeoverError(f"{name} belongs to a process of user {uid} (pid {pid}); use another --base-id or --socket-path")
        takeover = cls(loop, sock)
        takeover.send(hr.Hello(program=__version__, pid=os.getpid(), epoch=epoch))
        await takeover._until(ChildState.WELCOMED, "greet")
        if takeover.alone:
            takeover.close()
            return None
        return takeover

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """To the old process, if it lives."""
        self._link.send(message, descriptors)

    def close(self) -> None:
        """End the conversation; before the last step that means that the old process goes on."""
        self._link.close()
        for sock in (self.admin_socket, self.control_socket):
            if sock is not None:
                sock.close()
        self.admin_socket = self.control_socket = None
        close_all([] if self.traces is None else [self.traces])
        self.traces = None
        close_all([fd for _, fd in self._entries])
        self._entries.clear()

    def give_up(self, why: str) -> None:
        """Tell the old process why we end, before it is too late to."""
        if not self._conversation.serving:
            self.send(hr.GiveUp(why=why))
            self.close()

    def release(self) -> bool:
        """The old process must not come back to life when we end; whether it knows now."""
        if self._conversation.serving and not self._released:
            self._released = True
            self.send(hr.Release())
        return self._released

    def take_admin_socket(self) -> socket.socket | None:
        """The admin interface's listening socket, if the address is the same; the caller's from now on."""
        sock, self.admin_socket = self.admin_socket, None
        return sock

    def take_traces(self) -> int | None:
        """The memory of traces; the caller's from now on."""
        descriptor, self.traces = self.traces, None
        return descriptor

    def take_control_socket(self) -> socket.socket | None:
        """The listening socket of the meeting point; the caller's from now on."""
        sock, self.control_socket = self.control_socket, None
        return sock

    async def take_sockets(self, listeners: Sequence[ListenerConfig], admin: AddressConfig | None, *, forced: bool) -> None:
        """Ask for the sockets. Raises TakeoverError."""
        names = [[listener.name, str(address)] for _, listener, address in addresses_of(listeners)]
        self._conversation.step("ask")
        self.send(hr.PassSockets(listeners=names, admin=str(admin or ""), restart_epoch_given=forced))
        await self._until(ChildState.PREPARING, "pass its sockets")

    def give_sockets(self, sockets: ListenSockets) -> int:
        """Sort what came; the number of listening sockets."""
        count = 0
        for entry, fd in self._entries:
            kind = entry.get("kind")
            if kind == "traces":
                close_all([] if self.traces is None else [self.traces])
                self.traces = fd
                continue
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            if kind == "control":
                self.control_socket = sock
                self.control_inode = int(entry.get("inode", 0))
            elif kind == "admin":
                self.admin_socket = sock
            elif kind == "listener":
                real = entry["real"]
                bound = BoundAddress(
                    AddressConfig(**{key: real[key] for key in ("host", "port", "path", "mode", "ipv4_compat")}),
                    (sock,),
                    future_inode=int(entry.get("inode", 0)),
                )
                sockets.inherit((entry["name"], entry["address"]), bound)
                count += 1
            else:
                sock.close()
        self._entries.clear()
        return count

    async def ready(self) -> None:
        """Say that we could accept, and wait until we may. Raises TakeoverError."""
        if not self.alone:
            self._conversation.step("ready")
            self.send(hr.Ready())
            await self._until(ChildState.STARTING, "let us proceed")

    def accepting(self) -> None:
        """From now on the old process gives way."""
        if not self.alone:
            self._conversation.step("accepting")
            self.send(hr.Accepting())
            # Whatever ends the conversation from now on while we live: there must be one who serves, and not two.
            self._link.farewell = hr.Release()

    # Receiving.

    async def _until(self, state: ChildState, what: str) -> None:
        """Wait for the old process to lead us to a state, or to die. Raises TakeoverError."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                while self._conversation.state is not state and not self.alone and not self._problem:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._problem = f"did not {what} within {REPLY_TIMEOUT_S:.0f} s"
        if self._problem:
            self.close()
            raise TakeoverError(f"cannot take over from pid {self.parent.pid or '?'}: it {self._problem}")

    def _receive(self, message: Message, descriptors: list[int]) -> None:
        try:
            answer = self._conversation.receive(message)
        except TakeoverRefused as error:
            close_all(descriptors)
            self._fail(f"refuses: {error}")
            return
        except WireError as error:
            close_all(descriptors)
            self._fail(f"broke the protocol: {error}")
            return
        if answer is not None:
            self.send(answer)
        match message:
            case hr.Welcome():
                self.parent = message
            case hr.Sockets(entries=entries):
                if len(entries) != len(descriptors):
                    close_all(descriptors)
                    self._fail("passed sockets without saying what they are")
                    return
                self._entries += zip(entries, descriptors, strict=True)
            case hr.Connection() | hr.Late() | hr.Stats() | hr.Finished():
                self.on_message(message, descriptors)
            case _:
                close_all(descriptors)
        self._changed.set()

    def _fail(self, why: str) -> None:
        self._problem = why
        if self._link.farewell is not None:
            self.send(self._link.farewell)
        self._link.close()
        self._changed.set()
        if self._conversation.serving:
            _log.error("hot upgrade: the old process (pid %d) %s", self.parent.pid, why)
            self._gone()

    def _on_end(self, why: str) -> None:
        if why:
            self._fail(f"sent something wrong: {why}")
            return
        if not self._conversation.serving:
            _log.warning("hot upgrade: the old process (pid %d) has ended; going on without it", self.parent.pid)
        self._gone()

    def _gone(self) -> None:
        was_serving = self._conversation.serving
        self.alone = True
        self._changed.set()
        if was_serving:
            self.on_alone()


def socket_entry(key: tuple[str, str], bound: BoundAddress) -> dict[str, Any]:
    """What the old process says about one of its listening sockets."""
    name, address = key
    real = dataclasses.asdict(bound.address)
    return {"kind": "listener", "name": name, "address": address, "real": real, "inode": bound.unix_inode}
