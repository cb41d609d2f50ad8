"""What a worker takes from the command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The process-wide settings that are no part of the configuration; Envoy's flags and defaults."""

    concurrency: int = 1
    """number of workers (`--concurrency`)"""
    drain_time_s: float = 600.0
    """longest time a drain may take (`--drain-time-s`)"""
    drain_strategy: str = "gradual"
    """`gradual`: the share of responses that ask to close grows over drain_time_s; `immediate`: all (`--drain-strategy`)"""
    file_flush_interval_s: float = 10.0
    """how often buffered access-log lines are written (`--file-flush-interval-msec`)"""
    file_flush_min_size_kb: int = 64
    """buffered access-log kilobytes that are written at once (`--file-flush-min-size-kb`)"""
    service_cluster: str = ""
    """`--service-cluster`; the bootstrap's node.cluster when the flag is absent"""
    service_node: str = ""
    """`--service-node`; the bootstrap's node.id when the flag is absent"""
    service_zone: str = ""
    """`--service-zone`; the bootstrap's node.locality.zone when the flag is absent"""
    local_address_ip_version: str = "v4"
    """`v4` or `v6` (`--local-address-ip-version`)"""
    restart_epoch: int = 0
    """`--restart-epoch`"""
    log_level: str = "info"
    """`trace`, `debug`, `info`, `warning`, `error`, `critical` or `off` (`--log-level`)"""
    component_log_levels: tuple[tuple[str, str], ...] = ()
    """(component, level) pairs (`--component-log-level`)"""
    log_path: str = ""
    """file of the application log, empty for standard error (`--log-path`)"""
    log_format: str = ""
    """spdlog pattern of the application log, empty for the default (`--log-format`)"""
    log_format_escaped: bool = False
    """write line breaks inside a message as `\\n` (`--log-format-escaped`)"""
    codec_engine: str = "mesh"
    """which HTTP/2 engine new connections get, of `mesh_codecs.http2.ENGINES` (`--codec-engine`)"""
