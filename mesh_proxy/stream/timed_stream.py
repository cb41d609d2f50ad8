"""The time-outs of a stream: route, attempt, silence within an attempt, whole request, whole stream."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import ResponseHeaders
from mesh_codecs.grpc.status import DEADLINE_EXCEEDED
from mesh_proxy.stream import flags
from mesh_proxy.stream.body_stream import BodyStream

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue


class TimedStream(BodyStream):
    """Abstract: `UpstreamStream` adds the attempts."""

    __slots__ = (
        "_attempt_life",
        "_deadline",
        "_try_deadline",
        "_try_idle",
        "_try_limit",
        "is_grpc",
        "tells_deadline",
        "timeout_s",
    )

    timeout_s: float | None
    """for the whole response, retries included"""
    _try_limit: float | None
    """for one attempt"""
    _deadline: DeadlineQueue | None
    _try_deadline: DeadlineQueue | None
    _try_idle: DeadlineQueue | None
    _attempt_life: DeadlineQueue | None
    """where the longest life of a request at the cluster is watched (its `max_stream_duration`)"""
    is_grpc: bool
    """the request's content type says gRPC; known once the request is being forwarded"""
    tells_deadline: bool
    """the upstream gets our time-out as `grpc-timeout` (`max_grpc_timeout`)"""
    timeout_alternative: bool = False
    """answer a time-out with 204 (x-envoy-upstream-rq-timeout-alt-response)"""

    def _schedule_retry(self, response: ResponseHeaders | None = None) -> bool:
        """Start another attempt, if allowed."""
        raise NotImplementedError

    def _request_sent(self) -> None:
        now = self.last_upstream_tx_time = monotonic()
        if self.timeout_s and self._deadline is None:
            self._start_timeout(now)
        if self._try_limit and self._try_deadline is None and self.response is None:
            # A response that began before the request ended is the route's time-out alone, as in Envoy.
            self._start_try_timeout(now)

    def _await_response(self) -> None:
        if self.timeout_s and self._deadline is None and not self.done:
            self._start_timeout(self.request_end_time)

    def _charge(self, status: int) -> None:
        cluster = self.cluster
        assert cluster is not None
        stats = cluster.stats
        stats.upstream_rq_completed += 1
        codes = stats.codes
        codes[status] = codes.get(status, 0) + 1
        codes = stats.internal_codes if self.is_internal else stats.external_codes
        codes[status] = codes.get(status, 0) + 1

    def _start_timeout(self, now: float) -> None:
        seconds = self.timeout_s
        assert seconds is not None
        queue = self._deadline = self.manager.context.deadlines.transient("route", seconds)
        queue.add(self, now)

    def _start_try_timeout(self, now: float) -> None:
        seconds = self._try_limit
        assert seconds is not None
        if self.timeout_s is not None and seconds >= self.timeout_s:
            return
        queue = self._try_deadline = self.manager.context.deadlines.transient("per try", seconds)
        queue.add(self, now)

    def _stop_try_timeout(self) -> None:
        if self._try_deadline is not None:
            self._try_deadline.discard(self)
            self._try_deadline = None
        if self._try_idle is not None:
            self._try_idle.discard(self)
            self._try_idle = None

    def _start_attempt_life(self, seconds: float, now: float) -> None:
        self._attempt_life = self.manager.context.deadlines.queue("upstream stream duration", seconds)
        self._attempt_life.add(self, now)

    def _stop_attempt_life(self) -> None:
        if self._attempt_life is not None:
            self._attempt_life.discard(self)
            self._attempt_life = None

    def _stop_timers(self) -> None:
        """The upstream's part is over; the manager's own time-outs end with the stream."""
        if self._attempt_life is not None:
            self._stop_attempt_life()
        if self._deadline is not None:
            self._deadline.discard(self)
            self._deadline = None
        if self._try_deadline is not None or self._try_idle is not None:
            self._stop_try_timeout()

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """The route's or the attempt's time is up."""
        if self.done:
            return
        manager = self.manager
        if queue is manager.request_queue:
            manager.stats.downstream_rq_timeout += 1
            self.send_local_reply(408, b"request timeout", details="request_overall_timeout")
            return
        if queue is self._try_idle:
            self._on_try_idle(queue, now)
            return
        if queue is self._attempt_life:
            self._lived_too_long()
            return
        if queue is not self._deadline and queue is not self._try_deadline:
            # The manager's or the route's max_stream_duration.
            manager.stats.downstream_rq_max_duration_reached += 1
            self.send_local_reply(
                504 if self.request_done else 408,
                b"downstream duration timeout",
                details="max_duration_timeout",
                grpc_status=DEADLINE_EXCEEDED,
            )
            return
        self._timed_out(queue is self._try_deadline)

    def _lived_too_long(self) -> None:
        """The cluster's max_stream_duration is over for this attempt."""
        cluster = self.cluster
        assert cluster is not None
        self._attempt_life = None
        cluster.stats.upstream_rq_max_duration_reached += 1
        wanted = self.retry is not None and self.response is None and self.retry.wants_reset(ResetReason.LOCAL_RESET, False)
        if wanted and self._schedule_retry():
            return
        self.send_local_reply(
            504 if self.request_done else 408,
            b"upstream max stream duration reached",
            details="upstream_max_stream_duration_reached",
            flag=flags.UPSTREAM_MAX_STREAM_DURATION_REACHED,
        )

    def _on_try_idle(self, queue: DeadlineQueue, now: float) -> None:
        """The upstream said nothing for too long within one attempt, unless it did meanwhile."""
        left = max(self.last_upstream_rx_time, self.first_upstream_tx_time) + queue.duration_s - now
        if left > 0:
            # Not back into the queue: there the order of arrival is the order of expiry.
            self.manager.context.loop.call_later(left, self._recheck_try_idle, queue)
            return
        self._try_idle = None
        cluster = self.cluster
        assert cluster is not None
        cluster.stats.upstream_rq_per_try_idle_timeout += 1
        self._answer_timeout("upstream_per_try_idle_timeout", retry=True)

    def _recheck_try_idle(self, queue: DeadlineQueue) -> None:
        # A later attempt has an entry of its own.
        if queue is self._try_idle and self not in queue.entries:
            self._on_try_idle(queue, monotonic())
            self.manager.context.flush()

    def _timed_out(self, per_try: bool) -> None:
        cluster = self.cluster
        assert cluster is not None
        if per_try:
            self._try_deadline = None
            cluster.stats.upstream_rq_per_try_timeout += 1
        else:
            self._deadline = None
            cluster.stats.upstream_rq_timeout += 1
        self._answer_timeout("upstream_per_try_timeout" if per_try else "response_timeout", retry=per_try)

    def _answer_timeout(self, details: str, *, retry: bool) -> None:
        """504, or another attempt."""
        cluster = self.cluster
        assert cluster is not None
        endpoint = self.upstream
        if endpoint is not None:
            endpoint.stats.rq_timeout += 1
            if cluster.tracks_results:
                cluster.on_result(endpoint, 504)
        if retry and self.retry is not None and self.retry.wants_timeout() and self._schedule_retry():
            return
        self._charge(504)
        if self.timeout_alternative:
            self.send_local_reply(204, details="response_timeout", flag=flags.UPSTREAM_REQUEST_TIMEOUT)
            return
        self.send_local_reply(
            504,
            b"upstream request timeout",
            details=details,
            flag=flags.UPSTREAM_REQUEST_TIMEOUT,
        )
