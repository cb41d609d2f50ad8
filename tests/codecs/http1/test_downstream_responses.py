"""What a response is written as on the side that calls us, and what cannot be written."""

from __future__ import annotations

import pytest
from http1_support import GET, SETTINGS, fields, waiting, with_fields, written

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
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
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings


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
