"""The connection of the side that calls us: requests in line, faults, tunnels, and how it ends or moves."""

from __future__ import annotations

import pytest
from http1_support import GET, SETTINGS, fields, request, serve, waiting, with_fields, written

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
    ConnectionEnded,
    ConnectionFailed,
    Data,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings
from mesh_codecs.http1.settings import UNLIMITED_WINDOW


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
