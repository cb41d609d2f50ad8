"""Short ways to write route tables and requests in tests."""

from __future__ import annotations

from typing import Any

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model.common import (
    HeaderMatcherConfig,
    HeaderMatchKind,
    HeaderMutationConfig,
    HeaderValueOptionConfig,
    StringMatcherConfig,
    StringMatchKind,
)
from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    PathMatchKind,
    RouteConfig,
    RouteMatchConfig,
    RouteTableConfig,
    VirtualHostConfig,
    WeightedClusterConfig,
)
from mesh_proxy.routing import RouteTable
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo


def request(path: str = "/", authority: str = "a.example", method: str = "GET", **headers: str) -> RequestHeaders:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return RequestHeaders(1, method.encode(), b"http", authority.encode(), path.encode(), Headers(pairs), True)


def response(status: int = 200, **headers: str) -> ResponseHeaders:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return ResponseHeaders(1, status, Headers(pairs), True)


def info_of(request: RequestHeaders | None = None) -> StreamInfo:
    info = StreamInfo(ConnectionInfo(1, 0.0, 0.0), 0.0)
    info.request = request
    return info


def forward(*names: str, **fields: Any) -> ClusterActionConfig:
    return ClusterActionConfig(clusters=tuple(WeightedClusterConfig(name=name) for name in names), **fields)


def has_header(name: str, value: str, **fields: Any) -> HeaderMatcherConfig:
    string = StringMatcherConfig(kind=StringMatchKind.EXACT, value=value)
    return HeaderMatcherConfig(name=name, kind=HeaderMatchKind.STRING, string=string, **fields)


def adds(*options: tuple[str, str] | tuple[str, str, str], remove: tuple[str, ...] = (), **fields: Any) -> HeaderMutationConfig:
    """(name, value[, action]) each."""
    configs = (
        HeaderValueOptionConfig(name=o[0], value=o[1], action=o[2] if len(o) > 2 else "APPEND_IF_EXISTS_OR_ADD", **fields)
        for o in options
    )
    return HeaderMutationConfig(add=tuple(configs), remove=remove)


def route(kind: str, path: str, name: str = "", action: Any = None, **fields: Any) -> RouteConfig:
    """`headers`, `query_parameters`, `case_sensitive` … go to the match, the rest to the route."""
    in_match = {key: fields.pop(key) for key in list(fields) if key in RouteMatchConfig.__dataclass_fields__}
    match = RouteMatchConfig(kind=PathMatchKind[kind], path=path, **in_match)
    return RouteConfig(match=match, action=action or forward(name or path), name=name or path, **fields)


def host(*routes: RouteConfig, domains: tuple[str, ...] = ("*",), name: str = "host", **fields: Any) -> VirtualHostConfig:
    return VirtualHostConfig(name=name, domains=domains, routes=routes, **fields)


def table(*hosts: VirtualHostConfig, runtime: dict[str, Any] | None = None, suppress: bool = False, **fields: Any) -> RouteTable:
    config = RouteTableConfig(name="table", virtual_hosts=hosts, **fields)
    return RouteTable(config, runtime or {}, suppress_envoy_headers=suppress)


def found(routes: RouteTable, sent: RequestHeaders) -> str | None:
    """The name of the route that a request takes."""
    result = routes.find(sent, info_of(sent))
    return None if result is None else result.name
