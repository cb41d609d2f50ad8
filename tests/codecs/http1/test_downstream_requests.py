"""What a request becomes on the side that calls us, HTTP/1.0 included."""

from __future__ import annotations

import pytest
from http1_support import GET, SETTINGS, fields, request, serve, waiting, with_fields, written

from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    Trailers,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UnderscoreAction

HTTP_10 = Http1Settings(accept_http_10=True, default_host_for_http_10=b"default")


class TestRequests:
    def test_parts(self) -> None:
        head = request(b"GET /a?b HTTP/1.1\r\nHost: Shop:80\r\nAccept:  */* \r\nX-One: 1\r\nx-one: 2\r\n\r\n")
        expected = fields((b"accept", b"*/*"), (b"x-one", b"1"), (b"x-one", b"2"))
        assert head == RequestHeaders(1, b"GET", b"", b"Shop:80", b"/a?b", expected, True, b"", b"HTTP/1.1")

    def test_host_may_be_missing(self) -> None:
        assert request(b"GET / HTTP/1.1\r\n\r\n").authority == b""

    @pytest.mark.parametrize(
        ("target", "scheme", "authority", "path"),
        [
            (b"http://SHOP/x?y", b"http", b"SHOP", b"/x?y"),
            (b"HTTPS://shop:443", b"https", b"shop:443", b"/"),
            (b"http://shop?x", b"http", b"shop", b"/?x"),
        ],
    )
    def test_absolute_target(self, target: bytes, scheme: bytes, authority: bytes, path: bytes) -> None:
        head = request(b"GET %b HTTP/1.1\r\nHost: shop\r\n\r\n" % target)
        assert (head.scheme, head.authority, head.path) == (scheme, authority, path)

    def test_absolute_target_passed_on(self) -> None:
        head = request(b"GET http://bank/x HTTP/1.1\r\nHost: shop\r\n\r\n", Http1Settings(allow_absolute_url=False))
        assert (head.scheme, head.authority, head.path) == (b"", b"shop", b"http://bank/x")

    def test_asterisk(self) -> None:
        assert request(b"OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n").path == b"*"

    @pytest.mark.parametrize(
        ("lines", "left"),
        [
            (b"Connection: X-A, x-b ,\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3", [(b"x-c", b"3")]),
            (b"Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2", []),
            (b"Connection: close, X-A\r\nX-A: 1\r\nX-A: 2", []),
            (b"Connection: authorization, content-length\r\nAuthorization: x", [(b"authorization", b"x")]),
            (b"Connection:\r\nAccept: a", [(b"accept", b"a")]),
            (b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive", []),
            (b"Connection: close\r\nKeep-Alive: timeout=5", []),
            (b"Upgrade: websocket", []),
            (b"TE: gzip", []),
            (b"TE: gzip, Trailers;q=0.5", [(b"te", b"trailers")]),
            (b"Connection: TE\r\nTE: trailers", [(b"te", b"trailers")]),
            (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA", []),
            (b"Expect: 100-continue", [(b"expect", b"100-continue")]),
        ],
    )
    def test_hop_by_hop(self, lines: bytes, left: list[tuple[bytes, bytes]]) -> None:
        for _ in range(2):  # the second time out of the table
            head = request(with_fields(lines))
            assert list(head.headers) == left
            assert head.protocol == b""
            assert head.authority == b"shop"

    def test_long_connection_field_is_obeyed_but_not_kept(self) -> None:
        option = b"x-" + b"a" * 200
        assert list(request(with_fields(b"Connection: %b\r\n%b: 1" % (option, option))).headers) == []

    def test_empty_connection_field_before_a_request_without_one(self) -> None:
        assert list(request(with_fields(b"Connection:")).headers) == []
        assert list(request(with_fields(b"Keep-Alive: 1")).headers) == []

    def test_long_names_and_hosts_are_not_kept(self) -> None:
        name = b"X-" + b"a" * 300
        head = request(b"GET / HTTP/1.1\r\nHost: %b\r\n%b: 1\r\n\r\n" % (b"h" * 200, name))
        assert head.authority == b"h" * 200
        assert head.headers.get(name.lower()) == b"1"

    def test_underscores(self) -> None:
        payload = with_fields(b"X_A: 1\r\nX-B: 2")
        assert list(request(payload).headers) == [(b"x_a", b"1"), (b"x-b", b"2")]
        dropping = Http1Settings(headers_with_underscores_action=UnderscoreAction.DROP_HEADER)
        assert list(request(payload, dropping).headers) == [(b"x-b", b"2")]
        rejecting = Http1Settings(headers_with_underscores_action=UnderscoreAction.REJECT_REQUEST)
        (event,) = DownstreamHttp1(rejecting).receive_data(payload)
        assert isinstance(event, ConnectionFailed)
        assert (event.error.code, event.error.status) == ("http1.unexpected_underscore", 400)
        assert request(with_fields(b"X-B: 2"), rejecting).headers.get(b"x-b") == b"2"

    def test_short_body_comes_with_the_head(self) -> None:
        events = DownstreamHttp1(SETTINGS).receive_data(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        assert events[1:] == [Data(1, b"hello", True, 5)]
        assert isinstance(events[0], RequestHeaders)
        assert events[0].headers.get(b"content-length") == b"5"
        assert not events[0].end_stream

    def test_pieces_of_a_body_are_passed_on_as_they_are(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n")
        piece = bytes(10)
        (event,) = codec.receive_data(piece)
        assert isinstance(event, Data)
        assert event.data is piece
        (event,) = codec.receive_data(piece)
        assert isinstance(event, Data)
        assert event.data is piece
        assert event.end_stream

    def test_chunks_are_passed_on_as_they_are(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n")
        piece = bytes(16)
        (event,) = codec.receive_data(piece)
        assert isinstance(event, Data)
        assert event.data is piece
        assert codec.receive_data(b"") == []
        assert codec.receive_data(bytes(16) + b"\r\n0\r\n\r\n") == [Data(1, bytes(16), True, 16)]

    def test_trailers(self) -> None:
        payload = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nHost: bank\r\nX_Y: 2\r\n\r\n"
        kept = DownstreamHttp1(Http1Settings(enable_trailers=True)).receive_data(payload)
        assert kept[1:] == [Data(1, b"ok", False, 2), Trailers(1, fields((b"x-sum", b"1"), (b"x_y", b"2")))]
        dropped = DownstreamHttp1(SETTINGS).receive_data(payload)
        assert dropped[1:] == [Data(1, b"ok", True, 2)]
        rejecting = Http1Settings(headers_with_underscores_action=UnderscoreAction.REJECT_REQUEST)
        assert isinstance(DownstreamHttp1(rejecting).receive_data(payload)[-1], ConnectionFailed)

    def test_head_at_its_limit(self) -> None:
        head = with_fields(b"X-A: b")
        for limit, good in ((len(head), True), (len(head) - 1, False)):
            for pieces in ([head], [head[:9], head[9:]], [head[i : i + 1] for i in range(len(head))], [head + GET]):
                events, output = serve(DownstreamHttp1(Http1Settings(max_head_bytes=limit)), pieces)
                assert isinstance(events[0], RequestHeaders) is good
                assert output.startswith(b"HTTP/1.1 200 OK" if good else b"HTTP/1.1 431 Request Header Fields Too Large")

    def test_head_byte_by_byte_takes_linear_time(self) -> None:
        # 60 KB in single bytes: were it searched from the start each time, that would be 1.8 GB of searching.
        codec = DownstreamHttp1(SETTINGS)
        head = with_fields(b"X-A: " + b"x" * 60_000)
        events = [event for i in range(len(head)) for event in codec.receive_data(head[i : i + 1])]
        assert len(events) == 1


class TestHttp10:
    def test_refused_by_default(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        (event,) = codec.receive_data(b"GET / HTTP/1.0\r\n\r\n")
        assert isinstance(event, ConnectionFailed)
        assert (event.error.code, event.error.status) == ("low_version", 426)
        expected = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 16\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
        assert b"".join(codec.data_to_send()) == expected + b"Upgrade Required"

    def test_default_host(self) -> None:
        head = request(b"GET / HTTP/1.0\r\n\r\n", HTTP_10)
        assert (head.authority, head.http_version) == (b"default", b"HTTP/1.0")
        assert request(b"GET / HTTP/1.0\r\nHost: shop\r\n\r\n", HTTP_10).authority == b"shop"

    def test_closes(self) -> None:
        codec = waiting(b"GET / HTTP/1.0\r\n\r\n", HTTP_10)
        output = written(codec, ResponseHeaders(1, 200, fields((b"content-length", b"2")), False), Data(1, b"ok", True))
        assert output == b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        assert codec.closed

    def test_keeps_alive_if_asked_and_possible(self) -> None:
        codec = waiting(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", HTTP_10)
        output = written(codec, ResponseHeaders(1, 200, Headers(), True))
        assert output == b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
        assert not codec.closed

    def test_body_of_unknown_length_ends_with_the_connection(self) -> None:
        codec = waiting(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", HTTP_10)
        body = [Data(1, b"a", False), Data(1, b"b", False), Trailers(1, fields((b"x-sum", b"1")))]
        output = written(codec, ResponseHeaders(1, 200, Headers(), False), *body)
        assert output == b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nab"
        assert codec.closed

    def test_hears_no_informational(self) -> None:
        assert written(waiting(b"GET / HTTP/1.0\r\n\r\n", HTTP_10), InformationalHeaders(1, 100, Headers())) == b""

    def test_transfer_encoding(self) -> None:
        codec = DownstreamHttp1(HTTP_10)
        (event,) = codec.receive_data(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert isinstance(event, ConnectionFailed)
        assert (event.error.code, event.error.status) == ("http1.invalid_transfer_encoding", 400)

    def test_upgrade_is_ignored(self) -> None:
        head = request(b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", HTTP_10)
        assert (head.protocol, head.end_stream, list(head.headers)) == (b"", True, [])
