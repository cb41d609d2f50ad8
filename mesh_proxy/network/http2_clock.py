"""The time-outs and the end of a downstream HTTP/2 connection: one timer for the codec, none per request."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from mesh_codecs.events import Event, GoAway
from mesh_codecs.http2 import frames
from mesh_proxy.deadlines import DeadlineQueue
from mesh_proxy.network.http2_flow import Http2Flow

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.info import ConnectionInfo


class Http2Clock(Http2Flow):
    """Abstract: `Http2Connection` adds what the bytes mean."""

    __slots__ = ("_head_since", "_timer", "_timer_at")

    def __init__(self, manager: HttpManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self._head_since = 0.0
        """when the header block began that is incomplete; 0.0: there is none"""
        self._timer: asyncio.TimerHandle | None = None
        """the codec's, see `next_timer`"""
        self._timer_at = 0.0

    def _dispatch(self, events: list[Event], now: float) -> None:
        """Act on the codec's events."""
        raise NotImplementedError

    def _log_unparsed(self, code: str, now: float) -> None:
        """Count and log a request of which no head could be read."""
        raise NotImplementedError

    def _drain(self) -> None:
        """GOAWAY, in two steps."""
        self._draining = True
        self.codec.shutdown()
        self.codec_stats.goaway_sent += 1
        self._look_at_timer(monotonic())
        self._touch()

    def close_when_idle(self) -> None:
        """Draining: no new streams; the connection ends with the last one that is open."""
        if not self._draining and not self._closing:
            self._drain()

    def _look_at_timer(self, now: float) -> None:
        """Arm the one timer of the codec, if it wants one sooner than it is armed for."""
        due = self.codec.next_timer()
        if due is None:
            return
        if due <= now:
            self._codec_time(now)
            due = self.codec.next_timer()
            if due is None:
                return
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.context.loop.call_later(max(due - now, 0.0), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self.closed or self._closing:
            return
        now = monotonic()
        due = self.codec.next_timer()
        if due is not None and due <= now:
            self._codec_time(now)
        self._look_at_timer(now)
        self.context.flush()

    def _codec_time(self, now: float) -> None:
        self._dispatch(self.codec.handle_timer(now), now)
        self._touch()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """One of the connection's time-outs is due, unless something happened since it was set."""
        manager = self.manager
        if self._closing:
            # Only delayed_close_timeout counts now.
            return
        if queue is manager.idle_queue:
            left = self.last_activity + queue.duration_s - now
            if self.streams:
                queue.add(self, now)
            elif left > 0:
                self.context.loop.call_later(left, self._recheck, queue)
            elif not self._draining:
                manager.stats.downstream_cx_idle_timeout += 1
                self._drain()
        elif queue in manager.stream_idle_queues:
            self._check_idle_streams(queue, now)
        elif queue is manager.head_queue:
            self._head_timed_out(now)
        else:
            manager.stats.downstream_cx_max_duration_reached += 1
            self.close_when_idle()

    def _check_idle_streams(self, queue: DeadlineQueue, now: float) -> None:
        """One look at all streams, at the time when the first of them may be idle for too long."""
        soonest = queue.duration_s
        if self._head_since:
            left = self._head_since + queue.duration_s - now
            if left <= 0:
                self._head_timed_out(now)
                return
            soonest = min(soonest, left)
        for stream in tuple(self.streams.values()):
            active = max(stream.last_downstream_time, stream.last_upstream_rx_time)
            left = active + stream.idle_limit() - now
            if left <= 0:
                if stream.response_done:
                    self.codec_stats.tx_flush_timeout += 1
                    stream.reset_downstream()
                else:
                    stream.on_idle_timeout()
            elif left < soonest:
                soonest = left
        if soonest < queue.duration_s:
            self.context.loop.call_later(soonest, self._recheck, queue)
        else:
            queue.add(self, now)

    def _head_timed_out(self, now: float) -> None:
        """A header block, or the preface, took too long. Its stream cannot be answered, as nothing else can be read before."""
        self._head_since = 0.0
        self.manager.stats.downstream_rq_header_timeout += 1
        self.codec.send(GoAway(0, 0, frames.PROTOCOL_ERROR, b"request header timeout"))
        self._close_after_flush(linger=True)
        self._log_unparsed("request_header_timeout", now)
        for stream in tuple(self.streams.values()):
            stream.on_downstream_gone(now, "request_header_timeout")

    def _recheck(self, queue: DeadlineQueue) -> None:
        if not self.closed:
            self.on_deadline(queue, monotonic())
            self.context.flush()

    def _watch_head(self, now: float) -> None:
        """Time header blocks that come in pieces: nothing else can come before their end."""
        queue = self.manager.head_queue
        started = self.codec.head_started
        if started == bool(self._head_since):
            return
        self._head_since = now if started else 0.0
        if queue is not None:
            if started:
                queue.add(self, now)
            else:
                queue.discard(self)
