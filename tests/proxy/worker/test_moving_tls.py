"""TLS and an upgrade: a session stays where its keys are, and its caller is told to come again; what has not begun moves."""

from __future__ import annotations

import asyncio

from bootstraps import EXT
from moving_support import Handing, ok, run, web_planes
from plane_support import GET, answer, until
from tls_support import certificate, client, downstream

from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
TLS = downstream(f"tls_certificates: [{certificate(MESH.workload('web'))}], alpn_protocols: [http/1.1]")
INSPECTOR = f'listener_filters: [{{name: t, typed_config: {{"@type": {EXT}filters.listener.tls_inspector.v3.TlsInspector}}}}]'


def test_a_session_ends_with_its_next_answer() -> None:
    async def test() -> None:
        async with web_planes(answer, chain=f"transport_socket: {TLS}") as (old, new):
            port = next(iter(old.ports.values()))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client(MESH.pem), server_hostname="web")
            writer.write(GET)
            assert b"connection: close" not in await ok(reader)
            handing = Handing(old, new).begin()
            writer.write(GET)
            assert b"connection: close" in await ok(reader)
            assert await reader.read() == b""
            writer.close()
            await handing.done()
            assert handing.mover.moved == 0

    run(test())


def test_who_has_not_greeted_yet_is_greeted_by_the_new_process() -> None:
    """The beginning of a connection goes, whatever it will be: the handshake is made there."""

    async def test() -> None:
        async with web_planes(answer, chain=f"transport_socket: {TLS}", listener=INSPECTOR) as (old, new):
            reader, writer = await old.connect("web")
            await until(lambda: old.stat("listener.127.0.0.1_0.", "downstream_pre_cx_active") == 1)
            handing = await Handing(old, new).begin().done()
            assert handing.mover.moved == 1
            await writer.start_tls(client(MESH.pem), server_hostname="web")
            writer.write(GET)
            await ok(reader)
            assert new.stat("listener.127.0.0.1_0.ssl.", "handshake") == 1
            writer.close()

    run(test())
