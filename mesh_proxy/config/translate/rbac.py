"""`envoy.config.rbac.v3`: rules of the HTTP and the network filter."""

from __future__ import annotations

from functools import partial

from mesh_filters.rbac_rules import PolicyConfig, RuleConfig, RulesConfig
from mesh_proxy.config.model.common import StringMatcherConfig, StringMatchKind
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import cidr, required
from mesh_proxy.config.translate.formats import compiled
from mesh_proxy.config.translate.matchers import header_matcher, string_matcher
from mesh_proxy.config.translate.metadata_match import metadata_matcher

URI_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_NETWORKS = ("source_ip", "direct_remote_ip", "remote_ip", "destination_ip")
_SEGMENT = "[-a-zA-Z0-9._~%!$&'()+,;:@=]"
"""characters of a path segment, of which `*` in a template stands for one or more"""
MAX_PORT = 65536


def rules(reader: Reader | None, *, requests: bool = True) -> RulesConfig | None:
    """`RBAC`. Without `requests` it is about connections: rules for headers are refused then, as by Envoy."""
    if reader is None:
        return None
    action = reader.enum("action")
    return RulesConfig(
        action=action, policies=tuple(_policy(name, policy, requests) for name, policy in reader.entries("policies"))
    )


def refuse_matcher(reader: Reader) -> None:
    """The other form of rules."""
    for name in ("matcher", "shadow_matcher"):
        if reader.has(name):
            raise reader.error("rules as a matcher tree are not supported: use policies", name)


def _policy(name: str, reader: Reader, requests: bool) -> PolicyConfig:
    return PolicyConfig(
        name=name,
        permissions=reader.each("permissions", partial(_permission, requests=requests)),
        principals=reader.each("principals", partial(_principal, requests=requests)),
    )


def _permission(reader: Reader, *, requests: bool) -> RuleConfig:
    kind = reader.oneof("rule")
    if kind in ("and_rules", "or_rules"):
        return RuleConfig(kind=kind, children=required(reader, kind).each("rules", partial(_permission, requests=requests)))
    if kind == "not_rule":
        return RuleConfig(kind=kind, children=(_permission(required(reader, kind), requests=requests),))
    if kind == "destination_port":
        port = reader.number(kind)
        return RuleConfig(kind=kind, start=port, end=port + 1)
    if kind == "destination_port_range":
        bounds = required(reader, kind)
        start, end = bounds.number("start"), bounds.number("end")
        if not 0 <= start < end <= MAX_PORT:
            raise bounds.error(f"must be a range of ports, not {start} to {end}")
        return RuleConfig(kind=kind, start=start, end=end)
    if kind == "requested_server_name":
        return RuleConfig(kind=kind, matcher=string_matcher(required(reader, kind)))
    if kind == "uri_template":
        return RuleConfig(kind=kind, matcher=_uri_template(required(reader, kind)))
    return _either(reader, kind, requests)


def _principal(reader: Reader, *, requests: bool) -> RuleConfig:
    kind = reader.oneof("identifier")
    if kind in ("and_ids", "or_ids"):
        return RuleConfig(kind=kind, children=required(reader, kind).each("ids", partial(_principal, requests=requests)))
    if kind == "not_id":
        return RuleConfig(kind=kind, children=(_principal(required(reader, kind), requests=requests),))
    if kind == "authenticated":
        name = required(reader, kind).sub("principal_name")
        return RuleConfig(kind=kind, matcher=string_matcher(name) if name is not None else None)
    if kind == "filter_state":
        state = required(reader, kind)
        if state.oneof("matcher") != "string_match":
            raise state.error("only string_match is supported", state.oneof("matcher"))
        return RuleConfig(kind=kind, key=state.text("key"), matcher=string_matcher(required(state, "string_match")))
    return _either(reader, kind, requests)


def _either(reader: Reader, kind: str, requests: bool) -> RuleConfig:
    """What permissions and principals have in common."""
    if kind == "any":
        reader.flag(kind)
        return RuleConfig(kind=kind)
    if kind == "header":
        if not requests:
            raise reader.error("a connection has no headers", kind)
        return RuleConfig(kind=kind, matcher=header_matcher(required(reader, kind)))
    if kind == "url_path":
        return RuleConfig(kind=kind, matcher=string_matcher(required(required(reader, kind), "path")))
    if kind in _NETWORKS:
        return RuleConfig(kind=kind, network=cidr(required(reader, kind)))
    if kind == "metadata":
        return RuleConfig(kind=kind, metadata=metadata_matcher(required(reader, kind)))
    if kind == "sourced_metadata":
        sourced = required(reader, kind)
        of_route = sourced.enum("metadata_source") == "ROUTE"
        return RuleConfig(kind=kind, metadata=metadata_matcher(required(sourced, "metadata_matcher"), of_route=of_route))
    raise reader.error("this rule is not supported", kind)


def _uri_template(reader: Reader) -> StringMatcherConfig:
    reader.text("name")
    extension = reader.extension()
    if extension is None or extension.type != URI_TEMPLATE:
        raise reader.error(f"only {URI_TEMPLATE} is supported")
    inner = extension.reader
    template = inner.text("path_template")
    pattern = template_pattern(template)
    if pattern is None:
        raise inner.error(f"{template!r} is not a path template", "path_template")
    compiled(pattern, inner.at("path_template"))
    return StringMatcherConfig(kind=StringMatchKind.REGEX, value=pattern)


def template_pattern(template: str) -> str | None:
    """A regular expression for `/a/{name}/{rest=**}`; None when it is no template (`UriTemplateMatchConfig`)."""
    if not template.startswith("/"):
        return None
    parts = []
    segments = template[1:].split("/")
    for i, segment in enumerate(segments):
        if segment.startswith("{") and segment.endswith("}"):
            name, equals, inner = segment[1:-1].partition("=")
            if not name.isidentifier():
                return None
            segment = inner if equals else "*"
        if segment.startswith("**"):
            # The suffix behind `**` must be literal, and nothing may follow it.
            if i != len(segments) - 1 or not _literal(segment[2:]):
                return None
            parts.append(f"(?:{_SEGMENT}|/)*{_escaped(segment[2:])}")
        elif segment == "*":
            parts.append(f"{_SEGMENT}+")
        elif _literal(segment):
            parts.append(_escaped(segment))
        else:
            return None
    return "/" + "/".join(parts)


def _literal(text: str) -> bool:
    return not set(text) & set("*{}?#[]\\")


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_~/%" else f"\\{c}" for c in text)
