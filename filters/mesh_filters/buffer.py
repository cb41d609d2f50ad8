"""`envoy.filters.http.buffer`: a request goes on when its whole body has come (Envoy: `http/buffer/buffer_filter.cc`)."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_codecs.events import Data, RequestHeaders, Trailers
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferConfig:
    """`Buffer` and `BufferPerRoute`."""

    max_request_bytes: int
    """0 for a route that switches the filter off"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it counts the body."""
        name, limit = context.name, self.max_request_bytes
        return lambda: BufferFilter(name, limit)


class BufferFilter(Filter):
    """Collects one request."""

    __slots__ = ("_limit", "_name", "_size")

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._size = -1
        """bytes that have come; -1 when nothing is collected"""

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Wait for the body, if there is one."""
        if event.end_stream or event.protocol or event.method == b"CONNECT":
            return FilterStatus.CONTINUE
        route: BufferConfig | None = stream.per_route_config(self._name)
        limit = self._limit if route is None else route.max_request_bytes
        if not limit:
            return FilterStatus.CONTINUE
        stream.limit_request_buffer(limit)
        self._size = 0
        return FilterStatus.STOP_AND_BUFFER

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """More of it."""
        if self._size < 0:
            return FilterStatus.CONTINUE
        self._size += len(event.data)
        if not event.end_stream:
            return FilterStatus.STOP_AND_BUFFER
        self._complete(stream)
        return FilterStatus.CONTINUE

    def on_request_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """The end."""
        if self._size >= 0:
            self._complete(stream)
        return FilterStatus.CONTINUE

    def _complete(self, stream: Stream) -> None:
        # The length is known now, so the upstream may know it too.
        stream.request.headers.setdefault(b"content-length", b"%d" % self._size)
        self._size = -1
