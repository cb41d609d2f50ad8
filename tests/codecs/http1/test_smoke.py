"""Plain messages through both sides."""

from __future__ import annotations

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UpstreamHttp1


def test_get_and_answer() -> None:
    down = DownstreamHttp1(Http1Settings())
    up = UpstreamHttp1(Http1Settings())
    (head,) = down.receive_data(b"GET /a HTTP/1.1\r\nHost: x\r\nAccept:  */* \r\n\r\n")
    assert head == RequestHeaders(1, b"GET", b"", b"x", b"/a", Headers([(b"accept", b"*/*")]), True)
    assert up.open_stream() == 1
    up.send(head)
    assert b"".join(up.data_to_send()) == b"GET /a HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n"
    events = up.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert events == [ResponseHeaders(1, 200, Headers([(b"content-length", b"2")]), False), Data(1, b"ok", True, 2)]
    assert up.can_reuse
    for event in events:
        down.send(event)
    assert b"".join(down.data_to_send()) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert not down.closed
