"""A connection for health checks: one question and its answer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from mesh_codecs.codec import Codec
from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import ConnectionFailed, Data, Event, GoAway, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import Http1Settings, UpstreamHttp1
from mesh_codecs.http2.engines import new_codec as new_http2_codec
from mesh_codecs.http2.settings import Http2Settings

if TYPE_CHECKING:
    from mesh_proxy.config.model import ClusterConfig


@dataclass(slots=True)
class Answer:
    """An HTTP response as far as a check looks at it."""

    status: int
    headers: Headers
    body: bytes = b""
    trailers: Headers | None = None


def new_codec(config: ClusterConfig, *, http2: bool) -> Codec:
    """The upstream side of a connection of its own."""
    if http2:
        return new_http2_codec("mesh", downstream=False, settings=Http2Settings())
    settings = Http1Settings(
        max_head_bytes=config.max_response_headers_kb * 1024, max_header_count=config.max_response_headers_count
    )
    return UpstreamHttp1(settings)


class _Exchange(asyncio.Protocol):
    """What both kinds share: the transport, and who waits."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail("closed by the endpoint")

    def _fail(self, why: str) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionResetError(why))

    def _done(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        if self.closed:
            raise ConnectionResetError("closed by the endpoint")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Drop the connection at once."""
        self.closed = True
        self.transport.abort()


class RawExchange(_Exchange):
    """Bytes out, bytes in."""

    def __init__(self) -> None:
        super().__init__()
        self._received = bytearray()
        self._enough: Callable[[bytes], bool] = lambda data: False

    async def ask(self, send: bytes, enough: Callable[[bytes], bool]) -> None:
        """Send, and wait until what came satisfies."""
        self._received.clear()
        self._enough = enough
        if send:
            self.transport.write(send)
        await self._wait()

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            return
        self._received += data
        if self._enough(bytes(self._received)):
            self._done()
        elif len(self._received) > MAX_RAW:
            del self._received[:-MAX_RAW]


MAX_RAW = 64 * 1024
"""bytes of a TCP answer that are searched for what is expected"""


class HttpExchange(_Exchange):
    """Requests and responses, by whichever codec."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec
        self._going = False
        """the endpoint takes no further request on this connection"""
        self._stream_id = 0
        self._answer: Answer | None = None
        self._limit = 0

    @property
    def usable(self) -> bool:
        """Another request may be sent here."""
        if self.closed or self._going or self._codec.closed:
            return False
        return self._codec.can_reuse if isinstance(self._codec, UpstreamHttp1) else True

    async def ask(self, request: RequestHeaders, body: bytes, limit: int) -> Answer:
        """Send a request and wait for the whole response, of whose body so many bytes are kept."""
        codec = self._codec
        stream_id = codec.open_stream()
        if stream_id is None:
            raise ConnectionResetError("the endpoint takes no request")
        request.stream_id = stream_id
        self._expect(stream_id, limit)
        try:
            codec.send(request)
            if not request.end_stream:
                codec.send(Data(stream_id, body, True))
        except LocalProtocolError as error:
            raise ConnectionResetError(str(error)) from error
        self._flush()
        await self._wait()
        assert self._answer is not None
        return self._answer

    def _expect(self, stream_id: int, limit: int) -> None:
        self._stream_id = stream_id
        self._answer = None
        self._limit = limit

    def data_received(self, data: bytes) -> None:
        self._take(self._codec.receive_data(data))

    def eof_received(self) -> bool:
        self._take(self._codec.receive_eof())
        return False

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseHeaders):
                self._answer = Answer(event.status, event.headers)
                if event.end_stream:
                    self._done()
            elif isinstance(event, Data):
                self._codec.acknowledge(event.stream_id, event.flow_size)
                answer = self._answer
                if answer is not None and len(answer.body) < self._limit:
                    answer.body = (answer.body + event.data)[: self._limit]
                if event.end_stream:
                    self._done()
            elif isinstance(event, Trailers):
                if self._answer is not None:
                    self._answer.trailers = event.headers
                self._done()
            elif isinstance(event, GoAway):
                self._going = True
                if event.last_stream_id < self._stream_id or event.error_code:
                    self._fail("the endpoint is going away")
            elif isinstance(event, StreamReset):
                self._fail("reset by the endpoint")
            elif isinstance(event, ConnectionFailed):
                self._going = True
                self._fail(str(event.error))
        if not self.closed:
            self._flush()

    def _flush(self) -> None:
        data = self._codec.data_to_send()
        if data:
            self.transport.writelines(data)
