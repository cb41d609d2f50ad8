"""A tiny asyncio server around the codec, for conformance tools. Tests only: the proxy has its own shell."""

from __future__ import annotations

import asyncio
from typing import cast

from mesh_codecs.events import Data, Event, RequestHeaders, ResponseHeaders, StreamReset, Trailers, WindowOpened
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Settings, new_codec

BODY = b"hello from the codec\n"


class ServerProtocol(asyncio.Protocol):
    """Answers every request with 200 and a short body once the request has ended."""

    def __init__(self, settings: Http2Settings, engine: str) -> None:
        self.codec = new_codec(engine, downstream=True, settings=settings)
        self.pending: dict[int, bytes] = {}
        """rest of the answer by stream"""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            self.handle(event)
        self.flush()

    def eof_received(self) -> None:
        for event in self.codec.receive_eof():
            self.handle(event)
        self.flush()

    def handle(self, event: Event) -> None:
        if isinstance(event, RequestHeaders):
            self.pending[event.stream_id] = BODY
            if event.end_stream:
                self.answer(event.stream_id)
        elif isinstance(event, Data):
            self.codec.acknowledge(event.stream_id, event.flow_size)
            if event.end_stream:
                self.answer(event.stream_id)
        elif isinstance(event, Trailers):
            self.answer(event.stream_id)
        elif isinstance(event, StreamReset):
            self.pending.pop(event.stream_id, None)
        elif isinstance(event, WindowOpened):
            for stream_id in [event.stream_id] if event.stream_id else list(self.pending):
                self.continue_body(stream_id)

    def answer(self, stream_id: int) -> None:
        if stream_id in self.pending:
            self.codec.send(ResponseHeaders(stream_id, 200, Headers([(b"content-type", b"text/plain")]), False))
            self.continue_body(stream_id)

    def continue_body(self, stream_id: int) -> None:
        rest = self.pending.get(stream_id)
        size = self.codec.send_window(stream_id)
        if not rest or not size:
            return
        piece, rest = rest[:size], rest[size:]
        self.codec.send(Data(stream_id, piece, not rest))
        if rest:
            self.pending[stream_id] = rest
        else:
            del self.pending[stream_id]

    def flush(self) -> None:
        out = self.codec.data_to_send()
        if out:
            self.transport.writelines(out)
        if self.codec.closed:
            self.transport.close()
            return
        when = self.codec.next_timer()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if when is not None:
            self.timer = asyncio.get_running_loop().call_at(when, self.timer_fired)

    def timer_fired(self) -> None:
        self.timer = None
        for event in self.codec.handle_timer(asyncio.get_running_loop().time()):
            self.handle(event)
        self.flush()


async def start_server(settings: Http2Settings, engine: str = "mesh") -> asyncio.Server:
    """Listen on a free port of the loopback."""
    return await asyncio.get_running_loop().create_server(lambda: ServerProtocol(settings, engine), "127.0.0.1", 0)
