"""Every option of the command line, with Envoy's meanings and defaults (docs: operations/cli)."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_proxy.worker.options import WorkerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parsed command line."""

    config_path: str = ""
    config_yaml: str = ""
    """merged over what config_path holds"""
    mode: str = "serve"
    """`serve` or `validate`"""
    concurrency: int = 1
    allow_unknown_static_fields: bool = False
    reject_unknown_dynamic_fields: bool = False
    ignore_unknown_dynamic_fields: bool = False
    admin_address_path: str = ""
    """where the admin address is written once it is bound"""
    local_address_ip_version: str = "v4"
    status_ports: tuple[int, ...] = ()
    """where readiness, probes and metrics are answered, on all addresses"""

    log_level: str = "info"
    component_log_levels: tuple[tuple[str, str], ...] = ()
    log_format: str = ""
    log_format_escaped: bool = False
    log_path: str = ""
    skip_deprecated_logs: bool = False
    enable_fine_grain_logging: bool = False
    file_flush_interval_msec: int = 10_000
    file_flush_min_size_kb: int = 64

    service_cluster: str = ""
    service_node: str = ""
    service_zone: str = ""

    drain_time_s: int = 600
    drain_strategy: str = "gradual"
    """`gradual` or `immediate`"""
    parent_shutdown_time_s: int = 900
    restart_epoch: int = 0
    epoch_given: bool = False
    """otherwise a living process is looked for, and the epoch is the one after its"""
    base_id: int = 0
    use_dynamic_base_id: bool = False
    base_id_path: str = ""
    socket_path: str = "@envoy_domain_socket"
    socket_mode: int = 0o600
    disable_hot_restart: bool = False
    skip_hot_restart_on_no_parent: bool = False
    skip_hot_restart_parent_stats: bool = False

    codec_engine: str = "mesh"
    """HTTP/2 of new connections: `mesh`, our own codec, or `h2`, the library"""
    disable_extensions: str = ""
    stats_tags: tuple[tuple[str, str], ...] = ()
    """(name, value) pairs on every statistic"""
    enable_mutex_tracing: bool = False
    enable_core_dump: bool = False
    cpuset_threads: bool = False
    log_stacktrace_single_entry: bool = False

    without_effect: tuple[str, ...] = ()
    """flags that were given, are accepted because start scripts have them, and do nothing yet"""

    def for_workers(self) -> WorkerOptions:
        """What a worker process needs of it."""
        return WorkerOptions(
            concurrency=self.concurrency,
            drain_time_s=float(self.drain_time_s),
            drain_strategy=self.drain_strategy,
            file_flush_interval_s=self.file_flush_interval_msec / 1000,
            file_flush_min_size_kb=self.file_flush_min_size_kb,
            service_cluster=self.service_cluster,
            service_node=self.service_node,
            service_zone=self.service_zone,
            local_address_ip_version=self.local_address_ip_version,
            restart_epoch=self.restart_epoch,
            log_level=self.log_level,
            component_log_levels=self.component_log_levels,
            log_path=self.log_path,
            log_format=self.log_format,
            log_format_escaped=self.log_format_escaped,
            codec_engine=self.codec_engine,
        )
