"""Requests and responses: what is understood, what is malformed (RFC 9113, 8)."""

from __future__ import annotations

import pytest
from http2_support.wire import CUTS, GET, OK, PADDED, POST, RST_STREAM, data, downstream, feed, frame, headers, parse, upstream

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Data, InformationalHeaders, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers


def request(stream_id: int, fields: list[tuple[bytes, bytes]], end: bool = True, **more: object) -> RequestHeaders:
    values: dict[str, object] = {"method": b"GET", "scheme": b"http", "authority": b"svc", "path": b"/"}
    values.update(more)
    return RequestHeaders(stream_id, headers=Headers(fields), end_stream=end, http_version=b"HTTP/2", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", CUTS)
def test_requests_with_body_and_trailers(how: str) -> None:
    codec = downstream()
    raw = (
        headers(1)
        + headers(3, [*POST, (b"content-length", b"5"), (b"x-a", b"1"), (b"x-a", b"2")], end=False)
        + data(3, b"abc")
        + frame(0, PADDED, 3, b"\x04de" + bytes(4))
        + headers(3, [(b"x-checksum", b"9"), (b"content-length", b"7"), (b"host", b"a"), (b"host", b"b")])
        + headers(1001)
    )
    assert feed(codec, raw, how) == [
        request(1, []),
        request(3, [(b"content-length", b"5"), (b"x-a", b"1"), (b"x-a", b"2")], False, method=b"POST"),
        Data(3, b"abc", False, 3),
        Data(3, b"de", False, 7),
        Trailers(3, Headers([(b"x-checksum", b"9")])),
        request(1001, []),
    ]


@pytest.mark.parametrize("how", CUTS)
def test_repeated_head_is_the_same_every_time(how: str) -> None:
    codec = downstream()
    fields = [*GET, (b"x-label", b"gray")]
    events = feed(codec, b"".join(headers(n, fields) for n in (1, 3, 5)), how)
    assert events == [request(n, [(b"x-label", b"gray")]) for n in (1, 3, 5)]
    first, second, _ = events
    assert isinstance(first, RequestHeaders)
    assert isinstance(second, RequestHeaders)
    first.headers.set(b"x-label", b"changed")
    assert second.headers.get(b"x-label") == b"gray"


@pytest.mark.parametrize("how", CUTS)
def test_block_over_continuation_frames(how: str) -> None:
    codec = downstream()
    whole = headers(1)
    block = whole[9:]
    raw = frame(1, 1, 1, block[:5]) + frame(9, 0, 1, block[5:9]) + frame(9, 4, 1, block[9:])
    assert feed(codec, raw, how) == [request(1, [])]


def test_cookie_crumbs_are_joined() -> None:
    fields = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]
    [event] = downstream().receive_data(headers(1, [*GET, *fields]))
    assert event == request(1, [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")])


@pytest.mark.parametrize(
    ("fields", "authority"),
    [
        ([*GET[:3], (b"host", b"other")], b"other"),
        ([*GET[:3]], b""),
        ([*GET, (b"host", b"SVC")], b"svc"),
        ([*GET, (b"host", b"other")], b"svc"),
        ([*GET[:3], (b":authority", b""), (b"host", b"h")], b"h"),
    ],
)
def test_host_and_authority(fields: list[tuple[bytes, bytes]], authority: bytes) -> None:
    [event] = downstream().receive_data(headers(1, fields))
    assert event == request(1, [], authority=authority)


def test_connect_and_options() -> None:
    codec = downstream()
    events = codec.receive_data(
        headers(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")], end=False)
        + headers(3, [(b":method", b"OPTIONS"), (b":scheme", b"https"), (b":path", b"*")])
    )
    assert events == [
        request(1, [], False, method=b"CONNECT", scheme=b"", path=b"", authority=b"a:1"),
        request(3, [], method=b"OPTIONS", scheme=b"https", path=b"*", authority=b""),
    ]


WEBSOCKET = [
    (b":method", b"CONNECT"),
    (b":protocol", b"WebSocket"),
    (b":scheme", b"http"),
    (b":path", b"/chat"),
    (b":authority", b"svc"),
]

MALFORMED = {
    "no method": GET[1:],
    "no scheme": [GET[0], *GET[2:]],
    "no path": [*GET[:2], GET[3]],
    "empty path": [*GET[:2], (b":path", b""), GET[3]],
    "path without slash": [*GET[:2], (b":path", b"x"), GET[3]],
    "path with space": [*GET[:2], (b":path", b"/a b"), GET[3]],
    "path with fragment": [*GET[:2], (b":path", b"/a#b"), GET[3]],
    "path with newline": [*GET[:2], (b":path", b"/a\nb"), GET[3]],
    "asterisk for GET": [*GET[:2], (b":path", b"*"), GET[3]],
    "bad method": [(b":method", b"G T"), *GET[1:]],
    "bad scheme": [GET[0], (b":scheme", b"ht tp"), *GET[2:]],
    "repeated pseudo": [*GET, (b":path", b"/")],
    "unknown pseudo": [*GET, (b":other", b"x")],
    "response pseudo": [*GET, (b":status", b"200")],
    "late pseudo": [*GET[:3], (b"x", b"y"), GET[3]],
    "upper case": [*GET, (b"X-A", b"1")],
    "empty name": [*GET, (b"", b"1")],
    "space in name": [*GET, (b"a b", b"1")],
    "colon in name": [*GET, (b"a:b", b"1")],
    "newline in name": [*GET, (b"a\nb", b"1")],
    "non-ASCII name": [*GET, (b"\xff", b"1")],
    "NUL in value": [*GET, (b"a", b"1\x002")],
    "CR in value": [*GET, (b"a", b"1\r2")],
    "LF in value": [*GET, (b"a", b"1\n2")],
    "LF at the end of a value": [*GET, (b"a", b"1\n")],
    "control in value": [*GET, (b"a", b"1\x012")],
    "leading space": [*GET, (b"a", b" 1")],
    "trailing tab": [*GET, (b"a", b"1\t"), (b"b", b"2")],
    "trailing space at the end": [*GET, (b"a", b"1 ")],
    "connection": [*GET, (b"connection", b"close")],
    "keep-alive": [*GET, (b"keep-alive", b"1")],
    "proxy-connection": [*GET, (b"proxy-connection", b"close")],
    "transfer-encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GET, (b"upgrade", b"h2c")],
    "te": [*GET, (b"te", b"gzip")],
    "te twice": [*GET, (b"te", b"trailers"), (b"te", b"gzip")],
    "two hosts": [*GET[:3], (b"host", b"a"), (b"host", b"a")],
    "userinfo in authority": [*GET[:3], (b":authority", b"user@svc")],
    "path in host": [*GET[:3], (b"host", b"a/b")],
    "content-length": [*GET, (b"content-length", b"+1")],
    "content-length list": [*GET, (b"content-length", b"1, 1")],
    "content-length twice": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "content-length of nothing": [*GET, (b"content-length", b"1")],
    "CONNECT with path": [(b":method", b"CONNECT"), (b":authority", b"a"), (b":path", b"/")],
    "CONNECT without authority": [(b":method", b"CONNECT")],
    "extended CONNECT not offered": WEBSOCKET,
    "no fields": [],
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_resets_its_stream_only(case: str, how: str) -> None:
    codec = downstream()
    events = feed(codec, headers(1) + headers(3, MALFORMED[case]) + headers(5), how)
    assert events[0] == request(1, [])
    assert isinstance(events[1], StreamReset)
    assert (events[1].stream_id, events[1].reason, events[1].error_code) == (3, ResetReason.PROTOCOL_ERROR, 1)
    assert events[1].error is not None
    assert events[1].error.code.startswith("http2.")
    assert events[2:] == [request(5, [])]
    [answer] = parse(codec.data_to_send())
    assert (answer.kind, answer.stream_id, answer.number) == (RST_STREAM, 3, 1)


def test_malformed_request_can_end_the_connection_as_in_envoy() -> None:
    codec = downstream(stream_error_on_invalid_http_message=False)
    codec.receive_data(headers(1, [*GET, (b"te", b"gzip")]))
    assert codec.closed
    assert parse(codec.data_to_send())[0].number == 1


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ([(b"content-length", b"3")], [data(1, b"ab", end=True)]),
        ([(b"content-length", b"3")], [data(1, b"ab"), data(1, b"cd")]),
        ([(b"content-length", b"3")], [data(1, b"ab"), headers(1, [(b"x", b"y")])]),
        ([], [data(1, b"ab"), headers(1, [(b":path", b"/")])]),
        ([], [headers(1, [(b"x", b"y")], end=False)]),
        ([], [headers(1, [(b"connection", b"y")])]),
    ],
    ids=["short", "long", "short before trailers", "pseudo in trailers", "trailers that do not end", "connection in trailers"],
)
def test_malformed_bodies_and_trailers(fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> None:
    codec = downstream()
    events = codec.receive_data(headers(1, [*POST, *fields], end=False) + b"".join(parts))
    assert isinstance(events[-1], StreamReset)
    assert events[-1].error_code == 1
    assert [f.kind for f in parse(codec.data_to_send())] == [RST_STREAM]
    assert codec.open_streams == 0


def test_websocket_is_an_upgrade_on_both_sides() -> None:
    codec = downstream(allow_connect=True)
    [event] = codec.receive_data(headers(1, WEBSOCKET, end=False))
    assert event == request(1, [], False, path=b"/chat", protocol=b"websocket")
    codec.send(ResponseHeaders(1, 101, Headers(), False))
    [answer] = parse(codec.data_to_send())
    assert answer.payload == b"\x88"  # :status 200

    other = upstream((8, 1))
    assert other.peer_allows_connect
    assert other.open_stream() == 1
    event.headers.add(b"connection", b"upgrade")
    other.send(event)
    again = downstream(allow_connect=True)
    assert again.receive_data(b"".join(other.data_to_send())) == [request(1, [], False, path=b"/chat", protocol=b"websocket")]
    assert other.receive_data(headers(1, OK, end=False)) == [ResponseHeaders(1, 101, Headers(), False, b"HTTP/2")]
    assert other.receive_data(data(1, b"frame")) == [Data(1, b"frame", False, 5)]


def sent(codec_method: bytes = b"GET") -> tuple[object, int]:
    codec = upstream()
    stream_id = codec.open_stream()
    assert stream_id is not None
    codec.send(RequestHeaders(stream_id, codec_method, b"http", b"svc", b"/", Headers(), True))
    codec.data_to_send()
    return codec, stream_id


@pytest.mark.parametrize("how", CUTS)
def test_response_with_informational_and_trailers(how: str) -> None:
    codec, _ = sent()
    raw = (
        headers(1, [(b":status", b"103"), (b"link", b"x")], end=False)
        + headers(1, [*OK, (b"content-length", b"2")], end=False)
        + data(1, b"hi")
        + headers(1, [(b"grpc-status", b"0")])
    )
    assert feed(codec, raw, how) == [  # type: ignore[arg-type]
        InformationalHeaders(1, 103, Headers([(b"link", b"x")])),
        ResponseHeaders(1, 200, Headers([(b"content-length", b"2")]), False, b"HTTP/2"),
        Data(1, b"hi", False, 2),
        Trailers(1, Headers([(b"grpc-status", b"0")])),
    ]
    assert codec.open_streams == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "raw", "good"),
    [
        (b"HEAD", headers(1, [*OK, (b"content-length", b"9")]), True),
        (b"GET", headers(1, [(b":status", b"304"), (b"content-length", b"9")]), True),
        (b"GET", headers(1, [*OK, (b"content-length", b"9")]), False),
        (b"HEAD", headers(1, OK, end=False) + data(1, b"x"), False),
        (b"HEAD", headers(1, OK, end=False) + data(1, b"", end=True), True),
        (b"GET", headers(1, [(b":status", b"204")], end=False) + data(1, b"x"), False),
        (b"GET", headers(1, [(b":status", b"100")]), False),
        (b"GET", headers(1, [(b":status", b"101")], end=False), False),
        (b"GET", headers(1, [(b":status", b"20")]), False),
        (b"GET", headers(1, [(b":status", b"2000")]), False),
        (b"GET", headers(1, []), False),
        (b"GET", headers(1, [*OK, (b":path", b"/")]), False),
        (b"GET", data(1, b"x"), False),
    ],
)
def test_rules_of_responses(method: bytes, raw: bytes, good: bool) -> None:
    codec, _ = sent(method)
    events = codec.receive_data(raw)  # type: ignore[attr-defined]
    assert isinstance(events[-1], StreamReset) != good
    assert codec.open_streams == 0  # type: ignore[attr-defined]


def indexed(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block that puts every field into the dynamic table."""
    return b"".join(b"\x40" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in pairs)


@pytest.mark.parametrize("bad", [(b"x", b"a\r\nb"), (b"X", b"a"), (b"x", b" a"), (b":odd", b"a"), (b"connection", b"close")])
def test_bad_field_stays_bad_when_it_comes_from_the_table(bad: tuple[bytes, bytes]) -> None:
    codec = downstream()
    first = frame(1, 5, 1, b"\x82\x86\x84" + indexed([bad]))
    again = frame(1, 5, 3, b"\x82\x86\x84\xbe")
    good = frame(1, 5, 5, b"\x82\x86\x84")
    events = codec.receive_data(first + again + good)
    assert [type(e) for e in events] == [StreamReset, StreamReset, RequestHeaders]


def test_bad_field_of_a_block_that_nobody_read_is_found_later() -> None:
    codec = downstream()
    codec.receive_data(headers(1, POST, end=False))
    codec.send(StreamReset(1, ResetReason.LOCAL_RESET))
    late = frame(1, 5, 1, indexed([(b"x", b"a\nb")]))
    [event] = codec.receive_data(late + frame(1, 5, 3, b"\x82\x86\x84\xbe"))
    assert isinstance(event, StreamReset)


def test_pseudo_header_fields_from_the_table_are_still_checked() -> None:
    codec = downstream()
    events = codec.receive_data(
        frame(1, 5, 1, b"\x82\x86" + indexed([(b":path", b"/a b")]))
        + frame(1, 5, 3, b"\x82\x86\xbe")
        + frame(1, 5, 5, b"\x82\x86\x84" + indexed([(b"a", b"b")]) + b"\x84")
        + frame(1, 5, 7, b"\x82\x86\x84\xbe\x82")
    )
    assert [type(e) for e in events] == [StreamReset] * 4


def test_many_fields_are_checked_as_one() -> None:
    fields = [(b"x-%d" % n, b"a b\tc") for n in range(10)]
    for bad in [(b"", b"x"), (b"a\nb", b"x"), (b"A", b"x"), (b"a", b"x\ny"), (b"a", b"x "), (b"a", b"\tx"), (b"a", b"\x7f")]:
        for at in (0, 5, 10):
            codec = downstream()
            events = codec.receive_data(
                headers(1, [*GET, *fields[:at], bad, *fields[at:]]) + headers(3, [*GET, *fields, (b"z", b"")])
            )
            assert [type(e) for e in events] == [StreamReset, RequestHeaders]
