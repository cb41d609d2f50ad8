"""Versions of the configuration on their way into all workers: live, refused, or not taken in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.supervisor.groups import SupervisorStats
from mesh_proxy.supervisor.worker_handle import WorkerHandle

APPLY_DEADLINE_S = 60.0
"""A worker that has not taken a version for so long, although it answers, is killed; after twice that the version is refused.
Taking one may wait 10 s for names and first health checks, and ten thousand clusters take seconds."""

_log = logging.getLogger("main")


class StartError(Exception):
    """The workers do not come up."""


@dataclass(slots=True)
class _Waiter:
    """Somebody waits for a version to be live in every worker."""

    version: int
    done: asyncio.Future[None]
    age_s: float = 0.0
    """by our ticks, so that the time in which the machine slept does not count"""
    killed: bool = False
    """the workers that were late have been killed"""


class Rollout:
    """Who waits for which version."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stats: SupervisorStats, handles: Callable[[], list[WorkerHandle | None]]
    ) -> None:
        self._loop = loop
        self._stats = stats
        self._handles = handles
        """the workers by index; None for one that is being replaced"""
        self._waiters: list[_Waiter] = []
        self._refused = 0
        """the newest version that a worker refused; the version after it takes it back"""
        self.ever_live = False
        """a version has been live in all workers"""
        self._failure: StartError | None = None
        """the workers do not come up; said to whoever applies a version"""

    def expect(self, version: int) -> asyncio.Future[None]:
        """Done when the version is live in every worker. Raises StartError when none ever will be."""
        if self._failure is not None:
            raise self._failure
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(_Waiter(version, done))
        return done

    def taken(self) -> None:
        """A version is live in a worker."""
        lowest = min((handle.applied_version if handle else 0) for handle in self._handles())
        if lowest:
            self.ever_live = True
        for one in self._waiters:
            if one.version <= lowest and not one.done.done():
                one.done.set_result(None)
        self._waiters = [one for one in self._waiters if not one.done.done()]

    def give_up(self, error: StartError) -> None:
        """The workers do not come up: no version will ever be live."""
        self._failure = error
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """Whoever waits gets this."""
        for one in self._waiters:
            if not one.done.done():
                one.done.set_exception(error)
        self._waiters.clear()

    def check_deadlines(self, passed_s: float) -> None:
        """No version waits for ever for a worker that answers but does not take it, or that dies of it again and again."""
        handles = self._handles()
        for one in self._waiters:
            one.age_s += passed_s
            if one.age_s <= APPLY_DEADLINE_S:
                continue
            late = [handle for handle in handles if handle and handle.applied_version < one.version]
            if not one.killed:
                one.killed = True
                self._stats.apply_timeouts += 1
                for handle in late:
                    if handle.pid:
                        _log.critical(
                            "worker %d (pid %d) has not taken version %d for %.1f s: killing it",
                            handle.index, handle.pid, one.version, one.age_s,
                        )  # fmt: skip
                        handle.kill()
            elif one.age_s > 2 * APPLY_DEADLINE_S and not one.done.done():
                numbers = ", ".join(str(i) for i, handle in enumerate(handles) if not handle or handle in late)
                why = f"version {one.version} was not taken within {one.age_s:.0f} s by worker {numbers}"
                _log.critical("%s: giving it up", why)
                self._refused = max(self._refused, one.version)
                one.done.set_exception(ConfigError("", why) if self.ever_live else StartError(why))
        self._waiters = [one for one in self._waiters if not one.done.done()]

    def rejected(self, handle: WorkerHandle, version: int, path: str, why: str) -> None:
        """A worker refuses a version."""
        mine = [one.done for one in self._waiters if one.version == version and not one.done.done()]
        if mine:
            self._refused = version
            for done in mine:
                done.set_exception(ConfigError(path, why))
            self._waiters = [one for one in self._waiters if not one.done.done()]
        elif version > self._refused:  # a replacement cannot serve what its siblings serve
            _log.error("worker %d refuses version %d, %s: %s; replacing it", handle.index, version, path, why)
            handle.kill()
