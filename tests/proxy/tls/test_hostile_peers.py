"""Peers that must not get through, as callers and as endpoints, and those beside them that may: everything fails closed."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from dataclasses import dataclass

import pytest
from bootstraps import EXT, web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from plane_support import GET, answer, at, head, plane, run, upstream
from tls_support import certificate, client, downstream, endpoint, inline, server
from tls_support import upstream as cluster_socket

from mesh_proxy.tls.authority import Authority, Pair, new_key

DAY = datetime.timedelta(days=1)
MESH = Authority("mesh.local")
PARTNER = Authority("partner.local")
STRANGER = Authority("mesh.local", name="stranger")
MIDDLE = Authority("mesh.local", parent=MESH)
OWN = MESH.workload("web")
WEB = "spiffe://mesh.local/ns/shop/sa/web"


def usage(**bits: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: bits.get(name, name == "digital_signature") for name in names})


def by_a_workload() -> Pair:
    """A workload of ours signs another certificate with its own key."""
    key = new_key()
    pair = MESH.issue(subject="workload", uris=[WEB], key=key)
    signer = Authority("mesh.local")
    signer._key, signer.certificate = key, x509.load_pem_x509_certificate(pair.chain)
    issued = signer.workload("web")
    return Pair(issued.chain + pair.chain, issued.key)


def context(fields: str) -> str:
    return f"validation_context: {{{fields}}}"


def spiffe(*domains: tuple[str, Authority]) -> str:
    rows = ", ".join(f"{{name: {name}, trust_bundle: {inline(authority.pem)}}}" for name, authority in domains)
    kind = f"{EXT}transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    config = f'{{"@type": {kind}, trust_domains: [{rows}]}}'
    return context(f"custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: {config}}}")


CA = context(f"trusted_ca: {inline(MESH.pem)}")
ONE = spiffe(("mesh.local", MESH))
TWO = spiffe(("mesh.local", MESH), ("partner.local", PARTNER))
REVOKED = MESH.workload("revoked")
CRL = context(f"trusted_ca: {inline(MESH.pem)}, crl: {inline(MESH.revocation_list(REVOKED))}")
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)


def san(matcher: str, kind: str = "URI") -> str:
    return context(
        f"trusted_ca: {inline(MESH.pem)}, match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{{matcher}}}}}]"
    )


def uris(*names: str, **more: object) -> Pair:
    return MESH.issue(uris=names, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """What a peer shows, and whether that is enough."""

    name: str
    asks: str
    pair: Pair | None
    good: bool = False


CASES = [
    Case("ours", CA, uris(WEB), True),
    Case("by an intermediate authority", CA, MIDDLE.workload("web"), True),
    Case("an RSA key", CA, MESH.issue(uris=[WEB], key=new_key("rsa")), True),
    Case("expired", CA, uris(WEB, valid_from=-2 * DAY, valid_for=-DAY)),
    Case("not valid yet", CA, uris(WEB, valid_from=DAY, valid_for=2 * DAY)),
    Case("another authority", CA, PARTNER.workload("web")),
    Case("an authority of the same name", CA, STRANGER.workload("web")),
    Case("issued by a workload", CA, by_a_workload()),
    Case("revoked", CRL, REVOKED),
    Case("not revoked", CRL, uris(WEB), True),
    Case("a name of ours", san(f"exact: {WEB}"), uris(WEB), True),
    Case("a longer name", san(f"exact: {WEB}"), uris(WEB + "2")),
    Case("a shorter name", san(f"exact: {WEB}"), uris(WEB[:-1])),
    Case("another case", san(f"exact: {WEB}"), uris(WEB.replace("web", "Web"))),
    Case("a prefix that goes on", san("prefix: spiffe://mesh.local/"), uris("spiffe://mesh.local.evil/web")),
    Case("a prefix inside", san("prefix: spiffe://mesh.local/"), uris("https://evil/spiffe://mesh.local/")),
    Case("a suffix that begins earlier", san("suffix: /sa/web"), uris("spiffe://mesh.local/ns/shop/sa/notweb")),
    Case("a regex is the whole", san("safe_regex: {regex: 'spiffe://mesh.local/.*/web'}"), uris(WEB + "/more")),
    Case("a dot is a dot", san("exact: mesh.local", "DNS"), MESH.issue(dns=["meshxlocal"])),
    Case("a wildcard is one label", san("exact: a.b.mesh.local", "DNS"), MESH.issue(dns=["*.mesh.local"])),
    Case("a URI is no DNS name", san("exact: web", "DNS"), uris("web")),
    Case("the subject is no name", san("exact: web", "DNS"), MESH.issue(subject="web")),
    Case("no name at all", san(f"exact: {WEB}"), MESH.issue(subject="x")),
    Case("SPIFFE", ONE, uris(WEB), True),
    Case("SPIFFE: no name", ONE, MESH.issue(dns=["web"])),
    Case("SPIFFE: two names", ONE, uris(WEB, "spiffe://mesh.local/other")),
    Case("SPIFFE: two names, one of another kind", ONE, uris(WEB, "https://web")),
    Case("SPIFFE: with a DNS name", ONE, MESH.issue(uris=[WEB], dns=["web"]), True),
    Case("SPIFFE: another scheme", ONE, uris("https://mesh.local/web")),
    Case("SPIFFE: no path", ONE, uris("spiffe://mesh.local")),
    Case("SPIFFE: an empty path", ONE, uris("spiffe://mesh.local/")),
    Case("SPIFFE: a path that climbs", ONE, uris("spiffe://mesh.local/a/../web")),
    Case("SPIFFE: a port", ONE, uris("spiffe://mesh.local:80/web")),
    Case("SPIFFE: a query", ONE, uris("spiffe://mesh.local/web?x")),
    Case("SPIFFE: upper case", ONE, uris("spiffe://MESH.local/web")),
    Case("SPIFFE: another trust domain", ONE, uris("spiffe://other.local/web")),
    Case("SPIFFE: a domain that goes on", ONE, uris("spiffe://mesh.local.evil/web")),
    Case("SPIFFE: an authority as workload", ONE, uris(WEB, ca=True)),
    Case("SPIFFE: may sign certificates", ONE, uris(WEB, key_usage=usage(key_cert_sign=True))),
    Case("SPIFFE: may sign revocation lists", ONE, uris(WEB, key_usage=usage(crl_sign=True))),
    Case("SPIFFE: for servers only", ONE, uris(WEB, purposes=SERVER_ONLY)),
    Case("SPIFFE: for clients only", ONE, uris(WEB, purposes=CLIENT_ONLY)),
    Case("SPIFFE: no purpose is said", ONE, uris(WEB, purposes=None), True),
    Case("SPIFFE: two domains, the first", TWO, uris(WEB), True),
    Case("SPIFFE: two domains, the second", TWO, PARTNER.workload("web"), True),
    Case("SPIFFE: two domains, the wrong bundle", TWO, PARTNER.issue(uris=[WEB])),
    Case("SPIFFE: two domains, the wrong bundle again", TWO, MESH.issue(uris=["spiffe://partner.local/web"])),
    Case("SPIFFE: two domains, a third", TWO, STRANGER.issue(uris=["spiffe://third.local/web"])),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_caller(case: Case) -> None:
    socket = downstream(f"tls_certificates: [{certificate(OWN)}], {case.asks}", "require_client_certificate: true")

    async def ask(one) -> bytes:
        port = next(port for (name, _), port in one.ports.items() if name == "web")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client(MESH.pem, pair=case.pair), server_hostname="web"
        )
        try:
            writer.write(GET)
            return await head(reader)
        finally:
            writer.transport.abort()

    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {socket}", endpoint=at(address))) as one:
            if case.good:
                assert b"200 OK" in await ask(one)
            else:
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await ask(one)
                assert one.stat("http.web.", "downstream_cx_total") == 0
                stats = ("fail_verify_error", "fail_verify_san", "fail_verify_no_cert", "fail_verify_cert_hash")
                assert sum(one.stat("listener.127.0.0.1_0.ssl.", name) for name in stats) == 1

    run(test())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_endpoint(case: Case) -> None:
    assert case.pair is not None
    pair = case.pair

    async def test() -> None:
        got: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await head(reader))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        async with endpoint(serve, server(pair)) as address:
            more = f"transport_socket: {cluster_socket(case.asks, 'sni: web')}"
            async with plane(web(cluster=more, endpoint=at(address))) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                answered = await head(reader)
                writer.close()
        assert answered.startswith(b"HTTP/1.1 200" if case.good else b"HTTP/1.1 503")
        assert bool(got) is case.good

    run(test())


ONE_SUITE = "tls_params: {cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256]}"


def _caller(lowest: str, highest: str, ciphers: str = "") -> ssl.SSLContext:
    context = client(MESH.pem)
    context.minimum_version = ssl.TLSVersion[lowest]
    context.maximum_version = ssl.TLSVersion[highest]
    if ciphers:
        context.set_ciphers(ciphers)
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    ("caller", "parameters", "good"),
    [
        (("TLSv1_2", "TLSv1_2"), "", True),
        (("TLSv1_3", "TLSv1_3"), "", True),
        (("TLSv1", "TLSv1_1", "ALL:@SECLEVEL=0"), "", False),
        (("TLSv1_2", "TLSv1_2"), "tls_params: {tls_minimum_protocol_version: TLSv1_3}", False),
        (("TLSv1_3", "TLSv1_3"), "tls_params: {tls_maximum_protocol_version: TLSv1_2}", False),
        (("TLSv1_2", "TLSv1_2", "ECDHE-ECDSA-AES256-SHA384"), "", False),
        (
            ("TLSv1_2", "TLSv1_2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ONE_SUITE,
            False,
        ),
        (
            ("TLSv1_2", "TLSv1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            ONE_SUITE,
            True,
        ),
    ],
)
def test_versions_and_ciphers(caller: tuple[str, ...], parameters: str, good: bool) -> None:
    socket = downstream(f"tls_certificates: [{certificate(OWN)}]" + (f", {parameters}" if parameters else ""))

    async def connect(one) -> None:
        port = next(port for (name, _), port in one.ports.items() if name == "web")
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_caller(*caller), server_hostname="web")
        writer.transport.abort()

    async def test() -> None:
        async with plane(web(chain=f"transport_socket: {socket}")) as one:
            if good:
                await connect(one)
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await connect(one)
                assert one.stat("listener.127.0.0.1_0.ssl.", "connection_error") == 1

    run(test())


def test_sni_may_be_demanded() -> None:
    socket = downstream(f"tls_certificates: [{certificate(OWN)}]", "require_sni: true")

    async def connect(one, name: str) -> None:
        port = next(port for (listener, _), port in one.ports.items() if listener == "web")
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client(MESH.pem), server_hostname=name)
        writer.transport.abort()

    async def test() -> None:
        async with plane(web(chain=f"transport_socket: {socket}")) as one:
            await connect(one, "web")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connect(one, "")

    run(test())
