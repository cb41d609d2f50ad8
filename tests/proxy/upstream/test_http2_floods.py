"""Endpoints that send much cheap work, or more than they may: they lose the stream or the connection, and nobody else is hurt."""

from __future__ import annotations

import struct
import threading

import pytest
from http2_support.peer import Http2Peer, PeerConnection, answering
from http2_support.upstream_plane import call, config, proxied
from http2_support.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    OK,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    headers,
    settings,
    window_update,
)
from plane_support import run

HEAD = headers(1, OK, end=False)
FLOODS = {
    "PING": frame(PING, 0, 0, b"12345678") * 2000,
    "SETTINGS": settings() * 2000,
    "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\0\1") * 1000,
    "WINDOW_UPDATE of the connection": window_update(0, 1) * 1000,
    "WINDOW_UPDATE of the stream": window_update(1, 1) * 1000,
    "empty DATA": HEAD + frame(DATA, 0, 1) * 100,
    "unknown frames": frame(0xEE, 0, 0, b"x") * 1000,
    "CONTINUATION": frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b") * 100,
    "a header bomb": frame(HEADERS, END_HEADERS, 1, b"\x88" + b"\x40\x01a\x7f\x81\x1e" + b"b" * 4000 + b"\xbe" * 15_000),
    "too many fields": headers(1, [*OK, *((b"x-%d" % n, b"1") for n in range(150))]),
    "too large a head": frame(HEADERS, 0, 1, block(OK))
    + b"".join(frame(CONTINUATION, 0, 1, block([(b"x-%d" % n, b"y" * 16_000)])) for n in range(6)),
    "a frame beyond the limit": struct.pack(">IBI", 20_000 << 8 | DATA, 0, 1) + bytes(20_000),
    "a promise": frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block([(b":method", b"GET")])),
    "SETTINGS of a bad size": frame(SETTINGS, 0, 0, b"12345"),
    # Within the windows if it comes in several reads, as credit goes back between them.
    "more than the window": HEAD + frame(DATA, 0, 1, bytes(16_000)) * 5 + frame(DATA, 1, 1),
    "WINDOW_UPDATE of a bad size": frame(WINDOW_UPDATE, 0, 0, b"123"),
}


@pytest.mark.parametrize("what", FLOODS)
def test_it_ends_and_the_next_request_works(what: str) -> None:
    def serve(connection: PeerConnection) -> None:
        if len(peers) > 1:
            return answering()(connection)
        connection.head()
        connection.raw(FLOODS[what])
        answering()(connection)

    peers: list[PeerConnection] = []

    def counted(connection: PeerConnection) -> None:
        peers.append(connection)
        serve(connection)

    async def test() -> None:
        with Http2Peer(counted) as peer:
            narrow = "initial_stream_window_size: 65535, initial_connection_window_size: 65535"
            async with proxied(config(peer, narrow)) as one:
                status = 0
                try:
                    status = (await call(one)).status
                except EOFError:
                    pass  # the head had been passed on
                assert status in ((0, 200, 502, 503) if what == "more than the window" else (0, 502, 503))
                assert (await call(one)).status == 200
                assert one.stat("cluster.a.http2.", "streams_active") == 0

    run(test())


def test_honest_pings_are_no_flood() -> None:
    """gRPC servers measure the round trip with about one PING for each DATA frame."""
    done = threading.Event()

    def serve(connection: PeerConnection) -> None:
        while (head := connection.request()) is not None:
            connection.h2.ping(b"12345678")
            connection.answer(head)
        done.set()

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                for _ in range(400):
                    assert (await call(one)).status == 200
                assert peer.accepted == 1
                assert peer.faults == []

    run(test())
