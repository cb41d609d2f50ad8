"""x-forwarded-client-cert in all modes, with a client certificate and without."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import web
from plane_support import at, head, plane, run, upstream
from tls_support import certificate, client, downstream, inline

from mesh_proxy.tls.authority import Authority
from mesh_proxy.tls.certificate import certificates_in

MESH = Authority("mesh.local")
SERVER = MESH.workload("web")
CLIENT = MESH.issue(uris=["spiffe://mesh.local/shop"], dns=["shop", "shop.local"], subject="shop")
LEAF = certificates_in(CLIENT.chain)[0]
SOCKET = downstream(f"tls_certificates: [{certificate(SERVER)}], validation_context: {{trusted_ca: {inline(MESH.pem)}}}")
DETAILS = "set_current_client_cert_details: {subject: true, dns: true, uri: true}"
OWN = (
    f'By=spiffe://mesh.local/web;Hash={LEAF.fingerprint_256};Subject="CN=shop";URI=spiffe://mesh.local/shop;DNS=shop;DNS=shop.local'
).encode()
BEFORE = b"Hash=forged"


async def _ask(mode: str, *, tls: bool, shown: bool, sent: bytes, details: str = DETAILS) -> bytes | None:
    """What the endpoint gets."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    chain = f"transport_socket: {SOCKET}" if tls else ""
    hcm = f"forward_client_cert_details: {mode}, {details}"
    async with upstream(serve) as address, plane(web(chain=chain, hcm=hcm, endpoint=at(address))) as one:
        port = next(port for (name, _), port in one.ports.items() if name == "web")
        context = client(MESH.pem, pair=CLIENT if shown else None) if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="web" if tls else None)
        for _ in range(2):
            writer.write(
                b"GET / HTTP/1.1\r\nhost: a\r\n" + (b"x-forwarded-client-cert: " + sent + b"\r\n" if sent else b"") + b"\r\n"
            )
            await head(reader)
        writer.transport.abort()
    assert got[0] == got[1] or b"x-request-id" in got[0]
    found = [line.partition(b": ")[2] for line in got[1].split(b"\r\n") if line.startswith(b"x-forwarded-client-cert:")]
    assert len(found) < 2
    return found[0] if found else None


@pytest.mark.parametrize(
    ("mode", "secure", "plain"),
    [
        ("SANITIZE", None, None),
        ("FORWARD_ONLY", BEFORE, None),
        ("APPEND_FORWARD", BEFORE + b"," + OWN, None),
        ("SANITIZE_SET", OWN, None),
        ("ALWAYS_FORWARD_ONLY", BEFORE, BEFORE),
    ],
)
def test_a_header_that_is_there(mode: str, secure: bytes | None, plain: bytes | None) -> None:
    async def test() -> None:
        assert await _ask(mode, tls=True, shown=True, sent=BEFORE) == secure
        assert await _ask(mode, tls=True, shown=False, sent=BEFORE) == plain
        assert await _ask(mode, tls=False, shown=False, sent=BEFORE) == plain

    run(test())


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("SANITIZE", None), ("FORWARD_ONLY", None), ("APPEND_FORWARD", OWN), ("SANITIZE_SET", OWN), ("ALWAYS_FORWARD_ONLY", None)],
)
def test_a_header_that_is_not(mode: str, expected: bytes | None) -> None:
    async def test() -> None:
        assert await _ask(mode, tls=True, shown=True, sent=b"") == expected
        assert await _ask(mode, tls=True, shown=False, sent=b"") is None

    run(test())


def test_certificate_and_chain() -> None:
    async def test() -> None:
        details = "set_current_client_cert_details: {cert: true, chain: true}"
        found = await _ask("SANITIZE_SET", tls=True, shown=True, sent=b"", details=details)
        assert found is not None
        parts = dict(part.split(b"=", 1) for part in found.split(b";"))
        assert parts[b"Cert"] == b'"%b"' % LEAF.quoted_pem.encode()
        # The caller's OpenSSL sends the authority too.
        assert parts[b"Chain"] == b'"%b%b"' % (LEAF.quoted_pem.encode(), certificates_in(MESH.pem)[0].quoted_pem.encode())

    run(test())


def test_callers_with_equal_heads_keep_their_own_names() -> None:
    """Heads that come again are not worked out again, but never with somebody else's certificate."""
    others = [MESH.workload(f"caller-{i}") for i in range(3)]

    async def test() -> None:
        got: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                try:
                    got.append(await head(reader))
                except asyncio.IncompleteReadError:
                    return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        hcm = f"forward_client_cert_details: SANITIZE_SET, {DETAILS}"
        async with (
            upstream(serve) as address,
            plane(web(chain=f"transport_socket: {SOCKET}", hcm=hcm, endpoint=at(address))) as one,
        ):
            port = next(port for (name, _), port in one.ports.items() if name == "web")
            for pair in (*others, None, *others):
                context = client(MESH.pem, pair=pair)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="web")
                for _ in range(5):
                    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    await head(reader)
                writer.transport.abort()
        named = [next((line for line in raw.split(b"\r\n") if line.startswith(b"x-forwarded-client-cert:")), b"") for raw in got]
        for place, i in enumerate((0, 1, 2, None, 0, 1, 2)):
            of = named[5 * place : 5 * place + 5]
            assert all(line.endswith(b"URI=spiffe://mesh.local/caller-%d" % i) if i is not None else not line for line in of), of

    run(test())
