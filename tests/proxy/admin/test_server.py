"""The admin server on a real socket: its limits, and streams of statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mesh_proxy.admin import server as server_module
from mesh_proxy.admin.server import AdminConnection, AdminServer
from mesh_proxy.formatting import compile_format

Serve = Callable[..., Any]
Address = tuple[str, int]


async def talk(address: Address, data: bytes) -> bytes:
    """Send, close our side, read to the end."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_whole_request(serve: Serve) -> None:
    async def scenario(address: Address, server: AdminServer) -> bytes:
        return await talk(address, b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")

    head, _, body = serve(scenario).partition(b"\r\n\r\n")
    assert body == b"LIVE\n"
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert {b"server: envoy", b"cache-control: no-cache, max-age=0", b"x-content-type-options: nosniff"} <= set(lines)


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async def scenario(address: Address, server: AdminServer) -> bytes:
        return await talk(address, b"".join(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % p for p in (b"/ready", b"/stats", b"/ready")))

    answer: bytes = serve(scenario)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.endswith(b"LIVE\n")


def test_a_form_is_read(serve: Serve, supervisor: Any) -> None:
    async def scenario(address: Address, server: AdminServer) -> bytes:
        return await talk(
            address,
            b"POST /logging HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-www-form-urlencoded\r\n"
            b"content-length: 20\r\n\r\nlevel=warning&paths=",
        )

    assert serve(scenario).startswith(b"HTTP/1.1 200")
    assert set(supervisor.done[0][1][0].values()) == {"warning"}


def test_head_has_no_body(serve: Serve) -> None:
    async def scenario(address: Address, server: AdminServer) -> bytes:
        return await talk(address, b"HEAD /stats HTTP/1.1\r\nhost: a\r\n\r\nHEAD /ready HTTP/1.1\r\nhost: a\r\n\r\n")

    answer: bytes = serve(scenario)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"\r\n\r\n")
    assert b"LIVE" not in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /ready HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /logging HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000, b"413"),
    ],
)
def test_bad_requests(serve: Serve, request_bytes: bytes, status: bytes) -> None:
    async def scenario(address: Address, server: AdminServer) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request_bytes)
        line = await reader.readline()
        writer.close()
        return line

    assert serve(scenario).split()[1] == status


def test_slow_requests_are_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.1)

    async def scenario(address: Address, server: AdminServer) -> int:
        silent, writer = await asyncio.open_connection(*address)
        slow, other = await asyncio.open_connection(*address)
        other.write(b"GET /ready HTT")
        for reader in (silent, slow):
            with pytest.raises(ConnectionResetError):
                raise ConnectionResetError if await reader.read() == b"" else AssertionError
        writer.close()
        other.close()
        return server.stats.http.downstream_rq_header_timeout

    assert serve(scenario) == 2


def test_idle_connections_are_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_TIMEOUT_S", 0.1)

    async def scenario(address: Address, server: AdminServer) -> int:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n")
        try:
            assert (await reader.read()).endswith(b"LIVE\n")
        except ConnectionResetError:
            pass
        writer.close()
        return server.stats.http.downstream_cx_idle_timeout

    assert serve(scenario) == 1


def test_few_connections_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)

    async def scenario(address: Address, server: AdminServer) -> int:
        writers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n")
            await reader.readline()
            writers.append(writer)
        reader, third = await asyncio.open_connection(*address)
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        for writer in (*writers, third):
            writer.close()
        return server.stats.listener.downstream_cx_overflow

    assert serve(scenario) == 1


def test_a_reader_that_does_not_read_holds_up_nobody(serve: Serve, supervisor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "WRITE_TIMEOUT_S", 0.2)
    from mesh_proxy.config.model.cluster import ClusterConfig

    supervisor.stats.configure([ClusterConfig(name=f"c{index}") for index in range(4000)])

    async def scenario(address: Address, server: AdminServer) -> None:
        gone = asyncio.Event()
        monkeypatch.setattr(AdminConnection, "connection_lost", lambda self, exc: gone.set())
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write(b"GET /stats HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readline()
        await gone.wait()  # cut after the write time-out
        assert server.stats.http.downstream_cx_idle_timeout == 1
        writer.close()

    serve(scenario)


def test_many_statistics_are_streamed(serve: Serve, supervisor: Any) -> None:
    from mesh_proxy.config.model.cluster import ClusterConfig

    supervisor.stats.configure([ClusterConfig(name=f"c{index}") for index in range(500)])

    async def scenario(address: Address, server: AdminServer) -> bytes:
        return await talk(address, b"GET /stats HTTP/1.0\r\nhost: a\r\n\r\n")

    body = serve(scenario).partition(b"\r\n\r\n")[2]
    assert b"cluster.c499.upstream_rq_total: 0\n" in body
    assert body.count(b"upstream_rq_total: ") == 501


def test_an_access_log_can_listen(serve: Serve) -> None:
    lines: list[bytes] = []
    log = compile_format('"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_SENT% %DOWNSTREAM_REMOTE_ADDRESS%')

    async def scenario(address: Address, server: AdminServer) -> str:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /ready?x HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readuntil(b"LIVE\n")
        host, port = writer.get_extra_info("sockname")
        writer.close()
        return f"{host}:{port}"

    mine = serve(scenario, access_log=lambda info: lines.append(log.format(info)))
    assert [line.decode().strip() for line in lines] == [f'"GET /ready?x HTTP/1.1" 200 5 {mine}']


def test_it_counts_itself(serve: Serve) -> None:
    async def scenario(address: Address, server: AdminServer) -> AdminServer:
        await talk(address, b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\nGET /nope HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        return server

    stats = serve(scenario).stats
    assert (stats.http.downstream_cx_total, stats.http.downstream_rq_total, stats.http.downstream_rq_completed) == (1, 2, 2)
    assert stats.http.codes == {200: 1, 404: 1}
    assert stats.http.downstream_rq_active == 0
