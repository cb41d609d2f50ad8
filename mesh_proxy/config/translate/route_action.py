"""What a route does: forward to a cluster, redirect, answer directly; with retries, hashing and mirroring."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    DirectResponseConfig,
    HashPolicyConfig,
    MirrorPolicyConfig,
    RedirectConfig,
    RegexRewriteConfig,
    RetryPolicyConfig,
    UpgradeConfig,
    WeightedClusterConfig,
)
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.access_log import format_text
from mesh_proxy.config.translate.common import data_source, header_changes, metadata, required, runtime_fraction
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.formats import compiled, regex
from mesh_proxy.config.translate.matchers import header_matcher
from mesh_proxy.config.translate.per_filter import per_filter_config
from mesh_proxy.config.translate.rate_limit import rate_limit


@dataclass(slots=True, kw_only=True)
class Scope:
    """The route table that a route stands in."""

    context: Context
    body_limit: int
    """bytes that a direct response's body may have"""
    references: list[tuple[str, str]] = field(default_factory=list)
    """(path, cluster name) pairs, checked once all clusters are known"""


_NOT_FOUND = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}
_REDIRECTS = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


def cluster_action(reader: Reader, scope: Scope) -> ClusterActionConfig:
    """`RouteAction`."""
    clusters, random_header = _clusters(reader, scope)
    if (
        sum(bool(reader.message.HasField(name)) for name in ("regex_rewrite", "path_rewrite_policy"))
        + bool(reader.message.prefix_rewrite)
        > 1
    ):
        raise reader.error("only one of prefix_rewrite, regex_rewrite and path_rewrite_policy can be given")
    idle = reader.has("idle_timeout")
    limits = reader.sub("max_stream_duration")
    policy = reader.sub("retry_policy")
    host_regex = reader.sub("host_rewrite_path_regex")
    path_regex = reader.sub("regex_rewrite")
    return ClusterActionConfig(
        clusters=clusters,
        random_value_header=random_header,
        cluster_not_found_status=_NOT_FOUND[reader.enum("cluster_not_found_response_code")],
        metadata_match=metadata(reader, "metadata_match"),
        prefix_rewrite=reader.text("prefix_rewrite"),
        regex_rewrite=_rewrite(path_regex) if path_regex is not None else None,
        host_rewrite_literal=reader.text("host_rewrite_literal"),
        auto_host_rewrite=reader.flag("auto_host_rewrite"),
        host_rewrite_header=reader.lower("host_rewrite_header"),
        host_rewrite_path_regex=_rewrite(host_regex) if host_regex is not None else None,
        append_x_forwarded_host=reader.flag("append_x_forwarded_host"),
        timeout_s=reader.timeout("timeout", 15.0),
        idle_timeout_s=reader.timeout("idle_timeout"),
        has_idle_timeout=idle,
        limits_duration=limits is not None,
        max_stream_duration_s=limits.seconds("max_stream_duration") if limits is not None else None,
        grpc_timeout_header_max_s=limits.seconds("grpc_timeout_header_max") if limits is not None else None,
        grpc_timeout_header_offset_s=limits.seconds("grpc_timeout_header_offset") if limits is not None else None,
        max_grpc_timeout_s=reader.seconds("max_grpc_timeout"),
        grpc_timeout_offset_s=reader.seconds("grpc_timeout_offset"),
        retry_policy=retry_policy(policy) if policy is not None else None,
        priority=reader.enum("priority"),
        upgrades=reader.each("upgrade_configs", _upgrade),
        hash_policies=tuple(policy for policy in reader.each("hash_policy", _hash_policy) if policy is not None),
        mirrors=mirrors(reader, scope),
        rate_limits=reader.each("rate_limits", rate_limit),
        include_vh_rate_limits=reader.flag("include_vh_rate_limits"),
    )


def _clusters(reader: Reader, scope: Scope) -> tuple[tuple[WeightedClusterConfig, ...], str]:
    kind = reader.oneof("cluster_specifier")
    if kind == "cluster":
        name = reader.text(kind)
        scope.references.append((reader.at(kind), name))
        return (WeightedClusterConfig(name=name),), ""
    if kind == "cluster_header":
        return (WeightedClusterConfig(name="", cluster_header=reader.lower(kind)),), ""
    if kind != "weighted_clusters":
        raise reader.error("cluster specifier plugins are not supported", kind)
    group = required(reader, kind)
    entries = group.each("clusters", lambda r: _weighted(r, scope))
    if sum(entry.weight for entry in entries) <= 0 and len(entries) == len(group.message.clusters):
        raise group.error("the sum of the weights must be more than 0", "clusters")
    if sum(entry.weight for entry in entries) > 2**32 - 1:
        raise group.error("the sum of the weights must be less than 4294967296", "clusters")
    if group.oneof("random_value_specifier") == "use_hash_policy" and group.flag("use_hash_policy"):
        raise group.error("is not supported", "use_hash_policy")
    return entries, group.lower("header_name")


def _weighted(reader: Reader, scope: Scope) -> WeightedClusterConfig:
    name, header = reader.text("name"), reader.lower("cluster_header")
    if bool(name) == bool(header):
        raise reader.error("needs one of name, cluster_header" if not name else "takes only one of name, cluster_header")
    if name:
        scope.references.append((reader.at("name"), name))
    return WeightedClusterConfig(
        name=name,
        weight=reader.number("weight"),
        cluster_header=header,
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        metadata_match=metadata(reader, "metadata_match"),
        host_rewrite_literal=reader.text("host_rewrite_literal"),
        per_filter_config=per_filter_config(reader, scope.context),
    )


def _rewrite(reader: Reader) -> RegexRewriteConfig:
    """`RegexMatchAndSubstitute`; the substitution may name only groups that the pattern has."""
    pattern = regex(required(reader, "pattern"))
    substitution = reader.text("substitution")
    groups = compiled(pattern, reader.at("pattern.regex")).groups
    rest = iter(substitution)
    for char in rest:
        if char == "\\":
            following = next(rest, "")
            if following.isdigit():
                if int(following) > groups:
                    raise reader.error(f"\\{following} names a group that the pattern does not have", "substitution")
            elif following != "\\":
                raise reader.error("a backslash must be followed by a digit or a backslash", "substitution")
    return RegexRewriteConfig(pattern=pattern, substitution=substitution)


def _upgrade(reader: Reader) -> UpgradeConfig:
    connect = reader.sub("connect_config")
    kind = reader.lower("upgrade_type")
    if connect is not None and kind != "connect":
        raise reader.error("is only for the upgrade type CONNECT", "connect_config")
    return UpgradeConfig(upgrade_type=kind, enabled=reader.flag("enabled", True), terminate_connect=connect is not None)


def retry_policy(reader: Reader) -> RetryPolicyConfig:
    """`RetryPolicy`."""
    base, longest = 0.025, 0.25
    back_off = reader.sub("retry_back_off")
    if back_off is not None:
        base = back_off.seconds("base_interval") or 0.0
        if base <= 0:
            raise back_off.error("must be more than 0s", "base_interval")
        longest = back_off.seconds("max_interval", base * 10) or 0.0
        if longest < base:
            raise back_off.error("must be at least base_interval", "max_interval")
    limited = reader.sub("rate_limited_retry_back_off")
    reset_headers: tuple[tuple[str, str], ...] = ()
    limited_max = 300.0
    if limited is not None:
        reset_headers = limited.each("reset_headers", lambda r: (r.lower("name"), r.enum("format")))
        limited_max = limited.seconds("max_interval", 300.0) or 0.0
    previous = reader.each("retry_host_predicate", _host_predicate)
    return RetryPolicyConfig(
        retry_on=tuple(word.strip() for word in reader.text("retry_on").split(",") if word.strip()),
        num_retries=reader.number("num_retries", 1),
        per_try_timeout_s=reader.timeout("per_try_timeout"),
        per_try_idle_timeout_s=reader.timeout("per_try_idle_timeout"),
        retriable_status_codes=reader.numbers("retriable_status_codes"),
        retriable_headers=reader.each("retriable_headers", header_matcher),
        retriable_request_headers=reader.each("retriable_request_headers", header_matcher),
        base_interval_s=base,
        max_interval_s=longest,
        avoid_previous_hosts=any(previous),
        host_selection_max_attempts=reader.number("host_selection_retry_max_attempts") or 1,
        rate_limited_reset_headers=reset_headers,
        rate_limited_max_interval_s=limited_max,
    )


def _host_predicate(reader: Reader) -> bool:
    extension = reader.extension()
    name = reader.text("name")
    if extension is None:
        raise reader.error(f"{name} needs typed_config")
    if extension.type != _PREVIOUS_HOSTS:
        raise extension.unsupported("retry host predicate")
    return True


def _hash_policy(reader: Reader) -> HashPolicyConfig | None:
    kind = reader.oneof("policy_specifier")
    inner = required(reader, kind)
    terminal = reader.flag("terminal")
    if kind == "header":
        return HashPolicyConfig(kind="header", name=inner.lower("header_name"), terminal=terminal)
    if kind == "cookie":
        return HashPolicyConfig(
            kind="cookie",
            name=inner.text("name"),
            cookie_ttl_s=inner.seconds("ttl"),
            cookie_path=inner.text("path"),
            terminal=terminal,
        )
    if kind == "connection_properties":
        return HashPolicyConfig(kind="source_ip", terminal=terminal) if inner.flag("source_ip") else None
    if kind == "query_parameter":
        return HashPolicyConfig(kind="query_parameter", name=inner.text("name"), terminal=terminal)
    return HashPolicyConfig(kind="filter_state", name=inner.text("key"), terminal=terminal)


def mirrors(reader: Reader, scope: Scope) -> tuple[MirrorPolicyConfig, ...]:
    """`request_mirror_policies` of a route, virtual host or table."""
    return reader.each("request_mirror_policies", lambda r: _mirror(r, scope))


def _mirror(reader: Reader, scope: Scope) -> MirrorPolicyConfig:
    name = reader.text("cluster")
    if not name:
        raise reader.error("is required", "cluster")
    scope.references.append((reader.at("cluster"), name))
    return MirrorPolicyConfig(
        cluster=name,
        fraction=runtime_fraction(reader.sub("runtime_fraction")),
        keep_host=reader.flag("disable_shadow_host_suffix_append"),
    )


def redirect(reader: Reader) -> RedirectConfig:
    """`RedirectAction`."""
    https = reader.flag("https_redirect")
    path_regex = reader.sub("regex_rewrite")
    port = reader.number("port_redirect")
    if port > 65535:
        raise reader.error(f"must be at most 65535, not {port}", "port_redirect")
    return RedirectConfig(
        scheme="https" if https else reader.text("scheme_redirect"),
        https_redirect=https,
        host=reader.text("host_redirect"),
        port=port,
        path=reader.text("path_redirect"),
        prefix_rewrite=reader.text("prefix_rewrite"),
        regex_rewrite=_rewrite(path_regex) if path_regex is not None else None,
        status=_REDIRECTS[reader.enum("response_code")],
        strip_query=reader.flag("strip_query"),
    )


def direct_response(reader: Reader, body_limit: int) -> DirectResponseConfig:
    """`DirectResponseAction`."""
    source = reader.sub("body")
    body = data_source(source).data if source is not None else b""
    if len(body) > body_limit:
        raise reader.error(f"is {len(body)} bytes long, the maximum is {body_limit}", "body")
    template = reader.sub("body_format")
    text: str | None = None
    if template is not None:
        kind = template.oneof("format")
        if kind == "json_format":
            raise template.error("is not supported", kind)
        text = format_text(template, kind)
    return DirectResponseConfig(status=reader.number("status"), body=body, body_format=text)
