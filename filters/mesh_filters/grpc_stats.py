"""`envoy.filters.http.grpc_stats`: calls and messages counted by service and method (Envoy: http/grpc_stats)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.grpc import MessageCounter, is_grpc_content_type
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.grpc_call_stats import CallStats, CallStatsTable, service_and_method

FILTER_STATE: Final = "envoy.filters.http.grpc_stats"
_CONTINUE: Final = FilterStatus.CONTINUE


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcStatsConfig:
    """`FilterConfig`."""

    all_methods: bool = False
    """each service and method has statistics of its own"""
    methods: frozenset[tuple[str, str]] = frozenset()
    """(service, method) pairs that have"""
    emit_filter_state: bool = False
    """`%FILTER_STATE(envoy.filters.http.grpc_stats)%` has the numbers of messages"""
    upstream_stats: bool = False
    """how long the upstream took"""
    replace_dots: bool = False
    """`a.b.Service` is counted as `a_b_Service`"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it counts messages."""
        shared = _Shared(self, CallStatsTable(context, "grpc"))
        return lambda: GrpcStatsFilter(shared)


class _Shared:
    """What the filters of all streams have in common."""

    __slots__ = ("config", "table")

    def __init__(self, config: GrpcStatsConfig, table: CallStatsTable) -> None:
        self.config = config
        self.table = table

    def stats_of(self, stream: Stream, request: RequestHeaders) -> CallStats | None:
        """Where this call is counted."""
        call = service_and_method(request.path)
        if call is None:
            return None
        config = self.config
        if not config.all_methods and call not in config.methods:
            call = None
        elif config.replace_dots:
            call = call[0].replace(".", "_"), call[1]
        return self.table.of(stream.target_cluster(), call)


class GrpcStatsFilter(Filter):
    """Counts one call."""

    __slots__ = ("_answers", "_requests", "_shared", "_stats")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._stats: CallStats | None = None
        self._requests: MessageCounter | None = None
        """None: the request is not gRPC"""
        self._answers: MessageCounter | None = None

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Find out whether and where this is counted."""
        if is_grpc_content_type(event.headers.first.get(b"content-type")):
            self._requests = MessageCounter()
            self._stats = self._shared.stats_of(stream, event)
        return _CONTINUE

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """Count messages."""
        counter = self._requests
        if counter is not None and (new := counter.feed(event.data)):
            if self._stats is not None:
                self._stats.add("request_message_count", new)
            if self._shared.config.emit_filter_state:
                self._emit(stream)
        return _CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """A trailers-only response ends the call."""
        if self._requests is not None:
            first = event.headers.first
            if not event.end_stream and event.status == 200 and is_grpc_content_type(first.get(b"content-type")):
                self._answers = MessageCounter()
            if self._stats is not None:
                self._stats.charge(first.get(b"grpc-status"))
                if event.end_stream:
                    self._time(stream)
        return _CONTINUE

    def on_response_data(self, stream: Stream, event: Data) -> FilterStatus:
        """Count messages."""
        counter = self._answers
        if counter is not None and (new := counter.feed(event.data)):
            if self._stats is not None:
                self._stats.add("response_message_count", new)
            if self._shared.config.emit_filter_state:
                self._emit(stream)
        return _CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """The end of the call."""
        if self._stats is not None:
            self._stats.charge(event.headers.first.get(b"grpc-status"))
            self._time(stream)
        return _CONTINUE

    def _time(self, stream: Stream) -> None:
        if self._shared.config.upstream_stats and self._stats is not None:
            begun, ended = stream.first_upstream_tx_time, stream.last_upstream_rx_time
            if begun and ended:
                self._stats.record("upstream_rq_time", (ended - begun) * 1000)

    def _emit(self, stream: Stream) -> None:
        if stream.filter_state is None:
            stream.filter_state = {}
        requests, answers = self._requests, self._answers
        stream.filter_state[FILTER_STATE] = {
            "request_message_count": 0 if requests is None else requests.count,
            "response_message_count": 0 if answers is None else answers.count,
        }
