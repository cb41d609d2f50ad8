"""A downstream Dubbo connection: hands requests to calls, answers events, and writes what comes back.

What a hot upgrade must move stands here: `codec` (`at_boundary`, `pending`, `to_discard`) and `calls`, the calls in flight.
"""

from __future__ import annotations

import asyncio
import logging
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from mesh_codecs.dubbo import DubboMessage, MessageTooLarge, Refusal, heartbeat_request, readonly_event
from mesh_codecs.dubbo.frame import FLAG_EVENT, FLAG_REQUEST, FLAG_TWO_WAY, build_frame
from mesh_codecs.events import ConnectionFailed
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.network.dubbo_shell import DubboShell
from mesh_proxy.network.transport import set_limits
from mesh_proxy.stream import dubbo_replies
from mesh_proxy.stream.dubbo_call import DubboCall
from mesh_proxy.stream.dubbo_events import EventBudget, event_answer
from mesh_proxy.upstream.dubbo_pool import pinned_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.stream.info import ConnectionInfo
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection
    from mesh_proxy.upstream.dubbo_pool import DubboPool
    from mesh_proxy.upstream.endpoint import Endpoint

_log = logging.getLogger("dubbo")

DRAIN_QUIET_S = 1.0
"""A draining connection is closed when it carried no call for so long: READONLY is a hint, and the consumer may be sending."""
MAX_REVERSE: Final = 1024
"""Calls from providers that wait for the consumer; the oldest is forgotten beyond, its provider has its own time-out."""
_pack_id: Final = Struct(">q").pack
_KIND: Final = FLAG_REQUEST | FLAG_EVENT


class DubboConnection(DubboShell):
    """See the module."""

    __slots__ = (
        "_begun",
        "_budget",
        "_drain_timer",
        "_ending",
        "_frame_begun",
        "_next_id",
        "_owed",
        "_reverse",
        "calls",
        "draining",
        "last_call",
    )

    def __init__(self, manager: DubboManager, info: ConnectionInfo, owner: ConnectionOwner) -> None:
        super().__init__(manager, info, owner)
        self.calls: dict[int, DubboCall] = {}
        """two-way calls in flight, by the consumer's id"""
        if info.source is not None:
            self.pinned = {}  # connections that are everybody's are not those of a consumer with a source
        self.last_call = info.start_monotonic
        self.draining = False
        self._ending = False
        """nothing more is read; the end comes with the last answer"""
        self._frame_begun = False
        """a frame is incomplete, and its time runs"""
        self._owed = False
        """the process before us still has calls of this connection"""
        self._begun = b""
        """what the process before us had read of a frame"""
        self._next_id = 0
        """of requests from us or from providers to the consumer"""
        self._reverse: dict[int, tuple[DubboUpstreamConnection, int]] = {}
        """calls from providers by our id: where the answer goes, and under which id"""
        self._budget: EventBudget | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        set_limits(transport, self.owner.buffer_limit)
        stats = self.stats
        stats.cx_total += not self.inherited
        stats.cx_active += 1
        for queue in self.manager.connection_queues:
            queue.add(self, self.last_activity)
        self.owner.connection_opened(self)
        if self._dirty:
            self.context.flush()  # the listener is draining: READONLY
        if self.inherited and self._begun:
            # The beginning of a frame; it completes nothing.
            begun, self._begun = self._begun, b""
            self.codec.receive_data(begun)
        if self._out:
            self.flush()

    def data_received(self, data: bytes) -> None:
        stats = self.stats
        stats.cx_rx_bytes_total += len(data)
        now = self.last_activity = monotonic()
        for event in self.codec.receive_data(data):
            if isinstance(event, DubboMessage):
                if event.flags & _KIND == FLAG_REQUEST:
                    self._begin(event, now)
                else:
                    self._on_other(event, now)
            elif isinstance(event, MessageTooLarge):
                self._on_too_large(event, now)
            elif isinstance(event, ConnectionFailed):
                self._on_failure(event, data)
            if self._ending:
                break
        if self.codec.at_boundary is self._frame_begun:
            self._watch_frame(now)
        self.context.flush()

    def _watch_frame(self, now: float) -> None:
        """Start the time-out of a frame that has begun and is incomplete; stop it otherwise."""
        self._frame_begun = not self._frame_begun
        if self._frame_begun:
            self.manager.frame_queue.add(self, now)
        else:
            self.manager.frame_queue.discard(self)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            return  # only our descriptor is closed; see let_go
        self.closed = True
        manager = self.manager
        stats = self.stats
        stats.cx_active -= 1
        now = monotonic()
        if self.calls:
            if self._closing:
                stats.cx_destroy_local_with_active_rq += 1
            else:
                stats.cx_destroy_remote_with_active_rq += 1
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.abandon(now)
        self._look_at_unsent()
        manager.write_stall_queue.discard(self)
        manager.frame_queue.discard(self)
        for queue in manager.connection_queues:
            queue.discard(self)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        pinned, self.pinned = self.pinned, None if self.info.source is None else {}
        for pool in (pinned or {}).values():
            pool.forget()
            pool.close()
        self._reverse.clear()
        self.owner.connection_closed(self)
        self.context.flush()

    # -- messages

    def _begin(self, message: DubboMessage, now: float) -> None:
        stats = self.stats
        stats.request += 1
        stats.request_active += 1
        self.last_call = now
        call = DubboCall(self, message, now)
        if message.flags & FLAG_TWO_WAY:
            stats.request_twoway += 1
            request_id = message.request_id
            if request_id in self.calls:
                # Whose answer would the next one with this id be? Nobody can tell, and no consumer does that.
                call.reject(message, b"", 0, "dubbo.duplicate_id", now)
                self._protocol_error("dubbo.duplicate_id")
                return
            self.calls[request_id] = call
        else:
            stats.request_oneway += 1
        manager = self.manager
        if manager.watched or manager.client_cert is not None:
            call.start(message, now)
        else:
            call.route(message, now)

    def _on_other(self, message: DubboMessage, now: float) -> None:
        if not message.is_event:
            self._on_response(message)
            return
        stats = self.stats
        if not message.is_request:
            return
        stats.request_event += 1
        budget = self._budget
        if budget is None:
            budget = self._budget = EventBudget()
        if not budget.spend(now):
            self._protocol_error("dubbo.too_many_events")
        elif (answer := event_answer(message)) is not None:
            self.write(answer)

    def _on_response(self, message: DubboMessage) -> None:
        """The consumer answers a call of its provider."""
        found = self._reverse.pop(message.request_id, None)
        if found is None:
            self.stats.response_unexpected += 1
            return
        upstream, number = found
        if not upstream.closed:
            upstream.write_as(message.frame, number)

    def _on_too_large(self, event: MessageTooLarge, now: float) -> None:
        """The body is stepped over as it comes; the consumer hears of it at once."""
        stats = self.stats
        stats.request_too_large += 1
        if event.flags & _KIND != FLAG_REQUEST:
            return
        stats.request += 1
        stats.request_active += 1
        frame = b""
        if event.two_way:
            stats.request_twoway += 1
            stats.local_response_error += 1
            text = f"mesh-proxy: data length too large: {event.length}, max payload: {self.codec.max_body}".encode()
            frame = dubbo_replies.error(Refusal.REQUEST_TOO_LARGE, event.request_id, text)
            self.write(frame)
        else:
            stats.request_oneway += 1
        # Of the request there is the header alone.
        header = build_frame(event.flags, event.status, event.request_id, b"")
        message = DubboMessage(header, event.flags, event.status, event.request_id, self.manager.memo)
        reason = Refusal.REQUEST_TOO_LARGE
        status = dubbo_replies.http_status_of(reason.status)
        DubboCall(self, message, now).reject(message, frame, status, dubbo_replies.OUTCOMES[reason][1], now)

    def _on_failure(self, event: ConnectionFailed, data: bytes) -> None:
        """Not Dubbo. People who come by telnet are told, in words; where the next frame would begin nobody guesses."""
        silent = self._budget is None and self.last_call == self.info.start_monotonic  # neither event nor call came before
        if silent and data[:1].isalpha() and data.isascii():
            self.write(b"mesh-proxy: telnet commands are not served here\r\n")
        self._protocol_error(event.error.code)

    def _protocol_error(self, code: str) -> None:
        """Read nothing more; what was asked before is still answered."""
        _log.debug("downstream %s: %s", self.info.remote_address.decode(), code)
        self.stats.cx_protocol_error += 1
        self.info.termination_details = code
        self._end_after_answers()
        if not self.calls:
            self.close()

    def _end_after_answers(self) -> None:
        self._ending = True
        self.codec.closed = True

    # -- the calls' side

    def answer(self, call: DubboCall, frame: bytes) -> None:
        """The one answer to a call, under the consumer's id."""
        calls = self.calls
        calls.pop(call.request_id, None)
        self.write_as(frame, call.id_bytes)
        if self._late is not None:
            if not calls:
                self.context.loop.call_soon(self._all_answered)
        elif self._ending and not calls:
            self.close()

    # -- pinned upstream connections

    def pin(self, cluster: Cluster, endpoint: Endpoint) -> DubboPool:
        """From now on this connection has an upstream connection of its own for the cluster."""
        if self.pinned is None:
            self.pinned = {}
        pool = self.pinned[cluster.name] = pinned_pool(self.context, cluster, endpoint, self.stats, self, self.info.source)
        return pool

    def on_upstream_request(self, upstream: DubboUpstreamConnection, message: DubboMessage) -> None:
        """The provider calls back."""
        if self.closed or self._closing:
            return
        self._next_id = number = self._next_id + 1
        if message.two_way:
            reverse = self._reverse
            if len(reverse) >= MAX_REVERSE:
                del reverse[next(iter(reverse))]
            reverse[number] = (upstream, message.request_id)
        self.write_as(message.frame, _pack_id(number))

    def on_pinned_lost(self, pool: DubboPool) -> None:
        """What was registered at the provider is lost with the connection: the consumer must notice, and register again."""
        self.on_pinned_failed(pool)
        if not self.closed and not self._closing:
            self._end_after_answers()
            self.info.termination_details = "dubbo.pinned_upstream_lost"
            # Next turn: its calls are answered first.
            self.context.loop.call_soon(self._close_if_answered)

    def on_pinned_failed(self, pool: DubboPool) -> None:
        """The endpoint cannot be reached: the next attempt is free to take another."""
        if self.pinned is not None and self.pinned.get(pool.cluster.name) is pool:
            del self.pinned[pool.cluster.name]

    def _close_if_answered(self) -> None:
        if not self.calls:
            self.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        for pool in (self.pinned or {}).values():
            pool.pause_reading()

    def resume_writing(self) -> None:
        if self._mover is not None:
            set_limits(self.transport, self.owner.buffer_limit)
            self._mover.offer(self)
        for pool in (self.pinned or {}).values():
            pool.resume_reading()
        super().resume_writing()

    # -- to another process, and from one

    def move(self, mover: Mover) -> None:
        """A new process serves. Calls in flight need not be waited for: their answers are whole frames, and follow."""
        self._mover = mover
        mover.offer(self)

    def listener_name(self) -> str:
        """See `Movable`."""
        return self.owner.name

    def fileno(self) -> int:
        """See `Movable`."""
        return int(self.transport.get_extra_info("socket").fileno())

    def export(self) -> MovingState | None:
        """See `Movable`. A consumer with an upstream connection of its own stays, and so do callbacks."""
        if self.closed or self._closing or self._ending or self._mover is None:
            return None
        if self.info.tls is not None or self.pinned or self._reverse:
            self._mover = None
            self.close_when_idle()
            return None
        self.flush()
        transport = self.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)  # `resume_writing` comes when the consumer has taken it all
            return None
        transport.pause_reading()
        self._offered = True
        for queue in self.manager.connection_queues:
            queue.discard(self)
        codec = self.codec
        facts = {
            "start_monotonic": self.info.start_monotonic,
            "start_wall": self.info.start_wall,
            "last_activity": self.last_activity,
            "last_call": self.last_call,
            "next_id": self._next_id,
            "to_discard": codec.to_discard,
            "late": len(self.calls) + self._owed,
            "application_protocols": self.info.application_protocols,
        }
        return MovingState("dubbo", codec.pending, facts)

    def let_go(self, late: Callable[[bytes], None]) -> None:
        """See `Movable`. What is left here are calls in flight, and those that the process before us still has; it counts as
        a connection until they are answered."""
        self._late = late
        self._offered = False
        self.stats.cx_active -= 1
        self.transport.abort()
        self.flush()
        self._all_answered()

    def _all_answered(self) -> None:
        self.flush()
        if not self.closed and not self.calls and not self._owed and self._late is not None:
            self.closed = True
            self._late(b"")
            self.owner.connection_moved(self)

    def stay(self) -> None:
        """See `Movable`."""
        if self.closed or self._closing:
            return
        self._mover = None
        self._offered = False
        set_limits(self.transport, self.owner.buffer_limit)
        for queue in self.manager.connection_queues:
            queue.add(self, self.last_activity)
        self.flush()
        if not self._read_pauses:
            self.transport.resume_reading()

    def keep(self) -> None:
        """See `Movable`."""
        self.stay()
        if not self.closed:
            self.close_when_idle()
            self.context.flush()

    def take_over(self, moved: MovingState) -> None:
        """Go on where another process stopped; before there is a transport. Raises ValueError."""
        facts = moved.facts
        self.inherited = True
        self.last_activity = float(facts["last_activity"])
        self.last_call = float(facts["last_call"])
        self._next_id = int(facts["next_id"])
        self.codec.resume(int(facts["to_discard"]))
        self._begun = moved.state
        self._owed = int(facts["late"]) > 0

    def write_late(self, data: bytes) -> None:
        """Answers to what was asked of the process before us; nothing when there are no more."""
        if not data:
            self._owed = False
            if self._late is not None:
                self._all_answered()
        elif self._dirty or not hasattr(self, "transport"):
            self._out.append(data)  # the first one may be here before the transport
        elif not self.closed:
            self.write(data)
            self.context.flush()

    # -- time, and the end

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Idle, silent, or stalled; unless something happened since."""
        manager = self.manager
        if self._offered or self._late is not None:
            return
        if queue is manager.frame_queue:
            if self._read_pauses or self.last_call + queue.duration_s > now:
                queue.add(self, now)  # it is we who do not read; or frames come, and reads happen to end within one
            else:
                self._protocol_error("dubbo.frame_timeout")
            return
        if queue is manager.write_stall_queue:
            size = self.transport.get_write_buffer_size()
            if size < self._unsent or not self.write_blocked:
                self._look_at_unsent()
                queue.add(self, now)
            else:
                self.info.termination_details = "dubbo.consumer_does_not_read"
                self.give_up()
            return
        left = self.last_activity + queue.duration_s - now
        if queue is manager.idle_queue:
            if self.calls or left > 0:
                self._again(queue, max(left, 0.0), now)
            else:
                self.stats.cx_idle_timeout += 1
                self.close()
        else:
            if left <= 0 and not self._closing and not self._ending:
                self._next_id += 1
                self.write(heartbeat_request(self._next_id))
            self._again(queue, left, now)

    def _again(self, queue: DeadlineQueue, left: float, now: float) -> None:
        if 0 < left < queue.duration_s:
            self.context.loop.call_later(left, self._recheck, queue)
        else:
            queue.add(self, now)

    def _recheck(self, queue: DeadlineQueue) -> None:
        if not self.closed:
            self.on_deadline(queue, monotonic())
            self.context.flush()

    def close_when_idle(self) -> None:
        """Draining: say READONLY, go on serving, close at a frame boundary when no call came for a while."""
        if self.draining:
            return
        self.draining = True
        if not self._closing and not self._ending:
            self._next_id += 1
            self.write(readonly_event(self._next_id))
            self.stats.cx_drain_readonly += 1
        self.last_call = monotonic()  # what is on its way now was sent before READONLY could be read
        self._close_if_quiet()

    def _close_if_quiet(self) -> None:
        self._drain_timer = None
        if self.closed or self._closing or self._offered or self._late is not None:
            return
        left = self.last_call + DRAIN_QUIET_S - monotonic()
        if left <= 0 and not self.calls and not self._reverse and self.codec.at_boundary:
            self.close()
        else:
            self._drain_timer = self.context.loop.call_later(max(left, DRAIN_QUIET_S / 10), self._close_if_quiet)

    def abort(self) -> None:
        """The drain's deadline: who still waits gets an answer, then the connection ends."""
        now = monotonic()
        for call in tuple(self.calls.values()):
            call.stop(now)
        if self._late is not None:
            self._owed = False
            self._all_answered()
        else:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ending" if self._ending else "draining" if self.draining else "open"
        return f"<DubboConnection {self.info.remote_address.decode()} {state} calls={len(self.calls)}>"
