"""The HTTP/2 pool over real sockets: how many connections, which requests on them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest
from h2.errors import ErrorCodes
from http2_support.peer import MAX_STREAMS, Http2Peer, PeerConnection, answering
from http2_support.upstream_plane import address, call, calls, config, pool_of, proxied, request, settled
from plane_support import run, until

from mesh_codecs.http2 import Http2Codec


def after(count: int) -> Any:
    """A peer that answers only when so many requests are there at the same time, over all connections."""
    barrier = threading.Barrier(count)

    def serve(connection: PeerConnection) -> None:
        while (head := connection.head()) is not None:
            barrier.wait(20)
            connection.answer(head)

    return serve


# -- how many connections


def test_many_requests_share_one_connection() -> None:
    def serve(connection: PeerConnection) -> None:
        connection.wait(lambda: len(connection.fresh) == 30)
        while connection.fresh:
            connection.answer(connection.fresh.popleft())
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                assert [a.status for a in await calls(one, 30)] == [200] * 30
                assert peer.accepted == 1
                assert one.stat("cluster.a.", "upstream_cx_http2_total") == 1
                assert one.stat("cluster.a.", "upstream_rq_total") == 30
                assert one.stat("cluster.a.http2.", "streams_active") == 0
            assert peer.faults == []

    run(test())


def test_the_limit_of_the_endpoint_is_respected_from_the_first_request_on() -> None:
    async def test() -> None:
        with Http2Peer(after(10), {MAX_STREAMS: 1}) as peer:
            async with proxied(config(peer)) as one:
                assert [a.status for a in await calls(one, 10)] == [200] * 10
                assert peer.accepted == 10
            assert peer.faults == []

    run(test())


def test_beyond_the_connections_allowed_requests_wait_in_line() -> None:
    async def test() -> None:
        with Http2Peer(answering(), {MAX_STREAMS: 2}) as peer:
            breaker = "circuit_breakers: {thresholds: [{max_connections: 2}]}"
            async with proxied(config(peer, cluster=breaker)) as one:
                assert [a.status for a in await calls(one, 40)] == [200] * 40
                assert peer.accepted <= 2
                assert one.stat("cluster.a.", "upstream_rq_pending_total") > 0
            assert peer.faults == []

    run(test())


def test_our_own_limit_counts_as_well() -> None:
    both = threading.Barrier(2)

    def serve(connection: PeerConnection) -> None:
        connection.wait(lambda: len(connection.fresh) == 2)
        both.wait(20)
        while connection.fresh:
            connection.answer(connection.fresh.popleft())
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer, "max_concurrent_streams: 2")) as one:
                assert [a.status for a in await calls(one, 4)] == [200] * 4
                assert peer.accepted == 2

    run(test())


def test_a_limit_that_is_lowered_and_raised() -> None:
    lowered, raise_it = threading.Event(), threading.Event()

    def serve(connection: PeerConnection) -> None:
        first = connection.request()
        assert first is not None
        connection.update_settings({MAX_STREAMS: 0})
        connection.answer(first)
        connection.sock.settimeout(0.01)
        lowered.set()
        raise_it.wait(20)
        connection.sock.settimeout(30)
        connection.update_settings({MAX_STREAMS: 100})
        answering()(connection)

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 200
                await until(lambda: pool_of(one).known_limit == 0)
                waiting = asyncio.ensure_future(call(one))
                await settled(one, "upstream_rq_pending_active", 1)
                raise_it.set()
                assert (await waiting).status == 200
                assert peer.accepted == 1
            assert peer.faults == []

    run(test())


@pytest.mark.parametrize(
    ("limits", "counter"),
    [("max_requests: 2", "upstream_rq_active_overflow"), ("max_pending_requests: 2", "upstream_rq_pending_overflow")],
)
def test_circuit_breakers(limits: str, counter: str) -> None:
    release = threading.Event()

    def serve(connection: PeerConnection) -> None:
        connection.wait(lambda: connection.fresh)
        release.wait(20)
        answering()(connection)

    async def test() -> None:
        with Http2Peer(serve, {MAX_STREAMS: 50}) as peer:
            breaker = f"circuit_breakers: {{thresholds: [{{{limits}}}]}}"
            async with proxied(config(peer, cluster=breaker)) as one:
                tasks = [asyncio.ensure_future(call(one)) for _ in range(4)]
                await settled(one, counter, 2)
                release.set()
                answers = [await task for task in tasks]
                assert sorted(a.status for a in answers) == [200, 200, 503, 503]
                assert all(b"x-envoy-overloaded: true" in a.head for a in answers if a.status == 503)

    run(test())


def test_max_requests_per_connection() -> None:
    async def test() -> None:
        with Http2Peer(answering()) as peer:
            async with proxied(config(peer, common="max_requests_per_connection: 2")) as one:
                for _ in range(5):
                    assert (await call(one)).status == 200
                assert peer.accepted == 3
                assert one.stat("cluster.a.", "upstream_cx_max_requests") == 2
                await settled(one, "upstream_cx_active", 1)

    run(test())


def test_stream_ids_run_out() -> None:
    async def test() -> None:
        with Http2Peer(answering()) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 200
                (connection,) = pool_of(one).connections
                assert isinstance(connection.codec, Http2Codec)
                connection.codec._next_id = (1 << 31) - 1
                assert (await call(one)).status == 200
                assert (await call(one)).status == 200
                assert peer.accepted == 2
            assert peer.faults == []

    run(test())


# -- the end of connections


def test_a_connection_lost_under_many_requests() -> None:
    def serve(connection: PeerConnection) -> None:
        connection.wait(lambda: len(connection.requests) == 5)

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                answers = await calls(one, 5)
                assert [a.status for a in answers] == [503] * 5
                assert all(a.body.endswith(b"connection termination") for a in answers)
                assert one.stat("cluster.a.", "upstream_cx_destroy_remote_with_active_rq") == 1

    run(test())


def test_an_idle_connection_is_closed() -> None:
    async def test() -> None:
        with Http2Peer(answering()) as peer:
            async with proxied(config(peer, common="idle_timeout: 0.05s")) as one:
                assert (await call(one)).status == 200
                await settled(one, "upstream_cx_idle_timeout", 1)
                await settled(one, "upstream_cx_active", 0)
                assert peer.connections[0].wait(lambda: peer.connections[0].goaway is not None)
                assert peer.connections[0].goaway == 0

    run(test())


def test_a_connection_that_is_old_enough_takes_no_more() -> None:
    release = threading.Event()

    def serve(connection: PeerConnection) -> None:
        while (head := connection.request()) is not None:
            if head.path == b"/slow":
                release.wait(20)
            connection.answer(head)

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer, common="max_connection_duration: 1s")) as one:
                slow = asyncio.ensure_future(call(one, request("/slow")))
                await settled(one, "upstream_cx_max_duration_reached", 1)
                assert (await call(one)).status == 200
                assert peer.accepted == 2
                release.set()
                assert (await slow).status == 200
                await settled(one, "upstream_cx_active", 0)

    run(test())


def test_a_silent_endpoint_is_found_by_ping() -> None:
    stop = threading.Event()

    def serve(connection: PeerConnection) -> None:
        connection.head()
        stop.wait(25)  # reads nothing, answers no PING

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer, "connection_keepalive: {interval: 0.05s, timeout: 0.1s}")) as one:
                answer = await call(one)
                assert answer.status == 503
                assert answer.body.endswith(b"connection termination")
                assert one.stat("cluster.a.http2.", "keepalive_timeout") == 1
                stop.set()

    run(test())


def test_a_connection_that_was_silent_is_probed_before_use() -> None:
    def serve(connection: PeerConnection) -> None:
        while (head := connection.request()) is not None:
            connection.wait(lambda: connection.settled)
            connection.answer(head)

    async def test() -> None:
        with Http2Peer(serve) as peer:
            options = "connection_keepalive: {timeout: 20s, connection_idle_interval: 0.001s}"
            async with proxied(config(peer, options)) as one:
                assert (await call(one)).status == 200
                await asyncio.sleep(0.01)  # longer than connection_idle_interval
                assert (await call(one)).status == 200
                (connection,) = pool_of(one).connections
                await until(lambda: connection.codec._ping_deadline == 0.0)  # it was answered
                assert peer.accepted == 1

    run(test())


def test_an_endpoint_that_leaves_the_cluster_drains() -> None:
    release = threading.Event()

    def serve(connection: PeerConnection) -> None:
        while (head := connection.request()) is not None:
            release.wait(20)
            connection.answer(head)

    async def test() -> None:
        with Http2Peer(serve) as peer, Http2Peer(answering(b"new")) as other:
            async with proxied(config(peer)) as one:
                slow = asyncio.ensure_future(call(one))
                await settled(one, "upstream_rq_active", 1)
                await one.apply(config(other))
                assert (await call(one)).body == b"new"
                release.set()
                assert (await slow).body == b"ok"
                await settled(one, "upstream_cx_active", 1)

    run(test())


def test_an_endpoint_that_speaks_something_else() -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass  # to close with something unread would reset the connection, and the answer with it

    async def test() -> None:
        from e2e_support.peers import Peer

        with Peer(serve) as peer:
            async with proxied(config(peer)) as one:  # type: ignore[arg-type]
                answers = await calls(one, 4)
                assert {a.status for a in answers} == {502}
                assert one.stat("cluster.a.", "upstream_cx_protocol_error") >= 1

    run(test())


def test_an_update_of_the_options_makes_new_connections() -> None:
    async def test() -> None:
        with Http2Peer(answering()) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 200
                await one.apply(config(peer, "hpack_table_size: 0"))
                assert (await call(one)).status == 200
                assert peer.accepted == 2
                assert address(peer).port

    run(test())


def test_resets_have_their_reasons() -> None:
    codes = {ErrorCodes.REFUSED_STREAM: b"remote refused stream reset", ErrorCodes.INTERNAL_ERROR: b"remote reset"}

    async def test() -> None:
        for code, words in codes.items():

            def serve(connection: PeerConnection, code: ErrorCodes = code) -> None:
                while (head := connection.request()) is not None:
                    connection.reset(head, code)

            with Http2Peer(serve) as peer:
                async with proxied(config(peer)) as one:
                    answer = await call(one)
                    assert (answer.status, answer.body.rpartition(b": ")[2]) == (503, words)
                    assert one.stat("cluster.a.http2.", "rx_reset") == 1

    run(test())
