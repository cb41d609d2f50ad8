"""Clusters that speak TLS to their endpoints."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

import pytest
from bootstraps import web
from plane_support import ANSWER, GET, answer, head, plane, run
from tls_support import certificate, endpoint, inline, server
from tls_support import upstream as socket

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.config.model.tls import CertificateConfig
from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
OTHER = Authority("other.local")
SERVER = MESH.workload("web")
CLIENT = MESH.workload("shop")
TRUST = f"validation_context: {{trusted_ca: {inline(MESH.pem)}}}"


def _at(address: AddressConfig) -> str:
    return f"endpoint: {{address: {{socket_address: {{address: {address.host}, port_value: {address.port}}}}}}}"


async def _ask(one) -> bytes:
    reader, writer = await one.connect("web")
    writer.write(GET)
    answered = await head(reader)
    writer.close()
    return answered


def _with(serve_as: ssl.SSLContext, transport: str, expected: bytes, counter: str = "", cluster: str = "") -> None:
    async def test() -> None:
        async with endpoint(answer, serve_as) as address:
            more = f"transport_socket: {transport}{cluster}"
            async with plane(web(cluster=more, endpoint=_at(address))) as one:
                assert (await _ask(one)).startswith(b"HTTP/1.1 " + expected)
                if counter:
                    assert one.stat("cluster.a.ssl.", counter) == 1

    run(test())


def test_requests_over_tls() -> None:
    _with(server(SERVER), socket(TRUST, "sni: web"), b"200", "handshake")


def test_both_sides_show_who_they_are() -> None:
    _with(server(SERVER, MESH.pem), socket(f"{TRUST}, tls_certificates: [{certificate(CLIENT)}]"), b"200")


def test_an_endpoint_that_nobody_vouches_for() -> None:
    _with(server(OTHER.workload("web")), socket(TRUST), b"503", "fail_verify_error")


def test_an_endpoint_in_plain_text_gets_no_request() -> None:
    async def test() -> None:
        got: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read(100))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

        one_server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = one_server.sockets[0].getsockname()[1]
        address = AddressConfig(host="127.0.0.1", port=port)
        async with plane(web(cluster=f"transport_socket: {socket(TRUST)}", endpoint=_at(address))) as one:
            assert (await _ask(one)).startswith(b"HTTP/1.1 503")
        assert b"HTTP" not in got[0]
        one_server.close()

    run(test())


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ("{san_type: URI, matcher: {exact: spiffe://mesh.local/web}}", True),
        ("{san_type: URI, matcher: {exact: spiffe://mesh.local/we}}", False),
        ("{san_type: URI, matcher: {exact: SPIFFE://mesh.local/web}}", False),
        ("{san_type: URI, matcher: {prefix: spiffe://mesh.local/}}", True),
        ("{san_type: URI, matcher: {prefix: spiffe://mesh.loc.evil/}}", False),
        ("{san_type: URI, matcher: {suffix: /web}}", True),
        ("{san_type: URI, matcher: {contains: local}}", True),
        ("{san_type: URI, matcher: {safe_regex: {regex: 'spiffe://[a-z.]+/web'}}}", True),
        ("{san_type: URI, matcher: {safe_regex: {regex: 'spiffe://[a-z.]+/we'}}}", False),
        ("{san_type: DNS, matcher: {exact: web.shop}}", True),
        ("{san_type: DNS, matcher: {exact: WEB.shop}}", True),
        ("{san_type: DNS, matcher: {exact: any.wild}}", True),
        ("{san_type: DNS, matcher: {exact: two.labels.wild}}", False),
        ("{san_type: DNS, matcher: {exact: wild}}", False),
        ("{san_type: DNS, matcher: {exact: spiffe://mesh.local/web}}", False),
        ("{san_type: IP_ADDRESS, matcher: {exact: 10.1.2.3}}", True),
        ("{san_type: IP_ADDRESS, matcher: {exact: 10.1.2.4}}", False),
        ("{san_type: DNS, matcher: {exact: nobody}}, {san_type: URI, matcher: {exact: spiffe://mesh.local/web}}", True),
    ],
)
def test_names(names: str, good: bool) -> None:
    pair = MESH.issue(uris=["spiffe://mesh.local/web"], dns=["web.shop", "*.wild"], ips=["10.1.2.3"])
    context = f"validation_context: {{trusted_ca: {inline(MESH.pem)}, match_typed_subject_alt_names: [{names}]}}"
    _with(server(pair), socket(context), b"200" if good else b"503", "" if good else "fail_verify_san")


def test_sessions_are_resumed() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    async def test() -> None:
        async with (
            endpoint(once, server(SERVER)) as address,
            plane(web(cluster=f"transport_socket: {socket(TRUST)}", endpoint=_at(address))) as one,
        ):
            for _ in range(3):
                assert (await _ask(one)).startswith(b"HTTP/1.1 200")
            assert one.stat("cluster.a.ssl.", "handshake") == 3
            assert one.stat("cluster.a.ssl.", "session_reused") == 2

    run(test())


def test_the_transport_is_chosen_by_metadata() -> None:
    matches = (
        f"transport_socket_matches: [{{name: tls, match: {{tlsMode: istio}}, transport_socket: {socket(TRUST)}}},"
        "{name: plain, match: {}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}]"
    )
    labels = "metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}"

    async def test() -> None:
        async with endpoint(answer, server(SERVER)) as address:
            async with plane(web(cluster=matches, endpoint=f"{_at(address)}, {labels}")) as one:
                assert (await _ask(one)).startswith(b"HTTP/1.1 200")
                assert one.stat("cluster.a.tls.", "total_match_count") == 1
            async with plane(web(cluster=matches, endpoint=_at(address))) as one:
                assert (await _ask(one)).startswith(b"HTTP/1.1 503")
                assert one.stat("cluster.a.plain.", "total_match_count") == 1

    run(test())


class _Busy:
    """Answers every request but one, and counts its connections."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await head(reader):
            if b"/slow" in request:
                self.asked.set()
                await self.release.wait()
            writer.write(ANSWER)


async def _second_connection(one, busy: _Busy, between) -> None:
    """Two connections to the endpoint at the same time; `between`: what happens meanwhile."""
    assert (await _ask(one)).startswith(b"HTTP/1.1 200")
    slow_reader, slow_writer = await one.connect("web")
    slow_writer.write(GET.replace(b"/ ", b"/slow "))
    await busy.asked.wait()
    between()
    assert (await _ask(one)).startswith(b"HTTP/1.1 200")
    busy.release.set()
    assert (await head(slow_reader)).startswith(b"HTTP/1.1 200")
    slow_writer.close()


def test_a_pool_that_grows_resumes_the_session_of_a_connection_in_use() -> None:
    async def test() -> None:
        busy = _Busy()
        async with (
            endpoint(busy, server(SERVER)) as address,
            plane(web(cluster=f"transport_socket: {socket(TRUST)}", endpoint=_at(address))) as one,
        ):
            await _second_connection(one, busy, lambda: None)
            assert one.stat("cluster.a.ssl.", "handshake") == 2
            assert one.stat("cluster.a.ssl.", "session_reused") == 1

    run(test())


def test_no_session_is_resumed_where_that_is_switched_off() -> None:
    async def test() -> None:
        busy = _Busy()
        async with (
            endpoint(busy, server(SERVER)) as address,
            plane(web(cluster=f"transport_socket: {socket(TRUST, 'max_session_keys: 0')}", endpoint=_at(address))) as one,
        ):
            await _second_connection(one, busy, lambda: None)
            assert one.stat("cluster.a.ssl.", "handshake") == 2
            assert one.stat("cluster.a.ssl.", "session_reused") == 0

    run(test())


def test_a_session_is_not_resumed_with_another_certificate_of_ours() -> None:
    async def test() -> None:
        busy = _Busy()
        async with (
            endpoint(busy, server(SERVER, MESH.pem)) as address,
            plane(
                web(
                    cluster=f"transport_socket: {socket(f'{TRUST}, tls_certificates: [{certificate(CLIENT)}]')}",
                    endpoint=_at(address),
                )
            ) as one,
        ):
            store = one.data._context.tls_secrets

            def rotate() -> None:
                pair = MESH.workload("shop")
                fresh = CertificateConfig(chain=pair.chain, key=pair.key)
                store.replace([replace(secret, certificate=fresh) for secret in store._secrets.values()])

            await _second_connection(one, busy, rotate)
            assert one.stat("cluster.a.ssl.", "handshake") == 2
            assert one.stat("cluster.a.ssl.", "session_reused") == 0

    run(test())
