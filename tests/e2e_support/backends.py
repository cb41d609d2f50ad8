"""Endpoints for mixed load, in a process of their own: HTTP/1, gRPC over HTTP/2, Dubbo and bytes.

Run as a program it prints its ports as JSON and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import zlib
from typing import ClassVar, cast

import uvloop
from dubbo_support import wire

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

GRPC = [(b"content-type", b"application/grpc")]
OK = Headers([(b"grpc-status", b"0")])
START_S = 60.0
DELAY = re.compile(rb"after(\d+)")


class Backends:
    """`ports` by kind: `http1`, `grpc`, `dubbo`, `bytes`."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Backends:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "e2e_support.backends"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        try:
            self._process.communicate(timeout=START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Endpoint(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def answer(self, data: bytes, delay_ms: int) -> None:
        if delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self._write, data)
        else:
            self.transport.write(data)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


class Http1(Endpoint):
    """`GET /<milliseconds>/<word>` → the word, after so many milliseconds."""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            _, delay, word = self.buffer[:end].split(b" ", 2)[1].split(b"/")
            self.buffer = self.buffer[end + 4 :]
            self.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(word) + word, int(delay))


class Grpc(Endpoint):
    """Echoes messages as they come; trailers follow when the request has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = Http2Codec(downstream=True)

    def data_received(self, data: bytes) -> None:
        codec = self.codec
        for event in codec.receive_data(data):
            if isinstance(event, RequestHeaders):
                codec.send(ResponseHeaders(event.stream_id, 200, Headers(list(GRPC)), False))
            elif isinstance(event, Data):
                codec.acknowledge(event.stream_id, event.flow_size)
                if event.data:
                    codec.send(Data(event.stream_id, event.data, False))
            if isinstance(event, Trailers) or (isinstance(event, RequestHeaders | Data) and event.end_stream):
                codec.send(Trailers(event.stream_id, OK))
        self.transport.write(b"".join(codec.data_to_send()))


class Dubbo(Endpoint):
    """Answers with a checksum of the request's body, after the milliseconds that the method is named for."""

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data
        while len(buffer) >= 16 and len(buffer) >= (size := 16 + int.from_bytes(buffer[12:16], "big")):
            frame, buffer = buffer[:size], buffer[size:]
            number = int.from_bytes(frame[4:12], "big", signed=True)
            if frame[2] & 0x20:
                if frame[2] & 0x40:
                    self.answer(wire.heartbeat_answer(number), 0)
                continue
            delay = DELAY.search(frame, 16)
            assert delay is not None
            self.answer(wire.answer(number, checksum(frame)), int(delay[1]))
        self.buffer = buffer


class Echo(Endpoint):
    """What comes goes back."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def checksum(frame: bytes) -> str:
    """Of a body."""
    return f"{zlib.crc32(frame[16:]):08x}"


class Program:
    """The process."""

    KINDS: ClassVar[dict[str, type[Endpoint]]] = {"http1": Http1, "grpc": Grpc, "dubbo": Dubbo, "bytes": Echo}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        ports = {}
        servers = []
        for name, kind in self.KINDS.items():
            servers.append(await loop.create_server(kind, "127.0.0.1", 0, backlog=1024))
            ports[name] = servers[-1].sockets[0].getsockname()[1]
        ended = loop.create_future()
        loop.add_reader(0, lambda: ended.done() or ended.set_result(None))
        print(json.dumps(ports), flush=True)
        await ended
        os._exit(0)  # connections that are left are nobody's concern


if __name__ == "__main__":
    uvloop.run(Program().run())
