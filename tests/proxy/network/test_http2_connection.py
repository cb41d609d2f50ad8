"""HTTP/2 from the caller's side, over real sockets within one process: translation, flow control, ends of streams."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bootstraps import web
from http2_support import wire
from http2_support.caller import Caller
from plane_support import ANSWER, GET, Plane, Serve, answer, at, head, plane, run, until, upstream

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Data, GoAway, StreamReset, Trailers
from mesh_codecs.headers import Headers

BIG = 300_000
WINDOW = 65_536


@asynccontextmanager
async def calling(
    serve: Serve, hcm: str = "", cluster: str = "", engine: str = "mesh", **more: object
) -> AsyncIterator[tuple[Plane, Caller]]:
    async with (
        upstream(serve) as address,
        plane(web(hcm=hcm, cluster=cluster, endpoint=at(address)), codec_engine=engine) as one,
    ):
        caller = Caller(*await one.connect("web"), **more)  # type: ignore[arg-type]
        try:
            yield one, caller
        finally:
            caller.writer.close()


@pytest.mark.parametrize("engine", ["mesh", "h2"])
@pytest.mark.parametrize("codec_type", ["AUTO", "HTTP2"])
def test_requests_are_served(codec_type: str, engine: str) -> None:
    async def body() -> None:
        async with calling(answer, f"codec_type: {codec_type}", engine=engine) as (one, caller):
            ids = [caller.request(b"/%d" % n) for n in range(20)]
            for stream_id in ids:
                got = await caller.answer(stream_id)
                assert (got.status, got.body) == (200, b"ok")
            assert one.stat("http.web.", "downstream_rq_http2_total") == 20
            assert one.stat("http.web.", "downstream_cx_http2_total") == 1
            assert one.stat("http2.", "streams_active") == 0

    run(body())


@pytest.mark.parametrize("cut", [1, 3, 23, 24, 25, 60])
def test_detection_waits_for_the_whole_preface(cut: int) -> None:
    async def body() -> None:
        async with upstream(answer) as address, plane(web(endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            hello = wire.HELLO + wire.headers(1)
            writer.write(hello[:cut])
            await writer.drain()
            await until(lambda: one.stat("http.web.", "downstream_cx_total") == 1)
            writer.write(hello[cut:])
            assert (await reader.readexactly(9))[3] == wire.SETTINGS
            writer.close()

    run(body())


def test_detection_knows_http1_by_its_first_bytes() -> None:
    async def body() -> None:
        async with upstream(answer) as address, plane(web(endpoint=at(address))) as one:
            for first in (b"", b"P", b"PRI * HTTP/2.0\r\n\r\nS"):
                reader, writer = await one.connect("web")
                if first:
                    writer.write(first)
                    await writer.drain()
                    await asyncio.sleep(0)
                    writer.write(b"OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n" if first == b"P" else b"x\r\n\r\n")
                else:
                    writer.write(GET)
                assert (await head(reader)).startswith(b"HTTP/1.1 505" if len(first) > 1 else b"HTTP/1.1 200")
                writer.close()
            assert one.stat("http.web.", "downstream_cx_http1_total") == 3

    run(body())


def test_bodies_and_trailers_in_both_directions() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await head(reader)
        assert b"transfer-encoding: chunked" in asked
        assert b"cookie: a=1; b=2" in asked
        received = await reader.readuntil(b"0\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\nx-sum: 7\r\n\r\n" % (len(received), received))
        await reader.read()

    async def body() -> None:
        async with calling(serve, cluster="http_protocol_options: {enable_trailers: true}") as (one, caller):
            stream_id = caller.request(method=b"POST", end=False, headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])
            caller.data(stream_id, b"hello")
            caller.data(stream_id, b"", end=True)
            got = await caller.answer(stream_id)
            assert got.status == 200
            assert got.body == b"5\r\nhello\r\n0\r\n"
            assert got.trailers == Headers([(b"x-sum", b"7")])
            assert b"transfer-encoding" not in got.headers
            stream_id = caller.request(method=b"POST", end=False)
            caller.send(Trailers(stream_id, Headers([(b"x-t", b"1")])))
            await until(lambda: one.stat("http2.", "trailers") == 1)

    run(body())


def test_a_response_waits_for_the_callers_window() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + b"x" * BIG)

    async def body() -> None:
        async with calling(serve, acknowledge=False, initial_connection_window_size=10 * BIG) as (one, caller):
            slow = caller.request()
            assert len(await caller.body(slow, WINDOW)) == WINDOW
            assert one.stat("http2.", "pending_send_bytes") > 0
            other = caller.request()  # its stream has a window of its own
            assert len(await caller.body(other, WINDOW)) == WINDOW
            for size in range(WINDOW, BIG, WINDOW):
                caller.codec.acknowledge(slow, WINDOW)
                caller.flush()
                await caller.body(slow, min(size + WINDOW, BIG))
            assert (await caller.answer(slow)).body == b"x" * BIG
            caller.send(StreamReset(other, ResetReason.LOCAL_RESET))
            await until(lambda: one.stat("http2.", "streams_active") == 0)
            assert one.stat("http2.", "pending_send_bytes") == 0
            assert one.stat("http.web.", "downstream_rq_active") == 0

    run(body())


def test_a_request_keeps_its_credit_while_the_upstream_does_not_read() -> None:
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in await head(reader):
            await release.wait()
            await reader.readexactly(SIZE)
        writer.write(ANSWER)
        await reader.read()

    SIZE = 40_000_000  # far more than the sockets on the way hold

    async def body() -> None:
        options = "http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 10000000}"
        async with calling(serve, options) as (_, caller):
            while not caller.events and not caller.codec._settings_received:
                caller.flush()
                await caller.read()
            stream_id = caller.request(b"/slow", method=b"POST", end=False, headers=[(b"content-length", b"%d" % SIZE)])
            sent = 0
            reading = asyncio.ensure_future(asyncio.sleep(0))
            while True:
                window = min(caller.codec.send_window(stream_id), SIZE - sent)
                if window:
                    caller.data(stream_id, b"x" * window, end=sent + window == SIZE)
                    sent += window
                    if sent == SIZE:
                        break
                    continue
                reading = asyncio.ensure_future(caller.read())
                done, _ = await asyncio.wait([reading], timeout=0.5)
                if not done:
                    break
            assert sent < SIZE, "the proxy took everything"
            # Others go on meanwhile.
            await_other = caller.request(b"/quick")
            while not caller.on(await_other).ended:
                await reading
                reading = asyncio.ensure_future(caller.read())
            release.set()
            while sent < SIZE:
                window = min(caller.codec.send_window(stream_id), SIZE - sent)
                if window:
                    caller.data(stream_id, b"x" * window, end=sent + window == SIZE)
                    sent += window
                else:
                    await reading
                    reading = asyncio.ensure_future(caller.read())
            while not caller.on(stream_id).ended:
                await reading
                reading = asyncio.ensure_future(caller.read())
            reading.cancel()
            assert caller.on(stream_id).status == 200

    run(body())


def test_a_reset_of_the_caller_gives_the_upstream_up() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        if not await reader.read():
            gone.set()

    async def body() -> None:
        async with calling(serve) as (one, caller):
            stream_id = caller.request()
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 1)
            caller.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
            await gone.wait()
            assert one.stat("http2.", "rx_reset") == 1
            assert one.stat("http.web.", "downstream_rq_rx_reset") == 1

    run(body())


def test_a_response_that_breaks_off_resets_its_stream_alone() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/cut" in await head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        else:
            writer.write(ANSWER)
            await reader.read()

    async def body() -> None:
        async with calling(serve) as (one, caller):
            got = await caller.get(b"/cut")
            assert got.body == b"abc"
            assert got.reset is not None
            assert got.reset.error_code == 2
            assert (await caller.get()).status == 200
            assert one.stat("http2.", "tx_reset") == 1

    run(body())


def test_an_early_response_refuses_the_rest_of_the_request() -> None:
    async def body() -> None:
        async with calling(answer) as (_, caller):
            stream_id = caller.request(method=b"POST", end=False)
            got = await caller.answer(stream_id)
            assert got.status == 200
            while caller.on(stream_id).reset is None:
                await caller.read()
            assert caller.on(stream_id).reset.error_code == 0  # type: ignore[union-attr]
            caller.raw(wire.data(stream_id, b"late"))
            assert (await caller.get()).status == 200

    run(body())


def test_draining_says_goaway_and_finishes_what_is_open() -> None:
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await release.wait()
        writer.write(ANSWER)
        await reader.read()

    async def body() -> None:
        async with calling(serve) as (one, caller):
            stream_id = caller.request()
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 1)
            one.data.start_drain()
            while not any(isinstance(e, GoAway) for e in caller.events):
                await caller.read()
            release.set()
            got = await caller.answer(stream_id)
            assert (got.status, got.body) == (200, b"ok")
            assert (await caller.goaway()).last_stream_id == stream_id

    run(body())


def test_the_connection_ends_with_its_callers_fault() -> None:
    async def body() -> None:
        async with calling(answer) as (one, caller):
            assert (await caller.get()).status == 200
            caller.raw(wire.data(0, b"x"))
            assert (await caller.goaway()).error_code == 1
            assert one.stat("http.web.", "downstream_cx_protocol_error") == 1

    run(body())


def test_an_empty_last_piece() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")

    async def body() -> None:
        async with calling(serve) as (_, caller):
            got = await caller.get()
            assert (got.status, got.body) == (200, b"ok")
            assert isinstance(got.events[-1], Data)

    run(body())


def test_heads_that_come_slowly_end_the_connection() -> None:
    async def body() -> None:
        hcm = "request_headers_timeout: 1s"
        async with calling(answer, hcm) as (one, caller):
            assert (await caller.get()).status == 200
            caller.raw(wire.frame(wire.HEADERS, wire.END_STREAM, 3, wire.block(wire.GET)))
            assert b"header timeout" in (await caller.goaway()).debug
            assert one.stat("http.web.", "downstream_rq_header_timeout") == 1
            reader, writer = await one.connect("web")
            writer.write(wire.PREFACE[:10])
            assert await reader.read() == b""
            writer.close()
            reader, writer = await one.connect("web")
            writer.write(wire.HELLO + wire.headers(1)[:12])
            while await reader.read(1000):
                pass
            writer.close()
            assert one.stat("http.web.", "downstream_rq_header_timeout") == 3

    run(body())


@pytest.mark.parametrize("action", ["DROP_HEADER", "REJECT_REQUEST"])
def test_underscores_in_header_names(action: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"a_b" not in await head(reader):
            writer.write(ANSWER)

    async def body() -> None:
        hcm = f"common_http_protocol_options: {{headers_with_underscores_action: {action}}}"
        async with calling(serve, hcm) as (one, caller):
            got = await caller.get(headers=[(b"a_b", b"1")])
            if action == "DROP_HEADER":
                assert got.status == 200
                assert one.stat("http2.", "dropped_headers_with_underscores") == 1
            else:
                assert got.reset is not None
                assert one.stat("http2.", "requests_rejected_with_underscores_in_headers") == 1
            assert (await caller.get()).status == 200

    run(body())


def test_many_small_frames_in_one_read_are_all_served() -> None:
    async def body() -> None:
        async with calling(answer) as (one, caller):
            pings = b"".join(wire.ping(b"%08d" % n) for n in range(150))
            requests = b"".join(wire.headers(2 * n + 1, [*wire.GET]) for n in range(200))
            caller.raw(pings + requests)
            await until(lambda: one.stat("http.web.", "downstream_rq_completed") == 200)
            assert one.stat("http2.", "streams_active") == 0

    run(body())


def read_nothing(writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)  # soon full


@pytest.mark.parametrize("engine", ["mesh", "h2"])
def test_a_caller_that_reads_nothing_is_given_up(engine: str) -> None:
    async def body() -> None:
        limit = 200
        hcm = f"http2_protocol_options: {{max_outbound_frames: {limit}}}"
        yaml = web(hcm=hcm, route="match: {prefix: /}, direct_response: {status: 200, body: {inline_string: " + "x" * 4000 + "}}")
        async with plane(yaml, codec_engine=engine) as one:
            _, writer = await one.connect("web")
            read_nothing(writer)
            writer.write(wire.HELLO + wire.window_update(0, 2**31 - 1 - 65_535))
            stream_id = 1
            while not one.stat("http.web.", "downstream_cx_protocol_error"):
                writer.write(b"".join(wire.headers(stream_id + 2 * n) for n in range(20)))
                stream_id += 40
                await asyncio.sleep(0)
            assert one.stat("http2.", "outbound_flood") == 1
            writer.transport.abort()

    run(body())


@pytest.mark.parametrize("engine", ["mesh", "h2"])
def test_frames_that_a_caller_does_not_take_are_counted(engine: str) -> None:
    async def body() -> None:
        route = "match: {prefix: /}, direct_response: {status: 200, body: {inline_string: " + "x" * 4000 + "}}"
        async with plane(web(route=route), codec_engine=engine) as one:
            reader, writer = await one.connect("web")
            read_nothing(writer)
            writer.write(wire.HELLO + wire.window_update(0, 2**31 - 1 - 65_535))
            stream_id = 1
            await until(lambda: one.stat("http.web.", "downstream_cx_http2_active") == 1)
            while one.stat("http2.", "outbound_control_frames_active") < 3:
                writer.write(wire.headers(stream_id) + wire.ping())
                stream_id += 2
                await asyncio.sleep(0)
            assert one.stat("http2.", "outbound_frames_active") > 3
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            while one.stat("http2.", "outbound_frames_active"):
                assert await reader.read(1 << 20)
            assert one.stat("http2.", "outbound_control_frames_active") == 0
            writer.transport.abort()

    run(body())


def test_frames_for_a_caller_that_leaves_are_no_longer_counted() -> None:
    async def body() -> None:
        route = "match: {prefix: /}, direct_response: {status: 200, body: {inline_string: " + "x" * 4000 + "}}"
        async with plane(web(route=route)) as one:
            _, writer = await one.connect("web")
            read_nothing(writer)
            writer.write(wire.HELLO + wire.window_update(0, 2**31 - 1 - 65_535))
            stream_id = 1
            await until(lambda: one.stat("http.web.", "downstream_cx_http2_active") == 1)
            while not one.stat("http2.", "outbound_frames_active"):
                writer.write(wire.headers(stream_id))
                stream_id += 2
                await asyncio.sleep(0)
            writer.transport.abort()
            await until(lambda: one.stat("http.web.", "downstream_cx_active") == 0)
            assert one.stat("http2.", "outbound_frames_active") == 0
            assert one.stat("http2.", "outbound_control_frames_active") == 0

    run(body())
