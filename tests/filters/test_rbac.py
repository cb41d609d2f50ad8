"""Authorization where no Envoy is to compare with: Dubbo calls, peers with certificates, connections, what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bootstraps import CHAIN, EXT, HCM, ROUTER, web
from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import GET, Plane, answer, at, head, plane, run, upstream

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_filters.rbac_rules import ConnectionSubject, RuleConfig, compile_rule, ip_of
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model.common import StringMatcherConfig, StringMatchKind
from mesh_proxy.config.translate.rbac import template_pattern
from mesh_proxy.routing.matchers import compile_string_matcher

RBAC = f'"@type": {EXT}filters.http.rbac.v3.RBAC'
NETWORK = f'"@type": {EXT}filters.network.rbac.v3.RBAC'
SERVER_ERROR = 80


def rules(permissions: str, principals: str = "{any: true}", action: str = "ALLOW") -> str:
    return f"rules: {{action: {action}, policies: {{p: {{permissions: [{permissions}], principals: [{principals}]}}}}}}"


def echo(frame: bytes) -> bytes | None:
    return wire.answer(id_of(frame))


def dubbo_filter(text: str) -> str:
    return f"{{name: rbac, config: {{{RBAC}, {text}}}}}"


async def call(proxy: tuple[Plane, list[Any]], **fields: Any) -> tuple[int, str]:
    """Status and, of an error, its text."""
    reader, writer = proxy[1][0]
    raw = fields.pop("raw", None)
    writer.write(raw if raw is not None else wire.call(**fields))
    frame = await read_frame(reader)
    (message,) = DubboCodec(HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    return message.status, "" if message.status == 20 else frame[17:].decode()


def test_dubbo_service_and_method() -> None:
    async def test() -> None:
        permission = '{url_path: {path: {exact: "/demo.HelloService/sayHello"}}}'
        async with proxied(Provider(echo), dubbo_filters=dubbo_filter(rules(permission))) as proxy:
            assert await call(proxy) == (20, "")
            status, text = await call(proxy, method="drop")
            assert (status, text) == (SERVER_ERROR, "RBAC: access denied")
            assert await call(proxy, service="demo.Other") == (SERVER_ERROR, "RBAC: access denied")
            assert await call(proxy) == (20, ""), "the connection lives on"
            assert await call(proxy, raw=wire.generic_call("sayHello")) == (20, ""), "the method that is really called"
            assert (await call(proxy, raw=wire.generic_call("drop")))[0] == SERVER_ERROR
            assert proxy[0].stat("dubbo.d.rbac.", "denied") == 3
            assert proxy[0].stat("dubbo.d.rbac.", "allowed") == 3

    run(test())


def test_dubbo_attachments() -> None:
    async def test() -> None:
        permission = "{header: {name: x-role, string_match: {exact: admin}}}"
        async with proxied(Provider(echo), dubbo_filters=dubbo_filter(rules(permission, action="DENY"))) as proxy:
            assert (await call(proxy))[0] == 20
            assert (await call(proxy, attachments={"x-role": "user"}))[0] == 20
            assert (await call(proxy, attachments={"x-role": "admin"}))[0] == SERVER_ERROR
            assert (await call(proxy, attachments={"X-Role": "admin"}))[0] == SERVER_ERROR, "whatever case the consumer writes"

    run(test())


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_what_cannot_be_read_is_not_taken_for_harmless(action: str) -> None:
    async def test() -> None:
        bad = "{header: {name: x-role, string_match: {exact: admin}}}"
        permission = bad if action == "DENY" else f"{{not_rule: {bad}}}"
        async with proxied(Provider(echo), dubbo_filters=dubbo_filter(rules(permission, action=action))) as proxy:
            assert (await call(proxy))[0] == 20
            good = wire.call_body()
            broken = good[: good.rindex(b"H")] + b"H\x04path\x91"  # a map without an end
            assert (await call(proxy, raw=wire.frame(0xC2, 0, 7, broken)))[0] != 20
            assert (await call(proxy, raw=wire.frame(0xC8, 0, 8, b"xx")))[0] != 20, "a serialization that nobody knows"

    run(test())


class _Context:
    """As much of a FilterContext as rules need."""

    def value_matcher(self, matcher: Any) -> Any:
        return compile_string_matcher(matcher)


def peer(**names: Any) -> ConnectionSubject:
    tls = SimpleNamespace(**names) if names else None
    return ConnectionSubject(SimpleNamespace(tls=tls, remote_address=b"10.0.0.1:1", filter_state={"who": "me"}))


def principal(kind: StringMatchKind, value: str) -> Any:
    matcher = StringMatcherConfig(kind=kind, value=value)
    return compile_rule(RuleConfig(kind="authenticated", matcher=matcher), _Context())  # type: ignore[arg-type]


SPIFFE = "spiffe://cluster.local/ns/foo/sa/shop"


def test_a_peer_is_known_by_uri_dns_and_subject() -> None:
    exact = principal(StringMatchKind.EXACT, SPIFFE)
    assert exact(peer(peer_uri_san=(SPIFFE,)))
    assert exact(peer(peer_uri_san=("spiffe://x/y", SPIFFE)))
    assert exact(peer(peer_uri_san=SPIFFE.encode())), "bytes and a single name too"
    assert not exact(peer(peer_uri_san=(SPIFFE + "2",)))
    assert not exact(peer(peer_dns_san=(), peer_subject="CN=shop"))
    assert not exact(peer()), "plain text has no identity"
    assert principal(StringMatchKind.EXACT, "shop.test")(peer(peer_uri_san=(SPIFFE,), peer_dns_san=("shop.test",)))
    assert principal(StringMatchKind.EXACT, "CN=shop")(peer(peer_subject="CN=shop"))
    assert principal(StringMatchKind.REGEX, ".*/ns/foo/.*")(peer(peer_uri_san=(SPIFFE,)))
    assert not principal(StringMatchKind.REGEX, "/ns/foo/")(peer(peer_uri_san=(SPIFFE,))), "the whole name has to match"
    anybody = compile_rule(RuleConfig(kind="authenticated"), _Context())  # type: ignore[arg-type]
    assert anybody(peer(peer_uri_san=()))
    assert not anybody(peer())


def test_filter_state() -> None:
    matcher = StringMatcherConfig(kind=StringMatchKind.EXACT, value="me")
    rule = compile_rule(RuleConfig(kind="filter_state", key="who", matcher=matcher), _Context())  # type: ignore[arg-type]
    assert rule(peer())
    other = peer()
    other.filter_state = {"who": b"you"}
    assert not rule(other), "the stream's own goes before that of the connection"


@pytest.mark.parametrize(
    ("address", "ip"), [(b"10.0.0.1:80", b"10.0.0.1"), (b"[::1]:80", b"::1"), (b"/tmp/a:b", b""), (b"@abstract", b"")]
)
def test_ip_of(address: bytes, ip: bytes) -> None:
    assert ip_of(address) == ip


@pytest.mark.parametrize("template", ["a", "/a/{", "/{a=**}/b", "/a*", "/**/b", "/{1a}", "/a?b"])
def test_bad_templates(template: str) -> None:
    assert template_pattern(template) is None


def network(text: str) -> str:
    return f"{{name: rbac, typed_config: {{{NETWORK}, stat_prefix: tcp., {text}}}}}"


@pytest.mark.parametrize(("ip", "passes"), [("127.0.0.1", True), ("10.0.0.1", False)])
def test_connections(ip: str, passes: bool) -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            allowed = rules("{any: true}", f"{{source_ip: {{address_prefix: {ip}, prefix_len: 32}}}}")
            dry = allowed.replace("rules:", "shadow_rules:").replace("action: ALLOW", "action: DENY")
            http = (
                f"{{name: hcm, typed_config: {{'@type': {EXT}filters.network.http_connection_manager.v3.HttpConnectionManager, "
                "stat_prefix: web, route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, "
                f"route: {{cluster: a}}}}]}}]}}, http_filters: [{ROUTER}]}}}}"
            )
            text = web(
                chain=f"filters: [{network(f'{allowed}, {dry}, shadow_rules_stat_prefix: dry_')}, {http}]", endpoint=at(address)
            )
            async with plane(text) as one:
                reader, writer = await one.connect("web")
                try:
                    writer.write(GET)
                    got = await head(reader) if passes else await reader.read()
                except ConnectionError:
                    got = b""
                assert got.startswith(b"HTTP/1.1 200") is passes
                assert passes or got == b""
                writer.close()
                assert one.stat("tcp.rbac.", "allowed") == passes
                assert one.stat("tcp.rbac.", "denied") == (not passes)
                assert one.stat("tcp.rbac.dry_.", "shadow_denied") == passes

    run(test())


CONDITION = (
    "rules: {policies: {p: {permissions: [{any: true}], principals: [{any: true}], condition: {const_expr: {bool_value: true}}}}}"
)
ADDRESSES = "{filter_state: {key: a, address_match: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}}"
ANY = '{name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.Empty}}'


@pytest.mark.parametrize(
    ("fields", "where", "why"),
    [
        (f"matcher: {{on_no_match: {{action: {ANY}}}}}", "matcher", "matcher tree"),
        (CONDITION, "P.condition", "not supported"),
        (rules(f"{{matcher: {ANY}}}"), "P.permissions[0].matcher", "not supported"),
        (rules("{any: true}", f"{{custom: {ANY}}}"), "P.principals[0].custom", "not supported"),
        (rules("{destination_port_range: {start: 5, end: 5}}"), "P.permissions[0].destination_port_range", "range of ports"),
        (rules("{url_path: {path: {safe_regex: {regex: '('}}}}"), "P.permissions[0].url_path.path.safe_regex.regex", "RE2"),
        (rules("{any: true}", ADDRESSES), "P.principals[0].filter_state.address_match", "string_match"),
        (rules(f"{{uri_template: {ANY}}}"), "P.permissions[0].uri_template", "only"),
        ("rules: {audit_logging_options: {audit_condition: ON_DENY}}", "rules.audit_logging_options", "not supported"),
    ],
)
def test_refused(fields: str, where: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=f"http_filters: [{{name: rbac, typed_config: {{{RBAC}, {fields}}}}}, {ROUTER}]"))
    path, text = caught.value.problems[0]
    assert path == f"{HCM}.http_filters[0].typed_config.{where.replace('P.', 'rules.policies[p].')}"
    assert why in text


def test_refused_at_connections() -> None:
    text = f"filters: [{network('enforcement_type: CONTINUOUS')}, {{name: hcm}}]"
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(chain=text))
    assert caught.value.problems[0][0] == f"{CHAIN}.filters[0].typed_config.enforcement_type"


def test_connections_have_no_headers() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(chain=f"filters: [{network(rules('{header: {name: a}}'))}, {{name: hcm}}]"))
    where = f"{CHAIN}.filters[0].typed_config.rules.policies[p].permissions[0].header"
    assert caught.value.problems[0] == (where, "a connection has no headers")
