"""Faults in frames, by section of RFC 9113: which error, of the connection or of the stream, in every cutting."""

from __future__ import annotations

import pytest
from http2_support.wire import (
    ACK,
    CONTINUATION,
    CUTS,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    HELLO,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    block,
    data,
    downstream,
    feed,
    frame,
    goaway,
    headers,
    parse,
    ping,
    rst,
    settings,
    upstream,
    window_update,
)

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import ConnectionEnded, ConnectionFailed, Data, GoAway, RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import PREFACE, Http2Codec

PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION, CALM = 1, 3, 5, 6, 9, 11
OPEN = headers(1, end=False)
DONE = headers(1)

CONNECTION_FAULTS = {
    "4.2 frame too large": (frame(DATA, 0, 1, bytes(16385)), SIZE),
    "4.3 bad block": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff"), COMPRESSION),
    "5.1 DATA on idle stream": (data(1, b"x"), PROTOCOL),
    "5.1 RST_STREAM on idle stream": (rst(1, 8), PROTOCOL),
    "5.1 WINDOW_UPDATE on idle stream": (window_update(1, 1), PROTOCOL),
    "5.1 CONTINUATION on idle stream": (frame(CONTINUATION, END_HEADERS, 1), PROTOCOL),
    "5.1.1 even stream": (headers(2), PROTOCOL),
    "5.1.1 stream 0": (headers(0), PROTOCOL),
    "5.1.1 smaller stream": (headers(5) + rst(5, 8) + headers(3), CLOSED),
    "6.1 DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "6.1 padding too long": (OPEN + frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL),
    "6.1 padding length missing": (OPEN + frame(DATA, PADDED, 1), SIZE),
    "6.2 padding too long": (frame(HEADERS, PADDED | END_HEADERS, 1, b"\x10" + block(GET)[:15]), PROTOCOL),
    "6.2 priority cut off": (frame(HEADERS, PRIORITY_FLAG | END_HEADERS, 1, b"abc"), SIZE),
    "6.2 block interrupted by another frame": (frame(HEADERS, 0, 1, b"\x82") + ping(), PROTOCOL),
    "6.2 block interrupted by an unknown frame": (frame(HEADERS, 0, 1, b"\x82") + frame(99), PROTOCOL),
    "6.2 block interrupted by DATA": (OPEN + frame(HEADERS, END_STREAM, 1, b"\x82") + data(1, b"x"), PROTOCOL),
    "6.2 block interrupted by HEADERS": (frame(HEADERS, 0, 1, b"\x82") + headers(3), PROTOCOL),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "6.3 PRIORITY size on idle stream": (frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "6.4 RST_STREAM on stream 0": (rst(0, 8), PROTOCOL),
    "6.4 RST_STREAM size": (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "6.5 SETTINGS size": (frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    "6.5 acknowledgement with payload": (frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    "6.5.2 ENABLE_PUSH 2": (settings((2, 2)), PROTOCOL),
    "6.5.2 window too large": (settings((4, 1 << 31)), FLOW),
    "6.5.2 frame size too small": (settings((5, 16383)), PROTOCOL),
    "6.5.2 frame size too large": (settings((5, 1 << 24)), PROTOCOL),
    "RFC 8441 value": (settings((8, 2)), PROTOCOL),
    "RFC 8441 taken back": (settings((8, 1)) + settings((8, 0)), PROTOCOL),
    "6.6 PUSH_PROMISE": (OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), PROTOCOL),
    "6.7 PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "6.7 PING size": (frame(PING, 0, 0, bytes(7)), SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "6.8 GOAWAY size": (frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    "6.9 WINDOW_UPDATE of 0": (window_update(0, 0), PROTOCOL),
    "6.9 WINDOW_UPDATE size": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "6.9.1 window too large": (window_update(0, 0x7FFFFFFF), FLOW),
    "6.9.2 SETTINGS overflow a window": (OPEN + window_update(1, 0x7FFFFFFF - 65535) + settings((4, 65536)), FLOW),
    "6.10 CONTINUATION without HEADERS": (OPEN + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL),
    "6.10 CONTINUATION on another stream": (frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, 4, 3), PROTOCOL),
    "5.1 HEADERS after RST_STREAM of the peer": (OPEN + rst(1, 8) + headers(1), CLOSED),
    "5.1 DATA after RST_STREAM of the peer": (OPEN + rst(1, 8) + data(1, b"x"), CLOSED),
}

STREAM_FAULTS = {
    "5.1 DATA after END_STREAM": (DONE + data(1, b"x"), CLOSED),
    "5.1 HEADERS after END_STREAM": (DONE + headers(1), CLOSED),
    "5.3.1 depends on itself": (
        frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY_FLAG, 1, b"\0\0\0\x01\x10" + block(GET)),
        PROTOCOL,
    ),
    "5.3.1 PRIORITY on itself": (OPEN + frame(PRIORITY, 0, 1, b"\x80\0\0\x01\x10"), PROTOCOL),
    "6.3 PRIORITY size": (OPEN + frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "6.9 WINDOW_UPDATE of 0": (OPEN + window_update(1, 0), PROTOCOL),
    "6.9.1 window too large": (OPEN + window_update(1, 0x7FFFFFFF), FLOW),
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("case", CONNECTION_FAULTS)
def test_connection_faults(case: str, how: str) -> None:
    raw, code = CONNECTION_FAULTS[case]
    codec = downstream()
    events = feed(codec, raw + headers(7), how)
    assert isinstance(events[-1], ConnectionFailed)
    assert not any(isinstance(e, ConnectionFailed) for e in events[:-1])
    assert codec.closed
    last = parse(codec.data_to_send())[-1]
    assert (last.kind, last.number) == (GOAWAY, code)
    # Nothing more is read or sent, and nothing raises.
    assert codec.receive_data(ping()) == []
    assert codec.receive_eof() == []
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    codec.shutdown()
    assert codec.next_timer() is None
    assert codec.handle_timer(1.0) == []
    assert codec.data_to_send() == []


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("case", STREAM_FAULTS)
def test_stream_faults_leave_the_connection_alone(case: str, how: str) -> None:
    raw, code = STREAM_FAULTS[case]
    codec = downstream()
    events = feed(codec, raw + headers(7), how)
    assert isinstance(events[-1], RequestHeaders)
    assert events[-1].stream_id == 7
    resets = [f for f in parse(codec.data_to_send()) if f.kind == RST_STREAM]
    assert [(f.stream_id, f.number) for f in resets] == [(1, code)]
    assert codec.open_streams == 1
    assert not codec.closed


@pytest.mark.parametrize("how", CUTS)
def test_good_events_come_before_the_fault(how: str) -> None:
    codec = downstream()
    events = feed(codec, OPEN + data(1, b"abc") + data(0, b"x"), how)
    assert [type(e) for e in events] == [RequestHeaders, Data, ConnectionFailed]
    assert parse(codec.data_to_send())[-1].payload[:4] == b"\0\0\0\x01"


@pytest.mark.parametrize("how", CUTS)
def test_harmless_oddities_are_dropped(how: str) -> None:
    codec = downstream()
    raw = (
        frame(0x16, 0xFF, 77, b"unknown")
        + frame(PRIORITY, 0, 9, bytes(5))
        + settings((0x99, 5), (2, 0))
        + DONE
        + rst(1, 8)
        + rst(1, 8)
        + window_update(1, 5)
        + ping(flags=ACK)
        + frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITY_FLAG, 3, b"\x02\0\0\0\0\x10" + block(GET) + bytes(2))
    )
    events = feed(codec, raw, how)
    assert [type(e) for e in events] == [RequestHeaders, StreamReset, RequestHeaders]
    assert [f.kind for f in parse(codec.data_to_send())] == [SETTINGS]


def test_late_frames_on_a_stream_that_we_reset_are_dropped() -> None:
    codec = downstream()
    codec.receive_data(OPEN)
    codec.send(StreamReset(1, ResetReason.LOCAL_REFUSED))
    [answer] = parse(codec.data_to_send())
    assert (answer.kind, answer.number) == (RST_STREAM, 7)
    events = codec.receive_data(data(1, b"x") + headers(1, [(b":bad", b"trailers")]) + headers(3))
    assert [e.stream_id for e in events] == [3]
    assert codec.data_to_send() == []


def test_late_frames_are_dropped_however_many_streams_we_reset() -> None:
    codec = upstream((3, 1000), max_concurrent_streams=1000)
    ids = [request(codec) for _ in range(400)]
    for stream_id in ids:
        codec.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
    codec.data_to_send()
    for stream_id in ids[:50] + ids[-50:]:
        raw = headers(stream_id, [(b":status", b"200")], end=False) + data(stream_id, b"x", end=True)
        assert codec.receive_data(raw) == []
    assert codec.data_to_send() == []


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:20] + b"XX\r\n\r\n" + settings(), b"\x00"])
def test_bad_preface(raw: bytes, how: str) -> None:
    codec = Http2Codec(downstream=True)
    assert isinstance(feed(codec, raw, how)[-1], ConnectionFailed)
    assert codec.closed
    assert parse(codec.data_to_send())[-1].kind == GOAWAY


@pytest.mark.parametrize("first", [ping(), headers(1), SETTINGS_ACK])
def test_settings_must_come_first(first: bytes) -> None:
    for codec, opening in ((Http2Codec(downstream=True), PREFACE), (Http2Codec(downstream=False), b"")):
        assert isinstance(feed(codec, opening + first)[-1], ConnectionFailed)


def test_opening_of_both_sides() -> None:
    for how in CUTS:
        codec = Http2Codec(downstream=True)
        kinds = [(f.kind, f.flags) for f in parse(codec.data_to_send())]
        assert kinds == [(SETTINGS, 0), (WINDOW_UPDATE, 0)]
        assert feed(codec, HELLO, how) == []
        assert b"".join(codec.data_to_send()) == SETTINGS_ACK
    client = Http2Codec(downstream=False)
    out = b"".join(client.data_to_send())
    assert out.startswith(PREFACE)
    first = parse(out)[0]
    assert (first.kind, first.payload[:6]) == (SETTINGS, b"\0\x02\0\0\0\0")  # ENABLE_PUSH 0


@pytest.mark.parametrize(
    "raw",
    [
        headers(1, end=False),
        headers(3),
        headers(2),
        data(1, b"x"),
        data(3, b"x"),
        window_update(1, 1),
        rst(3, 8),
        settings((2, 1)),
        frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
    ],
)
def test_upstream_peer_must_not_speak_of_streams_we_did_not_use(raw: bytes) -> None:
    codec = upstream()
    assert codec.open_stream() == 1  # reserved, but no request was sent
    assert isinstance(codec.receive_data(raw)[-1], ConnectionFailed)


def request(codec: Http2Codec) -> int:
    stream_id = codec.open_stream()
    assert stream_id is not None
    codec.send(RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/", Headers(), True))
    codec.data_to_send()
    return stream_id


def test_goaway_refuses_the_streams_it_does_not_cover() -> None:
    codec = upstream()
    assert [request(codec) for _ in range(3)] == [1, 3, 5]
    assert codec.open_stream() == 7
    events = codec.receive_data(goaway(3, 0, b"bye"))
    assert events == [
        GoAway(0, 3, 0, b"bye"),
        StreamReset(5, ResetReason.REMOTE_REFUSED, None, 7),
        StreamReset(7, ResetReason.REMOTE_REFUSED, None, 7),
    ]
    assert codec.open_stream() is None
    assert not codec.closed
    codec.receive_data(headers(1, [(b":status", b"200")]) + headers(3, [(b":status", b"200")]))
    assert codec.closed


def test_reset_of_the_peer() -> None:
    codec = upstream()
    assert [request(codec), request(codec)] == [1, 3]
    assert codec.receive_data(rst(1, 7) + rst(3, 2)) == [
        StreamReset(1, ResetReason.REMOTE_REFUSED, None, 7),
        StreamReset(3, ResetReason.REMOTE_RESET, None, 2),
    ]


def test_end_of_input() -> None:
    codec = downstream()
    assert codec.receive_eof() == [ConnectionEnded()]
    assert codec.closed
    codec = downstream()
    codec.receive_data(headers(1) + headers(3, end=False))
    assert codec.receive_eof() == [StreamReset(3, ResetReason.CONNECTION_TERMINATION), ConnectionEnded()]
    assert not codec.closed  # stream 1 can still be answered
    codec.send(ResponseHeaders(1, 204, Headers(), True))
    assert codec.closed
    codec = downstream()
    codec.receive_data(headers(1)[:-1])
    [failed] = codec.receive_eof()
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.code == "http2.connection_cut_off"
    client = upstream()
    request(client)
    assert client.receive_eof() == [StreamReset(1, ResetReason.CONNECTION_TERMINATION), ConnectionEnded()]
    assert client.closed
