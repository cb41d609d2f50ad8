"""Peers that send much cheap work: who is cut off, who is not, and what it may cost (limits of Envoy, see Http2Settings)."""

from __future__ import annotations

import tracemalloc

import pytest
from http2_support.floods import FLOODS, OPEN, streams
from http2_support.wire import (
    GET,
    GOAWAY,
    RST_STREAM,
    data,
    downstream,
    headers,
    parse,
    ping,
    rst,
    upstream,
    window_update,
)

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import ConnectionFailed, Data, Event, RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

CALM = 11


@pytest.mark.parametrize("case", FLOODS)
def test_flood_ends_in_goaway_and_costs_little(case: str) -> None:
    codec = downstream()
    largest = spent = 0
    failed: Event | None = None
    tracemalloc.start()
    try:
        for piece in FLOODS[case]():
            spent += len(piece)
            events = codec.receive_data(piece)
            largest = max(largest, tracemalloc.get_traced_memory()[1])
            if events and isinstance(events[-1], ConnectionFailed):
                failed = events[-1]
                break
    finally:
        tracemalloc.stop()
    assert isinstance(failed, ConnectionFailed), f"{spent} bytes and still alive"
    last = parse(codec.data_to_send())[-1]
    assert (last.kind, last.number) == (GOAWAY, CALM)
    assert largest < 64 * spent + 256 * 1024
    assert largest < 2 << 20
    assert codec.closed


def test_bomb_under_the_line_resets_only_its_stream() -> None:
    """A list over the limit, but not absurdly so, may be an honest mistake: the connection and its table live on."""
    codec = downstream(max_headers_count=10)
    many = [*GET, *[(b"x-%d" % n, b"1") for n in range(7)]]
    events = codec.receive_data(headers(1, many[:10]) + headers(3, many) + headers(5))
    assert [type(e) for e in events] == [RequestHeaders, StreamReset, RequestHeaders]
    assert events[1].error_code == CALM  # type: ignore[union-attr]
    assert [(f.kind, f.number) for f in parse(codec.data_to_send())] == [(RST_STREAM, CALM)]


HEAD_SIZE = sum(len(n) + len(v) + 32 for n, v in GET)


@pytest.mark.parametrize(("size", "good"), [(32768 - HEAD_SIZE - 33, True), (32768 - HEAD_SIZE - 32, False)])
def test_limit_of_the_header_list_to_the_byte(size: int, good: bool) -> None:
    codec = downstream(max_frame_size=65536)
    [event] = codec.receive_data(headers(1, [*GET, (b"x", b"v" * size)]))
    assert isinstance(event, RequestHeaders) == good


def test_cookie_crumbs_count_each() -> None:
    codec = downstream(max_headers_count=10)
    [event] = codec.receive_data(headers(1, [*GET, *[(b"cookie", b"a=b")] * 7]))
    assert isinstance(event, StreamReset)


def finish(codec: Http2Codec, events: list[Event]) -> None:
    for event in events:
        if isinstance(event, RequestHeaders):
            codec.send(ResponseHeaders(event.stream_id, 200, Headers(), True))


def test_eighty_streams_closed_at_once_are_no_attack() -> None:
    codec = downstream()
    codec.receive_data(b"".join(streams(headers, 80)) + b"".join(streams(lambda n: rst(n, 8), 80)))
    assert not codec.closed


def test_resets_among_many_good_streams_are_no_attack() -> None:
    codec = downstream()
    for number in range(2000):
        stream_id = 1 + 2 * number
        events = codec.receive_data(headers(stream_id))
        if number % 3:
            finish(codec, events)
        else:
            codec.receive_data(rst(stream_id, 8))
    assert not codec.closed


def test_resets_after_our_answer_began_are_no_attack() -> None:
    codec = downstream()
    for number in range(1000):
        stream_id = 1 + 2 * number
        codec.receive_data(headers(stream_id))
        codec.send(ResponseHeaders(stream_id, 200, Headers(), False))
        codec.receive_data(rst(stream_id, 8))
    assert not codec.closed


def test_good_streams_of_the_past_do_not_pay_for_an_attack() -> None:
    codec = downstream()
    for number in range(1000):
        finish(codec, codec.receive_data(headers(1 + 2 * number)))
    codec.receive_data(headers(2001) + rst(2001, 8))
    assert codec.next_timer() == 0.0
    codec.handle_timer(100.0)
    failed = []
    for number in range(1001, 1200):
        failed += codec.receive_data(headers(1 + 2 * number) + rst(1 + 2 * number, 8))
    assert isinstance(failed[-1], ConnectionFailed)


def test_counts_are_forgotten_with_time() -> None:
    codec = downstream()
    now = 1000.0
    for _ in range(20):
        for _ in range(150):
            codec.receive_data(ping())
        codec.data_to_send()
        while (due := codec.next_timer()) is not None:
            now = max(now, due)
            codec.handle_timer(now)
    assert not codec.closed
    assert now == 1000.0 + 20 * 10.0


def test_pings_in_step_with_our_data_are_no_flood() -> None:
    """grpc-go measures the bandwidth-delay product by a PING for nearly every DATA frame that it receives."""
    codec = downstream()
    codec.receive_data(headers(1))
    codec.send(ResponseHeaders(1, 200, Headers(), False))
    now = 0.0
    for round_ in range(2000):
        codec.send(Data(1, b"x", False))
        assert codec.receive_data(ping() + window_update(0, 1) + window_update(1, 1)) == []
        codec.data_to_send()
        due = codec.next_timer()
        if due is not None and round_ % 100 == 0:
            now = max(now + 1.0, due)
            codec.handle_timer(now)
    events = [event for _ in range(5000) for event in codec.receive_data(ping())]
    assert isinstance(events[-1], ConnectionFailed)


def test_cancelling_streams_that_have_just_ended_is_no_flood() -> None:
    codec = downstream()
    for number in range(1000):
        finish(codec, codec.receive_data(headers(1 + 2 * number)))
        codec.receive_data(rst(1 + 2 * number, 8))
    assert not codec.closed


def test_answers_nobody_reads_are_bounded() -> None:
    codec = downstream(max_control_frames_per_window=10_000, max_outbound_control_frames=50)
    for _ in range(50):
        assert codec.receive_data(ping()) == []
    [failed] = codec.receive_data(ping())
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.code == "http2.outbound_control_frames_flood"


def test_window_updates_in_step_with_our_data_are_no_flood() -> None:
    codec = downstream()
    codec.receive_data(headers(1))
    codec.send(ResponseHeaders(1, 200, Headers(), False))
    for _ in range(1000):
        codec.send(Data(1, b"x", False))
        assert codec.receive_data(window_update(0, 1) + window_update(1, 1)) == []
    assert not codec.closed


def test_upstream_is_not_judged_by_resets_but_by_floods() -> None:
    codec = upstream()
    for _ in range(500):
        stream_id = codec.open_stream()
        assert stream_id is not None
        codec.send(RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/", Headers(), True))
        codec.receive_data(rst(stream_id, 7))
        codec.data_to_send()
    assert not codec.closed
    events = codec.receive_data(ping() * 800)
    assert isinstance(events[-1], ConnectionFailed)


def test_informational_flood_of_an_upstream() -> None:
    codec = upstream()
    stream_id = codec.open_stream()
    assert stream_id is not None
    codec.send(RequestHeaders(stream_id, b"GET", b"http", b"svc", b"/", Headers(), True))
    events = codec.receive_data(headers(1, [(b":status", b"100")], end=False) * 300)
    assert isinstance(events[-1], ConnectionFailed)


def test_body_on_its_way_to_a_reset_stream_is_bound_by_its_window() -> None:
    codec = downstream(initial_stream_window_size=65536)
    codec.receive_data(OPEN)
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    assert codec.receive_data(data(1, bytes(16384)) * 4 + headers(3))[0].stream_id == 3
    [failed] = codec.receive_data(data(1, b"x"))
    assert isinstance(failed, ConnectionFailed)


def test_memory_of_many_finished_streams_is_bounded() -> None:
    codec = downstream()
    for number in range(500):
        finish(codec, codec.receive_data(headers(1 + 2 * number)))
        codec.data_to_send()
    tracemalloc.start()
    try:
        for number in range(500, 5000):
            stream_id = 1 + 2 * number
            events = codec.receive_data(headers(stream_id, [*GET, (b"x-request-id", b"%d" % number)]))
            if number % 4:
                finish(codec, events)
            else:
                codec.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
            codec.data_to_send()
        assert tracemalloc.get_traced_memory()[0] < 128 * 1024
    finally:
        tracemalloc.stop()


def test_dribbled_large_frame_is_linear() -> None:
    codec = downstream(max_frame_size=1 << 20, initial_stream_window_size=1 << 21, initial_connection_window_size=1 << 21)
    codec.receive_data(OPEN)
    raw = data(1, bytes(1 << 20))
    events: list[Event] = []
    for start in range(0, len(raw), 16):
        events += codec.receive_data(raw[start : start + 16])
    assert len(events) == 1
