"""HTTP/2 over blocking sockets: an upstream for `e2e_support.peers.Peer`."""

from __future__ import annotations

import socket

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

BODY = b"hello from the upstream"


def serve_http2(sock: socket.socket) -> None:
    """Answer every request with 200 and a short body when it has ended."""
    codec = Http2Codec(downstream=True)
    while not codec.closed:
        if out := b"".join(codec.data_to_send()):
            sock.sendall(out)
        received = sock.recv(65536)
        if not received:
            return
        for event in codec.receive_data(received):
            if isinstance(event, Data):
                codec.acknowledge(event.stream_id, event.flow_size)
            if isinstance(event, Trailers) or (isinstance(event, RequestHeaders | Data) and event.end_stream):
                fields = Headers([(b"content-length", b"%d" % len(BODY))])
                bare = isinstance(event, RequestHeaders) and event.method == b"HEAD"
                codec.send(ResponseHeaders(event.stream_id, 200, fields, bare))
                if not bare:
                    codec.send(Data(event.stream_id, BODY, True))
