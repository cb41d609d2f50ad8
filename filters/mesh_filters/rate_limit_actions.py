"""`RateLimit.Action`s: from a request to descriptors (Envoy: `common/router/router_ratelimit.cc`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh_filters.definition import FilterContext
from mesh_filters.filter import Stream
from mesh_filters.values import query, remote_ip

Entry = tuple[str, str]
Descriptor = tuple[Entry, ...]
Make = Callable[[Stream], "Entry | None"]


class Skip(Exception):
    """An action has nothing to say, and that is in order (`skip_if_absent`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionConfig:
    """One action; which fields count depends on `kind`, which is the name of its field in Envoy's message."""

    kind: str
    key: str = ""
    value: str = ""
    name: str = ""
    """header or query parameter"""
    skip_if_absent: bool = False
    expect_match: bool = True
    matchers: tuple[Any, ...] = ()
    path: tuple[str, ...] = ()
    """keys in dynamic or route metadata"""
    source: str = "DYNAMIC"
    default: str = ""
    v4_bits: int = 32
    v6_bits: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitConfig:
    """`RateLimit`."""

    stage: int = 0
    disable_key: str = ""
    actions: tuple[ActionConfig, ...] = ()
    hits: int = 1
    """`hits_addend.number`: tokens that a request costs"""
    hits_format: str = ""
    """`hits_addend.format`: says it instead"""


class CompiledRateLimit:
    """One descriptor, made anew for each request."""

    __slots__ = ("_format", "_hits", "_makers")

    def __init__(self, config: RateLimitConfig, context: FilterContext) -> None:
        self._makers = tuple(_compile(one, context) for one in config.actions)
        self._hits = config.hits
        self._format = context.format(config.hits_format) if config.hits_format else None

    def hits(self, stream: Stream) -> int | None:
        """What a request costs. None: the format makes no number of it, and then it counts as without this descriptor."""
        if self._format is None:
            return self._hits
        text = self._format(stream)
        return int(text) if text.isdigit() and len(text) < 10 else None

    def descriptor(self, stream: Stream) -> Descriptor | None:
        """None: an action says nothing, so there is no descriptor."""
        entries: list[Entry] = []
        for make in self._makers:
            try:
                entry = make(stream)
            except Skip:
                continue
            if entry is None:
                return None
            entries.append(entry)
        return tuple(entries) or None


def _compile(config: ActionConfig, context: FilterContext) -> Make:
    kind, key = config.kind, config.key
    if kind == "generic_key":
        entry = (key or "generic_key", config.value)
        return lambda stream: entry
    if kind == "source_cluster":
        entry = ("source_cluster", context.service_cluster.decode())
        return lambda stream: entry
    if kind == "destination_cluster":
        return lambda stream: ("destination_cluster", stream.target_cluster())
    if kind == "remote_address":
        return lambda stream: ("remote_address", remote_ip(stream).decode()) if remote_ip(stream) else None
    if kind == "masked_remote_address":
        return lambda stream: _masked(remote_ip(stream), config)
    if kind == "request_headers":
        name = config.name.lower().encode()
        return lambda stream: _optional(key, _header(stream, name), config.skip_if_absent)
    if kind == "query_parameters":
        parameter = config.name.encode()
        return lambda stream: _optional(key, query(stream.request.path, parameter), config.skip_if_absent)
    if kind in ("header_value_match", "query_parameter_value_match"):
        if kind == "header_value_match":
            matches = context.request_matcher(config.matchers)
        else:
            tests = tuple(context.query_matcher(one) for one in config.matchers)
            matches = lambda request: all(test(request) for test in tests)  # noqa: E731
        entry = (key, config.value)
        return lambda stream: entry if matches(stream.request) is config.expect_match else None
    return lambda stream: _metadata(stream, config)


def _header(stream: Stream, name: bytes) -> bytes | None:
    request = stream.request
    if name == b":path":
        return request.path
    if name == b":authority":
        return request.authority
    if name == b":method":
        return request.method
    return request.headers.first.get(name)


def _optional(key: str, value: bytes | None, skip: bool) -> Entry | None:
    if not value:
        if skip:
            raise Skip
        return None
    return key, value.decode("latin-1")


def _masked(ip: bytes, config: ActionConfig) -> Entry | None:
    if not ip:
        return None
    address = ipaddress.ip_address(ip.decode())
    network = ipaddress.ip_network((address, config.v4_bits if address.version == 4 else config.v6_bits), strict=False)
    return "masked_remote_address", str(network)


def _metadata(stream: Stream, config: ActionConfig) -> Entry | None:
    found: Any = stream.route_metadata() if config.source == "ROUTE_ENTRY" else stream.dynamic_metadata
    for key in config.path:
        found = found.get(key) if isinstance(found, Mapping) else None
    text = found if isinstance(found, str) and found else config.default
    if not text:
        if config.skip_if_absent:
            raise Skip
        return None
    return config.key, text
