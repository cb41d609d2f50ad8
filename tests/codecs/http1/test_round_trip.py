"""Whatever one side writes the other reads back, however it is cut."""

from __future__ import annotations

import random

from http1_support import ended, normal, random_cut
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.codec import Codec
from mesh_codecs.events import Data, Event, InformationalHeaders, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UpstreamHttp1
from mesh_codecs.http1.fields import HOP_BY_HOP

SETTINGS = Http1Settings(enable_trailers=True)

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.!#$%&'*+^`|~", min_size=1, max_size=12).map(str.encode)
NAMES = TOKEN.filter(lambda name: name not in HOP_BY_HOP and name not in (b"host", b"content-length", b"trailer"))
VALUES = st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127).strip(b" \t"))
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(Headers)
PATHS = st.text("".join(map(chr, range(0x21, 0x7F))), max_size=30).map(lambda text: b"/" + text.encode())
PIECES = st.lists(st.binary(min_size=1, max_size=6000), max_size=4)
SEEDS = st.integers(0, 2**32)


def body(pieces: list[bytes], trailers: Headers | None) -> list[Event]:
    events: list[Event] = [Data(1, piece, False) for piece in pieces]
    return [*events, Trailers(1, trailers) if trailers is not None and trailers.first else Data(1, b"", True)]


def framed(headers: Headers, pieces: list[bytes], with_length: bool) -> Headers:
    if not with_length:
        return headers
    headers = headers.copy()
    headers.set(b"content-length", b"%d" % sum(map(len, pieces)))
    return headers


def carry(sender: Codec, receiver: Codec, events: list[Event], seed: int) -> list[object]:
    for event in events:
        sender.send(event)
    pieces = random_cut(b"".join(sender.data_to_send()), random.Random(seed))
    return normal([event for piece in pieces for event in receiver.receive_data(piece)])


@settings(max_examples=150, deadline=None)
@given(
    method=TOKEN.filter(lambda method: method != b"connect").map(bytes.upper).filter(lambda method: method != b"CONNECT"),
    path=PATHS,
    headers=HEADERS,
    pieces=PIECES,
    with_length=st.booleans(),
    seed=SEEDS,
)
def test_request(method: bytes, path: bytes, headers: Headers, pieces: list[bytes], with_length: bool, seed: int) -> None:
    up, down = UpstreamHttp1(SETTINGS), DownstreamHttp1(SETTINGS)
    stream = up.open_stream()
    assert stream == 1
    sent = RequestHeaders(1, method, b"", b"shop:80", path, framed(headers, pieces, with_length), False)
    got = carry(up, down, [sent, *body(pieces, None)], seed)
    if with_length and not pieces:  # nothing to wait for
        sent.end_stream = True
        assert got == [sent]
        return
    assert got == [sent, Data(1, b"".join(pieces), True)]


@settings(max_examples=150, deadline=None)
@given(
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    headers=HEADERS,
    pieces=PIECES,
    trailers=HEADERS,
    with_length=st.booleans(),
    hints=st.lists(HEADERS, max_size=2),
    seed=SEEDS,
)
def test_response(
    status: int, headers: Headers, pieces: list[bytes], trailers: Headers, with_length: bool, hints: list[Headers], seed: int
) -> None:
    up, down = UpstreamHttp1(SETTINGS), DownstreamHttp1(SETTINGS)
    up.open_stream()
    request = RequestHeaders(1, b"GET", b"", b"shop", b"/", Headers(), True)
    assert carry(up, down, [request], seed) == [request]
    early: list[Event] = [InformationalHeaders(1, 103, hint) for hint in hints]
    sent = ResponseHeaders(1, status, framed(headers, pieces, with_length), False)
    rest = body(pieces, None if with_length else trailers)
    got = carry(down, up, [*early, sent, *rest], seed)
    assert got[: len(early)] == early
    assert ended(got[-1])  # type: ignore[arg-type]
    if with_length and not pieces:
        sent.end_stream = True
    assert got[len(early)] == sent
    assert b"".join(event.data for event in got if isinstance(event, Data)) == b"".join(pieces)
    if isinstance(rest[-1], Trailers):
        assert got[-1] == rest[-1]
    assert up.can_reuse
    assert not down.closed
