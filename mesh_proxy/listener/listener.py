"""One listener of a worker: counts what it accepts, chooses the filter chain, and knows its connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.errors import ProtocolError
from mesh_proxy.listener.accepting import Accepting
from mesh_proxy.listener.destination import Destination, Directory, original_destination
from mesh_proxy.listener.inspection import UNINSPECTED, Inspection, Inspector, InspectorKind
from mesh_proxy.listener.match import FilterChainMatcher, facts_of
from mesh_proxy.listener.predicate import compile_predicate
from mesh_proxy.network.original_source import COMES_BACK, keeper_of, runs_as_redirected_user
from mesh_proxy.network.successors import successor
from mesh_proxy.network.transport import address_of
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.groups import ListenerStats
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo
from mesh_proxy.tasks import create_task

if TYPE_CHECKING:
    from mesh_proxy.access_log import AccessLogger
    from mesh_proxy.config.model import FilterChainConfig, ListenerConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.listener.connection import DownstreamConnection
    from mesh_proxy.listener.mover import Mover, MovingState

_log = logging.getLogger("conn_handler")

APPLICATION_PROTOCOLS: Final = {"http1": ("http/1.1",), "detect": ("http/1.1",), "http2": ("h2c",)}
"""what was found out about a connection that another process hands over, by the protocol that it speaks"""
LARGEST_CLIENT_HELLO: Final = 16_384
"""max_client_hello_size by default"""
ProtocolFactory = Callable[[ConnectionInfo, "Listener"], asyncio.Protocol]
"""Makes the protocol of a connection for one filter chain."""


class Listener(Accepting):
    """A listener as one worker runs it."""

    __slots__ = (
        "_access_loggers",
        "_count",
        "_directory",
        "_factories",
        "_inspectors",
        "_keeper",
        "_matcher",
        "_restores",
        "buffer_limit",
        "connections",
        "draining",
        "ends_on_failed_check",
        "managers",
        "mover",
        "name",
        "stats",
    )

    def __init__(
        self,
        config: ListenerConfig,
        context: WorkerContext,
        compile_chain: Callable[[FilterChainConfig, Listener], ProtocolFactory],
        access_loggers: tuple[AccessLogger, ...],
        directory: Directory | None = None,
    ) -> None:
        super().__init__(config, context)
        self.name = config.name
        self.stats = context.registry.get(ListenerStats, listener_prefix(config))
        self.buffer_limit = config.per_connection_buffer_limit_bytes
        self._count = context.connection_counts.count(f"listener {config.name}")
        self.draining = False
        self.ends_on_failed_check = config.drain_type == "DEFAULT"
        """after `/healthcheck/fail` answers are the last ones on their connections; not with MODIFY_ONLY"""
        self.mover: Mover | None = None
        """a new process takes our connections"""
        self.connections: set[DownstreamConnection] = set()
        self._access_loggers = access_loggers
        self._matcher = FilterChainMatcher(config.filter_chains, config.default_filter_chain)
        self.managers: dict[int, Any] = {}
        """what runs each chain, by the identity of its configuration: HttpManager, DubboManager or TcpProxy"""
        chains = [*config.filter_chains, *([config.default_filter_chain] if config.default_filter_chain is not None else [])]
        self._factories = {id(chain): compile_chain(chain, self) for chain in chains}
        self._inspectors = compile_inspectors(config, self._matcher)
        self._restores = config.use_original_dst or any(one.type_url.endswith(".OriginalDst") for one in config.listener_filters)
        """looks where connections were going before they were redirected here"""
        self._directory = directory if config.use_original_dst else None
        self._keeper = keeper_of(config)
        """has upstream connections come from the caller's address (`original_src`)"""
        if self._keeper is not None and context.worker_index == 0:
            missing = self._keeper.missing()
            if missing:
                _log.warning("listener %s: original_src: %s. Until then its connections to endpoints fail", config.name, missing)
            elif config.transparent and runs_as_redirected_user():
                _log.warning("listener %s: original_src: %s", config.name, COMES_BACK)

    # -- accepted connections

    def _accepted(self, accepted: socket.socket, peer: Any, name: Any, listening: socket.socket) -> None:
        context = self.context
        stats = self.stats
        limit = self.config.max_connections
        if limit is not None and self._count.total() >= limit:
            stats.downstream_cx_overflow += 1
            accepted.close()
            return
        if context.max_connections is not None and context.total_connections.total() >= context.max_connections:
            stats.downstream_global_cx_overflow += 1
            accepted.close()
            return
        destination: Destination | None = None
        try:
            local = name if name is not None else accepted.getsockname()
            if self._restores:
                destination = self._destination(accepted, local, listening)
        except OSError:
            stats.downstream_cx_total += 1
            accepted.close()
            return
        if destination is not None and self._directory is not None:
            other = self._directory.find(destination)
            if other is not None:
                other.take(accepted, peer, local, destination)
                return
        self.take(accepted, peer, local, destination)

    def _destination(self, accepted: socket.socket, local: Any, listening: socket.socket) -> Destination | None:
        name = listening.getsockname()
        port = name[1] if isinstance(name, tuple) else 0
        return original_destination(accepted, local, transparent=self.config.transparent, listening_port=port)

    def take(self, accepted: socket.socket, peer: Any, local: Any, destination: Destination | None) -> None:
        """Serve an accepted connection, perhaps one that another listener accepted; `destination`: where it was going before it
        was redirected."""
        stats = self.stats
        stats.downstream_cx_total += 1
        info = self._describe(local, peer, destination)
        connection: Any
        inspectors = tuple([one for one in self._inspectors if not one.disabled(info.local_port)]) if self._inspectors else ()
        if inspectors:
            connection = Inspection(self, info, inspectors)
        else:
            factory = self.chain_for(info)
            if factory is None:
                stats.downstream_cx_destroy += 1
                accepted.close()
                return
            connection = factory(info, self)
        self._count_active()
        self._attach_soon(connection, accepted, "accept")

    def chain_for(self, info: ConnectionInfo) -> ProtocolFactory | None:
        """What makes the protocol of this connection; None, counted and logged, when no filter chain takes it."""
        chain = self.matching_chain(info)
        if chain is None:
            self.stats.no_filter_chain_match += 1
            self._log(info, flags.NO_ROUTE_FOUND, "filter_chain_not_found")
            return None
        info.filter_chain_name = chain.name
        return self._factories[id(chain)]

    def matching_chain(self, info: ConnectionInfo) -> FilterChainConfig | None:
        """The filter chain that takes such a connection."""
        return self._matcher.find(facts_of(info)) if not self._matcher.trivial else self.config.filter_chains[0]

    def inspected(self, connection: DownstreamConnection) -> None:
        """The connection becomes that of a filter chain."""
        self.connections.discard(connection)

    async def _attach(self, connection: Any, accepted: socket.socket) -> None:
        try:
            await self.context.loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError as error:
            _log.debug("listener %s: connection vanished: %s", self.config.name, error)
            accepted.close()
            connection.owner.connection_closed(connection)
        finally:
            self.context.unattached -= 1

    def _describe(self, local: Any, peer: Any, destination: Destination | None = None) -> ConnectionInfo:
        context = self.context
        context.next_connection_id += 1
        info = ConnectionInfo(context.next_connection_id, time.monotonic(), time.time())
        info.listener_direction = self.config.traffic_direction
        if destination is not None:
            info.original_destination = local = destination  # and everybody sees the connection as one to that address
        info.local_address = address_of(local)
        if isinstance(local, tuple):
            info.local_ip = local[0].encode()
            info.local_port = local[1]
        if isinstance(peer, tuple):
            info.remote_ip = peer[0].encode()
            info.remote_port = peer[1]
        info.remote_address = info.direct_remote_address = address_of(peer)
        if self._keeper is not None:
            info.source = self._keeper.source_of(peer, info.local_port)
        return info

    def _log(self, info: ConnectionInfo, flag: int = 0, details: str = "") -> None:
        """The listener's own access log: one line for every connection."""
        if self._access_loggers:
            stream = StreamInfo(info, info.start_monotonic)
            stream.flags |= flag
            stream.details = details
            stream.end_time = time.monotonic()
            for logger in self._access_loggers:
                logger.log(stream)

    # -- connections

    def connection_opened(self, connection: DownstreamConnection) -> None:
        """A connection of ours has its transport."""
        self.connections.add(connection)
        if self.draining:
            connection.close_when_idle()
        elif self.mover is not None:
            connection.move(self.mover)

    def connection_replaced(self, old: DownstreamConnection, new: DownstreamConnection) -> None:
        """The protocol of a connection became known."""
        self.connections.discard(old)
        self.connections.add(new)

    def connection_closed(self, connection: DownstreamConnection) -> None:
        """A connection of ours is gone."""
        self.stats.downstream_cx_destroy += 1
        self.connection_moved(connection)
        if self._access_loggers:
            self._log(connection.connection_info)

    def connection_moved(self, connection: DownstreamConnection) -> None:
        """A connection of ours is another process's; it is counted and logged at its end, there."""
        self.connections.discard(connection)
        self.stats.downstream_cx_active -= 1
        self.context.active_connections -= 1
        self.context.total_connections.add(-1)
        self._count.add(-1)

    def move_all(self, mover: Mover | None) -> None:
        """A new process takes our connections; None: it does so no longer, and they stay."""
        self.mover = mover
        if mover is not None:
            for connection in tuple(self.connections):
                connection.move(mover)
            self.context.flush()

    def adopt(self, sock: socket.socket, moved: MovingState) -> Any:
        """Go on with a connection of the process before us; the connection object. Raises ValueError, and OSError when its caller
        has left. Limits do not apply: it is no new connection."""
        local = sock.getsockname()
        port = self.config.address.port if self.config.bind_to_port else 0
        restores = self._restores or not self.config.bind_to_port
        found = original_destination(sock, local, transparent=self.config.transparent, listening_port=port) if restores else None
        info = self._describe(local, sock.getpeername(), found)
        info.start_monotonic = float(moved.facts["start_monotonic"])
        info.start_wall = float(moved.facts["start_wall"])
        if moved.protocol == UNINSPECTED:
            return self._adopt_unknown(info, sock, moved)
        if any(one.kind is InspectorKind.HTTP for one in self._inspectors):
            found_out = moved.facts.get("application_protocols")
            info.application_protocols = tuple(found_out) if found_out else APPLICATION_PROTOCOLS.get(moved.protocol, ())
        chain = self._matcher.find(facts_of(info)) if not self._matcher.trivial else self.config.filter_chains[0]
        if chain is None:
            raise ValueError("no filter chain matches it")
        info.filter_chain_name = chain.name
        first: Any = self._factories[id(chain)](info, self)
        self._count_active()
        try:
            connection = successor(first, moved)
        except (ValueError, KeyError, TypeError, ProtocolError) as error:
            first.owner.connection_moved(first)
            raise ValueError(f"{moved.protocol}: {error}") from None
        self._attach_soon(connection, sock, "adopt")
        return connection

    def _adopt_unknown(self, info: ConnectionInfo, sock: socket.socket, moved: MovingState) -> Inspection:
        """Nobody knows yet what it speaks; who has looked already need not look again."""
        looked = moved.facts.get("looked", ())
        left = tuple(one for one in self._inspectors if not one.disabled(info.local_port) and one.kind.value not in looked)
        if not left:
            raise ValueError("the listener does not look at first bytes any more")
        connection = Inspection(self, info, left, moved.state, looked)
        self._count_active()
        self._attach_soon(connection, sock, "adopt")
        return connection

    def _count_active(self) -> None:
        self.stats.downstream_cx_active += 1
        self.context.active_connections += 1
        self.context.total_connections.add(1)
        self._count.add(1)

    def _attach_soon(self, connection: Any, accepted: socket.socket, name: str) -> None:
        self.context.unattached += 1
        create_task(self._attach(connection, accepted), name=name)

    def start_drain(self) -> None:
        """Ask every connection to end: idle ones now, busy ones after what they are doing."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_when_idle()
        self.context.flush()

    def close(self) -> None:
        """Stop accepting and abort every connection."""
        self.stop_listening()
        for connection in tuple(self.connections):
            connection.abort()

    def __repr__(self) -> str:
        return f"<Listener {self.config.name} {self.config.address} connections={len(self.connections)}>"


def compile_inspectors(config: ListenerConfig, matcher: FilterChainMatcher) -> tuple[Inspector, ...]:
    """The listener filters that look at first bytes, in their order. As with Envoy, tls_inspector runs too where filter chains
    ask for what only it can tell."""
    found: list[Inspector] = []
    for one in config.listener_filters:
        if one.type_url.endswith(".TlsInspector"):
            found.append(Inspector(InspectorKind.TLS, compile_predicate(one.disabled), one.config["max_client_hello_size"]))
        elif one.type_url.endswith(".HttpInspector"):
            found.append(Inspector(InspectorKind.HTTP, compile_predicate(one.disabled)))
    kinds = {one.kind for one in found}
    wanted = matcher.needs_server_name or (matcher.needs_application_protocols and not kinds)
    if wanted and InspectorKind.TLS not in kinds:
        found.insert(0, Inspector(InspectorKind.TLS, compile_predicate(None), LARGEST_CLIENT_HELLO))
    return tuple(found)


def listener_prefix(config: ListenerConfig) -> str:
    """`listener.127.0.0.1_8080.`, or with the configured stat_prefix instead of the address."""
    return f"listener.{sanitize(config.stat_prefix or str(config.address))}."
