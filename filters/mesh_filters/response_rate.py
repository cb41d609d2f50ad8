"""A response at so many bytes a second: the `response_rate_limit` of faults (Envoy: `http/common/stream_rate_limiter.cc`).

What exceeds the rate stays here and goes out every SLICE_S; what comes meanwhile lines up before the filter, which in the end
holds back the upstream.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.events import Data
from mesh_filters.definition import Cancellable, FilterContext
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.token_bucket import LocalCell, TokenBucket

SLICE_S: Final = 0.05
"""Envoy's interval; a response may begin with as much as one of them gives"""


class ResponseRate:
    """Of one stream; `who` is the filter that it works for."""

    __slots__ = ("_bucket", "_context", "_rest", "_timer", "_who")

    def __init__(self, kbps: int, context: FilterContext, who: Filter) -> None:
        """`kbps` are KiB per second."""
        rate = kbps * 1024
        cell = LocalCell()
        cell.set(context.now() - SLICE_S)
        self._bucket = TokenBucket(rate, rate, cell)
        self._context = context
        self._who = who
        self._rest = b""
        self._timer: Cancellable | None = None

    def on_data(self, stream: Stream, event: Data) -> FilterStatus:
        """A piece of the body. If it is too much, its empty end is held and its bytes follow piece by piece."""
        data = event.data
        if not data:
            return FilterStatus.CONTINUE
        count = self._take(len(data))
        if count == len(data):
            return FilterStatus.CONTINUE
        if count:
            stream.add_response_data(self._who, data[:count])
        self._rest = data[count:]
        event.data = b""
        self._timer = self._context.call_later(SLICE_S, self._more, stream)
        return FilterStatus.STOP

    def _take(self, size: int) -> int:
        now = self._context.now()
        count = min(size, self._bucket.remaining(now))
        if count:
            self._bucket.take(now, count)
        return count

    def _more(self, stream: Stream) -> None:
        rest = self._rest
        count = self._take(len(rest))
        self._rest = rest[count:]
        self._timer = None
        if count:
            stream.add_response_data(self._who, rest[:count])
        if self._rest:
            self._timer = self._context.call_later(SLICE_S, self._more, stream)
        else:
            stream.continue_response(self._who)

    def stop(self) -> None:
        """The stream is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
