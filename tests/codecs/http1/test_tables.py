"""The tables of lines seen before: bounded, without secrets, and never a way around the grammar."""

from __future__ import annotations

import pytest
from http1_support import SETTINGS, asked

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.events import ConnectionFailed, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, fields, grammar, requests, serialise, upstream
from mesh_codecs.http1.head_table import ENTRIES, HEAD_BYTES, REST, TABLE_BYTES, HeadTable

KEPT = 3 * grammar.TABLE_ENTRIES // 2


TABLES = [
    grammar._lookup_field.__self__,  # type: ignore[attr-defined]
    grammar._name_table,
    grammar._request_table,
    grammar._status_table,
    requests._table.entries,
    upstream._table.entries,
    fields._connection_table,
    fields.known_authorities,
]


def test_bounded() -> None:
    for i in range(KEPT):
        host, name = b"h%d" % i, b"x-%d" % i
        payload = b"GET /%d HTTP/1.1\r\nHost: %b\r\n%b: 1\r\nConnection: %b\r\n\r\n" % (i, host, name, name)
        (head,) = DownstreamHttp1(SETTINGS).receive_data(payload)
        assert isinstance(head, RequestHeaders)
        assert (head.path, head.authority, list(head.headers)) == (b"/%d" % i, host, [])
        (answer,) = asked().receive_data(b"HTTP/1.1 200 Fine %d\r\nContent-Length: 0\r\n\r\n" % i)
        assert isinstance(answer, ResponseHeaders)
        assert serialise.render_fields(Headers([(name, b"1")])) == name + b": 1"
    for table in TABLES:
        assert 0 < len(table) <= grammar.TABLE_ENTRIES


@pytest.mark.parametrize(
    "line", [b"Cookie: secret", b"Authorization: secret", b"X-Request-Id: secret", b"X-Long: secret" + b"x" * 200]
)
def test_not_kept(line: bytes) -> None:
    for _ in range(2):
        (pair,) = grammar.parse_fields([line])
        assert pair[1].startswith(b"secret")
        assert serialise.render_fields(Headers([pair])) == b": ".join(pair)
    assert not [key for key in TABLES[0] if b"secret" in key]
    for _ in range(2):
        DownstreamHttp1(SETTINGS).receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % line)
        asked().receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: secret\r\n\r\n")
    heads = [*requests._table.entries, *upstream._table.entries]
    assert not [head for head in heads if b"secret" in head and b"X-Long" not in head]


def test_a_head_that_is_known_gives_the_same_events() -> None:
    request = b"POST /same HTTP/1.1\r\nHost: same\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc"
    answer = b"HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 3\r\n\r\nabc"
    requests._table.entries.clear()
    upstream._table.entries.clear()
    requests._table.resting = upstream._table.resting = 0
    first = [DownstreamHttp1(SETTINGS).receive_data(request), asked().receive_data(answer)]
    assert len(requests._table.entries) == len(upstream._table.entries) == 1
    again = [DownstreamHttp1(SETTINGS).receive_data(request), asked().receive_data(answer)]
    assert first == again
    # What a reader does to its headers is its own affair.
    for events in again:
        head = events[0]
        assert isinstance(head, (RequestHeaders, ResponseHeaders))
        head.headers.set(b"x-a", b"changed")
    assert [DownstreamHttp1(SETTINGS).receive_data(request), asked().receive_data(answer)] == first
    assert asked(method=b"HEAD").receive_data(answer[:-3]) == [
        ResponseHeaders(1, 200, Headers([(b"x-b", b"2"), (b"content-length", b"3")]), True)
    ]


def test_a_known_head_still_meets_the_settings() -> None:
    payload = b"GET /count HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n"
    requests._table.resting = 0
    assert isinstance(DownstreamHttp1(SETTINGS).receive_data(payload)[0], RequestHeaders)
    (event,) = DownstreamHttp1(Http1Settings(max_header_count=2)).receive_data(payload)
    assert isinstance(event, ConnectionFailed)
    assert event.error.status == 431


def test_a_head_table_that_does_not_help_rests() -> None:
    table: HeadTable[int] = HeadTable()
    table.store(b"x" * (HEAD_BYTES + 1), 1)
    assert not table.entries
    for i in range(ENTRIES + 1):
        table.store(b"%d" % i, i)
    assert len(table.entries) == 1
    assert table.resting == REST
    table.store(b"rests", 1)
    assert b"rests" not in table.entries
    assert table.resting == REST - 1


def test_a_head_table_is_bounded_in_bytes() -> None:
    table: HeadTable[int] = HeadTable()
    for i in range(TABLE_BYTES // HEAD_BYTES + 1):
        table.store(b"%d" % i + b"x" * (HEAD_BYTES - len(b"%d" % i)), i)
        table.hits = ENTRIES  # it helps
    assert len(table.entries) == 1
    assert table.size == HEAD_BYTES
    table.store(b"more", 1)
    assert len(table.entries) == 2


def test_long_lines_are_not_kept() -> None:
    for _ in range(2):
        assert grammar.parse_status_line(b"HTTP/1.1 200 " + b"x" * 200) == (200, 1)
        assert grammar.parse_request_line(b"GET /%b HTTP/1.1" % (b"x" * 200))[2] == 1
        assert grammar.parse_request_line(b"GET /?secret HTTP/1.1")[2] == 1
    assert b"GET /?secret HTTP/1.1" not in grammar._request_table
    assert max(map(len, [*grammar._status_table, *grammar._request_table])) <= grammar.TABLE_LINE_BYTES


@pytest.mark.parametrize(
    "line", [b"X-Known", b"X-Known : b", b"X-Known:\0", b"X-Known: a\rb", b"X-Known: a\nb", b"X-Known: \x7f"]
)
def test_known_name_with_a_bad_line(line: bytes) -> None:
    assert grammar.parse_fields([b"X-Known: b"]) == [(b"x-known", b"b")]
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            grammar.parse_fields([line])


def test_bad_line_of_ours_is_refused_every_time() -> None:
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            serialise.render_fields(Headers([(b"x-known", b"a\r\nb: c")]))
