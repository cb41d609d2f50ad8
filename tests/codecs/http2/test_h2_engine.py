"""The second engine: the same conversations, through the same interface."""

from __future__ import annotations

from typing import Any

import pytest
from http2_support.wire import (
    CUTS,
    GET,
    GOAWAY,
    HELLO,
    OK,
    POST,
    RST_STREAM,
    SETTINGS_ACK,
    block,
    data,
    frame,
    goaway,
    headers,
    parse,
    pieces,
    ping,
    rst,
    settings,
    window_update,
)

from mesh_codecs.codec import Codec
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
from mesh_codecs.http2 import ENGINES, Http2Settings, new_codec

ENGINE_PAIRS = [(left, right) for left in ENGINES for right in ENGINES]


def make(engine: str, downstream: bool, **limits: Any) -> Codec:
    return new_codec(engine, downstream=downstream, settings=Http2Settings(**limits))


def talk(one: Codec, other: Codec) -> tuple[list[Event], list[Event]]:
    left: list[Event] = []
    right: list[Event] = []
    while True:
        to_other, to_one = b"".join(one.data_to_send()), b"".join(other.data_to_send())
        if not to_other and not to_one:
            return left, right
        right += other.receive_data(to_other)
        left += one.receive_data(to_one)


def without_windows(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, WindowOpened)]


def opened(**limits: Any) -> Codec:
    codec = make("h2", True, **limits)
    codec.receive_data(HELLO + SETTINGS_ACK)
    codec.data_to_send()
    return codec


@pytest.mark.parametrize(("left", "right"), ENGINE_PAIRS)
def test_every_pair_of_engines_understands_each_other(left: str, right: str) -> None:
    client, server = make(left, False), make(right, True, allow_connect=True)
    talk(client, server)
    for _ in range(3):
        stream_id = client.open_stream()
        assert stream_id is not None
        fields = Headers([(b"x-label", b"gray"), (b"te", b"trailers"), (b"connection", b"close")])
        client.send(RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/a?b", fields, False))
        client.send(Data(stream_id, b"x" * 40_000, False))
        client.send(Trailers(stream_id, Headers([(b"x-sum", b"1")])))
        _, events = talk(client, server)
        first, *body, last = without_windows(events)
        fields.remove(b"connection")
        assert first == RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/a?b", fields, False, b"", b"HTTP/2")
        assert b"".join(e.data for e in body if isinstance(e, Data)) == b"x" * 40_000
        assert last == Trailers(stream_id, Headers([(b"x-sum", b"1")]))
        for event in body:
            assert isinstance(event, Data)
            server.acknowledge(stream_id, event.flow_size)
        server.send(InformationalHeaders(stream_id, 103, Headers([(b"link", b"x")])))
        server.send(ResponseHeaders(stream_id, 200, Headers([(b"content-length", b"2")]), False))
        server.send(Data(stream_id, b"ok", True))
        events, _ = talk(client, server)
        assert without_windows(events) == [
            InformationalHeaders(stream_id, 103, Headers([(b"link", b"x")])),
            ResponseHeaders(stream_id, 200, Headers([(b"content-length", b"2")]), False, b"HTTP/2"),
            Data(stream_id, b"ok", True, 2),
        ] or without_windows(events)[2:] == [Data(stream_id, b"ok", False, 2), Data(stream_id, b"", True, 0)]
    stream_id = client.open_stream()
    assert stream_id is not None
    client.send(RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/ws", Headers(), False, b"websocket"))
    _, [event] = talk(client, server)
    assert isinstance(event, RequestHeaders)
    assert (event.method, event.protocol, event.path) == (b"GET", b"websocket", b"/ws")
    server.send(ResponseHeaders(stream_id, 101, Headers(), False))
    [answer], _ = talk(client, server)
    assert isinstance(answer, ResponseHeaders)
    assert answer.status == 101
    client.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
    _, [event] = talk(client, server)
    assert event == StreamReset(stream_id, ResetReason.REMOTE_RESET, None, 8)


@pytest.mark.parametrize(("left", "right"), ENGINE_PAIRS)
def test_windows(left: str, right: str) -> None:
    client, server = make(left, False), make(right, True, initial_stream_window_size=65_535)
    talk(client, server)
    stream_id = client.open_stream()
    assert stream_id is not None
    client.send(RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/", Headers(), False))
    assert client.send_window(stream_id) == 65_535
    with pytest.raises(LocalProtocolError):
        client.send(Data(stream_id, bytes(65_536), False))
    client.send(Data(stream_id, bytes(65_535), False))
    assert client.send_window(stream_id) == 0
    _, events = talk(client, server)
    for event in events:
        if isinstance(event, Data):
            server.acknowledge(stream_id, event.flow_size)
    events, _ = talk(client, server)
    assert WindowOpened(stream_id) in events
    assert client.send_window(stream_id) > 30_000


@pytest.mark.parametrize("how", CUTS)
def test_good_events_come_before_the_fault(how: str) -> None:
    codec = opened()
    raw = headers(1, POST, end=False) + data(1, b"abc") + headers(3) + data(0, b"x") + ping()
    events: list[Event] = []
    for piece in pieces(raw, how):
        events += codec.receive_data(piece)
    assert [type(e) for e in events] == [RequestHeaders, Data, RequestHeaders, ConnectionFailed]
    assert parse(codec.data_to_send())[-1].kind == GOAWAY
    assert codec.closed
    codec.send(ResponseHeaders(1, 200, Headers(), True))
    assert codec.receive_eof() == []
    assert codec.next_timer() is None


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", HELLO + frame(0, 0, 1, bytes(16_385)), HELLO + settings((2, 2))])
def test_faults(raw: bytes) -> None:
    codec = make("h2", True)
    assert isinstance(codec.receive_data(raw)[-1], ConnectionFailed)
    assert parse(codec.data_to_send())[-1].kind == GOAWAY


def test_what_only_our_rules_refuse_resets_the_stream() -> None:
    codec = opened()
    events = codec.receive_data(headers(1, [*GET[:2], (b":path", b"/a#b"), GET[3]]) + headers(3))
    assert [type(e) for e in events] == [StreamReset, RequestHeaders]
    assert [(f.kind, f.stream_id) for f in parse(codec.data_to_send())] == [(RST_STREAM, 1)]


@pytest.mark.parametrize(
    "pieces_",
    [
        [headers(n, [*GET]) + rst(n, 8) for n in range(1, 600, 2)],
        [ping()] * 300,
        [settings()] * 300,
        [frame(2, 0, 1, b"\0\0\0\x05\0")] * 300,
        [window_update(0, 1)] * 300,
        [headers(1, POST, end=False), *[data(1, b"")] * 10],
        [frame(0x77, 0, 1, b"x")] * 300,
        [frame(1, 0, 1, block(GET)), *[frame(9, 0, 1, b"\x00\x01a\x01b")] * 100],
    ],
    ids=["rapid reset", "PING", "SETTINGS", "PRIORITY", "WINDOW_UPDATE", "empty DATA", "unknown", "CONTINUATION"],
)
def test_floods(pieces_: list[bytes]) -> None:
    codec = opened()
    events: list[Event] = []
    for piece in pieces_:
        events += codec.receive_data(piece)
    assert isinstance(events[-1], ConnectionFailed)
    assert parse(codec.data_to_send())[-1].number == 11


def test_misuse_raises() -> None:
    codec = opened()
    codec.receive_data(headers(1))
    for bad in (
        Data(1, b"x", False),
        Data(9, b"x", False),
        ResponseHeaders(9, 200, Headers(), True),
        Trailers(9, Headers()),
        WindowOpened(0),
        RequestHeaders(1, b"GET", b"http", b"svc", b"/", Headers(), True),
    ):
        with pytest.raises(LocalProtocolError):
            codec.send(bad)


def test_shutdown_in_two_steps() -> None:
    codec = opened(shutdown_grace=1.0)
    codec.receive_data(headers(1))
    codec.shutdown()
    first, probe = parse(codec.data_to_send())
    assert (first.kind, first.payload[:4]) == (GOAWAY, b"\x7f\xff\xff\xff")
    codec.receive_data(frame(6, 1, 0, probe.payload))
    assert [f.payload[:4] for f in parse(codec.data_to_send())] == [b"\0\0\0\x01"]
    assert codec.receive_data(headers(3)) == []
    assert not codec.closed
    codec.send(ResponseHeaders(1, 204, Headers(), True))
    assert codec.closed
    slow = opened()
    slow.shutdown()
    slow.handle_timer(10.0)
    assert slow.next_timer() == 11.0
    slow.handle_timer(11.0)
    assert slow.closed


def test_goaway_lets_covered_streams_finish() -> None:
    client = make("h2", False)
    client.receive_data(settings((3, 2)))
    ids = []
    for _ in range(2):
        stream_id = client.open_stream()
        assert stream_id is not None
        client.send(RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/", Headers(), True))
        ids.append(stream_id)
    assert client.open_stream() is None
    assert client.receive_data(goaway(1, 0)) == [
        GoAway(0, 1, 0),
        StreamReset(3, ResetReason.REMOTE_REFUSED, None, 7),
    ]
    [answer] = client.receive_data(headers(1, OK))
    assert isinstance(answer, ResponseHeaders)
    assert client.closed


def test_end_of_input() -> None:
    codec = opened()
    codec.receive_data(headers(1) + headers(3, POST, end=False))
    assert codec.receive_eof() == [StreamReset(3, ResetReason.CONNECTION_TERMINATION), ConnectionEnded()]
    codec.send(ResponseHeaders(1, 204, Headers(), True))
    assert codec.closed
    cut = opened()
    cut.receive_data(headers(1)[:12])
    assert isinstance(cut.receive_eof()[0], ConnectionFailed)


def test_keepalive() -> None:
    codec = opened(keepalive_interval=5.0, keepalive_timeout=1.0)
    assert codec.next_timer() == 0.0
    codec.handle_timer(100.0)
    codec.handle_timer(105.0)
    [probe] = parse(codec.data_to_send())
    codec.receive_data(frame(6, 1, 0, probe.payload))
    assert codec.next_timer() == 110.0
    codec.handle_timer(110.0)
    [failed] = codec.handle_timer(111.0)
    assert isinstance(failed, ConnectionFailed)
    assert repr(codec) == "<H2Codec downstream streams=0>"
