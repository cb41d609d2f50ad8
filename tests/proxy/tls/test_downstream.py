"""A listener whose filter chains end TLS: HTTP by ALPN, byte streams, half-close, large bodies, rotation."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from bootstraps import web
from plane_support import ANSWER, GET, answer, at, head, plane, run, upstream
from tls_support import certificate, client, downstream, inline

from mesh_codecs.http2 import PREFACE
from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
SERVER = MESH.workload("web")
CLIENT = MESH.workload("shop")
ONE_WAY = downstream(f"tls_certificates: [{certificate(SERVER)}], alpn_protocols: [h2, http/1.1]")
MUTUAL = downstream(
    f"tls_certificates: [{certificate(SERVER)}], validation_context: {{trusted_ca: {inline(MESH.pem)}}}",
    "require_client_certificate: true",
)
STATS = "listener.127.0.0.1_0.ssl."


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came before the end, whatever the end was."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def connect(
    one, listener: str, context: ssl.SSLContext, name: str = "web"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = next(port for (listener_name, _), port in one.ports.items() if listener_name == listener)
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


def test_http1_over_tls() -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {ONE_WAY}", endpoint=at(address))) as one:
            reader, writer = await connect(one, "web", client(MESH.pem, alpn=("http/1.1",)))
            for _ in range(3):
                writer.write(GET)
                assert b"200 OK" in await head(reader)
                await reader.readexactly(2)
            assert one.stat(STATS, "handshake") == 1
            assert one.stat(STATS, "no_certificate") == 1
            writer.close()
            await writer.wait_closed()

    run(test())


@pytest.mark.parametrize("alpn", [("h2",), ("h2", "http/1.1"), ()], ids=str)
def test_http2_by_alpn_or_by_its_preface(alpn: tuple[str, ...]) -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {ONE_WAY}", endpoint=at(address))) as one:
            reader, writer = await connect(one, "web", client(MESH.pem, alpn=alpn))
            writer.write(PREFACE + bytes.fromhex("000000040000000000"))
            assert (await reader.readexactly(9))[3] == 4  # SETTINGS
            writer.close()

    run(test())


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_bodies_of_any_size_both_ways(size: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + body)
        await writer.drain()

    async def test() -> None:
        async with upstream(echo) as address, plane(web(chain=f"transport_socket: {MUTUAL}", endpoint=at(address))) as one:
            reader, writer = await connect(one, "web", client(MESH.pem, pair=CLIENT))
            body = bytes(i % 251 for i in range(size))
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + body)
            await head(reader)
            assert await reader.readexactly(size) == body
            writer.close()

    run(test())


def test_a_byte_stream_and_its_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n" + await reader.readexactly(5))
        writer.write(await reader.read())
        await writer.drain()

    async def test() -> None:
        async with upstream(serve) as address, plane(web(tcp_chain=f"transport_socket: {ONE_WAY}", endpoint=at(address))) as one:
            reader, writer = await connect(one, "tcp", client(MESH.pem))
            writer.write(b"12345")
            assert await reader.readexactly(11) == b"hello\n12345"
            writer.transport.abort()

    run(test())


def test_without_the_certificate_that_is_demanded_there_is_no_connection() -> None:
    async def get(one) -> None:
        reader, writer = await connect(one, "web", client(MESH.pem))
        try:
            writer.write(GET)
            await head(reader)
        finally:
            writer.transport.abort()

    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {MUTUAL}", endpoint=at(address))) as one:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await get(one)
            assert one.stat(STATS, "fail_verify_no_cert") == 1
            assert one.stat("http.web.", "downstream_cx_total") == 0

    run(test())


def test_plain_text_is_no_request() -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {ONE_WAY}", endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            writer.write(GET)
            received = await reader.read()
            assert b"HTTP" not in received
            assert one.stat(STATS, "connection_error") == 1
            writer.close()

    run(test())


def test_every_byte_of_a_handshake_may_come_alone() -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(chain=f"transport_socket: {MUTUAL}", endpoint=at(address))) as one:
            port = next(port for (name, _), port in one.ports.items() if name == "web")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = client(MESH.pem, pair=CLIENT).wrap_bio(incoming, outgoing)

            async def send() -> None:
                for byte in outgoing.read():
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(0)

            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await send()
                    incoming.write(await reader.read(65536))
            session.write(GET)
            await send()
            received = b""
            while len(received) < len(ANSWER):
                incoming.write(await reader.read(65536))
                try:
                    received += session.read(65536)
                except ssl.SSLWantReadError:
                    continue
            assert b"200 OK" in received
            writer.close()

    run(test())


def test_a_caller_that_says_nothing_is_given_up() -> None:
    chain = f"transport_socket: {ONE_WAY}, transport_socket_connect_timeout: 0.05s"

    async def test() -> None:
        async with plane(web(chain=chain)) as one:
            reader, writer = await one.connect("web")
            assert await ended(reader) == b""
            assert one.stat("listener.127.0.0.1_0.", "downstream_cx_transport_socket_connect_timeout") == 1
            writer.close()

    run(test())
