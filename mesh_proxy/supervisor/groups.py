"""The supervisor's own statistics. What is a state rather than a count (`server.live`, …) is computed at the scrape."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import Histogram, StatGroup


class SupervisorStats(StatGroup):
    """`supervisor.*`: ours, Envoy has no such processes."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("apply_timeouts", "config_ignored", "worker_exits", "worker_restarts", "worker_hangs")
    __slots__ = COUNTERS

    apply_timeouts: int
    """versions of the configuration that some worker did not take in time"""
    config_ignored: int
    """fields and extensions that were accepted and have no effect, in the bootstrap and in every new version of a resource"""
    worker_exits: int
    worker_restarts: int
    worker_hangs: int


class HotRestartStats(StatGroup):
    """`hot_restart.*`: ours. What happened when this process took over, and when those before it did."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "connections_cut",
        "connections_drained",
        "connections_moved",
        "upgrades",
        "upgrades_failed",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("last_duration_ms",)
    __slots__ = (*COUNTERS, *GAUGES)

    connections_cut: int
    """at `--parent-shutdown-time-s`"""
    connections_drained: int
    """ended in the old process, by their callers or by the protocol's words"""
    connections_moved: int
    upgrades: int
    upgrades_failed: int
    """a new process did not make it, and the old one went on"""
    last_duration_ms: int
    """from the moment when this process accepted to the end of the one before"""


class ListenerManagerStats(StatGroup):
    """`listener_manager.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "listener_added",
        "listener_create_failure",
        "listener_create_success",
        "listener_in_place_updated",
        "listener_modified",
        "listener_removed",
        "listener_stopped",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "total_filter_chains_draining",
        "total_listeners_active",
        "total_listeners_draining",
        "total_listeners_warming",
        "workers_started",
    )
    __slots__ = (*COUNTERS, *GAUGES)

    listener_added: int
    listener_create_failure: int
    listener_create_success: int
    listener_in_place_updated: int
    listener_modified: int
    listener_removed: int
    listener_stopped: int
    total_filter_chains_draining: int
    total_listeners_active: int
    total_listeners_draining: int
    total_listeners_warming: int
    workers_started: int


class ClusterManagerStats(StatGroup):
    """`cluster_manager.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "cluster_added",
        "cluster_modified",
        "cluster_removed",
        "cluster_updated",
        "cluster_updated_via_merge",
        "update_merge_cancelled",
        "update_out_of_merge_window",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("active_clusters", "warming_clusters")
    __slots__ = (*COUNTERS, *GAUGES)

    cluster_added: int
    cluster_modified: int
    cluster_removed: int
    cluster_updated: int
    cluster_updated_via_merge: int
    update_merge_cancelled: int
    update_out_of_merge_window: int
    active_clusters: int
    warming_clusters: int


class ServerStats(StatGroup):
    """`server.*`; the gauges are set when somebody looks."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "debug_assertion_failures",
        "dropped_stat_flushes",
        "dynamic_unknown_fields",
        "envoy_bug_failures",
        "envoy_notifications",
        "static_unknown_fields",
        "wip_protos",
    )
    GAUGES: ClassVar[tuple[str, ...]] = (
        "concurrency",
        "days_until_first_cert_expiring",
        "hot_restart_epoch",
        "hot_restart_generation",
        "live",
        "memory_allocated",
        "memory_heap_size",
        "memory_physical_size",
        "parent_connections",
        "seconds_until_first_ocsp_response_expiring",
        "state",
        "stats_recent_lookups",
        "total_connections",
        "uptime",
        "version",
    )
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("initialization_time_ms",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS)

    debug_assertion_failures: int
    dropped_stat_flushes: int
    dynamic_unknown_fields: int
    envoy_bug_failures: int
    envoy_notifications: int
    static_unknown_fields: int
    wip_protos: int
    concurrency: int
    days_until_first_cert_expiring: int
    hot_restart_epoch: int
    hot_restart_generation: int
    live: int
    memory_allocated: int
    memory_heap_size: int
    memory_physical_size: int
    parent_connections: int
    seconds_until_first_ocsp_response_expiring: int
    state: int
    stats_recent_lookups: int
    total_connections: int
    uptime: int
    version: int
    initialization_time_ms: Histogram


class RuntimeStats(StatGroup):
    """`runtime.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("load_error", "load_success", "deprecated_feature_use", "override_dir_not_exists")
    GAUGES: ClassVar[tuple[str, ...]] = ("admin_overrides_active", "num_keys", "num_layers")
    __slots__ = (*COUNTERS, *GAUGES)

    load_error: int
    load_success: int
    deprecated_feature_use: int
    override_dir_not_exists: int
    admin_overrides_active: int
    num_keys: int
    num_layers: int


class WatchdogStats(StatGroup):
    """`main_thread.*` and `workers.*`; what hangs is killed and counted as `supervisor.worker_hangs`."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("watchdog_miss", "watchdog_mega_miss")
    __slots__ = COUNTERS

    watchdog_miss: int
    watchdog_mega_miss: int
