"""Which label a trace has, by what this sidecar remembers of the requests that came in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext
from mesh_filters.filter import Stream

TRACE_IDS: Final = ("traceparent", "b3", "x-b3-traceid", "x-request-id")
Ids = tuple[bytes | None, ...]
"""trace ids of all requests with equal heads; None stands for the `x-request-id` of each"""


class Traces:
    """The trace ids of requests, and what is remembered for them."""

    __slots__ = ("_context", "_names", "_stats")

    def __init__(self, names: Iterable[str], context: FilterContext, stats: Any) -> None:
        self._names = tuple(name.encode() for name in names)
        """headers that carry a trace id, the first that is known wins"""
        self._context = context
        self._stats = stats

    def of(self, request: RequestHeaders) -> list[bytes]:
        """The request's trace ids, under whatever header."""
        first = request.headers.first
        found = []
        for name in self._names:
            value = first.get(name)
            if not value:
                continue
            if name == b"traceparent":
                parts = value.split(b"-")
                value = parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else b""
            elif name == b"b3":
                value = value.partition(b"-")[0]
            if value and value not in found:
                found.append(value)
        return found

    def restore(self, stream: Stream, key: bytes) -> bytes | None:
        """What this sidecar has learnt about the request's trace."""
        for trace_id in self.of(stream.request):
            label = self._context.recall(key, trace_id)
            if label is not None:
                self._stats.restored += 1
                return label
        return None

    def ids(self, event: RequestHeaders) -> Ids:
        """The same for all requests with equal heads."""
        first = event.headers.first
        own = first.get(b"x-request-id") if b"x-request-id" in self._names else None
        return tuple(None if one is own else one for one in self.of(event))

    def recall(self, stream: Stream, key: bytes, ids: Ids) -> bytes | None:
        """`restore` for these ids, and nothing is counted."""
        recall = self._context.recall
        for one in ids:
            label = recall(key, stream.request.headers.first[b"x-request-id"] if one is None else one)
            if label is not None:
                return label
        return None
