"""mesh-proxy with a data plane that only echoes lines, so that the processes can be tested by themselves.

Each connection is greeted with `<worker index> <pid>`. Lines that are commands: `crash` (SIGKILL to itself), `hang` (the loop
stops for ever), `close`. Everything else comes back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from mesh_proxy.cli import main
from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.explain.question import Question
from mesh_proxy.listener.mover import Mover, MovingState
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.groups import ListenerStats
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.worker.interface import SocketKey
from mesh_proxy.worker.options import WorkerOptions
from mesh_proxy.worker.shared import SharedTables


class EchoPlane:
    """The smallest thing that a worker can drive."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, worker_index: int, options: WorkerOptions, shared: SharedTables | None
    ) -> None:
        self.loop = loop
        self.index = worker_index
        self.registry = StatRegistry()
        self.servers: list[asyncio.Server] = []
        self.connections: set[Echo] = set()
        self.idle: asyncio.Event = asyncio.Event()
        if os.environ.get("ECHO_DIE_AT_START"):
            os._exit(3)

    async def apply(self, snapshot: WorkerSnapshot, sockets: dict[SocketKey, socket.socket]) -> None:
        if self.index == 1 and any(one.name == "stuck" for one in snapshot.listeners) and is_stuck():
            await asyncio.Event().wait()
        for (_, address, _), sock in sockets.items():
            stats = self.registry.get(ListenerStats, f"listener.{address.replace(':', '_')}.")
            self.servers.append(await self.loop.create_server(lambda stats=stats: Echo(self, stats), sock=sock, backlog=4096))

    def start_drain(self, *, inbound_only: bool = False, graceful: bool = True) -> None:
        for connection in list(self.connections):
            connection.transport.write(b"draining\n")

    def stop_listening(self, *, inbound_only: bool = False) -> None:
        for server in self.servers:
            server.close()
        self.servers.clear()

    def share_sockets(self, shared: bool) -> None:
        pass

    def hand_over(self, passed: frozenset[tuple[str, str]], mover: Mover) -> None:
        self.stop_listening()

    def adopt(self, listener: str, moved: MovingState, sock: socket.socket) -> Any:
        raise ValueError("an echo cannot move")

    def intercepted(self, action: str) -> int:
        return 0

    def resume(self) -> None:
        pass

    @property
    def active_connections(self) -> int:
        return len(self.connections)

    async def wait_drained(self, deadline_s: float) -> bool:
        try:
            async with asyncio.timeout(deadline_s):
                while self.connections:
                    self.idle.clear()
                    await self.idle.wait()
        except TimeoutError:
            return False
        return True

    def set_health_check_failed(self, failed: bool) -> None:
        self.registry.get(ClusterStats, "cluster.health.").version = int(failed)

    def reopen_logs(self) -> None:
        self.registry.get(ClusterStats, "cluster.reopened.").update_attempt += 1

    def describe_clusters(self) -> list[dict[str, Any]]:
        return []

    def use_traces(self, descriptor: int) -> None:
        pass

    def explain(self, question: Question) -> dict[str, Any]:
        return {}

    def set_log_levels(self, levels: Mapping[str, str]) -> None:
        pass

    def close(self) -> None:
        self.stop_listening()
        for connection in list(self.connections):
            connection.transport.abort()


def is_stuck() -> bool:
    """Whether a file says that this worker shall not take its version."""
    path = Path(os.environ.get("ECHO_STUCK", "/nonexistent"))
    if not path.exists():
        return False
    if path.read_text() == "once":
        path.unlink()
    return True


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, plane: EchoPlane, stats: ListenerStats) -> None:
        self.plane = plane
        self.stats = stats

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self.plane.connections.add(self)
        self.stats.downstream_cx_total += 1
        self.stats.downstream_cx_active += 1
        self.stats.downstream_cx_length_ms.record(3)
        transport.write(f"{self.plane.index} {os.getpid()}\n".encode())

    def data_received(self, data: bytes) -> None:
        if data == b"crash\n":
            os.kill(os.getpid(), signal.SIGKILL)
        elif data == b"hang\n":
            while True:
                time.sleep(60)
        elif data == b"fds\n":
            self.transport.write(" ".join(sorted(os.listdir("/proc/self/fd"), key=int)).encode() + b"\n")
        elif data == b"modules\n":
            heavy = [name for name in ("google.protobuf", "yaml", "grpc", "envoy", "prometheus_client") if name in sys.modules]
            self.transport.write(" ".join(heavy).encode() + b"\n")
        elif data == b"close\n":
            self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.plane.connections.discard(self)
        self.plane.idle.set()
        self.stats.downstream_cx_active -= 1


if __name__ == "__main__":
    if "ECHO_HANG_TIMEOUT" in os.environ:
        from mesh_proxy.supervisor import pool

        pool.HANG_TIMEOUT_S = float(os.environ["ECHO_HANG_TIMEOUT"])
    if "ECHO_APPLY_DEADLINE" in os.environ:
        from mesh_proxy.supervisor import rollout

        rollout.APPLY_DEADLINE_S = float(os.environ["ECHO_APPLY_DEADLINE"])
    sys.exit(main(factory=EchoPlane))
