"""Windows in both directions (RFC 9113, 5.2 and 6.9): credit follows delivery, nothing is buffered beyond the window."""

from __future__ import annotations

import pytest
from http2_support.wire import (
    DATA,
    GOAWAY,
    PADDED,
    POST,
    RST_STREAM,
    WINDOW_UPDATE,
    data,
    downstream,
    exchange,
    frame,
    headers,
    pair,
    parse,
    rst,
    settings,
    upstream,
    window_update,
)
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import ConnectionFailed, Data, RequestHeaders, ResponseHeaders, StreamReset, WindowOpened
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

OPEN = headers(1, POST, end=False)


def answered(*more: bytes) -> Http2Codec:
    """A downstream codec that has sent the response heads of streams 1 and 3."""
    codec = downstream()
    codec.receive_data(headers(1) + headers(3) + b"".join(more))
    for stream_id in (1, 3):
        codec.send(ResponseHeaders(stream_id, 200, Headers(), False))
    codec.data_to_send()
    return codec


def test_credit_comes_back_when_half_the_window_was_delivered() -> None:
    codec = downstream(initial_stream_window_size=65536, initial_connection_window_size=1 << 20)
    codec.receive_data(OPEN)
    for _ in range(3):
        codec.receive_data(data(1, bytes(16384)))
    assert codec.data_to_send() == []
    codec.acknowledge(1, 16384)
    assert codec.data_to_send() == []
    codec.acknowledge(1, 16384)
    [update] = parse(codec.data_to_send())
    assert (update.kind, update.stream_id, update.number) == (WINDOW_UPDATE, 1, 32768)
    with pytest.raises(LocalProtocolError):
        codec.acknowledge(1, 16385)
    codec.acknowledge(1, 16384)


def test_connection_credit_counts_all_streams_even_ended_ones() -> None:
    codec = downstream(initial_stream_window_size=1 << 20, initial_connection_window_size=65536)
    codec.receive_data(headers(1, POST, end=False) + headers(3, POST, end=False))
    codec.receive_data(data(1, bytes(16384), end=True) + data(3, bytes(16384)))
    codec.send(ResponseHeaders(1, 200, Headers(), True))  # stream 1 is over, but its body is still on its way
    codec.data_to_send()
    codec.acknowledge(3, 16384)
    codec.acknowledge(1, 10_000)
    assert codec.data_to_send() == []
    with pytest.raises(LocalProtocolError):
        codec.acknowledge(1, 6_385)
    codec.acknowledge(1, 6_384)
    [update] = parse(codec.data_to_send())
    assert (update.stream_id, update.number) == (0, 32768)
    codec.acknowledge(1, 1)  # nothing is known of it any more: no credit twice
    assert codec.data_to_send() == []


@pytest.mark.parametrize("by", ["peer", "us", "fault"])
def test_reset_returns_the_credit_of_undelivered_bytes_once(by: str) -> None:
    codec = downstream(initial_stream_window_size=1 << 20, initial_connection_window_size=65536)
    codec.receive_data(OPEN + data(1, bytes(16384)) + data(1, bytes(16384)))
    if by == "peer":
        codec.receive_data(rst(1, 8))
    elif by == "us":
        codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    else:
        codec.receive_data(window_update(1, 0))
    updates = [f for f in parse(codec.data_to_send()) if f.kind == WINDOW_UPDATE]
    assert [(u.stream_id, u.number) for u in updates] == [(0, 32768)]
    codec.acknowledge(1, 16384)
    codec.acknowledge(1, 16384)
    assert codec.data_to_send() == []


def test_padding_counts_and_padding_alone_is_returned_by_itself() -> None:
    codec = downstream(initial_connection_window_size=65536)
    codec.receive_data(OPEN)
    [event] = codec.receive_data(frame(DATA, PADDED, 1, b"\xff" + b"x" + bytes(255)))
    assert event == Data(1, b"x", False, 257)
    codec.acknowledge(1, 257)
    events = []
    for _ in range(1000):  # ten windows of padding alone: no event, and the credit does not run out
        events += codec.receive_data(frame(DATA, PADDED, 1, b"\xff" + bytes(255)) + data(1, b"y"))
        codec.acknowledge(1, 1)
    assert [type(e) for e in events] == [Data] * 1000
    assert {f.kind for f in parse(codec.data_to_send())} == {WINDOW_UPDATE}


def test_peer_beyond_the_stream_window_loses_the_stream() -> None:
    codec = downstream()
    codec.receive_data(OPEN)
    events = codec.receive_data(b"".join(data(1, bytes(16384)) for _ in range(4)) + data(1, b"x") + headers(3))
    assert [type(e) for e in events] == [Data] * 4 + [StreamReset, RequestHeaders]
    assert [(f.kind, f.number) for f in parse(codec.data_to_send())] == [(RST_STREAM, 3)]


def test_peer_beyond_the_connection_window_loses_the_connection() -> None:
    codec = downstream(initial_stream_window_size=1 << 20, initial_connection_window_size=65535)
    codec.receive_data(OPEN)
    events = codec.receive_data(b"".join(data(1, bytes(16384)) for _ in range(4)))
    assert [type(e) for e in events] == [Data] * 3 + [ConnectionFailed]
    last = parse(codec.data_to_send())[-1]
    assert (last.kind, last.number) == (GOAWAY, 3)


def test_small_window_holds_only_once_it_was_acknowledged() -> None:
    codec = Http2Codec(downstream=True, settings=downstream(initial_stream_window_size=1000).settings)
    codec.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings() + OPEN)
    [event] = codec.receive_data(data(1, bytes(2000)))  # the peer may not have read our SETTINGS yet
    assert isinstance(event, Data)
    codec.receive_data(frame(4, 1))
    codec.acknowledge(1, 2000)
    codec.data_to_send()
    [event] = codec.receive_data(data(1, bytes(1001)))
    assert isinstance(event, StreamReset)
    assert event.error_code == 3


def test_sending_is_bound_by_both_windows() -> None:
    codec = answered()
    assert codec.send_window(1) == 65535
    codec.send(Data(1, bytes(60_000), False))
    assert (codec.send_window(1), codec.send_window(3)) == (5535, 5535)
    sizes = [len(f.payload) for f in parse(codec.data_to_send())]
    assert sizes == [16384, 16384, 16384, 10848]
    with pytest.raises(LocalProtocolError, match="beyond_send_window"):
        codec.send(Data(1, bytes(5536), False))
    assert codec.data_to_send() == []
    codec.send(Data(3, bytes(5535), True))
    assert (codec.send_window(1), codec.send_window(99)) == (0, 0)
    codec.send(Data(1, b"", False))
    assert len(parse(codec.data_to_send())) == 1
    assert codec.receive_data(window_update(1, 10)) == []  # the connection is still shut
    assert codec.receive_data(window_update(0, 7)) == [WindowOpened(0)]
    assert codec.send_window(1) == 7
    codec.send(Data(1, b"", True))  # the end of a stream needs no window
    assert codec.open_streams == 0


def test_stream_window_opens() -> None:
    codec = answered(window_update(0, 1 << 20))
    codec.send(Data(1, bytes(65535), False))
    assert codec.send_window(1) == 0
    assert codec.send_window(3) == 65535
    assert codec.receive_data(window_update(1, 1)) == [WindowOpened(1)]
    assert codec.receive_data(window_update(1, 1)) == []
    assert codec.send_window(1) == 2


def test_settings_shift_open_windows_and_may_make_them_negative() -> None:
    codec = answered()
    codec.send(Data(1, bytes(1000), False))
    assert codec.receive_data(settings((4, 500))) == []
    assert (codec.send_window(1), codec.send_window(3)) == (0, 500)
    assert codec.receive_data(window_update(1, 400)) == []
    assert codec.send_window(1) == 0
    assert codec.receive_data(settings((4, 700))) == [WindowOpened(0)]
    assert codec.send_window(1) == 100


def test_frame_size_of_the_peer_is_respected_and_large_bodies_are_not_copied() -> None:
    codec = upstream((5, 100_000), (4, 1 << 20))
    codec.receive_data(window_update(0, 1 << 20))
    stream_id = codec.open_stream()
    assert stream_id is not None
    body = bytes(90_000)
    codec.send(RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/", Headers(), False))
    codec.send(Data(stream_id, body, True))
    out = codec.data_to_send()
    assert out[-1] is body
    assert [len(f.payload) for f in parse(out)][1:] == [90_000]


def test_small_frames_of_one_turn_come_as_one_buffer() -> None:
    codec = answered()
    codec.send(Data(1, b"a", True))
    codec.send(Data(3, b"b", True))
    assert len(codec.data_to_send()) == 1


@examples(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 70_000), st.booleans()), max_size=60))
def test_two_codecs_agree_about_every_window(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is sent within the window arrives; after all is delivered, both sides count the same credit."""
    client, server = pair(initial_stream_window_size=20_000, initial_connection_window_size=65_535)
    ids = []
    for _ in range(3):
        stream_id = client.open_stream()
        assert stream_id is not None
        ids.append(stream_id)
        client.send(RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/", Headers(), False))
    exchange(client, server)
    sent = dict.fromkeys(ids, 0)
    got = dict.fromkeys(ids, 0)
    waiting: list[Data] = []
    for which, size, deliver in steps:
        stream_id = ids[which]
        size = min(size, client.send_window(stream_id))
        if size:
            client.send(Data(stream_id, bytes(size), False))
            sent[stream_id] += size
        _, events = exchange(client, server)
        for event in events:
            assert isinstance(event, Data)
            got[event.stream_id] += len(event.data)
            waiting.append(event)
        if deliver:
            for event in waiting:
                server.acknowledge(event.stream_id, event.flow_size)
            waiting.clear()
            exchange(client, server)
            assert all(client.send_window(i) >= 10_000 for i in ids)
    assert sent == got
    for stream_id in ids:
        there = server._streams[stream_id]
        here = client._streams[stream_id]
        assert here.send_window == there.recv_window
    assert client._send_window == server._recv_window
