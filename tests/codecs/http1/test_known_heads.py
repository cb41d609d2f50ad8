"""Heads that are known but for one value: whatever the parser says of a head is said of it by the short ways too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from http1_support import SETTINGS, asked, forget_heads, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh_codecs.events import Event, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, UpstreamHttp1, requests, upstream
from mesh_codecs.http1.head_table import ENTRIES, VALUE_BYTES, cut
from mesh_codecs.http1.requests import known_event

TIME = b"\r\nx-envoy-upstream-service-time: "
ID = b"\r\nx-request-id: "
TRACE = b"\r\ntraceparent: "
B3 = b"\r\nx-request-id: %b\r\nx-b3-traceid: %b\r\nx-b3-sampled: 0\r\nx-b3-spanid: %b"
REQUEST = b"GET /k HTTP/1.1\r\nhost: k\r\nx-forwarded-proto: http%b\r\nx-envoy-attempt-count: 1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nserver: s%b\r\ncontent-length: 2\r\n\r\nok"
GAP = b"HTTP/1.1 200 OK\r\nserver: s\r\ncontent-length: 2%b\r\n\r\nok"

LINES = (
    b"\r\nx-request-id: 7", b"\r\nx-request-id: mine", b"\r\nx-request-id:7", b"\r\nx-request-id:  7", b"\r\nx-request-id: 7 ",
    b"\r\nx-request-id: ", b"\r\nx-request-id:", b"\r\nX-Request-Id: 7", b"\r\nx-request-id : 7", b"\r\n x-request-id: 7",
    b"\r\nx-request-id: 7\r\n 8",
    b"\r\nx-request-id: 7\n8", b"\nx-request-id: 7", b"\r\nx-request-id: 7\r8", b"\r\nx-request-id: \0",
    b"\r\nx-request-id: 7\t", b"\r\nx-request-id: \xff", b"\r\nx-request-id: 7, 8", b"\r\nx-request-id: 7_8",
    b"\r\nx-request-id: " + b"7" * (VALUE_BYTES + 1), b"\r\nx-request-id: 7\r\nx-request-id: 8", b"\r\nconnection: x-request-id",
    b"\r\ncontent-length: 0", b"\r\ncontent-length: 2", b"\r\nconnection: close", b"\r\nx-a: x-request-id: 7", b"",
)  # fmt: skip


def lines(name: bytes) -> st.SearchStrategy[bytes]:
    """One to three lines about a field, in all spellings."""
    one = st.sampled_from([line.replace(b"x-request-id", name).replace(b"X-Request-Id", name.title()) for line in LINES])
    value = st.from_regex(rb"\A[0-9a-z \-_\x00\r\n]{0,4}\Z").map(lambda text: b"\r\n" + name + b": " + text)
    return st.lists(one | value, min_size=1, max_size=3).map(b"".join)


OWN_LINES = st.sampled_from([b"x-request-id", b"traceparent", b"x-b3-spanid"]).flatmap(lines)


def short_request(data: bytes) -> list[Event] | None:
    """The events of a read by the short way."""
    codec = DownstreamHttp1(SETTINGS)
    known = codec.receive_known(data)
    return None if known is None else [known_event(codec.stream, known, data, len(data) - 4)]


def waiting() -> UpstreamHttp1:
    codec = asked(method=b"GET")
    codec.data_to_send()
    return codec


@contextmanager
def nothing_known() -> Iterator[None]:
    tables = requests._table, requests._traced, upstream._table
    kept = [dict(table.entries) for table in tables]
    for table in tables:
        table.entries.clear()
    yield
    for table, entries in zip(tables, kept, strict=True):
        table.entries.clear()
        table.entries.update(entries)  # type: ignore[arg-type]


def check_request(data: bytes) -> None:
    known, short = normal(DownstreamHttp1(SETTINGS).receive_data(data)), short_request(data)
    with nothing_known():
        strict = normal(DownstreamHttp1(SETTINGS).receive_data(data))
    assert known == strict
    assert short is None or short == strict


def check_answer(data: bytes) -> None:
    known = normal(waiting().receive_data(data))
    codec = waiting()
    short = codec.receive_whole(data)
    with nothing_known():
        strict = normal(waiting().receive_data(data))
    assert known == strict
    if short is not None:
        assert codec.can_reuse
        head, body = strict
        assert isinstance(head, ResponseHeaders)
        assert (short.status, body.data) == (head.status, data[-short.length :])  # type: ignore[attr-defined]
        assert short.fields(data, len(data) - short.length) == head.headers.first
        assert head.headers.more is None


def learn() -> None:
    forget_heads()
    upstream._table.entries.clear()
    upstream._table.hits = upstream._table.resting = upstream._table.size = 0
    for known in (ID + b"first", TRACE + b"first", TRACE + b"first" + ID + b"first", B3 % ((b"first",) * 3)):
        DownstreamHttp1(SETTINGS).receive_data(REQUEST % known)
    for answer in (ANSWER, GAP):
        waiting().receive_data(answer % (TIME + b"12345"))


@given(
    st.lists(st.sampled_from([b"x-request-id", b"traceparent", b"x-b3-spanid"]).flatmap(lines), min_size=1, max_size=2).map(
        b"".join
    ),
    st.sampled_from([REQUEST, REQUEST + b"x", REQUEST[:-1], REQUEST[:-2], REQUEST[:-4]]),
)
@example(b"\r\nx-request-id: ", REQUEST)
@example(ID + b"\0", REQUEST)
@example(TRACE + b"1" + ID + b"2", REQUEST)
@example(TRACE + b"1" + ID + b"2\r\ntraceparent: 3", REQUEST)
@example(TRACE + b"1" + ID + b" 2", REQUEST)
@example(TRACE + ID + b"2", REQUEST)
@example(B3 % (b"1", b"2", b"3"), REQUEST)
@example(B3 % (b"1", b"", b"3"), REQUEST)
@settings(max_examples=300)
def test_requests(line: bytes, frame: bytes) -> None:
    learn()
    check_request(frame % line)


@given(
    lines(b"x-envoy-upstream-service-time"),
    st.sampled_from([frame for whole in (ANSWER, GAP) for frame in (whole, whole + b"x", whole[:-1], whole[:-2], whole[:-4])]),
)
@example(b"\r\nx-envoy-upstream-service-time: ", GAP)
@example(TIME + b"\0", GAP)
@settings(max_examples=300)
def test_answers(line: bytes, frame: bytes) -> None:
    learn()
    check_answer(frame % line)


def test_the_ways_are_short() -> None:
    """What the tests above compare is not nothing."""
    learn()
    first = short_request(REQUEST % (ID + b"another"))
    assert first is not None
    (head,) = first
    assert isinstance(head, RequestHeaders)
    fields = [(b"x-forwarded-proto", b"http"), (b"x-request-id", b"another"), (b"x-envoy-attempt-count", b"1")]
    assert list(head.headers) == fields
    traced = short_request(REQUEST % (TRACE + b"00-1-2-01" + ID + b"7"))
    assert traced is not None
    (head,) = traced
    assert isinstance(head, RequestHeaders)
    own = [(b"traceparent", b"00-1-2-01"), (b"x-request-id", b"7")]
    assert list(head.headers) == [fields[0], *own, fields[2]]
    assert short_request(REQUEST % (B3 % (b"1", b"2", b"3"))) is not None
    assert short_request(REQUEST % (ID + b"7" + TRACE + b"00-1-2-01")) is None  # the order is another
    for frame in (ANSWER, GAP):
        for time in (b"0", b"77", b"1234567"):
            data = frame % (TIME + time)
            known = waiting().receive_whole(data)
            assert known is not None
            assert known.fields(data, len(data) - 2)[b"x-envoy-upstream-service-time"] == time
            assert known.time(data, len(data) - 2) == time


@pytest.mark.parametrize("length", range(60, 120))
def test_a_head_without_its_end_is_none(length: int) -> None:
    """Of a length for which the head's own last bytes would be a body of the right size."""
    learn()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d%b" % (length, TIME)
    waiting().receive_data(head + b"1\r\n\r\n")
    for rest in (b"", b"\r", b"\r\n", b"\r\n\r"):
        for digits in (1, 2, length - len(head) + 3, length - len(head) + 4):
            if 0 < digits <= VALUE_BYTES:
                assert waiting().receive_whole(head + b"1" * digits + rest) is None


def test_values_take_no_room() -> None:
    learn()

    def kept() -> list[int]:
        return [len(table.entries) for table in (requests._table, requests._traced, upstream._table)]

    before = kept()
    for number in range(4 * ENTRIES):
        for line in (ID, TRACE, TRACE + b"1" + ID):
            DownstreamHttp1(SETTINGS).receive_data(REQUEST % (line + b"%d" % number))
        waiting().receive_data(ANSWER % (TIME + b"%d" % number))
    assert kept() == before == [1, 3, 2]
    # Nor is a value kept.
    for table in (requests._table, requests._traced):
        assert "first" not in repr(list(table.entries))
        assert not any(b"first" in known.first.values() for known in table.entries.values())


def test_cut() -> None:
    assert cut(b"a\r\nx: 1", b"\r\nx: ", b"1") == (b"a\r\nx: ", b"")
    assert cut(b"a\r\nx: 1\r\nb", b"\r\nx: ", b"1") == (b"a\r\nx: ", b"\r\nb")
    assert cut(b"a\r\nx: 2\r\nx: 1", b"\r\nx: ", b"1") is None
    assert cut(b"a\r\nx: " + b"1" * VALUE_BYTES, b"\r\nx: ", b"1") is not None
    assert cut(b"a\r\nx: " + b"1" * (VALUE_BYTES + 1), b"\r\nx: ", b"1") is None


def test_what_a_reader_changes_is_his_own() -> None:
    learn()
    data = REQUEST % (ID + b"a")
    (event,) = DownstreamHttp1(SETTINGS).receive_data(data)
    assert isinstance(event, RequestHeaders)
    event.headers.set(b"x-request-id", b"other")
    event.headers.set(b"x-more", b"1")
    (again,) = DownstreamHttp1(SETTINGS).receive_data(data)
    assert isinstance(again, RequestHeaders)
    assert again.headers == Headers([(b"x-forwarded-proto", b"http"), (b"x-request-id", b"a"), (b"x-envoy-attempt-count", b"1")])
