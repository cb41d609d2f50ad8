"""An HTTP/2 caller for tests: our own codec over asyncio streams, with all events kept, and a door for raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from http2_support.wire import Pairs

from mesh_codecs.events import ConnectionEnded, Data, Event, GoAway, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings


class Answer:
    """What came on one stream."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = list(events)
        heads = [e for e in self.events if isinstance(e, ResponseHeaders)]
        self.status = heads[0].status if heads else 0
        self.headers = heads[0].headers if heads else Headers()
        self.body = b"".join(e.data for e in self.events if isinstance(e, Data))
        trailers = [e for e in self.events if isinstance(e, Trailers)]
        self.trailers = trailers[0].headers if trailers else None
        self.reset = next((e for e in self.events if isinstance(e, StreamReset)), None)
        self.ended = (
            self.reset is not None
            or self.trailers is not None
            or any(isinstance(e, Data | ResponseHeaders) and e.end_stream for e in self.events)
        )


class Caller:
    """One connection. `acknowledge=False`: the body's credit is never given back."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, acknowledge: bool = True, **settings: Any
    ) -> None:
        self.reader, self.writer = reader, writer
        self.codec = Http2Codec(downstream=False, settings=Http2Settings(**settings))
        self.events: list[Event] = []
        self.closed = False
        self._acknowledge = acknowledge

    def send(self, *events: Event) -> None:
        for event in events:
            self.codec.send(event)
        self.flush()

    def flush(self) -> None:
        self.writer.write(b"".join(self.codec.data_to_send()))

    def raw(self, data: bytes) -> None:
        """Bytes of the test's own, after what the codec had to say."""
        self.flush()
        self.writer.write(data)

    def request(
        self,
        path: bytes = b"/",
        *,
        method: bytes = b"GET",
        headers: Pairs = (),
        end: bool = True,
        authority: bytes = b"a",
        protocol: bytes = b"",
    ) -> int:
        """Send a head; the stream's id."""
        stream_id = self.codec.open_stream()
        assert stream_id is not None
        self.send(RequestHeaders(stream_id, method, b"http", authority, path, Headers(list(headers)), end, protocol))
        return stream_id

    def data(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.send(Data(stream_id, data, end))

    async def read(self) -> None:
        """One read's worth of events."""
        received = await self.reader.read(65536)
        if not received:
            self.closed = True
            self.events.append(ConnectionEnded())
            return
        for event in self.codec.receive_data(received):
            self.events.append(event)
            if self._acknowledge and isinstance(event, Data):
                self.codec.acknowledge(event.stream_id, event.flow_size)
        self.flush()

    def on(self, stream_id: int) -> Answer:
        """What came on a stream so far."""
        return Answer(e for e in self.events if e.stream_id == stream_id)

    async def answer(self, stream_id: int) -> Answer:
        """The whole response, or what came before the end of the stream or connection."""
        while not (answer := self.on(stream_id)).ended and not self.closed:
            await self.read()
        return answer

    async def body(self, stream_id: int, size: int) -> bytes:
        """Wait for so many bytes of a body."""
        while len(found := self.on(stream_id).body) < size and not self.closed:
            await self.read()
        return found

    async def get(self, path: bytes = b"/", **more: Any) -> Answer:
        return await self.answer(self.request(path, **more))

    async def goaway(self) -> GoAway:
        """Wait for the last GOAWAY of the connection: it ends afterwards."""
        while not self.closed:
            await self.read()
        found = [e for e in self.events if isinstance(e, GoAway)]
        assert found, self.events
        return found[-1]

    async def until_closed(self) -> None:
        while not self.closed:
            await self.read()
