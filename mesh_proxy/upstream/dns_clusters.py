"""Clusters whose members come from names: STRICT_DNS (all addresses of all names) and LOGICAL_DNS (the first address of one).

How an answer is taken, and what is counted, was compared with Envoy 1.40:

* every name has its own refresh timer, which starts anew when its answer came: after the refresh rate (with respect_dns_ttl the
  answer's time to live, unless that is 0) plus a random part of the jitter, or after a failure by the failure refresh rate, if
  one is set, with exponential back-off and full jitter;
* STRICT_DNS takes an answer without addresses for what it says: the name's members leave. LOGICAL_DNS counts it as a failure;
* a failure changes no members.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from mesh_proxy.config.model import ClusterConfig, EndpointConfig, LocalityConfig
from mesh_proxy.upstream.cluster import Cluster, Member
from mesh_proxy.upstream.environment import Environment
from mesh_proxy.upstream.resolver import Answer, Query


class DnsTarget:
    """One name of a cluster, kept up to date."""

    __slots__ = ("_closed", "_cluster", "_failures", "_on_answer", "_query", "_timer", "addresses", "answered", "name")

    def __init__(self, cluster: DnsCluster, name: str, on_answer: Callable[[DnsTarget, list[str] | None], bool]) -> None:
        self._cluster = cluster
        self.name = name
        self._on_answer = on_answer
        """takes an answer (None: failure); tells whether it was a good one"""
        self._query: Query | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._closed = False
        self.addresses: tuple[str, ...] | None = None
        """of the last good answer; None before the first"""
        self.answered = False
        """an answer came, good or bad"""

    def start(self) -> None:
        """Look the name up, again and again. An address literal is its own answer, once."""
        stats = self._cluster.stats
        stats.update_attempt += 1
        if is_literal(self.name):
            self._answer(Answer([self.name]))
        else:
            self._query = self._cluster.environment.resolver.resolve(
                self.name, self._cluster.config.dns_lookup_family, self._answer
            )

    def _answer(self, answer: Answer | None) -> None:
        self._query = None
        good = self._on_answer(self, answer.addresses if answer is not None else None)
        stats = self._cluster.stats
        if good:
            stats.update_success += 1
            self._failures = 0
        else:
            stats.update_failure += 1
            self._failures += 1
        self.answered = True
        if not self._closed and not is_literal(self.name):
            delay = self._next_delay(answer.ttl_s if good and answer is not None else None)
            self._timer = self._cluster.environment.loop.call_later(delay, self.start)
        self._cluster.note_warm()

    def _next_delay(self, ttl_s: float | None) -> float:
        config, uniform = self._cluster.config, self._cluster.environment.random
        base = config.dns_failure_refresh_base_s
        if self._failures and base is not None:
            most = config.dns_failure_refresh_max_s or 10 * base
            return uniform() * float(min(base * 2 ** min(self._failures - 1, 30), most))
        delay = ttl_s if ttl_s and config.respect_dns_ttl else config.dns_refresh_rate_s
        return delay + (uniform() * config.dns_jitter_s if config.dns_jitter_s else 0.0)

    def restart(self) -> None:
        """Look the name up now."""
        self._cancel()
        self.start()

    def close(self) -> None:
        """Look up no more."""
        self._closed = True
        self._cancel()

    def _cancel(self) -> None:
        if self._query is not None:
            self._query.cancel()
        if self._timer is not None:
            self._timer.cancel()


def is_literal(name: str) -> bool:
    """An IP address, which needs no look-up."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class DnsCluster(Cluster):
    """What both kinds share."""

    __slots__ = ("_targets", "_warm")

    def __init__(self, config: ClusterConfig, environment: Environment) -> None:
        super().__init__(config, environment)
        self._targets: list[DnsTarget] = []
        self._warm = False
        environment.cold.add(self)

    def start(self) -> None:
        """Begin to resolve."""
        self.renew_members(False)

    def note_warm(self) -> None:
        """Called after every answer: the cluster is warm once every name had one."""
        if not self._warm and all(target.answered for target in self._targets):
            self._warm = True
            self.environment.became_warm(self)

    def _retarget(self, names: list[str], on_answer: Callable[[DnsTarget, list[str] | None], bool]) -> list[DnsTarget]:
        """Targets for these names; those whose name stays go on as they are. Returns the new ones, to be started."""
        known: dict[str, list[DnsTarget]] = {}
        for target in self._targets:
            known.setdefault(target.name, []).append(target)
        fresh = []
        targets = []
        for name in names:
            same = known.get(name)
            if same:
                target = same.pop(0)
            else:
                target = DnsTarget(self, name, on_answer)
                fresh.append(target)
            targets.append(target)
        for left in known.values():
            for target in left:
                target.close()
        self._targets = targets
        return fresh

    def update(self, config: ClusterConfig) -> None:
        """As any cluster; another lookup family also asks anew at once."""
        ask_again = config.dns_lookup_family != self.config.dns_lookup_family
        super().update(config)
        if ask_again:
            for target in self._targets:
                target.restart()

    def close(self, *, replaced: bool = False) -> None:
        """Stop resolving and let everything go."""
        for target in self._targets:
            target.close()
        self._targets = []
        self.environment.became_warm(self)
        super().close(replaced=replaced)

    def _assigned(self) -> list[tuple[EndpointConfig, LocalityConfig, int]]:
        assignment = self.config.endpoints
        if assignment is None:
            return []
        return [(endpoint, one.locality, one.priority) for one in assignment.localities for endpoint in one.endpoints]


class StrictDnsCluster(DnsCluster):
    """Every address of every name is a member; an address under two names is two members."""

    __slots__ = ()

    def configured_members(self) -> list[Member]:
        """What the names stood for when they were last asked."""
        members: list[Member] = []
        for target, (endpoint, locality, priority) in zip(self._targets, self._assigned(), strict=True):
            for address in target.addresses or ():
                members.append(Member(endpoint, address, locality, priority, endpoint.hostname or target.name))
        return members

    def renew_members(self, renew: bool) -> None:
        """Apply the configuration's names."""
        fresh = self._retarget([endpoint.address.host for endpoint, _, _ in self._assigned()], self._on_answer)
        self.set_members(self.configured_members(), renew=renew)
        for target in fresh:
            target.start()
        self.note_warm()

    def _on_answer(self, target: DnsTarget, addresses: list[str] | None) -> bool:
        if addresses is None:
            return False
        unique = tuple(dict.fromkeys(addresses))
        before = target.addresses or ()
        target.addresses = unique
        if set(unique) == set(before):  # servers rotate their answers: the order means nothing
            target.addresses = before
            self.stats.update_no_rebuild += 1
        else:
            self.set_members(self.configured_members())
        return True


class LogicalDnsCluster(DnsCluster):
    """One member that stands for whatever the name means: new connections go to the first address of the latest answer."""

    __slots__ = ()

    def configured_members(self) -> list[Member]:
        """The one member, once its name has been answered."""
        target = self._targets[0] if self._targets else None
        if target is None or not target.addresses:
            return []
        endpoint, locality, priority = self._assigned()[0]
        return [Member(endpoint, target.addresses[0], locality, priority, endpoint.hostname or target.name)]

    def renew_members(self, renew: bool) -> None:
        """Apply the configuration's name."""
        fresh = self._retarget([endpoint.address.host for endpoint, _, _ in self._assigned()[:1]], self._on_answer)
        if self._targets and not fresh:
            self.set_members(self.configured_members(), renew=renew)
        for target in fresh:
            target.start()
        self.note_warm()

    def _on_answer(self, target: DnsTarget, addresses: list[str] | None) -> bool:
        if not addresses:
            return False
        target.addresses = tuple(addresses)
        if not self.endpoints or self.endpoints[0].config is not self._assigned()[0][0]:  # the first answer for this name
            self.set_members(self.configured_members())
        elif self.endpoints[0].host != addresses[0]:
            self.endpoints[0].move(addresses[0])
            self.stats.membership_change += 1
        else:
            self.stats.update_no_rebuild += 1
        return True
