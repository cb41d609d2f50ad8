"""What is left of HTTP/2 connections that have ended."""

from __future__ import annotations

import asyncio
import gc

from bootstraps import options, web
from http2_support.caller import Caller
from plane_support import at, plane, run, until, upstream

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.network.http2_connection import Http2Connection
from mesh_proxy.stream.http_stream import HttpStream
from mesh_proxy.upstream.http2_stream import Http2UpstreamStream


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    codec = Http2Codec(downstream=True)
    while received := await reader.read(65536):
        for event in codec.receive_data(received):
            if isinstance(event, RequestHeaders):
                codec.send(ResponseHeaders(event.stream_id, 200, Headers([(b"content-type", b"text/plain")]), False))
                codec.send(Data(event.stream_id, b"hello", True))
        writer.writelines(codec.data_to_send())
    writer.close()


def left() -> set[int]:
    kinds = (Http2Connection, HttpStream, Http2UpstreamStream)
    return {id(one) for one in gc.get_objects() if isinstance(one, kinds)}


def test_nothing_waits_for_the_collector() -> None:
    """It runs seldom, and until then callers that come and go would add up."""

    async def body() -> None:
        cluster = options("explicit_http_config: {http2_protocol_options: {}}")
        async with upstream(answer) as address, plane(web(endpoint=at(address), cluster=cluster)) as proxy:
            gc.collect()
            before = left()
            gc.disable()
            for _ in range(5):
                caller = Caller(*await proxy.connect("web"))
                for _ in range(4):
                    stream_id = caller.codec.open_stream()
                    assert stream_id is not None
                    caller.codec.send(RequestHeaders(stream_id, b"GET", b"http", b"a", b"/", Headers(), True))
                    caller.flush()
                    assert (await caller.answer(stream_id)).body == b"hello"
                caller.writer.close()
            await until(lambda: proxy.stat("http.web.", "downstream_cx_active") == 0)
            await until(lambda: not left() - before)

    try:
        run(body())
    finally:
        gc.enable()
