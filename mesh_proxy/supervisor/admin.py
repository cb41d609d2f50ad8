"""The admin interface's socket: bound, written down, served."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mesh_proxy.access_log import AccessLogger, SinkSet
from mesh_proxy.admin.endpoints import answer
from mesh_proxy.admin.server import AdminServer
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import AdminConfig
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.stream.info import StreamInfo
from mesh_proxy.supervisor.sockets import bind_unix

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

UNIX_MODE = 0o600
"""of the admin socket when the configuration names none: who can write to it steers the proxy"""

_log = logging.getLogger("admin")


class AdminListener:
    """Idle until the configuration is known."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._server = AdminServer(loop, functools.partial(answer, supervisor))
        self._path = ""
        self._sinks: SinkSet | None = None
        self._socket: socket.socket | None = None
        """our copy, for the process after us, or to come back"""
        self._addresses: set[str] = set()
        """as configured and as bound"""
        self.local = ""
        """where it is bound: `127.0.0.1:15000`, or the path of a unix socket"""

    async def start(self, config: AdminConfig, address_path: str, inherited: socket.socket | None = None) -> None:
        """Bind and serve. On a socket of the process before us we serve only when `take_back` is called. Raises ConfigError."""
        address = config.address
        try:
            sock = inherited or _bind(address)
        except OSError as error:
            raise ConfigError("admin.address", f"cannot bind {address}: {error.strerror}") from None
        self._socket = sock
        if address.path:
            self._path = "" if address.path.startswith("@") or inherited is not None else address.path
            local = address.path
        else:
            local = str(AddressConfig(host=address.host, port=sock.getsockname()[1]))
        self._addresses = {str(address), local}
        self.local = local
        self._supervisor.stats.extra += self._server.stats.groups
        if config.access_logs:
            self._open_logs(config)
        if inherited is None:
            await self.take_back()
        _log.info("admin address: %s", local)
        if address_path:
            _write_address(address_path, local)

    def _open_logs(self, config: AdminConfig) -> None:
        supervisor = self._supervisor
        registry = StatRegistry()
        self._sinks = SinkSet(registry, flush_interval_s=supervisor.options.file_flush_interval_msec / 1000)
        try:
            loggers = [AccessLogger(log, self._sinks, supervisor.bootstrap.runtime) for log in config.access_logs]
        except ValueError as error:
            raise ConfigError("admin.access_log", str(error)) from None
        supervisor.stats.extra += registry

        def write(info: StreamInfo) -> None:
            for logger in loggers:
                logger.log(info)

        self._server.access_log = write

    def socket_for(self, address: str) -> socket.socket | None:
        """The listening socket, for a new process whose admin interface has this address."""
        return self._socket if address in self._addresses else None

    def give_away(self) -> None:
        """A new process answers there. Connections that are open stay until they end."""
        self._path = ""
        self._server.stop_accepting()

    async def ended(self, timeout_s: float) -> None:
        """After `give_away`: wait for the answers in progress."""
        await self._server.ended(timeout_s)

    async def take_back(self) -> None:
        """Accept, at the start or again."""
        if self._socket is None:
            return
        path = self._socket.getsockname() if self._socket.family == socket.AF_UNIX else ""
        self._path = path if isinstance(path, str) else ""
        await self._server.start(self._socket.dup())

    def reopen_logs(self) -> None:
        """After a rotation."""
        if self._sinks is not None:
            self._sinks.reopen()

    def close(self) -> None:
        """Stop serving."""
        self._server.close()
        if self._sinks is not None:
            self._sinks.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._path:
            try:
                os.unlink(self._path)
            except OSError:
                pass  # somebody else removed it


def _write_address(path: str, address: str) -> None:
    try:
        Path(path).write_text(address)
    except OSError as error:
        _log.error("cannot write the admin address to %s: %s", path, error.strerror)


def _bind(address: AddressConfig) -> socket.socket:
    if address.path:
        return bind_unix(dataclasses.replace(address, mode=address.mode or UNIX_MODE))
    v6 = ":" in address.host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.ipv4_compat else 1)
        sock.bind((address.host, address.port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock
