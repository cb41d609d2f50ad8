"""The HTTP/2 pool over real sockets: how many connections, which requests on them, and what happens when they go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest
from h2.errors import ErrorCodes
from http2_support.peer import MAX_STREAMS, Http2Peer, PeerConnection, answering
from http2_support.upstream_plane import address, call, calls, config, proxied, read_answer, request, settled
from plane_support import run, until

from mesh_codecs.http2 import Http2Codec
from mesh_proxy.upstream.http2_pool import Http2Pool


def pool_of(one: Any) -> Http2Pool:
    cluster = one.data._context.clusters.get("a")
    found = cluster.endpoints[0].pools["http2"]
    assert isinstance(found, Http2Pool)
    return found


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


# -- going away


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


peer: Http2Peer


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
