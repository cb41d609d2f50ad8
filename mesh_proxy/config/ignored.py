"""The one list of Envoy fields that we accept and do not act upon, each with the reason why that is safe.

A field belongs here only if leaving it out changes neither which requests pass nor where they go. Everything else that the
translation does not read is refused. Using one of these is logged once and counted.
"""

from __future__ import annotations

from typing import Final

_TUNING = "a tuning knob of Envoy's event loop that has no counterpart here"
_NO_TRACING = "it concerns traces, and none are made"
_RATE_LIMITS = "only a rate limit filter reads it, and there is none in the chain"
_INFORMATION = "information for people; nothing acts upon it"

IGNORED: Final[dict[str, str]] = {
    # Bootstrap.
    "envoy.config.core.v3.Node.user_agent_name": "the proxy announces its own name",
    "envoy.config.core.v3.Node.user_agent_version": "the proxy announces its own version",
    "envoy.config.core.v3.Node.user_agent_build_version": "the proxy announces its own version",
    "envoy.config.core.v3.Node.client_features": "the proxy announces its own features",
    "envoy.config.core.v3.Node.extensions": "the proxy announces its own extensions",
    "envoy.config.bootstrap.v3.Bootstrap.watchdog": "stuck workers are always found and replaced by the supervisor",
    "envoy.config.bootstrap.v3.Bootstrap.watchdogs": "stuck workers are always found and replaced by the supervisor",
    "envoy.config.bootstrap.v3.Bootstrap.enable_dispatcher_stats": _TUNING,
    "envoy.config.bootstrap.v3.Bootstrap.memory_allocator_manager": _TUNING,
    "envoy.config.bootstrap.v3.Bootstrap.flags_path": "a file that only Envoy's runtime reads",
    "envoy.config.bootstrap.v3.Bootstrap.default_socket_interface": "there is one socket interface, the operating system's",
    "envoy.config.bootstrap.v3.Admin.profile_path": "there is no CPU profiler to write there",
    # Listeners.
    "envoy.config.listener.v3.Listener.metadata": _INFORMATION,
    "envoy.config.listener.v3.Listener.connection_balance_config": "the kernel spreads connections over the workers' sockets",
    "envoy.config.listener.v3.Listener.reuse_port": "deprecated; enable_reuse_port decides, which is on by default",
    "envoy.config.listener.v3.Listener.max_connections_to_accept_per_socket_event": _TUNING,
    "envoy.config.listener.v3.Listener.bypass_overload_manager": "there is no overload manager to bypass",
    "envoy.config.listener.v3.FilterChain.metadata": _INFORMATION,
    # HTTP connection manager.
    "envoy.config.core.v3.Http1ProtocolOptions.use_balsa_parser": "it chooses between two parsers of Envoy",
    "envoy.config.core.v3.Http2ProtocolOptions.use_oghttp2_codec": "it chooses between two codecs of Envoy",
    "envoy.extensions.filters.http.router.v3.Router.start_child_span": _NO_TRACING,
    # Routes.
    "envoy.config.route.v3.RouteConfiguration.metadata": _INFORMATION,
    "envoy.config.route.v3.VirtualHost.metadata": _INFORMATION,
    "envoy.config.route.v3.VirtualHost.virtual_clusters": "they only add counters, which are not kept",
    "envoy.config.route.v3.VirtualHost.rate_limits": _RATE_LIMITS,
    "envoy.config.route.v3.RouteAction.rate_limits": _RATE_LIMITS,
    "envoy.config.route.v3.RouteAction.include_vh_rate_limits": _RATE_LIMITS,
    "envoy.config.route.v3.RouteAction.early_data_policy": "it concerns HTTP/3 and TLS early data, which are never used",
    "envoy.config.route.v3.Decorator.propagate": _NO_TRACING,
    "envoy.config.route.v3.Route.tracing": _NO_TRACING,
    "envoy.config.route.v3.WeightedCluster.total_weight": "deprecated; the sum of the weights counts, as in Envoy",
    "envoy.type.matcher.v3.RegexMatcher.google_re2": "RE2 is the only engine, and its program size is not limited",
    # Clusters and endpoints.
    "envoy.config.cluster.v3.Cluster.track_cluster_stats": "the extra histograms are not kept",
    "envoy.config.cluster.v3.Cluster.track_timeout_budgets": "the extra histograms are not kept",
    "envoy.config.cluster.v3.Cluster.preconnect_policy": "connections are opened when they are needed",
    "envoy.config.cluster.v3.Cluster.use_tcp_for_dns_lookups": "TCP is used when an answer does not fit into UDP",
    "envoy.config.cluster.v3.Cluster.CommonLbConfig.update_merge_window": "an update is one message, whatever it holds",
    "envoy.config.cluster.v3.Cluster.CommonLbConfig.zone_aware_lb_config": "without a local cluster Envoy ignores it too",
    "envoy.config.cluster.v3.CircuitBreakers.Thresholds.max_connection_pools": "an endpoint has one pool for each source",
    "envoy.config.cluster.v3.UpstreamConnectionOptions.happy_eyeballs_config": "addresses are tried in the resolver's order",
    "envoy.config.endpoint.v3.LocalityLbEndpoints.proximity": "Envoy ignores it too",
    "envoy.config.endpoint.v3.LocalityLbEndpoints.metadata": _INFORMATION,
    "envoy.config.core.v3.HealthCheck.always_log_health_check_failures": "there is no event log",
    "envoy.config.core.v3.HealthCheck.always_log_health_check_success": "there is no event log",
    "envoy.config.core.v3.Metadata.typed_filter_metadata": "no filter here reads it",
}
"""`<message>.<field>` → reason"""
