"""Istio's filter chains for one port: PERMISSIVE (plain text, mTLS and foreign TLS side by side) and STRICT."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from bootstraps import EXT, web
from plane_support import GET, answer, head, plane, run
from tls_support import certificate, client, downstream, endpoint, inline, server

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
SERVER = MESH.workload("web")
CLIENT = MESH.workload("shop")
OTHER = Authority("other.local")
OWN_TLS = OTHER.issue(dns=["own.example"])
HTTP_ALPN = "application_protocols: [istio-http/1.0, istio-http/1.1, istio-h2]"
TCP_ALPN = "application_protocols: [istio-peer-exchange, istio]"
SOCKET = downstream(
    f"tls_certificates: [{certificate(SERVER)}], validation_context: {{trusted_ca: {inline(MESH.pem)}}}, "
    "alpn_protocols: [h2, http/1.1]",
    "require_client_certificate: true",
)
TCP_SOCKET = SOCKET.replace("[h2, http/1.1]", "[istio-peer-exchange, h2, http/1.1]")
LISTENER_FILTERS = (
    f'listener_filters: [{{name: tls, typed_config: {{"@type": {EXT}filters.listener.tls_inspector.v3.TlsInspector}}}}, '
    f'{{name: http, typed_config: {{"@type": {EXT}filters.listener.http_inspector.v3.HttpInspector}}}}]\n'
    "continue_on_listener_filters_timeout: true\nlistener_filters_timeout: {timeout}"
)


def _layout(to: AddressConfig, strict: bool = False, timeout: str = "60s") -> str:
    """The chains of `filterchain_options.go`, `PERMISSIVE auto` and `STRICT auto`."""
    text = web(endpoint=f"endpoint: {{address: {{socket_address: {{address: {to.host}, port_value: {to.port}}}}}}}")
    begin = text.index("    filter_chains:\n", text.index("name: web"))
    end = text.index("  - name: tcp\n")
    hcm = text[text.index("{name: hcm") : text.index("]}\n", text.index("{name: hcm"))]
    tcp = f'{{name: tcp, typed_config: {{"@type": {EXT}filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: NAME, cluster: a}}}}'
    mtls = hcm.replace("stat_prefix: web", "stat_prefix: mtls")
    chains = [
        ("mtls-http", f"transport_protocol: tls, {HTTP_ALPN}", mtls, SOCKET),
        ("plain-http", "transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]", hcm, ""),
        ("mtls-tcp", f"transport_protocol: tls, {TCP_ALPN}", tcp.replace("NAME", "mtls"), TCP_SOCKET),
        ("plain-tcp", "transport_protocol: raw_buffer", tcp.replace("NAME", "plain"), ""),
        ("pass", "transport_protocol: tls", tcp.replace("NAME", "pass"), ""),
    ]
    if strict:
        chains = [chains[0], ("tcp", "transport_protocol: tls", tcp.replace("NAME", "tcp"), TCP_SOCKET)]
    rows = "".join(
        f"    - {{name: {name}, filter_chain_match: {{{match}}}, filters: [{filters}]"
        f"{f', transport_socket: {tls}' if tls else ''}}}\n"
        for name, match, filters, tls in chains
    )
    more = "".join(f"    {line}\n" for line in LISTENER_FILTERS.replace("{timeout}", timeout).splitlines())
    return text[:begin] + more + "    filter_chains:\n" + rows + text[end:]


async def _connect(one, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = next(port for (name, _), port in one.ports.items() if name == "web")
    name = "own.example" if context is not None else None
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


async def _get(one, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await _connect(one, context)
    try:
        writer.write(GET)
        return await head(reader)
    finally:
        writer.transport.abort()


def test_permissive() -> None:
    async def plain() -> None:
        async with endpoint(answer, None) as to, plane(_layout(to)) as one:
            assert b"200 OK" in await _get(one, client(MESH.pem, pair=CLIENT, alpn=("istio-http/1.1", "istio", "http/1.1")))
            assert one.stat("http.mtls.", "downstream_cx_ssl_total") == 1
            assert b"200 OK" in await _get(one, None)
            assert one.stat("http.web.", "downstream_cx_total") == 1
            assert b"200 OK" in await _get(one, client(MESH.pem, pair=CLIENT, alpn=("istio-peer-exchange", "istio")))
            assert one.stat("tcp.mtls.", "downstream_cx_total") == 1
            assert one.stat("tls_inspector.", "tls_found") == 2
            assert one.stat("tls_inspector.", "tls_not_found") == 1
            assert one.stat("http_inspector.", "http11_found") == 1
            # Without a certificate of the mesh nobody comes in where mTLS is asked for.
            for shown in (None, OTHER.workload("shop")):
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await _get(one, client(MESH.pem, pair=shown, alpn=("istio-http/1.1",)))

    run(plain())


def test_foreign_tls_passes_untouched() -> None:
    async def test() -> None:
        async with endpoint(answer, server(OWN_TLS)) as to, plane(_layout(to)) as one:
            assert b"200 OK" in await _get(one, client(OTHER.pem))
            assert b"200 OK" in await _get(one, client(OTHER.pem, alpn=("http/1.1",)))
            assert one.stat("tcp.pass.", "downstream_cx_total") == 2

    run(test())


def test_a_server_that_speaks_first_is_not_held_up_for_ever() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()

    async def test() -> None:
        async with endpoint(greet, None) as to, plane(_layout(to, timeout="0.05s")) as one:
            reader, writer = await _connect(one, None)
            assert await reader.readline() == b"220 ready\r\n"
            assert one.stat("listener.127.0.0.1_0.", "downstream_pre_cx_timeout") == 1
            writer.transport.abort()

    run(test())


def test_strict() -> None:
    async def test() -> None:
        async with endpoint(answer, None) as to, plane(_layout(to, strict=True)) as one:
            assert b"200 OK" in await _get(one, client(MESH.pem, pair=CLIENT, alpn=("istio-http/1.1",)))
            assert b"200 OK" in await _get(one, client(MESH.pem, pair=CLIENT))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await _get(one, None)
            assert one.stat("listener.127.0.0.1_0.", "no_filter_chain_match") == 1
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await _get(one, client(OTHER.pem))

    run(test())


def test_the_greeting_may_come_byte_by_byte() -> None:
    async def test() -> None:
        async with endpoint(answer, None) as to, plane(_layout(to)) as one:
            reader, writer = await _connect(one, None)
            writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = client(MESH.pem, pair=CLIENT, alpn=("istio-http/1.1",))
            session = context.wrap_bio(incoming, outgoing, server_hostname="own.example")
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        writer.write(bytes((byte,)))
                        await writer.drain()
                        await asyncio.sleep(0)
                    incoming.write(await reader.read(65536))
            assert one.stat("tls_inspector.", "sni_found") == 1
            writer.transport.abort()

    run(test())
