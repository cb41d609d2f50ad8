"""One compiled route: where a request goes and what is changed on its way there and back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.grpc import is_grpc_content_type
from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    DirectResponseConfig,
    FilterSwitch,
    MirrorPolicyConfig,
    PathMatchKind,
    RedirectConfig,
    RegexRewriteConfig,
    RouteConfig,
    VirtualHostConfig,
    WeightedClusterConfig,
)
from mesh_proxy.routing import matchers, rewrite
from mesh_proxy.routing.hash_policy import compile_hash_policies
from mesh_proxy.routing.matchers import RequestTest
from mesh_proxy.routing.mutations import HeaderMutation, compile_mutations
from mesh_proxy.routing.regex import RegexRewrite
from mesh_proxy.stream.info import StreamInfo

if TYPE_CHECKING:
    from mesh_proxy.routing.table import RouteTable

HostRewrite = Callable[[RequestHeaders], bytes]
"""the new authority; empty = unchanged"""

LB: Final = "envoy.lb"
_EMPTY: Final[Mapping[str, Any]] = {}


def _merged(*levels: Mapping[str, Any]) -> Mapping[str, Any]:
    """The later level wins; the same object again when only one says anything."""
    filled = [level for level in levels if level]
    if len(filled) < 2:
        return filled[0] if filled else _EMPTY
    merged: dict[str, Any] = {}
    for level in filled:
        for name, value in level.items():
            if value is FilterSwitch.ON and merged.get(name, FilterSwitch.OFF) is not FilterSwitch.OFF:
                continue  # switched on with what the wider scope says
            merged[name] = value
    return merged


class ClusterChoice:
    """One possible outcome of `Route.select`."""

    __slots__ = (
        "cluster_header",
        "config",
        "host_literal",
        "metadata_match",
        "mutates_request",
        "name",
        "own_mutations",
        "per_filter_config",
        "request_mutations",
        "response_mutations",
    )

    def __init__(self, config: WeightedClusterConfig) -> None:
        self.config = config
        self.name = config.name
        self.cluster_header = config.cluster_header.encode()
        """the cluster's name stands in this header; empty for a static cluster"""
        self.host_literal = config.host_rewrite_literal.encode()
        """the authority that a weighted cluster sets, without a trace of the old one; empty = unchanged"""
        self.own_mutations: tuple[HeaderMutation, ...] = ()
        """the weighted cluster's, which come before the host literal and the route's"""
        self.metadata_match: Mapping[str, Any] = _EMPTY
        """the `envoy.lb` metadata that endpoints must have: the route's, overridden by the weighted cluster's"""
        self.per_filter_config: Mapping[str, Any] = _EMPTY
        """filter name -> the most specific configuration of this choice"""
        self.request_mutations: tuple[HeaderMutation, ...] = ()
        self.response_mutations: tuple[HeaderMutation, ...] = ()
        self.mutates_request = False

    def named(self, name: str) -> ClusterChoice:
        """The same with the name that the header held."""
        other = ClusterChoice(self.config)
        for slot in ("own_mutations", "metadata_match", "per_filter_config", "request_mutations", "response_mutations"):
            setattr(other, slot, getattr(self, slot))
        other.mutates_request = self.mutates_request
        other.name = name
        return other

    def __repr__(self) -> str:
        return f"<ClusterChoice {self.name}>"


class Route:
    """One route of a virtual host. Made once per configuration; requests only read it."""

    __slots__ = (
        "_choices",
        "_host_rewrite",
        "_path_rewrite",
        "_random_header",
        "_redirect_target",
        "_response_mutations",
        "_total",
        "_weights",
        "action",
        "choices_differ",
        "conditions",
        "config",
        "direct_response",
        "filter_levels",
        "host_rate_limits",
        "include_attempt_count_in_response",
        "include_is_timeout_retry_header",
        "include_request_attempt_count",
        "lone",
        "mirrors",
        "mutates_response",
        "name",
        "order",
        "per_filter_config",
        "redirect",
        "request_hash",
        "retry_policy",
        "table",
        "virtual_host_name",
    )

    def __init__(self, table: RouteTable, host: VirtualHostConfig, config: RouteConfig, order: int, path: str) -> None:
        self.table = table
        self.config = config
        self.order = order
        """position in the virtual host: the lowest matching one wins"""
        self.name = config.name
        self.virtual_host_name = host.name
        action = config.action
        self.action = action if isinstance(action, ClusterActionConfig) else None
        self.redirect = action if isinstance(action, RedirectConfig) else None
        self.direct_response = action if isinstance(action, DirectResponseConfig) else None
        self.include_request_attempt_count = host.include_request_attempt_count
        self.include_attempt_count_in_response = host.include_attempt_count_in_response
        self.include_is_timeout_retry_header = host.include_is_timeout_retry_header
        self.retry_policy = (self.action.retry_policy if self.action is not None else None) or host.retry_policy
        self.mirrors: tuple[MirrorPolicyConfig, ...] = (
            (self.action.mirrors if self.action is not None else ()) or host.mirrors or table.config.mirrors
        )
        self.request_hash = compile_hash_policies(self.action.hash_policies) if self.action is not None else None
        """what RING_HASH and MAGLEV choose by; None without hash policies"""
        self.per_filter_config = _merged(table.config.per_filter_config, host.per_filter_config, config.per_filter_config)
        """filter name -> the most specific configuration, weighted clusters apart"""
        self.filter_levels = (table.config.per_filter_config, host.per_filter_config, config.per_filter_config)
        """what table, virtual host and route say to filters, each by itself"""
        self.host_rate_limits = host.rate_limits
        self.choices_differ = False
        """weighted clusters say something to filters of their own"""
        self.conditions: tuple[RequestTest, ...] | None = self._compile_conditions(path)
        """what must hold beside the path; None when nothing"""
        self._path_rewrite = self._compile_path_rewrite()
        self._host_rewrite = self._compile_host_rewrite()
        # A direct response with 201 or 3xx has a location too: the request's own URL.
        self._redirect_target = rewrite.RedirectTarget(self.redirect or RedirectConfig())
        self._response_mutations = self._compile_levels(host, "response_headers", path)
        """of a reply that no weighted cluster gave"""
        self._choices: tuple[ClusterChoice, ...] = ()
        self._weights: list[int] = []
        self._total = 0
        self._random_header = b""
        self.lone: ClusterChoice | None = None
        """the choice when there is just one and its name is known"""
        self.mutates_response = bool(self._response_mutations)
        """`finalize_response` has something to do"""
        if self.action is not None:
            self._compile_choices(self.action, host, path)

    # Compiling

    def _compile_conditions(self, path: str) -> tuple[RequestTest, ...] | None:
        match = self.config.match
        conditions: list[RequestTest] = []
        try:
            if match.runtime_fraction is not None:
                wins = matchers.compile_fraction(match.runtime_fraction, self.table.runtime)
                conditions.append(lambda request: wins())
            if match.grpc:
                conditions.append(is_grpc)
            conditions += [matchers.compile_header_matcher(header) for header in match.headers]
            conditions += [matchers.compile_query_matcher(parameter) for parameter in match.query_parameters]
        except ValueError as error:
            raise ValueError(f"{path}.match: {error}") from None
        return tuple(conditions) or None

    def _compile_levels(self, host: VirtualHostConfig, kind: str, path: str) -> tuple[HeaderMutation, ...]:
        """The mutations in the order in which they are applied: the last one wins where two overwrite the same header."""
        shared = self.table.shared_mutations(host, kind)
        own = compile_mutations([(f"{path}.{kind}", getattr(self.config, kind))])
        return (*reversed(shared), *own) if self.table.config.most_specific_header_mutations_wins else (*own, *shared)

    def _compile_path_rewrite(self) -> rewrite.PathRewrite | None:
        match = self.config.match
        replacement: str
        regex: RegexRewriteConfig | None
        if self.action is not None:
            replacement, regex = self.action.prefix_rewrite, self.action.regex_rewrite
        elif self.redirect is not None:
            replacement, regex = self.redirect.prefix_rewrite, self.redirect.regex_rewrite
        else:
            return None
        if replacement:
            if match.kind in (PathMatchKind.REGEX, PathMatchKind.CONNECT):
                return rewrite.whole_path_rewrite(replacement.encode())
            return rewrite.prefix_rewrite(match.path.encode(), replacement.encode(), ignore_case=not match.case_sensitive)
        if regex is not None:
            return rewrite.regex_path_rewrite(RegexRewrite(regex.pattern, regex.substitution))
        return None

    def _compile_host_rewrite(self) -> HostRewrite | None:
        action = self.action
        if action is None:
            return None
        if action.host_rewrite_literal:
            literal = action.host_rewrite_literal.encode()
            return lambda request: literal
        if action.host_rewrite_header:
            header = action.host_rewrite_header.lower().encode()
            return lambda request: request.headers.first.get(header, b"")
        if action.host_rewrite_path_regex is not None:
            regex = action.host_rewrite_path_regex
            replace = RegexRewrite(regex.pattern, regex.substitution).replace
            return lambda request: replace(rewrite.split_query(request.path)[0])
        return None

    def _compile_choices(self, action: ClusterActionConfig, host: VirtualHostConfig, path: str) -> None:
        request_mutations = self._compile_levels(host, "request_headers", path)
        choices: list[ClusterChoice] = []
        for index, config in enumerate(action.clusters):
            choice = ClusterChoice(config)
            where = f"{path}.weighted_clusters[{index}]"
            # A weighted cluster's mutations come first, whichever level wins otherwise.
            choice.own_mutations = compile_mutations([(f"{where}.request_headers", config.request_headers)])
            choice.request_mutations = request_mutations
            own = compile_mutations([(f"{where}.response_headers", config.response_headers)])
            choice.response_mutations = (*own, *self._response_mutations) if own else self._response_mutations
            choice.metadata_match = {**action.metadata_match.get(LB, {}), **config.metadata_match.get(LB, {})} or _EMPTY
            choice.per_filter_config = _merged(self.per_filter_config, config.per_filter_config)
            self.choices_differ = self.choices_differ or bool(config.per_filter_config)
            choice.mutates_request = bool(
                choice.own_mutations or choice.host_literal or request_mutations or self._host_rewrite or self._path_rewrite
            )
            self.mutates_response = self.mutates_response or bool(choice.response_mutations)
            choices.append(choice)
        self._choices = tuple(choices)
        self._weights = list(accumulate(choice.config.weight for choice in choices))
        self._total = action.total_weight or (self._weights[-1] if self._weights else 0)
        self._random_header = action.random_value_header.lower().encode()
        if len(choices) == 1 and not choices[0].cluster_header:
            self.lone = choices[0]

    # Serving

    def select(self, request: RequestHeaders, info: StreamInfo) -> ClusterChoice | None:
        """The cluster for a request; None when the header that should name it is missing (or this is no cluster action)."""
        if self.lone is not None:
            return self.lone
        choices = self._choices
        if not choices:
            return None
        choice = choices[0] if len(choices) == 1 else self._pick(request)
        header = choice.cluster_header
        if not header:
            return choice
        name = request.headers.first.get(header)
        return choice.named(name.decode("utf-8", "replace")) if name else None

    def _pick(self, request: RequestHeaders) -> ClusterChoice:
        """A choice by weight, from a random number or from the one that a request header holds."""
        number: int | None = None
        if self._random_header:
            headers = request.headers
            value = headers.first.get(self._random_header)
            if value is not None and len(headers.get_all(self._random_header)) == 1:
                number = matchers.parse_integer(value)
        if number is None or number < 0:
            number = matchers.random_bits(63)
        place = bisect_right(self._weights, number % self._total) if self._total else 0
        return self._choices[min(place, len(self._choices) - 1)]

    def finalize_request(self, request: RequestHeaders, info: StreamInfo, choice: ClusterChoice) -> None:
        """Change a request for its way upstream: headers first, then authority, then path. `info.request` must be set."""
        if not choice.mutates_request:
            return
        for mutation in choice.own_mutations:
            mutation.apply(request.headers, info)
        if choice.host_literal:
            request.authority = choice.host_literal
        for mutation in choice.request_mutations:
            mutation.apply(request.headers, info)
        if self._host_rewrite is not None:
            authority = self._host_rewrite(request)
            if authority:
                self.rewrite_host(request, authority)
        self._rewrite_path(request, info)

    def _rewrite_path(self, request: RequestHeaders, info: StreamInfo) -> None:
        if self._path_rewrite is not None:
            path = self._path_rewrite(request.path)
            if path is not None:
                rewrite.rewrite_path(request, info, path, keep_original=self.table.keep_original)

    def rewrite_host(self, request: RequestHeaders, authority: bytes) -> None:
        """Replace the authority as this route's host rewrites do; also for `auto_host_rewrite`, once the endpoint is known."""
        assert self.action is not None
        rewrite.rewrite_authority(
            request,
            authority,
            append_x_forwarded_host=self.action.append_x_forwarded_host,
            keep_original=self.table.keep_original,
        )

    def finalize_response(self, response: ResponseHeaders, info: StreamInfo, choice: ClusterChoice | None) -> None:
        """Change a response on its way downstream.

        Envoy does so to upstream responses and to local replies alike, once a route is known: `choice` is None for direct
        responses, redirects and replies made before a cluster was chosen. `info.response` must be set.
        """
        for mutation in self._response_mutations if choice is None else choice.response_mutations:
            mutation.apply(response.headers, info)

    def redirect_location(self, request: RequestHeaders, info: StreamInfo) -> bytes:
        """The `location` of a redirect, or of a direct response whose status (201, 3xx) calls for one.

        A redirect's prefix or regex rewrite changes the request's path first, as logs then show.
        """
        self._rewrite_path(request, info)
        return self._redirect_target.location(request)

    def __repr__(self) -> str:
        return f"<Route {self.virtual_host_name}#{self.order} {self.name or self.config.match.path!r}>"


def is_grpc(request: RequestHeaders) -> bool:
    """The content type says gRPC (`application/grpc`, alone or with `+…`)."""
    return is_grpc_content_type(request.headers.first.get(b"content-type"))
