"""What a gRPC caller's deadline (`grpc-timeout`) means for a stream.

Envoy has two ways, and a route uses one of them. With `max_stream_duration` the deadline ends the stream like any other limit
of its duration (ConnectionManagerImpl::ActiveStream::refreshDurationTimeout); with the deprecated `max_grpc_timeout` it takes
the place of the route's time-out (FilterUtility::finalTimeout). Without either it is the upstream's affair alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_codecs.grpc import is_grpc_content_type, parse_timeout_ms, render_timeout

if TYPE_CHECKING:
    from mesh_codecs.headers import Headers
    from mesh_proxy.config.model.route import ClusterActionConfig
    from mesh_proxy.stream.http_stream import HttpStream


def limit_duration(stream: HttpStream, action: ClusterActionConfig) -> None:
    """Watch the duration that the route (`max_stream_duration`) and the caller's deadline allow, instead of the manager's. A
    gRPC upstream is told of it."""
    manager = stream.manager
    headers = stream.request.headers
    deadline = parse_timeout_ms(headers.first.get(b"grpc-timeout")) if action.grpc_timeout_header_max_s is not None else None
    if deadline is not None:
        limit = _whole_ms(action.grpc_timeout_header_max_s)
        if limit and deadline > limit:
            deadline = limit
        allowed = max(deadline - _whole_ms(action.grpc_timeout_header_offset_s), 0)
    else:
        seconds = action.max_stream_duration_s
        if seconds is None:
            seconds = manager.config.max_stream_duration_s
        if not seconds:
            if stream.duration is not None:
                stream.stop_duration()
                if is_grpc_content_type(headers.first.get(b"content-type")):
                    headers.remove(b"grpc-timeout")
            return
        allowed = _whole_ms(seconds)
    if is_grpc_content_type(headers.first.get(b"content-type")):
        headers.set(b"grpc-timeout", render_timeout(allowed))
    stream.watch_duration(_rounded_ms(allowed) / 1000 if deadline is not None else allowed / 1000)


def route_timeout_s(action: ClusterActionConfig, headers: Headers) -> float | None:
    """The time for a gRPC response under `max_grpc_timeout`; None = no limit."""
    ms = parse_timeout_ms(headers.first.get(b"grpc-timeout")) or 0
    offset = _whole_ms(action.grpc_timeout_offset_s)
    if offset < ms:
        # An offset that would leave nothing is not applied: zero would mean for ever.
        ms -= offset
    limit = _whole_ms(action.max_grpc_timeout_s)
    if limit and (not ms or ms > limit):
        ms = limit
    return ms / 1000 if ms else None


def _whole_ms(seconds: float | None) -> int:
    return round(seconds * 1000) if seconds else 0


def _rounded_ms(ms: int) -> int:
    """Callers count down what is left of a deadline, so that each request may name another figure. Rounded up to seven
    significant bits there are few of them, which share their queues, and none is more than 1.6 % late."""
    step = 1 << max(ms.bit_length() - 7, 0)
    return -(-ms // step) * step
