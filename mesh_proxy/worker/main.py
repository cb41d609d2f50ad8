"""A worker process: answers the supervisor's messages by driving one data plane."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import uvloop

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.explain.question import Question
from mesh_proxy.listener.mover import Mover
from mesh_proxy.logs import configure_logging, reopen_log, set_levels
from mesh_proxy.stats.group import reset_group
from mesh_proxy.stats.page import PageWriter
from mesh_proxy.tasks import create_task
from mesh_proxy.worker import messages as m
from mesh_proxy.worker.channel import Channel
from mesh_proxy.worker.interface import DataPlaneApi, DataPlaneFactory, SocketKey
from mesh_proxy.worker.memory import keep_freed_memory
from mesh_proxy.worker.options import WorkerOptions
from mesh_proxy.worker.shared import SharedTables

FLUSH_INTERVAL_S: Final = 1.0
"""how often counts go to the shared page: what a crash may lose, and how old a scrape may be"""
FLUSH_SLICE: Final = 250
"""groups written per callback, about a millisecond"""
FLUSH_ON_DEMAND: Final = 1000
"""more groups than this are not written because somebody looks: it would hold up the traffic for milliseconds"""
TIDY_AFTER_S: Final = 5.0
"""how long after an update the remains of the configuration before it are collected; a storm of updates is one"""
TIDY_SHARE: Final = 50
"""collecting takes at most the reciprocal of this of the time"""
GC_THRESHOLDS: Final = (20_000, 20, 50)
"""the data path leaves no cycles behind, so the collector need not look often"""
ORPHAN_DRAIN_S: Final = 5.0
"""longest drain when the supervisor is gone; the spawner kills after 10 s"""

_log = logging.getLogger("main")


def run_worker(
    index: int,
    control: socket.socket,
    page_fd: int,
    *,
    options: WorkerOptions,
    shared: SharedTables | None,
    factory: DataPlaneFactory,
) -> int:
    """The whole life of a worker process; its exit code."""
    configure_logging(options)
    gc.set_threshold(*GC_THRESHOLDS)
    keep_freed_memory()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(loop, index, control, page_fd, options, shared, factory)
    try:
        loop.run_until_complete(worker.finished)
    finally:
        worker.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    return 0


class _Worker:
    """Channel on one side, data plane on the other."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        index: int,
        control: socket.socket,
        page_fd: int,
        options: WorkerOptions,
        shared: SharedTables | None,
        factory: DataPlaneFactory,
    ) -> None:
        self.finished: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._index = index
        self._draining = False
        self._applying = False
        self._tidying: asyncio.TimerHandle | None = None
        self._tidied_once = False
        self._mover: Mover | None = None
        self._adopted: dict[int, Any] = {}
        """connections to whose callers the process before us still owes something, by number"""
        self._handing_over: asyncio.Task[None] | None = None
        self._handed_over = False
        self._versions: deque[tuple[WorkerSnapshot, dict[SocketKey, socket.socket]]] = deque()
        self._sockets: dict[SocketKey, socket.socket] = {}
        """received, for the next version"""
        self._plane: DataPlaneApi = factory(loop, worker_index=index, options=options, shared=shared)
        self._channel = Channel(loop, control, self._on_message, self._on_orphaned)
        self._page = PageWriter(page_fd, self._plane.registry, self._channel.send)
        self._flush_timer = loop.call_later(FLUSH_INTERVAL_S, self._flush)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)

    def close(self) -> None:
        """Last counts to the page, everything closed."""
        self._flush_timer.cancel()
        self._plane.close()
        self._page.flush()
        self._channel.close()
        self._page.close()

    def _flush(self) -> None:
        complete = self._page.flush(FLUSH_SLICE)
        self._flush_timer = self._loop.call_later(FLUSH_INTERVAL_S if complete else 0.001, self._flush)

    def _flush_and_say(self, request_id: int) -> None:
        """In a turn of its own: a connection that was let go in this one is counted until then."""
        if len(self._plane.registry) <= FLUSH_ON_DEMAND:
            self._flush_now()
        self._channel.send(m.Done(request_id))

    def _flush_now(self) -> None:
        while not self._page.flush():
            pass

    def _on_message(self, message: Any, fds: list[int]) -> None:
        match message:
            case m.Ping(sequence):
                self._channel.send(m.Pong(sequence, self._plane.active_connections))
            case m.Sockets(keys):
                for key, fd in zip(keys, fds, strict=True):
                    sock = socket.socket(fileno=fd)
                    sock.setblocking(False)
                    self._sockets[key] = sock
            case m.Apply(snapshot):
                self._versions.append((snapshot, self._sockets))
                self._sockets = {}
                if not self._applying:
                    self._applying = True
                    create_task(self._apply_all(), name="apply")
            case m.ResetCounters():
                for group in self._plane.registry:
                    reset_group(group)
            case m.Flush(request_id):
                self._loop.call_soon(self._flush_and_say, request_id)
            case m.Sync(request_id):
                self._channel.send(m.Done(request_id))
            case m.FreeRegions(offsets):
                self._page.free(offsets)
            case m.Intercepted(request_id, action):
                self._channel.send(m.InterceptedCount(request_id, self._plane.intercepted(action)))
            case m.DescribeClusters(request_id):
                self._channel.send(m.Clusters(request_id, self._plane.describe_clusters()))
            case m.Explain(request_id, question):
                self._channel.send(m.Explained(request_id, self._explain(question)))
            case m.StartDrain(inbound_only, graceful):
                self._plane.start_drain(inbound_only=inbound_only, graceful=graceful)
            case m.StopListening(inbound_only):
                self._stop_listening(inbound_only)
            case m.SetHealthCheck(failed):
                self._plane.set_health_check_failed(failed)
            case m.ReopenLogs():
                reopen_log()
                self._plane.reopen_logs()
            case m.UseTraces():
                self._plane.use_traces(fds[0])
                os.close(fds[0])
            case m.SetLogLevels(levels):
                set_levels(levels)
                self._plane.set_log_levels(levels)
            case m.DrainAndExit(deadline_s):
                self._drain_and_exit(deadline_s)
            case m.ShareSockets(shared):
                self._plane.share_sockets(shared)
            case m.HandOver(passed, deadline_s):
                self._mover = Mover(self._loop, self._send_moving)
                self._handing_over = create_task(self._hand_over(deadline_s), name="hand over")
                self._plane.hand_over(passed, self._mover)
            case m.Settled(number, adopted, why):
                if self._mover is not None:
                    self._mover.settle(number, adopted, why)
            case m.Adopt():
                self._adopt(message, socket.socket(fileno=fds[0]))
            case m.Late(number, data):
                if number in self._adopted:
                    self._adopted[number].write_late(data)
            case m.NothingOwed():
                for connection in self._adopted.values():
                    connection.write_late(b"")
                self._adopted.clear()
            case m.Resume():
                if self._handing_over is not None:
                    self._handing_over.cancel()
                    self._handing_over = None
                self._handed_over = False
                self._plane.resume()
                if self._mover is not None:
                    self._mover.cancel()
                    self._mover = None
            case m.Exit():
                self._finish()
            case _:
                raise AssertionError(message)

    def _explain(self, question: Question) -> dict[str, Any]:
        try:
            return self._plane.explain(question)
        except Exception as error:  # a description must not end a worker
            _log.exception("worker %d cannot explain %r", self._index, question)
            return {"result": "failed", "why": f"{type(error).__name__}: {error}"}

    async def _apply_all(self) -> None:
        """Versions in order, one at a time; the oldest first, for its sockets."""
        while self._versions:
            snapshot, sockets = self._versions.popleft()
            try:
                await self._plane.apply(snapshot, sockets)
            except ConfigError as error:
                _close_all(sockets)
                self._channel.send(m.Rejected(snapshot.version, error.path, error.why))
            except Exception as error:
                _log.exception("worker %d cannot apply version %d", self._index, snapshot.version)
                self._channel.send(m.Rejected(snapshot.version, "", f"{type(error).__name__}: {error}"))
            else:
                try:
                    self._flush_now()  # so that the first scrape finds every group that the version made
                except Exception:  # statistics are not worth a worker that takes no more versions
                    _log.exception("worker %d cannot write its statistics", self._index)
                self._channel.send(m.Applied(snapshot.version))
        self._applying = False
        if self._tidying is None:
            self._tidying = self._loop.call_later(0.0 if not self._tidied_once else TIDY_AFTER_S, self._tidy)

    def _tidy(self) -> None:
        """A configuration lives long, and the collector need not walk it; but what older ones left in cycles must go."""
        began = self._loop.time()
        if self._tidied_once:
            gc.unfreeze()  # walks, and thereby copies, what the processes share: not for a configuration that never changes
        self._tidied_once = True
        gc.collect()
        gc.freeze()
        self._tidying = None
        pause = (self._loop.time() - began) * TIDY_SHARE
        if pause > TIDY_AFTER_S:
            self._tidying = self._loop.call_later(pause, self._rested)

    def _rested(self) -> None:
        self._tidying = None

    def _on_orphaned(self) -> None:
        if not self._draining:
            _log.critical("worker %d: the supervisor is gone, draining", self._index)
        if self._mover is not None:
            self._mover.abandon()
        self._drain_and_exit(ORPHAN_DRAIN_S)

    def _on_terminate(self) -> None:
        """From the kernel when the spawner dies, or from somebody who signals the whole process group."""
        self._drain_and_exit(ORPHAN_DRAIN_S)

    def _drain_and_exit(self, deadline_s: float) -> None:
        if not self._draining:
            self._draining = True
            create_task(self._drain(deadline_s), name="drain")

    def _stop_listening(self, inbound_only: bool) -> None:
        self._plane.stop_listening(inbound_only=inbound_only)
        self._channel.send(m.ListeningStopped(inbound_only))

    async def _drain(self, deadline_s: float) -> None:
        self._plane.start_drain(graceful=True)
        self._stop_listening(inbound_only=False)
        if not await self._plane.wait_drained(deadline_s):
            _log.warning("worker %d: %d connections cut at the drain deadline", self._index, self._plane.active_connections)
        self._finish()

    async def _hand_over(self, deadline_s: float) -> None:
        """Connections go to the new process or end; then there is nothing left to do here."""
        before = self._plane.active_connections
        drained = await self._plane.wait_drained(deadline_s)
        self._handed_over = True
        self._flush_now()
        moved = self._mover.moved if self._mover is not None else 0
        cut = 0 if drained else self._plane.active_connections
        self._channel.send(m.HandedOver(moved, max(before - moved - cut, 0), cut))

    def _send_moving(self, what: str, number: int, content: Any, descriptors: Sequence[int]) -> None:
        if what == "offer":
            moved, listener = content
            self._channel.send(m.Offer(number, listener, moved), descriptors)
        else:
            self._channel.send(m.Late(number, content))

    def _adopt(self, message: m.Adopt, sock: socket.socket) -> None:
        try:
            if self._handed_over:
                raise ValueError("this worker has given all its connections away, and ends")
            connection = self._plane.adopt(message.listener, message.moved, sock)
        except (ValueError, OSError) as error:
            sock.close()
            self._channel.send(m.Adopted(message.number, False, str(error)))
            return
        if message.moved.facts.get("late"):
            self._adopted = {number: one for number, one in self._adopted.items() if not one.closed}
            self._adopted[message.number] = connection
        self._channel.send(m.Adopted(message.number, True))

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


def _close_all(sockets: dict[SocketKey, socket.socket]) -> None:
    """Those of a version that was refused."""
    for one in sockets.values():
        one.close()
