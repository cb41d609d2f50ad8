"""One Dubbo connection to an endpoint: many calls at a time, each under an id of ours.

Ids of consumers are unique within their process only, so every call gets an id of this connection; the answer carries it back
and finds its call in `calls`. That dict is ordered by the time of sending, so the oldest call is always its first.

An endpoint that takes no more (a full send buffer) holds back the consumers that write to it, for as long as it makes progress.
One that takes nothing for STALL_S counts as stalled: its consumers go on, and until it drains it gets new calls only if
there is no other endpoint, and not without bound.
"""

from __future__ import annotations

import asyncio
import logging
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from mesh_codecs.dubbo import DubboCodec, DubboMessage, MessageTooLarge, error_response, heartbeat_request
from mesh_codecs.dubbo.frame import FLAG_EVENT, FLAG_REQUEST, SERVICE_ERROR
from mesh_codecs.dubbo.message import READONLY, WRITEABLE
from mesh_codecs.events import ConnectionFailed
from mesh_proxy.network.transport import address_of, set_limits, write_all
from mesh_proxy.stream.dubbo_events import EventBudget, event_answer

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.upstream.dubbo_calls import Blocking, UpstreamCall
    from mesh_proxy.upstream.dubbo_pool import DubboPool

_log = logging.getLogger("dubbo")

STALL_S = 1.0
"""An endpoint that took nothing of a full send buffer for so long no longer holds back its consumers."""
FORGOTTEN_S: Final = 3600.0
"""A call that nobody answered for so long is given up, so that lost answers do not use up the circuit breaker."""
CLOSE_FLUSH_S: Final = 1.0
"""How long a closing connection may take to write what is left."""
JOIN_LIMIT: Final = 16_384
"""Frames over this size are written in two pieces, which saves copying them once more."""

_pack_id: Final = Struct(">q").pack
_ANY_EVENT: Final = FLAG_REQUEST | FLAG_EVENT


class DubboUpstreamConnection:
    """See the module. Has the methods of `asyncio.Protocol` without deriving from it, as `DubboShell`."""

    __slots__ = (
        "_budget",
        "_closed_by_us",
        "_dirty",
        "_held",
        "_local_address",
        "_out",
        "_read_pauses",
        "_unsent",
        "blocked",
        "calls",
        "closed",
        "codec",
        "context",
        "endpoint",
        "last_call",
        "last_read",
        "next_id",
        "pool",
        "readonly",
        "requests",
        "retired",
        "stalled",
        "started",
        "stats",
        "transport",
    )

    def __init__(self, pool: DubboPool) -> None:
        self.pool = pool
        self.context = pool.context
        self.endpoint = pool.endpoint
        self.stats = pool.cluster.stats
        self.codec = DubboCodec(pool.memo, pool.config.max_body_bytes)
        self.transport: asyncio.Transport
        self.calls: dict[int, UpstreamCall] = {}
        """by our id; the oldest first"""
        self.next_id = 0
        self.requests = 0
        self.started = self.last_read = self.last_call = monotonic()
        self.closed = False
        self.readonly = False
        """the endpoint asked for no new calls here"""
        self.retired = False
        """takes no new calls, and closes after the last answer"""
        self.blocked = False
        """the send buffer is above its high mark"""
        self.stalled = False
        """… and nothing of it was taken for STALL_S"""
        self._unsent = 0
        """size of the send buffer when it was last looked at"""
        self._held: set[Blocking] = set()
        """downstream connections that are not read until the send buffer drains"""
        self._closed_by_us = False
        self._read_pauses = 0
        self._dirty = False
        self._out: list[bytes] = []
        self._budget: EventBudget | None = None
        self._local_address = b""

    @property
    def local_address(self) -> bytes:
        """Our end of the connection, as logs print it."""
        if not self._local_address:
            self._local_address = address_of(self.transport.get_extra_info("sockname"))
        return self._local_address

    # -- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        set_limits(transport, self.pool.cluster.config.per_connection_buffer_limit_bytes)
        now = self.started = self.last_read = self.last_call = monotonic()
        self.pool.connections.append(self)
        if self.pool.paused:
            self.pause_reading()
        for queue in self.pool.queues:
            queue.add(self, now)

    def data_received(self, data: bytes) -> None:
        self.stats.upstream_cx_rx_bytes_total += len(data)
        self.last_read = now = monotonic()
        calls = self.calls
        for event in self.codec.receive_data(data):
            if isinstance(event, DubboMessage):
                if event.flags & _ANY_EVENT:
                    self._on_event(event, now)
                    if self.closed:
                        break  # too many: its calls have been told, and what is behind answers nobody
                    continue
                call = calls.pop(event.request_id, None)
                if call is None:
                    self.pool.dubbo_stats.response_unexpected += 1
                    continue
                self._release()
                call.on_response(event, now)
            elif isinstance(event, MessageTooLarge):
                self._on_too_large(event, now)
            elif isinstance(event, ConnectionFailed):
                _log.debug("upstream %s: %s", self.endpoint.address, event.error)
                self.stats.upstream_cx_protocol_error += 1
                self._lost(event.error.code)
                self.close()
        if self.retired and not calls:
            self.close()
        self.context.flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for queue in self.pool.queues:
            queue.discard(self)
        self.pool.stall_queue.discard(self)
        stats = self.stats
        stats.upstream_cx_length_ms.record((monotonic() - self.started) * 1000)
        if self._closed_by_us:
            stats.upstream_cx_destroy_local += 1
        else:
            stats.upstream_cx_destroy_remote += 1
            if self.calls:
                stats.upstream_cx_destroy_with_active_rq += 1
                stats.upstream_cx_destroy_remote_with_active_rq += 1
                self.pool.dubbo_stats.cx_destroy_remote_with_active_rq += 1
        self._let_go()
        self.pool.lost(self)
        self._lost("connection termination")
        self.context.flush()

    def pause_writing(self) -> None:
        self.stats.upstream_flow_control_backed_up_total += 1
        self.blocked = True
        self._unsent = self.transport.get_write_buffer_size()
        self.pool.stall_queue.add(self, monotonic())

    def resume_writing(self) -> None:
        self.stats.upstream_flow_control_drained_total += 1
        self.blocked = False
        self.pool.stall_queue.discard(self)
        if self.stalled:
            self.stalled = False
            self.pool.choose()
        self._let_go()
        self.context.flush()

    # -- what comes beside answers

    def _on_event(self, message: DubboMessage, now: float) -> None:
        if not message.is_event:
            self._on_request(message)
            return
        if not message.is_request:
            return  # of a heartbeat: that something was read is all that counts
        budget = self._budget
        if budget is None:
            budget = self._budget = EventBudget()
        if not budget.spend(now):
            self.stats.upstream_cx_protocol_error += 1
            self._lost("too many events")
            self.close()
            return
        kind = message.event_kind
        if kind is READONLY:
            self.readonly = True
            self.pool.choose()
        elif kind is WRITEABLE:
            self.readonly = False
            self.pool.choose()
        elif (answer := event_answer(message)) is not None:
            self.write(answer)

    def _on_request(self, message: DubboMessage) -> None:
        """The endpoint calls a service of the consumer's: possible only where the consumer is known."""
        self.pool.dubbo_stats.request_upstream += 1
        owner = self.pool.owner
        if owner is not None:
            owner.on_upstream_request(self, message)
        elif message.two_way:
            text = b"mesh-proxy: calls from provider to consumer need a pinned connection"
            self.write(error_response(message.request_id, SERVICE_ERROR, text))

    def _on_too_large(self, event: MessageTooLarge, now: float) -> None:
        self.pool.dubbo_stats.response_too_large += 1
        if event.is_request:
            return
        call = self.calls.pop(event.request_id, None)
        if call is not None:
            self._release()
            call.on_response_too_large(event, now)

    # -- the calls' side

    def send(self, call: UpstreamCall, frame: bytes, now: float) -> None:
        """Send a call; its answer comes to `call.on_response`."""
        self.next_id = number = self.next_id + 1
        self.calls[number] = call
        call.upstream = self
        call.upstream_id = number
        self.last_call = now
        pool = self.pool
        pool.resources.add_request()
        stats = self.stats
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        endpoint_stats = self.endpoint.stats
        endpoint_stats.rq_total += 1
        endpoint_stats.rq_active += 1
        # As in `write_as`; every call comes here.
        out = self._out
        if len(frame) < JOIN_LIMIT:
            out.append(frame[:4] + _pack_id(number) + frame[12:])
        else:
            out.append(frame[:4] + _pack_id(number))
            out.append(frame[12:])
            self.context.dirty.append(self)  # at the end of this callback: the send buffer shall say soon when it is full
        if not self._dirty:
            self._dirty = True
            self.context.flush_later(self)
        if pool.counts_calls:
            self._count_call()

    def send_one_way(self, frame: bytes, now: float) -> None:
        """Send a call that has no answer."""
        self.next_id = number = self.next_id + 1
        self.last_call = now
        self.stats.upstream_rq_total += 1
        self.endpoint.stats.rq_total += 1
        self.write_as(frame, number)
        if self.pool.counts_calls:
            self._count_call()

    def _count_call(self) -> None:
        self.requests += 1
        pool = self.pool
        if pool.spread:
            pool.choose()
        limit = pool.cluster.config.max_requests_per_connection
        if limit and self.requests >= limit:
            self.stats.upstream_cx_max_requests += 1
            self.retire()

    def _release(self) -> None:
        self.pool.resources.remove_request()
        self.stats.upstream_rq_active -= 1
        self.endpoint.stats.rq_active -= 1

    def forget(self, call: UpstreamCall) -> None:
        """A call gave up waiting; its answer, should it come, is dropped."""
        if self.calls.pop(call.upstream_id, None) is not None:
            self._release()
            if self.retired and not self.calls:
                self.close()

    def write_as(self, frame: bytes, number: int) -> None:
        """Write a frame under another id, with those of all consumers that the loop calls back in this turn."""
        out = self._out
        if len(frame) < JOIN_LIMIT:
            out.append(frame[:4] + _pack_id(number) + frame[12:])
        else:
            out.append(frame[:4] + _pack_id(number))
            out.append(frame[12:])
            self.context.dirty.append(self)  # at the end of this callback: the send buffer shall say soon when it is full
        if not self._dirty:
            self._dirty = True
            self.context.flush_later(self)

    def write(self, frame: bytes) -> None:
        """Write a frame as it is, with those of this turn."""
        self._out.append(frame)
        if not self._dirty:
            self._dirty = True
            self.context.flush_later(self)

    def flush(self) -> None:
        """Write what was gathered."""
        self._dirty = False
        out = self._out
        if out:
            self._out = []
            if not self.closed:
                self.stats.upstream_cx_tx_bytes_total += write_all(self.transport, out)

    def hold(self, downstream: Blocking) -> None:
        """Stop reading from who writes to a full connection, until it drains or counts as stalled."""
        if downstream not in self._held and not self.stalled:
            self._held.add(downstream)
            downstream.pause_reading()

    def _let_go(self) -> None:
        held, self._held = self._held, set()
        for downstream in held:
            downstream.resume_reading()

    def pause_reading(self) -> None:
        """Counted: the consumer of a pinned connection takes no more."""
        self._read_pauses += 1
        if self._read_pauses == 1 and not self.closed:
            self.stats.upstream_flow_control_paused_reading_total += 1
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._read_pauses -= 1
        if self._read_pauses == 0 and not self.closed:
            self.stats.upstream_flow_control_resumed_reading_total += 1
            self.last_read = monotonic()  # silence of our own making says nothing about the endpoint
            self.transport.resume_reading()

    # -- time, and the end

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Look after the connection."""
        if queue is self.pool.stall_queue:
            self._look_at_stall(now)
        elif queue is self.pool.duration_queue:
            self.stats.upstream_cx_max_duration_reached += 1
            self.retire()
        else:
            self._look_after(queue, now)

    def _look_at_stall(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent and not self.stalled:
            self.stalled = True
            self.pool.choose()
            self._let_go()
        self._unsent = unsent
        self.pool.stall_queue.add(self, now)

    def _look_after(self, queue: DeadlineQueue, now: float) -> None:
        """Heartbeats, idleness, and calls that are waited for in vain."""
        config = self.pool.config
        for call in tuple(self.calls.values()):
            if now - call.begun() < FORGOTTEN_S:
                break
            self.forget(call)
            call.on_forgotten()
        if self.closed:
            return
        idle = config.idle_timeout_s
        if idle and not self.calls and now - self.last_call >= idle:
            self.stats.upstream_cx_idle_timeout += 1
            self.close()
            return
        interval = config.heartbeat_interval_s
        if interval and not self._read_pauses:
            silent = now - self.last_read
            if silent >= config.heartbeat_timeout_s:
                _log.info("upstream %s: silent for %.0f s, given up", self.endpoint.address, silent)
                self._lost("heartbeat timeout")
                self.abort()
                return
            if silent >= interval * _NEARLY:
                self.next_id += 1
                self.write(heartbeat_request(self.next_id))
        queue.add(self, now)

    def retire(self) -> None:
        """No new calls; the end comes after the last answer."""
        if not self.retired:
            self.retired = True
            self.pool.withdraw(self)
        if not self.calls:
            self.close()  # one-way calls that were gathered are written first

    def _lost(self, why: str) -> None:
        """Every call in flight learns at once that there will be no answer."""
        self.closed = True
        self.pool.withdraw(self)
        calls, self.calls = self.calls, {}
        for call in calls.values():
            self._release()
            call.on_upstream_gone(why)

    def close(self) -> None:
        """Close, with what was gathered written if the endpoint takes it now."""
        if self.transport.is_closing():
            return
        if not self.closed:
            self.flush()
        self._closed_by_us = True
        self.closed = True
        self.pool.withdraw(self)
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.context.loop.call_later(CLOSE_FLUSH_S, self.transport.abort)

    def abort(self) -> None:
        """Close at once."""
        self._closed_by_us = True
        self.closed = True
        self.transport.abort()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "retired" if self.retired else "readonly" if self.readonly else "open"
        return f"<DubboUpstreamConnection {self.endpoint.address} {state} calls={len(self.calls)}>"


_NEARLY: Final = 0.99
"""of an interval: a timer may come a moment early"""
