"""The contract between the router and any upstream connection, whatever its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Data, InformationalHeaders, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers

if TYPE_CHECKING:
    from mesh_proxy.upstream.endpoint import Endpoint


class UpstreamHandle(Protocol):
    """One request on an upstream connection, as the router drives it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the request goes."""

    protocol: bytes
    """`HTTP/1.1` or `HTTP/2`, for logs"""

    @property
    def local_address(self) -> bytes:
        """Our end of the connection, as logs print it."""

    def send_request(self, request: RequestHeaders) -> None:
        """Send the head. The event's stream id is the caller's; the connection uses its own."""

    def send_data(self, data: bytes, end_stream: bool) -> None:
        """Send a piece of the body."""

    def send_trailers(self, headers: Headers) -> None:
        """Send trailers and end the request."""

    def reset(self) -> None:
        """Give the request up. No callback follows."""

    def pause_reading(self) -> None:
        """Counted: the downstream side cannot take more."""

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""


class UpstreamCallbacks(Protocol):
    """What a pool and an upstream connection tell the router. Calls come on the loop, never from within the router's own call
    except `on_pool_ready` and `on_pool_failure`, which may come before `acquire` returns."""

    upstream_wire_bytes_sent: int
    upstream_wire_bytes_received: int
    upstream_cancelled: bool
    """to be set before `on_upstream_reset` when the endpoint said that it cancels the call, not that something went wrong"""

    def on_pool_ready(self, handle: UpstreamHandle) -> None:
        """A connection is there for this request."""

    def on_pool_failure(self, reason: ResetReason, transport_failure: str, endpoint: Endpoint) -> None:
        """No connection could be had."""

    def on_upstream_informational(self, event: InformationalHeaders) -> None:
        """A 1xx head."""

    def on_upstream_headers(self, event: ResponseHeaders, now: float) -> None:
        """The response head."""

    def on_upstream_data(self, event: Data, now: float) -> None:
        """A piece of the response body."""

    def on_upstream_trailers(self, headers: Headers, now: float) -> None:
        """The response ended with trailers."""

    def on_upstream_reset(self, reason: ResetReason, transport_failure: str, details: str) -> None:
        """The request died on its connection. `details` is the codec's code for a protocol error, else empty."""

    def on_upstream_writable(self, writable: bool) -> None:
        """The connection's send buffer passed its high (False) or low (True) mark."""
