"""The Dubbo manager's configuration, compiled once per filter chain for all its connections."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from mesh_codecs.dubbo import HeadMemo
from mesh_codecs.native import mypyc_attr
from mesh_proxy.access_log import AccessLogger
from mesh_proxy.config.model.dubbo import DubboRoutesConfig
from mesh_proxy.network.client_cert import client_cert_header
from mesh_proxy.network.filter_context import compile_filters
from mesh_proxy.routing.dubbo import DubboRouteTable
from mesh_proxy.stats.dubbo_group import DubboStats
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stream.dubbo_call import PLAIN
from mesh_proxy.stream.dubbo_plan import DubboPlans
from mesh_proxy.worker.route_tables import RouteUser

if TYPE_CHECKING:
    from mesh_proxy.access_log import SinkSet
    from mesh_proxy.config.model.dubbo import DubboProxyConfig, DubboRoute
    from mesh_proxy.context import WorkerContext

FRAME_TIMEOUT_S: Final = 120.0
"""A consumer that begins a frame must end it within that time, or it keeps its part in our memory for ever. 8 MiB in this time
are 70 kB a second."""
WRITE_STALL_S: Final = 60.0
"""A consumer that takes nothing of what waits for it for so long is given up."""


@mypyc_attr(allow_interpreted_subclasses=True)  # so its `__new__` does not call `__init__`: mesh_proxy.explain.scratch copies it
class DubboManager:
    """Shared by every connection of one filter chain."""

    __slots__ = (
        "access_loggers",
        "client_cert",
        "clusters",
        "config",
        "connection_queues",
        "context",
        "filter_chains",
        "frame_queue",
        "heartbeat_queue",
        "idle_queue",
        "memo",
        "now",
        "plans",
        "route_user",
        "routes",
        "stats",
        "unsent",
        "watched",
        "write_stall_queue",
    )

    def __init__(self, config: DubboProxyConfig, context: WorkerContext, sinks: SinkSet) -> None:
        self.config = config = _with_plain_options(config)
        self.context = context
        self.clusters = context.clusters
        self.now = monotonic
        self.stats = context.registry.get(DubboStats, f"dubbo.{sanitize(config.stat_prefix)}.")
        routes = DubboRoutesConfig(name=config.stat_prefix, routes=config.routes)
        self.route_user = RouteUser(self)
        if config.drds is not None:  # what did not come in time has no routes
            routes = context.route_tables.enter(self.route_user, config.drds) or DubboRoutesConfig(name=config.drds.name)
        self.take_routes(self.compile_routes(routes))
        self.memo = HeadMemo(max_values=config.max_search_values)
        """heads carry plans, which know the table that they are of"""
        self.access_loggers = tuple(AccessLogger(log, sinks, context.runtime) for log in config.access_logs)
        mode = config.forward_client_cert_details
        self.client_cert = client_cert_header(mode, config.set_current_client_cert_details) if mode else None
        self.filter_chains = compile_filters(config.filters, context, self.stats.prefix)
        self.watched = bool(self.access_loggers) or self.filter_chains is not None
        """every call has a DubboStream"""
        self.plans: DubboPlans | None = None
        """of calls that need no DubboStream in the end"""
        if (
            self.filter_chains is not None
            and self.filter_chains.default.light
            and self.filter_chains.default.learns
            and not self.access_loggers
        ):
            self.plans = DubboPlans(self, self.filter_chains.default)
        deadlines = context.deadlines
        idle, heartbeat = config.idle_timeout_s, config.heartbeat_interval_s
        self.idle_queue = deadlines.queue("dubbo idle", idle) if idle else None
        self.heartbeat_queue = deadlines.queue("dubbo heartbeat", heartbeat) if heartbeat else None
        self.frame_queue = deadlines.queue("dubbo frame", FRAME_TIMEOUT_S)
        self.write_stall_queue = deadlines.queue("dubbo write stall", WRITE_STALL_S)
        self.connection_queues = tuple(q for q in (self.idle_queue, self.heartbeat_queue) if q is not None)
        """what every connection is entered into"""
        self.unsent = 0
        """bytes that wait for consumers which do not read, together"""

    def compile_routes(self, config: DubboRoutesConfig) -> DubboRouteTable:
        """A table for `take_routes`. Raises ValueError."""
        return DubboRouteTable.of(_with_plain_options(replace(self.config, routes=config.routes)), self.stats)

    def take_routes(self, table: DubboRouteTable) -> None:
        """Calls that begin from now on are routed by this table."""
        self.routes = table

    def __repr__(self) -> str:
        return f"<DubboManager {self.config.stat_prefix} {self.memo!r}>"


def _with_plain_options(config: DubboProxyConfig) -> DubboProxyConfig:
    """With the options of the manager where a route has none of its own, and with the one object PLAIN where those are empty, so
    that a call sees this by identity."""
    default = PLAIN if config.default_options == PLAIN else config.default_options

    def with_options(route: DubboRoute) -> DubboRoute:
        options = route.options if route.own_options else default
        return replace(route, options=PLAIN if options == PLAIN else options)

    routes = tuple(replace(one, routes=tuple(map(with_options, one.routes))) for one in config.routes)
    return replace(config, routes=routes, default_options=default)
