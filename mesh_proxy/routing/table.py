"""Route tables, compiled: from a request to its route (Envoy: `source/common/router/config_impl.cc`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1.grammar import OWN
from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    PathMatchKind,
    RedirectConfig,
    RouteConfig,
    RouteMatchConfig,
    RouteTableConfig,
    VirtualHostConfig,
)
from mesh_proxy.routing.mutations import HeaderMutation, compile_mutations
from mesh_proxy.routing.narrowing import NARROW_FROM, Candidates, LongCandidates
from mesh_proxy.routing.path_index import PathIndex
from mesh_proxy.routing.route import Route
from mesh_proxy.stream.info import StreamInfo

MEMO_ROOM: Final = 16_384
"""entries plus candidates that all path memos of a table may hold together (about 2 MiB); then they start anew"""
MEMO_PATH_BYTES: Final = 256
"""longer paths and authorities are looked up without a memo: they seldom repeat, and a peer chooses them"""
MEMO_CANDIDATES: Final = 256
"""longer lists of a path's own are not remembered: trying their conditions costs far more than finding them"""
HOST_MEMO_ENTRIES: Final = 4096
PATH_PARAMETER: Final = re.compile(rb";[^/]*")
"""of any segment, not only of the last (RFC 3986, 3.3)"""


class VirtualHost:
    """One virtual host with its routes."""

    __slots__ = ("catch_all", "config", "connect_routes", "https_redirect", "index", "memo", "routes")

    def __init__(self, table: RouteTable, config: VirtualHostConfig, path: str) -> None:
        self.config = config
        self.routes: list[Route] = []
        for order, route in enumerate(config.routes):
            where = f"{path}.routes[{order}]"
            try:
                self.routes.append(Route(table, config, route, order, where))
            except ValueError as error:
                raise ValueError(str(error) if str(error).startswith(path) else f"{where}: {error}") from None
        self.connect_routes = any(route.config.match.kind is PathMatchKind.CONNECT for route in self.routes)
        try:
            self.index = PathIndex(self.routes)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.memo: dict[bytes, Candidates] = {}
        """path without query -> what the index answered"""
        self.https_redirect: Route | None = None
        """where requests without TLS are sent; None if they are welcome"""
        if config.require_tls != "NONE":
            self.https_redirect = _HttpsRedirectRoute(table, config, path)
        self.catch_all: Route | None = None
        """the first route, when no ordinary request can miss it"""
        if self.routes and self.routes[0].conditions is None:
            match = self.routes[0].config.match
            if match.kind is PathMatchKind.PREFIX and match.path in ("", "/"):
                self.catch_all = self.routes[0]

    def __repr__(self) -> str:
        return f"<VirtualHost {self.config.name} routes={len(self.routes)}>"


class _HttpsRedirectRoute(Route):
    """The answer of a virtual host with `require_tls` to a request without TLS: the same URL with another scheme."""

    __slots__ = ()

    def __init__(self, table: RouteTable, host: VirtualHostConfig, path: str) -> None:
        match = RouteMatchConfig(kind=PathMatchKind.PREFIX, path="")
        super().__init__(table, host, RouteConfig(match=match, action=RedirectConfig(https_redirect=True)), -1, path)
        self.mutates_response = False

    def redirect_location(self, request: RequestHeaders, info: StreamInfo) -> bytes:
        return b"https://" + request.authority + request.path

    def finalize_response(self, response: object, info: StreamInfo, choice: object) -> None:
        """Envoy leaves this answer as it is."""


def _singles_out(match: RouteMatchConfig) -> bool:
    """Whether it tells requests apart that are equal but for their ids and traces."""
    return match.runtime_fraction is not None or any(header.name.lower().encode() in OWN for header in match.headers)


def _configured_filters(config: RouteTableConfig) -> Iterator[str]:
    yield from config.per_filter_config
    for host in config.virtual_hosts:
        yield from host.per_filter_config
        for route in host.routes:
            yield from route.per_filter_config
            if isinstance(route.action, ClusterActionConfig):
                for cluster in route.action.clusters:
                    yield from cluster.per_filter_config


class RouteTable:
    """A compiled `RouteConfiguration`.

    Args:
        config: the table.
        runtime: flattened runtime values; read whenever a share of requests is drawn, so that changes take effect at once.
        suppress_envoy_headers: the router's option: no `x-envoy-original-path` and `-host`.

    Raises:
        ValueError: a domain is given twice, or a regular expression, format or header name is not valid; the text names the
            field.
    """

    __slots__ = (
        "_exact",
        "_hosts_memo",
        "_ignore_path_parameters",
        "_ignore_port",
        "_memo_hosts",
        "_memo_room",
        "_only",
        "_prefixes",
        "_shared",
        "_suffixes",
        "_wildcard",
        "config",
        "configured_filters",
        "internal_only_headers",
        "keep_original",
        "name",
        "runtime",
        "steady",
        "virtual_hosts",
    )

    def __init__(self, config: RouteTableConfig, runtime: Mapping[str, Any], *, suppress_envoy_headers: bool = False) -> None:
        self.config = config
        self.name = config.name
        self.runtime = runtime
        self.keep_original = not suppress_envoy_headers
        self.internal_only_headers = tuple(name.encode() for name in config.internal_only_headers)
        self._ignore_port = config.ignore_port_in_host_matching
        self._ignore_path_parameters = config.ignore_path_parameters_in_path_matching
        self._memo_hosts: list[VirtualHost] = []
        self._memo_room = MEMO_ROOM
        self._shared: dict[tuple[int, str], tuple[HeaderMutation, ...]] = {}
        self._exact: dict[bytes, VirtualHost] = {}
        self._suffixes: dict[int, dict[bytes, VirtualHost]] = {}
        self._prefixes: dict[int, dict[bytes, VirtualHost]] = {}
        self._wildcard: VirtualHost | None = None
        self._hosts_memo: dict[bytes, VirtualHost | None] = {}
        self.virtual_hosts: list[VirtualHost] = []
        for index, host_config in enumerate(config.virtual_hosts):
            path = f"virtual_hosts[{index}]"
            host = VirtualHost(self, host_config, path)
            self.virtual_hosts.append(host)
            for domain in host_config.domains:
                self._add_domain(domain, host, path)
        self.steady = not any(_singles_out(route.match) for host in config.virtual_hosts for route in host.routes)
        """requests that are equal but for their ids and traces get the same route: none is drawn by lot"""
        self.configured_filters = frozenset(_configured_filters(config))
        """names of filters to which any route or host says something"""
        self._shared.clear()
        # The longest wildcard wins.
        self._suffixes = dict(sorted(self._suffixes.items(), reverse=True))
        self._prefixes = dict(sorted(self._prefixes.items(), reverse=True))
        self._only: VirtualHost | None = self._only_host()
        """the host of every request, also of one without authority"""

    def _only_host(self) -> VirtualHost | None:
        return self._wildcard if not (self._exact or self._suffixes or self._prefixes) else None

    def _add_domain(self, domain: str, host: VirtualHost, path: str) -> None:
        text = domain.lower().encode()
        if text == b"*":
            if self._wildcard is not None:
                raise ValueError(f"{path}.domains: only one virtual host may have the domain '*'")
            self._wildcard = host
            return
        if text.startswith(b"*"):
            text, table = text[1:], self._suffixes.setdefault(len(text) - 1, {})
        elif text.endswith(b"*"):
            text, table = text[:-1], self._prefixes.setdefault(len(text) - 1, {})
        else:
            table = self._exact
        if text in table:
            raise ValueError(f"{path}.domains: {domain!r} is given twice")
        table[text] = host

    def shared_mutations(self, host: VirtualHostConfig, kind: str) -> tuple[HeaderMutation, ...]:
        """The header mutations of a virtual host and then of the table, compiled once for all its routes."""
        key = (id(host), kind)
        found = self._shared.get(key)
        if found is None:
            levels = [(f"virtual host {host.name!r}: {kind}", getattr(host, kind)), (kind, getattr(self.config, kind))]
            found = self._shared[key] = compile_mutations(levels)
        return found

    def find(self, request: RequestHeaders, info: StreamInfo) -> Route | None:
        """The route for a request; None when no virtual host or no route matches. Changes nothing."""
        host = self._only
        if host is None:
            host = self.virtual_host(request.authority)
            if host is None:
                return None
        if host.https_redirect is not None and self._needs_tls(host, request, info):
            return host.https_redirect
        path = request.path
        if not path or host.connect_routes:
            return self._find_one_by_one(host, request)
        if host.catch_all is not None and path[0] == 47:
            return host.catch_all
        if b"?" in path:
            path = path[: path.find(b"?")]
        if b"#" in path:
            path = path[: path.find(b"#")]
        if self._ignore_path_parameters and b";" in path:
            path = PATH_PARAMETER.sub(b"", path)
        candidates = host.memo.get(path)
        if candidates is None:
            candidates = self._remember(host, path)
        if len(candidates) >= NARROW_FROM and isinstance(candidates, LongCandidates):
            candidates = candidates.narrow(request)
        for route in candidates:
            conditions = route.conditions
            if conditions is None:
                return route
            for condition in conditions:
                if not condition(request):
                    break
            else:
                return route
        return None

    def virtual_host(self, authority: bytes) -> VirtualHost | None:
        """The virtual host for an authority: its exact name, the longest `*suffix`, the longest `prefix*`, then `*`."""
        host = self._exact.get(authority)
        if host is not None and not self._ignore_port:
            return host
        try:
            return self._hosts_memo[authority]
        except KeyError:
            pass
        host = self._match_domain(authority)
        if len(authority) <= MEMO_PATH_BYTES:
            if len(self._hosts_memo) >= HOST_MEMO_ENTRIES:
                self._hosts_memo.clear()
            self._hosts_memo[authority] = host
        return host

    def _match_domain(self, authority: bytes) -> VirtualHost | None:
        if not authority:
            # An empty Host: no name can match it, as with Envoy.
            return self._wildcard
        name = authority.lower()
        if self._ignore_port:
            colon = name.rfind(b":")
            if colon > name.rfind(b"]"):
                name = name[:colon]
        host = self._exact.get(name)
        if host is not None:
            return host
        size = len(name)
        # `*.example.com` does not match `.example.com`: the star stands for at least one character.
        for length, suffixes in self._suffixes.items():
            if length < size and (host := suffixes.get(name[size - length :])) is not None:
                return host
        for length, prefixes in self._prefixes.items():
            if length < size and (host := prefixes.get(name[:length])) is not None:
                return host
        return self._wildcard

    def _needs_tls(self, host: VirtualHost, request: RequestHeaders, info: StreamInfo) -> bool:
        scheme = request.headers.first.get(b"x-forwarded-proto") or request.scheme
        return scheme != b"https" and (host.config.require_tls == "ALL" or not info.is_internal)

    def _remember(self, host: VirtualHost, path: bytes) -> Candidates:
        candidates = host.index.find(path)
        shared = isinstance(candidates, LongCandidates)
        if len(path) <= MEMO_PATH_BYTES and (shared or len(candidates) <= MEMO_CANDIDATES):
            self._memo_room -= 1 if shared else 1 + len(candidates)
            if self._memo_room < 0:
                for other in self._memo_hosts:
                    other.memo.clear()
                self._memo_hosts.clear()
                self._memo_room = MEMO_ROOM
            if not host.memo:
                self._memo_hosts.append(host)
            host.memo[path] = candidates
        return candidates

    def _find_one_by_one(self, host: VirtualHost, request: RequestHeaders) -> Route | None:
        """For CONNECT: routes with a connect_matcher, and path routes if there is a path (extended CONNECT)."""
        path = request.path.partition(b"?")[0].partition(b"#")[0]
        if self._ignore_path_parameters:
            path = PATH_PARAMETER.sub(b"", path)
        by_path = host.index.find(path) if path else ()
        connect = request.method == b"CONNECT" and request.protocol in (b"", b"connect-udp")
        for route in host.routes:
            if route.config.match.kind is PathMatchKind.CONNECT:
                if not connect:
                    continue
            elif route not in by_path:
                continue
            if route.conditions is None or all(condition(request) for condition in route.conditions):
                return route
        return None

    def strip_internal(self, headers: Headers) -> None:
        """Remove `internal_only_headers` from an external request; the connection manager does so before it routes."""
        for name in self.internal_only_headers:
            if name in headers.first:
                headers.remove(name)

    def __repr__(self) -> str:
        return f"<RouteTable {self.name} virtual_hosts={len(self.virtual_hosts)}>"
