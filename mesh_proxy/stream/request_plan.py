"""What the connection manager and the route make of a request head, remembered for the next request with the same head.

A mesh sends the same few heads all the time, and a codec that knows a head by its bytes says so (`RequestHeaders.known`). Then
the result of the checks, of the manager's headers and of the routing is copied instead of worked out again. What the router adds
is remembered as well where there are no filters, and where all of them can say how to repeat what they did
(`mesh_filters.filter.Repetition`); else the filters run as always, and the router's part is used if they leave head and route as
they are.

Whatever may turn out differently for equal heads has no plan: see `_plain` and `_routed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from mesh_codecs.http1.grammar import OWN
from mesh_proxy.stream.router_headers import ROUTER_HEADERS

if TYPE_CHECKING:
    from mesh_codecs.events import KnownHead, RequestHeaders
    from mesh_codecs.http2.heads import Head
    from mesh_filters.filter import Repetition, Stream
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.formatting import PlannedLine
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.routing import ClusterChoice, Route
    from mesh_proxy.routing.table import RouteTable
    from mesh_proxy.stream.filtered_stream import FilteredStream
    from mesh_proxy.stream.http_stream import HttpStream
    from mesh_proxy.stream.info import ConnectionInfo

PLANS: Final = 1024
"""kept per connection manager and shared by its connections; 1 to 3 KiB each"""
PLACES: Final = 64
"""kept for one head"""
REST: Final = 64
"""requests of a head for which filters run as always before it is looked again whether they can repeat what they did"""
LARGEST_HEAD: Final = 2048
"""bytes of names and values; longer heads are worked out each time"""
_UNIQUE: Final = frozenset(
    {b"traceparent", b"tracestate", b"x-b3-parentspanid", b"x-b3-spanid", b"x-b3-traceid", b"x-client-trace-id"}
)
"""fields that the HTTP/2 encoder writes apart (`mesh_codecs.http2.sender`)"""
_TRACES: Final = OWN - {b"x-request-id"}


class RequestPlan:
    """The outcome for one head."""

    __slots__ = (
        "acts",
        "asked",
        "authority",
        "beyond",
        "choice",
        "first",
        "holds",
        "http2_pool",
        "is_grpc",
        "is_internal",
        "kept",
        "labels",
        "likeness",
        "lines",
        "makes_id",
        "metadata",
        "method",
        "own",
        "path",
        "pool",
        "remote_address",
        "request",
        "rest",
        "route",
        "route_deadlines",
        "scheme",
        "table",
        "through",
        "timeout_s",
        "traced",
    )

    def __init__(self, stream: HttpStream, route: Route, *, makes_id: bool, kept: tuple[bytes, ...]) -> None:
        request = stream.request
        self.table: RouteTable = stream.manager.route_table
        self.route = route
        self.method = request.method
        self.path = request.path
        self.authority = request.authority
        self.scheme = request.scheme
        self.first = request.headers.first.copy()
        """the fields after the manager's work; those of `own` hold their place"""
        self.makes_id = makes_id
        """every request gets an id of its own"""
        self.request: RequestHeaders | None = None
        """a head that stands for all of them (`planned_http2.py`)"""
        self.kept = kept
        """names of the fields whose values are those that came with each request"""
        self.own = (*kept, b"x-request-id") if makes_id else kept
        """names of all fields that differ from request to request"""
        self.traced = not _TRACES.isdisjoint(kept)
        """there is more than an id"""
        self.remote_address = stream.remote_address if stream.remote_address != stream.connection.remote_address else b""
        """as forwarded; empty when it is the connection's"""
        self.is_internal = stream.is_internal
        self.choice: ClusterChoice | None = None
        """the cluster, when the router's part is planned as well: then what follows holds, and `first` has its fields too"""
        self.asked = False
        """whether it can be planned was looked at"""
        self.timeout_s: float | None = None
        self.route_deadlines: DeadlineQueue | None = None
        """for that time, which is the configuration's"""
        self.is_grpc = False
        self.pool = ""
        """the kind of pool over HTTP/1, where all else is always the same (`planned_stream.py`); empty otherwise"""
        self.http2_pool = ""
        """the same over HTTP/2, gRPC too (`planned_http2.py`)"""
        self.likeness: object = None
        """see `RequestHeaders.likeness`"""
        self.rest = 0
        """requests for which filters need not be asked whether they can repeat what they did"""
        self.beyond: RequestPlan | None = None
        """what follows when filters repeat what they did: a plan of its own, with the router's part; then all below is its"""
        self.through: RequestPlan | None = None
        """what follows when filters leave the head and the route as they are: a plan of its own, with the router's part"""
        self.holds: tuple[Callable[[Stream], bool], ...] = ()
        """what the filters ask for"""
        self.acts: tuple[Callable[[Stream], None], ...] = ()
        self.labels: tuple[tuple[str, str], ...] | None = None
        self.metadata: dict[str, Any] | None = None
        self.lines: dict[tuple[object, ...], PlannedLine] | None = None
        """for access logs (`AccessLogger.log_planned`)"""

    def own_id(self, head: Head) -> bytes:
        """The id that a request came with and keeps; empty if it has none."""
        return head.first[b"x-request-id"] if b"x-request-id" in self.kept else b""


class RequestPlans:
    """The plans of one connection manager."""

    __slots__ = ("_likenesses", "_manager", "_places", "_plans", "_possible", "learner", "learnt")

    def __init__(self, manager: HttpManager) -> None:
        config = manager.config
        self._manager = manager
        self._possible = (
            manager.route_table.steady
            and not manager.require_path_checks
            and not config.add_user_agent
            and "chain" not in config.set_current_client_cert_details  # may differ for one certificate
        )
        self._plans: dict[tuple[object, ...], RequestPlan] = {}
        self._likenesses: dict[tuple[object, ...], object] = {}
        self._places: dict[tuple[bytes, int, bool, bytes, bytes], object] = {}
        self.learner: FilteredStream | None = None
        """the stream that its filters have learnt, while the router is at work on it"""
        self.learnt: tuple[Repetition, ...] = ()
        """what they said"""

    def place(self, connection: ConnectionInfo) -> object:
        """The same object for connections on which equal heads come to the same: the caller's address and certificate are in
        what the manager says of it (`x-forwarded-for`, `x-forwarded-client-cert`)."""
        remote = connection.remote_ip if self._manager.use_remote_address else b""
        tls = connection.tls
        peer = tls.peer if tls is not None else None
        local = tls.local if tls is not None else None
        key = (
            remote,
            connection.local_port,
            tls is not None,
            b"" if peer is None else peer.der,
            b"" if local is None else local.der,
        )
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= PLANS:
                self._places.clear()
            place = self._places[key] = object()
        return place

    def make(self, stream: HttpStream, original: RequestHeaders) -> None:
        """Note the plan for a head that may have one, after the manager's work and before the filters. `original` is the head as
        it came."""
        request = stream.request
        route = stream.route
        known = request.known
        assert known is not None
        place = stream.connection.place
        notes = known.note
        if notes is None:
            notes = known.note = {}
        elif len(notes) >= PLACES:
            notes.clear()
        if route is None or not self._possible or not self._plain(stream, original):
            notes[place] = False
            return
        fields = original.headers.first.copy()
        came = OWN.intersection(fields)
        goes = request.headers.first
        makes_id = b"x-request-id" in goes and goes[b"x-request-id"] != fields.get(b"x-request-id")
        for name in came:
            if name in goes and goes[name] != fields[name] and not (makes_id and name == b"x-request-id"):
                notes[place] = False
                return
            fields[name] = b""
        key = (
            place,
            original.method,
            original.scheme,
            original.authority,
            original.path,
            original.http_version,
            *fields.items(),
        )
        plan = self._plans.get(key)
        if plan is None or plan.table is not self._manager.route_table:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            kept = tuple([name for name in goes if name in came and not (makes_id and name == b"x-request-id")])
            plan = RequestPlan(stream, route, makes_id=makes_id, kept=kept)
            self._plans[key] = plan
        notes[place] = plan

    def _plain(self, stream: HttpStream, original: RequestHeaders) -> bool:
        """Equal heads of this kind come out equal."""
        request = stream.request
        route = stream.route
        first = original.headers.first
        return (
            request.headers.more is None
            and original.headers.more is None
            and not request.protocol
            and request.method != b"CONNECT"
            and original.authority != b""
            and original.path[:1] == b"/"
            and b"#" not in original.path
            and request.path == original.path
            and b"expect" not in first
            and b"x-envoy-force-trace" not in first
            and not (route is not None and route.action is not None and route.action.limits_duration)
            and sum([len(name) + len(value) for name, value in first.items()]) + len(original.path) <= LARGEST_HEAD
        )

    def routed(self, stream: HttpStream, known: KnownHead) -> None:
        """Add the router's part to the plan, if it always comes out the same. To be called when the router is done with the
        head, and no filter has seen it or all of them can repeat what they did."""
        plan: RequestPlan | Literal[False] | None = known.note.get(stream.connection.place) if known.note is not None else None
        if not plan:
            return
        if self._manager.filter_chains is None:
            if not plan.asked:
                plan.asked = True
                self._add_router(plan, stream)
            return
        route = stream.route
        assert route is not None, "it was routed"
        beyond = RequestPlan(stream, route, makes_id=plan.makes_id, kept=plan.kept)
        beyond.holds = tuple([test for one in self.learnt for test in one.holds])
        beyond.acts = tuple([one.act for one in self.learnt])
        beyond.labels = stream.labels
        beyond.metadata = stream.dynamic_metadata
        if beyond.metadata is not None:
            beyond.metadata = beyond.metadata.copy()
        if self._add_router(beyond, stream):
            plan.beyond = beyond
            plan.rest = 0

    def passed(self, stream: HttpStream, plan: RequestPlan) -> None:
        """Note the router's part for a head that filters have left as it was planned; to be called when the router is done with
        it."""
        if not plan.asked:
            plan.asked = True
            through = RequestPlan(stream, plan.route, makes_id=plan.makes_id, kept=plan.kept)
            if self._add_router(through, stream):
                plan.through = through

    def _add_router(self, plan: RequestPlan, stream: HttpStream) -> bool:
        request = stream.request
        route = plan.route
        action = route.action
        choice = stream.choice
        if (
            action is None
            or choice is None
            or choice is not route.lone
            or choice.mutates_request
            or route.retry_policy is not None
            or route.mirrors
            or route.include_request_attempt_count
            or action.auto_host_rewrite
            or stream.retry is not None
            or stream.tells_deadline
            or not ROUTER_HEADERS.isdisjoint(plan.first)
            or not _UNIQUE.difference(plan.kept).isdisjoint(plan.first)
        ):
            return False
        plan.timeout_s = stream.timeout_s
        if plan.timeout_s:
            plan.route_deadlines = self._manager.context.deadlines.queue("route", plan.timeout_s)
        plan.is_grpc = stream.is_grpc
        plan.first = request.headers.first.copy()
        fields = request.headers.first.copy()
        own = tuple([name for name in fields if name in plan.own])
        for name in own:
            del fields[name]
        key = (own, request.method, request.scheme, request.authority, request.path, *fields.items())
        likeness = self._likenesses.get(key)
        if likeness is None:
            if len(self._likenesses) >= PLANS:
                self._likenesses.clear()
            likeness = self._likenesses[key] = object()
        plan.likeness = likeness
        plan.choice = choice
        if not route.mutates_response and not route.include_attempt_count_in_response and self._manager.alpn is None:
            if request.method != b"HEAD":
                plan.http2_pool = "http2 high" if action.priority == "HIGH" else "http2"
            if not plan.is_grpc:
                plan.pool = "http1 high" if action.priority == "HIGH" else "http1"
        return True
