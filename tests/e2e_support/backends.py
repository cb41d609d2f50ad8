"""Endpoints for mixed load, in one thread: HTTP/1, gRPC over HTTP/2, Dubbo and bytes. They answer when they are told to."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Awaitable, Callable

from dubbo_support import wire
from dubbo_support.plane import id_of, read_frame

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.tasks import create_task

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GRPC = [(b"content-type", b"application/grpc")]
OK = Headers([(b"grpc-status", b"0")])


class Backends:
    """`ports` by kind: `http1`, `grpc`, `dubbo`, `bytes`."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backends")
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Backends:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        for name, serve in (("http1", http1), ("grpc", grpc), ("dubbo", dubbo), ("bytes", echo)):
            server = await asyncio.start_server(self._guard(serve), "127.0.0.1", 0, backlog=1024)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)

    def _guard(self, serve: Serve) -> Serve:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the proxy went away, or the test is over
            finally:
                writer.close()

        return run


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`GET /<milliseconds>/<word>` → the word, after so many milliseconds."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        _, delay, word = head.split(b" ", 2)[1].split(b"/")
        if delay != b"0":
            await asyncio.sleep(int(delay) / 1000)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(word) + word)


async def grpc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echoes messages as they come; trailers follow when the request has ended."""
    codec = Http2Codec(downstream=True)
    while not codec.closed:
        data = await reader.read(65536)
        if not data:
            return
        for event in codec.receive_data(data):
            if isinstance(event, RequestHeaders):
                codec.send(ResponseHeaders(event.stream_id, 200, Headers(list(GRPC)), False))
            elif isinstance(event, Data):
                codec.acknowledge(event.stream_id, event.flow_size)
                if event.data:
                    codec.send(Data(event.stream_id, event.data, False))
            if isinstance(event, Trailers) or (isinstance(event, RequestHeaders | Data) and event.end_stream):
                codec.send(Trailers(event.stream_id, OK))
            elif isinstance(event, StreamReset):
                pass
        writer.write(b"".join(codec.data_to_send()))


async def dubbo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with a checksum of the request's body, after the milliseconds that the method is named for."""
    while True:
        frame = await read_frame(reader)
        if frame[2] & 0x20:
            if frame[2] & 0x40:
                writer.write(wire.heartbeat_answer(id_of(frame)))
            continue
        delay = int(wire.head_strings(frame[16:])[3].removeprefix("after"))
        answer = wire.answer(id_of(frame), checksum(frame))
        if delay:
            create_task(_later(writer, answer, delay / 1000), name="answer")
        else:
            writer.write(answer)


def checksum(frame: bytes) -> str:
    """Of a body."""
    return f"{zlib.crc32(frame[16:]):08x}"


async def _later(writer: asyncio.StreamWriter, answer: bytes, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if not writer.is_closing():
        writer.write(answer)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes goes back."""
    while data := await reader.read(65536):
        writer.write(data)
