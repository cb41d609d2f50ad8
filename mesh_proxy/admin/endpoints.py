"""The table of endpoints, and who may call what.

A page in a browser must not be able to steer the proxy of the machine that it is viewed on. A foreign page may send a form
here (CSRF): a POST with an `Origin` other than our own address is refused. It may also give its own name our address (DNS
rebinding), and then it is the same origin: so a request whose `Host` is a name, not an IP literal or `localhost`, is refused,
except for the paths that probes and scrapers read. Programs send no Origin and an address as Host, and notice nothing.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mesh_proxy.admin import (
    certs,
    clusters,
    config_digest,
    config_dump,
    control,
    index,
    interception,
    logging_levels,
    route_explain,
    server_info,
    stats,
)
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

_log = logging.getLogger("admin")

Handler = Callable[["Supervisor", AdminRequest], AdminResponse | Awaitable[AdminResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One path."""

    path: str
    handler: Handler
    help: str
    mutates: bool = False
    """POST only"""
    any_host: bool = False
    """may be read under any name"""
    params: tuple[tuple[str, str], ...] = ()
    """(name, help) of its query parameters"""


_REGEX = "regular expression (RE2)"
_STATS_PARAMS = (
    ("usedonly", "only what was written since the start"),
    ("filter", f"{_REGEX}: only names in which it is found"),
    ("invert_filter", "only names in which the filter is not found"),
)

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(path="/", handler=lambda s, r: index.page(s, ENDPOINTS), help="this page"),
    Endpoint(path="/certs", handler=certs.certs, help="certificates that are loaded"),
    Endpoint(
        path="/clusters",
        handler=clusters.clusters,
        help="clusters, their endpoints and what became of requests to them",
        params=(("format", "text or json"), ("filter", f"{_REGEX} for names of clusters")),
    ),
    Endpoint(
        path="/config_digest",
        handler=config_digest.config_digest,
        help="a digest of every resource that is applied, and of all",
        params=(("summary", "without the single resources"),),
    ),
    Endpoint(
        path="/config_dump",
        handler=config_dump.config_dump,
        help="the configuration as it is loaded, secrets left out",
        params=(
            ("resource", "only this list, e.g. static_clusters"),
            ("mask", "only these fields, e.g. bootstrap.node"),
            ("name_regex", f"{_REGEX} for names of resources"),
            ("include_eds", "with endpoints"),
        ),
    ),
    Endpoint(
        path="/drain_listeners",
        handler=control.drain_listeners,
        help="drain listeners",
        mutates=True,
        params=(
            ("graceful", "close the listeners only after the drain time"),
            ("skip_exit", "drain connections but never close the listeners"),
            ("inboundonly", "only listeners whose traffic_direction is INBOUND"),
        ),
    ),
    Endpoint(path="/healthcheck/fail", handler=control.healthcheck_fail, help="fail health checks from now on", mutates=True),
    Endpoint(path="/healthcheck/ok", handler=control.healthcheck_ok, help="pass health checks again", mutates=True),
    Endpoint(path="/help", handler=lambda s, r: text(help_text()), help="this list as text"),
    Endpoint(path="/hot_restart_version", handler=server_info.hot_restart_version, help="version of the hot restart protocol"),
    Endpoint(path="/init_dump", handler=server_info.init_dump, help="what the start still waits for"),
    Endpoint(
        path="/intercept",
        handler=interception.intercept,
        help="open or close interception, by the flags that the environment holds",
        mutates=True,
        params=(
            ("state", "on or off"),
            ("timeout", "off: seconds that callers have to leave"),
            ("cut", "off: then end the connections that are left"),
        ),
    ),
    Endpoint(path="/intercepted", handler=interception.intercepted, help="how many connections were redirected here"),
    Endpoint(
        path="/drain_intercepted",
        handler=interception.drain_intercepted,
        help="ask connections that were redirected here to leave",
        mutates=True,
        params=(("cut", "end them now"),),
    ),
    Endpoint(
        path="/listeners",
        handler=server_info.listeners,
        help="listeners and their addresses",
        params=(("format", "text or json"),),
    ),
    Endpoint(
        path="/logging",
        handler=logging_levels.logging_levels,
        help="show or change log levels",
        mutates=True,
        params=(
            ("level", "new level of every component"),
            ("paths", "levels by component: upstream:debug,http:info"),
            ("<component>", "new level of one component"),
        ),
    ),
    Endpoint(
        path="/memory",
        handler=server_info.memory,
        help="memory of all processes",
        params=(("by_process", "also each process by itself"),),
    ),
    Endpoint(path="/quitquitquit", handler=control.quitquitquit, help="stop at once", mutates=True),
    Endpoint(path="/ready", handler=server_info.ready, help="the state; 200 if LIVE, otherwise 503", any_host=True),
    Endpoint(path="/reopen_logs", handler=control.reopen_logs, help="reopen log files", mutates=True),
    Endpoint(path="/reset_counters", handler=control.reset_counters, help="set every counter to zero", mutates=True),
    Endpoint(
        path="/route_explain",
        handler=route_explain.route_explain,
        help="which way a described request would go, and why (description in the query, or as JSON in a POST)",
        params=(
            ("listener", "name of the listener; default: the first that speaks the protocol"),
            ("protocol", "http, grpc, triple or dubbo"),
            ("authority, path, method", "of an HTTP request"),
            ("service, method, group, version", "of a call"),
            ("header.<name>, attachment.<name>", "one header or attachment"),
            ("source.address, source.identity", "of the caller"),
            ("format", "json or text"),
        ),
    ),
    Endpoint(path="/runtime", handler=server_info.runtime, help="runtime values"),
    Endpoint(
        path="/runtime_modify",
        handler=control.runtime_modify,
        help="override runtime values (needs an admin layer)",
        mutates=True,
    ),
    Endpoint(path="/server_info", handler=server_info.server_info, help="version, state and command line"),
    Endpoint(
        path="/stats",
        handler=stats.stats,
        help="statistics",
        any_host=True,
        params=(
            *_STATS_PARAMS,
            ("format", "text, json or prometheus"),
            ("type", "All, Counters, Gauges, Histograms or TextReadouts"),
            ("histogram_buckets", "summary, cumulative, disjoint or detailed"),
        ),
    ),
    Endpoint(
        path="/stats/prometheus",
        handler=stats.prometheus,
        help="statistics for Prometheus",
        any_host=True,
        params=_STATS_PARAMS,
    ),
)
_BY_PATH: Final = {endpoint.path: endpoint for endpoint in ENDPOINTS}


def help_text() -> str:
    """What /help says."""
    lines = ["admin commands are:"]
    for endpoint in ENDPOINTS:
        lines.append(f"  {endpoint.path}{' (POST)' if endpoint.mutates else ''}: {endpoint.help}")
        lines += [f"      {name}: {meaning}" for name, meaning in endpoint.params]
    return "\n".join(lines) + "\n"


def host_name(host: str) -> str:
    """The name or address of a `Host` header or an origin, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_address_or_localhost(name: str) -> bool:
    """Names that nobody else can make point at us."""
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(request: AdminRequest, endpoint: Endpoint) -> AdminResponse | None:
    """Why a request is not served, if so."""
    if endpoint.mutates and request.method != "POST":
        _log.error('admin path "%s" mutates state, method=%s rather than POST', request.path, request.method)
        return text(f"Method {request.method} not allowed, POST required.", 405)
    if not endpoint.any_host and not is_address_or_localhost(host_name(request.host.lower())):
        return text(f"Host {request.host!r} is a name: ask by address or as localhost.\n", 403)
    if request.method == "POST" and request.origin is not None and request.origin.partition("://")[2] != request.host:
        return text(f"Origin {request.origin!r} is not this address.\n", 403)
    return None


async def answer(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Find the endpoint and let it answer."""
    endpoint = _BY_PATH.get(request.path)
    if endpoint is None:
        return text(f"invalid path. {help_text()}", 404)
    refused = refusal(request, endpoint)
    if refused is not None:
        return refused
    found = endpoint.handler(supervisor, request)
    response = found if isinstance(found, AdminResponse) else await found
    if endpoint.mutates and response.then is None:
        await supervisor.settled()
    return response
