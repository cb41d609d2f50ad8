"""HTTP/2 connections that go to another process: tables, windows and ids go along; busy ones get a quiet moment first."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import web
from http2_support.caller import Caller
from moving_support import Handing, planes, run, web_planes
from plane_support import ANSWER, answer, at, head, until, upstream

from mesh_codecs.events import GoAway
from mesh_proxy.network import http2_quiet


@pytest.mark.parametrize("codec", ["AUTO", "HTTP2"])
def test_between_requests_with_all_tables(codec: str) -> None:
    async def test() -> None:
        async with web_planes(answer, hcm=f"codec_type: {codec}") as both:
            caller = Caller(*await both[0].connect("web"))
            for turn in range(6):
                # New header fields each time, so that the table of either direction has changed with every move.
                fields = [(b"x-turn", b"%d" % turn), (b"x-always", b"the same")]
                for _ in range(3):
                    got = await caller.get(b"/%d" % turn, headers=fields)
                    assert (got.status, got.body) == (200, b"ok")
                old, new = both
                handing = await Handing(old, new).begin().done()
                assert handing.mover.moved == 1
                old.data.resume()
                both.reverse()
            assert not [event for event in caller.events if isinstance(event, GoAway)]
            assert sum(one.stat("http.web.", "downstream_rq_http2_total") for one in both) == 18
            assert sum(one.stat("http.web.", "downstream_cx_http2_total") for one in both) == 1
            assert sum(one.stat("http.web.", "downstream_cx_http2_active") for one in both) == 1
            assert sum(one.stat("http2.", "streams_active") for one in both) == 0

    run(test())


@pytest.mark.parametrize("cut", [1, 9, 23, 24, 40])
def test_while_the_preface_or_a_frame_is_half_read(cut: int) -> None:
    async def test() -> None:
        async with web_planes(answer) as (old, new):
            caller = Caller(*await old.connect("web"))
            stream_id = caller.codec.open_stream()
            assert stream_id == 1
            from mesh_codecs.events import RequestHeaders
            from mesh_codecs.headers import Headers

            caller.codec.send(RequestHeaders(1, b"GET", b"http", b"a", b"/", Headers([]), True))
            data = b"".join(caller.codec.data_to_send())
            caller.writer.write(data[:cut])
            # Before the request's head is complete nothing tells what was read but the count of bytes, and of a bare preface
            # not even that.
            if cut >= 24:
                await until(lambda: old.stat("http.web.", "downstream_cx_rx_bytes_total") == cut)
            else:
                await until(lambda: old.stat("http.web.", "downstream_cx_total") == 1)
            handing = await Handing(old, new).begin().done()
            assert handing.mover.moved == 1
            caller.writer.write(data[cut:])
            got = await caller.answer(1)
            assert (got.status, got.body) == (200, b"ok")

    run(test())


def test_a_busy_connection_finds_a_moment() -> None:
    """Requests overlap all the time; each takes a while."""

    async def test() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                await asyncio.sleep(0.02)
                writer.write(ANSWER)

        async with web_planes(slow) as both:
            caller = Caller(*await both[0].connect("web"))
            open_streams = [caller.request(b"/") for _ in range(6)]
            served = 0
            handing: Handing | None = None
            moves = 0
            while moves < 3 or served < 60:
                got = await caller.answer(open_streams.pop(0))
                assert (got.status, got.body) == (200, b"ok")
                open_streams.append(caller.request(b"/"))
                served += 1
                if handing is None:
                    handing = Handing(*both).begin()
                elif both[0].data.active_connections == 0:
                    assert handing.mover.moved == 1
                    both[0].data.resume()
                    both.reverse()
                    moves += 1
                    handing = None
            for stream_id in open_streams:
                assert (await caller.answer(stream_id)).status == 200
            assert not [event for event in caller.events if isinstance(event, GoAway)]

    run(test())


def test_a_stream_without_end_stays_and_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_quiet, "ENDLESS_S", 0.3)

    async def test() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while line := await reader.readline():
                data = await reader.readexactly(int(line, 16) + 2)
                writer.write(line + data)

        async with web_planes(echo) as (old, new):
            caller = Caller(*await old.connect("web"))
            stream = caller.request(method=b"POST", end=False)
            caller.data(stream, b"one")
            assert await caller.body(stream, 3) == b"one"
            handing = Handing(old, new).begin()
            caller.data(stream, b"two")
            assert await caller.body(stream, 6) == b"onetwo"
            while not [event for event in caller.events if isinstance(event, GoAway)]:
                await caller.read()
            caller.data(stream, b"three", end=True)
            assert (await caller.answer(stream)).body == b"onetwothree"
            await caller.until_closed()
            await handing.done()
            assert handing.mover.moved == 0

    run(test())


def test_a_response_that_waits_for_credit_is_finished_first() -> None:
    async def test() -> None:
        size = 200_000

        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))

        async with web_planes(big) as (old, new):
            caller = Caller(*await old.connect("web"))
            stream = caller.request()
            await caller.body(stream, 1)
            handing = Handing(old, new).begin()
            assert len((await caller.answer(stream)).body) == size
            await handing.done()
            assert handing.mover.moved == 1
            assert len((await caller.get()).body) == size
            assert new.stat("http.web.", "downstream_rq_total") == 1

    run(test())


def test_the_other_engine_says_goaway() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            text = web(endpoint=at(address))
            async with planes(text, text, codec_engine="h2") as (old, new):
                caller = Caller(*await old.connect("web"))
                assert (await caller.get()).status == 200
                handing = Handing(old, new).begin()
                await caller.goaway()
                await handing.done()
                assert handing.mover.moved == 0

    run(test())


def test_not_taken_is_drained() -> None:
    async def test() -> None:
        async with upstream(answer) as address, planes(web(endpoint=at(address)), web(hcm="codec_type: HTTP1")) as (old, new):
            caller = Caller(*await old.connect("web"))
            assert (await caller.get()).status == 200
            handing = Handing(old, new).begin()
            await until(lambda: handing.refused)
            await caller.goaway()
            await handing.done()

    run(test())
