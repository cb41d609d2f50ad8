"""Dubbo frames: the bytes of each kind, the stream cut in every way, limits, and what ends a connection."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import (
    DubboCodec,
    DubboMessage,
    HeadMemo,
    MessageTooLarge,
    answer_heartbeat,
    build_frame,
    heartbeat_request,
    heartbeat_response,
    readonly_event,
    with_id,
    writeable_event,
)
from mesh_codecs.dubbo import frame as wire
from mesh_codecs.dubbo.message import HEARTBEAT, OTHER_EVENT, READONLY, WRITEABLE
from mesh_codecs.events import ConnectionEnded, ConnectionFailed

CALL = bytes.fromhex(
    "dabbc20000000000000000010000006205322e302e321164656d6f2e48656c6c6f5365727669636505312e302e300873617948656c6c6f"
    "124c6a6176612f6c616e672f537472696e673b05776f726c644804706174681164656d6f2e48656c6c6f536572766963650567726f75700267315a"
)


def codec(**options: int) -> DubboCodec:
    return DubboCodec(HeadMemo(), **options)


def one(frame: bytes) -> DubboMessage:
    (message,) = codec().receive_data(frame)
    assert isinstance(message, DubboMessage)
    return message


def shape(events: list[object]) -> list[object]:
    """Events in a form that can be compared."""
    return [
        (e.frame, e.flags, e.status, e.request_id)
        if isinstance(e, DubboMessage)
        else e.error.code
        if isinstance(e, ConnectionFailed)
        else e
        for e in events
    ]


def feed(pieces: list[bytes], **options: int) -> list[object]:
    receiver = codec(**options)
    events: list[object] = []
    for piece in pieces:
        events += receiver.receive_data(piece)
    events += receiver.receive_eof()
    return shape(events)


def test_exact_bytes_of_what_a_proxy_says_by_itself() -> None:
    assert heartbeat_request(2).hex() == "dabbe2000000000000000002000000014e"
    assert heartbeat_response(2).hex() == "dabb22140000000000000002000000014e"
    assert readonly_event(3).hex() == "dabba2000000000000000003000000020152"
    assert writeable_event(-1).hex() == "dabba200ffffffffffffffff000000020157"
    assert heartbeat_request(1, wire.JAVA).hex() == "dabbe300000000000000000100000007aced0005770100"
    assert heartbeat_response(1, wire.NATIVE_JAVA).hex() == "dabb2714000000000000000100000005aced000570"
    assert heartbeat_response(1, wire.FASTJSON2).hex() == "dabb371400000000000000010000000500000001af"


@pytest.mark.parametrize("serialization", sorted(wire.NULL_BODIES))
def test_a_heartbeat_is_answered_in_its_own_serialization(serialization: int) -> None:
    assert answer_heartbeat(heartbeat_request(-7, serialization)) == heartbeat_response(-7, serialization)
    empty = build_frame(wire.HEARTBEAT_REQUEST_FLAGS | serialization, 0, -7, b"")
    assert answer_heartbeat(empty) == heartbeat_response(-7, serialization)


def test_a_heartbeat_in_an_opaque_serialization_is_echoed() -> None:
    kryo = build_frame(wire.HEARTBEAT_REQUEST_FLAGS | 8, 0, 5, b"\x00\x01")
    assert answer_heartbeat(kryo) == build_frame(wire.FLAG_EVENT | 8, wire.OK, 5, b"\x00\x01")
    assert answer_heartbeat(build_frame(wire.HEARTBEAT_REQUEST_FLAGS | 8, 0, 5, b"")) == build_frame(0x28, 20, 5, b"")


def test_kinds_of_messages() -> None:
    call = one(CALL)
    assert (call.is_request, call.two_way, call.is_event, call.serialization_id, call.request_id) == (True, True, False, 2, 1)
    assert repr(call) == "<DubboMessage request id=1 status=0 bytes=114>"
    one_way = one(build_frame(0x82, 0, 4, b""))
    assert (one_way.is_request, one_way.two_way) == (True, False)
    response = one(build_frame(0x02, 20, -9, b"\x92"))
    assert (response.is_request, response.two_way, response.is_event, response.status) == (False, False, False, 20)
    assert response.request_id == -9
    assert not one(build_frame(0x42, 20, 1, b"\x92")).two_way, "the bit means nothing in a response"
    assert "event" in repr(one(heartbeat_request(1)))


@pytest.mark.parametrize("status", [*wire.STATUS_NAMES, 0, 77, 255])
def test_every_status_passes(status: int) -> None:
    message = one(build_frame(0x02, status, 1, b"\x92"))
    assert message.status == status
    assert status == 20 or message.attachments is None


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (heartbeat_request(1), HEARTBEAT),
        (heartbeat_response(1, wire.JAVA), HEARTBEAT),
        (build_frame(0x22, 20, 1, b"NN"), HEARTBEAT),
        (build_frame(0xE2, 0, 1, b""), HEARTBEAT),
        (readonly_event(1), READONLY),
        (build_frame(0xA7, 0, 1, bytes.fromhex("aced000574000152")), READONLY),
        (build_frame(0xA3, 0, 1, bytes.fromhex("aced000577010174000152")), READONLY),
        (build_frame(0xB7, 0, 1, bytes.fromhex("000000024a52")), READONLY),
        (writeable_event(1), WRITEABLE),
        (build_frame(0xA2, 0, 1, b"\x05hello"), OTHER_EVENT),
        (build_frame(0xA2, 0, 1, b"N" * 40), OTHER_EVENT),
    ],
)
def test_kinds_of_events(frame: bytes, kind: str) -> None:
    message = one(frame)
    assert message.is_event
    assert message.event_kind == kind
    assert message.head is None
    assert message.attachments is None


@pytest.mark.parametrize("request_id", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_another_id_touches_nothing_else(request_id: int) -> None:
    rewritten = with_id(CALL, request_id)
    assert one(rewritten).request_id == request_id
    assert rewritten[:4] + rewritten[12:] == CALL[:4] + CALL[12:]
    assert with_id(rewritten, 1) == CALL == one(rewritten).frame_with_id(1)


STREAM = [
    CALL,
    heartbeat_request(-5),
    build_frame(0x02, 20, 3, b"\x94\x02hiH\x05dubbo\x052.0.2ZN"),
    build_frame(0x02, 100, 4, b""),
    readonly_event(9),
    build_frame(0xDF, 0, 7, bytes(range(256)) * 4),
    CALL,
]


def test_many_messages_in_one_read_and_byte_by_byte() -> None:
    whole = b"".join(STREAM)
    events = feed([whole])
    assert [e[0] for e in events[:-1]] == STREAM  # type: ignore[index]
    assert events[-1] == ConnectionEnded()
    assert feed([whole[n : n + 1] for n in range(len(whole))]) == events


@settings(deadline=None)
@given(st.data())
def test_any_cutting_gives_the_same(data: st.DataObject) -> None:
    whole = b"".join(STREAM) + data.draw(
        st.sampled_from([b"", b"\xda", CALL[:20], b"\xda\xbc", b"GET / HTTP/1.1", b"\xda\xbb\xc2"])
    )
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert feed(pieces, max_body=1024) == feed([whole], max_body=1024)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_never_raise(data: bytes, step: int) -> None:
    for stream in (data, wire.MAGIC + data, CALL + wire.MAGIC + data):
        assert feed([stream[n : n + step] for n in range(0, len(stream), step)]) == feed([stream])


@pytest.mark.parametrize("garbage", [b"G", b"\xdaG", b"\xbb\xda", b"GET / HTTP/1.1\r\n\r\n", b"\xda\xbc" + b"\0" * 14])
def test_a_wrong_magic_ends_the_connection_after_the_good_messages(garbage: bytes) -> None:
    receiver = codec()
    events = receiver.receive_data(CALL + garbage)
    assert shape(events)[1:] == ["dubbo.bad_magic"]
    assert receiver.closed
    assert receiver.receive_data(CALL) == []
    assert receiver.receive_eof() == []
    assert "CLOSED" in repr(receiver)


def test_a_negative_length_ends_the_connection() -> None:
    assert feed([CALL[:12] + b"\xff\xff\xff\xff"]) == ["dubbo.negative_length"]


def test_an_end_within_a_frame_is_a_failure() -> None:
    for cut in (1, 15, 16, len(CALL) - 1):
        assert feed([CALL[:cut]]) == ["dubbo.truncated_frame"]


def test_state_that_moves_with_a_connection() -> None:
    first = codec()
    first.receive_data(CALL + CALL[:30])
    assert not first.at_boundary
    second = codec()
    assert second.receive_data(first.pending) == []
    assert shape(second.receive_data(CALL[30:])) == shape(codec().receive_data(CALL))
    assert second.at_boundary

    big = codec(max_body=10)
    big.receive_data(CALL[:40])
    assert (big.to_discard, big.at_boundary, big.pending) == (114 - 40, False, b"")
    third = codec(max_body=10)
    third.resume(big.to_discard)
    assert third.receive_data(CALL[40:]) == []
    assert third.at_boundary


def test_a_body_over_the_limit_is_reported_at_its_header_and_stepped_over() -> None:
    size = wire.MAX_BODY + 1
    header = build_frame(0xC2, 0, 77, b"")[:12] + size.to_bytes(4, "big")
    receiver = codec()
    (event,) = receiver.receive_data(CALL + header)[1:]
    assert event == MessageTooLarge(77, 0xC2, 0, size)
    assert (event.is_request, event.two_way, event.serialization_id) == (True, True, 2)
    tracemalloc.start()
    try:
        piece = b"\xda\xbb" * 32768
        left = size
        while left > len(piece):
            assert receiver.receive_data(piece) == []
            left -= len(piece)
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()
    (message,) = receiver.receive_data(piece[:left] + CALL)
    assert isinstance(message, DubboMessage)
    assert message.method == b"sayHello"
    assert receiver.at_boundary


def test_a_body_of_exactly_the_limit_passes() -> None:
    body = b"x" * wire.MAX_BODY
    frame = build_frame(0xC2, 0, 1, body)
    pieces = [frame[n : n + 65536] for n in range(0, len(frame), 65536)]
    receiver = codec()
    events = [e for piece in pieces for e in receiver.receive_data(piece)]
    assert shape(events) == [(frame, 0xC2, 0, 1)]


def test_memory_stays_in_proportion() -> None:
    chooser = random.Random(3)
    for data in (build_frame(0x82, 0, -(2**50), b"") * 4000, build_frame(0x82, 0, 1, b"x" * 9) * 3000, CALL * 2000):
        for step in (len(data), 1000, 7):
            receiver = codec()
            tracemalloc.start()
            try:
                events = []
                pos = 0
                while pos < len(data):
                    cut = pos + chooser.randint(1, step)
                    events.append(receiver.receive_data(data[pos:cut]))
                    pos = cut
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak <= 64 * len(data) + 256 * 1024
