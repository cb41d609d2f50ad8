"""`codec_type: AUTO`: the first bytes say whether a connection speaks HTTP/1 or HTTP/2 (by prior knowledge, RFC 9113, 3.3).

Every byte is compared with the connection preface as it comes, so an HTTP/1 request is known by its first byte that differs
and nothing is waited for. At most the 24 bytes of the preface are kept.
"""

from __future__ import annotations

from time import monotonic

from mesh_codecs.codec import Match
from mesh_codecs.http2 import PREFACE
from mesh_proxy.deadlines import DeadlineQueue
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.http2_connection import Http2Connection
from mesh_proxy.network.http_connection import HttpConnection
from mesh_proxy.network.http_shell import HttpShell


def match_http2(prefix: bytes) -> Match:
    """Whether a connection that begins with these bytes speaks HTTP/2."""
    if prefix.startswith(PREFACE):
        return Match.YES
    return Match.MORE if PREFACE.startswith(prefix) else Match.NO


class Detection(HttpShell):
    """Has the transport until the protocol is known."""

    __slots__ = ("_prefix",)

    _prefix: bytes

    def data_received(self, data: bytes) -> None:
        prefix = getattr(self, "_prefix", b"") + data
        match = match_http2(prefix)
        if match is Match.MORE:
            now = self.last_activity = monotonic()
            if not hasattr(self, "_prefix") and self.manager.head_queue is not None:
                self.manager.head_queue.add(self, now)
            self._prefix = prefix
            return
        self.become(Http2Connection if match is Match.YES else HttpConnection, prefix)

    def become(self, kind: type[Http2Connection | HttpConnection], data: bytes) -> None:
        """Give the transport to the protocol that was found, with what was read so far. (The door for ALPN, too.)"""
        for queue in self.manager.connection_queues:
            queue.discard(self)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        if self.manager.head_queue is not None:
            self.manager.head_queue.discard(self)
        self.closed = True  # this object; it may still stand in line for moving to another process
        connection = kind(self.manager, self.info, self.owner)
        connection.attach(self.transport)
        self.owner.connection_replaced(self, connection)
        self.transport.set_protocol(connection)
        if self._drain_timer is not None:
            connection.close_when_idle()
        connection.data_received(data)
        if self._mover is not None:
            connection.move(self._mover)

    def eof_received(self) -> bool:
        """An incomplete preface is no request."""
        self._remote_closed = True
        return False

    def flush(self) -> None:
        """Nothing to say yet."""

    def _lost(self, now: float) -> None:
        """There are no streams."""
        if self.manager.head_queue is not None:
            self.manager.head_queue.discard(self)

    def _offer(self) -> None:
        if self._mover is not None:
            self._mover.offer(self)

    def _codec_state(self) -> tuple[str, bytes] | None:
        return "detect", getattr(self, "_prefix", b"")

    def _go_on(self) -> None:
        """Nothing waits: what came is no request yet."""

    def take_over(self, moved: MovingState) -> None:
        super().take_over(moved)
        if moved.state:
            self._prefix = moved.state

    def close_when_idle(self) -> None:
        """The caller may be sending its first request at this very moment."""
        left = self.last_activity + self.manager.config.drain_timeout_s - monotonic()
        if left > 0:
            self._drain_timer = self.context.loop.call_later(left, self.close_when_idle)
        else:
            self._close_after_flush()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Nothing came in time, or not enough."""
        manager = self.manager
        if queue is manager.idle_queue:
            manager.stats.downstream_cx_idle_timeout += 1
        elif queue is manager.head_queue:
            manager.stats.downstream_rq_header_timeout += 1
        elif queue in manager.stream_idle_queues:
            queue.add(self, now)
            return
        else:
            manager.stats.downstream_cx_max_duration_reached += 1
        self._close_after_flush()
