"""The filter interface: one set of hooks over one view of a request, whatever the protocol.

A filter sees a request on its way in (in the order of the configuration) and the response on its way out (in reverse order).
Hooks are plain functions that return a status; a filter that has to wait returns STOP, starts its task and calls
`stream.continue_request()` or `continue_response()` later. A hook that a class does not override is never called.

    class AddHeader(Filter):
        def on_request_headers(self, stream, event):
            event.headers.set(b"x-seen", b"1")
            return FilterStatus.CONTINUE
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers


class FilterStatus(enum.Enum):
    """What happens to an event after a hook."""

    CONTINUE = "continue"
    """on to the next filter"""
    STOP = "stop"
    """hold this event and all later ones of this direction until the filter lets them continue"""
    STOP_AND_BUFFER = "stop and buffer"
    """hold the head and collect the body up to the limit; the hook sees each further piece and lets go by CONTINUE. Beyond the
    limit a request is answered with 413 and a response with 502"""


class Stream(Protocol):
    """What a filter may ask of and do to the stream that it serves."""

    request: RequestHeaders
    """the request's head, as it is now"""
    response: ResponseHeaders | None
    """the response's head once it has begun"""
    dynamic_metadata: dict[str, Any] | None
    """filter name -> metadata, for later filters and the log"""

    def continue_request(self) -> None:
        """Let a stopped request go on."""

    def continue_response(self) -> None:
        """Let a stopped response go on."""

    def send_local_reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flag: int = 0,
        headers: list[tuple[bytes, bytes]] | None = None,
        grpc_status: int | None = None,
    ) -> None:
        """Answer the caller instead of an upstream. The right form for the caller's protocol is chosen by the proxy."""

    def clear_route(self) -> None:
        """The request changed so that another route may apply: it is looked up again before forwarding."""

    def per_route_config(self, filter_name: str) -> Any:
        """This filter's `typed_per_filter_config` of the route (or virtual host), translated; None when absent."""


class Filter:
    """Base of all filters; one instance serves one stream. Override the hooks that are needed."""

    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """The head of the request; `event` may be changed in place."""
        return FilterStatus.CONTINUE

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        """A piece of the request's body."""
        return FilterStatus.CONTINUE

    def on_request_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """The trailers of the request."""
        return FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """The head of the response."""
        return FilterStatus.CONTINUE

    def on_response_data(self, stream: Stream, event: Data) -> FilterStatus:
        """A piece of the response's body."""
        return FilterStatus.CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """The trailers of the response."""
        return FilterStatus.CONTINUE

    def on_local_reply(self, stream: Stream, event: ResponseHeaders) -> None:
        """The proxy answers itself; called before the reply goes through the response hooks."""

    def on_complete(self, stream: Stream) -> None:
        """The stream is over, whatever its end was."""
