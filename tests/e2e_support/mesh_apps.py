"""Three services without a line of mesh code, in a process of their own: A speaks HTTP and calls B by gRPC, which calls C by
Dubbo. Each passes on nothing of a request but its trace header, and puts its own name before what it was answered.

Run as a program it prints the ports of its instances as JSON; then each line of its input is a command:
`{"calls": {"a-base": port, …}}` says where the outbound side of an instance's sidecar listens, `{"hold": n}` makes C keep its
answers until it has n requests at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import uvloop
from dubbo_support import wire

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_codecs.events import ConnectionFailed, Data, GoAway, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings

INSTANCES = ("a-base", "a-gray", "b-base", "b-blue", "c-base", "c-gray")
TRACES = (b"traceparent", b"b3", b"x-request-id")
"""a service passes on the first that it got"""
CONNECTIONS = 16
"""of an instance to its sidecar, so that several workers carry its calls, and 100 calls on each are enough"""
Answered = Callable[[bytes], None]
_HEAD = re.compile(rb"\r\n([^:\r\n]+): ?([^\r\n]*)")
_START_S = 60.0


class Apps:
    """The process; `ports` by instance."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Apps:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "e2e_support.mesh_apps"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())
        return self

    def tell(self, **command: Any) -> None:
        """One command; returns when it was carried out."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"done\n"

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        try:
            self._process.communicate(timeout=_START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def trace_of(headers: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The one header that is passed on."""
    return next((name, headers[name]) for name in TRACES if name in headers)


class Peer(asyncio.Protocol):
    """One connection, in either direction."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)


# -- towards the next service


class GrpcCalls(Peer):
    """A's connection to its sidecar."""

    def __init__(self, lost: Callable[[GrpcCalls], None]) -> None:
        self.codec = Http2Codec(downstream=False, settings=Http2Settings())
        self.waiting: dict[int, Answered] = {}
        self.bodies: dict[int, bytes] = {}
        self._lost = lost

    def call(self, trace: tuple[bytes, bytes], answered: Answered) -> bool:
        """False when it takes no more at the moment."""
        stream = self.codec.open_stream()
        if stream is None:
            return False
        headers = Headers([(b"content-type", b"application/grpc"), (b"te", b"trailers"), trace])
        self.codec.send(RequestHeaders(stream, b"POST", b"http", b"b", b"/mesh.B/Go", headers, False, b""))
        self.codec.send(Data(stream, b"\0\0\0\0\2go", True))
        self.waiting[stream] = answered
        self.flush()
        return True

    def flush(self) -> None:
        pieces = self.codec.data_to_send()
        if pieces and not self.transport.is_closing():
            self.transport.write(b"".join(pieces))

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            if isinstance(event, Data):
                self.codec.acknowledge(event.stream_id, event.flow_size)
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, Trailers):
                self.done(event.stream_id, b"" if event.headers.get(b"grpc-status") == b"0" else b"grpc status")
            elif isinstance(event, ResponseHeaders) and event.end_stream:
                self.done(event.stream_id, b"grpc-message " + (event.headers.get(b"grpc-message") or b"none"))
            elif isinstance(event, StreamReset):
                self.done(event.stream_id, b"grpc reset %b" % str(event.reason).encode())
            elif isinstance(event, GoAway | ConnectionFailed):
                self._lost(self)
        self.flush()

    def done(self, stream: int, wrong: bytes) -> None:
        answered = self.waiting.pop(stream, None)
        body = self.bodies.pop(stream, b"")
        if answered is not None:
            answered(wrong or body[5:])

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        for stream in list(self.waiting):
            self.done(stream, b"grpc connection lost")


class DubboCalls(Peer):
    """B's connection to its sidecar."""

    _numbers = itertools.count(1)

    def __init__(self, lost: Callable[[DubboCalls], None]) -> None:
        self.codec = DubboCodec(HeadMemo())
        self.waiting: dict[int, Answered] = {}
        self._lost = lost

    def call(self, trace: tuple[bytes, bytes], answered: Answered) -> bool:
        """True: there is always room."""
        number = next(self._numbers)
        self.waiting[number] = answered
        attachments = {trace[0].decode(): trace[1].decode()}
        self.transport.write(wire.call("mesh.C", "go", request_id=number, attachments=attachments))
        return True

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            if not isinstance(event, DubboMessage) or event.is_request:
                continue
            answered = self.waiting.pop(event.request_id, None)
            if answered is not None:
                name = re.search(rb"c-[a-z]+", event.frame[16:])
                answered(name[0] if event.status == 20 and name else b"dubbo status %d" % event.status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        for answered in self.waiting.values():
            answered(b"dubbo connection lost")
        self.waiting.clear()


class Calls:
    """The connections of an instance to its sidecar, in turns."""

    def __init__(self, kind: type[GrpcCalls] | type[DubboCalls], port: int) -> None:
        self._kind = kind
        self._port = port
        self._open: list[Any] = []
        self._turn = itertools.count()

    async def connect(self) -> None:
        while len(self._open) < CONNECTIONS:
            _, made = await asyncio.get_running_loop().create_connection(lambda: self._kind(self._gone), "127.0.0.1", self._port)
            self._open.append(made)

    def _gone(self, one: Any) -> None:
        """No new calls on it, and another in its place, as a client library does."""
        if one in self._open:
            self._open.remove(one)
            self.again = asyncio.ensure_future(self.connect())

    def __call__(self, trace: tuple[bytes, bytes], answered: Answered) -> None:
        for _ in range(CONNECTIONS):
            if self._open and self._open[next(self._turn) % len(self._open)].call(trace, answered):
                return
        answered(b"no connection takes the call")


# -- from the service before


class A(Peer):
    """HTTP/1.1."""

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name.encode()
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            headers = {name.lower(): value for name, value in _HEAD.findall(self.buffer[:end])}
            self.buffer = self.buffer[end + 4 :]
            self.program.calls[self.name.decode()](trace_of(headers), self.answer)

    def answer(self, rest: bytes) -> None:
        body = self.name + b" " + rest
        if self.transport.is_closing():
            return
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


class B(Peer):
    """gRPC."""

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name.encode()
        self.codec = Http2Codec(downstream=True)
        self.traces: dict[int, tuple[bytes, bytes]] = {}

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            stream = event.stream_id
            if isinstance(event, RequestHeaders):
                self.traces[stream] = trace_of(event.headers.first)
            elif isinstance(event, Data):
                self.codec.acknowledge(stream, event.flow_size)
                if event.end_stream:
                    self.go(stream)
        self.flush()

    def go(self, stream: int) -> None:
        def answer(rest: bytes) -> None:
            body = self.name + b" " + rest
            head = Headers([(b"content-type", b"application/grpc")])
            self.codec.send(ResponseHeaders(stream, 200, head, False))
            self.codec.send(Data(stream, b"\0" + len(body).to_bytes(4, "big") + body, False))
            self.codec.send(Trailers(stream, Headers([(b"grpc-status", b"0")])))
            self.flush()

        self.program.calls[self.name.decode()](self.traces.pop(stream), answer)

    def flush(self) -> None:
        pieces = self.codec.data_to_send()
        if pieces and not self.transport.is_closing():
            self.transport.write(b"".join(pieces))


class C(Peer):
    """Dubbo."""

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        self.codec = DubboCodec(HeadMemo())

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            if isinstance(event, DubboMessage) and event.is_request:
                if event.is_event:
                    self.transport.write(wire.heartbeat_answer(event.request_id))
                else:
                    self.program.hold(self.transport, wire.answer(event.request_id, self.name))


class Program:
    """All instances."""

    def __init__(self) -> None:
        self.calls: dict[str, Calls] = {}
        self.held: list[tuple[asyncio.Transport, bytes]] = []
        self.wanted = 0

    def hold(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Answer at once, or when there are as many as wanted."""
        self.held.append((transport, answer))
        if len(self.held) >= self.wanted:
            self.wanted = 0
            for to, text in self.held:
                to.write(text)
            self.held.clear()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        kinds: dict[str, type[A] | type[B] | type[C]] = {"a": A, "b": B, "c": C}
        ports, servers = {}, []
        for name in INSTANCES:
            kind = kinds[name[0]]
            servers.append(await loop.create_server(lambda kind=kind, name=name: kind(self, name), "127.0.0.1", 0, backlog=1024))  # type: ignore[misc]
            ports[name] = servers[-1].sockets[0].getsockname()[1]
        print(json.dumps(ports), flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            for name, port in command.get("calls", {}).items():
                self.calls[name] = Calls(GrpcCalls if name[0] == "a" else DubboCalls, port)
                await self.calls[name].connect()
            self.wanted = command.get("hold", self.wanted)
            print("done", flush=True)
        os._exit(0)  # connections that are left are nobody's concern


if __name__ == "__main__":
    uvloop.run(Program().run())
