"""Tokens: places, keys, claims, times, requirements, what goes on with the request, and rules about claims."""

import base64
import json
import time
from dataclasses import replace

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from parity import Case, Pair, Suite, bootstrap, cluster, file_log, hcm, http, listener, req
from parity.config import LOG_OPERATORS

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
NOW = int(time.time())
SECRET = b"a secret that is long enough for any of the HMACs there are, sixty-four bytes at least"
KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "other": rsa.generate_private_key(65537, 2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ec384": ec.generate_private_key(ec.SECP384R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}


def jwk(kid: str, **more: str) -> dict[str, str]:
    key = KEYS.get(kid)
    if isinstance(key, rsa.RSAPrivateKey):
        members = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        members = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif key is not None:
        members = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        members = HMACAlgorithm.to_jwk(SECRET, as_dict=True)
    members.pop("key_ops", None)
    return {**members, "kid": kid, **more}


JWKS = json.dumps({"keys": [jwk("rsa", alg="RS256"), jwk("ec"), jwk("ec384"), jwk("ed"), jwk("hmac", alg="HS256")]})
NAMELESS = json.dumps({"keys": [{key: value for key, value in jwk("rsa").items() if key != "kid"}, jwk("other")]})
ALGS = {"rsa": "RS256", "other": "RS256", "ec": "ES256", "ec384": "ES384", "ed": "EdDSA", "hmac": "HS256"}


def token(
    kid: str = "rsa", *, alg: str = "", named: str | None = "", headers: dict[str, object] | None = None, **claims: object
) -> str:
    """Signed by a key, valid for an hour, unless the claims say otherwise (None: without it)."""
    payload = {"iss": "one", "sub": "me", "aud": "shop", "exp": NOW + 3600, "iat": NOW, **claims}
    payload = {key: value for key, value in payload.items() if value is not None}
    head = {"kid": kid if named == "" else named, **(headers or {})}
    key = KEYS.get(kid, SECRET)
    return jwt.encode(payload, key, alg or ALGS[kid], {k: v for k, v in head.items() if v is not None})  # type: ignore[arg-type]


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw(header: object, payload: object, signature: bytes = b"signature") -> str:
    return f"{part(header)}.{part(payload)}.{part(signature)}"


def bearer(text: str) -> str:
    return f"authorization: Bearer {text}"


def local(text: str = JWKS) -> str:
    return f"local_jwks: {{inline_string: '{text}'}}"


def provider(name: str, fields: str = "", issuer: str = "one", keys: str = "") -> str:
    return f"{name}: {{issuer: {issuer}, {keys or local()}{', ' + fields if fields else ''}}}"


RULE = "rules: [{match: {prefix: /}, requires: {provider_name: p}}]"
SHOWN = "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"
PLAIN = "[{match: {prefix: /}, route: {cluster: a}}]"
LOG = {**LOG_OPERATORS, "meta": SHOWN}


def site(name: str, *providers: str, rules: str = RULE, more: str = "", routes: str = PLAIN, after: str = "") -> object:
    fields = f"providers: {{{', '.join(providers)}}}, {rules}{', ' + more if more else ''}"
    chain = f"http_filters: [{{name: jwt, typed_config: {{'@type': {HTTP}jwt_authn.v3.JwtAuthentication, {fields}}}}}, {after}{ROUTER}]"
    return listener(name, hcm(name, yaml.safe_load(routes), chain, [file_log(f"$(dir)/{name}.log", LOG)]))


def needs(text: str) -> str:
    return f"rules: [{{match: {{prefix: /}}, requires: {text}}}]"


PER_ROUTE = f"'@type': {HTTP}jwt_authn.v3.PerRouteConfig"
ROUTED = f"""[
 {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{jwt: {{{PER_ROUTE}, disabled: true}}}}}},
 {{match: {{prefix: /named}}, route: {{cluster: a}}, typed_per_filter_config: {{jwt: {{{PER_ROUTE}, requirement_name: lenient}}}}}},
 {{match: {{prefix: /}}, route: {{cluster: a}}}}]"""
RBAC = f"{{name: rbac, typed_config: {{'@type': {HTTP}rbac.v3.RBAC, rules: {{policies: {{p: {{permissions: [{{any: true}}], principals: [{{and_ids: {{ids: [PRINCIPALS]}}}}]}}}}}}}}}}, "


def claim(path: str, value: str) -> str:
    keys = ", ".join(f"{{key: {key}}}" for key in ["payload", *path.split(".")])
    return f"{{metadata: {{filter: envoy.filters.http.jwt_authn, path: [{keys}], value: {{{value}}}}}}}"


def remote(path: str = "/jwks", more: str = "") -> str:
    return (
        f"remote_jwks: {{http_uri: {{uri: 'http://keys.test{path}', cluster: keys, timeout: 5s}}{', ' + more if more else ''}}}"
    )


SUITE = Suite(
    bootstrap(
        [
            site("plain", provider("p")),
            site("audience", provider("p", "audiences: [shop, 'https://www.shop.test/']")),
            site("places", provider("p", "from_headers: [{name: x-token}, {name: x-pre, value_prefix: 'Token '}], from_params: [tok], from_cookies: [session]")),
            site("forward", provider("p", "forward: true, forward_payload_header: x-payload, pad_forward_payload_header: true, payload_in_metadata: payload, header_in_metadata: head, claim_to_headers: [{header_name: x-sub, claim_name: sub}, {header_name: x-n, claim_name: deep.n}, {header_name: x-b, claim_name: sure}, {header_name: x-l, claim_name: list}, {header_name: x-none, claim_name: none}], normalize_payload_in_metadata: {space_delimited_claims: [scope]}")),
            site("nameless", provider("p", keys=local(NAMELESS))),
            site("anyissuer", provider("p").replace("issuer: one, ", "")),
            site("skew", provider("p", "clock_skew_seconds: 300, require_expiration: true")),
            site("lifetime", provider("p", "max_lifetime: 7200s, subjects: {prefix: m}")),
            site("any", provider("p"), provider("q", "from_headers: [{name: x-q}]", issuer="two"), rules=needs("{requires_any: {requirements: [{provider_name: p}, {provider_name: q}]}}")),
            site("all", provider("p"), provider("q", "from_headers: [{name: x-q}]", issuer="two"), rules=needs("{requires_all: {requirements: [{provider_name: p}, {provider_name: q}]}}")),
            site("missing", provider("p"), rules=needs("{requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}}")),
            site("failed", provider("p", "payload_in_metadata: payload"), rules=needs("{allow_missing_or_failed: {}}")),
            site("justmissing", provider("p"), rules=needs("{allow_missing: {}}")),
            site("aud2", provider("p"), rules=needs("{provider_and_audiences: {provider_name: p, audiences: [special]}}")),
            site("paths", provider("p"), rules="rules: [{match: {path: /open}}, {match: {prefix: /a, headers: [{name: x-h}]}, requires: {provider_name: p}}, {match: {safe_regex: {regex: '/r[0-9]+'}}, requires: {provider_name: p}}, {match: {path_separated_prefix: /s}, requires: {provider_name: p}}]"),
            site("routed", provider("p"), more="requirement_map: {lenient: {allow_missing: {}}}", routes=ROUTED),
            site("cors", provider("p"), more="bypass_cors_preflight: true"),
            site("strip", provider("p"), more="strip_failure_response: true"),
            site("claims", provider("p", "payload_in_metadata: payload"), after=RBAC.replace("PRINCIPALS", ", ".join([claim("groups", "list_match: {one_of: {string_match: {exact: admin}}}"), claim("deep.level", "double_match: {range: {start: 3, end: 9}}")]))),
            site("istio", provider("origins-0", "payload_in_metadata: payload, normalize_payload_in_metadata: {space_delimited_claims: [scope]}, forward: true"), rules=needs("{requires_any: {requirements: [{provider_name: origins-0}, {allow_missing: {}}]}}"), more="bypass_cors_preflight: true", after=RBAC.replace("PRINCIPALS", f"{{or_ids: {{ids: [{claim('iss', 'string_match: {exact: one}')}]}}}}, {claim('scope', 'list_match: {one_of: {string_match: {exact: write}}}')}")),
            site("remote", provider("p", keys=remote())),
            site("ahead", provider("p", keys=remote(more="async_fetch: {}"))),
            site("gone", provider("p", keys=remote("/gone"))),
            site("nonsense", provider("p", keys=remote("/nonsense"))),
            http("keys", f"[{{match: {{path: /jwks}}, direct_response: {{status: 200, body: {{inline_string: '{JWKS}'}}}}}}, {{match: {{path: /nonsense}}, direct_response: {{status: 200, body: {{inline_string: nonsense}}}}}}]"),
        ],
        [cluster("a", "a"), cluster("keys", "a")],
    ),
)  # fmt: skip
for entry in SUITE.config["static_resources"]["clusters"]:
    if entry["name"] == "keys":
        entry["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = (
            "$(port.keys)"
        )


def ask(name: str, listener: str, status: int, *headers: str, target: str = "/", verb: str = "GET", **more: object) -> Case:
    return Case(f"{listener}_{name}", req(verb, target, *headers), status, listener=listener, **more)  # type: ignore[arg-type]


OLD = {"exp": NOW - 3600, "iat": NOW - 7200}
GOOD = token()
TAMPERED = GOOD[:-6] + ("AAAAAA" if not GOOD.endswith("AAAAAA") else "BBBBBB")
WIDE = token(deep={"n": 7, "level": 5}, sure=True, list=["a", "b"], scope="read write", groups=["admin", "dev"])
PUBLIC = KEYS["rsa"].public_key()
CONFUSED = jwt.api_jws.encode(json.dumps({"iss": "one", "exp": NOW + 3600}).encode(), SECRET, "HS256", {"kid": "rsa"})
CRIT = {
    "response*": "we know no extension, so a critical one is refused (RFC 7515, 4.1.11)",
    "upstream*": "likewise",
    "log*": "likewise",
}
AGES_S = {"plain_expired_within_skew": 20, "skew_old": 200}
"""how long ago these tokens expired: they are signed when the case runs, which may be long after this module was read"""
CASES = (
    ask("good", "plain", 200, bearer(GOOD)),
    ask("es256", "plain", 200, bearer(token("ec"))),
    ask("es384", "plain", 200, bearer(token("ec384"))),
    ask("eddsa", "plain", 200, bearer(token("ed"))),
    ask("hs256", "plain", 200, bearer(token("hmac"))),
    ask("missing", "plain", 401, want={"log.details": "jwt_authn_access_denied{Jwt_is_missing}"}),
    ask("missing_query", "plain", 401, target="/x?y=z"),
    ask("parameter", "plain", 200, target=f"/x?access_token={GOOD}"),
    ask("lower_bearer", "plain", 401, f"authorization: bearer {GOOD}"),
    ask("basic", "plain", 401, "authorization: Basic Zm9vOmJhcg=="),
    ask("empty_bearer", "plain", 401, "authorization: Bearer "),
    ask("quoted", "plain", 401, f'authorization: Bearer "{GOOD}"'),
    ask("two_headers", "plain", 401, bearer(GOOD), "authorization: Basic x"),
    ask("tampered", "plain", 401, bearer(TAMPERED)),
    ask("expired", "plain", 401, bearer(token(**OLD))),
    ask("expired_within_skew", "plain", 200),
    ask("not_yet", "plain", 401, bearer(token(nbf=NOW + 3600))),
    ask("not_yet_within_skew", "plain", 200, bearer(token(nbf=NOW + 20))),
    ask("no_exp", "plain", 200, bearer(token(exp=None))),
    ask("other_issuer", "plain", 401, bearer(token(iss="two"))),
    ask("no_issuer", "plain", 401, bearer(token(iss=None))),
    ask("other_key", "plain", 401, bearer(token("other", named="rsa"))),
    ask("unknown_kid", "plain", 401, bearer(token("rsa", named="nobody"))),
    ask("no_kid", "plain", 200, bearer(token("rsa", named=None))),
    ask("wrong_alg_of_key", "plain", 401, bearer(token("rsa", alg="RS512"))),
    ask("ps256_of_rs256_key", "plain", 401, bearer(token("rsa", alg="PS256"))),
    ask("alg_none", "plain", 401, bearer(f"{part({'alg': 'none'})}.{part({'iss': 'one'})}.")),
    ask("alg_none_signed", "plain", 401, bearer(raw({"alg": "none"}, {"iss": "one"}))),
    ask("alg_missing", "plain", 401, bearer(raw({}, {"iss": "one"}))),
    ask("alg_number", "plain", 401, bearer(raw({"alg": 5}, {"iss": "one"}))),
    ask("confusion", "plain", 401, bearer(CONFUSED)),
    ask("crit", "plain", 200, bearer(token(headers={"crit": ["b64"], "b64": True})), accept=CRIT, ours={"response.status": "401"}),
    ask("kid_number", "plain", 401, bearer(raw({"alg": "RS256", "kid": 5}, {"iss": "one"}))),
    ask("two_parts", "plain", 401, bearer("a.b")),
    ask("four_parts", "plain", 401, bearer("a.b.c.d")),
    ask("header_base64", "plain", 401, bearer("a.b.c")),
    ask("header_json", "plain", 401, bearer(raw(b"nonsense", {}))),
    ask("header_list", "plain", 401, bearer(raw([], {}))),
    ask("payload_base64", "plain", 401, bearer(part({"alg": "RS256"}) + ".a.c")),
    ask("payload_json", "plain", 401, bearer(raw({"alg": "RS256"}, b"nonsense"))),
    ask("iss_number", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": 5}))),
    ask("sub_number", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "sub": 5}))),
    ask("exp_text", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "exp": "soon"}))),
    ask("exp_negative", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "exp": -1}))),
    ask("nbf_text", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "nbf": "soon"}))),
    ask("aud_number", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "aud": 5}))),
    ask("signature_base64", "plain", 401, bearer(f"{part({'alg': 'RS256'})}.{part({'iss': 'one'})}.!!!!")),
    ask("signature_other", "plain", 401, bearer(raw({"alg": "RS256"}, {"iss": "one", "exp": NOW + 3600})), accept={path: "Envoy tries an RS256 token with an Ed25519 key too, and complains of that" for path in ("response.body", "response.headers.content-length", "log.details", "log.tx")}),
    Case("plain_grpc", req("POST", "/s.S/M", "content-type: application/grpc", "te: trailers", "content-length: 0"), 200, listener="plain", want={"response.headers.grpc-status": "16"}),
    ask("good", "audience", 200, bearer(GOOD)),
    ask("other", "audience", 403, bearer(token(aud="garden"))),
    ask("none", "audience", 403, bearer(token(aud=None))),
    ask("list", "audience", 200, bearer(token(aud=["garden", "shop"]))),
    ask("url", "audience", 200, bearer(token(aud="http://www.shop.test"))),
    ask("slash", "audience", 200, bearer(token(aud="shop/"))),
    ask("header", "places", 200, f"x-token: {GOOD}"),
    ask("prefixed", "places", 200, f"x-pre: Token {GOOD}"),
    ask("without_prefix", "places", 401, f"x-pre: {GOOD}"),
    ask("parameter", "places", 200, target=f"/a?x=1&tok={GOOD}&y=2"),
    ask("only_parameter", "places", 200, target=f"/a?tok={GOOD}"),
    ask("cookie", "places", 200, f"cookie: a=b; session={GOOD}; c=d"),
    ask("only_cookie", "places", 200, f"cookie: session={GOOD}"),
    ask("bearer", "places", 401, bearer(GOOD)),
    ask("two_good", "places", 200, f"x-token: {GOOD}", f"x-pre: Token {GOOD}"),
    ask("one_bad", "places", 401, f"x-token: {GOOD}", f"x-pre: Token {TAMPERED}"),
    ask("all", "forward", 200, bearer(WIDE)),
    ask("spoofed", "forward", 200, bearer(WIDE), "x-payload: fake", "x-sub: root", "x-none: fake"),
    ask("spoofed_denied", "forward", 401, "x-sub: root"),
    ask("first", "nameless", 200, bearer(token("rsa", named=None))),
    ask("second", "nameless", 200, bearer(token("other", named=None))),
    ask("kid_of_nobody", "nameless", 200, bearer(token("rsa", named="nobody"))),
    ask("kid_of_other", "nameless", 200, bearer(token("rsa", named="other"))),
    ask("two", "anyissuer", 200, bearer(token(iss="two"))),
    ask("none", "anyissuer", 200, bearer(token(iss=None))),
    ask("old", "skew", 200),
    ask("older", "skew", 401, bearer(token(exp=NOW - 400))),
    ask("no_exp", "skew", 401, bearer(token(exp=None))),
    ask("short", "lifetime", 200, bearer(token())),
    ask("long", "lifetime", 401, bearer(token(exp=NOW + 90000))),
    ask("no_exp", "lifetime", 401, bearer(token(exp=None))),
    ask("no_iat", "lifetime", 200, bearer(token(iat=None))),
    ask("nbf", "lifetime", 200, bearer(token(iat=None, nbf=NOW - 10))),
    ask("subject", "lifetime", 401, bearer(token(sub="you"))),
    ask("no_subject", "lifetime", 401, bearer(token(sub=None))),
    ask("first", "any", 200, bearer(GOOD)),
    ask("second", "any", 200, f"x-q: {token(iss='two')}"),
    ask("none", "any", 401),
    ask("wrong_issuer", "any", 401, bearer(token(iss="two"))),
    ask("expired", "any", 401, bearer(token(**OLD))),
    ask("expired_second", "any", 401, f"x-q: {token(iss='two', **OLD)}"),
    ask("expired_and_good", "any", 200, bearer(token(**OLD)), f"x-q: {token(iss='two')}"),
    ask("expired_and_unknown", "any", 401, bearer(token(**OLD)), f"x-q: {token(iss='three')}"),
    ask("unknown_and_missing", "any", 401, bearer(token(iss="three"))),
    ask("both", "all", 200, bearer(GOOD), f"x-q: {token(iss='two')}"),
    ask("one", "all", 401, bearer(GOOD)),
    ask("none", "all", 401),
    ask("one_expired", "all", 401, bearer(GOOD), f"x-q: {token(iss='two', **OLD)}"),
    ask("none", "missing", 200),
    ask("good", "missing", 200, bearer(GOOD)),
    ask("bad", "missing", 401, bearer(TAMPERED)),
    ask("expired", "missing", 401, bearer(token(**OLD))),
    ask("issuer", "missing", 401, bearer(token(iss="two"))),
    ask("none", "failed", 200),
    ask("bad", "failed", 200, bearer(TAMPERED)),
    ask("good", "failed", 200, bearer(GOOD)),
    ask("none", "justmissing", 200),
    ask("bad", "justmissing", 401, bearer(TAMPERED)),
    ask("good", "justmissing", 200, bearer(GOOD)),
    ask("special", "aud2", 200, bearer(token(aud="special"))),
    ask("shop", "aud2", 403, bearer(GOOD)),
    ask("open", "paths", 200, target="/open"),
    ask("no_rule", "paths", 200, target="/none"),
    ask("header", "paths", 401, "x-h: 1", target="/a"),
    ask("no_header", "paths", 200, target="/a"),
    ask("regex", "paths", 401, target="/r12?x"),
    ask("no_regex", "paths", 200, target="/r12x"),
    ask("separated", "paths", 401, target="/s/x"),
    ask("not_separated", "paths", 200, target="/sx"),
    ask("off", "routed", 200, target="/off"),
    ask("named", "routed", 200, target="/named"),
    ask("named_bad", "routed", 401, bearer(TAMPERED), target="/named"),
    ask("rule", "routed", 401, target="/x"),
    ask("preflight", "cors", 200, "origin: http://a", "access-control-request-method: GET", verb="OPTIONS"),
    ask("options", "cors", 401, "origin: http://a", verb="OPTIONS"),
    ask("get", "cors", 401, "origin: http://a", "access-control-request-method: GET"),
    ask("none", "strip", 401),
    ask("good", "claims", 200, bearer(WIDE)),
    ask("no_group", "claims", 403, bearer(token(groups=["dev"], deep={"level": 5}))),
    ask("level", "claims", 403, bearer(token(groups=["admin"], deep={"level": 9}))),
    ask("text_level", "claims", 403, bearer(token(groups=["admin"], deep={"level": "5"}))),
    ask("good", "istio", 200, bearer(WIDE)),
    ask("no_scope", "istio", 403, bearer(GOOD)),
    ask("no_token", "istio", 403),
    ask("bad_token", "istio", 401, bearer(TAMPERED)),
    ask("good", "remote", 200, bearer(GOOD)),
    ask("again", "remote", 200, bearer(GOOD)),
    ask("bad", "remote", 401, bearer(TAMPERED)),
    ask("missing", "remote", 401),
    ask("good", "ahead", 200, bearer(token("ec"))),
    ask("good", "gone", 401, bearer(GOOD)),
    ask("missing", "gone", 401),
    ask("good", "nonsense", 401, bearer(GOOD)),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_token(pair: Pair, case: Case) -> None:
    if case.name in AGES_S:
        case = replace(case, send=req("GET", "/", bearer(token(exp=int(time.time()) - AGES_S[case.name]))))
    pair.check(case)


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    kinds = ("allowed", "denied", "cors_preflight_bypassed")
    wanted = {name: value for name, value in envoy.items() if "jwt_authn" in name and name.endswith(kinds) and value}
    assert len(wanted) > 20
    wanted["http.plain.jwt_authn.denied"] += 1  # the token with a critical extension
    wanted["http.plain.jwt_authn.allowed"] -= 1
    assert {name: ours.get(name) for name in wanted} == wanted
