"""Route tables, virtual hosts and routes: what is matched. The actions are in `route_action`."""

from __future__ import annotations

from google.protobuf.message import Message

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
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import header_changes, metadata, required, runtime_fraction
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.formats import regex
from mesh_proxy.config.translate.matchers import header_matcher, query_parameter_matcher
from mesh_proxy.config.translate.per_filter import per_filter_config
from mesh_proxy.config.translate.rate_limit import rate_limit
from mesh_proxy.config.translate.route_action import (
    Scope,
    cluster_action,
    direct_response,
    mirrors,
    redirect,
    retry_policy,
)


def translate_route_configuration(message: Message, path: str, context: Context | None = None) -> RouteTableConfig:
    """`envoy.config.route.v3.RouteConfiguration`."""
    return run(message, path, route_table, context)


def route_table(reader: Reader, context: Context, *, inline: bool = False) -> RouteTableConfig:
    """`inline`: the table stands in the listener, where clusters are checked by default."""
    validate = reader.flag("validate_clusters") if reader.has("validate_clusters") else None
    limit = reader.number("max_direct_response_body_size_bytes", 4096)
    scope = Scope(context=context, body_limit=limit)
    hosts = reader.each("virtual_hosts", lambda r: _virtual_host(r, scope))
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
        mirrors=mirrors(reader, scope),
    )
    if validate or (validate is None and inline):
        context.cluster_references.extend(scope.references)
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


def _virtual_host(reader: Reader, scope: Scope) -> VirtualHostConfig:
    policy = reader.sub("retry_policy")
    limit = reader.optional_number("per_request_buffer_limit_bytes")
    return VirtualHostConfig(
        name=reader.text("name"),
        domains=tuple(domain.lower() for domain in reader.strings("domains")),
        routes=reader.each("routes", lambda r: _route(r, scope)),
        require_tls={"EXTERNAL_ONLY": "EXTERNAL_ONLY", "ALL": "ALL"}.get(reader.enum("require_tls"), "NONE"),
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        include_request_attempt_count=reader.flag("include_request_attempt_count"),
        include_attempt_count_in_response=reader.flag("include_attempt_count_in_response"),
        include_is_timeout_retry_header=reader.flag("include_is_timeout_retry_header"),
        retry_policy=retry_policy(policy) if policy is not None else None,
        per_filter_config=per_filter_config(reader, scope.context),
        per_request_buffer_limit_bytes=limit,
        rate_limits=reader.each("rate_limits", rate_limit),
        mirrors=mirrors(reader, scope),
    )


def _route(reader: Reader, scope: Scope) -> RouteConfig:
    decorator = reader.sub("decorator")
    return RouteConfig(
        match=route_match(required(reader, "match")),
        action=_action(reader, scope),
        name=reader.text("name"),
        request_headers=header_changes(reader, "request"),
        response_headers=header_changes(reader, "response"),
        metadata=metadata(reader),
        per_filter_config=per_filter_config(reader, scope.context),
        decorator_operation=decorator.text("operation") if decorator is not None else "",
        stat_prefix=reader.text("stat_prefix"),
    )


def _action(reader: Reader, scope: Scope) -> ClusterActionConfig | RedirectConfig | DirectResponseConfig | None:
    kind = reader.oneof("action")
    if kind == "route":
        return cluster_action(required(reader, kind), scope)
    if kind == "redirect":
        return redirect(required(reader, kind))
    if kind == "direct_response":
        return direct_response(required(reader, kind), scope.body_limit)
    if kind == "non_forwarding_action":
        required(reader, kind)
        return None
    raise reader.error("this action is not supported", kind)


_PATHS = {"prefix": PathMatchKind.PREFIX, "path": PathMatchKind.PATH, "path_separated_prefix": PathMatchKind.SEPARATED_PREFIX}


def route_match(reader: Reader) -> RouteMatchConfig:
    """`RouteMatch`."""
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
