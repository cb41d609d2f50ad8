"""The Dubbo manager, its routes, and how clusters speak Dubbo.

Envoy's `envoy.extensions.filters.network.dubbo_proxy.v3`, and beyond it three mappings of ours, each a TypedStruct:
`mesh_proxy.dubbo.v1.ManagerOptions` (an entry of `dubbo_filters`), `mesh_proxy.dubbo.v1.RouteOptions` (in a route's
`metadata_match.typed_filter_metadata`) and `mesh_proxy.dubbo.v1.ClusterOptions` (in a cluster's
`typed_extension_protocol_options`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh_codecs.dubbo.body import MAX_VALUES
from mesh_proxy.config.model.common import AccessLogConfig, HeaderMatcherConfig, StringMatcherConfig
from mesh_proxy.config.model.http import HttpFilterConfig
from mesh_proxy.config.model.route import MirrorPolicyConfig, WeightedClusterConfig
from mesh_proxy.config.model.source import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboParameterMatchConfig:
    """`MethodMatch.ParameterMatchSpecifier`: a condition on one argument."""

    index: int
    """which argument, counted from 0"""
    exact: str | None = None
    """the argument as text; None: a range is given"""
    range_start: int = 0
    """inclusive"""
    range_end: int = 0
    """exclusive"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboRouteOptions:
    """What happens to the calls of a route (`mesh_proxy.dubbo.v1.RouteOptions`)."""

    timeout_s: float | None = None
    """the whole call, retries included; None = no limit of ours"""
    use_request_timeout: bool = False
    """the call's own time-out, attachment `_TO` or `timeout` in milliseconds, counts as well: the smaller one wins"""
    per_try_timeout_s: float | None = None
    """one attempt; None = the rest of the whole time"""
    retries: int = 0
    """attempts after the first"""
    retry_on_connect_failure: bool = False
    """a call that reached no endpoint is tried again; it was never sent, so that is safe for every method"""
    retry_on_statuses: tuple[int, ...] = ()
    """response statuses that are tried again, e.g. 100 (SERVER_THREADPOOL_EXHAUSTED_ERROR)"""
    retry_on_reset: bool = False
    """a call whose connection broke after it was sent is tried again: the provider may have run it already"""
    mirrors: tuple[MirrorPolicyConfig, ...] = ()
    """clusters that get a copy of the call, whose answer nobody waits for"""
    fallback_cluster: str = ""
    """takes the call when the route's cluster does not exist or has no healthy endpoint"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboRoute:
    """One `Route`: conditions, and the clusters for what meets them."""

    name: str = ""
    """for logs: `<name of the route configuration>[<index>]`"""
    method: StringMatcherConfig | None = None
    """of a generic call, the method that it really calls; None = any"""
    parameters: tuple[DubboParameterMatchConfig, ...] = ()
    headers: tuple[HeaderMatcherConfig, ...] = ()
    """conditions on attachments; names are lower-case, as in Envoy"""
    clusters: tuple[WeightedClusterConfig, ...] = ()
    """one for `cluster`, several for `weighted_clusters`"""
    metadata_match: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """filter_metadata; `envoy.lb` is what endpoints must have"""
    options: DubboRouteOptions = DubboRouteOptions()
    own_options: bool = True
    """False: those of the manager count, which a file of routes does not know"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboRouteConfig:
    """`RouteConfiguration`: the routes of one interface."""

    name: str = ""
    interface: str = ""
    """exact, `prefix*`, `*suffix` or `*`"""
    group: str = ""
    """empty = any"""
    version: str = ""
    """empty = any"""
    routes: tuple[DubboRoute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboRoutesConfig:
    """`MultipleRouteConfiguration`: the routes of a manager that come apart from it."""

    name: str
    routes: tuple[DubboRouteConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboProxyConfig:
    """`DubboProxy` and the ManagerOptions among its filters."""

    stat_prefix: str
    routes: tuple[DubboRouteConfig, ...] = ()
    """in configured order; the first one that matches wins"""
    drds: Reference | None = None
    """where the routes come from instead"""
    filters: tuple[HttpFilterConfig, ...] = ()
    """those before the router, in order: filters of HTTP, which see calls as streams"""
    default_options: DubboRouteOptions = DubboRouteOptions()
    """for calls in a serialization that nobody can read, when `opaque_cluster` takes them"""
    opaque_cluster: str = ""
    """takes the calls whose service cannot be read; empty = the first route that asks for nothing but `*`"""
    access_logs: tuple[AccessLogConfig, ...] = ()
    idle_timeout_s: float | None = 3600.0
    """a downstream connection without a byte for so long is closed; None = never"""
    heartbeat_interval_s: float | None = None
    """heartbeats that we originate to consumers which are silent for so long; None = none, they send their own"""
    max_body_bytes: int = 8 * 1024 * 1024
    """of a request; a larger one is answered and stepped over"""
    max_search_values: int = MAX_VALUES
    """of a request: attachments behind more values than these count as absent (see `routing.dubbo`)"""
    forward_client_cert_details: str = ""
    """what becomes of the attachment x-forwarded-client-cert, in the words of HTTP's manager; empty: it is left alone"""
    set_current_client_cert_details: tuple[str, ...] = ()
    """what it says of a peer besides `By` and `Hash`"""


class DubboPinning(enum.Enum):
    """Whether a downstream connection has upstream connections of its own."""

    AUTO = "AUTO"
    """from the first call with a callback argument on"""
    ALWAYS = "ALWAYS"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class DubboClusterConfig:
    """How a cluster is called by Dubbo (`mesh_proxy.dubbo.v1.ClusterOptions`)."""

    connections_per_endpoint: int = 1
    """of each worker; calls are spread over them"""
    heartbeat_interval_s: float | None = 60.0
    """an upstream connection that was silent for so long gets a heartbeat; None = never. Providers close at 180 s"""
    heartbeat_timeout_s: float = 180.0
    """a connection that did not answer for so long is closed"""
    idle_timeout_s: float | None = None
    """a connection without a call for so long is closed; None = kept alive by heartbeats"""
    pinning: DubboPinning = DubboPinning.AUTO
    max_body_bytes: int = 8 * 1024 * 1024
    """of a response; a larger one becomes an error for its call"""
