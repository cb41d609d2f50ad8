"""gRPC responses whose head and message wait for the trailers, so that they leave in one write (`HeldResponses`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bootstraps import options, web
from http2_support import wire
from http2_support.caller import Answer, Caller
from plane_support import Plane, at, plane, run, until, upstream

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.network.http2_hold import ENOUGH_CALLS, HELD_BYTES

FOREVER_S = 1000.0
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
MESSAGE = b"\0\0\0\0\x02ok"


class Endpoint:
    """Answers nothing by itself: a test says what is written, and when."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[int] = asyncio.Queue()
        self.codec = Http2Codec(downstream=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while received := await reader.read(65536):
            for event in self.codec.receive_data(received):
                if isinstance(event, RequestHeaders):
                    self.calls.put_nowait(event.stream_id)
            self.flush()

    def flush(self) -> None:
        self.writer.writelines(self.codec.data_to_send())

    def head(self, stream_id: int) -> None:
        self.codec.send(ResponseHeaders(stream_id, 200, Headers([(b"content-type", b"application/grpc")]), False))

    def message(self, stream_id: int, data: bytes = MESSAGE) -> None:
        self.codec.send(Data(stream_id, data, False))

    def end(self, stream_id: int) -> None:
        self.codec.send(Trailers(stream_id, Headers([(b"grpc-status", b"0")])))
        self.flush()


class Calls:
    """A caller, the plane and the endpoint."""

    def __init__(self, one: Plane, caller: Caller, endpoint: Endpoint) -> None:
        self.plane, self.caller, self.endpoint = one, caller, endpoint

    def hold(self, seconds: float) -> None:
        """How long the next response is held."""
        assert not self.plane.data._context.held_responses._waiting, "a timer runs for the time before"
        self.plane.data._context.held_responses.hold_s = seconds

    async def begin(self) -> tuple[int, int]:
        """A call: the caller's stream and the endpoint's."""
        return self.caller.request(b"/a.B/C", method=b"POST", headers=GRPC), await self.endpoint.calls.get()

    async def at_one_go(self, message: bytes = MESSAGE) -> Answer:
        mine, its = await self.begin()
        self.endpoint.head(its)
        self.endpoint.message(its, message)
        self.endpoint.end(its)
        return await self.caller.answer(mine)

    async def learnt(self) -> None:
        """So many calls that the next one is held. The first ones have heads that fill the tables."""
        self.hold(0.0)
        for _ in range(ENOUGH_CALLS + 4):
            assert (await self.at_one_go()).trailers is not None
        await until(lambda: not self.plane.data._context.held_responses._waiting)

    async def taken(self, requests: int) -> int:
        """Wait until the proxy has seen so many response heads; the bytes that it has written to callers by then."""
        await until(lambda: self.plane.stat("cluster.a.", "upstream_rq_completed") == requests)
        for _ in range(5):
            await asyncio.sleep(0)
        return int(self.plane.stat("http.web.", "downstream_cx_tx_bytes_total"))


@asynccontextmanager
async def calls() -> AsyncIterator[Calls]:
    endpoint = Endpoint()
    kind = options("explicit_http_config: {http2_protocol_options: {}}")
    async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), cluster=kind)) as one:
        caller = Caller(*await one.connect("web"))
        try:
            yield Calls(one, caller, endpoint)
        finally:
            caller.writer.close()


def test_head_and_message_wait_for_the_trailers() -> None:
    async def body() -> None:
        async with calls() as test:
            await test.learnt()
            test.hold(FOREVER_S)
            before = await test.taken(ENOUGH_CALLS + 4)
            mine, its = await test.begin()
            test.endpoint.head(its)
            test.endpoint.flush()
            assert await test.taken(ENOUGH_CALLS + 5) == before
            test.endpoint.message(its)
            test.endpoint.end(its)
            answer = await test.caller.answer(mine)
            assert (answer.status, answer.body, answer.trailers) == (200, MESSAGE, Headers([(b"grpc-status", b"0")]))

    run(body())


def test_a_call_that_takes_its_time_is_passed_on_as_it_comes() -> None:
    async def body() -> None:
        async with calls() as test:
            await test.learnt()
            test.hold(0.001)
            mine, its = await test.begin()
            test.endpoint.head(its)
            test.endpoint.message(its)
            test.endpoint.flush()
            assert await test.caller.body(mine, len(MESSAGE)) == MESSAGE
            test.hold(FOREVER_S)
            for size in (2, 3):
                # The end of the call is nowhere near: nothing waits any more.
                test.endpoint.message(its)
                test.endpoint.flush()
                assert await test.caller.body(mine, size * len(MESSAGE)) == MESSAGE * size
            test.endpoint.end(its)
            assert (await test.caller.answer(mine)).trailers is not None

    run(body())


def test_calls_with_much_to_say_are_not_held() -> None:
    async def body() -> None:
        async with calls() as test:
            await test.learnt()
            test.hold(FOREVER_S)
            much = bytes(HELD_BYTES + 1)
            mine, its = await test.begin()
            test.endpoint.head(its)
            test.endpoint.message(its, much)
            test.endpoint.flush()
            assert await test.caller.body(mine, len(much)) == much
            test.endpoint.end(its)
            assert (await test.caller.answer(mine)).trailers is not None
            mine, its = await test.begin()
            test.endpoint.head(its)
            test.endpoint.flush()
            while not test.caller.on(mine).status:
                await test.caller.read()
            test.endpoint.end(its)
            assert (await test.caller.answer(mine)).trailers is not None

    run(body())


def test_the_end_of_one_takes_along_what_waits_of_the_others() -> None:
    async def body() -> None:
        async with calls() as test:
            await test.learnt()
            before = await test.taken(ENOUGH_CALLS + 4)
            test.hold(FOREVER_S)
            mine, its = await test.begin()
            other, its_other = await test.begin()
            test.endpoint.head(its)
            test.endpoint.message(its)
            test.endpoint.head(its_other)
            test.endpoint.flush()
            assert await test.taken(ENOUGH_CALLS + 6) == before
            test.endpoint.end(its_other)
            assert (await test.caller.answer(other)).trailers is not None
            assert await test.caller.body(mine, len(MESSAGE)) == MESSAGE
            test.endpoint.end(its)
            assert (await test.caller.answer(mine)).trailers is not None

    run(body())


def test_what_else_is_written_takes_along_what_waits() -> None:
    async def body() -> None:
        async with calls() as test:
            await test.learnt()
            test.hold(FOREVER_S)
            mine, its = await test.begin()
            test.endpoint.head(its)
            test.endpoint.flush()
            await test.taken(ENOUGH_CALLS + 5)
            test.caller.raw(wire.frame(wire.PING, 0, 0, bytes(8)))
            while not test.caller.on(mine).status:
                await test.caller.read()
            test.endpoint.end(its)
            assert (await test.caller.answer(mine)).trailers is not None

    run(body())
