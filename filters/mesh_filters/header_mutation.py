"""`envoy.filters.http.header_mutation`: headers, trailers and query parameters changed one by one, in the order written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

from mesh_codecs.events import RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.route_rules import Compiled

Change = Callable[[Headers, Stream], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationConfig:
    """One `HeaderMutation` or `KeyValueMutation`."""

    remove: str = ""
    """name to remove"""
    remove_matching: Any = None
    """matcher of names to remove"""
    name: str = ""
    """name to set or add, lower-case for headers"""
    value: str = ""
    """a format string"""
    action: str = "APPEND_IF_EXISTS_OR_ADD"
    keep_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationsConfig:
    """`Mutations`."""

    request: tuple[MutationConfig, ...] = ()
    query: tuple[MutationConfig, ...] = ()
    response: tuple[MutationConfig, ...] = ()
    request_trailers: tuple[MutationConfig, ...] = ()
    response_trailers: tuple[MutationConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutationConfig:
    """`HeaderMutation`."""

    mutations: MutationsConfig = MutationsConfig()
    most_specific_wins: bool = False
    """routes' changes come from the widest scope to the narrowest, so that the narrowest has the last word"""

    def factory(self, context: FilterContext) -> Filter:
        """One filter for all streams."""
        return HeaderMutationFilter(self, context)


class _Compiled:
    """One level's changes."""

    __slots__ = ("query", "request", "request_trailers", "response", "response_trailers")

    def __init__(self, config: MutationsConfig, context: FilterContext) -> None:
        self.request = tuple(_compile(one, context) for one in config.request)
        self.response = tuple(_compile(one, context) for one in config.response)
        self.request_trailers = tuple(_compile(one, context) for one in config.request_trailers)
        self.response_trailers = tuple(_compile(one, context) for one in config.response_trailers)
        self.query = tuple(_QueryChange(one, context) for one in config.query)


def _compile(config: MutationConfig, context: FilterContext) -> Change:
    if config.remove:
        gone = config.remove.encode()
        return lambda headers, stream: _drop(headers, gone)
    if config.remove_matching is not None:
        matches = context.value_matcher(config.remove_matching)

        def remove_matching(headers: Headers, stream: Stream) -> None:
            for name in [name for name in headers.first if matches(name)]:
                headers.remove(name)

        return remove_matching
    name, action, keep_empty = config.name.encode(), config.action, config.keep_empty
    value_of = context.format(config.value)

    def change(headers: Headers, stream: Stream) -> None:
        value = value_of(stream)
        if not value and not keep_empty:
            return
        present = name in headers.first
        if action == "APPEND_IF_EXISTS_OR_ADD" or (action == "ADD_IF_ABSENT" and not present):
            headers.add(name, value)
        elif action == "OVERWRITE_IF_EXISTS_OR_ADD" or (action == "OVERWRITE_IF_EXISTS" and present):
            headers.set(name, value)

    return change


def _drop(headers: Headers, name: bytes) -> None:
    headers.remove(name)


class _QueryChange:
    """One change of the query: names and values as they stand in the path, still encoded."""

    __slots__ = ("action", "name", "remove", "value_of")

    def __init__(self, config: MutationConfig, context: FilterContext) -> None:
        self.remove = config.remove.encode()
        self.name = config.name.encode()
        self.action = config.action
        self.value_of = context.format(config.value)

    def apply(self, pairs: list[tuple[bytes, bytes]], stream: Stream) -> list[tuple[bytes, bytes]]:
        """The parameters after it."""
        if self.remove:
            return [pair for pair in pairs if pair[0] != self.remove]
        value = quote_from_bytes(self.value_of(stream), safe="-_.~").encode()
        name, action = self.name, self.action
        present = any(pair[0] == name for pair in pairs)
        if action == "APPEND_IF_EXISTS_OR_ADD" or (action == "ADD_IF_ABSENT" and not present):
            return [*pairs, (name, value)]
        if action == "OVERWRITE_IF_EXISTS_OR_ADD" or (action == "OVERWRITE_IF_EXISTS" and present):
            return [*(pair for pair in pairs if pair[0] != name), (name, value)]
        return pairs


def _name(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0]


class HeaderMutationFilter(Filter):
    """Holds nothing of a stream."""

    __slots__ = ("_name", "_own", "_reverse", "_routes")

    def __init__(self, config: HeaderMutationConfig, context: FilterContext) -> None:
        self._name = context.name
        self._own = _Compiled(config.mutations, context)
        self._reverse = not config.most_specific_wins
        self._routes: Compiled[MutationsConfig, _Compiled] = Compiled(lambda one: _Compiled(one, context))

    def _levels(self, stream: Stream) -> list[_Compiled]:
        configs = stream.per_route_configs(self._name)
        return [self._own, *[self._routes.of(config) for config in (reversed(configs) if self._reverse else configs)]]

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Headers, then the query."""
        for level in self._levels(stream):
            for change in level.request:
                change(event.headers, stream)
            if level.query:
                path, _, query = event.path.partition(b"?")
                pairs = [(name, value) for name, _, value in (pair.partition(b"=") for pair in query.split(b"&") if pair)]
                for one in level.query:
                    pairs = one.apply(pairs, stream)
                pairs.sort(key=_name)  # as Envoy, which keeps them in a map
                event.path = path + (b"?" + b"&".join(name + b"=" + value for name, value in pairs) if pairs else b"")
        return FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Headers of the response."""
        for level in self._levels(stream):
            for change in level.response:
                change(event.headers, stream)
        return FilterStatus.CONTINUE

    def on_request_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """Trailers of the request."""
        for level in self._levels(stream):
            for change in level.request_trailers:
                change(event.headers, stream)
        return FilterStatus.CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """Trailers of the response."""
        for level in self._levels(stream):
            for change in level.response_trailers:
                change(event.headers, stream)
        return FilterStatus.CONTINUE
