"""The HTTP connection manager's configuration, compiled once per filter chain for all its connections."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.http1 import Http1Settings, UnderscoreAction
from mesh_codecs.http2 import Http2Engine, new_codec
from mesh_codecs.native import mypyc_attr
from mesh_proxy.access_log import AccessLogger
from mesh_proxy.config.model import ClusterActionConfig, RouteTableConfig
from mesh_proxy.network import request_headers
from mesh_proxy.network.client_cert import client_cert_header
from mesh_proxy.network.filter_context import compile_filters
from mesh_proxy.network.hosts import host_normalizer
from mesh_proxy.network.http2_settings import downstream_settings
from mesh_proxy.routing import RouteTable
from mesh_proxy.stats.group import sanitize
from mesh_proxy.stats.groups import HttpStats, ListenerHttpStats
from mesh_proxy.stream.request_plan import RequestPlans
from mesh_proxy.worker.route_tables import RouteUser

if TYPE_CHECKING:
    from mesh_proxy.access_log import SinkSet
    from mesh_proxy.config.model import HttpManagerConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.deadlines import DeadlineQueue

ANY_IDLE_S: Final = 300.0
"""Where streams may be idle for ever, and the next version of the route table may say otherwise: how often it is looked."""


@mypyc_attr(allow_interpreted_subclasses=True)  # so its `__new__` does not call `__init__`: mesh_proxy.explain.scratch copies it
class HttpManager:
    """Shared by every connection of one filter chain."""

    __slots__ = (
        "access_loggers",
        "alpn",
        "client_cert",
        "config",
        "connection_queues",
        "context",
        "filter_chains",
        "force_request_id",
        "head_queue",
        "http1_settings",
        "http2_settings",
        "idle_queue",
        "internal_networks",
        "listener_stats",
        "local_ip",
        "max_duration_queue",
        "normalize_host",
        "overwrite_server",
        "pass_server",
        "plain",
        "plain_http1",
        "plans",
        "request_queue",
        "require_path_checks",
        "returns_request_id",
        "route_table",
        "route_user",
        "scheme_overwrite",
        "server_name",
        "stats",
        "stream_idle_queues",
        "stripped_headers",
        "suppress_envoy_headers",
        "underscores",
        "upgrades",
        "use_remote_address",
        "via",
        "watches_underscores",
    )

    def __init__(self, config: HttpManagerConfig, context: WorkerContext, sinks: SinkSet, listener_prefix: str) -> None:
        self.config = config
        self.context = context
        registry = context.registry
        prefix = sanitize(config.stat_prefix)
        self.stats = registry.get(HttpStats, f"http.{prefix}.")
        self.listener_stats = registry.get(ListenerHttpStats, f"{listener_prefix}http.{prefix}.")
        self.access_loggers = tuple(AccessLogger(log, sinks, context.runtime) for log in config.access_logs)
        self.filter_chains = compile_filters(config.filters, context, f"http.{prefix}.")
        """None when the router stands alone"""
        overrides = dict(config.alpn_overrides)
        # What HTTP/1.0 callers ask for goes on as HTTP/1.1.
        self.alpn = {"http1": overrides.get("HTTP11", ()), "http2": overrides.get("HTTP2", ())} if overrides else None
        """what TLS offers to endpoints, by the kind of pool; None: what their clusters say"""
        self.server_name = config.server_name.encode()
        self.overwrite_server = config.server_header_transformation == "OVERWRITE"
        self.pass_server = config.server_header_transformation == "PASS_THROUGH"
        self.use_remote_address = config.use_remote_address
        self.force_request_id = config.use_remote_address and not config.preserve_external_request_id
        self.internal_networks = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in config.internal_cidr_ranges)
        self.scheme_overwrite = config.scheme_to_overwrite.encode()
        self.client_cert = client_cert_header(config.forward_client_cert_details, config.set_current_client_cert_details)
        """None: x-forwarded-client-cert passes as it is"""
        self.via = config.via.encode()
        self.returns_request_id = config.always_set_request_id_in_response
        usual = not (config.max_stream_duration_s or config.max_requests_per_connection or self.via or self.returns_request_id)
        self.plain = usual and not self.access_loggers
        """beside filters nobody looks at requests and responses that are as always: `mesh_proxy.stream.planned_http2`"""
        self.plain_http1 = usual and all([logger.answerable for logger in self.access_loggers])
        """or access logs do that can say of them what they are to say: `mesh_proxy.stream.planned_stream`"""
        self.suppress_envoy_headers = config.router.suppress_envoy_headers
        self.local_ip = context.local_ip
        self.upgrades = {upgrade.upgrade_type.lower().encode(): upgrade.enabled for upgrade in config.upgrades}
        self.normalize_host = host_normalizer(config)
        self.require_path_checks = (
            config.normalize_path or config.merge_slashes or config.path_with_escaped_slashes_action != "KEEP_UNCHANGED"
        )
        table = config.route_table
        self.route_user = RouteUser(self)
        if config.rds is not None:  # what did not come in time has no routes
            table = context.route_tables.enter(self.route_user, config.rds) or RouteTableConfig(name=config.rds.name)
        assert table is not None
        self.stream_idle_queues: tuple[DeadlineQueue, ...] = ()
        self.connection_queues: tuple[DeadlineQueue, ...] = ()
        """what every connection is entered into"""
        self._make_queues(config)
        self.take_routes(self.compile_routes(table))
        self.underscores = UnderscoreAction(config.headers_with_underscores_action)
        self.watches_underscores = self.underscores is not UnderscoreAction.ALLOW
        http1 = config.http1
        self.http1_settings = Http1Settings(
            max_head_bytes=config.max_request_headers_kb * 1024,
            max_header_count=config.max_headers_count,
            accept_http_10=http1.accept_http_10,
            default_host_for_http_10=http1.default_host_for_http_10.encode(),
            allow_absolute_url=http1.allow_absolute_url,
            enable_trailers=http1.enable_trailers,
            headers_with_underscores_action=self.underscores,
            farewell_fields=self._farewell_fields,
        )
        self.http2_settings = downstream_settings(config)

    def compile_routes(self, config: RouteTableConfig) -> RouteTable:
        """A table for `take_routes`. Raises ValueError."""
        suppress = self.config.router.suppress_envoy_headers
        return RouteTable(config, self.context.runtime, suppress_envoy_headers=suppress)

    def take_routes(self, table: RouteTable) -> None:
        """Requests that begin from now on are routed by this table; those in progress keep their routes."""
        self.route_table = table
        if self.filter_chains is not None:
            self.filter_chains.suit(table.configured_filters)
        self.plans = RequestPlans(self)
        internal_only = {name.encode() for name in table.config.internal_only_headers}
        edge = request_headers.EDGE_STRIPPED if self.config.use_remote_address else frozenset()
        self.stripped_headers = request_headers.EXTERNAL_STRIPPED | edge | internal_only
        # A route may ask for a shorter idle time than the manager's: look at the shortest.
        idle = self.config.stream_idle_timeout_s or (ANY_IDLE_S if self.config.rds is not None else None)
        shortest = min((s for s in (idle, _shortest_route_idle(table.config)) if s), default=None)
        if shortest is not None:
            self._look_for_idle_streams(self.context.deadlines.queue("stream idle", shortest))

    def _look_for_idle_streams(self, queue: DeadlineQueue) -> None:
        """Enter the connections into this queue too. Those of earlier tables stay in use: connections are in them."""
        known = self.stream_idle_queues
        if queue in known:
            return
        if known:
            now = monotonic()
            for entry in [entry for entry in known[0].entries if getattr(entry, "manager", None) is self]:
                queue.add(entry, now)
        self.stream_idle_queues = (*known, queue)
        self.connection_queues = (*self.connection_queues, queue)

    def new_http2_codec(self) -> Http2Engine:
        """For one connection, of the engine that was chosen."""
        settings = self.http2_settings
        if settings.keepalive_interval is not None:
            # Not all connections of a moment shall send their PINGs at the same moment.
            stretch = 1 + random() * self.config.http2.keepalive_jitter_percent / 100
            settings = replace(settings, keepalive_interval=settings.keepalive_interval * stretch)
        return new_codec(self.context.codec_engine, downstream=True, settings=settings)

    def _farewell_fields(self) -> bytes:
        """Header lines of the answers that the codec makes itself."""
        fields = b"date: %b\r\n" % self.context.date()
        if not self.pass_server:
            fields += b"server: %b\r\n" % self.server_name
        if self.via:
            fields += b"via: %b\r\n" % self.via
        return fields

    def _make_queues(self, config: HttpManagerConfig) -> None:
        deadlines = self.context.deadlines

        def queue(kind: str, seconds: float | None) -> DeadlineQueue | None:
            return deadlines.queue(kind, seconds) if seconds else None

        self.head_queue = queue("request head", config.request_headers_timeout_s)
        self.request_queue = queue("request", config.request_timeout_s)
        self.max_duration_queue = queue("stream duration", config.max_stream_duration_s)
        self.idle_queue = queue("idle", config.idle_timeout_s)
        duration = queue("connection duration", config.max_connection_duration_s)
        self.connection_queues = tuple(q for q in (self.idle_queue, duration) if q is not None)

    def is_internal(self, address: bytes) -> bool:
        """Whether an address literal lies in the configured internal ranges."""
        ip: Any = ipaddress.ip_address(address.decode())
        return any(ip in network for network in self.internal_networks)


def _shortest_route_idle(table: RouteTableConfig) -> float | None:
    times = (
        route.action.idle_timeout_s
        for host in table.virtual_hosts
        for route in host.routes
        if isinstance(route.action, ClusterActionConfig)
    )
    return min((seconds for seconds in times if seconds), default=None)
