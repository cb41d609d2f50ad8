"""Blocks that add to the dynamic table without looking at it are looked up too; the table must be what decoding would leave."""

from __future__ import annotations

import random

import pytest
from http2_support.wire import END_HEADERS, END_STREAM, HEADERS, Pairs, feed, frame, upstream

from mesh_codecs.events import RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http2.hpack_decoder import HpackDecoder


def adding(*pairs: tuple[bytes, bytes]) -> bytes:
    """`:status: 200` and literals with indexing."""
    return b"\x88" + b"".join(b"\x40" + bytes((len(n),)) + n + bytes((len(v),)) + v for n, v in pairs)


def size_update(size: int) -> bytes:
    out = bytearray([0x3F])
    size -= 31
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


LIKE_NGINX = adding((b"server", b"nginx"), (b"date", b"Sat, 21 Nov 2026 14:37:51 GMT"), (b"content-type", b"text/plain"))
LARGE = adding((b"x-large", b"v" * 120), (b"x-other", b"w" * 100))
BLOCKS = (
    LIKE_NGINX,
    LARGE,
    adding((b"x-a", b"1"), (b"x-a", b"2")),
    b"\x88\xbe",  # the newest entry of the table
    b"\x88\x7e\x01!",  # its name with a new value, added
    b"\x88\x00\x03x-n\x01n",  # adds nothing
)


@pytest.mark.parametrize("table", [4096, 300, 64])
def test_the_table_is_what_plain_decoding_leaves(table: int) -> None:
    codec = upstream()
    plain = HpackDecoder(4096, 100, 32_768)
    source = random.Random(table)
    blocks = [size_update(table) + LIKE_NGINX] + [source.choice(BLOCKS) for _ in range(400)]
    for i, block in enumerate(blocks):
        stream_id = codec.open_stream()
        assert stream_id is not None
        codec.send(RequestHeaders(stream_id, b"GET", b"http", b"a", b"/", Headers(), True))
        try:
            expected: Pairs | None = plain.decode(block)
        except Exception:
            # A reference into an empty table: the connection is lost on both sides.
            assert not isinstance(feed(codec, frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))[0], ResponseHeaders)
            return
        (event,) = feed(codec, frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
        assert isinstance(event, ResponseHeaders), (i, block)
        assert sorted(event.headers.items()) == sorted(pair for pair in expected if pair[0] != b":status")
        assert codec._decoder._entries == plain._entries
        assert codec._decoder._size == plain._size


def test_a_bad_block_is_bad_every_time() -> None:
    codec = upstream(stream_error_on_invalid_http_message=True)
    for _ in range(3):
        stream_id = codec.open_stream()
        assert stream_id is not None
        codec.send(RequestHeaders(stream_id, b"GET", b"http", b"a", b"/", Headers(), True))
        (event,) = feed(codec, frame(HEADERS, END_HEADERS | END_STREAM, stream_id, adding((b"connection", b"close"))))
        assert isinstance(event, StreamReset)
        assert len(codec._decoder._entries) > 0
