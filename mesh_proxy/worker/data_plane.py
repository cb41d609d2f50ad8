"""One worker's data plane: listeners, clusters and everything between, driven by `mesh_proxy.worker.main`."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Mapping
from typing import Any, Final, cast

from mesh_proxy.access_log import AccessLogger, SinkSet
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model import (
    ConnectionLimitConfig,
    ConnectionRateConfig,
    DubboProxyConfig,
    FilterChainConfig,
    HttpManagerConfig,
    ListenerConfig,
    NetworkRbacConfig,
    TcpProxyConfig,
    WorkerSnapshot,
)
from mesh_proxy.context import WorkerContext
from mesh_proxy.listener.connection import DownstreamConnection
from mesh_proxy.listener.connection_limit import ConnectionLimit
from mesh_proxy.listener.connection_rate import ConnectionRate
from mesh_proxy.listener.connection_rbac import ConnectionRbac
from mesh_proxy.listener.connection_table import ConnectionTable
from mesh_proxy.listener.destination import Directory
from mesh_proxy.listener.listener import Listener, ProtocolFactory, listener_prefix
from mesh_proxy.listener.mover import Mover, MovingState
from mesh_proxy.network.detection import Detection
from mesh_proxy.network.dubbo_connection import DubboConnection
from mesh_proxy.network.dubbo_manager import DubboManager
from mesh_proxy.network.http2_connection import Http2Connection
from mesh_proxy.network.http_connection import HttpConnection
from mesh_proxy.network.http_manager import HttpManager
from mesh_proxy.network.http_shell import HttpShell
from mesh_proxy.network.local_address import local_ip
from mesh_proxy.network.tcp_proxy import TcpConnection, TcpProxy
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.stream.info import ConnectionInfo
from mesh_proxy.tls.secrets import secrets_of
from mesh_proxy.tls.server import TlsAcceptor
from mesh_proxy.upstream.ejection_board import EjectionBoard
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.health.board import HealthBoard
from mesh_proxy.upstream.manager import ClusterManager
from mesh_proxy.upstream.resource_table import ResourceTable
from mesh_proxy.worker.interface import SocketKey
from mesh_proxy.worker.options import WorkerOptions
from mesh_proxy.worker.route_tables import Staged, commit
from mesh_proxy.worker.shared import SharedTables
from mesh_proxy.worker.shared_cells import SharedCells
from mesh_proxy.worker.trace_memory import TraceMemory
from mesh_proxy.worker.value_table import ValueTable

_log = logging.getLogger("main")

RESERVED_DESCRIPTORS: Final = 64
"""Kept free for logs, the control channel, DNS and the loop itself."""
DRAIN_POLL_S: Final = 0.05


class DataPlane:
    """See `mesh_proxy.worker.interface.DataPlaneApi`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, worker_index: int, options: WorkerOptions, shared: SharedTables | None
    ) -> None:
        self.worker_index = worker_index
        self.options = options
        self.registry = StatRegistry()
        self._context = WorkerContext(loop, self.registry)
        self._context.connection_counts = ConnectionTable(shared, worker_index)
        self._context.total_connections = self._context.connection_counts.count("")
        self._runtime: dict[str, Any] = {}
        self._context.runtime = self._runtime
        self._context.clusters = ClusterManager(
            loop,
            self.registry,
            self._runtime,
            on_endpoint_removed=_drain_pools,
            table=ResourceTable.of(shared, worker_index),
            board=EjectionBoard.of(shared, worker_index),
            health_board=HealthBoard.of(shared, worker_index),
            secrets=self._context.tls_secrets,
        )
        self._context.shared_cells = SharedCells(shared)
        self._context.value_table = ValueTable(shared)
        self._context.worker_index = worker_index
        self._context.workers = shared.worker_count if shared is not None else 1
        self._context.codec_engine = options.codec_engine
        self._context.service_cluster = options.service_cluster.encode()
        self._context.service_node = options.service_node.encode()
        self._context.local_ip = local_ip(options.local_address_ip_version)
        self._context.fd_budget = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS, 16)
        self._sinks = SinkSet(self.registry, flush_interval_s=options.file_flush_interval_s)
        self._listeners: dict[str, Listener] = {}
        self._directory = Directory()
        self._asked: set[DownstreamConnection] = set()
        """redirected connections that were asked to leave"""
        self._old_listeners: list[Listener] = []
        """dropped or replaced, with connections that still finish"""

    async def apply(self, snapshot: WorkerSnapshot, sockets: dict[SocketKey, socket.socket]) -> None:
        """Make a version live. New listeners are compiled before anything changes, so that a bad one changes nothing."""
        context = self._context
        context.node = snapshot.node
        context.tls_secrets.replace((*secrets_of((*snapshot.listeners, *snapshot.clusters)), *snapshot.rotated_secrets))
        self._runtime.clear()
        self._runtime.update(snapshot.runtime)
        context.max_connections = snapshot.max_downstream_connections
        staged, fresh = self._compile(snapshot)
        # Make before break: new clusters are there, and warm, before anything routes to them; old ones go last.
        context.clusters.prepare(snapshot.clusters)
        await context.clusters.warm(WARM_DEADLINE_S)
        commit(staged)
        wanted = {config.name for config in snapshot.listeners}
        for name in [*fresh, *(set(self._listeners) - wanted)]:
            gone = self._listeners.pop(name, None)
            if gone is not None:
                if name in fresh:
                    gone.hand_over(fresh[name])
                gone.stop_listening()
                gone.start_drain()
                self._old_listeners.append(gone)
                context.loop.call_later(self.options.drain_time_s, self._drop_listener, gone)
        self._listeners.update(fresh)
        self._directory.update(self._listeners.values())
        for key, listening in sockets.items():
            name, address = key[:2]
            listener = self._listeners.get(name)
            if listener is None:
                listening.close()
            else:
                listener.add_socket(listening, address)
        context.clusters.switch()
        context.route_tables.prune()

    def _compile(self, snapshot: WorkerSnapshot) -> tuple[Staged, dict[str, Listener]]:
        """Route tables and listeners that are new or changed. Raises ConfigError, and then nothing has changed."""
        tables = self._context.route_tables
        staged = tables.stage(snapshot.route_tables)
        before, tables.configs = tables.configs, snapshot.route_tables
        fresh: dict[str, Listener] = {}
        try:
            for config in snapshot.listeners:
                old = self._listeners.get(config.name)
                if old is None or (old.config is not config and old.config != config):
                    fresh[config.name] = self._compile_listener(config)
        except ConfigError:
            tables.configs = before
            raise
        return staged, fresh

    def _drop_listener(self, old: Listener) -> None:
        """A replaced listener had its time: who is still connected through it (a tunnel, a byte stream) is cut, as by Envoy."""
        if old in self._old_listeners:
            self._old_listeners.remove(old)
            old.close()

    def _compile_listener(self, config: ListenerConfig) -> Listener:
        loggers = tuple(AccessLogger(log, self._sinks, self._context.runtime) for log in config.access_logs)
        try:
            return Listener(config, self._context, self._compile_chain, loggers, self._directory)
        except ValueError as error:
            raise ConfigError(f"listeners[{config.name}]", str(error)) from error

    def _compile_chain(self, chain: FilterChainConfig, listener: Listener) -> ProtocolFactory:
        factory: ProtocolFactory | None = None
        before: list[ConnectionLimitConfig | ConnectionRateConfig | NetworkRbacConfig] = []
        for config in chain.filters:
            if isinstance(config, (ConnectionLimitConfig, ConnectionRateConfig, NetworkRbacConfig)):
                before.append(config)
            elif isinstance(config, HttpManagerConfig):
                manager = HttpManager(config, self._context, self._sinks, listener_prefix(listener.config))
                listener.managers[id(chain)] = manager
                factory = _http_factory(manager)
            elif isinstance(config, TcpProxyConfig):
                proxy = listener.managers[id(chain)] = TcpProxy(config, self._context, self._sinks)
                factory = _tcp_factory(proxy)
            elif isinstance(config, DubboProxyConfig):
                dubbo = listener.managers[id(chain)] = DubboManager(config, self._context, self._sinks)
                factory = _dubbo_factory(dubbo)
        if factory is None:
            raise ValueError(f"filter chain {chain.name!r} has no terminal filter")
        for config in reversed(before):
            if isinstance(config, NetworkRbacConfig):
                factory = ConnectionRbac(config, self._context, factory, encrypted=chain.transport_socket is not None).make
            elif isinstance(config, ConnectionRateConfig):
                factory = ConnectionRate(config, self._context, factory, listener.config.name).make
            else:
                factory = ConnectionLimit(config, self._context, factory, listener.config.name).make
        if chain.transport_socket is not None:
            prefix, timeout_s = listener_prefix(listener.config), chain.transport_socket_connect_timeout_s
            factory = TlsAcceptor(chain.transport_socket, self._context, factory, prefix, timeout_s).make
        return factory

    # -- the end of things

    def start_drain(self, *, inbound_only: bool = False, graceful: bool = True) -> None:
        """Ask callers to go away; see the interface."""
        if not inbound_only:
            self._context.draining = True
        for listener in self._selected(inbound_only):
            listener.start_drain()
            if not graceful:
                listener.stop_listening()

    def stop_listening(self, *, inbound_only: bool = False) -> None:
        """Stop accepting."""
        for listener in self._selected(inbound_only):
            listener.stop_listening()

    def share_sockets(self, shared: bool) -> None:
        """See the interface."""
        self._context.sockets_shared = shared

    def hand_over(self, passed: frozenset[tuple[str, str]], mover: Mover) -> None:
        """See the interface."""
        for listener in (*self._listeners.values(), *self._old_listeners):
            listener.give_away(passed)
            listener.stop_listening()
            listener.move_all(mover)

    def intercepted(self, action: str) -> int:
        """See the interface."""
        listeners = (*self._listeners.values(), *self._old_listeners)
        found = [one for listener in listeners for one in listener.connections if one.connection_info.original_destination]
        self._asked.intersection_update(found)
        if action:
            for connection in found:
                if action == "cut":
                    connection.abort()
                elif connection not in self._asked:
                    self._asked.add(connection)
                    connection.close_when_idle()
        self._context.flush()
        return len(found) + self._context.unattached

    def resume(self) -> None:
        """See the interface."""
        for listener in (*self._listeners.values(), *self._old_listeners):
            listener.move_all(None)

    def adopt(self, listener: str, moved: MovingState, sock: socket.socket) -> Any:
        """See the interface. A listener that was renamed is found by its address."""
        found = self._listeners.get(listener)
        if found is None:
            found = next((one for one in self._listeners.values() if _is_bound_to(one.config, sock.getsockname())), None)
        if found is None:
            raise ValueError(f"there is no listener {listener!r}")
        return found.adopt(sock, moved)

    def _selected(self, inbound_only: bool) -> list[Listener]:
        return [one for one in self._listeners.values() if not inbound_only or one.config.traffic_direction == "INBOUND"]

    @property
    def active_connections(self) -> int:
        """Downstream connections that are open now."""
        return self._context.active_connections

    async def wait_drained(self, deadline_s: float) -> bool:
        """Wait until no downstream connection is left."""
        loop = self._context.loop
        deadline = loop.time() + deadline_s
        while self._context.active_connections:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(DRAIN_POLL_S)
        return True

    def set_health_check_failed(self, failed: bool) -> None:
        """`/healthcheck/fail` and `/healthcheck/ok`: responses ask callers to go elsewhere while it is failed."""
        self._context.health_check_failed = failed

    def reopen_logs(self) -> None:
        """Close and open again the access-log files."""
        self._sinks.reopen()

    def describe_clusters(self) -> list[dict[str, Any]]:
        """For `/clusters`."""
        return self._context.clusters.describe()

    def explain(self, question: Any) -> dict[str, Any]:
        """See the interface."""
        from mesh_proxy.explain.explainer import explain  # costs memory, and seldom needed

        return explain(question, self._listeners.values())

    def use_traces(self, descriptor: int) -> None:
        """See the interface."""
        self._context.trace_memory = TraceMemory(descriptor)

    def set_log_levels(self, levels: Mapping[str, str]) -> None:
        """Nothing of ours caches a level."""

    def close(self) -> None:
        """Abort everything."""
        for listener in [*self._listeners.values(), *self._old_listeners]:
            listener.close()
        for cluster in self._context.clusters:
            for endpoint in cluster.endpoints:
                for pool in tuple(endpoint.pools.values()):
                    pool.close()
        self._context.clusters.close()
        self._context.deadlines.close()
        self._context.splices.close()
        self._sinks.close()


WARM_DEADLINE_S: Final = 10.0
"""How long a start or an update waits for the first answers of DNS and health checks; then it goes on with what there is."""


_CONNECTIONS: Final[dict[str, type[HttpShell]]] = {"AUTO": Detection, "HTTP1": HttpConnection, "HTTP2": Http2Connection}
"""by `codec_type`"""
_BY_ALPN: Final[dict[str, type[HttpShell]]] = {"h2": Http2Connection, "http/1.1": HttpConnection, "http/1.0": HttpConnection}
"""what TLS agreed on goes before what the first bytes look like; other names say nothing about the version"""


def _is_bound_to(config: ListenerConfig, local: Any) -> bool:
    """A connection with this local address may have come through the listener."""
    for address in (config.address, *config.additional_addresses):
        if address.path:
            if local == address.path:
                return True
        elif isinstance(local, tuple) and address.port == local[1] and address.host in (local[0], "0.0.0.0", "::"):
            return True
    return False


def _http_factory(manager: HttpManager) -> ProtocolFactory:
    kind = _CONNECTIONS[manager.config.codec_type]
    if kind is not Detection:
        return lambda info, listener: kind(manager, info, listener)

    def by_alpn(info: ConnectionInfo, listener: Listener) -> HttpShell:
        agreed = _BY_ALPN.get(info.tls.alpn, Detection) if info.tls is not None else Detection
        return agreed(manager, info, listener)

    return by_alpn


def _tcp_factory(proxy: TcpProxy) -> ProtocolFactory:
    return lambda info, listener: TcpConnection(proxy, info, listener)


def _dubbo_factory(manager: DubboManager) -> ProtocolFactory:
    return lambda info, listener: cast("asyncio.Protocol", DubboConnection(manager, info, listener))


def _drain_pools(endpoint: Endpoint) -> None:
    """An endpoint left its cluster: idle connections to it close, busy ones after their response."""
    endpoint.removed = True
    for pool in tuple(endpoint.pools.values()):
        pool.drain()
