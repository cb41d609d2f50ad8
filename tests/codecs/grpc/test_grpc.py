"""Statuses, time-outs, message prefixes and health messages of gRPC."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs import grpc
from mesh_codecs.grpc import health
from mesh_codecs.grpc.status import INVALID


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (b"1H", 3_600_000),
        (b"2M", 120_000),
        (b"3S", 3000),
        (b"4m", 4),
        (b"5u", 1),
        (b"1000u", 1),
        (b"1001u", 2),
        (b"1n", 1),
        (b"1000001n", 2),
        (b"99999999n", 100),
        (b"0m", 0),
        (b"99999999m", 99_999_999),
        (b"100000000m", None),
        (b"0000000000010m", 10),
        (b"", None),
        (b"m", None),
        (b"-1m", None),
        (b"1x", None),
        (b"10", None),
        (b" 1m", None),
        (None, None),
    ],
)
def test_parse_timeout(value: bytes | None, ms: int | None) -> None:
    assert grpc.parse_timeout_ms(value) == ms


@pytest.mark.parametrize(
    ("ms", "value"),
    [
        (0, b"0m"),
        (99_999_999, b"99999999m"),
        (100_000_000, b"100000S"),
        (100_000_000_000, b"1666666M"),
        (6_000_000_000_000, b"1666666H"),
        (10**18, b"99999999H"),
    ],
)
def test_render_timeout(ms: int, value: bytes) -> None:
    assert grpc.render_timeout(ms) == value


@given(st.integers(0, 10**14))
@settings(max_examples=50)
def test_rendered_timeouts_are_never_longer(ms: int) -> None:
    again = grpc.parse_timeout_ms(grpc.render_timeout(ms))
    assert again is not None
    assert again <= ms
    assert again >= ms - 3_600_000


@pytest.mark.parametrize(
    ("value", "status"),
    [(b"0", 0), (b"16", 16), (b"014", 14), (b"17", INVALID), (b"x", INVALID), (b"-1", INVALID), (b"", None), (None, None)],
)
def test_status_of_value(value: bytes | None, status: int | None) -> None:
    assert grpc.status_of_value(value) == status


def test_status_tables() -> None:
    assert [grpc.status_of_http(code) for code in (400, 401, 403, 404, 429, 502, 503, 504, 200, 500)] == [
        13,
        16,
        7,
        12,
        14,
        14,
        14,
        14,
        2,
        2,
    ]
    assert [grpc.http_of_status(code) for code in (0, 4, 14, 16, 17, -1)] == [200, 504, 503, 401, 500, 500]
    assert len(grpc.STATUS_NAMES) == 17


def test_message_is_percent_encoded() -> None:
    assert grpc.encode_message("50% é\n ok/?".encode()) == b"50%25 %C3%A9%0A ok/?"


@pytest.mark.parametrize(
    ("value", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc-web", False),
        (b"application/grpc;x=y", False),
        (b"application/grp", False),
        (None, False),
    ],
)
def test_content_type(value: bytes | None, is_grpc: bool) -> None:
    assert grpc.is_grpc_content_type(value) is is_grpc


@given(st.lists(st.binary(max_size=20), max_size=6), st.data())
@settings(max_examples=60)
def test_messages_are_counted_in_every_cutting(messages: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(grpc.frame(message) for message in messages)
    counter = grpc.MessageCounter()
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        counter.feed(whole[:cut])
        whole = whole[cut:]
    assert counter.count == len(messages)


def test_a_cut_prefix_is_no_message() -> None:
    counter = grpc.MessageCounter()
    assert [counter.feed(b"\0\0"), counter.feed(b""), counter.feed(b"\0\0\2h"), counter.feed(b"i\0")] == [0, 0, 1, 0]


def test_health_request() -> None:
    assert health.check_request("") == b"\0\0\0\0\0"
    assert health.check_request("a.B") == b"\0\0\0\0\5\x0a\3a.B"
    long = health.check_request("x" * 300)
    assert long[5:8] == b"\x0a\xac\x02"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 0),
        (b"\x08\x01", 1),
        (b"\x08\x02", 2),
        (b"\x08\x01\x08\x03", 3),
        (b"\x12\x02ab\x08\x01", 1),
        (b"\x15abcd\x08\x01", 1),
        (b"\x11abcdefgh\x08\x01", 1),
        (b"\x08", None),
        (b"\x12\x05ab", None),
        (b"\x0b", None),
        (b"\x08" + b"\xff" * 11, None),
    ],
)
def test_health_response(message: bytes, status: int | None) -> None:
    assert health.serving_status(message) == status
