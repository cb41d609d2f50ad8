"""Statistics of subscriptions, with Envoy's names; they are the supervisor's, as workers know nothing of files."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import Histogram, StatGroup

_COUNTERS = ("init_fetch_timeout", "update_attempt", "update_failure", "update_rejected", "update_success")


class SubscriptionStats(StatGroup):
    """`listener_manager.lds.*`, `cluster_manager.cds.*`, `http.<prefix>.rds.<name>.*`, `sds.<name>.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (*_COUNTERS, "config_reload", "update_empty")
    GAUGES: ClassVar[tuple[str, ...]] = ("config_reload_time_ms", "update_time", "version")
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("update_duration",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS)

    init_fetch_timeout: int
    update_attempt: int
    """the file was moved into place, or read for the first time"""
    update_failure: int
    """it could not be read, or not as what its name says"""
    update_rejected: int
    """its content was refused, whole"""
    update_success: int
    config_reload: int
    """it was accepted, and something in it was new"""
    update_empty: int
    config_reload_time_ms: int
    """of the last config_reload, since 1970"""
    update_time: int
    """of the last update_success, since 1970, in milliseconds"""
    version: int
    """XXH64 of the version_info that was accepted last"""
    update_duration: Histogram


class EndpointSubscriptionStats(StatGroup):
    """`cluster.<name>.*`, as far as the workers' ClusterStats does not have it."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("init_fetch_timeout", "update_rejected")
    GAUGES: ClassVar[tuple[str, ...]] = ("update_time",)
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ("update_duration",)
    __slots__ = (*COUNTERS, *GAUGES, *HISTOGRAMS)

    init_fetch_timeout: int
    update_rejected: int
    update_time: int
    update_duration: Histogram


class DigestStats(StatGroup):
    """`config_digest.*`: ours. Equal numbers on two sidecars mean equal configurations."""

    GAUGES: ClassVar[tuple[str, ...]] = ("clusters", "endpoints", "listeners", "resources", "routes", "secrets", "total")
    __slots__ = GAUGES

    clusters: int
    """the first 52 bits of the digest over all clusters; likewise the others"""
    endpoints: int
    listeners: int
    resources: int
    """how many there are"""
    routes: int
    secrets: int
    total: int
