"""The tables of lines seen before: bounded, without secrets, and never a way around the grammar."""

from __future__ import annotations

import pytest
from http1_support import SETTINGS, asked

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, fields, grammar, serialise

KEPT = 3 * grammar.TABLE_ENTRIES // 2


TABLES = [
    grammar._lookup_field.__self__,  # type: ignore[attr-defined]
    grammar._name_table,
    grammar._request_table,
    grammar._status_table,
    serialise._lookup_line.__self__,  # type: ignore[attr-defined]
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
    for table in (TABLES[0], TABLES[4]):
        assert not [key for key in table if b"secret" in (key if isinstance(key, bytes) else key[1])]


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
