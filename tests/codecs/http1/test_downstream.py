"""The side that calls us: what a request becomes, what a response is written as, and when the connection ends."""

from __future__ import annotations

import pytest
from http1_support import SETTINGS, serve

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
    ConnectionEnded,
    ConnectionFailed,
    Data,
    Event,
    GoAway,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
    WindowOpened,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UnderscoreAction
from mesh_codecs.http1.settings import UNLIMITED_WINDOW

GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
HTTP_10 = Http1Settings(accept_http_10=True, default_host_for_http_10=b"default")


def fields(*pairs: tuple[bytes, bytes]) -> Headers:
    return Headers(list(pairs))


def request(payload: bytes, settings: Http1Settings = SETTINGS) -> RequestHeaders:
    events = DownstreamHttp1(settings).receive_data(payload)
    assert isinstance(events[0], RequestHeaders)
    return events[0]


def waiting(payload: bytes = GET, settings: Http1Settings = SETTINGS) -> DownstreamHttp1:
    codec = DownstreamHttp1(settings)
    assert isinstance(codec.receive_data(payload)[0], RequestHeaders)
    return codec


def written(codec: DownstreamHttp1, *events: Event) -> bytes:
    for event in events:
        codec.send(event)
    return b"".join(codec.data_to_send())


def with_fields(lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: shop\r\n" + lines + b"\r\n\r\n"


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


class TestResponses:
    def test_without_length_is_chunked(self) -> None:
        codec = waiting()
        big = bytes(5000)
        body = [Data(1, b"", False), Data(1, b"abc", False), Data(1, big, False), Data(1, b"", True)]
        output = written(codec, ResponseHeaders(1, 200, fields((b"a", b"b")), False), *body)
        assert output == (
            b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1388\r\n" + big + b"\r\n0\r\n\r\n"
        )
        assert not codec.closed

    def test_last_piece_with_its_end(self) -> None:
        output = written(waiting(), ResponseHeaders(1, 200, Headers(), False), Data(1, b"abc", True))
        assert output == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    def test_trailers(self) -> None:
        events = (ResponseHeaders(1, 200, Headers(), False), Trailers(1, fields((b"grpc-status", b"0"))))
        assert written(waiting(), *events).endswith(b"\r\n\r\n0\r\n\r\n")
        kept = waiting(settings=Http1Settings(enable_trailers=True))
        assert written(kept, *events).endswith(b"\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n")
        assert not kept.closed
        empty = waiting(settings=Http1Settings(enable_trailers=True))
        assert written(empty, ResponseHeaders(1, 200, Headers(), False), Trailers(1, Headers())).endswith(b"\r\n\r\n0\r\n\r\n")

    def test_repeated_fields(self) -> None:
        headers = fields((b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"x", b"y"), (b"content-length", b"0"))
        output = written(waiting(), ResponseHeaders(1, 200, headers, True))
        assert output == b"HTTP/1.1 200 OK\r\nset-cookie: a\r\nx: y\r\ncontent-length: 0\r\nset-cookie: b\r\n\r\n"

    @pytest.mark.parametrize(
        ("status", "text"), [(404, b"Not Found"), (799, b"Unknown"), (431, b"Request Header Fields Too Large")]
    )
    def test_reason(self, status: int, text: bytes) -> None:
        output = written(waiting(), ResponseHeaders(1, status, Headers(), True))
        assert output == b"HTTP/1.1 %d %b\r\ncontent-length: 0\r\n\r\n" % (status, text)

    @pytest.mark.parametrize("end_stream", [True, False])
    @pytest.mark.parametrize(
        ("method", "status", "headers", "expected"),
        [
            (b"HEAD", 200, [(b"content-length", b"7")], b"content-length: 7\r\n"),
            (b"HEAD", 200, [], b""),
            (b"GET", 304, [(b"content-length", b"7")], b"content-length: 7\r\n"),
            (b"GET", 204, [(b"content-length", b"0")], b""),
            (b"GET", 204, [], b""),
        ],
    )
    def test_bodiless(
        self, method: bytes, status: int, headers: list[tuple[bytes, bytes]], expected: bytes, end_stream: bool
    ) -> None:
        codec = waiting(method + b" / HTTP/1.1\r\n\r\n")
        codec.send(ResponseHeaders(1, status, Headers(headers), end_stream))
        if not end_stream:
            with pytest.raises(LocalProtocolError):
                codec.send(Data(1, b"x", True))
            codec.send(Data(1, b"", True))
        output = b"".join(codec.data_to_send())
        assert output.partition(b"\r\n")[2] == expected + b"\r\n"
        assert not codec.closed

    def test_informational(self) -> None:
        codec = waiting()
        hints = InformationalHeaders(1, 103, fields((b"link", b"</a>"), (b"connection", b"x")))
        output = written(codec, InformationalHeaders(1, 100, Headers()), hints, ResponseHeaders(1, 200, Headers(), True))
        first, second, third, rest = output.split(b"\r\n\r\n")
        assert (first, second) == (b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints\r\nlink: </a>")
        assert third.startswith(b"HTTP/1.1 200 OK")
        assert rest == b""

    @pytest.mark.parametrize("line", [b"Connection: close", b"Connection: Keep-Alive, Close", b"Proxy-Connection: close"])
    def test_request_asks_to_close(self, line: bytes) -> None:
        codec = waiting(with_fields(line))
        assert written(codec, ResponseHeaders(1, 200, Headers(), True)).endswith(b"\r\nconnection: close\r\n\r\n")
        assert codec.closed

    def test_local_reply_asks_to_close(self) -> None:
        codec = waiting()
        headers = fields((b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"host", b"x"))
        output = written(codec, ResponseHeaders(1, 503, headers, True))
        assert output == b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        assert codec.closed

    def test_other_connection_options_of_ours_are_not_written(self) -> None:
        codec = waiting()
        output = written(codec, ResponseHeaders(1, 200, fields((b"connection", b"keep-alive")), True))
        assert output == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        assert not codec.closed

    def test_shutdown(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.shutdown()
        assert not codec.closed
        codec.receive_data(GET)
        assert b"\r\nconnection: close\r\n" in written(codec, ResponseHeaders(1, 200, Headers(), True))
        assert codec.closed

    def test_go_away_is_a_shutdown(self) -> None:
        codec = waiting()
        codec.send(GoAway(0, 0, 0))
        assert b"\r\nconnection: close\r\n" in written(codec, ResponseHeaders(1, 200, Headers(), True))

    def test_shutdown_while_a_response_is_under_way(self) -> None:
        codec = waiting()
        codec.send(ResponseHeaders(1, 200, Headers(), False))
        codec.shutdown()
        codec.send(Data(1, b"", True))
        # Its head did not say so: the next response will.
        assert not codec.closed

    def test_early_response_says_close(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe")
        assert written(codec, ResponseHeaders(1, 413, Headers(), True)).endswith(b"\r\nconnection: close\r\n\r\n")
        assert codec.closed
        assert codec.receive_data(b"llo") == []
        assert codec.receive_eof() == []

    def test_early_response_with_body_closes(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe")
        codec.send(ResponseHeaders(1, 413, Headers(), False))
        codec.send(Data(1, b"no", True))
        assert codec.closed

    def test_response_may_overtake_its_request(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe")
        codec.send(ResponseHeaders(1, 200, Headers(), False))
        assert codec.receive_data(b"llo") == [Data(1, b"llo", True, 3)]
        codec.send(Data(1, b"no", True))
        assert not codec.closed

    def test_reset_closes(self) -> None:
        codec = waiting()
        codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
        assert codec.closed
        assert codec.data_to_send() == []


class TestMisuse:
    @pytest.mark.parametrize(
        "headers",
        [
            [(b"a", b"b\r\nc: d")],
            [(b"a", b"b\n")],
            [(b"a", b"b\r")],
            [(b"a", b"\0")],
            [(b"a\r\nb", b"c")],
            [(b"a", b"b"), (b"a", b"\n")],
            [(b"content-length", b"x")],
            [(b"content-length", b"1" * 19)],
            [(b"content-length", b"0"), (b"content-length", b"0")],
            [(b"content-length", b"2")],
        ],
    )
    def test_head_that_cannot_be_written(self, headers: list[tuple[bytes, bytes]]) -> None:
        codec = waiting()
        with pytest.raises(LocalProtocolError):
            codec.send(ResponseHeaders(1, 200, Headers(headers), True))
        # Nothing was written and the response can still be made.
        assert written(codec, ResponseHeaders(1, 500, Headers(), True)).startswith(b"HTTP/1.1 500 ")

    def test_trailers_that_cannot_be_written(self) -> None:
        codec = waiting(settings=Http1Settings(enable_trailers=True))
        codec.send(ResponseHeaders(1, 200, Headers(), False))
        with pytest.raises(LocalProtocolError):
            codec.send(Trailers(1, fields((b"a", b"\r\n"))))
        codec.send(Data(1, b"", True))
        assert not codec.closed

    def test_body_of_another_length(self) -> None:
        codec = waiting()
        codec.send(ResponseHeaders(1, 200, fields((b"content-length", b"3")), False))
        for event in (Data(1, b"1234", False), Data(1, b"12", True), Trailers(1, Headers())):
            with pytest.raises(LocalProtocolError, match="body_length"):
                codec.send(event)
        assert written(codec, Data(1, b"12", False), Data(1, b"3", True)).endswith(b"123")

    @pytest.mark.parametrize(
        "event",
        [
            ResponseHeaders(2, 200, Headers(), True),
            ResponseHeaders(1, 99, Headers(), True),
            ResponseHeaders(1, 100, Headers(), True),
            ResponseHeaders(1, 101, Headers(), True),
            ResponseHeaders(1, 1000, Headers(), True),
            InformationalHeaders(1, 101, Headers()),
            InformationalHeaders(1, 200, Headers()),
            Data(1, b"x", True),
            Trailers(1, Headers()),
            WindowOpened(1),
            RequestHeaders(1, b"GET", b"", b"", b"/", Headers(), True),
        ],
    )
    def test_event_that_does_not_fit(self, event: Event) -> None:
        codec = waiting()
        with pytest.raises(LocalProtocolError):
            codec.send(event)
        assert written(codec, ResponseHeaders(1, 200, Headers(), True)).startswith(b"HTTP/1.1 200 OK")

    def test_second_head(self) -> None:
        codec = waiting()
        codec.send(ResponseHeaders(1, 200, Headers(), False))
        for event in (ResponseHeaders(1, 200, Headers(), True), InformationalHeaders(1, 100, Headers())):
            with pytest.raises(LocalProtocolError):
                codec.send(event)

    def test_without_a_request(self) -> None:
        with pytest.raises(LocalProtocolError):
            DownstreamHttp1(SETTINGS).send(ResponseHeaders(0, 200, Headers(), True))

    def test_after_the_end_events_are_dropped(self) -> None:
        codec = waiting()
        codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        assert codec.data_to_send() == []


class TestPipelining:
    def test_one_at_a_time(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        second = b"POST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
        (first,) = codec.receive_data(GET + second + GET[:10])
        assert first.stream_id == 1
        assert codec.pending_bytes == len(second) + 10
        assert codec.receive_data(GET[10:]) == []
        assert codec.pending_bytes == len(second) + len(GET)
        codec.send(ResponseHeaders(1, 200, Headers(), False))
        assert codec.receive_data(b"") == []
        codec.send(Data(1, b"", True))
        assert codec.pending_bytes == len(second) + len(GET)
        head, body = codec.receive_data(b"")
        assert isinstance(head, RequestHeaders)
        assert (head.stream_id, head.path, body) == (2, b"/2", Data(2, b"ok", True, 2))
        assert codec.pending_bytes == len(GET)
        codec.send(ResponseHeaders(2, 200, Headers(), True))
        (third,) = codec.receive_data(b"")
        assert third.stream_id == 3
        assert codec.pending_bytes == 0

    def test_many_in_one_read(self) -> None:
        events, output = serve(DownstreamHttp1(SETTINGS), [GET * 500])
        assert [event.stream_id for event in events] == list(range(1, 501))
        assert output.count(b"HTTP/1.1 200 OK") == 500

    def test_incomplete_head_is_not_pending(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET + GET[:10])
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        assert codec.pending_bytes == 10
        assert codec.receive_data(b"") == []
        assert codec.pending_bytes == 0
        assert len(codec.receive_data(GET[10:])) == 1

    def test_only_later_bytes_are_held(self) -> None:
        codec = waiting()
        assert codec.receive_data(GET) == []
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        assert [event.stream_id for event in codec.receive_data(b"")] == [2]

    def test_new_bytes_join_the_held_ones(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET + GET[:10])
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        assert [event.stream_id for event in codec.receive_data(GET[10:])] == [2]

    def test_fault_waits_for_the_response_before(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET + b"BAD\r\n\r\n")
        assert not codec.closed
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        (failed,) = codec.receive_data(b"")
        assert isinstance(failed, ConnectionFailed)
        assert failed.stream_id == 0
        output = b"".join(codec.data_to_send())
        assert output.index(b"HTTP/1.1 200 OK") < output.index(b"HTTP/1.1 400 Bad Request")


class TestFaults:
    def test_farewell_names_the_server(self) -> None:
        codec = DownstreamHttp1(Http1Settings(farewell_fields=lambda: b"server: envoy\r\n"))
        codec.receive_data(b"BAD\r\n\r\n")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\ncontent-type: text/plain\r\n"
        assert b"".join(codec.data_to_send()) == head + b"server: envoy\r\nconnection: close\r\n\r\nBad Request"
        assert codec.closed
        assert codec.receive_data(GET) == []

    def test_in_the_body(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        data, failed = codec.receive_data(b"2\r\nok\r\nX")
        assert data == Data(1, b"ok", False, 2)
        assert isinstance(failed, ConnectionFailed)
        assert (failed.stream_id, failed.error.code) == (1, "http1.codec_error")
        assert b"".join(codec.data_to_send()).startswith(b"HTTP/1.1 400 Bad Request")

    def test_in_the_body_of_a_head_request(self) -> None:
        codec = waiting(b"HEAD / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        codec.receive_data(b"X")
        assert b"".join(codec.data_to_send()).endswith(b"\r\n\r\n")

    def test_while_a_response_is_under_way(self) -> None:
        codec = waiting(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        written(codec, ResponseHeaders(1, 200, Headers(), False))
        assert isinstance(codec.receive_data(b"X")[0], ConnectionFailed)
        assert codec.data_to_send() == []
        assert codec.closed

    def test_head_that_comes_too_slowly(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(b"\r\n")
        assert not codec.head_started
        codec.receive_data(GET[:10])
        assert codec.head_started
        codec.refuse(408, b"request header timeout")
        assert codec.closed
        expected = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 22\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
        assert b"".join(codec.data_to_send()) == expected + b"request header timeout"
        assert not waiting().head_started

    def test_end_when_idle(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        assert codec.receive_eof() == [ConnectionEnded()]
        assert codec.closed

    def test_end_within_a_head(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET[:10])
        assert codec.receive_eof() == [ConnectionEnded()]

    @pytest.mark.parametrize("payload", [GET, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe"])
    def test_end_within_a_request(self, payload: bytes) -> None:
        codec = waiting(payload)
        assert codec.receive_eof() == [StreamReset(1, ResetReason.CONNECTION_TERMINATION)]
        assert codec.closed


class TestTunnels:
    UPGRADE = with_fields(b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket, foo")

    def test_upgrade(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        (head,) = codec.receive_data(self.UPGRADE + b"early")
        assert isinstance(head, RequestHeaders)
        assert (head.protocol, head.end_stream, list(head.headers)) == (b"websocket", False, [])
        headers = fields((b"sec-websocket-accept", b"x"), (b"content-length", b"0"))
        output = written(codec, ResponseHeaders(1, 101, headers, False))
        start = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\n"
        assert output == start + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        assert codec.pending_bytes == 5
        assert codec.receive_data(b"") == [Data(1, b"early", False, 5)]
        assert codec.receive_data(GET) == [Data(1, GET, False, len(GET))]
        assert written(codec, Data(1, b"\x81\x00", False)) == b"\x81\x00"
        assert codec.receive_eof() == [Data(1, b"", True)]
        assert not codec.closed
        assert written(codec, Data(1, b"bye", False), Data(1, b"", True)) == b"bye"
        assert codec.closed

    def test_upgrade_ended_with_its_head(self) -> None:
        codec = waiting(self.UPGRADE)
        codec.send(ResponseHeaders(1, 101, Headers(), True))
        assert codec.closed

    def test_upgrade_refused(self) -> None:
        codec = waiting(self.UPGRADE)
        assert b"connection" not in written(codec, ResponseHeaders(1, 403, Headers(), True))
        assert not codec.closed
        assert len(codec.receive_data(GET)) == 1

    def test_upgrade_refused_after_early_bytes(self) -> None:
        codec = waiting(self.UPGRADE + GET)
        assert b"\r\nconnection: close\r\n" in written(codec, ResponseHeaders(1, 403, Headers(), True))
        assert codec.closed

    @pytest.mark.parametrize("offer", [b"h2c", b"h2c, h2", b"TLS/1.0", b"HTTP/2.0", b"a b", b""])
    def test_upgrades_that_are_not_passed_on(self, offer: bytes) -> None:
        head = request(with_fields(b"Connection: Upgrade\r\nUpgrade: " + offer))
        assert (head.protocol, head.end_stream, list(head.headers)) == (b"", True, [])

    def test_upgrade_with_a_body_is_ignored(self) -> None:
        head = request(with_fields(b"Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 2"))
        assert (head.protocol, list(head.headers)) == (b"", [(b"content-length", b"2")])

    def test_connect(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        (head,) = codec.receive_data(b"CONNECT bank:443 HTTP/1.1\r\nHost: bank\r\nContent-Length: 0\r\n\r\nhi")
        assert isinstance(head, RequestHeaders)
        assert (head.authority, head.path, head.end_stream, list(head.headers)) == (b"bank:443", b"", False, [])
        assert written(codec, ResponseHeaders(1, 200, Headers(), False)) == b"HTTP/1.1 200 OK\r\n\r\n"
        assert codec.receive_data(b"") == [Data(1, b"hi", False, 2)]
        assert codec.receive_data(b"") == []

    def test_connect_refused(self) -> None:
        codec = waiting(b"CONNECT bank:443 HTTP/1.1\r\nHost: bank\r\n\r\n")
        assert b"\r\nconnection: close\r\n" in written(codec, ResponseHeaders(1, 403, Headers(), True))
        assert codec.closed

    def test_end_before_the_answer(self) -> None:
        assert waiting(self.UPGRADE).receive_eof() == [StreamReset(1, ResetReason.CONNECTION_TERMINATION)]


class TestMoving:
    def test_idle_with_unparsed_bytes(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET + GET + GET[:10])
        codec.shutdown()
        assert codec.export_state() is None
        written(codec, ResponseHeaders(1, 200, fields((b"content-length", b"0")), True))
        assert codec.export_state() is None  # it said close

    def test_goes_on_elsewhere(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.receive_data(GET + GET + GET[:10])
        assert codec.export_state() is None
        codec.send(ResponseHeaders(1, 200, Headers(), True))
        assert codec.export_state() is None  # output is not taken
        codec.data_to_send()
        state = codec.export_state()
        assert state is not None
        moved = DownstreamHttp1.import_state(SETTINGS, state)
        assert moved.pending_bytes == len(GET) + 10
        assert [event.stream_id for event in moved.receive_data(b"")] == [2]
        written(moved, ResponseHeaders(2, 200, Headers(), True))
        assert moved.receive_data(b"") == []
        state = moved.export_state()
        assert state is not None
        again = DownstreamHttp1.import_state(SETTINGS, state)
        assert again.receive_data(b"") == []
        assert [event.stream_id for event in again.receive_data(GET[10:])] == [3]

    def test_draining_goes_along(self) -> None:
        codec = DownstreamHttp1(SETTINGS)
        codec.shutdown()
        state = codec.export_state()
        assert state is not None
        moved = DownstreamHttp1.import_state(SETTINGS, state)
        assert moved.pending_bytes == 0
        moved.receive_data(GET)
        assert b"\r\nconnection: close\r\n" in written(moved, ResponseHeaders(1, 200, Headers(), True))

    @pytest.mark.parametrize("state", [b"", b"\x02" + bytes(9), b"\x01" + bytes(8)])
    def test_unknown_state(self, state: bytes) -> None:
        with pytest.raises(LocalProtocolError):
            DownstreamHttp1.import_state(SETTINGS, state)


def test_the_rest_of_the_contract() -> None:
    codec = waiting()
    assert codec.open_stream() is None
    assert codec.send_window(1) == UNLIMITED_WINDOW
    codec.acknowledge(1, 10)
    assert codec.next_timer() is None
    assert codec.handle_timer(0.0) == []
    assert repr(codec) == "<DownstreamHttp1 HOLD stream=1 pending=0>"
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    assert repr(codec) == "<DownstreamHttp1 CLOSED stream=1 pending=0>"
