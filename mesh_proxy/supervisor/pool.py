"""The workers: started, told every new version, watched, replaced."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.stats.aggregate import StatsAggregator
from mesh_proxy.stats.page import PageReader, create_page
from mesh_proxy.supervisor.groups import SupervisorStats
from mesh_proxy.supervisor.moving import Arrivals, Departures
from mesh_proxy.supervisor.questions import Questions
from mesh_proxy.supervisor.rollout import Rollout, StartError
from mesh_proxy.supervisor.sockets import ListenSockets
from mesh_proxy.supervisor.spawner_client import SpawnerClient
from mesh_proxy.supervisor.worker_handle import WorkerHandle
from mesh_proxy.worker import messages as m
from mesh_proxy.worker import trace_memory

PING_INTERVAL_S: Final = 1.0
HANG_TIMEOUT_S = 10.0
"""a worker that has not answered for so long is killed; taking a configuration with thousands of clusters takes seconds"""
QUICK_DEATH_S: Final = 10.0
"""a worker that lived shorter is replaced with back-off"""
FIRST_BACKOFF_S: Final = 0.1
"""after the second quick death in a row; the first is replaced at once"""
MAX_BACKOFF_S: Final = 5.0
START_ATTEMPTS: Final = 3
"""deaths of one worker before the first version is live that make the start fail"""
EXIT_GRACE_S: Final = 2.0
"""how long a worker may take from its deadline, or from Exit, to its end"""

_log = logging.getLogger("main")


_Sticky = m.SetHealthCheck | m.SetLogLevels | m.StartDrain | m.StopListening | m.ShareSockets
"""commands that describe a state, and not an event"""


@dataclass(slots=True)
class _Slot:
    """What outlives the worker in it."""

    handle: WorkerHandle | None = None
    quick_deaths: int = 0
    respawn: asyncio.TimerHandle | None = None


class WorkerPool:
    """One slot per worker index."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spawner: SpawnerClient,
        sockets: ListenSockets,
        aggregator: StatsAggregator,
        stats: SupervisorStats,
        *,
        concurrency: int,
    ) -> None:
        self._loop = loop
        self._spawner = spawner
        self._sockets = sockets
        self._aggregator = aggregator
        self._stats = stats
        self._slots = [_Slot() for _ in range(concurrency)]
        self._tokens: dict[int, WorkerHandle] = {}
        self._next_token = 1
        self._snapshot: WorkerSnapshot | None = None
        self._rollout = Rollout(loop, stats, lambda: [slot.handle for slot in self._slots])
        self._questions = Questions(loop)
        self._sequence = 0
        self._stopping = False
        self._sharing: set[str] = set()
        self._retiring: m.HandOver | None = None
        """a new process accepts: who dies now is not replaced"""
        self._handed_over: asyncio.Future[tuple[int, int, int]] | None = None
        self._counts = (0, 0, 0)
        self.departures: Departures | None = None
        """where connections go that leave for a new process"""
        self.arrivals: Arrivals | None = None
        """what comes from an old process"""
        self._empty: asyncio.Future[None] | None = None
        self._sticky: dict[str, _Sticky] = {}
        """commands that a replaced worker must hear too"""
        self.traces = trace_memory.make_table()
        """descriptor of the memory of traces that all workers use"""
        self._ticked_at = loop.time()
        self._ping_timer: asyncio.TimerHandle | None = None
        spawner.on_spawned = self._on_spawned
        spawner.on_exited = self._on_exited

    # Starting and replacing.

    def start(self) -> None:
        """Ask for all workers; they come up while the configuration is read."""
        for index in range(len(self._slots)):
            self._spawn(index)
        self._ticked_at = self._loop.time()
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._tick)

    def _spawn(self, index: int) -> None:
        slot = self._slots[index]
        slot.respawn = None
        token = self._next_token
        self._next_token += 1
        ours, theirs = socket.socketpair()
        page = create_page(f"mesh-proxy-stats-{index}")
        handle = WorkerHandle(self._loop, index=index, token=token, control=ours, on_message=self._on_message)
        self._tokens[token] = handle
        slot.handle = handle
        self._aggregator.add_worker(token, index, PageReader(os.dup(page)))
        self._spawner.spawn(index, token, theirs.fileno(), page)
        theirs.close()
        os.close(page)
        handle.channel.send(m.UseTraces(), [self.traces])
        for command in self._sticky.values():
            handle.channel.send(command)
        if self._snapshot is not None:
            handle.apply(self._snapshot, self._sockets.for_worker(index))

    def _on_spawned(self, token: int, pid: int) -> None:
        handle = self._tokens.get(token)
        if handle is not None:
            handle.spawned(pid)
            _log.debug("worker %d started, pid %d", handle.index, pid)

    def _on_exited(self, token: int, status: int) -> None:
        handle = self._tokens.pop(token, None)
        if handle is None:
            return
        handle.channel.receive_rest()
        handle.close()
        self._aggregator.remove_worker(token)
        self._questions.worker_lost(handle)
        slot = self._slots[handle.index]
        slot.handle = None
        code = os.waitstatus_to_exitcode(status)
        if self.arrivals is not None:
            self.arrivals.worker_lost(token)
        if self._retiring is not None and not handle.handed_over:
            self._check_handed_over()
        if self._stopping:
            if not self._tokens and self._empty is not None and not self._empty.done():
                self._empty.set_result(None)
            return
        self._stats.worker_exits += 1
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        if self._retiring is not None:
            _log.error("worker %d (pid %d) ended: %s; a new process serves already", handle.index, handle.pid, how)
            return
        lived = self._loop.time() - handle.started_at
        slot.quick_deaths = slot.quick_deaths + 1 if lived < QUICK_DEATH_S else 0
        if not self._rollout.ever_live and slot.quick_deaths >= START_ATTEMPTS:
            self._rollout.give_up(StartError(f"worker {handle.index} does not start ({how}, {slot.quick_deaths} times)"))
            return
        delay = 0.0
        if slot.quick_deaths > 1:
            delay = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(slot.quick_deaths - 2, 16))
        _log.error("worker %d (pid %d) ended: %s; replacing it in %.1f s", handle.index, handle.pid, how, delay)
        self._stats.worker_restarts += 1
        if delay:
            slot.respawn = self._loop.call_later(delay, self._spawn, handle.index)
        else:
            self._spawn(handle.index)

    # Versions.

    async def apply(self, snapshot: WorkerSnapshot) -> None:
        """Ship a version; returns when it is live in every worker.

        Raises:
            ConfigError: a worker refuses it, or does not take it in time.
            StartError: the workers do not come up.
        """
        done = self._rollout.expect(snapshot.version)
        self._snapshot = snapshot
        for slot in self._slots:
            if slot.handle is not None:
                slot.handle.apply(snapshot, self._sockets.for_worker(slot.handle.index))
        await done

    # Talking.

    def broadcast(self, message: object, *, sticky: str = "") -> None:
        """Send to every worker; a sticky one also to each worker that comes later, the newest under each name."""
        if sticky:
            assert isinstance(message, _Sticky)
            self._sticky[sticky] = message
        for handle in self._tokens.values():
            handle.channel.send(message)

    def use_traces(self, descriptor: int) -> None:
        """Go on with the traces that another process has remembered; the descriptor is ours from now on."""
        if not trace_memory.is_table(descriptor):
            os.close(descriptor)
            return
        os.close(self.traces)
        self.traces = descriptor
        for handle in self._tokens.values():
            handle.channel.send(m.UseTraces(), [descriptor])

    async def ask(self, question: Callable[[int], object], timeout_s: float = 1.0, *, most: int | None = None) -> dict[int, Any]:
        """Ask every worker, or so many of them; answers by worker index. One that does not answer in time is left out."""
        return await self._questions.ask(self.workers[:most], question, timeout_s)

    def by_token(self, token: int) -> WorkerHandle | None:
        """A living worker."""
        return self._tokens.get(token)

    def _on_message(self, handle: WorkerHandle, message: Any, descriptors: list[int]) -> None:
        match message:
            case m.Pong(_, active_connections):
                handle.last_pong = self._loop.time()
                handle.active_connections = active_connections
            case m.Layout():
                freed = self._aggregator.add_layout(handle.token, message)
                if freed:
                    handle.channel.send(m.FreeRegions(freed))
            case m.Applied(version):
                handle.applied_version = version
                self._rollout.taken()
            case m.Rejected(version, path, why):
                self._rollout.rejected(handle, version, path, why)
            case m.ListeningStopped(inbound_only):
                handle.stopped_listening |= {"INBOUND"} if inbound_only else {"INBOUND", "OUTBOUND", "UNSPECIFIED"}
                self._close_unused_sockets()
            case m.Offer():
                if self.departures is not None:
                    self.departures.leave(handle, message, descriptors)
            case m.Late():
                if self.departures is not None:
                    self.departures.late(handle, message)
            case m.Adopted():
                if self.arrivals is not None:
                    self.arrivals.answered(message)
            case m.HandedOver(moved, drained, cut):
                if not handle.handed_over:
                    handle.handed_over = True
                    counts = self._counts
                    self._counts = (counts[0] + moved, counts[1] + drained, counts[2] + cut)
                    self._check_handed_over()
            case m.Clusters(request_id, clusters):
                self._questions.answered(request_id, handle, clusters)
            case m.Explained(request_id, explanation):
                self._questions.answered(request_id, handle, explanation)
            case m.InterceptedCount(request_id, connections):
                self._questions.answered(request_id, handle, connections)
            case m.Done(request_id):
                self._questions.answered(request_id, handle, True)
            case _:
                raise AssertionError(message)

    def _close_unused_sockets(self) -> None:
        """Our copies go when no worker accepts any more, so that a peer is refused instead of waiting for ever."""
        stopped = set.intersection(*(handle.stopped_listening for handle in self._tokens.values()))
        if stopped and self._snapshot is not None:
            self._sockets.retain([x for x in self._snapshot.listeners if x.traffic_direction not in stopped])

    # Giving way to a new process.

    @property
    def retiring(self) -> bool:
        """A new process serves."""
        return self._retiring is not None

    def share_sockets(self, whom: str, shared: bool) -> None:
        """Another process, the one before us or the one after us, accepts from the listening sockets too or may do so again; or
        no longer."""
        if shared:
            self._sharing.add(whom)
        else:
            self._sharing.discard(whom)
        self.broadcast(m.ShareSockets(bool(self._sharing)), sticky="share")

    async def hand_over(self, passed: frozenset[tuple[str, str]], deadline_s: float) -> tuple[int, int, int]:
        """A new process accepts from these listeners (name, address): let all connections go. Returns when none is left: how many
        have moved, how many have ended by themselves, and how many the deadline is about to cut."""
        self._retiring = m.HandOver(passed, deadline_s)
        self._counts = (0, 0, 0)
        for slot in self._slots:
            if slot.respawn is not None:
                slot.respawn.cancel()
                slot.respawn = None
        for handle in self._tokens.values():
            handle.handed_over = False
        self._handed_over = self._loop.create_future()
        self.broadcast(self._retiring)
        self._check_handed_over()
        return await self._handed_over

    def _check_handed_over(self) -> None:
        done = self._handed_over
        if done is not None and not done.done() and all(handle.handed_over for handle in self._tokens.values()):
            done.set_result(self._counts)

    def resume(self) -> None:
        """The new process is gone: workers get their sockets again, with the next version."""
        assert self._retiring is not None
        passed = self._retiring.passed
        self._retiring = None
        for handle in self._tokens.values():
            handle.handed_over = False
            handle.forget_sockets(passed)
            handle.channel.send(m.Resume())
        for index, slot in enumerate(self._slots):
            if slot.handle is None:
                self._spawn(index)

    # Watching.

    def _tick(self) -> None:
        now = self._loop.time()
        late = now - self._ticked_at - PING_INTERVAL_S
        self._ticked_at = now
        self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._tick)
        self._sequence += 1
        self._rollout.check_deadlines(PING_INTERVAL_S)
        for handle in self._tokens.values():
            if not handle.pid:
                continue
            if late > PING_INTERVAL_S:  # it was us who slept (SIGSTOP, suspended machine): be fair
                handle.last_pong = now
            if now - handle.last_pong > HANG_TIMEOUT_S and not handle.hung:
                handle.hung = True
                self._stats.worker_hangs += 1
                silent = now - handle.last_pong
                _log.critical("worker %d (pid %d) has not answered for %.1f s: killing it", handle.index, handle.pid, silent)
                handle.kill()
            else:
                handle.channel.send(m.Ping(self._sequence))

    # Ending.

    async def drain_and_stop(self, deadline_s: float) -> None:
        """Let every worker finish its connections, then end."""
        await self._stop(m.DrainAndExit(deadline_s), deadline_s)

    def spawner_lost(self) -> None:
        """Nobody reports deaths any more: look at the workers' pidfds."""
        for handle in self._tokens.values():
            handle.watch(functools.partial(self._on_exited, handle.token, 0))

    async def stop_now(self) -> None:
        """End every worker at once."""
        await self._stop(m.Exit(), 0.0)

    async def _stop(self, message: object, deadline_s: float) -> None:
        self._stopping = True
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        for slot in self._slots:
            if slot.respawn is not None:
                slot.respawn.cancel()
        self._rollout.fail(StartError("stopped"))
        self.broadcast(message)
        if not self._tokens:
            return
        if self._empty is None:
            self._empty = self._loop.create_future()
        await asyncio.wait([self._empty], timeout=deadline_s + EXIT_GRACE_S)
        if self._tokens:
            for handle in self._tokens.values():
                _log.warning("worker %d (pid %d) does not end: killing it", handle.index, handle.pid)
                handle.kill()
            await asyncio.wait([self._empty], timeout=EXIT_GRACE_S)

    @property
    def workers(self) -> list[WorkerHandle]:
        """The living ones."""
        return list(self._tokens.values())

    @property
    def active_connections(self) -> int:
        """Downstream connections as of the last heartbeats."""
        return sum(handle.active_connections for handle in self._tokens.values())
