"""A blocking client around the codec for `h2specd`: python calling.py http://host:port/ makes one request and reads on."""

from __future__ import annotations

import socket
import sys
from urllib.parse import urlsplit

from mesh_codecs.events import Data, RequestHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec


def call(url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    codec = Http2Codec(downstream=False)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=12.0) as connection:
        stream_id = codec.open_stream()
        assert stream_id is not None
        codec.send(RequestHeaders(stream_id, b"GET", b"http", parts.netloc.encode(), b"/", Headers(), True))
        while True:
            connection.sendall(b"".join(codec.data_to_send()))
            if codec.closed:
                return
            received = connection.recv(65536)
            if not received:
                return
            for event in codec.receive_data(received):
                if isinstance(event, Data):
                    codec.acknowledge(event.stream_id, event.flow_size)


if __name__ == "__main__":
    call(sys.argv[1])
