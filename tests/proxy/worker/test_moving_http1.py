"""HTTP/1 connections that go to another process: between requests, in the middle of heads, under a caller who notices nothing."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import web
from moving_support import Handing, Held, ok, planes, run, web_planes
from plane_support import ANSWER, GET, answer, at, head, until, upstream

POST = b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n"
GONE = {"downstream_cx_active": 0, "downstream_cx_http1_active": 0, "downstream_cx_destroy": 0}


@pytest.mark.parametrize("codec", ["AUTO", "HTTP1"])
def test_between_two_requests(codec: str) -> None:
    async def test() -> None:
        async with web_planes(answer, hcm=f"codec_type: {codec}") as (old, new):
            reader, writer = await old.connect("web")
            for _ in range(2):
                writer.write(GET)
                await ok(reader)
            handing = await Handing(old, new).begin().done()
            assert handing.mover.moved == 1
            assert {name: old.stat("http.web.", name) for name in GONE} == GONE
            assert old.stat("http.web.", "downstream_cx_total") == 1
            writer.write(GET)
            assert b"connection: close" not in await ok(reader)
            assert new.stat("http.web.", "downstream_rq_total") == 1
            assert new.stat("http.web.", "downstream_cx_total") == 0
            assert new.stat("http.web.", "downstream_cx_http1_active") == 1
            writer.close()
            await until(lambda: new.data.active_connections == 0)
            assert new.stat("http.web.", "downstream_cx_destroy") == 1
            assert new.stat("listener.127.0.0.1_0.", "downstream_cx_destroy") == 1
            assert old.stat("listener.127.0.0.1_0.", "downstream_cx_destroy") == 0

    run(test())


@pytest.mark.parametrize("codec", ["AUTO", "HTTP1"])
def test_before_the_first_request(codec: str) -> None:
    async def test() -> None:
        async with web_planes(answer, hcm=f"codec_type: {codec}") as (old, new):
            reader, writer = await old.connect("web")
            await until(lambda: old.stat("http.web.", "downstream_cx_total") == 1)
            await Handing(old, new).begin().done()
            writer.write(GET)
            await ok(reader)
            assert new.stat("http.web.", "downstream_cx_http1_active") == 1
            writer.close()

    run(test())


def test_a_request_in_progress_ends_where_it_began_and_the_next_one_goes() -> None:
    async def test() -> None:
        endpoint = Held()
        async with web_planes(endpoint) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(GET + GET)  # the second one waits unparsed
            await endpoint.asked.wait()
            handing = Handing(old, new).begin()
            endpoint.release.set()
            for _ in range(2):
                await ok(reader)
            await handing.done()
            assert old.stat("http.web.", "downstream_rq_total") == new.stat("http.web.", "downstream_rq_total") == 1
            writer.close()

    run(test())


def test_a_body_in_progress_is_received_where_it_began() -> None:
    async def test() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                assert await reader.readexactly(6) == b"abcdef"
                writer.write(ANSWER)

        async with web_planes(echo) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(POST + b"abc")
            await until(lambda: old.stat("http.web.", "downstream_rq_active") == 1)
            handing = Handing(old, new).begin()
            writer.write(b"def")
            await ok(reader)
            await handing.done()
            writer.write(POST + b"abcdef")
            await ok(reader)
            assert new.stat("http.web.", "downstream_rq_total") == 1
            writer.close()

    run(test())


def test_to_and_fro_after_every_few_bytes() -> None:
    """Requests cut at every place, and a move at each cut: heads and pipelines go along half read."""

    async def test() -> None:
        async with web_planes(answer) as both:
            reader, writer = await both[0].connect("web")
            data = GET * 6
            for place in range(0, len(data), 7):
                writer.write(data[place : place + 7])
                await writer.drain()
                old, new = both
                sent = old.stat("http.web.", "downstream_cx_rx_bytes_total")
                handing = Handing(old, new).begin()
                await handing.done()
                assert handing.mover.moved == 1
                old.data.resume()
                both.reverse()
                assert sent <= len(data)
            for _ in range(6):
                await ok(reader)
            writer.close()
            totals = [one.stat("http.web.", "downstream_rq_total") for one in both]
            assert sum(totals) == 6
            assert sum(one.stat("http.web.", "downstream_cx_total") for one in both) == 1

    run(test())


def test_a_caller_who_reads_slowly_is_moved_when_he_has_the_answer() -> None:
    async def test() -> None:
        size = 30_000_000

        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))

        async with web_planes(big) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(GET)
            await head(reader)
            handing = Handing(old, new).begin()
            assert len(await reader.readexactly(size)) == size
            await handing.done()
            writer.write(GET)
            await head(reader)
            assert new.stat("http.web.", "downstream_rq_total") == 1
            writer.close()

    run(test())


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("static_resources: {}", "there is no listener"),
        (web(hcm="codec_type: HTTP2").replace("port_value: 1", "port_value: 2"), "another protocol now"),
    ],
)
def test_who_is_not_taken_is_told_to_go(other: str, why: str) -> None:
    async def test() -> None:
        async with upstream(answer) as address, planes(web(endpoint=at(address), hcm="codec_type: HTTP1"), other) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(GET)
            await ok(reader)
            handing = Handing(old, new).begin()
            await until(lambda: handing.refused)
            assert why in handing.refused[0]
            writer.write(GET)
            assert b"connection: close" in await ok(reader)
            assert await reader.read() == b""
            await handing.done()
            assert old.stat("http.web.", "downstream_cx_destroy") == 1
            assert new.data.active_connections == 0

    run(test())


def test_a_new_process_that_dies_in_between_changes_nothing() -> None:
    async def test() -> None:
        async with web_planes(answer) as (old, new):
            callers = [await old.connect("web") for _ in range(3)]
            for reader, writer in callers:
                writer.write(GET)
                await ok(reader)
            handing = Handing(old, new).begin(hold=True)
            await until(lambda: len(handing.held or ()) == 3)
            for _, writer in callers:
                writer.write(GET)  # nobody reads it now
            handing.fail()
            for reader, writer in callers:
                assert b"connection: close" not in await ok(reader)
                writer.write(GET)
                await ok(reader)
            assert old.stat("http.web.", "downstream_rq_total") == 9
            assert old.stat("http.web.", "downstream_cx_http1_active") == 3
            for _, writer in callers:
                writer.close()

    run(test())


def test_requests_read_ahead_are_answered_when_there_is_no_new_process_any_more() -> None:
    """The connection was busy all the while the new process lived, and had not been offered yet."""

    async def test() -> None:
        endpoint = Held()
        async with web_planes(endpoint) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(GET + GET)  # the second one waits unparsed
            await endpoint.asked.wait()
            handing = Handing(old, new).begin()
            handing.fail()
            endpoint.release.set()
            for _ in range(2):
                assert b"connection: close" not in await ok(reader)
            writer.write(GET)
            await ok(reader)
            assert old.stat("http.web.", "downstream_rq_total") == 3
            writer.close()

    run(test())


async def is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One more request is answered; the connection may have ended instead, also by a reset."""
    try:
        writer.write(GET)
        await ok(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    return True


def test_what_nobody_can_decide_any_more_ends_at_once() -> None:
    """The old supervisor dies: who has been taken goes on in the new process, who has not is not left waiting."""

    async def test() -> None:
        async with web_planes(answer) as (old, new):
            callers = [await old.connect("web") for _ in range(2)]
            for reader, writer in callers:
                writer.write(GET)
                await ok(reader)
            handing = Handing(old, new).begin(hold=True)
            await until(lambda: len(handing.held or ()) == 2)
            assert handing.held is not None
            handing.held.pop(0)()  # one was taken, and nobody passes that on
            handing.mover.abandon()
            for sock in handing.travelling:
                sock.close()
            answered = [await is_answered(*caller) for caller in callers]
            assert sorted(answered) == [False, True]  # which of them was offered first, nobody said
            assert old.data.active_connections == 0
            for _, writer in callers:
                writer.close()

    run(test())


def test_a_caller_who_leaves_on_the_way_is_counted_once() -> None:
    async def test() -> None:
        async with web_planes(answer) as (old, new):
            reader, writer = await old.connect("web")
            writer.write(GET)
            await ok(reader)
            handing = Handing(old, new).begin(hold=True)
            await until(lambda: handing.held)
            writer.transport.abort()
            handing.release()
            await handing.done()
            await until(lambda: new.data.active_connections == 0)
            ended = old.stat("http.web.", "downstream_cx_destroy")
            if not handing.refused:
                ended += new.stat("http.web.", "downstream_cx_destroy")
            assert ended == 1

    run(test())


def test_many_go_in_turn() -> None:
    async def test() -> None:
        async with web_planes(answer) as (old, new):
            callers = [await old.connect("web") for _ in range(150)]
            await until(lambda: old.data.active_connections == 150)
            handing = await Handing(old, new).begin().done()
            assert handing.mover.moved == 150
            assert handing.most_offered <= 64
            for reader, writer in callers:
                writer.write(GET)
                await ok(reader)
                writer.close()

    run(test())


def test_a_tunnel_stays() -> None:
    async def test() -> None:
        async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head(reader)
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            writer.write(await reader.readexactly(4))

        async with web_planes(switch, hcm="upgrade_configs: [{upgrade_type: websocket}]") as (old, new):
            reader, writer = await old.connect("web")
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            assert b"101" in await head(reader)
            handing = Handing(old, new).begin()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert old.data.active_connections == 1
            writer.close()
            await handing.done()
            assert handing.mover.moved == 0

    run(test())


def test_byte_streams_stay() -> None:
    async def test() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)

        async with web_planes(echo) as (old, new):
            reader, writer = await old.connect("tcp")
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            handing = Handing(old, new).begin()
            writer.write(b"two")
            assert await reader.readexactly(3) == b"two"
            writer.close()
            await handing.done()
            assert handing.mover.moved == 0

    run(test())
