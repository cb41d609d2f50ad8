"""Hand-over of a connection between requests to another process."""

from __future__ import annotations

import json

import pytest
from http2_support.wire import GET, OK, POST, data, downstream, exchange, frame, headers, pair, parse, ping, upstream

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec


def get(stream_id: int, label: bytes, end: bool = True) -> RequestHeaders:
    fields = Headers([(b"x-label", label), (b"user-agent", b"test")])
    return RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/", fields, end, http_version=b"HTTP/2")


def talk(client: Http2Codec, server: Http2Codec, rounds: int, body: bytes = b"") -> list[int]:
    """Requests and answers; returns the sizes of the requests on the wire."""
    sizes = []
    for number in range(rounds):
        stream_id = client.open_stream()
        assert stream_id is not None
        client.send(get(stream_id, b"gray", end=not body))
        if body:
            client.send(Data(stream_id, body, True))
        wire = b"".join(client.data_to_send())
        sizes.append(len(wire))
        events = server.receive_data(wire)
        assert events[0] == get(stream_id, b"gray", end=not body)
        for event in events[1:]:
            assert isinstance(event, Data)
            server.acknowledge(stream_id, event.flow_size)
        server.send(ResponseHeaders(stream_id, 200, Headers([(b"server", b"mesh")]), False))
        server.send(Data(stream_id, b"%d" % number, True))
        left, _ = exchange(client, server)
        for event in left:
            if isinstance(event, Data):
                client.acknowledge(stream_id, event.flow_size)
    return sizes


@pytest.mark.parametrize("moved", ["downstream", "upstream", "both"])
def test_peer_notices_nothing(moved: str) -> None:
    client, server = pair(initial_stream_window_size=70_000)
    before = talk(client, server, 5, b"x" * 30_000)
    for _ in range(3):
        if moved != "downstream":
            client = Http2Codec.import_state(client.export_state())
        if moved != "upstream":
            server = Http2Codec.import_state(server.export_state())
        after = talk(client, server, 3, b"x" * 30_000)
        assert set(after) == {before[-1]}, "the tables were lost"
    assert client._send_window == server._recv_window
    assert server._send_window == client._recv_window
    assert talk(client, server, 50)[-1] == before[-1] - 30_000 - 2 * 9


def test_unparsed_bytes_output_and_undelivered_credit_move_too() -> None:
    codec = downstream(initial_connection_window_size=65_535)
    codec.receive_data(headers(1, POST, end=False) + data(1, bytes(16_384)) * 2 + data(1, b"", end=True))
    codec.send(ResponseHeaders(1, 200, Headers(), True))
    codec.data_to_send()
    codec.receive_data(ping() + headers(3)[:15])
    other = Http2Codec.import_state(codec.export_state())
    out = parse(other.data_to_send())
    assert [f.kind for f in out] == [6, 8]
    assert out[1].number == 32_768
    [event] = other.receive_data(headers(3)[15:])
    assert isinstance(event, RequestHeaders)
    assert event.stream_id == 3


def test_connection_at_its_very_start_can_move() -> None:
    codec = Http2Codec(downstream=True)
    codec.receive_data(b"PRI * HTTP")
    other = Http2Codec.import_state(codec.export_state())
    other.receive_data(b"/2.0\r\n\r\nSM\r\n\r\n" + frame(4) + headers(1, GET))
    assert other.open_streams == 1


def test_what_cannot_move() -> None:
    client, server = pair()
    stream_id = client.open_stream()
    assert stream_id is not None
    with pytest.raises(LocalProtocolError):
        client.export_state()
    client.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
    assert client.exportable
    server.receive_data(frame(1, 0, 1, b"\x82"))
    assert not server.exportable
    drained = downstream()
    drained.shutdown()
    assert not drained.exportable


def test_late_answers_to_a_reset_stream_stay_harmless() -> None:
    codec = upstream()
    stream_id = codec.open_stream()
    assert stream_id is not None
    codec.send(get(stream_id, b"a"))
    codec.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
    codec.data_to_send()
    other = Http2Codec.import_state(codec.export_state())
    assert other.receive_data(headers(1, OK, end=False) + data(1, b"x", end=True)) == []
    assert not other.closed


@pytest.mark.parametrize("state", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff", json.dumps({"version": 1}).encode()])
def test_what_is_no_state(state: bytes) -> None:
    with pytest.raises(ValueError, match="not a state of an HTTP/2 connection"):
        Http2Codec.import_state(state)
