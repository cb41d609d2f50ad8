"""The upstream half of a stream: attempts, what the upstream connection reports, time-outs and retries.

Envoy's counterpart is source/common/router/router.cc and upstream_request.cc.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import Data, InformationalHeaders, ResponseHeaders, Trailers
from mesh_codecs.grpc import http_of_status, render_timeout, status_of_value
from mesh_codecs.headers import Headers
from mesh_proxy.stream import flags
from mesh_proxy.stream.local_reply import RESET_ANSWERS, reset_body
from mesh_proxy.stream.timed_stream import TimedStream
from mesh_proxy.upstream.cluster import LbContext
from mesh_proxy.upstream.pool import ConnectionPool
from mesh_proxy.upstream.pools import pool_for
from mesh_proxy.upstream.tunnel import TunnelPool

if TYPE_CHECKING:
    from mesh_proxy.routing import ClusterChoice
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamHandle


class UpstreamStream(TimedStream):
    """Abstract: `HttpStream` adds the way in."""

    __slots__ = ("_awaits_grpc_status", "choice", "hedged", "pool")

    choice: ClusterChoice | None
    pool: ConnectionPool[Any] | TunnelPool | None
    """the pool in whose line we wait"""
    hedged: bool
    """x-envoy-hedge-on-per-try-timeout was set; we do not hedge, but the upstream may use the whole time"""
    _retry_timer: asyncio.TimerHandle | None = None
    _awaits_grpc_status: bool
    """a gRPC response is under way whose end will say what it came to"""

    def _attempt(self) -> None:
        cluster = self.cluster
        assert cluster is not None
        self.attempts += 1
        if cluster.needs_context or self.retry is not None:
            endpoint = cluster.pick(self._lb_context())
        elif self.labels is not None:
            endpoint = cluster.pick_labelled(self.labels)
        else:
            endpoint = cluster.pick()
        self._attempt_at(endpoint)

    def _attempt_at(self, endpoint: Endpoint | None) -> None:
        """An attempt at the endpoint that was chosen."""
        cluster = self.cluster
        assert cluster is not None
        if endpoint is None:
            self._charge(503)
            self.send_local_reply(503, b"no healthy upstream", details="no_healthy_upstream", flag=flags.NO_HEALTHY_UPSTREAM)
            return
        self.upstream = endpoint
        route = self.route
        assert route is not None
        action = route.action
        assert action is not None
        if action.auto_host_rewrite and endpoint.hostname:
            route.rewrite_host(self.request, endpoint.hostname.encode())
        if self.attempts > 1:
            self.request.likeness = None
            if self.timeout_s:
                self.set_expected_timeout(max(self.timeout_s - (monotonic() - self.request_end_time), 0.001))
        if route.include_request_attempt_count:
            self.request.headers.set(b"x-envoy-attempt-count", b"%d" % self.attempts)
        if self.retry is not None:
            self.retry.tried.add(endpoint)
        pool: ConnectionPool[Any] | TunnelPool
        if self.request.method == b"CONNECT" and self._terminates_connect():
            pool = TunnelPool(self.manager.context, cluster, endpoint, self.connection.source)
        else:
            pool = pool_for(
                self.manager.context,
                cluster,
                endpoint,
                high_priority=action.priority == "HIGH",
                http_version=self.request.http_version,
                alpn=self.manager.alpn,
                source=self.connection.source,
            )
        self.pool = pool
        pool.acquire(self)

    def _terminates_connect(self) -> bool:
        """Whether the tunnel of a CONNECT ends here, so that its bytes go on without it (`connect_config`)."""
        route = self.route
        assert route is not None
        assert route.action is not None
        return any(one.upgrade_type.lower() == "connect" and one.terminate_connect for one in route.action.upgrades)

    def set_expected_timeout(self, left_s: float | None) -> None:
        """Tell the upstream how long we will wait (`x-envoy-expected-rq-timeout-ms`, and perhaps `grpc-timeout`)."""
        limit = self._try_limit
        expected = left_s if self.hedged or not limit else limit
        if expected:
            if left_s:
                expected = min(expected, left_s)
            ms = max(round(expected * 1000), 1)
            headers = self.request.headers
            if not self.manager.suppress_envoy_headers:
                headers.set(b"x-envoy-expected-rq-timeout-ms", b"%d" % ms)
            if self.tells_deadline:
                headers.set(b"grpc-timeout", render_timeout(ms))

    def _lb_context(self) -> LbContext:
        context = LbContext()
        state = self.retry
        if state is not None and state.policy.avoid_previous_hosts and state.tried:
            context.avoid = state.tried
            context.attempts = state.policy.host_selection_max_attempts
        context.headers = self.request.headers
        context.original_destination = self.connection.original_destination
        if self.choice is not None:
            context.metadata_match = self.choice.metadata_match
        context.labels = self.labels
        if self.dynamic_metadata is not None:
            # What filters have found out about the request, as with Envoy.
            asked = self.dynamic_metadata.get("envoy.lb")
            if asked:
                context.metadata_match = {**(context.metadata_match or {}), **asked}
        route = self.route
        if route is not None and route.request_hash is not None:
            context.hash = route.request_hash(self.request, self.remote_address)
        return context

    # -- from the pool and the upstream connection

    def on_pool_ready(self, handle: UpstreamHandle) -> None:
        """A connection is ours: send what there is of the request."""
        self.pool = None
        if self.attempts > 1:
            self.upstream_transport_failure = ""
        self.handle = handle
        self.upstream_protocol = handle.protocol
        self.upstream_local_address = handle.local_address
        if self.downstream.write_blocked:
            handle.pause_reading()
        while self._read_blocked:
            # Before anything is sent: that may block reading again.
            self._unblock_reading()
        now = self.first_upstream_tx_time = monotonic()
        assert self.cluster is not None
        longest = self.cluster.config.max_stream_duration_s
        if longest:
            self._start_attempt_life(longest, now)
        body = self._body
        request = self.request
        try:
            if body is None:
                handle.send_request(request)
            else:
                request.end_stream = False
                handle.send_request(request)
                for event in body:
                    self._send_event(handle, event)
                if not self._body_kept:
                    self._body = None
                    self._body_size = 0
        except LocalProtocolError as error:
            self._request_unsendable(error)
            return
        if self.retry is not None and self.retry.policy.per_try_idle_timeout_s:
            self._try_idle = self.manager.context.deadlines.queue("per try idle", self.retry.policy.per_try_idle_timeout_s)
            self._try_idle.add(self, now)
        if self.request_done:
            self.last_upstream_tx_time = now
            if self._try_limit:
                self._start_try_timeout(now)

    def _send_event(self, handle: UpstreamHandle, event: Data | Trailers) -> None:
        if isinstance(event, Data):
            handle.send_data(event.data, event.end_stream)
        else:
            handle.send_trailers(event.headers)

    def on_pool_failure(self, reason: ResetReason, transport_failure: str, endpoint: Endpoint) -> None:
        """No connection: try again or say so."""
        self.pool = None
        self.upstream_transport_failure = transport_failure
        self._upstream_failed(reason, transport_failure)

    def on_upstream_reset(self, reason: ResetReason, transport_failure: str, details: str) -> None:
        """The connection died under the request."""
        self.handle = None
        cluster = self.cluster
        assert cluster is not None
        if self.response is not None:
            if self.upstream is not None:
                self.upstream.stats.rq_error += 1
            self.flags |= RESET_ANSWERS[reason].flag
            self.details = f"upstream_reset_after_response_started{{{_detail(reason)}}}"
            self.manager.stats.rq_reset_after_downstream_response_started += 1
            self._stop_timers()
            self.reset_downstream()
            return
        self._upstream_failed(reason, transport_failure)

    def _upstream_failed(self, reason: ResetReason, transport_failure: str) -> None:
        cluster = self.cluster
        endpoint = self.upstream
        assert cluster is not None
        answer = RESET_ANSWERS[reason]
        if endpoint is not None and reason is not ResetReason.OVERFLOW:
            endpoint.stats.rq_error += 1
            if cluster.tracks_results:
                cluster.on_result(endpoint, answer.http_status)
        if self.retry is not None and self.retry.wants_reset(reason, False) and self._schedule_retry():
            return
        headers: list[tuple[bytes, bytes]] | None = None
        if reason is ResetReason.OVERFLOW and not self.manager.suppress_envoy_headers:
            headers = [(b"x-envoy-overloaded", b"true")]
        detail = _detail(reason)
        if transport_failure:
            detail += f"|{transport_failure}"
        self._charge(answer.http_status)
        self.send_local_reply(
            answer.http_status,
            reset_body(reason, self.attempts > 1),
            details=f"upstream_reset_before_response_started{{{detail.replace(' ', '_')}}}",
            flag=answer.flag,
            headers=headers,
        )

    def on_upstream_informational(self, event: InformationalHeaders) -> None:
        """A 1xx of the upstream; a 100 was already answered by us."""
        if event.status != 100 or self.manager.config.proxy_100_continue:
            self.encode_informational(event)

    def on_upstream_headers(self, event: ResponseHeaders, now: float) -> None:
        """The response began."""
        self.first_upstream_rx_time = self.last_upstream_rx_time = now
        if self._try_deadline is not None or self._try_idle is not None:
            self._stop_try_timeout()
        status = event.status
        cluster = self.cluster
        endpoint = self.upstream
        route = self.route
        assert cluster is not None
        assert endpoint is not None
        assert route is not None
        ended = event.end_stream
        headers = event.headers
        first = headers.first
        verdict = status
        grpc_status: int | None = None
        if self.is_grpc and b"grpc-status" in first:
            grpc_status = status_of_value(first[b"grpc-status"])
            if grpc_status is not None:
                verdict = http_of_status(grpc_status)
        if cluster.tracks_results:
            cluster.on_result(endpoint, verdict)
        if cluster.health is not None and b"x-envoy-immediate-health-check-fail" in first:
            cluster.health.immediate_failure(endpoint)
        retrying = self.retry
        if retrying is not None:
            if retrying.wants_headers(event):
                if self._schedule_retry(event):
                    return
            elif self.attempts > 1:
                cluster.stats.upstream_rq_retry_success += 1
            retrying.release()
        if status >= 500:
            endpoint.stats.rq_error += 1
        elif not self.is_grpc:
            endpoint.stats.rq_success += 1
        elif not ended:
            self._awaits_grpc_status = True
        elif grpc_status is None or verdict >= 500:
            endpoint.stats.rq_error += 1
        else:
            endpoint.stats.rq_success += 1
        self._charge(status)
        if ended:
            self._upstream_complete(now)
        elif retrying is not None:
            self._forget_body()
        self.details = "via_upstream"
        if not self.manager.suppress_envoy_headers and self.request_end_time:
            took = int((now - self.request_end_time) * 1000)
            value = MILLISECONDS[took] if 0 <= took < len(MILLISECONDS) else b"%d" % took
            if headers.more is None:
                first[b"x-envoy-upstream-service-time"] = value
            else:
                headers.set(b"x-envoy-upstream-service-time", value)
        if route.include_attempt_count_in_response:
            headers.set(b"x-envoy-attempt-count", b"%d" % self.attempts)
        if route.mutates_response:
            self.response = event
            self.response_code = status
            route.finalize_response(event, self, self.choice)
            self.response = None
        if self.run is None:
            self.encode_headers(event)
        else:
            self.run.response_headers(event)

    def on_upstream_data(self, event: Data, now: float) -> None:
        """More of the response body."""
        self.last_upstream_rx_time = now
        if event.end_stream:
            if self._awaits_grpc_status:
                self._grpc_ended(None)
            self._upstream_complete(now)
        if self.run is None:
            self.encode_data(event)
        else:
            self.run.response_data(event)

    def on_upstream_trailers(self, headers: Headers, now: float) -> None:
        """The response is complete."""
        self.last_upstream_rx_time = now
        if self._awaits_grpc_status:
            self._grpc_ended(headers)
        self._upstream_complete(now)
        if self.run is None:
            self.encode_trailers(Trailers(self.stream_id, headers))
        else:
            self.run.response_trailers(Trailers(self.stream_id, headers))

    def _grpc_ended(self, trailers: Headers | None) -> None:
        """Only the end of a gRPC response says whether the call succeeded."""
        self._awaits_grpc_status = False
        endpoint = self.upstream
        assert endpoint is not None
        value = None if trailers is None else trailers.first.get(b"grpc-status")
        status = 0 if value == b"0" else status_of_value(value)
        if status is None or http_of_status(status) >= 500:
            endpoint.stats.rq_error += 1
        else:
            endpoint.stats.rq_success += 1

    def _upstream_complete(self, now: float) -> None:
        """The upstream's last byte: nothing more can fail there."""
        self.handle = None
        self._stop_timers()
        cluster = self.cluster
        assert cluster is not None
        started = self.request_end_time or self.start_time
        cluster.stats.upstream_rq_time.record((now - started) * 1000)

    # -- giving up, waiting, trying again

    def abandon_upstream(self) -> None:
        """Give up whatever runs towards the upstream: the line of a pool, a connection, a retry that waits."""
        self._stop_timers()
        pool = self.pool
        if pool is not None:
            self.pool = None
            pool.cancel(self)
        handle = self.handle
        if handle is not None:
            self.handle = None
            handle.reset()
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if self.retry is not None:
            self.retry.release()
        self._body = None
        while self._read_blocked:
            self._unblock_reading()

    def local_reply_headers(self, event: ResponseHeaders) -> None:
        """The route's response headers go on local replies too."""
        route = self.route
        if route is not None and route.mutates_response:
            route.finalize_response(event, self, self.choice)

    def _schedule_retry(self, response: ResponseHeaders | None = None) -> bool:
        """Start another attempt after the back-off, if budget and circuit breaker allow. False: pass on what we have."""
        state = self.retry
        cluster = self.cluster
        assert state is not None
        assert cluster is not None
        stats = cluster.stats
        if state.disabled:
            return False
        if state.left <= 0:
            stats.upstream_rq_retry_limit_exceeded += 1
            self.flags |= flags.UPSTREAM_RETRY_LIMIT_EXCEEDED
            return False
        state.release()
        if not state.resources.can_retry():
            stats.upstream_rq_retry_overflow += 1
            self.flags |= flags.UPSTREAM_OVERFLOW
            return False
        state.left -= 1
        state.attempted += 1
        state.active = True
        state.resources.add_retry()
        stats.upstream_rq_retry += 1
        stats.upstream_rq_retry_backoff_exponential += 1
        if response is not None:
            codes = stats.retry_codes
            codes[response.status] = codes.get(response.status, 0) + 1
            endpoint = self.upstream
            assert endpoint is not None
            endpoint.stats.rq_error += 1
        handle = self.handle
        if handle is not None:
            self.handle = None
            if response is None or not response.end_stream:
                handle.reset()
        self._stop_try_timeout()
        self._stop_attempt_life()
        self._retry_timer = self.manager.context.loop.call_later(state.back_off_s(), self._retry_now)
        return True

    def _retry_now(self) -> None:
        self._retry_timer = None
        if not self.done:
            self._attempt()
            self.manager.context.flush()


MILLISECONDS: Final = [b"%d" % number for number in range(1024)]


def expected_ms(seconds: float) -> bytes:
    """A time-out as `x-envoy-expected-rq-timeout-ms` says it; the few that are configured are made once."""
    text = _expected.get(seconds)
    if text is None:
        if len(_expected) >= EXPECTED_ENTRIES:
            _expected.clear()
        text = _expected[seconds] = b"%d" % max(round(seconds * 1000), 1)
    return text


_expected: dict[float, bytes] = {}
EXPECTED_ENTRIES: Final = 256


def _detail(reason: ResetReason) -> str:
    return reason.value.replace(" ", "_")
