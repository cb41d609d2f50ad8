"""A small gRPC service, one process per version: `python -m mesh_proxy.demo.grpc_service v1`.

It serves on a free port of loopback, says `listening PORT` on its standard output, answers every unary call with its own name
(a `google.protobuf.StringValue`), and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import cast

import uvloop

from mesh_codecs.events import Data, Event, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.grpc import frame
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings
from mesh_proxy.demo.scenario import NAME_HEADER
from mesh_proxy.demo.service import until_input_ends


class GrpcService(asyncio.Protocol):
    """One connection from the sidecar; the calls of all callers come over it."""

    def __init__(self, name: str) -> None:
        text = name.encode()
        self._name = text
        self._message = frame(b"\x0a" + bytes((len(text),)) + text)
        self._codec = Http2Codec(downstream=True, settings=Http2Settings())
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._codec.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: Event) -> None:
        if isinstance(event, Data):
            self._codec.acknowledge(event.stream_id, event.flow_size)
        if isinstance(event, RequestHeaders | Data) and event.end_stream:
            self._answer(event.stream_id)

    def _answer(self, stream_id: int) -> None:
        headers = Headers([(b"content-type", b"application/grpc"), (NAME_HEADER.encode(), self._name)])
        self._codec.send(ResponseHeaders(stream_id, 200, headers, False))
        self._codec.send(Data(stream_id, self._message, False))
        self._codec.send(Trailers(stream_id, Headers([(b"grpc-status", b"0")])))

    def _flush(self) -> None:
        assert self._transport is not None
        if out := self._codec.data_to_send():
            self._transport.writelines(out)
        if self._codec.closed:
            self._transport.close()


async def serve(name: str) -> None:
    """Until standard input ends."""
    await until_input_ends(lambda: GrpcService(name))


def main() -> int:
    """The command line of one service."""
    parser = argparse.ArgumentParser(description="A small gRPC service for the demo; it ends with its standard input.")
    parser.add_argument("name", help="what it calls itself, at most 127 letters")
    uvloop.run(serve(parser.parse_args().name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
