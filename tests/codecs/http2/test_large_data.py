"""Frames of one body that come together make one event, and nothing else about them changes."""

from __future__ import annotations

import pytest
from http2_support.wire import DATA, PADDED, POST, data, downstream, frame, headers, parse, rst
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mesh_codecs.events import ConnectionFailed, Data, Event, StreamReset
from mesh_codecs.http2 import Http2Codec

PIECE = 16_384


def opened(*lengths: int | None, **limits: object) -> Http2Codec:
    """A downstream codec with requests 1, 3, … in progress, each with or without a content-length."""
    codec = downstream(**{"initial_stream_window_size": 1 << 20} | limits)
    for index, length in enumerate(lengths):
        fields = [*POST] if length is None else [*POST, (b"content-length", b"%d" % length)]
        codec.receive_data(headers(2 * index + 1, fields, end=False))
    codec.data_to_send()
    return codec


def test_frames_of_one_body_are_one_event() -> None:
    codec = opened(None)
    wire = b"".join(data(1, bytes((letter,)) * PIECE) for letter in b"abc")
    assert codec.receive_data(wire) == [Data(1, b"a" * PIECE + b"b" * PIECE + b"c" * PIECE, False, 3 * PIECE)]
    assert codec.receive_data(data(1, b"d" * PIECE) + data(1, b"e", end=True)) == [Data(1, b"d" * PIECE + b"e", True, PIECE + 1)]
    codec.acknowledge(1, 4 * PIECE + 1)


def test_what_is_cut_off_comes_with_the_next_read() -> None:
    codec = opened(None)
    wire = b"".join(data(1, bytes((letter,)) * PIECE) for letter in b"abcd")
    first = codec.receive_data(wire[:-PIECE])
    then = codec.receive_data(wire[-PIECE:] + data(1, b"e" * PIECE))
    assert [event.data for event in first if isinstance(event, Data)] == [b"a" * PIECE + b"b" * PIECE + b"c" * PIECE]
    assert [event.data for event in then if isinstance(event, Data)] == [b"d" * PIECE + b"e" * PIECE]


@pytest.mark.parametrize(
    "between",
    [frame(DATA, PADDED, 1, b"\x01yz"), data(3, b"y"), rst(3, 8), data(1, b"")],
    ids=["padded", "other", "reset", "empty"],
)
def test_any_other_frame_ends_the_run(between: bytes) -> None:
    codec = opened(None, None)
    events = codec.receive_data(data(1, bytes(PIECE)) + data(1, bytes(PIECE)) + between + data(1, bytes(PIECE)))
    sizes = [len(event.data) for event in events if isinstance(event, Data) and event.stream_id == 1]
    assert sizes[0] == 2 * PIECE
    assert sizes[-1] == PIECE


def test_a_body_beyond_its_content_length_keeps_what_was_good() -> None:
    codec = opened(2 * PIECE + 1)
    *good, fault = codec.receive_data(b"".join(data(1, bytes(PIECE)) for _ in range(3)))
    assert [event for event in good if isinstance(event, Data)] == [Data(1, bytes(PIECE), False, PIECE)] * 2
    assert isinstance(fault, StreamReset)


def test_a_body_short_of_its_content_length_keeps_what_was_good() -> None:
    codec = opened(3 * PIECE)
    *good, fault = codec.receive_data(data(1, bytes(PIECE)) + data(1, bytes(PIECE), end=True))
    assert good == [Data(1, bytes(PIECE), False, PIECE)]
    assert isinstance(fault, StreamReset)


def test_a_body_beyond_its_window_keeps_what_was_good() -> None:
    codec = opened(None, initial_stream_window_size=2 * PIECE + 100)
    *good, fault = codec.receive_data(b"".join(data(1, bytes(PIECE)) for _ in range(3)))
    assert [event for event in good if isinstance(event, Data)] == [Data(1, bytes(PIECE), False, PIECE)] * 2
    assert isinstance(fault, StreamReset)


def test_a_frame_that_is_too_large_keeps_what_was_good() -> None:
    codec = opened(None)
    *good, fault = codec.receive_data(data(1, bytes(PIECE)) + data(1, bytes(PIECE)) + data(1, bytes(PIECE + 1)))
    assert good == [Data(1, bytes(2 * PIECE), False, 2 * PIECE)]
    assert isinstance(fault, ConnectionFailed)


def test_each_frame_counts_for_the_turn() -> None:
    codec = opened(None, max_frames_per_read=2)
    events = codec.receive_data(b"".join(data(1, bytes(PIECE)) for _ in range(5)))
    assert events == [Data(1, bytes(2 * PIECE), False, 2 * PIECE)]
    assert codec.pending
    assert codec.receive_data(b"") == events
    assert codec.receive_data(b"") == [Data(1, bytes(PIECE), False, PIECE)]
    assert not codec.pending


def summary(events: list[Event]) -> dict[int, tuple[bytes, bool, int, list[str]]]:
    """By stream: the body, whether it ended, what it takes of the window, and what else happened."""
    found: dict[int, tuple[bytes, bool, int, list[str]]] = {}
    for event in events:
        body, ended, size, others = found.get(event.stream_id, (b"", False, 0, []))
        if isinstance(event, Data):
            body, ended, size = body + event.data, event.end_stream, size + event.flow_size
        else:
            others = [*others, type(event).__name__]
        found[event.stream_id] = (body, ended, size, others)
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 1, 1, 3, 5]), st.sampled_from([0, 1, 4096, 5000, PIECE]), st.sampled_from([0, 0, 0, 0, 1, 8])
        ),
        max_size=12,
    ),
    st.sampled_from([None, 4096, 10_000, 2 * PIECE]),
    st.sampled_from([65_535, 3 * PIECE, 1 << 20]),
)
@example([(1, PIECE, 0)] * 5, None, 65_535)
@example([(1, 4096, 0), (1, 4096, 1), (1, 4096, 0)], 10_000, 1 << 20)
@examples(max_examples=60)
def test_the_same_as_one_by_one(frames: list[tuple[int, int, int]], length: int | None, window: int) -> None:
    wire = [frame(DATA, flags, stream, bytes((index + 1,)) * size) for index, (stream, size, flags) in enumerate(frames)]
    together, alone = (opened(length, None, initial_stream_window_size=window) for _ in range(2))
    events = together.receive_data(b"".join(wire))
    apart = [event for one in wire for event in alone.receive_data(one)]
    assert summary(events) == summary(apart)
    assert [(one.kind, one.stream_id, one.number) for one in parse(together.data_to_send())] == [
        (one.kind, one.stream_id, one.number) for one in parse(alone.data_to_send())
    ]
    for stream in (1, 3):
        if alone.usage(stream)[0]:  # a stream that a fault ended is forgotten with the next read
            assert together.usage(stream) == alone.usage(stream)
