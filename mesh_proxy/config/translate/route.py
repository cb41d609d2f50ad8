"""Route tables, virtual hosts and routes: what is matched. The actions are in `route_action`."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from mesh_proxy.config import registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    DirectResponseConfig,
    PathMatchKind,
    RedirectConfig,
    RouteConfig,
    RouteMatchConfig,
    RouteTableConfig,
    VirtualHostConfig,
)
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.translate.common import header_changes, metadata, required, runtime_fraction
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.formats import regex
from mesh_proxy.config.translate.matchers import header_matcher, query_parameter_matcher
from mesh_proxy.config.translate.route_action import cluster_action, direct_response, mirrors, redirect, retry_policy

_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"


def translate_route_configuration(message: Message, path: str, context: Context | None = None) -> RouteTableConfig:
    """`envoy.config.route.v3.RouteConfiguration`."""
    return run(message, path, route_table, context)


def route_table(reader: Reader, context: Context, *, inline: bool = False) -> RouteTableConfig:
    """`inline`: the table stands in the listener, where clusters are checked by default."""
    validate = reader.flag("validate_clusters") if reader.has("validate_clusters") else None
    limit = reader.number("max_direct_response_body_size_bytes", 4096)
    references: list[tuple[str, str]] = []
    hosts = reader.each("virtual_hosts", lambda r: _virtual_host(r, references, limit))
    _check_hosts(reader, hosts)
    table = RouteTableConfig(
        name=reader.text("name"),
        virtual_hosts=hosts,
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        internal_only_headers=tuple(name.lower() for name in reader.strings("internal_only_headers")),
        most_specific_header_mutations_wins=reader.flag("most_specific_header_mutations_wins"),
        ignore_port_in_host_matching=reader.flag("ignore_port_in_host_matching"),
        ignore_path_parameters_in_path_matching=reader.flag("ignore_path_parameters_in_path_matching"),
        validate_clusters=validate,
        max_direct_response_body_size_bytes=limit,
        per_filter_config=per_filter_config(reader, context),
        mirrors=mirrors(reader, references),
    )
    if validate or (validate is None and inline):
        context.cluster_references.extend(references)
    return table


def _check_hosts(reader: Reader, hosts: tuple[VirtualHostConfig, ...]) -> None:
    domains: set[str] = set()
    for i, host in enumerate(hosts):
        path = f"virtual_hosts[{i}]"
        for j, domain in enumerate(host.domains):
            if domain in domains:
                why = "only one virtual host may have the domain *" if domain == "*" else f"domain {domain} is taken already"
                reader.problems.extend(reader.error(why, f"{path}.domains[{j}]"))
            domains.add(domain)


def _virtual_host(reader: Reader, references: list[tuple[str, str]], body_limit: int) -> VirtualHostConfig:
    context = Context(problems=reader.problems)
    policy = reader.sub("retry_policy")
    limit = reader.optional_number("per_request_buffer_limit_bytes")
    return VirtualHostConfig(
        name=reader.text("name"),
        domains=tuple(domain.lower() for domain in reader.strings("domains")),
        routes=reader.each("routes", lambda r: _route(r, context, references, body_limit)),
        require_tls={"EXTERNAL_ONLY": "EXTERNAL_ONLY", "ALL": "ALL"}.get(reader.enum("require_tls"), "NONE"),
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        include_request_attempt_count=reader.flag("include_request_attempt_count"),
        include_attempt_count_in_response=reader.flag("include_attempt_count_in_response"),
        include_is_timeout_retry_header=reader.flag("include_is_timeout_retry_header"),
        retry_policy=retry_policy(policy) if policy is not None else None,
        per_filter_config=per_filter_config(reader, context),
        per_request_buffer_limit_bytes=limit,
        mirrors=mirrors(reader, references),
    )


def _route(reader: Reader, context: Context, references: list[tuple[str, str]], body_limit: int) -> RouteConfig:
    decorator = reader.sub("decorator")
    return RouteConfig(
        match=_match(required(reader, "match")),
        action=_action(reader, references, body_limit),
        name=reader.text("name"),
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        metadata=metadata(reader),
        per_filter_config=per_filter_config(reader, context),
        decorator_operation=decorator.text("operation") if decorator is not None else "",
        stat_prefix=reader.text("stat_prefix"),
    )


def _action(
    reader: Reader, references: list[tuple[str, str]], body_limit: int
) -> ClusterActionConfig | RedirectConfig | DirectResponseConfig | None:
    kind = reader.oneof("action")
    if kind == "route":
        return cluster_action(required(reader, kind), references)
    if kind == "redirect":
        return redirect(required(reader, kind))
    if kind == "direct_response":
        return direct_response(required(reader, kind), body_limit)
    if kind == "non_forwarding_action":
        required(reader, kind)
        return None
    raise reader.error("this action is not supported", kind)


_PATHS = {"prefix": PathMatchKind.PREFIX, "path": PathMatchKind.PATH, "path_separated_prefix": PathMatchKind.SEPARATED_PREFIX}


def _match(reader: Reader) -> RouteMatchConfig:
    specifier = reader.oneof("path_specifier")
    path = ""
    if specifier in _PATHS:
        kind, path = _PATHS[specifier], reader.text(specifier)
        if kind is PathMatchKind.SEPARATED_PREFIX and not path.startswith("/"):
            raise reader.error("must start with /", specifier)
    elif specifier == "safe_regex":
        kind, path = PathMatchKind.REGEX, regex(required(reader, specifier))
    elif specifier == "connect_matcher":
        kind = PathMatchKind.CONNECT
        required(reader, specifier)
    else:
        raise reader.error("this way of matching paths is not supported", specifier)
    grpc = reader.sub("grpc")
    return RouteMatchConfig(
        kind=kind,
        path=path,
        case_sensitive=reader.flag("case_sensitive", True),
        headers=reader.each("headers", header_matcher),
        query_parameters=reader.each("query_parameters", query_parameter_matcher),
        runtime_fraction=runtime_fraction(reader.sub("runtime_fraction")),
        grpc=grpc is not None,
    )


def per_filter_config(reader: Reader, context: Context) -> dict[str, Any]:
    """`typed_per_filter_config`: filter name → translated configuration; `None` where the filter is switched off."""
    result: dict[str, Any] = {}
    for name, extension in reader.extensions("typed_per_filter_config"):
        try:
            result[name] = _one_filter(extension, context)
        except ConfigError as error:
            reader.problems.extend(error)
    return result


def _one_filter(extension: Extension, context: Context) -> Any:
    if extension.type == _FILTER_CONFIG:
        wrapper = extension.reader
        if wrapper.flag("disabled"):
            return None
        wrapper.flag("is_optional")
        inner = wrapper.extension("config")
        if inner is None:
            raise wrapper.error("needs config or disabled")
        extension = inner
    entry = registry.route_config(extension.type)
    if entry is None or entry.translate_route is None:
        raise extension.unsupported("per-route configuration of a filter")
    return entry.translate_route(extension, context)
