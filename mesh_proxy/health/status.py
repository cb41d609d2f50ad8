"""The status ports: readiness, probes of the application, metrics, and the end, under the paths of Istio's agent.

Unlike the admin interface they are open to the kubelet, and so to the whole cluster: whatever changes something is taken from
this machine alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mesh_proxy.admin import stats
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text
from mesh_proxy.admin.server import AdminServer
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.health.probers import VARIABLE, ProbersError, Verdict, ask, parse

if TYPE_CHECKING:
    from mesh_proxy.health.probers import Prober
    from mesh_proxy.supervisor.supervisor import Supervisor

READY_PATHS: Final = ("/healthz/ready", "/ready")
METRIC_PATHS: Final = ("/stats/prometheus", "/metrics")
_log = logging.getLogger("health")


class StatusServer:
    """Answers on every port that `--status-port` names."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._servers: list[AdminServer] = []
        self._probers: dict[str, Prober] = {}
        self._application = "127.0.0.1"
        self.ports: list[int] = []
        """as bound"""

    async def start(self, ports: tuple[int, ...], environment: Mapping[str, str] = os.environ) -> None:
        """Bind and serve. Raises ConfigError."""
        if not ports:
            return
        try:
            self._probers = parse(environment.get(VARIABLE, ""))
        except ProbersError as error:
            raise ConfigError("", str(error)) from None
        self._application = environment.get("INSTANCE_IP") or "127.0.0.1"
        for port in ports:
            try:
                sock = _bind(port)
            except OSError as error:
                raise ConfigError("", f"--status-port {port}: {error.strerror}") from None
            # In a hot upgrade both processes answer until the old one has given way: each for itself.
            server = AdminServer(self._loop, self._answer)
            self._servers.append(server)
            self.ports.append(sock.getsockname()[1])
            await server.start(sock)
        _log.info("status ports: %s", ", ".join(map(str, self.ports)))

    def close(self) -> None:
        """Give the ports up."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        path = request.path
        prober = self._probers.get(path)
        if prober is not None:
            return _verdict(await ask(prober, self._application))
        if path in READY_PATHS:
            why = self._supervisor.not_ready()
            return text(f"{why}\n", 503) if why else text("ready\n")
        if path in METRIC_PATHS:
            return await stats.prometheus(self._supervisor, request)
        if path in ("/quitquitquit", "/drain"):
            return self._end(request)
        if path.startswith("/app-health/"):
            return text(f"{VARIABLE} has no {path}\n", 404)
        return text("not found\n", 404)

    def _end(self, request: AdminRequest) -> AdminResponse:
        if not _is_local(request.peer):
            return text("only from this machine\n", 403)
        if request.method != "POST" or request.origin is not None:
            return text("POST required, from a program\n", 405)
        if request.path == "/drain":
            self._supervisor.drain_listeners(inbound_only=True, graceful=True, skip_exit=True)
            return text("OK\n")
        return text("OK\n", then=self._supervisor.stop_now)


def _verdict(found: Verdict) -> AdminResponse:
    return AdminResponse(status=found.status if 200 <= found.status < 600 else 500, body=found.body)


def _is_local(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _bind(port: int) -> socket.socket:
    """On all addresses of both IP versions, where there are both."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        host = "::"
    except OSError:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        host = "0.0.0.0"
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock
