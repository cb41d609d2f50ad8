"""Codec time of one proxied HTTP/2 request: python bench/http2_codec.py [requests per read].

Both connections of a proxy in one process without sockets: decode and encode of a small request, decode and encode of its
response, with the glue that re-stamps stream ids. Prints the least of many rounds, in microseconds per request.
"""

from __future__ import annotations

import sys
import time

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

REQUEST = Headers(
    [
        (b"user-agent", b"grpc-go/1.60"),
        (b"content-type", b"application/json"),
        (b"accept", b"*/*"),
        (b"x-label", b"gray"),
        (b"accept-encoding", b"gzip"),
    ]
)
RESPONSE = Headers(
    [
        (b"server", b"upstream"),
        (b"content-type", b"application/json"),
        (b"content-length", b"13"),
        (b"date", b"Mon, 01 Jan 2026 00:00:00 GMT"),
    ]
)
BODY = b"Hello, world!"


class Bench:
    """A caller, the two codecs of the proxy, and a server."""

    def __init__(self, *, unique: bool) -> None:
        self.unique = unique
        self.count = 0
        self.caller = Http2Codec(downstream=False)
        self.downstream = Http2Codec(downstream=True)
        self.upstream = Http2Codec(downstream=False)
        self.server = Http2Codec(downstream=True)
        self.ids: dict[int, int] = {}
        for one, other in ((self.caller, self.downstream), (self.upstream, self.server)):
            for _ in range(3):
                other.receive_data(b"".join(one.data_to_send()))
                one.receive_data(b"".join(other.data_to_send()))

    def forward(self, wire: bytes) -> list[bytes]:
        for event in self.downstream.receive_data(wire):
            if type(event) is RequestHeaders:
                stream_id = self.upstream.open_stream()
                assert stream_id is not None
                self.ids[stream_id] = event.stream_id
                event.stream_id = stream_id
                if self.unique:
                    self.count += 1
                    event.headers.set(b"x-request-id", b"%032x" % self.count)
                self.upstream.send(event)
        return self.upstream.data_to_send()

    def answer(self, wire: bytes) -> list[bytes]:
        for event in self.upstream.receive_data(wire):
            stream_id = event.stream_id
            if type(event) is Data:
                self.upstream.acknowledge(stream_id, event.flow_size)
            event.stream_id = self.ids[stream_id]
            self.downstream.send(event)
        return self.downstream.data_to_send()

    def round(self, batch: int) -> tuple[float, float]:
        for _ in range(batch):
            stream_id = self.caller.open_stream()
            assert stream_id is not None
            self.caller.send(RequestHeaders(stream_id, b"GET", b"http", b"svc.example:8080", b"/api/items", REQUEST, True))
        wire = b"".join(self.caller.data_to_send())
        start = time.perf_counter()
        out = self.forward(wire)
        request = time.perf_counter() - start
        for event in self.server.receive_data(b"".join(out)):
            self.server.send(ResponseHeaders(event.stream_id, 200, RESPONSE, False))
            self.server.send(Data(event.stream_id, BODY, True))
        wire = b"".join(self.server.data_to_send())
        start = time.perf_counter()
        out = self.answer(wire)
        response = time.perf_counter() - start
        for event in self.caller.receive_data(b"".join(out)):
            if type(event) is Data:
                self.caller.acknowledge(event.stream_id, event.flow_size)
        self.ids.clear()
        return request, response


def main() -> None:
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    for unique in (False, True):
        bench = Bench(unique=unique)
        for _ in range(50):
            bench.round(batch)
        rounds = [bench.round(batch) for _ in range(max(4000 // batch, 100))]
        request = min(first for first, _ in rounds) / batch * 1e6
        response = min(second for _, second in rounds) / batch * 1e6
        name = "x-request-id added" if unique else "known heads"
        print(f"{name:20} request {request:5.2f}  response {response:5.2f}  sum {request + response:5.2f} us, {batch} per read")


if __name__ == "__main__":
    main()
