"""Starting the processes, in the order that keeps them small: loader forked, everything imported, spawner forked, then the event
loop. The loader comes first because it takes longest: it reads while the others' modules are imported.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import socket
import sys
from collections.abc import Callable

import uvloop

from mesh_proxy.cli.options import Options
from mesh_proxy.config.model.bootstrap import BootstrapConfig
from mesh_proxy.listener import connection_table
from mesh_proxy.logs import configure_logging
from mesh_proxy.supervisor import guardian
from mesh_proxy.supervisor.loading import Loading
from mesh_proxy.supervisor.spawner import READER_INDEX, WorkerEntry, start_spawner
from mesh_proxy.upstream import ejection_board, resource_table
from mesh_proxy.upstream.health import board as health_board
from mesh_proxy.worker import shared_cells, value_table
from mesh_proxy.worker.interface import DataPlaneFactory
from mesh_proxy.worker.main import run_worker
from mesh_proxy.worker.shared import SharedTables
from mesh_proxy.xds.reader_process import run_reader

_log = logging.getLogger("main")
Loader = Callable[[Options], BootstrapConfig]


def shared_tables(worker_count: int) -> dict[str, int]:
    """name -> bytes of the tables that all workers share."""
    users = (resource_table, ejection_board, health_board, connection_table, shared_cells, value_table)
    return {module.TABLE_NAME: module.table_size(worker_count) for module in users}


def load_configuration(options: Options, load: Loader | None = None) -> BootstrapConfig:
    """The configuration that the options name. Raises ConfigError. Imports protobuf and YAML."""
    if load is not None:
        return load(options)
    from mesh_proxy.config.loader import LoadOptions, load_bootstrap

    return load_bootstrap(
        options.config_path or None,
        options.config_yaml or None,
        options=LoadOptions(
            allow_unknown_static_fields=options.allow_unknown_static_fields,
            service_cluster=options.service_cluster,
            service_node=options.service_node,
        ),
    )


def _enter(worker: WorkerEntry, index: int, control: socket.socket, page: int) -> int:
    """What a process does that the spawner has forked."""
    if index == READER_INDEX:
        return run_reader(control)
    return worker(index, control, page)


def run(options: Options, *, factory: DataPlaneFactory | None = None, load: Loader | None = None) -> int:
    """Serve until told to stop; the exit code."""
    try:
        configure_logging(options)
    except OSError as error:
        print(f"mesh-proxy: --log-path {options.log_path}: {error.strerror}", file=sys.stderr)
        return 1
    loading = Loading(functools.partial(load_configuration, options, load))
    if factory is None:
        factory = importlib.import_module("mesh_proxy.worker.data_plane").DataPlane
    # Before the fork, though workers have no use for the supervisor's modules: an import counts references to names all over the
    # heap, and would copy much of what the processes share.
    import ctypes  # noqa: F401 - of the spawner and the workers

    from mesh_proxy.supervisor.spawner_client import SpawnerClient
    from mesh_proxy.supervisor.supervisor import Supervisor

    shared = SharedTables(shared_tables(options.concurrency), worker_count=options.concurrency)
    entry = functools.partial(run_worker, options=options.for_workers(), shared=shared, factory=factory)
    spawner_pid, spawner_socket = start_spawner(functools.partial(_enter, entry))

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    spawner = SpawnerClient(loop, spawner_socket, spawner_pid)

    async def serve() -> tuple[int, Supervisor]:
        supervisor = Supervisor(loop, options, spawner, loading)
        return await supervisor.run(), supervisor

    try:
        code, supervisor = loop.run_until_complete(serve())
    except KeyboardInterrupt:  # between the start and the signal handlers
        return 130
    finally:
        loop.close()
    if supervisor.restarter.living:
        _log.info("hot upgrade: staying as the guardian of pid %s", ", ".join(map(str, supervisor.restarter.living)))
        guardian.become(supervisor.restarter.living, supervisor.restarter.command)
    return code
