"""The filters of a stream: how they begin, and what they and the walk through them may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.events import ResponseHeaders
from mesh_filters.filter import Filter, FilterStatus, Repetition
from mesh_proxy.config.model import FilterSwitch
from mesh_proxy.routing.matchers import compile_fraction
from mesh_proxy.stream.filter_run import FilterRun
from mesh_proxy.stream.request_plan import REST
from mesh_proxy.stream.shadow import shadows_of
from mesh_proxy.stream.upstream_stream import UpstreamStream
from mesh_proxy.tasks import create_task

if TYPE_CHECKING:
    from mesh_proxy.config.model.route import MirrorPolicyConfig
    from mesh_proxy.routing import Route
    from mesh_proxy.stream.filter_chain import FilterChain, FilterChains
    from mesh_proxy.stream.request_plan import RequestPlan

_CONTINUE: Final = FilterStatus.CONTINUE


class FilteredStream(UpstreamStream):
    """Abstract: `HttpStream` adds the way in."""

    __slots__ = ("_route_cleared", "planned")

    _route_cleared: bool
    planned: RequestPlan | None
    """what is known of the request before its filters, until they have seen it"""

    def route_request(self) -> None:
        """The request's head has passed the filters."""
        raise NotImplementedError

    def _start_filters(self, chains: FilterChains, plan: RequestPlan | None = None) -> None:
        """Which filters there are is decided by the route that the request has now, and does not change when its route does."""
        route = self.route
        chain = chains.default
        if route is not None:
            if route.choices_differ:
                self.choice = route.select(self.request, self)
            per_filter = route.per_filter_config if self.choice is None else self.choice.per_filter_config
            if per_filter:
                chain = chains.of(per_filter)
        if chain.learns and plan is not None and not plan.rest and not (plan.traced and chain.light):
            self._walk_learning(chain, plan)
        elif chain.light:
            self._walk_light(chain)
        elif chain.size:
            self.run = FilterRun(self, chain, self.downstream.owner.buffer_limit)
            self.run.request_headers(self.request)
        else:
            self.route_request()

    def _walk_light(self, chain: FilterChain) -> None:
        """Through filters that look at nothing but the head."""
        request = self.request
        for position, one, hook in chain.light:
            status = hook(one, self, request)
            if status is not _CONTINUE or self.response is not None:
                self._stopped(chain, position, status)
                return
        self.route_request()

    def _stopped(self, chain: FilterChain, position: int, status: FilterStatus) -> None:
        """By a filter of a light chain."""
        if not self.done and self.response is None:  # it has not answered: it will let the request go on later
            self.run = FilterRun(self, chain, self.downstream.owner.buffer_limit)
            self.run.stopped(position, self.request, status)

    def _walk_learning(self, chain: FilterChain, plan: RequestPlan) -> None:
        """The same with a head that came before: perhaps the filters need not look at it again."""
        plan.rest = REST
        request = self.request
        request_id = request.headers.first.get(b"x-request-id")
        before = (request.method, request.scheme, request.authority, request.path, self.remote_address, self.is_internal)
        learnt: list[Repetition] = []
        for position, one, _ in chain.light:
            status, repetition = one.learn(self, request)
            if status is not _CONTINUE or self.response is not None:
                self._stopped(chain, position, status)
                return
            if repetition is not None:
                learnt.append(repetition)
        plans = self.manager.plans
        if (
            len(learnt) == len(chain.light)
            and before == (request.method, request.scheme, request.authority, request.path, self.remote_address, self.is_internal)
            and request.headers.first.get(b"x-request-id") is request_id
            and (request_id is None or list(request.headers.first.values()).count(request_id) == 1)  # what came of it is known
            and request.headers.more is None
            and self.filter_state is None
            and not self.flags
            and not self.details
        ):
            plans.learner = self
            plans.learnt = tuple(learnt)
        try:
            self.route_request()
        finally:
            plans.learner = None
            plans.learnt = ()

    def _filter_as_planned(self, plan: RequestPlan, beyond: RequestPlan, chains: FilterChains) -> bool:
        """Let the filters repeat what they did to equal heads, of which the head that goes on is there already. False when they
        have run instead."""
        if beyond is plan:
            if plan.rest:
                plan.rest -= 1
            self.planned = plan
            self._start_filters(chains, plan)
            return False
        for holds in beyond.holds:
            if not holds(self):
                self._forget_beyond(plan)
                self.planned = plan
                self._start_filters(chains, plan)
                return False
        for act in beyond.acts:
            act(self)
        self.labels = beyond.labels
        if beyond.metadata is not None:
            self.dynamic_metadata = beyond.metadata.copy()
        return True

    def _forget_beyond(self, plan: RequestPlan) -> None:
        """Something is no longer as it was: back to the head and the route before the filters."""
        plan.beyond = None
        plan.rest = REST
        headers = self.request.headers
        request_id = headers.first.get(b"x-request-id")
        headers.first = plan.first.copy()
        if request_id is not None:
            headers.first[b"x-request-id"] = request_id
        route = self.route = plan.route
        self.route_name = route.name
        self.virtual_host_name = route.virtual_host_name

    def local_reply_headers(self, event: ResponseHeaders) -> None:
        """A filter's answer is logged with the cluster that the route would have sent the request to, as by Envoy."""
        if self.manager.filter_chains is not None and not self.cluster_name and self.route is not None:
            name = self.target_cluster()
            if self.manager.context.clusters.get(name) is not None:
                self.cluster_name = name
        super().local_reply_headers(event)

    # -- copies for other clusters

    def mirror_request(self, policies: tuple[MirrorPolicyConfig, ...]) -> None:
        """Send copies as the route asks."""
        request = self.request
        if request.protocol or request.method == b"CONNECT":
            return
        context = self.manager.context
        runtime = context.runtime
        self._shadows = shadows_of(
            policies,
            request,
            context,
            lambda fraction: compile_fraction(fraction, runtime)(),
            self.timeout_s,
            self.downstream.owner.buffer_limit,
        )

    # -- what filters may ask (`mesh_filters.filter.Stream`)

    def continue_request(self, who: Filter | None = None) -> None:
        """A filter lets the request go on."""
        if self.run is not None:
            self.run.resume_request(who)
            self.manager.context.flush()

    def continue_response(self, who: Filter | None = None) -> None:
        """A filter lets the response go on."""
        if self.run is not None:
            self.run.resume_response(who)
            self.manager.context.flush()

    def add_response_data(self, who: Filter, data: bytes) -> None:
        """A filter makes body of what was none."""
        if self.run is not None:
            self.run.add_response_data(who, data)

    def limit_request_buffer(self, size: int) -> None:
        """How much of the request filters may collect."""
        if self.run is not None:
            self.run.limit_request(size)

    def clear_route(self) -> None:
        """A filter changed the request so that another route may apply."""
        self.route = None
        self.choice = None
        self._route_cleared = True

    def current_route(self) -> Route | None:
        """The route, looked up again if a filter asked for that."""
        if self._route_cleared:
            self._route_cleared = False
            route = self.route = self.manager.route_table.find(self.request, self)
            if route is not None:
                self.route_name = route.name
                self.virtual_host_name = route.virtual_host_name
            return route
        known: Route | None = self.route
        return known

    def per_route_config(self, filter_name: str) -> Any:
        """The filter's configuration of the route, or None."""
        route = self.current_route()
        if route is None:
            return None
        per_filter = route.per_filter_config if self.choice is None else self.choice.per_filter_config
        found = per_filter.get(filter_name)
        return None if isinstance(found, FilterSwitch) else found

    def per_route_configs(self, filter_name: str) -> list[Any]:
        """The filter's configurations of table, virtual host, route and weighted cluster."""
        route = self.current_route()
        if route is None:
            return []
        levels = route.filter_levels if self.choice is None else (*route.filter_levels, self.choice.config.per_filter_config)
        found = [level[filter_name] for level in levels if filter_name in level]
        return [one for one in found if not isinstance(one, FilterSwitch)]

    def route_metadata(self) -> Any:
        """The route's own metadata."""
        route = self.current_route()
        return {} if route is None else route.config.metadata

    def rate_limits(self, vh_rate_limits: str) -> list[Any]:
        """What route and virtual host say of rate limits."""
        route = self.current_route()
        if route is None:
            return []
        own = route.action.rate_limits if route.action is not None else ()
        if own and vh_rate_limits != "INCLUDE" and not (route.action is not None and route.action.include_vh_rate_limits):
            return list(own)
        return [*own, *(route.host_rate_limits if vh_rate_limits != "IGNORE" else ())]

    def argument(self, index: int, fields: Sequence[str]) -> bytes | None:
        """There are none."""
        return None

    def target_cluster(self) -> str:
        """The cluster that the route sends the request to."""
        route = self.current_route()
        if self.choice is None and route is not None:
            self.choice = route.select(self.request, self)
        return "" if self.choice is None else self.choice.name

    def use_cluster(self, name: str) -> None:
        """A filter sends the request to another cluster than its route."""
        if self.target_cluster():
            assert self.choice is not None
            self.choice = self.choice.named(name)

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A filter waits for something; what it sends when that has come is flushed."""
        task = create_task(work, name=name)
        task.add_done_callback(self._flush_after)
        return task

    def _flush_after(self, task: asyncio.Task[None]) -> None:
        self.manager.context.flush()

    # -- what the walk through the filters asks (`filter_run.Owner`)

    def hold_request(self, on: bool) -> None:
        """Too much of the request lines up before a filter, or no longer."""
        if on:
            self.downstream.pause_reading(self)
        else:
            self.downstream.resume_reading(self)

    def hold_response(self, on: bool) -> None:
        """Too much of the response lines up before a filter, or no longer. A handle that is done has no pause left."""
        handle = self.handle
        if handle is not None:
            if on:
                handle.pause_reading()
            else:
                handle.resume_reading()

    def request_too_large(self) -> None:
        """A filter wanted to collect more than it may."""
        self.manager.stats.downstream_rq_too_large += 1
        self.send_local_reply(413, b"Payload Too Large", details="request_payload_too_large")

    def response_too_large(self) -> None:
        """A filter wanted to collect more than it may."""
        self.manager.stats.rs_too_large += 1
        self.send_local_reply(502, b"Response Payload Too Large", details="response_payload_too_large")
