"""What every connection of a worker shares: the loop, the clusters, the time-outs, and who has output to flush."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from mesh_codecs.http2.frame_sender import ID_SIZE
from mesh_codecs.native import mypyc_attr
from mesh_proxy.dates import http_date
from mesh_proxy.deadlines import Deadlines
from mesh_proxy.listener.connection_table import ConnectionTable
from mesh_proxy.network.http2_hold import HeldResponses
from mesh_proxy.network.splice import Splices
from mesh_proxy.tls.secrets import SecretStore
from mesh_proxy.worker.route_tables import RouteTables
from mesh_proxy.worker.shared_cells import SharedCells
from mesh_proxy.worker.trace_memory import TraceMemory
from mesh_proxy.worker.value_table import ValueTable

if TYPE_CHECKING:
    from mesh_proxy.config.model import NodeConfig
    from mesh_proxy.stats.registry import StatRegistry
    from mesh_proxy.upstream.manager import ClusterManager


REQUEST_IDS: Final = 256
"""made at a time"""
_ID_FORM: Final = b"........-....-4...-a...-............"
_ID_PLACES: Final = [place for place, byte in enumerate(_ID_FORM) if byte == ord(".")]
"""of the thirty random digits"""


class Flushable(Protocol):
    """A connection with output gathered in its codec."""

    def flush(self) -> None:
        """Write what was gathered: one write per connection and turn."""


@mypyc_attr(allow_interpreted_subclasses=True)  # so its `__new__` does not call `__init__`: mesh_proxy.explain.scratch copies it
class WorkerContext:
    """One per worker."""

    __slots__ = (
        "_date",
        "_date_second",
        "_request_ids",
        "active_connections",
        "clusters",
        "codec_engine",
        "connection_counts",
        "deadlines",
        "dirty",
        "dirty_later",
        "draining",
        "fd_budget",
        "health_check_failed",
        "held_responses",
        "local_ip",
        "loop",
        "max_connections",
        "next_connection_id",
        "node",
        "registry",
        "route_tables",
        "runtime",
        "service_cluster",
        "service_node",
        "shared_cells",
        "sockets_shared",
        "splices",
        "tls_secrets",
        "total_connections",
        "trace_memory",
        "unattached",
        "upstream_connections",
        "value_table",
        "worker_index",
        "workers",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: StatRegistry) -> None:
        self.loop = loop
        self.registry = registry
        self.clusters: ClusterManager
        """set by the data plane once it exists"""
        self.connection_counts = ConnectionTable(None, 0)
        self.total_connections = self.connection_counts.count("")
        """downstream connections of all workers"""
        self.dirty: list[Flushable] = []
        """connections to flush at the end of this callback"""
        self.dirty_later: list[Flushable] = []
        """connections to flush when the loop has called back everyone who is ready now"""
        self.deadlines = Deadlines(loop, self.flush)
        self.held_responses = HeldResponses(loop)
        self.splices = Splices(loop)
        """byte streams that the kernel moves"""
        self.runtime: Mapping[str, Any] = {}
        self.route_tables = RouteTables()
        """those that come apart from their listeners"""
        self.tls_secrets = SecretStore()
        """certificates, keys and trust bundles"""
        self.shared_cells = SharedCells(None)
        """numbers of all workers, by name"""
        self.trace_memory = TraceMemory(None)
        """trace id → traffic label, of all workers"""
        self.node: NodeConfig
        """set by the data plane with each configuration"""
        self.value_table = ValueTable(None)
        """numbers of all workers, by values that requests bring"""
        self.worker_index = 0
        self.workers = 1
        """workers of the sidecar"""
        self.codec_engine = "mesh"
        """which HTTP/2 engine new connections get (`mesh_codecs.http2.ENGINES`)"""
        self.draining = False
        self.health_check_failed = False
        self.sockets_shared = False
        """another process may hold our listening sockets too"""
        self.next_connection_id = 0
        self.active_connections = 0
        """downstream connections"""
        self.upstream_connections = 0
        """upstream connections, those still connecting included"""
        self.unattached = 0
        """accepted a moment ago, and may each need an upstream connection at once"""
        self.max_connections: int | None = None
        """downstream connections of all workers together; None = no limit"""
        self.fd_budget = 1 << 30
        """how many connections the file descriptors allow"""
        self.local_ip = b"127.0.0.1"
        """address of this host that x-forwarded-for gets when the caller is on loopback, as in Envoy"""
        self.service_cluster = b""
        self.service_node = b""
        self._date = b""
        self._date_second = -1
        self._request_ids: list[bytes] = []

    def descriptors(self, share: float) -> bool:
        """Whether connections use less than this share of the descriptors that they may have."""
        return self.active_connections + self.upstream_connections + self.unattached < self.fd_budget * share

    def flush(self) -> None:
        """Write the gathered output of every touched connection. Every entry point from the loop ends with this."""
        dirty = self.dirty
        while dirty:
            # One by one: if one of them raises, the others are still in the list for the next flush.
            dirty.pop().flush()

    def flush_later(self, connection: Flushable) -> None:
        """Flush a connection once in this turn of the loop: for one that many others feed, which would else be written once for
        each of them."""
        later = self.dirty_later
        if not later:
            self.loop.call_soon(self._flush_later)
        later.append(connection)

    def _flush_later(self) -> None:
        later = self.dirty_later
        while later:
            later.pop().flush()

    def date(self) -> bytes:
        """The Date header's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = http_date(second)
        return self._date

    def request_id(self) -> bytes:
        """A UUID of version 4 as text. Random bytes are bought from the kernel by the kilobyte; version and variant are those
        of RFC 9562, 5.4."""
        ids = self._request_ids
        if not ids:
            digits = os.urandom(15 * REQUEST_IDS).hex().encode()
            text = bytearray(_ID_FORM * REQUEST_IDS)
            for number, place in enumerate(_ID_PLACES):
                text[place::ID_SIZE] = digits[number::30]  # that digit of all ids
            made = bytes(text)
            ids.extend([made[start : start + ID_SIZE] for start in range(0, len(made), ID_SIZE)])
        return ids.pop()
