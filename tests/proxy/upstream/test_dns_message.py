from __future__ import annotations

import random
import struct

import pytest

from mesh_proxy.upstream.dns_message import (
    TYPE_A,
    TYPE_AAAA,
    BadMessage,
    BadName,
    decode_response,
    encode_name,
    encode_query,
)

QUESTION = encode_name("www.a.test") + struct.pack(">HH", TYPE_A, 1)


def record(owner: bytes, kind: int, content: bytes, ttl: int = 60, record_class: int = 1) -> bytes:
    return owner + struct.pack(">HHIH", kind, record_class, ttl, len(content)) + content


def message(*records: bytes, flags: int = 0x8180, question: bytes = QUESTION, message_id: int = 7, questions: int = 1) -> bytes:
    return struct.pack(">HHHHHH", message_id, flags, questions, len(records), 0, 0) + question + b"".join(records)


SELF = b"\xc0\x0c"
"""a pointer to the name of the question"""


def test_a_query() -> None:
    data = encode_query(0x1234, "A.test", TYPE_AAAA)
    assert data[:12] == bytes.fromhex("1234 0100 0001 0000 0000 0001")
    assert data[12:24] == b"\x01A\x04test\0" + b"\0\x1c\0\x01"
    assert data[24:] == b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    assert len(encode_query(1, "a.test", TYPE_A, edns=False)) == 24


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a" * 64, ".".join(["a" * 60] * 5), "\ud800.test", "ü" * 70])
def test_impossible_names(name: str) -> None:
    with pytest.raises(BadName):
        encode_name(name)


def test_international_names() -> None:
    assert encode_name("bücher.test.") == b"\x0dxn--bcher-kva\x04test\0"


def test_addresses_in_order_each_once() -> None:
    response = decode_response(
        message(
            record(SELF, TYPE_A, bytes([10, 0, 0, 2]), 30),
            record(SELF, TYPE_A, bytes([10, 0, 0, 1]), 20),
            record(SELF, TYPE_A, bytes([10, 0, 0, 2]), 40),
        )
    )
    assert response.addresses == ("10.0.0.2", "10.0.0.1")
    assert (response.ttl_s, response.code, response.message_id) == (20, 0, 7)
    assert (response.name, response.record_type, response.truncated) == ("www.a.test", TYPE_A, False)


def test_six() -> None:
    question = encode_name("a.test") + struct.pack(">HH", TYPE_AAAA, 1)
    assert decode_response(message(record(SELF, TYPE_AAAA, bytes(15) + b"\1"), question=question)).addresses == ("::1",)


def test_aliases_are_followed_in_any_order_and_limit_the_time_to_live() -> None:
    response = decode_response(
        message(
            record(encode_name("c.test"), TYPE_A, bytes([1, 1, 1, 1]), 60),
            record(encode_name("b.test"), 5, encode_name("c.test"), 5),
            record(SELF, 5, encode_name("B.test"), 60),
            record(encode_name("foreign.test"), TYPE_A, bytes([6, 6, 6, 6]), 1),
        )
    )
    assert response.addresses == ("1.1.1.1",)
    assert response.ttl_s == 5


def test_what_does_not_belong_to_the_name_is_left_out() -> None:
    response = decode_response(
        message(
            record(encode_name("foreign.test"), TYPE_A, bytes([6, 6, 6, 6])),
            record(SELF, TYPE_AAAA, bytes(16)),
            record(SELF, TYPE_A, bytes([1, 1, 1, 1]), record_class=3),
            record(SELF, 16, b"\4text"),
        )
    )
    assert (response.addresses, response.ttl_s) == ((), 0)


def test_cut_answers() -> None:
    response = decode_response(message(record(SELF, TYPE_A, bytes(4)), flags=0x8380)[:-6])
    assert response.truncated
    assert response.addresses == ()


def test_no_such_name() -> None:
    assert decode_response(message(flags=0x8183)).code == 3


def test_a_negative_time_to_live_is_none() -> None:
    assert decode_response(message(record(SELF, TYPE_A, bytes(4), 1 << 31))).ttl_s == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(flags=0x0100),
        message(questions=2),
        message(question=encode_name("a.test") + struct.pack(">HH", TYPE_A, 3)),
        message(record(SELF, TYPE_A, bytes(5))),
        message(record(SELF, TYPE_A, bytes(4)))[:-1],
        message(record(SELF, 5, SELF)),
        message(record(b"\xc0\x27", TYPE_A, bytes(4))),
        message(question=b"\xc0\x0c" + struct.pack(">HH", TYPE_A, 1)),
        message(question=b"\x80\0" + struct.pack(">HH", TYPE_A, 1)),
        message(question=b"\x3fa"),
        message(question=(b"\x3f" + b"a" * 63) * 5 + b"\0" + struct.pack(">HH", TYPE_A, 1)),
    ],
    ids=range(12),
)
def test_bad_messages(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_response(data)


def test_garbage_is_refused_and_nothing_else() -> None:
    rng = random.Random(4)
    good = message(record(SELF, 5, encode_name("b.test")), record(encode_name("b.test"), TYPE_A, bytes(4)))
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode_response(bytes(data[: rng.randint(0, len(data))]))
        except BadMessage:
            pass
