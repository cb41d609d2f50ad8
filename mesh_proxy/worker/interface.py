"""What the worker process asks of the data plane that it drives; a Protocol, so that tests may drive a small fake.

The order of calls: construct (no input or output yet) -> `apply` (as often as there is a new version) -> perhaps
`start_drain` and `stop_listening` -> `wait_drained` -> `close`. All of them run on the loop's thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.explain.question import Question
from mesh_proxy.listener.mover import Mover, MovingState
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.worker.options import WorkerOptions
from mesh_proxy.worker.shared import SharedTables

SocketKey = tuple[str, str, int]
"""(listener name, `str(AddressConfig)`, number): a listening socket is known by name and address, never by position. The number
is above 0 only when a worker has several sockets of one address, after a hot upgrade from more workers"""


class DataPlaneApi(Protocol):
    """One worker's data plane (`mesh_proxy.worker.data_plane.DataPlane`)."""

    registry: StatRegistry
    """every group that this worker publishes; read by the flush once a second"""

    async def apply(self, snapshot: WorkerSnapshot, sockets: dict[SocketKey, socket.socket]) -> None:
        """Make a version live; listeners that did not change keep their connections. Returns when it serves.

        `sockets` holds the bound and listening sockets for every listener address with `bind_to_port` that is new to this
        worker, and is the data plane's from then on. Raises ConfigError and leaves the old version in place if it cannot.
        """

    def start_drain(self, *, inbound_only: bool = False, graceful: bool = True) -> None:
        """Begin to ask peers to go away (`Connection: close`, GOAWAY); keep accepting when graceful."""

    def stop_listening(self, *, inbound_only: bool = False) -> None:
        """Stop accepting and give up the listening sockets; established connections go on."""

    def share_sockets(self, shared: bool) -> None:
        """Another process may hold the listening sockets as well, until told otherwise: closing ours must not disturb it."""

    def hand_over(self, passed: frozenset[tuple[str, str]], mover: Mover) -> None:
        """A new process accepts from the sockets of these listeners (name, address): close our copies, stop accepting from the
        others, and offer the connections to the mover, each when nothing is in progress on it."""

    def adopt(self, listener: str, moved: MovingState, sock: socket.socket) -> Any:
        """Go on with a connection of the process before us; an object with `write_late(bytes)`. Raises ValueError and OSError."""

    def intercepted(self, action: str) -> int:
        """How many connections were redirected to us, with those that are just being accepted; `drain` asks them to leave, `cut`
        ends them, empty does nothing to them."""

    def resume(self) -> None:
        """The new process is gone: undo `hand_over`. The sockets come again with the next version."""

    @property
    def active_connections(self) -> int:
        """Downstream connections that are open now."""

    async def wait_drained(self, deadline_s: float) -> bool:
        """Wait until no downstream connection is left; False when that took longer than deadline_s."""

    def set_health_check_failed(self, failed: bool) -> None:
        """`/healthcheck/fail` and `/healthcheck/ok`."""

    def reopen_logs(self) -> None:
        """Close and open again the access-log files (SIGUSR1, `/reopen_logs`)."""

    def describe_clusters(self) -> list[dict[str, Any]]:
        """One entry per cluster with the state of its endpoints, for `/clusters`; see `mesh_proxy.admin.clusters`."""

    def explain(self, question: Question) -> dict[str, Any]:
        """Which way a described request would go, for `/route_explain`."""

    def use_traces(self, descriptor: int) -> None:
        """The labels of traces are in this memory from now on (`worker/trace_memory.py`); the descriptor stays the caller's."""

    def set_log_levels(self, levels: Mapping[str, str]) -> None:
        """New level by component name; the application log's own levels are already set."""

    def close(self) -> None:
        """Abort every connection and release everything; the process ends after it."""


class DataPlaneFactory(Protocol):
    """Makes the data plane of one worker."""

    def __call__(
        self, loop: asyncio.AbstractEventLoop, *, worker_index: int, options: WorkerOptions, shared: SharedTables | None
    ) -> DataPlaneApi:
        """Construct it; no input or output yet."""
