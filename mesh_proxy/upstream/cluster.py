"""A cluster: its endpoints, the choice among them, its circuit breakers and statistics.

Everything that a choice depends on (membership, health, ejections, weights, priorities) is worked out by `refresh` when it
changes; `pick` then calls one function. In the usual case of one healthy priority that function is a C iterator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mesh_proxy.config.model import ClusterConfig, EndpointConfig, LocalityConfig
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.http2_group import Http2Stats
from mesh_proxy.upstream import localities
from mesh_proxy.upstream.balancers import Choose, make_chooser, round_robin
from mesh_proxy.upstream.circuit_stats import CircuitBreakerStats, RemainingStats
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.hash_balancers import HASH_POLICIES, HashInput, MaglevBalancer, RingHashBalancer
from mesh_proxy.upstream.health.checker import HealthChecker
from mesh_proxy.upstream.health.flags import FAILED, REMOVAL
from mesh_proxy.upstream.health.follower import HealthFollower, HealthWatch
from mesh_proxy.upstream.host_sets import HostSet, Loads, distribute, split
from mesh_proxy.upstream.labels import LabelIndex, Labels
from mesh_proxy.upstream.outlier import OutlierDetector
from mesh_proxy.upstream.resource_table import SharedResources
from mesh_proxy.upstream.resources import Resources
from mesh_proxy.upstream.subsets import SubsetIndex
from mesh_proxy.upstream.transports import Transports

if TYPE_CHECKING:
    from mesh_codecs.headers import Headers
    from mesh_proxy.upstream.environment import Environment

TRANSPORT_FIELDS = ("transport_socket", "transport_matches")
CONNECTION_FIELDS = (
    "kind",
    "alt_stat_name",
    "connect_timeout_s",
    "per_connection_buffer_limit_bytes",
    "max_requests_per_connection",
    "idle_timeout_s",
    "max_connection_duration_s",
    "upstream_protocol",
    "http1_enable_trailers",
    "max_response_headers_kb",
    "max_response_headers_count",
    "http2",
    "dubbo",
    *TRANSPORT_FIELDS,
    "bind",
    "tcp_keepalive",
)
"""A change of one of these makes every endpoint new, so that connections made under the old value drain."""


class LbContext:
    """What a choice may depend on beside the cluster. Made only for a cluster with `needs_context`, or for a retry."""

    __slots__ = ("attempts", "avoid", "hash", "headers", "labels", "metadata_match", "original_destination")

    def __init__(self) -> None:
        self.avoid: set[Endpoint] | None = None
        """endpoints that this request has tried (retry host predicate `previous_hosts`)"""
        self.attempts = 1
        """how often to choose again when the choice is to be avoided (`host_selection_max_attempts`); the last one stands"""
        self.hash: int | None = None
        """of the request, by the route's hash policy"""
        self.metadata_match: Mapping[str, Any] | None = None
        """the `envoy.lb` metadata that the endpoint shall have, for clusters with subsets"""
        self.labels: Labels | None = None
        """what a filter narrows the cluster to; goes before subsets"""
        self.original_destination: tuple[str, int] | None = None
        """where the intercepted connection was going"""
        self.headers: Headers | None = None


class Member(NamedTuple):
    """One address that belongs into a cluster."""

    config: EndpointConfig
    host: str
    """resolved IP literal; empty for a unix socket"""
    locality: LocalityConfig
    priority: int
    hostname: str


class Cluster:
    """A named group of endpoints that are called alike."""

    __slots__ = (
        "_choose",
        "_hash_input",
        "_health_prefix",
        "_labels",
        "config",
        "default",
        "endpoints",
        "environment",
        "health",
        "high",
        "limits_duration",
        "name",
        "needs_context",
        "outlier",
        "stats",
        "subsets",
        "tracks_results",
        "transports",
    )

    def __init__(self, config: ClusterConfig, environment: Environment) -> None:
        self.environment = environment
        self.name = config.name
        self.config = config
        self.endpoints: tuple[Endpoint, ...] = ()
        self.needs_context = config.lb_policy in HASH_POLICIES or config.subsets is not None
        """`pick` wants an LbContext"""
        self.limits_duration = bool(config.max_stream_duration_s)
        """somebody watches how long its requests take"""
        self.subsets: SubsetIndex | None = None
        self._labels: LabelIndex | None = None
        self._hash_input = HashInput(environment.random)
        self.tracks_results = False
        """`on_result` wants to know how requests ended"""
        self.outlier: OutlierDetector | None = None
        self.health: HealthWatch | None = None
        """active health checks, or what this worker learns of them"""
        self.default, self.high = self._make_resources()
        self.stats: ClusterStats
        self._choose: Choose = self._none
        self._register_stats()
        self.transports = self._make_transports()
        self._set_outlier_detection()
        self._set_health_check()
        self._set_subsets()

    @property
    def alpn_may_change(self) -> bool:
        """Istio's opinion: listeners may have TLS offer other names than the cluster says."""
        return bool(self.config.metadata.get("istio", {}).get("alpn_override") != "false")

    def start(self) -> None:
        """Take the members that the configuration names. Subclasses begin to resolve."""
        self.set_members(self.configured_members())

    def pick(self, context: LbContext | None = None) -> Endpoint | None:
        """The endpoint for one attempt of a request; None (counted) when there is no healthy one."""
        if context is None:
            return self._choose() if self.subsets is None else self.subsets.choose(None)
        return self._pick_with(context)

    def pick_labelled(self, labels: Labels) -> Endpoint | None:
        """The same for a cluster without `needs_context`, among the endpoints that have these labels."""
        index = self._labels
        if index is None:
            index = self.label_index()
        return index.choose(labels)

    def _pick_with(self, context: LbContext) -> Endpoint | None:
        source = self._hash_input
        source.value = context.hash
        choose = self._choose
        if context.labels is not None:
            choose = partial(self.label_index().choose, context.labels)
        elif self.subsets is not None:
            choose = partial(self.subsets.choose, context.metadata_match)
        endpoint = choose()
        avoid = context.avoid
        if avoid:
            for source.attempt in range(1, context.attempts + 1):
                if endpoint is None or endpoint not in avoid:
                    break
                endpoint = choose()
            source.attempt = 0
        source.value = None
        return endpoint

    def narrowed(self, context: LbContext | None) -> tuple[Sequence[Endpoint], str]:
        """The endpoints among which `pick` would choose, before health and priorities, and what narrowed them."""
        if context is not None and context.labels is not None:
            return self.label_index().members(context.labels), "labels"
        if self.subsets is not None:
            return self.subsets.members(context.metadata_match if context is not None else None)
        return self.endpoints, "nothing"

    def shares(self, endpoints: Sequence[Endpoint]) -> dict[Endpoint, int]:
        """Those that may be chosen among these, with the percentage that their priority's healthy (or degraded) ones get."""
        sets = split(endpoints)
        loads = self._loads(sets)
        found: dict[Endpoint, int] = {}
        for i, one in enumerate(sets):
            if loads.panic[i]:
                found.update(dict.fromkeys(one.all, loads.healthy[i] + loads.degraded[i]))
            else:
                found.update(dict.fromkeys(one.healthy, loads.healthy[i]))
                found.update(dict.fromkeys(one.degraded, loads.degraded[i]))
        return {endpoint: share for endpoint, share in found.items() if share}

    def on_result(self, endpoint: Endpoint, status: int) -> None:
        """A request to the endpoint ended with this HTTP status, or what stands for it (`tracks_results` only)."""
        if self.outlier is not None:
            self.outlier.on_result(endpoint, status)

    def resources(self, priority: str) -> Resources:
        """The circuit breaker of a routing priority, `DEFAULT` or `HIGH`."""
        return self.high if priority == "HIGH" else self.default

    def _make_resources(self) -> tuple[Resources, Resources]:
        table, runtime, prefix = self.environment.table, self.environment.runtime, f"circuit_breakers.{self.name}."
        kind = Resources if table is None else SharedResources
        default = kind(self.config.thresholds, runtime, prefix + "default.")
        high = kind(self.config.high_thresholds, runtime, prefix + "high.")
        if table is not None and isinstance(default, SharedResources) and isinstance(high, SharedResources):
            table.enter(self.name, default, high)
        return default, high

    # -- membership

    def configured_members(self) -> list[Member]:
        """The addresses in the configuration. An EDS cluster has each once (the first counts), as in Envoy."""
        assignment = self.config.endpoints
        if assignment is None:
            return []
        members: list[Member] = []
        seen: set[tuple[str, int, str]] = set()
        for locality in assignment.localities:
            for endpoint in locality.endpoints:
                address = endpoint.address
                if self.config.kind == "EDS":
                    key = (address.host, address.port, address.path)
                    if key in seen:
                        continue
                    seen.add(key)
                members.append(Member(endpoint, address.host, locality.locality, locality.priority, endpoint.hostname))
        return members

    def set_members(self, members: Iterable[Member], *, renew: bool = False) -> bool:
        """Become exactly these. An address that stays keeps its Endpoint with connections and statistics, unless `renew`.

        Returns whether anything came or went.
        """
        known: dict[tuple[str, int, str], list[Endpoint]] = {}
        if not renew:
            for endpoint in self.endpoints:
                known.setdefault((endpoint.host, endpoint.port, endpoint.path), []).append(endpoint)
        endpoints: list[Endpoint] = []
        changed = False
        for config, host, locality, priority, hostname in members:
            same = known.get((host, config.address.port, config.address.path))
            if same and same[0].tls is self.transports.choose(config.metadata):
                endpoint = same.pop(0)
                endpoint.health &= ~REMOVAL
                endpoint.configure(config, locality, priority, hostname)
            else:
                endpoint = Endpoint(self.name, config, host, locality, priority, hostname)
                endpoint.tls = self.transports.count(config.metadata)
                changed = True
            endpoints.append(endpoint)
        kept = set(endpoints)
        gone = [endpoint for endpoint in self.endpoints if endpoint not in kept]
        if gone and not renew and self._outlives_discovery:
            well = [endpoint for endpoint in gone if not endpoint.health & FAILED]
            for endpoint in well:
                endpoint.set_health(endpoint.health | REMOVAL)
                gone.remove(endpoint)
            endpoints += well
        self.endpoints = tuple(endpoints)
        if changed or gone:
            self.stats.membership_change += 1
        if self.config.kind in ("STRICT_DNS", "EDS"):  # Envoy looks at the weights of no others
            self.stats.max_host_weight = max((endpoint.weight for endpoint in endpoints), default=1)
        if self.outlier is not None:
            self.outlier.watch(self.endpoints)
        if self.health is not None:
            self.health.watch(self.endpoints)
        self.refresh()
        for endpoint in gone:
            self._remove(endpoint)
        return changed or bool(gone)

    @property
    def _outlives_discovery(self) -> bool:
        """An endpoint that discovery drops stays while health checks find it well: discovery may err."""
        config = self.config
        return self.health is not None and config.kind in ("STRICT_DNS", "EDS") and not config.ignore_health_on_removal

    def health_changed(self, failed: Sequence[Endpoint] = ()) -> None:
        """Health checks changed their mind about some endpoints. Connections to those that failed are given up when they are
        idle, as in Envoy: perhaps it was the connections' way that is broken, and new ones find another."""
        for endpoint in failed:
            for pool in tuple(endpoint.pools.values()):
                pool.drain()
        leaving = [endpoint for endpoint in self.endpoints if endpoint.health & REMOVAL and endpoint.health & FAILED]
        if leaving:
            self.endpoints = tuple(endpoint for endpoint in self.endpoints if endpoint not in leaving)
            self.stats.membership_change += 1
            if self.outlier is not None:
                self.outlier.watch(self.endpoints)
            assert self.health is not None
            self.health.watch(self.endpoints)
        self.refresh()
        for endpoint in leaving:
            self._remove(endpoint)

    def _remove(self, endpoint: Endpoint) -> None:
        endpoint.removed = True
        self.environment.on_endpoint_removed(endpoint)

    def update(self, config: ClusterConfig) -> None:
        """Take a new configuration of the same kind; counts, statistics and connections stay as far as they still fit."""
        old, self.config = self.config, config
        self.limits_duration = bool(config.max_stream_duration_s)
        runtime = self.environment.runtime
        self.default.configure(config.thresholds, runtime, f"circuit_breakers.{config.name}.default.")
        self.high.configure(config.high_thresholds, runtime, f"circuit_breakers.{config.name}.high.")
        if old.alt_stat_name != config.alt_stat_name:
            self._unregister_stats()
        self._register_stats()
        if any(getattr(old, name) != getattr(config, name) for name in (*TRANSPORT_FIELDS, "alt_stat_name")):
            self.transports = self._make_transports()
        self._set_outlier_detection()
        if old.health_check != config.health_check or self.stat_prefix != self._health_prefix:
            self._set_health_check()
        if config.kind != "ORIGINAL_DST":
            self.needs_context = config.lb_policy in HASH_POLICIES or config.subsets is not None
        self._set_subsets()
        self.renew_members(any(getattr(old, name) != getattr(config, name) for name in CONNECTION_FIELDS))

    def renew_members(self, renew: bool) -> None:
        """Apply the configuration's endpoints; with `renew`, to new Endpoints only."""
        self.set_members(self.configured_members(), renew=renew)

    def close(self, *, replaced: bool = False) -> None:
        """The cluster was removed: its endpoints drain, its statistics are withdrawn unless another instance has them."""
        endpoints, self.endpoints = self.endpoints, ()
        if self.outlier is not None:
            self.outlier.close()
            self.outlier = None
        if self.health is not None:
            self.health.close()
            self.health = None
        self.refresh()
        for endpoint in endpoints:
            self._remove(endpoint)
        if not replaced:
            self._unregister_stats()
        if self.environment.table is not None:
            self.environment.table.leave(self.name, self.default)

    def register(self) -> None:
        """This instance has replaced another one of the same name, which took what both had registered with it."""
        registry = self.environment.registry
        self._register_stats()
        for part in (self.outlier, self.health):
            stats = getattr(part, "stats", None)
            if stats is not None:
                registry.add(stats)
        self.refresh()

    def _set_outlier_detection(self) -> None:
        config, outlier = self.config.outlier_detection, self.outlier
        if config is None:
            if outlier is not None:
                outlier.close()
            self.outlier = None
        elif outlier is None or outlier.prefix != self.stat_prefix:
            if outlier is not None:
                outlier.close()
            self.outlier = OutlierDetector(config, self.environment, self.stat_prefix, self.refresh)
            self.outlier.watch(self.endpoints)
        else:
            outlier.configure(config)
        self.tracks_results = self.outlier is not None

    def _set_health_check(self) -> None:
        """Begin (or begin anew) what the configuration asks for."""
        if self.health is not None:
            self.health.close()
            self.health = None
        config, board = self.config.health_check, self.environment.health_board
        self._health_prefix = self.stat_prefix
        if config is None:
            return
        if board is None or board.checks:
            self.health = HealthChecker(self, config)
        else:
            self.health = HealthFollower(self, board)
        self.health.watch(self.endpoints)

    def _set_subsets(self) -> None:
        config = self.config.subsets
        if config is None:
            self.subsets = None
        elif self.subsets is None or self.subsets.config != config:
            self.subsets = SubsetIndex(config, self._choose_among, lambda: self._choose(), self.stats)
            self.subsets.rebuild(self.endpoints)

    # -- choosing

    def refresh(self) -> None:
        """Work out the choice anew. To be called after any change to health, ejection, weight or priority of an endpoint."""
        sets = split(self.endpoints)
        self._choose = self._choose_over(sets, self.config.locality_weighted)
        stats = self.stats
        stats.membership_total = len(self.endpoints)
        stats.membership_healthy = sum(len(one.healthy) for one in sets)
        stats.membership_degraded = sum(len(one.degraded) for one in sets)
        stats.membership_excluded = sum(one.excluded for one in sets)
        if self.subsets is not None:
            self.subsets.rebuild(self.endpoints)
        self._labels = None

    def label_index(self) -> LabelIndex:
        """Endpoints by labels."""
        index = self._labels
        if index is None:
            index = self._labels = LabelIndex(self.endpoints, self._choose_among)
        return index

    def _choose_among(self, endpoints: Sequence[Endpoint]) -> Choose:
        """The balancer of a subset."""
        subsets = self.config.subsets
        return self._choose_over(
            split(endpoints), self.config.locality_weighted and bool(subsets and subsets.locality_weight_aware)
        )

    def _choose_over(self, sets: list[HostSet], locality_weighted: bool) -> Choose:
        """A balancer over host sets, by their health and priorities."""
        loads = self._loads(sets)
        factor = self._overprovisioning
        levels: list[tuple[int, Choose]] = []
        for i, host_set in enumerate(sets):
            if loads.panic[i]:
                if share := loads.healthy[i] + loads.degraded[i]:
                    levels.append((share, self._in_panic(host_set.all)))
                continue
            if loads.healthy[i]:
                levels.append((loads.healthy[i], self._over(host_set, host_set.healthy, factor, locality_weighted)))
            if loads.degraded[i]:
                levels.append((loads.degraded[i], self._over(host_set, host_set.degraded, factor, locality_weighted)))
        return levels[0][1] if len(levels) == 1 else partial(self._choose_level, tuple(levels))

    @property
    def _overprovisioning(self) -> int:
        endpoints = self.config.endpoints
        return endpoints.overprovisioning_factor if endpoints is not None else 140

    def _loads(self, sets: list[HostSet]) -> Loads:
        sizes = [(len(one.all), one.excluded, len(one.healthy), len(one.degraded)) for one in sets]
        return distribute(sizes, self._overprovisioning, self._panic_threshold())

    def _panic_threshold(self) -> int:
        value = self.environment.runtime.get("upstream.healthy_panic_threshold", self.config.panic_threshold_percent)
        return min(100, int(float(value) + 0.5))

    def _over(self, host_set: HostSet, usable: Sequence[Endpoint], factor: int, locality_weighted: bool) -> Choose:
        if not usable:
            return self._none
        config = self.config
        if locality_weighted and config.endpoints is not None and config.lb_policy not in HASH_POLICIES:
            shares = localities.shares(config.endpoints.localities, host_set, usable, factor)
            if shares:
                choosers = [self._balancer(here) for here, _ in shares]
                next_locality = round_robin(choosers, [share for _, share in shares], self.environment.random)
                return lambda: next_locality()()
        return self._balancer(usable)

    def _balancer(self, endpoints: Sequence[Endpoint]) -> Choose:
        config = self.config
        if config.lb_policy in HASH_POLICIES:
            groups = config.endpoints.localities if config.locality_weighted and config.endpoints is not None else ()
            return self._hash_balancer(localities.endpoint_shares(groups, endpoints))
        return make_chooser(config.lb_policy, endpoints, self.environment.random, config.least_request_choice_count)

    def _hash_balancer(self, weighted: list[tuple[Endpoint, float]]) -> Choose:
        config, source = self.config, self._hash_input
        if config.lb_policy == "MAGLEV":
            return MaglevBalancer(weighted, source, config.maglev_table_size, config.hash_by_hostname).choose
        sizes = config.ring_hash_minimum_size, config.ring_hash_maximum_size
        return RingHashBalancer(weighted, source, *sizes, config.hash_by_hostname).choose

    def _in_panic(self, endpoints: Sequence[Endpoint]) -> Choose:
        if not endpoints:
            return self._none
        choose = self._balancer(endpoints)

        def panicking() -> Endpoint | None:
            self.stats.lb_healthy_panic += 1
            return choose()

        return panicking

    def _choose_level(self, levels: tuple[tuple[int, Choose], ...]) -> Endpoint | None:
        value = self._hash_input.value
        left = value % 100 if value is not None else int(self.environment.random() * 100)
        for share, choose in levels:
            left -= share
            if left < 0:
                return choose()
        return self._none()

    def _none(self) -> Endpoint | None:
        self.stats.upstream_cx_none_healthy += 1
        return None

    # -- statistics

    def describe_outlier(self) -> dict[str, float] | None:
        """The outlier detector's figures for `/clusters`; None without one."""
        return self.outlier.describe() if self.outlier is not None else None

    @property
    def stat_prefix(self) -> str:
        """`cluster.<name>.`"""
        return f"cluster.{sanitize(self.config.alt_stat_name or self.name)}."

    def _make_transports(self) -> Transports:
        environment = self.environment
        return Transports(self.config, environment.secrets, environment.registry, self.stat_prefix)

    def _register_stats(self) -> None:
        registry, prefix = self.environment.registry, self.stat_prefix
        self.stats = registry.get(ClusterStats, prefix)
        for priority, resources in (("default", self.default), ("high", self.high)):
            scope = f"{prefix}circuit_breakers.{priority}."
            registry.get(CircuitBreakerStats, scope).resources = resources
            if resources.track_remaining:
                registry.get(RemainingStats, scope).resources = resources

    def _unregister_stats(self) -> None:
        registry, prefix = self.environment.registry, self.stats.prefix
        registry.remove(self.stats)
        self.transports.close()
        http2 = registry.groups.get((Http2Stats, f"{prefix}http2."))
        if http2 is not None:
            registry.remove(http2)
        for priority in ("default", "high"):
            for kind in (CircuitBreakerStats, RemainingStats):
                registry.remove(registry.get(kind, f"{prefix}circuit_breakers.{priority}."))

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {self.config.kind} {self.stats.membership_healthy}/{len(self.endpoints)} healthy>"
