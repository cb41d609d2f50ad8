"""The side we call: what a request is written as, what a response becomes, and whether the connection can be used again."""

from __future__ import annotations

import pytest
from http1_support import SETTINGS, asked, fields, written

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
from mesh_codecs.http1 import Http1Settings, UnderscoreAction, UpstreamHttp1
from mesh_codecs.http1.settings import MAX_EARLY_TUNNEL_BYTES, UNLIMITED_WINDOW

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def head(
    method: bytes = b"GET", headers: Headers | None = None, end_stream: bool = True, path: bytes = b"/", protocol: bytes = b""
) -> RequestHeaders:
    return RequestHeaders(1, method, b"http", b"shop", path, headers or Headers(), end_stream, protocol)


def opened(settings: Http1Settings = SETTINGS) -> UpstreamHttp1:
    codec = UpstreamHttp1(settings)
    assert codec.open_stream() == 1
    return codec


class TestRequests:
    def test_parts(self) -> None:
        event = head(headers=fields((b"accept", b"a"), (b"x", b"y"), (b"accept", b"b")), path=b"/a?b")
        assert written(opened(), event) == b"GET /a?b HTTP/1.1\r\nhost: shop\r\naccept: a\r\nx: y\r\naccept: b\r\n\r\n"

    def test_without_fields(self) -> None:
        assert written(opened(), head()) == b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"

    @pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"PURGE"])
    def test_no_body_where_one_is_usual(self, method: bytes) -> None:
        assert written(opened(), head(method)) == method + b" / HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n"

    def test_content_length(self) -> None:
        codec = opened()
        output = written(
            codec, head(b"POST", fields((b"content-length", b"3")), False), Data(1, b"ab", False), Data(1, b"c", True)
        )
        assert output == b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc"

    def test_chunked(self) -> None:
        codec = opened(Http1Settings(enable_trailers=True))
        output = written(codec, head(b"POST", None, False), Data(1, b"ab", False), Trailers(1, fields((b"x", b"y"))))
        assert output == b"POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n"

    def test_fields_of_the_codec_are_not_written_twice(self) -> None:
        headers = fields((b"host", b"bank"), (b"connection", b"close"), (b"upgrade", b"x"), (b"te", b"trailers"))
        assert written(opened(), head(headers=headers)) == b"GET / HTTP/1.1\r\nhost: shop\r\nte: trailers\r\n\r\n"

    @pytest.mark.parametrize(
        "event",
        [
            head(path=b"/a b"),
            head(path=b"/a\r\nx: y"),
            head(path=b"/\0"),
            head(path=b""),
            head(method=b""),
            head(method=b"GET /x"),
            head(headers=fields((b"a", b"b\nc"))),
            head(headers=fields((b"content-length", b"3"))),
            head(protocol=b"a\r\nb", end_stream=False),
            RequestHeaders(1, b"GET", b"", b"shop\r\nx: y", b"/", Headers(), True),
            RequestHeaders(2, b"GET", b"", b"shop", b"/", Headers(), True),
            ResponseHeaders(1, 200, Headers(), True),
            Data(1, b"", True),
            WindowOpened(1),
        ],
    )
    def test_what_cannot_be_sent(self, event: Event) -> None:
        codec = opened()
        with pytest.raises(LocalProtocolError):
            codec.send(event)
        assert written(codec, head()) == b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"

    def test_second_head_or_body(self) -> None:
        codec = asked()
        for event in (head(), Data(1, b"", True), ResponseHeaders(1, 200, Headers(), True)):
            with pytest.raises(LocalProtocolError):
                codec.send(event)

    def test_without_a_stream(self) -> None:
        with pytest.raises(LocalProtocolError):
            UpstreamHttp1(SETTINGS).send(head())

    def test_one_stream_at_a_time(self) -> None:
        codec = UpstreamHttp1(SETTINGS)
        assert codec.can_reuse
        assert codec.open_stream() == 1
        assert not codec.can_reuse
        assert codec.open_stream() is None
        codec.send(head())
        assert codec.open_stream() is None
        codec.receive_data(EMPTY)
        assert codec.can_reuse
        assert codec.open_stream() == 2

    def test_stream_given_back(self) -> None:
        codec = opened()
        codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
        assert not codec.closed
        assert codec.open_stream() == 2

    def test_reset_closes(self) -> None:
        codec = asked()
        codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
        assert codec.closed
        assert not codec.keep_alive
        codec.send(Data(1, b"late", True))
        assert codec.data_to_send() == []
        assert codec.receive_data(EMPTY) == []
        assert codec.receive_eof() == []


class TestResponses:
    def test_parts(self) -> None:
        codec = asked()
        (event,) = codec.receive_data(b"HTTP/1.1 204 Fine\r\nX-A:  b \r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n")
        assert event == ResponseHeaders(1, 204, fields((b"x-a", b"b"), (b"set-cookie", b"a"), (b"set-cookie", b"b")), True)
        assert codec.can_reuse

    @pytest.mark.parametrize("method", [b"HEAD", b"GET"])
    def test_bodiless(self, method: bytes) -> None:
        codec = asked(method=method)
        status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
        (event,) = codec.receive_data(b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\n\r\n")
        assert isinstance(event, ResponseHeaders)
        assert event.end_stream
        assert event.headers.get(b"content-length") == b"7"
        assert codec.can_reuse

    def test_informational(self) -> None:
        codec = asked()
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        events = codec.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + EMPTY[:9])
        assert events == [InformationalHeaders(1, 100, Headers()), InformationalHeaders(1, 103, fields((b"link", b"</a>")))]
        assert codec.receive_data(EMPTY[9:]) == [ResponseHeaders(1, 200, fields((b"content-length", b"0")), True)]

    def test_large_body_is_passed_on_as_it_is(self) -> None:
        codec = asked()
        codec.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        piece = bytes(10)
        for end in (False, True):
            (event,) = codec.receive_data(piece)
            assert isinstance(event, Data)
            assert event.data is piece
            assert event.end_stream is end
        assert codec.can_reuse

    def test_body_begun_with_its_head(self) -> None:
        codec = asked()
        events = codec.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert events[1:] == [Data(1, b"ab", False, 2)]
        assert codec.receive_data(b"cd") == [Data(1, b"cd", True, 2)]

    def test_underscores_are_for_requests(self) -> None:
        settings = Http1Settings(headers_with_underscores_action=UnderscoreAction.REJECT_REQUEST)
        (event,) = asked(settings).receive_data(b"HTTP/1.1 200 OK\r\nX_A: b\r\nContent-Length: 0\r\n\r\n")
        assert isinstance(event, ResponseHeaders)

    @pytest.mark.parametrize(
        ("start", "reusable"),
        [
            (b"HTTP/1.1 200 OK\r\n", True),
            (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
            (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
            (b"HTTP/1.1 200 OK\r\nProxy-Connection: close\r\n", False),
            (b"HTTP/1.0 200 OK\r\n", False),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
        ],
    )
    def test_reuse(self, start: bytes, reusable: bool) -> None:
        codec = asked()
        assert codec.keep_alive
        events = codec.receive_data(start + b"Content-Length: 2\r\n\r\nok")
        assert events[-1] == Data(1, b"ok", True, 2)
        assert codec.keep_alive is reusable
        assert codec.can_reuse is reusable
        assert codec.closed is not reusable

    def test_until_the_end_of_the_connection(self) -> None:
        codec = asked()
        assert len(codec.receive_data(b"HTTP/1.1 200 OK\r\n\r\n")) == 1
        assert not codec.keep_alive
        assert codec.receive_data(b"ab") == [Data(1, b"ab", False, 2)]
        assert codec.receive_eof() == [Data(1, b"", True)]
        assert codec.closed

    def test_before_the_request_is_complete(self) -> None:
        codec = opened()
        codec.send(head(b"POST", None, False))
        codec.receive_data(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n")
        assert codec.closed
        assert not codec.can_reuse

    def test_request_may_end_while_the_response_comes(self) -> None:
        codec = opened()
        codec.send(head(b"POST", None, False))
        codec.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        codec.send(Data(1, b"", True))
        codec.receive_data(b"ok")
        assert codec.can_reuse


class TestFaults:
    def test_is_a_bad_gateway(self) -> None:
        codec = asked()
        (event,) = codec.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert isinstance(event, ConnectionFailed)
        assert (event.stream_id, event.error.status) == (1, 502)
        assert event.error.code == "http1.content_length_and_chunked_not_allowed"
        assert codec.closed
        assert codec.data_to_send() == []

    def test_good_events_come_first(self) -> None:
        events = asked().receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nX")
        assert [type(event) for event in events] == [ResponseHeaders, Data, ConnectionFailed]

    @pytest.mark.parametrize("codec", [UpstreamHttp1(SETTINGS), opened()])
    def test_bytes_that_answer_nothing(self, codec: UpstreamHttp1) -> None:
        (event,) = codec.receive_data(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert isinstance(event, ConnectionFailed)
        assert event.error.code == "http1.unsolicited_response"
        assert codec.closed

    def test_bytes_after_a_response(self) -> None:
        response, failed = asked().receive_data(EMPTY + b"x")
        assert isinstance(response, ResponseHeaders)
        assert isinstance(failed, ConnectionFailed)
        assert failed.stream_id == 0

    @pytest.mark.parametrize(
        "before", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"HTTP/1.1 100 Continue\r\n\r\n"]
    )
    def test_end_too_early(self, before: bytes) -> None:
        codec = asked()
        codec.receive_data(before)
        assert codec.receive_eof() == [StreamReset(1, ResetReason.CONNECTION_TERMINATION)]
        assert codec.closed
        assert codec.receive_eof() == []

    def test_end_within_chunks(self) -> None:
        codec = asked()
        codec.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
        assert codec.receive_eof() == [StreamReset(1, ResetReason.CONNECTION_TERMINATION)]

    def test_end_when_idle(self) -> None:
        assert UpstreamHttp1(SETTINGS).receive_eof() == [ConnectionEnded()]


class TestShutdown:
    def test_idle(self) -> None:
        codec = UpstreamHttp1(SETTINGS)
        codec.send(GoAway(0, 0, 0))
        assert codec.closed
        assert codec.open_stream() is None

    def test_busy(self) -> None:
        codec = asked()
        codec.shutdown()
        assert not codec.closed
        codec.receive_data(EMPTY)
        assert codec.closed


class TestTunnels:
    ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 0\r\n\r\n"

    def test_upgrade(self) -> None:
        codec = opened()
        output = written(codec, head(headers=fields((b"content-length", b"0")), end_stream=False, protocol=b"websocket"))
        assert output == b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        assert codec.receive_data(self.ACCEPTED + b"hi") == [ResponseHeaders(1, 101, Headers(), False), Data(1, b"hi", False, 2)]
        assert not codec.keep_alive
        assert codec.receive_data(EMPTY) == [Data(1, EMPTY, False, len(EMPTY))]
        assert written(codec, Data(1, b"yo", False)) == b"yo"
        assert not codec.eof_wanted
        codec.send(Data(1, b"", True))
        assert codec.eof_wanted
        assert not codec.closed
        assert codec.receive_data(b"more") == [Data(1, b"more", False, 4)]
        assert codec.receive_eof() == [Data(1, b"", True)]
        assert codec.closed

    @pytest.mark.parametrize("last", [Data(1, b"c", True), Trailers(1, Headers())])
    def test_early_bytes_wait_for_the_answer(self, last: Event) -> None:
        codec = asked(protocol=b"websocket")
        assert written(codec, Data(1, b"ab", False), Data(1, b"", False), last) == b""
        codec.receive_data(self.ACCEPTED)
        assert b"".join(codec.data_to_send()) == (b"abc" if isinstance(last, Data) else b"ab")
        assert codec.eof_wanted

    def test_too_many_early_bytes(self) -> None:
        codec = asked(protocol=b"websocket")
        codec.send(Data(1, bytes(MAX_EARLY_TUNNEL_BYTES), False))
        with pytest.raises(LocalProtocolError):
            codec.send(Data(1, b"x", False))

    def test_refused(self) -> None:
        codec = asked(protocol=b"websocket")
        codec.send(Data(1, b"early", False))
        events = codec.receive_data(b"HTTP/1.1 403 Forbidden\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n")
        assert events == [ResponseHeaders(1, 403, fields((b"content-length", b"2")), False)]
        codec.send(Data(1, b"late", True))
        assert codec.data_to_send() == []
        codec.receive_data(b"no")
        assert codec.can_reuse

    @pytest.mark.parametrize(
        "lines", [b"Connection: Upgrade\r\nUpgrade: foo\r\n", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b""]
    )
    def test_accepted_wrongly(self, lines: bytes) -> None:
        (event,) = asked(protocol=b"websocket").receive_data(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n")
        assert isinstance(event, ConnectionFailed)
        assert event.error.code == "http1.unexpected_upgrade"

    def test_extended_connect(self) -> None:
        codec = opened()
        output = written(codec, head(b"CONNECT", end_stream=False, protocol=b"websocket", path=b"/chat"))
        assert output.startswith(b"GET /chat HTTP/1.1\r\nhost: shop\r\nsec-websocket-key: ")
        assert output.endswith(b"==\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")

    @pytest.mark.parametrize(
        ("protocol", "headers"), [(b"connect-udp", Headers()), (b"websocket", fields((b"sec-websocket-key", b"mine")))]
    )
    def test_extended_connect_without_a_key_of_ours(self, protocol: bytes, headers: Headers) -> None:
        output = written(opened(), head(b"CONNECT", headers, end_stream=False, protocol=protocol, path=b"/chat"))
        assert output.count(b"sec-websocket-key: ") == len(headers)

    def test_connect(self) -> None:
        codec = opened()
        event = RequestHeaders(1, b"CONNECT", b"", b"shop:80", b"", Headers(), False)
        assert written(codec, event) == b"CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n"
        events = codec.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhi")
        assert events == [ResponseHeaders(1, 200, Headers(), False), Data(1, b"hi", False, 2)]

    def test_connect_refused(self) -> None:
        codec = asked(method=b"CONNECT")
        codec.receive_data(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert codec.can_reuse


def test_the_rest_of_the_contract() -> None:
    codec = asked()
    assert codec.send_window(1) == UNLIMITED_WINDOW
    codec.acknowledge(1, 10)
    assert codec.next_timer() is None
    assert codec.handle_timer(0.0) == []
    assert repr(codec) == "<UpstreamHttp1 HEAD stream=1 requests=1>"
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    assert repr(codec) == "<UpstreamHttp1 CLOSED stream=1 requests=1>"
