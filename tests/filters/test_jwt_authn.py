"""Tokens where no Envoy is to compare with: Dubbo calls, keys that change, fail and come back, bad configurations."""

from __future__ import annotations

import asyncio
import hmac
import json
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import jwt
import pytest
from bootstraps import EXT, HCM, ROUTER, web
from cryptography.hazmat.primitives.asymmetric import ec
from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from jwt.algorithms import ECAlgorithm
from plane_support import Plane, answer, at, head, plane, run, until, upstream

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_filters import jwt_source
from mesh_filters.jwt_keys import MAX_KEYS, KeySet
from mesh_filters.jwt_places import HEADER, PARAMETER, Place, find, remove
from mesh_filters.jwt_provider import claim_text
from mesh_filters.jwt_token import Status, Token, TokenError, encode
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

JWT = f'"@type": {EXT}filters.http.jwt_authn.v3.JwtAuthentication'
RULE = "rules: [{match: {prefix: /}, requires: {provider_name: p}}]"
KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]


def jwks(*numbers: int) -> str:
    keys = []
    for number in numbers:
        members = ECAlgorithm.to_jwk(KEYS[number].public_key(), as_dict=True)
        members.pop("key_ops", None)
        keys.append({**members, "kid": f"k{number}"})
    return json.dumps({"keys": keys})


def token(number: int = 0, **claims: object) -> str:
    payload = {"iss": "one", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(payload, KEYS[number], "ES256", {"kid": f"k{number}"})


def test_dubbo_attachment() -> None:
    async def test() -> None:
        claims = "claim_to_headers: [{header_name: x-user, claim_name: sub}]"
        provider = f"p: {{issuer: one, local_jwks: {{inline_string: '{jwks(0)}'}}, {claims}}}"
        filters = f"{{name: jwt, config: {{{JWT}, providers: {{{provider}}}, {RULE}}}}}"
        endpoint = Provider(lambda frame: wire.answer(id_of(frame)))
        async with proxied(endpoint, dubbo_filters=filters) as (one, [(reader, writer)]):

            async def call(**attachments: str) -> tuple[int, bytes]:
                writer.write(wire.call(attachments=attachments))
                frame = await read_frame(reader)
                return frame[3], frame[16:]

            assert (await call(authorization=f"Bearer {token(sub='me')}"))[0] == 20
            (seen,) = DubboCodec(HeadMemo()).receive_data(endpoint.frames[-1])
            assert isinstance(seen, DubboMessage)
            assert seen.attachments is not None
            assert seen.attachments.values.get(b"x-user") == b"me"
            assert b"authorization" not in seen.attachments.values, "not forwarded"
            status, body = await call()
            assert status == 80
            assert b"Jwt is missing" in body
            status, body = await call(authorization=f"Bearer {token(exp=1)}")
            assert (status, b"Jwt is expired" in body) == (80, True)
            assert one.stat("dubbo.d.jwt_authn.", "denied") == 2
            assert one.stat("dubbo.d.jwt_authn.", "allowed") == 1

    run(test())


class KeyServer:
    """Serves what it is told, and counts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            got = await head(reader)
            assert got.startswith(b"GET /keys?v=1 HTTP/1.1\r\n"), got
            assert b"host: keys.test:8443\r\n" in got
            self.asked += 1
            await self.gate.wait()
            if not self.text:
                writer.write(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n")
            else:
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.text)}\r\n\r\n{self.text}".encode())


async def served(stack: AsyncExitStack, server: KeyServer, more: str = "") -> Plane:
    address = await stack.enter_async_context(upstream(answer))
    keys = await stack.enter_async_context(upstream(server.serve))
    source = f"remote_jwks: {{http_uri: {{uri: 'http://keys.test:8443/keys?v=1', cluster: keys, timeout: 20s}}{more}}}"
    filters = (
        f"http_filters: [{{name: jwt, typed_config: {{{JWT}, providers: {{p: {{issuer: one, {source}}}}}, {RULE}}}}}, {ROUTER}]"
    )
    cluster = f"- {{name: keys, load_assignment: {{cluster_name: keys, endpoints: [{{lb_endpoints: [{{{at(keys)}}}]}}]}}}}"
    return await stack.enter_async_context(plane(web(hcm=filters, endpoint=at(address), static=cluster)))


async def ask(proxy: Plane, text: str) -> int:
    reader, writer = await proxy.connect("web")
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {text}\r\n\r\n".encode())
        return int((await head(reader)).split()[1])
    finally:
        writer.close()


def test_keys_are_fetched_once_for_all_who_wait() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer(jwks(0))
            server.gate.clear()
            proxy = await served(stack, server)
            asking = [asyncio.ensure_future(ask(proxy, token())) for _ in range(5)]
            gone = asyncio.ensure_future(ask(proxy, token()))
            await until(lambda: server.asked > 0)
            gone.cancel()
            server.gate.set()
            assert await asyncio.gather(*asking) == [200] * 5
            assert await ask(proxy, token()) == 200
            assert await ask(proxy, token()[:-8] + "AAAAAAAA") == 401
            assert server.asked == 1
            assert proxy.stat("http.web.jwt_authn.", "jwks_fetch_success") == 1

    run(test())


def test_an_unknown_key_is_a_reason_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer(jwks(0))
            proxy = await served(stack, server)
            assert await ask(proxy, token(0)) == 200
            assert await ask(proxy, token(1)) == 401
            assert server.asked == 1, "not at once: anybody can send unknown keys"
            monkeypatch.setattr(jwt_source, "UNKNOWN_KEY_INTERVAL_S", 0.0)
            server.text = jwks(1)
            assert await ask(proxy, token(1)) == 200
            assert server.asked == 2
            assert await ask(proxy, token(0)) == 401, "the old key is no longer there, what it proved does not count"

    run(test())


def test_a_failure_is_not_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer("")
            proxy = await served(stack, server, ", async_fetch: {failed_refetch_duration: 3600s}")
            await until(lambda: server.asked > 0)
            assert await ask(proxy, token()) == 401
            assert await ask(proxy, token()) == 401
            assert server.asked == 1
            assert proxy.stat("http.web.jwt_authn.", "jwks_fetch_failed") == 1

    run(test())


def test_keys_that_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer("")
            proxy = await served(stack, server, ", async_fetch: {failed_refetch_duration: 0.01s}")
            await until(lambda: server.asked >= 3)
            server.text = jwks(0)
            await until(lambda: proxy.stat("http.web.jwt_authn.", "jwks_fetch_success") > 0)
            assert await ask(proxy, token()) == 200

    run(test())


def test_retries() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer("")
            more = ", retry_policy: {num_retries: 2, retry_back_off: {base_interval: 0.001s}}"
            proxy = await served(stack, server, more)
            assert await ask(proxy, token()) == 401
            assert server.asked == 3

    run(test())


def test_a_key_set_too_large() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = KeyServer(jwks(0) + " " * (jwt_source.MAX_KEYS_BYTES + 1))
            proxy = await served(stack, server)
            assert await ask(proxy, token()) == 401

    run(test())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "no list"),
        ('{"keys": {}}', "no list"),
        ('{"keys": []}', "no key"),
        ('{"keys": [5, {"kty": "XYZ"}, {"kty": "RSA", "n": "?", "e": "AQAB"}, {"kty": "EC", "crv": "P-256"}]}', "no key"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "use": "enc"}]}', "no key"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), "more than"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_key_sets(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        KeySet(text.encode())


def test_a_public_key_is_no_secret() -> None:
    """The token is signed by HMAC with what everybody can read (CVE-2015-9235 and its kind)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    keys = KeySet(jwks(0).encode())
    public = KEYS[0].public_key()
    for secret in (jwks(0).encode(), public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
        signed = encode(b'{"alg":"HS256","kid":"k0"}') + b"." + encode(b'{"iss":"one"}')
        forged = signed + b"." + encode(hmac.digest(secret, signed, "sha256"))
        assert keys.verify(Token(forged)) is Status.NO_KEY


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"..",
        b"a.b",
        b"a.b.c",
        b"e30.e30.",
        b"eyJhbGciOiJub25lIn0.e30.e30",
        b"W10.e30.e30",
        b"\xff.\xff.\xff",
        b"e30.e30.e30",
    ],
)
def test_what_is_no_token(raw: bytes) -> None:
    with pytest.raises(TokenError):
        Token(raw)


def test_a_token_is_taken_out() -> None:
    from mesh_codecs.events import RequestHeaders
    from mesh_codecs.headers import Headers

    def request(path: bytes) -> RequestHeaders:
        return RequestHeaders(0, b"GET", b"http", b"a", path, Headers([(b"x-t", b"T abc")]), True)

    one = request(b"/p?a=1&t=x%2Ey&b=2")
    places = (Place(PARAMETER, b"t"), Place(HEADER, b"x-t", b"T "))
    assert [found for _, found in find(one, places)] == [b"abc", b"x.y"]
    for place in places:
        remove(one, place)
    assert (one.path, len(one.headers)) == (b"/p?a=1&b=2", 0)
    alone = request(b"/p?t=x")
    remove(alone, places[0])
    assert alone.path == b"/p"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("a", b"x"),
        ("n", b"5"),
        ("f", b"1.5"),
        ("b", b"true"),
        ("d.e", b"deep"),
        ("l", b"WzEsMl0"),
        ("none", None),
        ("a.x", None),
        ("z", None),
        ("evil", b"ab"),
    ],
)
def test_claims_as_headers(claim: str, value: bytes | None) -> None:
    payload: dict[str, Any] = {
        "a": "x",
        "n": 5,
        "f": 1.5,
        "b": True,
        "d": {"e": "deep"},
        "l": [1, 2],
        "z": None,
        "evil": "a\r\nb",
    }
    assert claim_text(payload, claim) == value


def rule(requires: str) -> str:
    return f"providers: {{p: {{{LOCAL}}}}}, rules: [{{match: {{prefix: /}}, {requires}}}]"


def uri(address: str, cluster: str) -> str:
    return f"providers: {{p: {{remote_jwks: {{http_uri: {{uri: '{address}', cluster: {cluster}, timeout: 1s}}}}}}}}"


LOCAL = f"local_jwks: {{inline_string: '{jwks(0)}'}}"


@pytest.mark.parametrize(
    ("fields", "where", "why"),
    [
        ("providers: {p: {local_jwks: {inline_string: '{}'}}}", "providers[p].local_jwks", "no list of keys"),
        (rule("requires: {provider_name: q}"), "rules[0].requires.provider_name", "no provider 'q'"),
        (rule("requirement_name: x"), "rules[0].requirement_name", "no requirement 'x'"),
        (
            f"providers: {{p: {{{LOCAL}, failed_status_in_metadata: x}}}}",
            "providers[p].failed_status_in_metadata",
            "not supported",
        ),
        ("filter_state_rules: {name: x}", "filter_state_rules", "not supported"),
        (uri("nonsense", "a"), "providers[p].remote_jwks.http_uri.uri", "not an http"),
        (uri("http://a/", "nobody"), "providers[p].remote_jwks.http_uri.cluster", "nobody"),
    ],
)
def test_refused(fields: str, where: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=f"http_filters: [{{name: jwt, typed_config: {{{JWT}, {fields}}}}}, {ROUTER}]"))
    path, text = caught.value.problems[0]
    assert (path, why in text) == (f"{HCM}.http_filters[0].typed_config.{where}", True), text


@pytest.mark.slow
def test_who_does_not_use_it_does_not_pay() -> None:
    """The data path, and the filter itself until it has keys, load neither PyJWT nor protobuf."""
    heavy = "{'jwt', 'cryptography', 'google.protobuf'}"
    code = f"import sys, mesh_proxy.worker.data_plane, mesh_filters.jwt_authn; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
