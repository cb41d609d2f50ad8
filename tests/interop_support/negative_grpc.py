"""A gRPC server that misbehaves, for the six negative cases of grpc's interop tests.

The cases are those of doc/negative-http2-interop-test-descriptions.md. Every call is taken for UnaryCall with a large response;
what differs from a good server is told by the name of the case.
"""

from __future__ import annotations

import socket
import threading

from mesh_codecs.events import Data, Event, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.grpc import frame
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings
from mesh_codecs.http2.frames import NO_ERROR, goaway_frame, ping_frame, rst_stream_frame

RESPONSE_SIZE = 314_159
_PREFACE = 24
_PING = 6
_ACK = 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def simple_response(size: int) -> bytes:
    """A framed `SimpleResponse` whose payload has a body of so many zero bytes."""
    body = b"\x12" + _varint(size) + bytes(size)
    return frame(b"\x0a" + _varint(len(body)) + body)


class NegativeServer:
    """`serve` is for `e2e_support.Peer`."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.lock = threading.Lock()
        self.connections = 0
        """on which at least one call came"""
        self.pings_sent = 0
        self.pings_answered = 0
        self.most_streams = 0
        """open at the same time on one connection"""
        self.calls = 0

    def serve(self, sock: socket.socket) -> None:
        _Connection(self, sock).run()


class _Connection:
    def __init__(self, server: NegativeServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        limit = 1 if server.case == "max_streams" else 100
        self.codec = Http2Codec(downstream=True, settings=Http2Settings(max_concurrent_streams=limit))
        self.raw = bytearray()
        self.offset = _PREFACE
        self.open: set[int] = set()
        self.pending: list[tuple[int, bytes]] = []
        """answers that wait for credit"""

    def run(self) -> None:
        self.flush()
        while received := self.sock.recv(65536):
            self.count_pings(received)
            for event in self.codec.receive_data(received):
                self.handle(event)
            for stream_id, rest in self.pending[:]:
                self.continue_body(stream_id, rest)
            self.flush()

    def flush(self) -> None:
        if data := b"".join(self.codec.data_to_send()):
            self.sock.sendall(data)

    def count_pings(self, received: bytes) -> None:
        self.raw += received
        while len(self.raw) >= self.offset + 9:
            size = int.from_bytes(self.raw[self.offset : self.offset + 3], "big")
            kind, flags = self.raw[self.offset + 3], self.raw[self.offset + 4]
            if len(self.raw) < self.offset + 9 + size:
                break
            if kind == _PING and flags & _ACK:
                with self.server.lock:
                    self.server.pings_answered += 1
            del self.raw[: self.offset + 9 + size]
            self.offset = 0

    def handle(self, event: Event) -> None:
        server = self.server
        if isinstance(event, RequestHeaders):
            self.open.add(event.stream_id)
            with server.lock:
                server.connections += event.stream_id == 1
                server.calls += 1
                server.most_streams = max(server.most_streams, len(self.open))
        elif isinstance(event, Data):
            self.codec.acknowledge(event.stream_id, event.flow_size)
            if event.end_stream:
                self.answer(event.stream_id)
        elif isinstance(event, StreamReset):
            self.open.discard(event.stream_id)

    def ping(self) -> None:
        if self.server.case == "ping":
            with self.server.lock:
                self.server.pings_sent += 1
            self.flush()
            self.sock.sendall(ping_frame(0, b"negative"))

    def answer(self, stream_id: int) -> None:
        case = self.server.case
        self.ping()
        headers = Headers([(b"content-type", b"application/grpc+proto"), (b"grpc-encoding", b"identity")])
        self.codec.send(ResponseHeaders(stream_id, 200, headers, False))
        self.ping()
        if case == "rst_after_header":
            self.reset(stream_id)
            return
        body = simple_response(RESPONSE_SIZE)
        self.continue_body(stream_id, body[: len(body) // 2] if case == "rst_during_data" else body)

    def continue_body(self, stream_id: int, rest: bytes) -> None:
        self.pending = [one for one in self.pending if one[0] != stream_id]
        while rest and (window := min(self.codec.send_window(stream_id), 16_384)) > 0:
            self.codec.send(Data(stream_id, rest[:window], False))
            rest = rest[window:]
            self.ping()
        if rest:
            self.pending.append((stream_id, rest))
        elif self.server.case in ("rst_during_data", "rst_after_data"):
            self.reset(stream_id)
        else:
            self.codec.send(Trailers(stream_id, Headers([(b"grpc-status", b"0")])))
            self.open.discard(stream_id)
            self.ping()
            if self.server.case == "goaway":
                self.flush()
                self.sock.sendall(goaway_frame(stream_id, NO_ERROR))

    def reset(self, stream_id: int) -> None:
        # The codec would say CANCEL; the server of the original tests says NO_ERROR.
        self.flush()
        self.sock.sendall(rst_stream_frame(stream_id, NO_ERROR))
        self.open.discard(stream_id)
