"""One call of each kind to a host of a cable, from a namespace; each fails unless the answer is right."""

from __future__ import annotations

import socket

from dubbo_support import wire
from netns_support import Namespace

from e2e_support.backends import checksum
from e2e_support.peers import read_answer
from e2e_support.pod import PORTS, SERVER_FIRST
from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec


def get(host: Namespace, address: str, port: int = PORTS["http"]) -> dict[str, str]:
    """The headers of an answer to a GET."""
    with host.connect(address, port) as sock:
        sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = read_answer(sock)
        assert (answer.status, answer.body) == (200, b"word")
        return {name.lower(): value for name, value in answer.headers}


def receive(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := sock.recv(size - len(found))):
        found += data
    return found


def echoed(host: Namespace, address: str, port: int) -> None:
    with host.connect(address, port) as sock:
        sock.sendall(b"hello" * 1000)
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 6000) == b"hello" * 1000


def greeted(host: Namespace, address: str) -> None:
    with host.connect(address, PORTS["first"]) as sock:
        assert receive(sock, len(SERVER_FIRST)) == SERVER_FIRST
        sock.sendall(b"me")
        assert receive(sock, 2) == b"me"


def called(host: Namespace, address: str) -> None:
    with host.connect(address, PORTS["dubbo"]) as sock:
        for number in (7, 8):
            call = wire.call(method="after0", request_id=number)
            sock.sendall(call)
            head = receive(sock, 16)
            flags, status, answered, size = wire.header(head)
            assert (flags & 0x80, status, answered) == (0, 20, number)
            assert checksum(call).encode() in receive(sock, size)


def streamed(host: Namespace, address: str) -> None:
    """A gRPC call with one message."""
    codec = Http2Codec(downstream=False)
    with host.connect(address, PORTS["grpc"]) as sock:
        number = codec.open_stream()
        assert number is not None
        fields = Headers([(b"content-type", b"application/grpc"), (b"te", b"trailers")])
        codec.send(RequestHeaders(number, b"POST", b"http", b"a", b"/a.B/C", fields, False))
        codec.send(Data(number, b"\0\0\0\0\2hi", True))
        events: list[object] = []
        while not any(isinstance(event, Trailers) for event in events):
            sock.sendall(b"".join(codec.data_to_send()))
            data = sock.recv(65536)
            assert data
            events += codec.receive_data(data)
        assert [event.status for event in events if isinstance(event, ResponseHeaders)] == [200]
        assert b"".join(event.data for event in events if isinstance(event, Data)) == b"\0\0\0\0\2hi"
