"""What the server says about itself: state, version, command line, memory, listeners, runtime."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from mesh_hotrestart import PROTOCOL_VERSION
from mesh_proxy import __version__
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text, to_json
from mesh_proxy.cli.version import version_string
from mesh_proxy.config.model.bootstrap import NodeConfig
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.logs import DEFAULT_FORMAT
from mesh_proxy.supervisor.memory import measure
from mesh_proxy.supervisor.stage import Stage

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor


def ready(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """The state in one word: 200 only if a worker serves, too."""
    why = supervisor.not_ready()
    return text(f"{why or supervisor.state}\n", 503 if why else 200)


def hot_restart_version(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Of the protocol between an old and a new process."""
    return text(_hot_restart_version(supervisor))


def _hot_restart_version(supervisor: Supervisor) -> str:
    return "disabled" if supervisor.options.disable_hot_restart else str(PROTOCOL_VERSION)


def server_info(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`envoy.admin.v3.ServerInfo`."""
    uptime = f"{supervisor.uptime_s}s"
    sidecarset = os.environ.get("SIDECARSET_VERSION")
    ours: dict[str, Any] = {}
    if sidecarset is not None:  # for the hook `mesh-proxy migrate`
        ours = {"sidecarset_version": sidecarset, "predecessor_connections": supervisor.predecessor_connections}
    return to_json(
        {
            **ours,
            "version": version_string(),
            "state": supervisor.state,
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": f"{supervisor.uptime_all_s}s",
            "hot_restart_version": _hot_restart_version(supervisor),
            "hot_restart_initializing": supervisor.handover.under_way and not supervisor.handover.handed_over,
            "command_line_options": _command_line(supervisor),
            "node": node_json(supervisor.bootstrap.node),
        }
    )


def user_agent() -> dict[str, Any]:
    """What the server adds to the node that is configured."""
    major, minor, patch = (int(part) for part in __version__.split("."))
    return {
        "user_agent_name": "mesh-proxy",
        "user_agent_build_version": {"version": {"major_number": major, "minor_number": minor, "patch": patch}},
    }


def node_json(node: NodeConfig) -> dict[str, Any]:
    """`envoy.config.core.v3.Node`."""
    found = {"id": node.id, "cluster": node.cluster, **user_agent(), "client_features": [], "listening_addresses": []}
    if node.metadata:
        found["metadata"] = dict(node.metadata)
    locality = {name: value for name in ("region", "zone", "sub_zone") if (value := getattr(node.locality, name))}
    if locality:
        found["locality"] = locality
    return found


def _command_line(supervisor: Supervisor) -> dict[str, Any]:
    """`envoy.admin.v3.CommandLineOptions`."""
    options = supervisor.options
    return {
        "base_id": str(options.base_id),
        "concurrency": options.concurrency,
        "config_path": options.config_path,
        "config_yaml": options.config_yaml,
        "allow_unknown_static_fields": options.allow_unknown_static_fields,
        "admin_address_path": options.admin_address_path,
        "local_address_ip_version": options.local_address_ip_version,
        "log_level": options.log_level,
        "component_log_level": ",".join(f"{name}:{level}" for name, level in options.component_log_levels),
        "log_format": options.log_format or DEFAULT_FORMAT,
        "log_path": options.log_path,
        "service_cluster": options.service_cluster,
        "service_node": options.service_node,
        "service_zone": options.service_zone,
        "file_flush_interval": f"{options.file_flush_interval_msec / 1000:g}s",
        "drain_time": f"{options.drain_time_s}s",
        "parent_shutdown_time": f"{options.parent_shutdown_time_s}s",
        "mode": "Serve",
        "disable_hot_restart": options.disable_hot_restart,
        "enable_mutex_tracing": options.enable_mutex_tracing,
        "restart_epoch": supervisor.epoch,
        "cpuset_threads": options.cpuset_threads,
        "reject_unknown_dynamic_fields": options.reject_unknown_dynamic_fields,
        "log_format_escaped": options.log_format_escaped,
        "disabled_extensions": [],
        "ignore_unknown_dynamic_fields": options.ignore_unknown_dynamic_fields,
        "use_dynamic_base_id": options.use_dynamic_base_id,
        "base_id_path": options.base_id_path,
        "drain_strategy": options.drain_strategy.capitalize(),
        "enable_fine_grain_logging": options.enable_fine_grain_logging,
        "socket_path": options.socket_path,
        "socket_mode": options.socket_mode,
        "enable_core_dump": options.enable_core_dump,
        "stats_tag": [f"{name}:{value}" for name, value in options.stats_tags],
        "skip_hot_restart_on_no_parent": options.skip_hot_restart_on_no_parent,
        "skip_hot_restart_parent_stats": options.skip_hot_restart_parent_stats,
        "skip_deprecated_logs": options.skip_deprecated_logs,
        "file_flush_min_size": options.file_flush_min_size_kb,
        "log_stacktrace_single_entry": options.log_stacktrace_single_entry,
    }


def init_dump(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`envoy.admin.v3.UnreadyTargetsDumps`."""
    if supervisor.stage is not Stage.INITIALIZING:
        return to_json({})
    waiting = [f"worker {handle.index}" for handle in supervisor.pool.workers if not handle.applied_version]
    dumps = [{"name": "workers", "target_names": waiting}]
    assembly = supervisor.configuration.assembly
    if assembly.missing:
        dumps.append({"name": "resources", "target_names": sorted(map(str, assembly.missing))})
    return to_json({"unready_targets_dumps": dumps})


def memory(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`envoy.admin.v3.Memory` over all processes; pages that they share count once. `?by_process` is ours."""
    processes = measure(supervisor.process_ids())
    physical = sum(process.pss for process in processes)
    by_process = [
        {"name": process.name, "pid": process.pid, "pss": str(process.pss), "rss": str(process.rss)} for process in processes
    ]
    return to_json(
        {
            "allocated": str(sum(process.private for process in processes)),
            "heap_size": str(physical),
            "pageheap_unmapped": "0",
            "pageheap_free": "0",
            "total_thread_cache": "0",
            "total_physical_bytes": str(physical),
            **({"processes": by_process} if request.flag("by_process") else {}),
        }
    )


def address_json(address: AddressConfig) -> dict[str, Any]:
    """`envoy.config.core.v3.Address`."""
    if address.path:
        return {"pipe": {"path": address.path}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def listeners(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`name::address` per listener, or `envoy.admin.v3.Listeners`."""
    statuses = []
    lines = []
    for listener in supervisor.configuration.listeners:
        configured = (listener.address, *listener.additional_addresses)
        local = [supervisor.sockets.local_address((listener.name, str(one))) or one for one in configured]
        lines += [f"{listener.name}::{address}\n" for address in local]
        status: dict[str, Any] = {"name": listener.name, "local_address": address_json(local[0])}
        if len(local) > 1:
            status["additional_local_addresses"] = [address_json(address) for address in local[1:]]
        statuses.append(status)
    if request.query.get("format") == "json":
        return to_json({"listener_statuses": statuses} if statuses else {})
    return text("".join(lines))


def runtime(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Final values and those of each layer."""
    bootstrap = json.loads(supervisor.bootstrap.proto_json)
    layers = bootstrap.get("layered_runtime", {}).get("layers", [])
    flat = [_flatten(layer.get("static_layer", {}), "") for layer in layers]
    entries = {
        key: {"layer_values": [_word(values.get(key, "")) for values in flat], "final_value": _word(value)}
        for key, value in sorted(supervisor.bootstrap.runtime.items())
    }
    return to_json({"layers": [layer.get("name", "") for layer in layers], "entries": entries})


def _flatten(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, one in value.items():
        if isinstance(one, dict):
            found |= _flatten(one, f"{prefix}{key}.")
        else:
            found[prefix + key] = one
    return found


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
