"""The data plane as a whole: updates and drains, over real sockets in one process."""

from __future__ import annotations

import asyncio

from bootstraps import web
from plane_support import GET, at, head, plane, run, until, upstream

DIRECT = "match: {prefix: /}, direct_response: {status: 200, body: {inline_string: ok}}"


# -- updates


def test_a_replaced_listener_goes_on_accepting_from_its_socket() -> None:
    async def test() -> None:
        async with plane(web(route=DIRECT, hcm="via: one")) as one:
            reader, writer = await one.connect("web")
            old = one.data._listeners["tcp"]
            await one.apply(web(route=DIRECT, hcm="via: two"))
            assert one.data._listeners["tcp"] is old, "a listener that did not change is left alone"
            fresh, fresh_writer = await one.connect("web")
            fresh_writer.write(GET)
            assert b"via: two" in await head(fresh)
            writer.write(GET)  # the old connection lives on under the old version, and is told to go
            said = await head(reader)
            assert b"via: one" in said
            assert b"connection: close" in said
            fresh_writer.close()
            writer.close()

    run(test())


def test_connections_of_a_replaced_listener_end_with_the_drain_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address)), drain_time_s=0.05) as one:
            reader, writer = await one.connect("tcp")
            writer.write(b"x")
            await until(lambda: one.stat("tcp.tcp.", "downstream_cx_rx_bytes_total") > 0)
            await one.apply(web(endpoint=at(address), tcp="idle_timeout: 7s"))
            assert await reader.read() == b""
            assert one.data._old_listeners == []
            writer.close()

    run(test())


# -- draining


def test_a_drain_in_the_middle_of_a_response_still_closes_the_connection() -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await go_on.wait()
        writer.write(b"k")
        await reader.read()

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address), hcm="drain_timeout: 0.05s")) as one:
            reader, writer = await one.connect("web")
            writer.write(GET)
            assert b"connection: close" not in await head(reader)
            one.data.start_drain()
            go_on.set()
            assert await reader.read() == b"ok"  # and the end, though the head did not announce it
            assert await one.data.wait_drained(20.0)
            writer.close()

    run(test())
