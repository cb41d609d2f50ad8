"""The filter interface: one set of hooks over one view of a request, whatever the protocol.

A filter sees a request on its way in (in the order of the configuration) and the response on its way out (in reverse order).
Hooks are plain functions that return a status; a filter that has to wait returns STOP, starts its task and calls
`stream.continue_request(self)` or `continue_response(self)` later. A hook that a class does not override is never called.

    class AddHeader(Filter):
        def on_request_headers(self, stream, event):
            event.headers.set(b"x-seen", b"1")
            return FilterStatus.CONTINUE
"""

from __future__ import annotations

import enum
from asyncio import Task
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers

UPSTREAM_OVERFLOW: Final = 1 << 6
DELAY_INJECTED: Final = 1 << 8
FAULT_INJECTED: Final = 1 << 9
RATE_LIMITED: Final = 1 << 10
UNAUTHORIZED: Final = 1 << 11
DOWNSTREAM_TERMINATED: Final = 1 << 13
OVERLOADED: Final = 1 << 20
FAILED_LOCAL_HEALTH_CHECK: Final = 1 << 23
"""Response flags that filters set or look at: UO, DI, FI, RL, UAEX, DC, OM, LH in access logs."""


class FilterStatus(enum.Enum):
    """What happens to an event after a hook."""

    CONTINUE = "continue"
    """on to the next filter"""
    STOP = "stop"
    """hold this event and all later ones of this direction until the filter lets them continue"""
    STOP_AND_BUFFER = "stop and buffer"
    """hold the head and collect the body up to the limit; the hook sees each further piece and lets go by CONTINUE. Beyond the
    limit a request is answered with 413 and a response with 502. Of no use when the event ends the message: nothing comes then"""


class Connection(Protocol):
    """What a filter may know of the caller's connection."""

    connection_id: int
    remote_ip: bytes
    """without port; empty for a unix socket"""
    remote_port: int
    direct_remote_address: bytes
    """of the socket's peer"""
    local_ip: bytes
    local_port: int
    requested_server_name: bytes
    filter_state: dict[Any, Any]
    """what filters keep for the connection"""
    tls: Any
    """facts about the peer's certificate; None on plain text"""


class Stream(Protocol):
    """What a filter may ask of and do to the stream that it serves."""

    request: RequestHeaders
    """the request's head, as it is now"""
    response: ResponseHeaders | None
    """the response's head once it has begun"""
    response_code: int
    """what was sent to the caller; 0 when nothing was"""
    dynamic_metadata: dict[str, Any] | None
    """filter name -> metadata, for later filters and the log"""
    filter_state: dict[str, Any] | None
    """objects that filters leave for each other"""
    flags: int
    """response flags, see above"""
    details: str
    """`%RESPONSE_CODE_DETAILS%`; set by local replies and by the router"""
    labels: tuple[tuple[str, str], ...] | None
    """(key, value) that the endpoint must have in its `envoy.lb` metadata; `@region`, `@zone`, `@sub_zone` stand for its
    locality, an empty value for the absence of a label. None: any endpoint"""
    health_check: bool
    """the request is a probe of the local service"""
    is_internal: bool
    """the request is internal in Envoy's sense"""
    remote_address: bytes
    """the trusted address of the client, with its port"""
    start_time: float
    """monotonic seconds"""
    first_upstream_tx_time: float
    """when the request began to go upstream; 0.0 until then"""
    last_upstream_rx_time: float
    """when something last came from the upstream; 0.0 until then"""
    plain_replies: bool
    """local replies are made as for HTTP, although the content type says gRPC: a filter translates"""

    @property
    def connection(self) -> Connection:
        """The caller's connection."""

    def continue_request(self, who: Filter | None = None) -> None:
        """Let a stopped request go on. Say `who` stopped it: several filters may hold parts of one request."""

    def continue_response(self, who: Filter | None = None) -> None:
        """Let a stopped response go on."""

    def add_response_data(self, who: Filter, data: bytes) -> None:
        """Put more body behind what `who` has let pass; to be called from its hook of the trailers. Trailers that a filter leaves
        empty are not sent."""

    def limit_request_buffer(self, size: int) -> None:
        """How many bytes STOP_AND_BUFFER may collect of this request."""

    def send_local_reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flag: int = 0,
        headers: list[tuple[bytes, bytes]] | None = None,
        grpc_status: int | None = None,
        dubbo_status: int | None = None,
    ) -> None:
        """Answer the caller instead of an upstream. The right form for the caller's protocol is chosen by the proxy, with
        `grpc_status` or `dubbo_status` if given. The answer
        passes the response hooks, unless a response had begun: then it takes its place. Return STOP afterwards."""

    def clear_route(self) -> None:
        """The request changed so that another route may apply: it is looked up again when somebody needs it."""

    def per_route_config(self, filter_name: str) -> Any:
        """This filter's `typed_per_filter_config`, translated: the most specific of weighted cluster, route, virtual host and
        table; None when there is none."""

    def per_route_configs(self, filter_name: str) -> list[Any]:
        """All of them, the least specific first."""

    def route_metadata(self) -> Any:
        """The route's `metadata.filter_metadata`: name -> values."""

    def rate_limits(self, vh_rate_limits: str) -> list[Any]:
        """`rate_limits` of the route and its virtual host, by the rules OVERRIDE, INCLUDE or IGNORE."""

    def argument(self, index: int, fields: Sequence[str]) -> bytes | None:
        """An argument of a Dubbo call as text, or of an object the field that the names lead to. It is read for this question.
        None: it is no text, number or boolean, is not there, or cannot be read; and for other protocols."""

    def target_cluster(self) -> str:
        """The cluster that the route has chosen; empty when it has none."""

    def use_cluster(self, name: str) -> None:
        """Send the request to this cluster instead of the route's. No effect when the route does not forward."""

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> Task[None]:
        """Run something that waits. An error in it is logged."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """What a filter does to each further request with a head that it has learnt, in place of `on_request_headers`.

    What it did to the head, to `labels`, to `dynamic_metadata` and to the route is repeated by the stream, with another
    `x-request-id` if each request gets its own. The filter itself does the rest.
    """

    act: Callable[[Stream], None]
    """count, remember: whatever each request needs"""
    holds: tuple[Callable[[Stream], bool], ...] = ()
    """what must be true so that it comes out the same: tests of everything beside the head that it came of, for which no
    request is like the other (who calls, memories, endpoints). They change nothing and do not look at the head, which is the
    one that goes upstream already, but for `x-request-id`"""


class Filter:
    """Base of all filters; one instance serves one stream. Override the hooks that are needed.

    An instance that holds nothing of a stream may serve all of them (see `FilterConfig.factory`).
    """

    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """The head of the request; `event` may be changed in place."""
        return FilterStatus.CONTINUE

    def learn(self, stream: Stream, event: RequestHeaders) -> tuple[FilterStatus, Repetition | None]:
        """The same as `on_request_headers` for a head that came before and will come again, and how to repeat it; None when
        that cannot be said, because a lot was drawn, or something was read in which equal heads differ (`x-request-id`).

        It is called for filters that serve all streams and have no other hook. They must change no more of the stream than
        `Repetition` names, and their answer must come of nothing beside the head and what `holds` tests: not of the connection,
        not of time, not of runtime values, not of whether a body follows."""
        return self.on_request_headers(stream, event), None

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
