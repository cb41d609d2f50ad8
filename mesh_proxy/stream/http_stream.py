"""The way in: the connection manager's checks and headers, the route, the cluster.

One request goes: `start` (the connection manager's checks and headers, the route) -> filters -> `route_request` -> `_attempt`,
perhaps several -> the response, back through the filters to the caller. Envoy's counterpart is source/common/router/router.cc.
"""

from __future__ import annotations

from dataclasses import replace
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Literal

from mesh_codecs.events import Data, InformationalHeaders, RequestHeaders, Trailers
from mesh_codecs.grpc import is_grpc_content_type
from mesh_codecs.headers import Headers
from mesh_proxy.network import request_headers
from mesh_proxy.network.paths import check_path
from mesh_proxy.stream import flags, retry
from mesh_proxy.stream.grpc_deadline import limit_duration, route_timeout_s
from mesh_proxy.stream.info import StreamInfo
from mesh_proxy.stream.planned_stream import PlannedStream
from mesh_proxy.stream.router_headers import ROUTER_HEADERS, ROUTER_ONLY
from mesh_proxy.stream.upstream_stream import expected_ms

if TYPE_CHECKING:
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.routing import ClusterChoice, Route
    from mesh_proxy.stream.downstream import Downstream
    from mesh_proxy.stream.request_plan import RequestPlan
    from mesh_proxy.upstream.cluster import Cluster


class HttpStream(PlannedStream):
    """One request and its response."""

    __slots__ = ()

    def __init__(self, downstream: Downstream, manager: HttpManager, request: RequestHeaders, now: float) -> None:
        """The beginning of all layers: one call for each of them would cost more than what they do. What the attributes mean
        stands where they belong; some have their first value there as well."""
        StreamInfo.__init__(self, downstream.info, now)
        self.downstream = downstream
        self.manager = manager
        self.request = request
        self.protocol = request.http_version
        self.stream_id = request.stream_id
        self.request_done = request.end_stream
        self.response_done = False
        self.undelivered = False
        self.last_downstream_time = now
        self.done = False
        self.duration = None
        self._read_blocked = 0
        self.force_trace = False
        self.tunnel = False
        self.run = None
        self.handle = None
        self.retry = None
        self._body = None
        self._body_kept = False
        self._shadows = None
        self.timeout_s = None
        self._try_limit = None
        self._deadline = None
        self._try_deadline = None
        self._try_idle = None
        self._attempt_life = None
        self.is_grpc = False
        self.tells_deadline = False
        self.choice = None
        self.pool = None
        self.hedged = False
        self._awaits_grpc_status = False
        self._route_cleared = False
        self.planned = None
        self.way = None

    @classmethod
    def unparsed(cls, downstream: Downstream, manager: HttpManager, now: float) -> HttpStream:
        """A stream that stands for a request of which no head could be read, so that it is logged."""
        request = RequestHeaders(0, b"", b"", b"", b"", Headers(), True)
        return cls(downstream, manager, request, now)

    # -- from the caller

    def start(self, now: float) -> None:
        """The head arrived."""
        request = self.request
        manager = self.manager
        headers = request.headers.first
        if self.request_done:
            self.request_end_time = now
        elif manager.request_queue is not None:
            manager.request_queue.add(self, now)
        if manager.max_duration_queue is not None:
            self.duration = manager.max_duration_queue
            self.duration.add(self, now)
        known = request.known
        original: RequestHeaders | None = None
        if known is not None:
            place = self.connection.place
            if place is None:
                place = self.connection.place = manager.plans.place(self.connection)
            plan: RequestPlan | Literal[False] | None = known.note.get(place) if known.note is not None else None
            if plan and plan.table is manager.route_table:
                self._start_as_planned(plan, now)
                return
            if plan is None or plan:  # or it is one for routes that are no more
                original = replace(request, headers=request.headers.copy())
        if not request.authority and request.method != b"CONNECT" and headers.pop(b"host", None) is None:
            self.send_local_reply(400, details="missing_host_header", close=True)
            return
        path = request.path
        if path[:1] != b"/" and request.method != b"CONNECT":
            manager.stats.downstream_rq_non_relative_path += 1
            self.send_local_reply(404, details="absolute_path_rejected")
            return
        if (manager.require_path_checks or b"#" in path) and check_path(self):
            return
        if manager.normalize_host is not None:
            request.authority = manager.normalize_host(request.authority, self.connection.local_port)
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and not manager.config.proxy_100_continue:
            request.headers.remove(b"expect")
            self.downstream.send(InformationalHeaders(self.stream_id, 100, Headers()))
        request_headers.mutate(request, self, manager)
        if b"x-envoy-force-trace" in headers:
            self.force_trace = True
        route = self.route = manager.route_table.find(request, self)
        if route is not None:
            self.route_name = route.name
            self.virtual_host_name = route.virtual_host_name
            if route.action is not None and route.action.limits_duration:
                limit_duration(self, route.action)
        if (request.protocol or request.method == b"CONNECT") and not self._may_tunnel(request):
            return
        if original is not None:
            manager.plans.make(self, original)
        if manager.filter_chains is None:
            self.route_request()
        else:
            self._start_filters(manager.filter_chains)

    def _start_as_planned(self, plan: RequestPlan, now: float) -> None:
        """Equal heads came before."""
        request = self.request
        manager = self.manager
        context = manager.context
        before = plan
        plan = plan.beyond or plan
        first = plan.first.copy()
        if plan.makes_id:
            first[b"x-request-id"] = context.request_id()
        for name in plan.kept:
            first[name] = request.headers.first[name]
        request.headers.first = first
        request.authority = plan.authority
        request.scheme = plan.scheme
        if plan.remote_address:
            self.remote_address = plan.remote_address
        self.is_internal = plan.is_internal
        route = self.route = plan.route
        self.route_name = route.name
        self.virtual_host_name = route.virtual_host_name
        if manager.filter_chains is not None and not self._filter_as_planned(before, plan, manager.filter_chains):
            return
        choice = plan.choice
        cluster = None if choice is None or context.runtime else context.clusters.get(choice.name)
        if choice is None or cluster is None:
            self.route_request()
            return
        self._leave_as_planned(plan, choice, cluster, now)

    def _leave_as_planned(self, plan: RequestPlan, choice: ClusterChoice, cluster: Cluster, now: float) -> None:
        """With the plan's head, which is the request's by now."""
        self.manager.stats.rq_total += 1
        self.choice = choice
        self.cluster = cluster
        self.cluster_name = choice.name
        self.is_grpc = plan.is_grpc
        self.timeout_s = plan.timeout_s
        self.request.likeness = None if plan.traced else plan.likeness
        if self.request_done and self.timeout_s:
            self._start_timeout(now)
        self._attempt()

    def _left_as_planned(self, plan: RequestPlan) -> bool:
        """The filters have not changed what the router looks at."""
        request = self.request
        first = request.headers.first
        for name in plan.own:
            plan.first[name] = first.get(name, b"")  # it holds the place of each request's own
        return (
            first == plan.first
            and request.headers.more is None
            and self.route is plan.route
            and not self._route_cleared
            and (self.choice is None or self.choice is plan.route.lone)
            and request.path == plan.path
            and request.authority == plan.authority
            and request.method == plan.method
            and request.scheme == plan.scheme
        )

    def _go_through(self, through: RequestPlan) -> bool:
        """On to the cluster with a head that filters have left as it was. False when the router has to look."""
        choice = through.choice
        context = self.manager.context
        cluster = None if choice is None or context.runtime else context.clusters.get(choice.name)
        if choice is None or cluster is None:
            return False
        headers = self.request.headers
        first = through.first.copy()
        for name in through.own:
            first[name] = headers.first[name]
        headers.first = first
        self._leave_as_planned(through, choice, cluster, monotonic())
        return True

    def _may_tunnel(self, request: RequestHeaders) -> bool:
        """An upgrade or CONNECT: whether route or manager allow it; answered with 403 if not."""
        route = self.route
        kind = request.protocol or b"connect"
        if (route is None and kind == b"connect") or self._upgrade_allowed(kind):
            return True
        if route is not None and (choice := route.select(request, self)) is not None:
            self.cluster_name = choice.name
        self.manager.stats.downstream_rq_ws_on_non_ws_route += 1
        self.send_local_reply(403, details="upgrade_failed")
        return False

    def _upgrade_allowed(self, protocol: bytes) -> bool:
        route: Route | None = self.route
        if route is not None and route.action is not None:
            for upgrade in route.action.upgrades:
                if upgrade.upgrade_type.lower().encode() == protocol:
                    return upgrade.enabled
        return self.manager.upgrades.get(protocol) or False

    def on_request_data(self, event: Data, now: float) -> None:
        """A piece of the request body arrived."""
        self.bytes_received += len(event.data)
        if event.end_stream:
            self._request_received(now)
        if self.run is None:
            self.forward_data(event)
        else:
            self.run.request_data(event)

    def _request_received(self, now: float) -> None:
        self.request_done = True
        self.request_end_time = now
        if self.manager.request_queue is not None:
            self.manager.request_queue.discard(self)

    def on_request_trailers(self, event: Trailers, now: float) -> None:
        """The request ended with trailers."""
        self._request_received(now)
        self.request_trailers = event.headers
        if self.run is not None:
            self.run.request_trailers(event)
        else:
            self.forward_trailers(event)

    # -- the router: filters are done with the head

    def route_request(self) -> None:
        """Decide where the request goes and send it."""
        planned = self.planned
        if planned is not None:
            self.planned = None
            if not self._left_as_planned(planned):
                planned = None
            elif planned.through is not None and self._go_through(planned.through):
                return
        manager = self.manager
        stats = manager.stats
        stats.rq_total += 1
        request = self.request
        route = self.current_route() if self._route_cleared else self.route
        if route is None:
            stats.no_route += 1
            self.send_local_reply(404, details="route_not_found", flag=flags.NO_ROUTE_FOUND)
            return
        action = route.action
        if action is None:
            self._answer_from_route(route)
            return
        choice = self.choice
        if choice is None:
            choice = self.choice = route.select(request, self)
        cluster = None if choice is None else manager.context.clusters.get(choice.name)
        if choice is None or cluster is None:
            stats.no_cluster += 1
            self.send_local_reply(action.cluster_not_found_status, details="cluster_not_found", flag=flags.NO_CLUSTER_FOUND)
            return
        self.cluster = cluster
        self.cluster_name = choice.name
        share = manager.context.runtime.get("upstream.maintenance_mode." + choice.name) if manager.context.runtime else None
        if share is not None and random() * 100 < float(share):
            cluster.stats.upstream_rq_maintenance_mode += 1
            self._charge(503)
            self.send_local_reply(
                503,
                b"maintenance mode",
                details="maintenance_mode",
                flag=flags.UPSTREAM_OVERFLOW,
                headers=None if manager.suppress_envoy_headers else [(b"x-envoy-overloaded", b"true")],
            )
            return
        first = request.headers.first
        self.timeout_s = None if action.limits_duration else action.timeout_s
        if b"content-type" in first and is_grpc_content_type(first[b"content-type"]):
            self.is_grpc = True
            if action.max_grpc_timeout_s is not None and not action.limits_duration:
                self.timeout_s = route_timeout_s(action, request.headers)
                self.tells_deadline = True
        policy = route.retry_policy
        if policy is not None:
            self._try_limit = policy.per_try_timeout_s
        asks = not ROUTER_HEADERS.isdisjoint(first)
        if asks:
            self._take_router_headers(request)
            self._timeouts_from_headers(request)
        if self._try_limit or self.hedged or self.tells_deadline:
            self.set_expected_timeout(self.timeout_s)
        elif self.timeout_s and not manager.suppress_envoy_headers:
            first[b"x-envoy-expected-rq-timeout-ms"] = expected_ms(self.timeout_s)
        if policy is not None or asks:
            self.retry = retry.make(policy, request, cluster.high if action.priority == "HIGH" else cluster.default)
            self._body_kept = self.retry is not None
        route.finalize_request(request, self, choice)
        if self.timeout_s and self.request_done:
            self._start_timeout(monotonic())
        if route.mirrors:
            self.mirror_request(route.mirrors)
        if request.known is not None:
            if manager.filter_chains is None or (manager.plans.learner is self and not asks):
                manager.plans.routed(self, request.known)
            elif planned is not None and not asks:
                manager.plans.passed(self, planned)
        self._attempt()

    def _answer_from_route(self, route: Route) -> None:
        stats = self.manager.stats
        redirect = route.redirect
        if redirect is not None:
            stats.rq_direct_response += 1
            location = route.redirect_location(self.request, self)
            self.send_local_reply(redirect.status, details="direct_response", headers=[(b"location", location)])
            return
        direct = route.direct_response
        assert direct is not None, "non-forwarding routes are refused when the configuration is loaded"
        stats.rq_direct_response += 1
        headers: list[tuple[bytes, bytes]] = []
        if direct.status == 201 or 300 <= direct.status < 400:
            headers.append((b"location", route.redirect_location(self.request, self)))
        self.send_local_reply(direct.status, direct.body, details="direct_response", headers=headers)

    def _take_router_headers(self, request: RequestHeaders) -> None:
        """Headers that speak to the router alone: read where we know them, never sent on."""
        headers = request.headers
        for name in ROUTER_ONLY.intersection(headers.first):
            value = headers.remove(name)
            if name == b"x-envoy-hedge-on-per-try-timeout":
                self.hedged = value == b"true"
            elif name == b"x-envoy-upstream-rq-timeout-alt-response":
                self.timeout_alternative = True

    def _timeouts_from_headers(self, request: RequestHeaders) -> None:
        """`x-envoy-upstream-rq-timeout-ms` and `-per-try-timeout-ms`: milliseconds, for this request only."""
        value = request.headers.remove(b"x-envoy-upstream-rq-timeout-ms")
        if value is not None and value.isdigit() and len(value) < 12:
            self.timeout_s = int(value) / 1000 or None
        value = request.headers.remove(b"x-envoy-upstream-rq-per-try-timeout-ms")
        if value is not None and value.isdigit() and len(value) < 12:
            self._try_limit = int(value) / 1000 or None

    # -- idle time

    def idle_limit(self) -> float:
        """Seconds without a byte in either direction after which this stream ends; the route may override the manager's."""
        route = self.route
        if route is not None and route.action is not None and route.action.has_idle_timeout:
            return route.action.idle_timeout_s or float("inf")
        return self.manager.config.stream_idle_timeout_s or float("inf")

    def on_idle_timeout(self) -> None:
        """No byte in either direction for too long."""
        self.manager.stats.downstream_rq_idle_timeout += 1
        status = 504 if self.request_done else 408
        self.send_local_reply(status, b"stream timeout", details="stream_idle_timeout", flag=flags.STREAM_IDLE_TIMEOUT)
