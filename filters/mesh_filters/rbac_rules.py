"""`envoy.config.rbac.v3`: policies of permissions and principals, compiled into functions (Envoy: `filters/common/rbac`).

A subject is what a rule looks at: the stream of a request, or `ConnectionSubject` where there is no request yet. A Dubbo call is
`POST /<service>/<method>` whose headers are its attachments, so that the same rules hold for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext
from mesh_filters.metadata_match import MetadataMatcherConfig, compile_metadata

Test = Callable[[Any], bool]
_PEER: Final = ("rbac", "names of the peer")
"""where a connection keeps them: they do not change while it lives"""
NETWORKS: Final = 4096
"""addresses whose parsed form is kept"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """A permission or principal; which fields count depends on `kind`, the name of the field in Envoy's message."""

    kind: str
    children: tuple[RuleConfig, ...] = ()
    matcher: Any = None
    """of a header, or of a string; None for `authenticated` without a name: any peer with a certificate"""
    metadata: MetadataMatcherConfig | None = None
    key: str = ""
    """of filter state"""
    network: str = ""
    start: int = 0
    end: int = 0
    """ports, `end` not included"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """`Policy`: any of the permissions together with any of the principals."""

    name: str
    permissions: tuple[RuleConfig, ...]
    principals: tuple[RuleConfig, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesConfig:
    """`RBAC`."""

    action: str
    """`ALLOW`, `DENY` or `LOG`"""
    policies: tuple[PolicyConfig, ...]
    """in the order of their names, which decides whose name is reported"""


class ConnectionSubject:
    """A connection without a request: what asks for headers finds none."""

    __slots__ = ("connection", "dynamic_metadata", "filter_state", "remote_address", "request")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.request = RequestHeaders(0, b"", b"", b"", b"", Headers(), True)
        self.remote_address: bytes = connection.remote_address
        self.dynamic_metadata: dict[str, Any] | None = None
        self.filter_state: dict[str, Any] | None = None

    def route_metadata(self) -> Any:
        """There is no route."""
        return {}


class Engine:
    """One set of rules."""

    __slots__ = ("_policies", "action")

    def __init__(self, config: RulesConfig, context: FilterContext) -> None:
        self.action = config.action
        self._policies = tuple(
            (policy.name, any_of(policy.permissions, context), any_of(policy.principals, context)) for policy in config.policies
        )

    def decide(self, subject: Any) -> tuple[bool, str]:
        """Whether the subject may pass, and the policy that matched (empty: none)."""
        for name, permitted, known in self._policies:
            if permitted(subject) and known(subject):
                return self.action != "DENY", name
        return self.action != "ALLOW", ""


def any_of(rules: tuple[RuleConfig, ...], context: FilterContext) -> Test:
    """A test that one of the rules passes."""
    tests = tuple(compile_rule(rule, context) for rule in rules)
    if len(tests) == 1:
        return tests[0]

    def test(subject: Any) -> bool:
        for one in tests:  # noqa: SIM110 - a generator costs more
            if one(subject):
                return True
        return False

    return test


def all_of(rules: tuple[RuleConfig, ...], context: FilterContext) -> Test:
    """A test that all rules pass."""
    tests = tuple(compile_rule(rule, context) for rule in rules)
    if len(tests) == 1:
        return tests[0]

    def test(subject: Any) -> bool:
        for one in tests:  # noqa: SIM110 - a generator costs more
            if not one(subject):
                return False
        return True

    return test


def compile_rule(config: RuleConfig, context: FilterContext) -> Test:
    """One permission or principal.

    Raises:
        ValueError: a regular expression is not valid.
    """
    kind = config.kind
    if kind in ("and_rules", "and_ids"):
        return all_of(config.children, context)
    if kind in ("or_rules", "or_ids"):
        return any_of(config.children, context)
    if kind in ("not_rule", "not_id"):
        inner = compile_rule(config.children[0], context)
        return lambda subject: not inner(subject)
    if kind == "any":
        return lambda subject: True
    if kind == "header":
        matches = context.request_matcher((config.matcher,))
        return lambda subject: matches(subject.request)
    if kind in ("url_path", "uri_template"):
        value = context.value_matcher(config.matcher)
        return lambda subject: bool(subject.request.path) and value(plain_path(subject.request.path))
    if kind == "requested_server_name":
        value = context.value_matcher(config.matcher)
        return lambda subject: value(subject.connection.requested_server_name)
    if kind == "authenticated":
        return _authenticated(context.value_matcher(config.matcher) if config.matcher is not None else None)
    if kind in ("metadata", "sourced_metadata"):
        assert config.metadata is not None
        return _metadata(config.metadata, context)
    if kind == "filter_state":
        return _filter_state(config.key, context.value_matcher(config.matcher))
    if kind in ("destination_port", "destination_port_range"):
        start, end = config.start, config.end
        return lambda subject: start <= subject.connection.local_port < end
    return _address(kind, config.network)


def plain_path(path: bytes) -> bytes:
    """Without query and fragment."""
    return path.partition(b"?")[0].partition(b"#")[0]


def ip_of(address: bytes) -> bytes:
    """`10.0.0.1:80` → `10.0.0.1`; empty for a unix socket."""
    if address.startswith(b"["):
        return address[1 : address.find(b"]")]
    host, colon, _ = address.rpartition(b":")
    return host if colon and b"/" not in address else b""


def peer_names(tls: Any) -> tuple[str, ...]:
    """By what a peer may be known: the URI names of its certificate, then the DNS names, at last its subject."""
    names: list[str] = []
    for attribute in ("peer_uri_san", "peer_dns_san"):
        value = getattr(tls, attribute, None) or ()
        names += [_text(value)] if isinstance(value, (str, bytes)) else [_text(one) for one in value]
    names.append(_text(getattr(tls, "peer_subject", None) or ""))
    return tuple(names)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _authenticated(matches: Callable[[bytes], bool] | None) -> Test:
    def test(subject: Any) -> bool:
        connection = subject.connection
        tls = connection.tls
        if tls is None:
            return False
        if matches is None:
            return True
        state = connection.filter_state
        names = state.get(_PEER)
        if names is None:
            names = state[_PEER] = tuple(name.encode("utf-8", "surrogateescape") for name in peer_names(tls))
        for name in names:  # noqa: SIM110 - a generator costs more
            if matches(name):
                return True
        return False

    return test


def _metadata(config: MetadataMatcherConfig, context: FilterContext) -> Test:
    matches = compile_metadata(config, context)
    if config.of_route:
        return lambda subject: matches(subject.route_metadata())
    return lambda subject: matches(subject.dynamic_metadata)


def _filter_state(key: str, matches: Callable[[bytes], bool]) -> Test:
    def test(subject: Any) -> bool:
        own = subject.filter_state
        value = own.get(key) if own is not None and key in own else subject.connection.filter_state.get(key)
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        return isinstance(value, bytes) and matches(value)

    return test


@lru_cache(maxsize=NETWORKS)
def _parsed(ip: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(ip.decode().partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _address(kind: str, network: str) -> Test:
    wanted = ipaddress.ip_network(network)
    version = wanted.version

    def inside(ip: bytes) -> bool:
        address = _parsed(ip)
        return address is not None and address.version == version and address in wanted

    if kind == "destination_ip":
        return lambda subject: inside(subject.connection.local_ip)
    if kind == "source_ip":
        return lambda subject: inside(subject.connection.remote_ip)
    if kind == "direct_remote_ip":
        return lambda subject: inside(ip_of(subject.connection.direct_remote_address))
    assert kind == "remote_ip", kind
    return lambda subject: inside(ip_of(subject.remote_address))
