"""GOAWAY of an HTTP/2 endpoint: requests that it has not looked at move, the others stay and finish."""

from __future__ import annotations

import asyncio
import threading

import pytest
from http2_support.peer import Http2Peer, PeerConnection, answering
from http2_support.upstream_plane import call, calls, config, pool_of, proxied, read_answer, request, settled
from plane_support import run, until

peer: Http2Peer


def test_goaway_moves_what_was_not_processed() -> None:
    """Three requests are in progress; the endpoint has looked at the first only."""

    def serve(connection: PeerConnection) -> None:
        if len(peer.connections) > 1:
            return answering(b"second")(connection)
        connection.wait(lambda: len(connection.requests) == 3 and all(r.ended for r in connection.requests.values()))
        first = connection.requests[1]
        connection.go_away(1)
        connection.answer(first, b"first")
        connection.drain()

    async def test() -> None:
        global peer
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                answers = await calls(one, 3, request("/", "POST", b"x" * 20_000))
                assert sorted(a.body for a in answers) == [b"first", b"second", b"second"]
                second = peer.connections[1]
                assert [r.body for r in second.requests.values()] == [b"x" * 20_000] * 2
                assert one.stat("cluster.a.", "upstream_cx_close_notify") == 1
                assert one.stat("cluster.a.", "upstream_rq_total") == 3
                await settled(one, "upstream_cx_active", 1)

    run(test())


def test_goaway_moves_a_request_that_is_still_coming() -> None:
    def serve(connection: PeerConnection) -> None:
        if len(peer.connections) > 1:
            return answering()(connection)
        head = connection.head()
        assert head is not None
        connection.wait(lambda: head.body == b"abc")
        connection.go_away(0)
        connection.drain()

    async def test() -> None:
        global peer
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                reader, writer = await one.connect("web")
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc")
                await until(lambda: len(peer.connections) == 2)
                writer.write(b"def")
                assert (await read_answer(reader)).status == 200
                assert [r.body for r in peer.connections[1].requests.values()] == [b"abcdef"]
                writer.close()

    run(test())


def test_goaway_leaves_a_request_that_is_too_long_to_keep() -> None:
    def serve(connection: PeerConnection) -> None:
        head = connection.head()
        assert head is not None
        connection.wait(lambda: len(head.body) > 70_000)
        connection.go_away(0)
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                answer = await call(one, request("/", "POST", b"x" * 300_000))
                assert answer.status == 503
                assert answer.body.endswith(b"remote refused stream reset")

    run(test())


def test_an_endpoint_that_only_says_goaway_does_not_hold_a_request_for_ever() -> None:
    def serve(connection: PeerConnection) -> None:
        connection.head()
        connection.go_away(0)
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 503
                assert peer.accepted == 4

    run(test())


def test_what_goaway_left_behind_fails_as_refused_when_nothing_listens_any_more() -> None:
    def serve(connection: PeerConnection) -> None:
        connection.head()
        peer._listener.close()
        connection.go_away(0)
        connection.drain()

    async def test() -> None:
        global peer
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                answer = await call(one)
                assert answer.status == 503
                await settled(one, "upstream_cx_connect_fail", 1)
                assert one.data._context.clusters.get("a").default.requests == 0  # type: ignore[union-attr]

    run(test())


def test_a_caller_leaves_while_its_request_moves() -> None:
    unreachable = threading.Event()

    def serve(connection: PeerConnection) -> None:
        connection.head()
        unreachable.wait(20)
        connection.go_away(0)
        connection.drain()

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    async def test() -> None:
        with Http2Peer(serve) as peer, pytest.MonkeyPatch.context() as patch:
            async with proxied(config(peer)) as one:
                _, writer = await one.connect("web")
                writer.write(request())
                await until(lambda: len(peer.connections) == 1 and bool(peer.connections[0].requests))
                patch.setattr("mesh_proxy.upstream.pool.dial", never)
                unreachable.set()
                await until(lambda: bool(pool_of(one).moved))
                writer.close()
                await until(lambda: not pool_of(one).moved)
                assert one.stat("cluster.a.", "upstream_rq_active") == 0

    run(test())


def test_a_graceful_goaway_lets_requests_finish() -> None:
    second_done = threading.Event()

    def serve(connection: PeerConnection) -> None:
        if len(peer.connections) > 1:
            return answering(b"second")(connection)
        first = connection.request()
        assert first is not None
        connection.go_away((1 << 31) - 1)
        connection.go_away(first.stream_id)
        connection.headers(first)
        second_done.wait(20)
        connection.data(first, b"first", end=True)
        connection.drain()

    async def test() -> None:
        global peer
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                reader, writer = await one.connect("web")
                writer.write(request())
                await reader.readuntil(b"\r\n\r\n")
                assert (await call(one)).body == b"second"
                second_done.set()
                assert b"first" in await reader.readuntil(b"0\r\n\r\n")
                writer.close()

    run(test())
