"""One worker process as the supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.worker import messages as m
from mesh_proxy.worker.channel import MAX_FDS, Channel
from mesh_proxy.worker.interface import SocketKey


class WorkerHandle:
    """Made when a worker is asked for, thrown away when it is dead."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        index: int,
        token: int,
        control: socket.socket,
        on_message: Callable[[WorkerHandle, Any, list[int]], None],
    ) -> None:
        self._loop = loop
        self.index = index
        self.token = token
        self.pid = 0
        """0 until the spawner has answered"""
        self.started_at = loop.time()
        self.applied_version = 0
        """newest version that is live in it"""
        self.last_pong = loop.time()
        self.active_connections = 0
        """at the last Pong"""
        self.stopped_listening: set[str] = set()
        """traffic directions whose listeners it has given up"""
        self.handed_over = False
        """has no connection left, after HandOver"""
        self.hung = False
        """killed because it did not answer"""
        self.channel = Channel(loop, control, self._receive, self._on_closed)
        self._pidfd = -1
        self._on_message = on_message
        self._sent_keys: set[SocketKey] = set()

    def __repr__(self) -> str:
        return f"<Worker {self.index} pid={self.pid} version={self.applied_version}>"

    def spawned(self, pid: int) -> None:
        """The process exists."""
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)  # signals through it cannot hit a stranger with the same pid
        except OSError:
            pass  # already dead; the spawner will say so

    def apply(self, snapshot: WorkerSnapshot, sockets: dict[SocketKey, socket.socket]) -> None:
        """Send a version with the sockets that this worker does not have yet."""
        keys = [key for key in sockets if key not in self._sent_keys]
        for start in range(0, len(keys), MAX_FDS):
            part = tuple(keys[start : start + MAX_FDS])
            self.channel.send(m.Sockets(part), [sockets[key].fileno() for key in part])
        self._sent_keys = set(sockets)
        self.channel.send(m.Apply(snapshot))

    def forget_sockets(self, given: frozenset[tuple[str, str]]) -> None:
        """It has closed its sockets of these listeners (name, address); the next version brings them again."""
        self._sent_keys = {key for key in self._sent_keys if key[:2] not in given}

    def kill(self) -> None:
        """SIGKILL."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def watch(self, on_death: Callable[[], None]) -> None:
        """Call when the process ends."""
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, on_death)

    def close(self) -> None:
        """Release what we hold of a dead worker."""
        self.channel.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _receive(self, message: Any, fds: list[int]) -> None:
        try:
            self._on_message(self, message, fds)
        finally:
            for fd in fds:  # whoever needs one has made a copy
                os.close(fd)

    def _on_closed(self) -> None:
        pass  # the spawner reports the death, with its status
