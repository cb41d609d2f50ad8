"""The supervisor's life, as stages; everything that happens to it arrives as a command in one queue."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import os
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import RendezvousError
from mesh_proxy.cli.options import Options
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import BootstrapConfig, NodeConfig, WorkerSnapshot
from mesh_proxy.health.status import StatusServer
from mesh_proxy.health.termination import termination
from mesh_proxy.logs import current_levels, reopen_log, set_levels
from mesh_proxy.stats.aggregate import StatsAggregator
from mesh_proxy.supervisor import notify
from mesh_proxy.supervisor.admin import AdminListener
from mesh_proxy.supervisor.configuration import Configuration
from mesh_proxy.supervisor.draining import Draining
from mesh_proxy.supervisor.handover import Handover
from mesh_proxy.supervisor.loading import LoadError, Loading
from mesh_proxy.supervisor.pool import WorkerPool
from mesh_proxy.supervisor.published import PublishedStats
from mesh_proxy.supervisor.restarter import Restarter
from mesh_proxy.supervisor.rollout import StartError
from mesh_proxy.supervisor.secrets_in_use import SecretsInUse
from mesh_proxy.supervisor.sockets import ListenSockets
from mesh_proxy.supervisor.spawner_client import SpawnerClient
from mesh_proxy.supervisor.stage import Stage
from mesh_proxy.supervisor.statistics import Statistics
from mesh_proxy.supervisor.succession import Succession
from mesh_proxy.supervisor.takeover import TakeoverError
from mesh_proxy.tasks import create_task
from mesh_proxy.worker import messages as m
from mesh_proxy.xds.resources import ignored_in

if TYPE_CHECKING:
    from mesh_proxy.notifier import Notifier

SYNC_TIMEOUT_S: Final = 1.0
"""how long a mutation waits until workers have acted on it"""
TAKEOVER_EXIT_CODE: Final = 2
"""the process that serves now would not give way, or could not be asked"""

_log = logging.getLogger("main")


class Command(enum.Enum):
    """What may happen to the supervisor."""

    STARTED = enum.auto()
    START_FAILED = enum.auto()
    DRAIN = enum.auto()
    """SIGTERM: finish what is there, then exit"""
    STOP = enum.auto()
    """SIGINT, /quitquitquit: exit at once"""
    DRAINED = enum.auto()
    STOPPED = enum.auto()
    REOPEN_LOGS = enum.auto()
    RESTART = enum.auto()
    """SIGHUP: start a new process, which takes over"""
    SPAWNER_LOST = enum.auto()


class Supervisor:
    """One per process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Options,
        spawner: SpawnerClient,
        loading: Loading,
    ) -> None:
        self.options = options
        self.stage = Stage.PRE_INITIALIZING
        self.started_at = time.time()
        self.started_monotonic = time.monotonic()
        self.bootstrap = BootstrapConfig()
        self.configuration = Configuration(loop, self)
        self.health_check_failed = False
        self.epoch = options.restart_epoch
        self.generation = 1
        """this process is the so-and-so-many-th since the first one was started (`server.hot_restart_generation`)"""
        self.first_started_at = self.started_at
        """when the first of them started"""
        self.ending = False
        """nothing can bring us back to life"""
        aggregator = StatsAggregator()
        self.stats = PublishedStats(aggregator)
        self.sockets = ListenSockets(options.concurrency)
        self.pool = WorkerPool(loop, spawner, self.sockets, aggregator, self.stats.supervisor, concurrency=options.concurrency)
        self.admin = AdminListener(loop, self)
        self.status = StatusServer(loop, self)
        self.handover = Handover(loop, self)
        self.restarter = Restarter(loop)
        self.succession = Succession(loop, self)
        self.secrets = SecretsInUse(loop, self)
        self.draining = Draining(loop, self)
        self.statistics = Statistics(self)
        self._notifier: Notifier | None = None
        self._loop = loop
        self._loading = loading
        self._spawner = spawner
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._exit_code = 0
        self._failure = ""
        spawner.on_lost = lambda: self.submit(Command.SPAWNER_LOST)

    def submit(self, command: Command) -> None:
        """Let something happen; handled in order by run()."""
        self._commands.put_nowait(command)

    async def run(self) -> int:
        """From start to end; the exit code."""
        for sig, command in (
            (signal.SIGTERM, Command.DRAIN),
            (signal.SIGINT, Command.STOP),
            (signal.SIGUSR1, Command.REOPEN_LOGS),
            (signal.SIGHUP, Command.RESTART),
        ):
            self._loop.add_signal_handler(sig, self.submit, command)
        self.pool.start()
        starting = create_task(self._start(), name="start")
        try:
            while self.stage is not Stage.STOPPED:
                await self._handle(await self._commands.get())
        finally:
            starting.cancel()
            await asyncio.wait([starting])
            await self._close()
        return self._exit_code

    async def _handle(self, command: Command) -> None:
        match command:
            case Command.STARTED:
                if self.stage is Stage.INITIALIZING:
                    self.stage = Stage.LIVE
                    took = (time.monotonic() - self.started_monotonic) * 1000
                    self.stats.server.initialization_time_ms.record(took)
                    self.stats.listeners.workers_started = 1
                    _log.info("all workers are live after %d ms; starting main dispatch loop", took)
                    self._tell_manager(notify.READY)
            case Command.START_FAILED:
                if self.stage in (Stage.PRE_INITIALIZING, Stage.INITIALIZING):
                    self._exit_code = self._exit_code or 1
                    self.succession.give_up(self._failure)
                    _log.critical("%s", self._failure)
                    self._begin_stop()
            case Command.DRAIN if self.handover.handed_over:
                self.restarter.forward(signal.SIGTERM)
                self.handover.end_now(float(self.options.drain_time_s))
            case Command.STOP if self.handover.handed_over:
                self.restarter.forward(signal.SIGINT)
                self.handover.end_now(0.0)
            case Command.RESTART:
                if self.options.disable_hot_restart:
                    _log.warning("SIGHUP: --disable-hot-restart was given")
                else:
                    self.restarter.restart()
            case Command.DRAIN:
                self.restarter.forward(signal.SIGTERM)
                if self.stage is Stage.LIVE:
                    self.stage = Stage.DRAINING
                    self._tell_manager(notify.STOPPING)
                    _log.info("draining %d connections, at most %g s", self.pool.active_connections, self.draining.longest_s)
                    self.succession.release()
                    create_task(self._drain(), name="drain")
                elif self.stage is not Stage.DRAINING:
                    self._begin_stop()
            case Command.STOP:
                self.restarter.forward(signal.SIGINT)
                self._begin_stop()
            case Command.DRAINED | Command.STOPPED:
                self.stage = Stage.STOPPED
            case Command.REOPEN_LOGS:
                self.restarter.forward(signal.SIGUSR1)
                self.reopen_logs()
            case Command.SPAWNER_LOST:
                if self.stage is not Stage.STOPPED:
                    _log.critical("the spawner is gone; its workers drain, and so do we")
                    self._exit_code = 1
                    self.pool.spawner_lost()
                    self._begin_stop()

    def _tell_manager(self, state: str) -> None:
        if not self.restarter.guarded:
            notify.notify(state)

    def _begin_stop(self) -> None:
        if self.stage is Stage.STOPPED:
            return
        _log.info("shutting down server instance")
        self._tell_manager(notify.STOPPING)
        self.succession.release()
        self.stage = Stage.DRAINING
        create_task(self._stop(), name="stop")

    async def _drain(self) -> None:
        await self.draining.drain()
        self.submit(Command.DRAINED)

    async def _stop(self) -> None:
        await self.pool.stop_now()
        self.submit(Command.STOPPED)

    async def _close(self) -> None:
        self._loading.close()
        self.secrets.close()
        self.configuration.close()
        if self._notifier is not None:
            self._notifier.close()
        self.restarter.close()
        self.handover.close()
        self.succession.close()
        self.admin.close()
        self.status.close()
        self.sockets.close()
        self._spawner.close()
        _log.info("exiting")

    # Starting.

    async def _start(self) -> None:
        try:
            await self._bring_up()
        except ConfigError as error:
            name = self.options.config_path or "<inline>"
            self._failure = f"error initializing configuration '{name}': {error}"
            self.submit(Command.START_FAILED)
        except (StartError, LoadError, RendezvousError) as error:
            self._failure = str(error)
            self.submit(Command.START_FAILED)
        except TakeoverError as error:
            self._failure = str(error)
            self._exit_code = TAKEOVER_EXIT_CODE
            self.submit(Command.START_FAILED)
        except Exception as error:
            _log.debug("start failed", exc_info=error)
            self._failure = f"cannot start: {type(error).__name__}: {error}"
            self.submit(Command.START_FAILED)
        else:
            self.submit(Command.STARTED)

    async def _bring_up(self) -> None:
        try:
            self.draining.termination = termination(os.environ)
        except ValueError as error:
            raise ConfigError("", str(error)) from None
        for reason in self.options.without_effect:
            _log.warning("accepted without effect: %s", reason)
        await self.succession.meet()
        bootstrap = await self._loading.result()
        self.bootstrap = dataclasses.replace(bootstrap, node=self._node(bootstrap.node))
        for path, text in bootstrap.warnings:
            _log.warning("%s: %s", path, text)
        self.stats.server.static_unknown_fields = bootstrap.unknown_static_fields
        self.stats.supervisor.config_ignored = ignored_in(bootstrap.warnings)
        await self.configuration.load(self.bootstrap)
        admin = self.bootstrap.admin
        inherited = await self.succession.inherit()
        if admin is not None:
            await self.admin.start(admin, self.options.admin_address_path, inherited)
        await self.status.start(self.options.status_ports)
        self.stats.configure(self.configuration.clusters)
        self.statistics.begin()
        self.stats.runtime.num_keys = len(self.bootstrap.runtime)
        self.stats.runtime.load_success += 1
        self.sockets.bind(self.configuration.listeners)
        if self.stage is not Stage.PRE_INITIALIZING:
            return
        self.stage = Stage.INITIALIZING
        _log.info("loading %d cluster(s)", len(self.configuration.clusters))
        _log.info("loading %d listener(s)", len(self.configuration.listeners))
        await self.configuration.warm()
        await self.configuration.go_live(self.bootstrap)
        await self.succession.replace()
        self.secrets.watch()
        self.configuration.on_change.append(self.secrets.watch)

    @property
    def notifier(self) -> Notifier:
        """Tells everybody here what happens in directories."""
        if self._notifier is None:
            from mesh_proxy.notifier import Notifier  # only where something is watched: it brings ctypes

            self._notifier = Notifier(self._loop)
        return self._notifier

    # Hot upgrade.

    def hand_over_done(self) -> None:
        """The process after us has everything."""
        self.submit(Command.STOPPED)

    async def apply_again(self) -> None:
        """The same configuration once more, as the workers' sockets have changed."""
        await self.configuration.apply_again()

    async def resume(self) -> None:
        """The process after us is gone: serve as before."""
        self.pool.resume()
        await self.apply_again()
        if self.configuration.dynamic is not None:
            self.configuration.dynamic.release()
        _log.info("serving again on all listeners")

    def _node(self, node: NodeConfig) -> NodeConfig:
        """--service-zone wins over the bootstrap's node; the loader has done the same for the other two flags."""
        if not self.options.service_zone:
            return node
        return dataclasses.replace(node, locality=dataclasses.replace(node.locality, zone=self.options.service_zone))

    # What the admin interface may ask for.

    @property
    def snapshot(self) -> WorkerSnapshot | None:
        """What the workers serve; None before the start is over."""
        return self.configuration.snapshot

    @property
    def state(self) -> str:
        """In Envoy's words: who fails health checks says DRAINING."""
        return Stage.DRAINING.value if self.health_check_failed else self.stage.value

    def not_ready(self) -> str:
        """Why traffic should not come here, in one word; empty when it should."""
        if self.state != Stage.LIVE.value:
            return self.state
        serving = any(handle.applied_version and not handle.hung for handle in self.pool.workers)
        return "" if serving else "NO_WORKER"

    @property
    def uptime_s(self) -> int:
        """Whole seconds since the start."""
        return int(time.monotonic() - self.started_monotonic)

    @property
    def predecessor_connections(self) -> int | None:
        """Connections that the process before us still has; None when it is gone."""
        return self.stats.parent_connections if self.succession.has_predecessor else None

    @property
    def uptime_all_s(self) -> int:
        """Whole seconds since the first process of this chain of upgrades started."""
        return max(self.uptime_s, int(time.time() - self.first_started_at))

    def spawn_reader(self, control: int) -> None:
        """Start a process that reads watched files."""
        self._spawner.spawn_reader(control)

    def process_ids(self) -> list[tuple[str, int]]:
        """(role, pid) of every process of this tree."""
        workers = [(f"worker {handle.index}", handle.pid) for handle in self.pool.workers if handle.pid]
        return [("supervisor", os.getpid()), ("spawner", self._spawner.pid), *workers]

    async def settled(self) -> None:
        """Every worker has acted on what it was told before (or does not answer)."""
        await self.pool.ask(m.Sync, timeout_s=SYNC_TIMEOUT_S)

    def set_log_levels(self, levels: Mapping[str, str]) -> None:
        """In all processes, and in workers to come."""
        set_levels(levels)
        self.pool.broadcast(m.SetLogLevels(current_levels()), sticky="levels")

    def reset_counters(self) -> None:
        """/reset_counters."""
        self.stats.reset_counters()
        self.pool.broadcast(m.ResetCounters())

    def stop_now(self) -> None:
        """/quitquitquit."""
        self.submit(Command.STOP)

    def reopen_logs(self) -> None:
        """SIGUSR1 and /reopen_logs."""
        reopen_log()
        self.admin.reopen_logs()
        self.pool.broadcast(m.ReopenLogs())

    def set_health_check_failed(self, failed: bool) -> None:
        """/healthcheck/fail and /healthcheck/ok."""
        self.health_check_failed = failed
        self.pool.broadcast(m.SetHealthCheck(failed), sticky="healthcheck")

    def drain_listeners(self, *, inbound_only: bool, graceful: bool, skip_exit: bool) -> None:
        """/drain_listeners: without `graceful` the listeners close now, with it after the drain time, with skip_exit never."""
        self.draining.drain_listeners(inbound_only=inbound_only, graceful=graceful, skip_exit=skip_exit)
