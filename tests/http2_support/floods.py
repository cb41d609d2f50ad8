"""Floods and bombs as bytes: what a hostile peer sends after the opening, piece by piece. Each must end in GOAWAY."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hpack
from http2_support.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    POST,
    PRIORITY,
    block,
    data,
    frame,
    headers,
    ping,
    rst,
    settings,
    window_update,
)

MALFORMED = block([(b":method", b"GET")])
OPEN = headers(1, POST, end=False)
INDEXED_BOMB = hpack.Encoder().encode([(b"x", b"v" * 3900)]) + b"\xbe" * 15_000


def streams(part: Callable[[int], bytes], count: int = 5000) -> Iterator[bytes]:
    return (part(1 + 2 * number) for number in range(count))


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid reset": lambda: streams(lambda n: headers(n) + rst(n, 8)),
    "rapid reset of open streams": lambda: streams(lambda n: headers(n, POST, end=False) + rst(n, 8)),
    "malformed requests": lambda: streams(lambda n: frame(HEADERS, 5, n, MALFORMED)),
    "provoked resets by WINDOW_UPDATE": lambda: streams(lambda n: headers(n, POST, end=False) + window_update(n, 0)),
    "provoked resets by overlarge WINDOW_UPDATE": lambda: streams(lambda n: headers(n) + window_update(n, 0x7FFFFFFF)),
    "provoked resets by PRIORITY": lambda: streams(lambda n: headers(n) + frame(PRIORITY, 0, n, bytes(4))),
    "provoked resets by DATA after the end": lambda: streams(lambda n: headers(n) + data(n, b"x")),
    "provoked resets by trailers": lambda: streams(lambda n: headers(n, POST, end=False) + headers(n, GET)),
    "refused streams": lambda: streams(headers),
    "PING": lambda: (ping() for _ in range(5000)),
    "PING acknowledgements": lambda: (ping(flags=1) for _ in range(5000)),
    "empty SETTINGS": lambda: (settings() for _ in range(5000)),
    "full SETTINGS": lambda: (settings(*[(4, n)] * 100) for n in range(5000)),
    "SETTINGS acknowledgements": lambda: (frame(4, 1) for _ in range(5000)),
    "PRIORITY": lambda: (frame(PRIORITY, 0, 1, b"\0\0\0\x05\0") for _ in range(5000)),
    "WINDOW_UPDATE of the connection": lambda: (window_update(0, 1) for _ in range(5000)),
    "WINDOW_UPDATE of a stream": lambda: iter([OPEN, *[window_update(1, 1)] * 5000]),
    "empty DATA": lambda: iter([OPEN, *[data(1, b"")] * 5000]),
    "padded empty DATA": lambda: iter([OPEN, *[frame(DATA, 8, 1, b"\x00")] * 5000]),
    "empty HEADERS and CONTINUATION": lambda: iter([frame(HEADERS, 0, 1), *[frame(CONTINUATION, 0, 1)] * 5000]),
    "small CONTINUATION": lambda: iter([frame(HEADERS, 0, 1, b"\x82"), *[frame(CONTINUATION, 0, 1, b"\x86")] * 5000]),
    "large CONTINUATION": lambda: iter([frame(HEADERS, 0, 1, b"\x82"), *[frame(CONTINUATION, 0, 1, bytes(16384))] * 5000]),
    "unknown frames": lambda: (frame(99, 0, 1, b"x") for _ in range(5000)),
    "RST_STREAM of closed streams": lambda: iter([OPEN, rst(1, 8), *[rst(1, 8)] * 5000]),
    "DATA after the end": lambda: iter([headers(1), *[data(1, b"x")] * 5000]),
    "GOAWAY": lambda: (frame(GOAWAY, 0, 0, bytes(8)) for _ in range(5000)),
    "HPACK bomb of references": lambda: iter(
        [
            frame(HEADERS, END_STREAM, 1, INDEXED_BOMB[:16000]),
            frame(CONTINUATION, END_HEADERS, 1, INDEXED_BOMB[16000:]),
        ]
    ),
    "HPACK bomb of static fields": lambda: iter([frame(HEADERS, 5, 1, b"\x82" * 16000)]),
    "cookie crumbs": lambda: iter([frame(HEADERS, 5, 1, block(GET) + b"\x60\x031=2" + b"\xbe" * 16000)]),
}
