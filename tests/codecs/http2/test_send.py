"""What the caller may send, and how the connection ends in good order."""

from __future__ import annotations

import pytest
from http2_support.wire import (
    ACK,
    CONTINUATION,
    GOAWAY,
    HEADERS,
    OK,
    PING,
    POST,
    RST_STREAM,
    data,
    downstream,
    exchange,
    frame,
    goaway,
    headers,
    pair,
    parse,
    ping,
    rst,
    settings,
    upstream,
)

from mesh_codecs.codec import Codec
from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
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
from mesh_codecs.http2 import Http2Codec, Http2Settings


def get(stream_id: int, *fields: tuple[bytes, bytes], end: bool = True, **more: object) -> RequestHeaders:
    values: dict[str, object] = {"method": b"GET", "scheme": b"http", "authority": b"svc", "path": b"/", **more}
    return RequestHeaders(stream_id, headers=Headers(fields), end_stream=end, http_version=b"HTTP/2", **values)  # type: ignore[arg-type]


def opened(codec: Http2Codec) -> int:
    stream_id = codec.open_stream()
    assert stream_id is not None
    return stream_id


def test_it_is_a_codec() -> None:
    codec: Codec = Http2Codec(downstream=True)
    assert repr(codec) == "<Http2Codec downstream OPEN streams=0 window=65535>"


def test_whole_exchange() -> None:
    client, server = pair()
    for round_ in range(4):  # the memo and the table pass through all their stages
        stream_id = opened(client)
        client.send(get(stream_id, (b"x-label", b"gray"), (b"te", b"trailers"), end=False, method=b"POST"))
        client.send(Data(stream_id, b"ping", True))
        _, events = exchange(client, server)
        assert events == [
            get(stream_id, (b"x-label", b"gray"), (b"te", b"trailers"), end=False, method=b"POST"),
            Data(stream_id, b"ping", True, 4),
        ]
        server.acknowledge(stream_id, 4)
        server.send(InformationalHeaders(stream_id, 103, Headers([(b"link", b"x")])))
        server.send(ResponseHeaders(stream_id, 200 + round_, Headers([(b"content-length", b"4")]), False))
        server.send(Data(stream_id, b"pong", False))
        server.send(Trailers(stream_id, Headers([(b"grpc-status", b"0")])))
        events, _ = exchange(client, server)
        assert events == [
            InformationalHeaders(stream_id, 103, Headers([(b"link", b"x")])),
            ResponseHeaders(stream_id, 200 + round_, Headers([(b"content-length", b"4")]), False, b"HTTP/2"),
            Data(stream_id, b"pong", False, 4),
            Trailers(stream_id, Headers([(b"grpc-status", b"0")])),
        ]
    assert (client.open_streams, server.open_streams) == (0, 0)


def test_repeated_head_becomes_one_indexed_byte_per_field() -> None:
    client, _ = pair()
    sizes = []
    for _ in range(5):
        client.send(get(opened(client), (b"x-label", b"gray"), (b"accept", b"*/*")))
        [request] = parse(client.data_to_send())
        sizes.append(len(request.payload))
    assert sizes[2:] == [6, 6, 6]
    assert sizes[0] > 20


def test_hop_by_hop_fields_stay_behind() -> None:
    client, server = pair()
    fields = [
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"gzip"),
        (b"x", b"1"),
        (b"upgrade", b"h2c"),
        (b"proxy-connection", b"close"),
    ]
    client.send(get(opened(client), *fields))
    _, [event] = exchange(client, server)
    assert event == get(1, (b"x", b"1"))


def test_repeats_and_missing_scheme() -> None:
    client, server = pair()
    client.send(get(opened(client), (b"a", b"1"), (b"a", b"2"), scheme=b""))
    _, [event] = exchange(client, server)
    assert event == get(1, (b"a", b"1"), (b"a", b"2"))


def test_connect() -> None:
    client, server = pair()
    client.send(get(opened(client), method=b"CONNECT", scheme=b"", path=b"", end=False))
    _, [event] = exchange(client, server)
    assert event == get(1, method=b"CONNECT", scheme=b"", path=b"", end=False)


def test_long_block_is_continued() -> None:
    client, server = pair(max_header_list_size=100_000)
    fields = [(b"a", b"1" * 20_000), (b"b", b"2" * 20_000)]
    client.send(get(opened(client), *fields))
    out = b"".join(client.data_to_send())
    assert [(f.kind, f.flags) for f in parse(out)] == [(HEADERS, 1), (CONTINUATION, 0), (CONTINUATION, 4)]
    assert server.receive_data(out) == [get(1, *fields)]


def test_trailers_without_fields_end_the_stream() -> None:
    codec = downstream()
    codec.receive_data(headers(1))
    codec.send(ResponseHeaders(1, 200, Headers(), False))
    codec.send(Trailers(1, Headers()))
    assert [(f.kind, f.flags) for f in parse(codec.data_to_send())] == [(HEADERS, 4), (0, 1)]


RESPONSE = ResponseHeaders(1, 200, Headers(), False)
MISUSES: dict[str, list[Event]] = {
    "response to nothing": [ResponseHeaders(9, 200, Headers(), True)],
    "two responses": [RESPONSE, RESPONSE],
    "informational after the response": [RESPONSE, InformationalHeaders(1, 103, Headers())],
    "data before the response": [Data(1, b"x", False)],
    "data after the end": [ResponseHeaders(1, 200, Headers(), True), Data(1, b"x", False)],
    "trailers before the response": [Trailers(1, Headers())],
    "trailers after the end": [RESPONSE, Trailers(1, Headers([(b"a", b"b")])), Trailers(1, Headers([(b"a", b"b")]))],
    "101 without an upgrade": [ResponseHeaders(1, 101, Headers(), False)],
    "request from the wrong side": [get(1)],
    "newline in a value": [ResponseHeaders(1, 200, Headers([(b"a", b"1\r\nb: 2")]), True)],
    "upper-case name": [ResponseHeaders(1, 200, Headers([(b"A", b"1")]), True)],
    "newline in a name": [ResponseHeaders(1, 200, Headers([(b"a\nb", b"1")]), True)],
    "an event that cannot be sent": [WindowOpened(0)],
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_raises_and_changes_nothing(case: str) -> None:
    codec = downstream()
    codec.receive_data(headers(1, POST, end=False))
    *good, bad = MISUSES[case]
    for event in good:
        codec.send(event)
    codec.data_to_send()
    before = repr(codec)
    with pytest.raises(LocalProtocolError):
        codec.send(bad)
    assert codec.data_to_send() == []
    assert repr(codec) == before


def test_misuse_of_the_upstream_side() -> None:
    codec = upstream()
    with pytest.raises(LocalProtocolError, match="not_opened"):
        codec.send(get(1))
    first, second = opened(codec), opened(codec)
    with pytest.raises(LocalProtocolError, match="not_offered"):
        codec.send(get(second, protocol=b"websocket"))
    with pytest.raises(LocalProtocolError, match="invalid_pseudo_header"):
        codec.send(get(second, path=b"/a b"))
    codec.send(get(second))
    with pytest.raises(LocalProtocolError, match="out_of_order"):
        codec.send(get(first))
    with pytest.raises(LocalProtocolError, match="not_opened"):
        codec.send(get(second))
    codec.send(StreamReset(first, ResetReason.LOCAL_RESET))  # never used: nothing to say
    assert [f.kind for f in parse(codec.data_to_send())] == [HEADERS]
    assert codec.open_streams == 1
    with pytest.raises(LocalProtocolError, match="response_not_expected"):
        codec.send(ResponseHeaders(second, 200, Headers(), True))


def test_what_is_sent_to_a_stream_that_just_went_is_dropped() -> None:
    codec = downstream()
    events = codec.receive_data(headers(1) + rst(1, 8))
    assert [type(e) for e in events] == [RequestHeaders, StreamReset]
    codec.send(ResponseHeaders(1, 200, Headers(), True))  # the caller works on the first event
    assert codec.data_to_send() == []
    codec.receive_data(headers(3))
    with pytest.raises(LocalProtocolError):
        codec.send(ResponseHeaders(1, 200, Headers(), True))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (StreamReset(1, ResetReason.LOCAL_RESET), 8),
        (StreamReset(1, ResetReason.LOCAL_REFUSED), 7),
        (StreamReset(1, ResetReason.REMOTE_REFUSED), 7),
        (StreamReset(1, ResetReason.PROTOCOL_ERROR), 1),
        (StreamReset(1, ResetReason.CONNECTION_TERMINATION), 2),
        (StreamReset(1, ResetReason.REMOTE_RESET, None, 5), 5),
    ],
)
def test_code_of_a_reset(event: StreamReset, code: int) -> None:
    codec = downstream()
    codec.receive_data(headers(1))
    codec.send(event)
    codec.send(event)  # too late is not wrong
    [answer] = parse(codec.data_to_send())
    assert (answer.kind, answer.number) == (RST_STREAM, code)


def test_reset_after_a_whole_response_is_no_error() -> None:
    codec = downstream()
    codec.receive_data(headers(1, POST, end=False))
    codec.send(ResponseHeaders(1, 413, Headers(), True))
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    assert [(f.kind, f.number) for f in parse(codec.data_to_send())][1:] == [(RST_STREAM, 0)]


def test_concurrency_of_the_peer_and_of_our_own() -> None:
    codec = Http2Codec(downstream=False)
    assert codec.max_streams == 100
    codec.receive_data(settings((3, 2)))
    assert codec.max_streams == 2
    first, second = opened(codec), opened(codec)
    assert codec.open_stream() is None
    codec.send(get(first))
    codec.send(get(second))
    codec.receive_data(headers(first, OK))
    assert opened(codec) == 5
    codec = upstream(max_concurrent_streams=1000)
    assert codec.max_streams == 1000  # the peer said nothing: no limit
    assert downstream().open_stream() is None


def test_streams_beyond_our_limit_are_refused() -> None:
    codec = downstream(max_concurrent_streams=2)
    events = codec.receive_data(headers(1) + headers(3) + headers(5))
    assert [e.stream_id for e in events] == [1, 3]
    [answer] = parse(codec.data_to_send())
    assert (answer.kind, answer.stream_id, answer.number) == (RST_STREAM, 5, 7)


def test_shutdown_in_two_steps() -> None:
    codec = downstream()
    codec.receive_data(headers(1))
    codec.shutdown()
    first, probe = parse(codec.data_to_send())
    assert (first.kind, first.payload) == (GOAWAY, b"\x7f\xff\xff\xff\0\0\0\0")
    [event] = codec.receive_data(headers(3))  # it crossed our GOAWAY
    assert event.stream_id == 3
    codec.receive_data(frame(PING, ACK, 0, probe.payload))
    [final] = parse(codec.data_to_send())
    assert (final.kind, final.payload) == (GOAWAY, b"\0\0\0\x03\0\0\0\0")
    # Newer streams are dropped, but tables and windows stay in step.
    late = headers(5, POST, end=False) + data(5, b"x") + headers(5, [(b"a", b"b")]) + rst(5, 8)
    assert codec.receive_data(late) == []
    assert codec.data_to_send() == []
    assert not codec.closed
    codec.send(ResponseHeaders(1, 200, Headers(), True))
    codec.send(ResponseHeaders(3, 200, Headers(), True))
    assert codec.closed
    codec.shutdown()
    assert repr(codec) == "<Http2Codec downstream LAST streams=0 window=65535>"


def test_shutdown_does_not_wait_for_a_silent_peer() -> None:
    codec = downstream(shutdown_grace=2.0)
    codec.shutdown()
    codec.data_to_send()
    assert codec.next_timer() == 0.0
    codec.handle_timer(100.0)
    assert codec.next_timer() == 102.0
    codec.handle_timer(101.0)
    assert codec.data_to_send() == []
    codec.handle_timer(102.0)
    assert [f.kind for f in parse(codec.data_to_send())] == [GOAWAY]
    assert codec.closed
    impatient = downstream()
    impatient.shutdown()
    impatient.shutdown()
    assert impatient.closed


def test_shutdown_of_the_upstream_side() -> None:
    codec = upstream()
    codec.send(get(opened(codec)))
    codec.data_to_send()
    codec.shutdown()
    assert [f.kind for f in parse(codec.data_to_send())] == [GOAWAY]
    assert codec.open_stream() is None
    assert not codec.closed
    codec.receive_data(headers(1, OK))
    assert codec.closed


def test_goaway_of_the_callers_own() -> None:
    codec = downstream()
    codec.receive_data(headers(1))
    codec.send(GoAway(0, 0, 11, b"busy"))
    [last] = parse(codec.data_to_send())
    assert (last.kind, last.payload) == (GOAWAY, b"\0\0\0\x01\0\0\0\x0bbusy")


def test_ping_is_answered() -> None:
    codec = downstream()
    assert codec.receive_data(ping(b"abcdefgh")) == []
    [answer] = parse(codec.data_to_send())
    assert (answer.kind, answer.flags, answer.payload) == (PING, ACK, b"abcdefgh")


def test_keepalive_pings_and_their_loss() -> None:
    codec = upstream(keepalive_interval=10.0, keepalive_timeout=3.0)
    assert codec.next_timer() == 0.0
    assert codec.handle_timer(50.0) == []
    assert codec.next_timer() == 60.0
    codec.handle_timer(60.5)
    [probe] = parse(codec.data_to_send())
    assert (probe.kind, probe.flags) == (PING, 0)
    assert codec.next_timer() == 63.5
    codec.receive_data(frame(PING, ACK, 0, probe.payload))
    assert codec.next_timer() == 70.5
    codec.handle_timer(70.5)
    codec.receive_data(frame(PING, ACK, 0, b"another."))  # not ours
    assert codec.next_timer() == 73.5
    [failed] = codec.handle_timer(73.5)
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.code == "http2.keepalive_timeout"
    assert codec.closed


def test_no_timer_is_asked_for_on_a_quiet_connection() -> None:
    client, server = pair()
    client.send(get(opened(client)))
    exchange(client, server)
    server.send(ResponseHeaders(1, 200, Headers(), True))
    exchange(client, server)
    assert client.next_timer() is None
    assert server.next_timer() is None


def test_settings_that_we_announce() -> None:
    told = Http2Settings(
        hpack_table_size=0,
        max_concurrent_streams=7,
        allow_connect=True,
        initial_stream_window_size=1000,
        max_frame_size=20000,
    )
    server = Http2Codec(downstream=True, settings=told)
    client = upstream()
    client.receive_data(b"".join(server.data_to_send()))
    assert client.max_streams == 7
    assert client.peer_allows_connect
    client.send(get(opened(client), end=False))
    assert client.send_window(1) == 1000


def test_fields_that_are_never_the_same_go_last_and_leave_the_rest_known() -> None:
    client, server = pair()
    sizes = []
    for number in range(6):
        value = b"%032x" % number
        client.send(get(opened(client), (b"x-request-id", value), (b"x-label", b"gray"), (b"traceparent", value * 5)))
        wire = b"".join(client.data_to_send())
        sizes.append(len(wire))
        [event] = server.receive_data(wire)
        assert event == get(1 + 2 * number, (b"x-label", b"gray"), (b"traceparent", value * 5), (b"x-request-id", value))
    assert len(set(sizes[2:])) == 1
    assert sizes[2] == 9 + 5 + (14 + 1 + 32) + (13 + 2 + 160)
    with pytest.raises(LocalProtocolError, match="invalid_header_value"):
        client.send(get(opened(client), (b"x-request-id", b"a\r\nb: c")))


def test_known_head_still_announces_a_change_of_the_table() -> None:
    client = upstream()
    for _ in range(4):
        client.send(get(opened(client), (b"x-label", b"gray")))
    known = parse(client.data_to_send())[-1].payload
    assert len(known) == 5
    client.receive_data(settings((1, 0)))
    client.send(get(opened(client), (b"x-label", b"gray")))
    block = parse(client.data_to_send())[-1].payload
    assert block[:1] == b"\x20"
    assert len(block) > 20


def test_more_heads_than_are_kept() -> None:
    client, server = pair()
    for number in range(120):
        path = b"/%d" % (number % 40)
        client.send(get(opened(client), path=path))
        _, [request] = exchange(client, server)
        assert request == get(1 + 2 * number, path=path)
        head = ResponseHeaders(request.stream_id, 200 + number % 40, Headers([(b"a", b"1"), (b"a", b"2")]), True, b"HTTP/2")
        server.send(head)
        assert exchange(client, server)[0] == [head]


def test_no_request_after_the_peer_said_goodbye() -> None:
    codec = upstream()
    stream_id = opened(codec)
    codec.receive_data(goaway(0, 0))
    codec.send(get(stream_id))  # the caller could not know
    assert codec.data_to_send() == []
    codec.receive_data(ping())
    with pytest.raises(LocalProtocolError):
        codec.send(get(stream_id))


def test_request_without_authority() -> None:
    client, server = pair()
    client.send(get(opened(client), authority=b""))
    _, [event] = exchange(client, server)
    assert event == get(1, authority=b"")


def test_heads_of_one_likeness_differ_in_their_request_id_alone() -> None:
    """Their block is encoded once, also when something else has changed the table in between."""
    client, server = Http2Codec(downstream=False), Http2Codec(downstream=True)
    likeness = object()
    for number in range(12):
        stream_id = client.open_stream()
        assert stream_id is not None
        fields = [(b"user-agent", b"u"), (b"x-request-id", b"id-%d" % number), (b"x-a", b"b")]
        if number in (5, 6):
            client.send(RequestHeaders(stream_id, b"GET", b"http", b"a", b"/other", Headers([(b"x-other", b"c")]), True))
        else:
            client.send(RequestHeaders(stream_id, b"GET", b"http", b"a", b"/", Headers(fields), True, likeness=likeness))
        got = next(e for e in server.receive_data(b"".join(client.data_to_send())) if isinstance(e, RequestHeaders))
        if number in (5, 6):
            assert (got.path, got.headers) == (b"/other", Headers([(b"x-other", b"c")]))
        else:
            assert (got.path, got.headers) == (b"/", Headers(fields))
    bad = Headers([(b"user-agent", b"u"), (b"x-request-id", b"a\nb"), (b"x-a", b"b")])
    event = RequestHeaders(opened(client), b"GET", b"http", b"a", b"/", bad, True, likeness=likeness)
    with pytest.raises(LocalProtocolError):
        client.send(event)
