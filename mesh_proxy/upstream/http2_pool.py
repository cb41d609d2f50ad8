"""HTTP/2 connections to one endpoint: as many requests on each as the endpoint allows, another connection when they are full.

How many streams an endpoint allows is known only when its SETTINGS arrive, half a round trip after the connection stands.
Before, a connection to an endpoint that we do not know carries one request and the others wait in line, so that an endpoint
that allows few never has to refuse one; later connections start with what the endpoint allowed last.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import ResetReason
from mesh_codecs.http2 import Http2Settings
from mesh_proxy.stats.http2_group import Http2Stats
from mesh_proxy.upstream.http2_connection import Http2UpstreamConnection
from mesh_proxy.upstream.pool import ConnectionPool

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks
    from mesh_proxy.upstream.http2_stream import Http2UpstreamStream
    from mesh_proxy.upstream.resources import Resources

MOST_AT_ONCE: Final = 3
"""connections that one event may open; each of them looks at the line again (Envoy: tryCreateNewConnections)"""


class Http2Pool(ConnectionPool[Http2UpstreamConnection]):
    """The connections of one worker to one endpoint, for one priority."""

    __slots__ = ("http2_stats", "jitter", "known_limit", "max_requests", "moved", "probe_after_s", "ready", "settings")

    def __init__(
        self, context: WorkerContext, cluster: Cluster, endpoint: Endpoint, resources: Resources, settings: Http2Settings
    ) -> None:
        super().__init__(context, cluster, endpoint, resources)
        self.settings = settings
        self.jitter = cluster.config.http2.keepalive_jitter_percent / 100
        """random share added to the interval of PINGs, so that many connections do not send theirs together"""
        self.probe_after_s = cluster.config.http2.connection_idle_interval_s
        """silence after which a connection is tried with a PING as it is used again"""
        self.max_requests = cluster.config.max_requests_per_connection
        self.known_limit: int | None = None
        """concurrent streams that the endpoint allowed on its latest connection; None: it has not said anything yet"""
        self.ready: list[Http2UpstreamConnection] = []
        """connections that take another request; the first one gets it"""
        self.moved: deque[Http2UpstreamStream] = deque()
        """requests that their connection left behind; they go before the line, and count as active all the time"""
        self.http2_stats = context.registry.get(Http2Stats, cluster.stats.prefix + "http2.")

    def acquire(self, callbacks: UpstreamCallbacks) -> None:
        """Find or open a connection. `on_pool_ready` or `on_pool_failure` follows, perhaps at once."""
        while self.ready:
            if not self.resources.can_create_request():
                self._overflow(callbacks, active=True)
                return
            if self.ready[0].begin(callbacks):
                return
        if not self.resources.can_create_pending():
            self._overflow(callbacks, active=False)
            return
        self._wait(callbacks)
        self._open_for_line()

    def take(self) -> Http2UpstreamConnection | None:
        """A connection that takes a request at once, if nothing is to be said about it."""
        return self.ready[0] if self.ready and self.resources.can_create_request() else None

    def serve(self) -> None:
        """There may be room for some of those who wait."""
        while self.ready and self.moved:
            stream = self.moved.popleft()
            if not self.ready[0].take_over(stream):
                self.moved.appendleft(stream)
        while self.ready and self.pending:
            callbacks = self._next_in_line()
            if callbacks is None:
                break
            while not self.ready[0].begin(callbacks):
                if not self.ready:
                    self._back_in_line(callbacks)
                    break
        if self.pending or self.moved:
            self._open_for_line()

    def _back_in_line(self, callbacks: UpstreamCallbacks) -> None:
        """The connection took no more after all."""
        self.resources.add_pending()
        self.cluster.stats.upstream_rq_pending_active += 1
        self.pending.appendleft(callbacks)

    def move(self, streams: list[Http2UpstreamStream]) -> None:
        """Requests that their connection has left behind, unprocessed, go to another one."""
        self.moved.extend(streams)
        self.serve()

    def forget(self, stream: Http2UpstreamStream) -> None:
        """The router gave up a request that was waiting for another connection."""
        self.moved.remove(stream)
        stream.connection.uncount()

    def _fail_pending(self, reason: ResetReason, transport_failure: str) -> None:
        moved = tuple(self.moved)
        self.moved.clear()
        for stream in moved:
            # For the router they were refused; that the next connection failed as well is another matter.
            stream.connection.give_up(stream, ResetReason.REMOTE_REFUSED, "")
        super()._fail_pending(reason, transport_failure)

    def _open_for_line(self) -> None:
        """Open connections until those under way can take everyone who waits."""
        each = self.assumed_limit
        if not each and self.connections:
            return  # an endpoint that takes nothing at all for now
        expected = len(self.connecting) * each + sum(one.expected_room for one in self.connections if not one.settled)
        for _ in range(MOST_AT_ONCE):
            if len(self.pending) + len(self.moved) <= expected or not self._try_connect():
                return
            expected += max(each, 1)

    @property
    def assumed_limit(self) -> int:
        """How many requests a new connection will probably take."""
        limit = self.settings.max_concurrent_streams if self.known_limit is None else self.known_limit
        return min(limit, self.max_requests) if self.max_requests else limit

    def connection_settings(self) -> Http2Settings:
        """Those of the next connection."""
        interval = self.settings.keepalive_interval
        if interval is None:
            return self.settings
        return replace(self.settings, keepalive_interval=interval * (1 + random() * self.jitter))

    def _new_connection(self) -> Http2UpstreamConnection:
        return Http2UpstreamConnection(self)

    def _count_connection(self) -> None:
        self.cluster.stats.upstream_cx_http2_total += 1

    def _opened(self, connection: Http2UpstreamConnection) -> None:
        if self.endpoint.removed and not self.pending and not self.moved:
            connection.close()
            return
        self.offer(connection)
        connection.became_idle()

    def offer(self, connection: Http2UpstreamConnection) -> None:
        """A connection can take another request."""
        if not connection.ready:
            connection.ready = True
            self.ready.append(connection)
        if self.pending or self.moved:
            self.serve()

    def withdraw(self, connection: Http2UpstreamConnection) -> None:
        """A connection takes no more requests, for now or for ever."""
        if connection.ready:
            connection.ready = False
            self.ready.remove(connection)

    def lost(self, connection: Http2UpstreamConnection) -> None:
        """An established connection ended."""
        self.connections.discard(connection)
        self.withdraw(connection)
        self.connection_gone()
        if self.pending or self.moved:
            if not connection.settled and not self.connections:
                # It never came to speak HTTP/2 with us: as a failed connect, that concerns everyone who waits.
                self._fail_pending(connection.failure or ResetReason.CONNECTION_TERMINATION, "")
            else:
                self._open_for_line()

    @property
    def unused(self) -> bool:
        """Nothing is in progress."""
        if self.pending or self.connecting or self.moved:
            return False
        return all(one.idle for one in self.connections)

    def _is_empty(self) -> bool:
        return not self.moved and super()._is_empty()

    def watch_idle(self) -> None:
        """A connection has nothing to do: see to it that somebody looks at it when idle_timeout is over."""
        limit = self.cluster.config.idle_timeout_s
        if self._sweep is None and limit:
            self._sweep = self.context.loop.call_later(limit, self._sweep_idle)

    def _sweep_idle(self) -> None:
        self._sweep = None
        limit = self.cluster.config.idle_timeout_s
        assert limit is not None
        now = monotonic()
        wait = limit
        for connection in tuple(self.connections):
            if connection.idle:
                left = connection.last_used + limit - now
                if left > 0:
                    wait = min(wait, left)
                else:
                    self.cluster.stats.upstream_cx_idle_timeout += 1
                    connection.close()
        if self.connections:
            self._sweep = self.context.loop.call_later(max(wait, 0.001), self._sweep_idle)

    def drain(self) -> None:
        """The endpoint left the cluster: idle connections close now, busy ones after their last response."""
        for connection in tuple(self.connections):
            connection.retire()
