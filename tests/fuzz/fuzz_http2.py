"""Fuzz targets for HTTP/2: server, client, hpack. `fuzz_harness.py` says how to run them.

`server` and `client` feed a codec in that role with what a peer sends after the opening. What must hold for every input: no
exception, the same events and the same answers for every cutting, nothing more after the end, and memory in proportion to the
input. `hpack` feeds one decoder with several header blocks: only the documented exceptions, and what it understood can be written
and read again.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "codecs"), str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

from fuzz_harness import Program, bound_memory, cuts  # noqa: E402
from http2_support import wire  # noqa: E402

from mesh_codecs.events import ConnectionFailed, Data, Event, RequestHeaders  # noqa: E402
from mesh_codecs.headers import Headers  # noqa: E402
from mesh_codecs.http2 import Http2Codec, Http2Settings  # noqa: E402
from mesh_codecs.http2.hpack_decoder import HeaderBomb, HeaderListTooLarge, HpackDecoder, HpackError  # noqa: E402
from mesh_codecs.http2.hpack_encoder import HpackEncoder  # noqa: E402

SETTINGS = Http2Settings()


def opened(downstream: bool) -> Http2Codec:
    """After the opening; a client has three requests under way."""
    if downstream:
        return wire.downstream()
    codec = wire.upstream()
    for _ in range(3):
        wire_request(codec)
    codec.data_to_send()
    return codec


def wire_request(codec: Http2Codec) -> None:
    """A GET."""
    stream_id = codec.open_stream()
    assert stream_id is not None
    codec.send(
        RequestHeaders(
            stream_id=stream_id,
            method=b"GET",
            scheme=b"http",
            authority=b"svc",
            path=b"/",
            headers=Headers([]),
            end_stream=True,
        )
    )


def told(events: list[Event]) -> list[str]:
    """In a form that can be compared: how much of a body comes in one event depends on the cutting."""
    found: list[str] = []
    bodies: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, Data):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            if event.end_stream:
                found.append(f"end {event.stream_id}")
        else:
            found.append(repr(event))
    return [*found, repr(sorted(bodies.items()))]


def talk(downstream: bool, pieces: list[bytes]) -> tuple[list[str], bytes]:
    """Events and answers."""
    codec = opened(downstream)
    events: list[Event] = []
    answers: list[bytes] = []
    for piece in pieces:
        events += codec.receive_data(piece)
        answers += codec.data_to_send()
    failed = [n for n, event in enumerate(events) if isinstance(event, ConnectionFailed)]
    assert not failed or failed == [len(events) - 1], "events after the end"
    events += codec.receive_eof()
    answers += codec.data_to_send()
    wire.parse(answers)
    return told(events), b"".join(answers)


def _fuzz_role(downstream: bool, data: bytes) -> None:
    whole, stepped, single = (talk(downstream, pieces) for pieces in cuts(data))
    assert whole[0] == stepped[0] == single[0]
    assert whole[1] == stepped[1] == single[1]
    bound_memory(lambda data: talk(downstream, [data]), data)


def fuzz_server(data: bytes) -> None:
    _fuzz_role(True, data)


def fuzz_client(data: bytes) -> None:
    _fuzz_role(False, data)


def decode(data: bytes) -> list[list[tuple[bytes, bytes]]]:
    """The header lists of the blocks in the input: each has a length of two bytes before it."""
    decoder = HpackDecoder(4096, SETTINGS.max_headers_count, SETTINGS.max_header_list_size)
    found = []
    pos = 0
    while pos + 2 <= len(data):
        (size,) = struct.unpack_from(">H", data, pos)
        try:
            found.append(list(decoder.decode(data[pos + 2 : pos + 2 + size])))
        except (HeaderListTooLarge, HeaderBomb):
            pass  # the table is still right
        except HpackError:
            break
        pos += 2 + size
    return found


def fuzz_hpack(data: bytes) -> None:
    lists = decode(data)
    encoder = HpackEncoder(4096)
    decoder = HpackDecoder(4096, SETTINGS.max_headers_count, SETTINGS.max_header_list_size)
    for pairs in lists:
        assert list(decoder.decode(encoder.encode(pairs))) == pairs
    bound_memory(decode, data)


def seeds(target: str) -> list[bytes]:
    """Good and bad inputs to start from."""
    fields = [(b"accept", b"*/*"), (b"x-a", b"1" * 40), (b"cookie", b"a=b")]
    encoder = HpackEncoder(4096)
    if target == "hpack":
        blocks = [encoder.encode(wire.GET + fields), encoder.encode(wire.GET + fields), b"\x3f\xe1\x1f\x82", wire.block(fields)]
        return [b"".join(struct.pack(">H", len(b)) + b for b in blocks[n:]) for n in range(len(blocks))]
    block = encoder.encode((wire.GET if target == "server" else wire.OK) + fields)
    start = [wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block)]
    parted = [wire.frame(wire.HEADERS, 0, 3, block[:9]), wire.frame(wire.CONTINUATION, wire.END_HEADERS, 3, block[9:])]
    first = wire.headers(1, wire.POST if target == "server" else wire.OK, end=False)
    trailers = wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 1, wire.block([(b"grpc-status", b"0")]))
    control = [
        wire.settings((1, 0), (3, 100), (4, 70000), (5, 20000)),
        wire.ping(),
        wire.window_update(0, 1000),
        wire.window_update(1, 1),
        wire.frame(wire.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x10"),
        wire.rst(1, 8),
        wire.goaway(0, 0, b"bye"),
        wire.frame(0x42, 0, 0, b"unknown"),
    ]
    found = [b"".join(start), b"".join(parted), first + wire.data(1, b"x" * 300) + wire.data(1, b"", end=True)]
    found += [first + wire.data(1, b"abc") + trailers, first + b"".join(control), *control]
    found += [
        wire.frame(wire.DATA, wire.PADDED | wire.END_STREAM, 1, b"\x02ab\0\0"),
        first + wire.frame(wire.DATA, wire.PADDED, 1, b"\x09a"),
    ]
    return found


TARGETS = {"server": fuzz_server, "client": fuzz_client, "hpack": fuzz_hpack}
PROGRAM = Program(TARGETS, seeds, bytes(range(10)) + b"\x20\x40\x80\x82\x84\xff")

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:]))
