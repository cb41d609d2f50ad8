"""The supervisor's end of the packet socket to the spawner."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from mesh_proxy.supervisor.spawner import EXITED, FAILED, READER_INDEX, READER_TOKEN, REPLY, SPAWNED, send_request


class SpawnerClient:
    """Asks for workers and hears of their births and deaths. Tokens tell the workers apart; pids may come again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self.on_spawned: Callable[[int, int], None]
        """(token, pid)"""
        self.on_exited: Callable[[int, int], None]
        """(token, wait status); a fork that failed counts as a death with exit code 1"""
        self.on_lost: Callable[[], None]
        """the spawner is dead"""
        self._loop = loop
        self._socket = sock
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def spawn(self, index: int, token: int, control: int, page: int) -> None:
        """Ask for a worker; the descriptors may be closed afterwards."""
        try:
            send_request(self._socket, index, token, control, page)
        except OSError:
            pass  # dead: the reader says so

    def spawn_reader(self, control: int) -> None:
        """Ask for a process that reads watched files; the end of its socket tells of its death."""
        page = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.spawn(READER_INDEX, READER_TOKEN, control, page)
        os.close(page)

    def close(self) -> None:
        """Let the spawner go (it ends when its workers have) and wait for it."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass

    def _readable(self) -> None:
        try:
            data = self._socket.recv(REPLY.size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self.on_lost()
            return
        kind, pid, token, status = REPLY.unpack(data)
        if token == READER_TOKEN:
            return
        if kind == SPAWNED:
            self.on_spawned(token, pid)
        elif kind == EXITED:
            self.on_exited(token, status)
        elif kind == FAILED:
            self.on_exited(token, 1 << 8)
