"""The checks of one cluster: who is asked when, and what that makes of him (Envoy: health_checker_base_impl.cc).

Each endpoint has a session: wait, ask, judge, wait again. A first good answer is believed at once; after that an endpoint
changes sides when so many checks in a row say so. An answer that is plainly bad (a 503, NOT_SERVING) ends trust at once, silence
and broken connections count up to the threshold.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from mesh_proxy.config.model.health import HealthCheckConfig
from mesh_proxy.stats.group import StatGroup
from mesh_proxy.tasks import create_task
from mesh_proxy.upstream.ejection_board import tag
from mesh_proxy.upstream.health import flags
from mesh_proxy.upstream.health.follower import initial_flags, is_checked
from mesh_proxy.upstream.health.probes import Finding, Probe, make_probe

if TYPE_CHECKING:
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint

_log = logging.getLogger("health_checker")


class HealthStats(StatGroup):
    """`cluster.<name>.health_check.*`; only the worker that checks has it."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "attempt",
        "failure",
        "network_failure",
        "passive_failure",
        "success",
        "verify_cluster",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("degraded", "healthy")
    __slots__ = (*COUNTERS, *GAUGES)

    attempt: int
    failure: int
    network_failure: int
    passive_failure: int
    success: int
    verify_cluster: int
    degraded: int
    healthy: int


class HealthChecker:
    """The checks of one cluster."""

    __slots__ = ("_board", "_sessions", "cluster", "config", "environment", "stats")

    def __init__(self, cluster: Cluster, config: HealthCheckConfig) -> None:
        self.cluster = cluster
        self.config = config
        self.environment = cluster.environment
        self.stats = self.environment.registry.get(HealthStats, f"{cluster.stat_prefix}health_check.")
        self._sessions: dict[Endpoint, Session] = {}
        self._board = self.environment.health_board
        if self._board is not None:
            self._board.join(self, self.environment.ticker)

    def watch(self, endpoints: Sequence[Endpoint]) -> None:
        """See `HealthWatch`."""
        wanted = {endpoint for endpoint in endpoints if is_checked(endpoint)}
        for endpoint in [endpoint for endpoint in self._sessions if endpoint not in wanted]:
            self._sessions.pop(endpoint).close()
        for endpoint in endpoints:
            if endpoint in wanted and endpoint not in self._sessions:
                self._sessions[endpoint] = Session(self, endpoint)
        self.first_checks_done()

    def first_checks_done(self) -> None:
        """Tell whoever waits for the first results."""
        if any(session.first for session in self._sessions.values()):
            self.environment.unchecked.add(self.cluster)
        else:
            self.environment.became_checked(self.cluster)

    def follow(self) -> None:
        """Another worker left a note on the board."""
        board = self._board
        assert board is not None
        for session in tuple(self._sessions.values()):
            if board.was_asked(session.tag):
                session.fail(Finding.PASSIVE)

    def immediate_failure(self, endpoint: Endpoint) -> None:
        """See `HealthWatch`."""
        session = self._sessions.get(endpoint)
        if session is not None:
            session.fail(Finding.PASSIVE)

    def interval_s(self, *, healthy: bool, edge: bool) -> float:
        """How long to wait for the next check after one with this result; `edge`: it would have changed the verdict, were the
        threshold lower."""
        config = self.config
        if not self._has_traffic():
            base = config.no_traffic_healthy_interval_s if healthy and not edge else config.no_traffic_interval_s
        elif healthy:
            base = config.healthy_edge_interval_s if edge else config.interval_s
        else:
            base = config.unhealthy_edge_interval_s if edge else config.unhealthy_interval_s
        return self.jittered_s(base, config.interval_jitter_s)

    def jittered_s(self, base: float, jitter_s: float) -> float:
        """With a random part of the jitters, and within the runtime's limits."""
        uniform, runtime = self.environment.random, self.environment.runtime
        seconds = base + uniform() * base * self.config.interval_jitter_percent / 100 + uniform() * jitter_s
        most = runtime.get("health_check.max_interval")
        if most is not None:
            seconds = min(seconds, float(most) / 1000)
        return max(seconds, float(runtime.get("health_check.min_interval", 0)) / 1000, 0.001)

    def _has_traffic(self) -> bool:
        if self.cluster.stats.upstream_cx_total:
            return True
        board = self._board
        return board is not None and any(board.has_traffic(session.tag) for session in self._sessions.values())

    def recall(self, wanted: int) -> int | None:
        """What the predecessor of this worker, if there was one, knew of an endpoint."""
        return None if self._board is None else self._board.states.get(wanted)

    def publish(self, session: Session) -> None:
        """Tell the other workers."""
        if self._board is not None:
            self._board.publish(session.tag, session.endpoint.health & ~flags.REMOVAL)

    def withdraw(self, session: Session) -> None:
        """Tell them nothing more."""
        if self._board is not None:
            self._board.withdraw(session.tag)

    def close(self) -> None:
        """See `HealthWatch`."""
        if self._board is not None:
            self._board.leave(self)
        for session in self._sessions.values():
            session.close()
            session.endpoint.set_health(0)
        self._sessions = {}
        self.environment.became_checked(self.cluster)
        self.environment.registry.remove(self.stats)


class Session:
    """One endpoint under observation."""

    __slots__ = ("_closed", "_probe", "_task", "_timer", "bad", "checker", "endpoint", "first", "good", "tag")

    def __init__(self, checker: HealthChecker, endpoint: Endpoint) -> None:
        self.checker = checker
        self.endpoint = endpoint
        self.tag = tag(endpoint.cluster_name, endpoint.address)
        known = checker.recall(self.tag)
        self.first = known is None
        """nothing is known of it yet"""
        self.good = 0
        """successes in a row while it counts as unhealthy"""
        self.bad = 0
        """failures in a row while it counts as healthy"""
        endpoint.set_health(initial_flags(checker.cluster) if known is None else known)
        if not endpoint.health & flags.FAILED:
            checker.stats.healthy += 1
        if endpoint.health & flags.DEGRADED:
            checker.stats.degraded += 1
        self._probe: Probe = make_probe(checker.cluster, endpoint, checker.config, checker.stats)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        jitter = checker.config.initial_jitter_s
        delay = checker.jittered_s(0.0, jitter) if jitter else 0.0
        self._timer = checker.environment.loop.call_later(delay, self._begin)

    def close(self) -> None:
        """The endpoint left the cluster, or is not to be checked any more."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._probe.close()
        stats = self.checker.stats
        if not self.endpoint.health & flags.FAILED:
            stats.healthy -= 1
        if self.endpoint.health & flags.DEGRADED:
            stats.degraded -= 1
        self.checker.withdraw(self)

    def _begin(self) -> None:
        moved = tag(self.endpoint.cluster_name, self.endpoint.address)
        if moved != self.tag:  # a LOGICAL_DNS cluster's one endpoint has another address now
            self.checker.withdraw(self)
            self.tag = moved
        self.checker.stats.attempt += 1
        self._task = create_task(self._check(), name=f"health check of {self.endpoint.address}")

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(self.checker.config.timeout_s):
                finding = await self._probe.ask()
        except TimeoutError:
            self._probe.close()
            finding = Finding.SILENCE
        except OSError:
            finding = Finding.NETWORK
        if self._closed:
            return
        self._task = None
        healthy = finding in (Finding.GOOD, Finding.DEGRADED)
        edge = self._succeed(finding is Finding.DEGRADED) if healthy else self.fail(finding)
        # To fail may have led to the end of the session.
        if not self._closed:
            delay = self.checker.interval_s(healthy=healthy, edge=edge)
            self._timer = self.checker.environment.loop.call_later(delay, self._begin)

    def _succeed(self, degraded: bool) -> bool:
        """Count a good check; whether it changed nothing only because of the threshold."""
        stats = self.checker.stats
        health = self.endpoint.health
        stats.success += 1
        self.bad = 0
        edge = False
        if health & flags.FAILED:
            self.good += 1
            if self.first or self.good == self.checker.config.healthy_threshold:
                health &= ~(flags.FAILED | flags.TIMED_OUT | flags.EXCLUDED)
                stats.healthy += 1
                _log.info("%s of %s is healthy", self.endpoint.address, self.endpoint.cluster_name)
            else:
                edge = True
        if degraded != bool(health & flags.DEGRADED):
            health ^= flags.DEGRADED
            stats.degraded += 1 if degraded else -1
        self._settle(health & ~flags.PENDING)
        return edge

    def fail(self, finding: Finding) -> bool:
        """Count a bad check; whether it changed nothing only because of the threshold."""
        stats = self.checker.stats
        health = self.endpoint.health
        stats.failure += 1
        if finding in (Finding.NETWORK, Finding.SILENCE):
            stats.network_failure += 1
        elif finding is Finding.PASSIVE:
            stats.passive_failure += 1
        self.good = 0
        edge = False
        if finding in (Finding.PASSIVE, Finding.BAD_AND_EXCLUDED):
            health |= flags.EXCLUDED
        if not health & flags.FAILED:
            self.bad += 1
            plain = finding in (Finding.BAD, Finding.BAD_AND_EXCLUDED, Finding.PASSIVE)
            if plain or self.bad == self.checker.config.unhealthy_threshold:
                health |= flags.FAILED
                stats.healthy -= 1
                _log.info("%s of %s is unhealthy: %s", self.endpoint.address, self.endpoint.cluster_name, finding.value)
            else:
                edge = True
        silent = finding is Finding.SILENCE and health & flags.FAILED
        health = health | flags.TIMED_OUT if silent else health & ~flags.TIMED_OUT
        self._settle(health & ~flags.PENDING)
        return edge

    def _settle(self, health: int) -> None:
        endpoint = self.endpoint
        first, self.first = self.first, False
        changed = health != endpoint.health
        fell = (endpoint,) if health & ~endpoint.health & flags.FAILED else ()
        if changed:
            endpoint.set_health(health)
        if changed or first:
            self.checker.publish(self)
        if first:
            self.checker.first_checks_done()
        if changed:
            self.checker.cluster.health_changed(fell)
