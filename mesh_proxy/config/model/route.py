"""Route tables, virtual hosts and routes (`envoy.config.route.v3`)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh_proxy.config.model.common import (
    FractionConfig,
    HeaderMatcherConfig,
    HeaderMutationConfig,
    QueryParameterMatcherConfig,
)


class PathMatchKind(enum.Enum):
    """`RouteMatch.path_specifier`."""

    PREFIX = "prefix"
    PATH = "path"
    REGEX = "safe_regex"
    SEPARATED_PREFIX = "path_separated_prefix"
    CONNECT = "connect_matcher"


class FilterSwitch(enum.Enum):
    """What stands in a `per_filter_config` instead of a filter's own configuration."""

    OFF = "off"
    """`FilterConfig.disabled`"""
    ON = "on"
    """a `FilterConfig` without configuration: the filter runs, with what the wider scope says"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatchConfig:
    """`RouteMatch`."""

    kind: PathMatchKind
    path: str = ""
    """the prefix, path or regular expression (RE2, matched against the path without query)"""
    case_sensitive: bool = True
    headers: tuple[HeaderMatcherConfig, ...] = ()
    query_parameters: tuple[QueryParameterMatcherConfig, ...] = ()
    runtime_fraction: FractionConfig | None = None
    grpc: bool = False
    """only gRPC requests match"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegexRewriteConfig:
    """`RegexMatchAndSubstitute`: RE2 pattern and substitution with `\\1` groups."""

    pattern: str
    substitution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedClusterConfig:
    """One share of a weighted choice; a lone cluster is one entry of weight 1."""

    name: str
    weight: int = 1
    cluster_header: str = ""
    """the cluster's name stands in this request header (lower-case) instead"""
    request_headers: HeaderMutationConfig = HeaderMutationConfig()
    response_headers: HeaderMutationConfig = HeaderMutationConfig()
    metadata_match: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """the `envoy.lb` metadata that endpoints must have"""
    host_rewrite_literal: str = ""
    per_filter_config: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicyConfig:
    """`RetryPolicy`."""

    retry_on: tuple[str, ...] = ()
    """`5xx`, `gateway-error`, `reset`, `reset-before-request`, `connect-failure`, `envoy-ratelimited`, `retriable-4xx`,
    `refused-stream`, `retriable-status-codes`, `retriable-headers`, and the gRPC words `cancelled`, `deadline-exceeded`,
    `internal`, `resource-exhausted`, `unavailable`"""
    num_retries: int = 1
    per_try_timeout_s: float | None = None
    """None = the route's time-out"""
    per_try_idle_timeout_s: float | None = None
    retriable_status_codes: tuple[int, ...] = ()
    retriable_headers: tuple[HeaderMatcherConfig, ...] = ()
    retriable_request_headers: tuple[HeaderMatcherConfig, ...] = ()
    base_interval_s: float = 0.025
    max_interval_s: float = 0.25
    avoid_previous_hosts: bool = False
    """the `previous_hosts` host predicate"""
    host_selection_max_attempts: int = 1
    rate_limited_reset_headers: tuple[tuple[str, str], ...] = ()
    """(name, `SECONDS` | `UNIX_TIMESTAMP`)"""
    rate_limited_max_interval_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeConfig:
    """Whether one kind of upgrade is allowed (`UpgradeConfig`)."""

    upgrade_type: str
    """lower-case, e.g. `websocket`, `connect`"""
    enabled: bool = True
    terminate_connect: bool = False
    """`connect_config` is set: the tunnel ends here and its bytes go on as plain TCP"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPolicyConfig:
    """`RouteAction.HashPolicy`."""

    kind: str
    """`header`, `cookie`, `source_ip`, `query_parameter` or `filter_state`"""
    name: str = ""
    cookie_ttl_s: float | None = None
    cookie_path: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPolicyConfig:
    """`RouteAction.RequestMirrorPolicy`."""

    cluster: str
    fraction: FractionConfig | None = None
    keep_host: bool = False
    """`disable_shadow_host_suffix_append`: no `-shadow` behind the host name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterActionConfig:
    """`RouteAction`: forward to a cluster."""

    clusters: tuple[WeightedClusterConfig, ...]
    """one for `cluster` and `cluster_header`, several for `weighted_clusters`"""
    total_weight: int = 0
    """deprecated field of Envoy; 0 = the sum of the weights"""
    random_value_header: str = ""
    cluster_not_found_status: int = 503
    metadata_match: Mapping[str, Any] = field(default_factory=dict, hash=False)
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewriteConfig | None = None
    host_rewrite_literal: str = ""
    auto_host_rewrite: bool = False
    host_rewrite_header: str = ""
    host_rewrite_path_regex: RegexRewriteConfig | None = None
    append_x_forwarded_host: bool = False
    timeout_s: float | None = 15.0
    """whole response, retries included; None = no limit"""
    idle_timeout_s: float | None = None
    """None = the connection manager's stream_idle_timeout"""
    has_idle_timeout: bool = False
    """idle_timeout_s was given (None with True = never)"""
    max_stream_duration_s: float | None = None
    limits_duration: bool = False
    """`max_stream_duration` is set: it takes the place of `timeout_s`, as in Envoy"""
    grpc_timeout_header_max_s: float | None = None
    """a gRPC caller's deadline ends the stream, at most this late (0 = whatever it says); None = it does not count"""
    grpc_timeout_header_offset_s: float | None = None
    """the stream ends so much before the caller's deadline"""
    max_grpc_timeout_s: float | None = None
    """deprecated: a gRPC caller's deadline takes the place of `timeout_s`, at most this long (0 = whatever it says)"""
    grpc_timeout_offset_s: float | None = None
    """deprecated: what is taken off it, if something is left"""
    retry_policy: RetryPolicyConfig | None = None
    priority: str = "DEFAULT"
    """`DEFAULT` or `HIGH`"""
    upgrades: tuple[UpgradeConfig, ...] = ()
    hash_policies: tuple[HashPolicyConfig, ...] = ()
    mirrors: tuple[MirrorPolicyConfig, ...] = ()
    rate_limits: tuple[Any, ...] = ()
    """`mesh_filters.rate_limit_actions.RateLimitConfig`s, for filters"""
    include_vh_rate_limits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectConfig:
    """`RedirectAction`."""

    scheme: str = ""
    """`scheme_redirect`, or `https` for `https_redirect`"""
    https_redirect: bool = False
    host: str = ""
    port: int = 0
    path: str = ""
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewriteConfig | None = None
    status: int = 301
    strip_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponseConfig:
    """`DirectResponseAction`."""

    status: int
    body: bytes = b""
    body_format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteConfig:
    """One `Route`."""

    match: RouteMatchConfig
    action: ClusterActionConfig | RedirectConfig | DirectResponseConfig | None
    """None: `non_forwarding_action`"""
    name: str = ""
    request_headers: HeaderMutationConfig = HeaderMutationConfig()
    response_headers: HeaderMutationConfig = HeaderMutationConfig()
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """filter_metadata as plain JSON"""
    per_filter_config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """filter name -> translated configuration (`typed_per_filter_config`), or a FilterSwitch"""
    decorator_operation: str = ""
    stat_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHostConfig:
    """`VirtualHost`."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[RouteConfig, ...] = ()
    require_tls: str = "NONE"
    """`NONE`, `EXTERNAL_ONLY` or `ALL`"""
    request_headers: HeaderMutationConfig = HeaderMutationConfig()
    response_headers: HeaderMutationConfig = HeaderMutationConfig()
    include_request_attempt_count: bool = False
    include_attempt_count_in_response: bool = False
    include_is_timeout_retry_header: bool = False
    retry_policy: RetryPolicyConfig | None = None
    per_filter_config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    per_request_buffer_limit_bytes: int | None = None
    rate_limits: tuple[Any, ...] = ()
    mirrors: tuple[MirrorPolicyConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTableConfig:
    """`RouteConfiguration`."""

    name: str = ""
    virtual_hosts: tuple[VirtualHostConfig, ...] = ()
    request_headers: HeaderMutationConfig = HeaderMutationConfig()
    response_headers: HeaderMutationConfig = HeaderMutationConfig()
    internal_only_headers: tuple[str, ...] = ()
    """lower-case; removed from external requests"""
    most_specific_header_mutations_wins: bool = False
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters_in_path_matching: bool = False
    validate_clusters: bool | None = None
    """every named cluster must exist; None = only for tables given inline"""
    max_direct_response_body_size_bytes: int = 4096
    per_filter_config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    mirrors: tuple[MirrorPolicyConfig, ...] = ()
