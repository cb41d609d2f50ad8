"""Dubbo and HTTP/2 over mutual TLS on both sides of the proxy, and what becomes of connections that are cut off."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from bootstraps import options, web
from dubbo_support import wire
from dubbo_support.plane import Provider, bootstrap, id_of, read_frame
from plane_support import GET, at, head, plane, run, until
from tls_support import certificate, client, downstream, endpoint, inline, server
from tls_support import upstream as cluster_socket

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
OWN = MESH.workload("proxy")
CALLER = MESH.workload("consumer")
PROVIDER = MESH.workload("provider")
TRUST = f"validation_context: {{trusted_ca: {inline(MESH.pem)}}}"
MUTUAL = downstream(f"tls_certificates: [{certificate(OWN)}], {TRUST}", "require_client_certificate: true")
TO_PEER = cluster_socket(f"tls_certificates: [{certificate(OWN)}], {TRUST}", "sni: provider")


def test_dubbo_calls_over_mutual_tls() -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(id_of(frame), "hi"))
        async with endpoint(provider.serve, server(PROVIDER, MESH.pem)) as address:
            text = bootstrap({"a": [address]}, cluster_fields=f"transport_socket: {TO_PEER}")
            text = text.replace("    - filters:\n", f"    - transport_socket: {MUTUAL}\n      filters:\n")
            async with plane(text) as one:
                port = next(iter(one.ports.values()))
                caller = client(MESH.pem, pair=CALLER)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=caller, server_hostname="proxy")
                for number in range(1, 6):
                    writer.write(wire.call(request_id=number))
                    assert await read_frame(reader) == wire.answer(number, "hi")
                writer.write(b"".join(wire.call(request_id=number) for number in range(10, 40)))
                assert {id_of(await read_frame(reader)) for _ in range(30)} == set(range(10, 40))
                assert len(provider.connections) == 1
                writer.transport.abort()

    run(test())


def test_http2_to_the_endpoint() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        codec = Http2Codec(downstream=True)
        while data := await reader.read(65536):
            for event in codec.receive_data(data):
                if isinstance(event, RequestHeaders):
                    codec.send(ResponseHeaders(event.stream_id, 200, Headers([]), False))
                    codec.send(Data(event.stream_id, b"over two", True))
            writer.write(b"".join(codec.data_to_send()))

    async def test() -> None:
        socket = cluster_socket(f"tls_certificates: [{certificate(OWN)}], {TRUST}, alpn_protocols: [h2]", "sni: provider")
        async with endpoint(serve, server(PROVIDER, MESH.pem, alpn=("h2",))) as address:
            fields = f"transport_socket: {socket}, {options('explicit_http_config: {http2_protocol_options: {}}')}"
            async with plane(web(cluster=fields, endpoint=at(address))) as one:
                reader, writer = await one.connect("web")
                for _ in range(3):
                    writer.write(GET)
                    answered = await head(reader)
                    assert answered.startswith(b"HTTP/1.1 200")
                    assert b"over two" in await reader.readuntil(b"0\r\n\r\n")
                assert one.stat("cluster.a.ssl.", "handshake") == 1
                writer.close()

    run(test())


@pytest.mark.parametrize("farewell", [True, False])
def test_a_body_that_only_its_end_delimits(farewell: bool) -> None:
    """Without close_notify it may have been cut off by somebody between."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        if farewell:
            writer.close()
            await writer.wait_closed()
        else:
            raw = writer.transport.get_extra_info("socket")
            await until(lambda: not writer.transport.get_write_buffer_size())
            raw.shutdown(1)
            await reader.read()

    async def test() -> None:
        async with endpoint(serve, server(PROVIDER)) as address:
            fields = f"transport_socket: {cluster_socket(TRUST, 'sni: provider')}"
            async with plane(web(cluster=fields, endpoint=at(address))) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                received = await head(reader)
                assert b"chunked" in received
                body = b""
                while not body.endswith(b"0\r\n\r\n"):
                    piece = await reader.read(65536)
                    body += piece
                    if not piece:
                        break
                assert b"all of it" in body
                assert body.endswith(b"0\r\n\r\n") is farewell
                writer.close()

    run(test())


def test_a_record_that_was_tampered_with_ends_the_connection() -> None:
    async def test() -> None:
        async with plane(web(chain=f"transport_socket: {downstream(f'tls_certificates: [{certificate(OWN)}]')}")) as one:
            reader, writer = await one.connect("web")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = client(MESH.pem).wrap_bio(incoming, outgoing)
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
            writer.write(outgoing.read())
            session.write(GET)
            record = bytearray(outgoing.read())
            record[-1] ^= 1
            writer.write(bytes(record))
            received = await reader.read()
            assert b"HTTP" not in received
            assert one.stat("http.web.", "downstream_rq_total") == 0
            writer.close()

    run(test())
