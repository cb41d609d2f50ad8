"""Flow control towards an HTTP/2 endpoint: bodies within its windows, credit back only as the caller takes, nobody starved."""

from __future__ import annotations

import asyncio
import threading

import pytest
from http2_support.peer import WINDOW, Http2Peer, PeerConnection, Request, answering
from http2_support.upstream_plane import call, config, proxied, read_answer, request, settled
from plane_support import run, until

MEGABYTE = bytes(range(256)) * 4096


def grant_slowly(connection: PeerConnection, head: Request) -> None:
    while not head.ended:
        connection.wait(lambda: head.unread or head.ended)
        connection.grant(head)


def test_an_upload_waits_for_windows_and_the_caller_with_it() -> None:
    start = threading.Event()

    def serve(connection: PeerConnection) -> None:
        head = connection.head()
        assert head is not None
        connection.wait(lambda: len(head.body) == 65535)
        start.wait(20)
        grant_slowly(connection, head)
        connection.answer(head)
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve, credit=False) as peer:
            async with proxied(config(peer)) as one:
                reader, writer = await one.connect("web")
                writer.write(request("/", "POST", MEGABYTE))
                await settled(one, "upstream_flow_control_backed_up_total", 1)
                await until(lambda: bool(peer.connections) and bool(peer.connections[0].requests))
                await until(lambda: len(peer.connections[0].requests[1].body) == 65535)
                start.set()
                assert (await read_answer(reader)).status == 200
                assert peer.connections[0].requests[1].body == MEGABYTE
                assert one.stat("cluster.a.", "upstream_flow_control_drained_total") >= 1
                writer.close()
            assert peer.faults == []

    run(test())


@pytest.mark.parametrize("window", [1, 7, 16_384])
def test_windows_of_any_size(window: int) -> None:
    body = MEGABYTE[: window * 60]

    async def test() -> None:
        with Http2Peer(answering(), {WINDOW: window}) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 200  # the endpoint's SETTINGS are known now
                assert (await call(one, request("/", "POST", body))).status == 200
                assert [r.body for r in peer.connections[0].requests.values()] == [b"", body]
            assert peer.faults == []

    run(test())


def test_one_upload_without_credit_does_not_hold_another() -> None:
    def serve(connection: PeerConnection) -> None:
        while (head := connection.head()) is not None:
            if head.path == b"/stuck":
                stuck.append(head)
            else:
                grant_slowly(connection, head)
                connection.answer(head)
                for one in stuck:
                    if head.path == b"/last":
                        grant_slowly(connection, one)
                        connection.answer(one)

    stuck: list[Request] = []

    async def test() -> None:
        with Http2Peer(serve, {WINDOW: 1000}, credit=False) as peer:
            async with proxied(config(peer)) as one:
                assert (await call(one)).status == 200
                slow = asyncio.ensure_future(call(one, request("/stuck", "POST", MEGABYTE[:30_000])))
                await until(lambda: bool(stuck))
                assert (await call(one, request("/", "POST", MEGABYTE[:30_000]))).status == 200
                assert not slow.done()
                assert (await call(one, request("/last", "POST", b"x"))).status == 200
                assert (await slow).status == 200
                assert peer.accepted == 1
            assert peer.faults == []

    run(test())


def test_a_caller_that_does_not_read_gets_no_more_than_a_window_ahead() -> None:
    """The others on the connection go on meanwhile."""

    def serve(connection: PeerConnection) -> None:
        while (head := connection.request()) is not None:
            if head.path == b"/large":
                large.append(head)
                connection.headers(head)
            else:
                connection.answer(head)
            for one in large:
                push(connection, one)

    def push(connection: PeerConnection, head: Request) -> None:
        """Send what the window takes now."""
        while head.reset is None and (window := connection.h2.local_flow_control_window(head.stream_id)) > 0:
            size = min(window, 16_384)
            connection.h2.send_data(head.stream_id, bytes(size))
            sent[0] += size
        connection.flush()

    large: list[Request] = []
    sent = [0]

    async def test() -> None:
        with Http2Peer(serve) as peer:
            options = "initial_stream_window_size: 65535, initial_connection_window_size: 1000000"
            async with proxied(config(peer, options)) as one:
                reader, writer = await one.connect("web")
                writer.write(request("/large"))
                await reader.readuntil(b"\r\n\r\n")
                while not one.stat("cluster.a.", "upstream_flow_control_paused_reading_total"):
                    assert (await call(one)).status == 200  # each lets the endpoint use the credit that it got meanwhile
                before = sent[0]
                for _ in range(20):
                    assert (await call(one)).status == 200
                assert sent[0] - before <= 65535
                assert peer.accepted == 1
                writer.close()
                await settled(one, "upstream_rq_active", 0)
                assert (await call(one)).status == 200
            assert peer.faults == []

    run(test())


def test_a_slow_caller_gets_everything_in_the_end() -> None:
    body = MEGABYTE * 8

    async def test() -> None:
        with Http2Peer(answering(body)) as peer:
            async with proxied(config(peer, "initial_stream_window_size: 100000, initial_connection_window_size: 100000")) as one:
                reader, writer = await one.connect("web")
                writer.write(request())
                await reader.readuntil(b"\r\n\r\n")
                await until(lambda: one.stat("cluster.a.", "upstream_flow_control_paused_reading_total") > 0)
                assert await reader.readexactly(len(body)) == body
                assert one.stat("cluster.a.", "upstream_flow_control_resumed_reading_total") > 0
                writer.close()
            assert peer.faults == []

    run(test())


def test_callers_that_leave_take_no_credit_with_them() -> None:
    """Ten downloads are given up in the middle; together they are longer than the connection window."""

    async def test() -> None:
        with Http2Peer(answering(MEGABYTE)) as peer:
            async with proxied(config(peer, "initial_stream_window_size: 65535, initial_connection_window_size: 100000")) as one:
                for _ in range(10):
                    reader, writer = await one.connect("web")
                    writer.write(request())
                    await reader.readexactly(30_000)
                    writer.close()
                await settled(one, "upstream_rq_active", 0)
                assert (await call(one)).body == MEGABYTE
                assert peer.accepted == 1
                assert {r.reset for r in list(peer.connections[0].requests.values())[:10]} <= {8, None}
            assert peer.faults == []

    run(test())


def test_trailers_wait_behind_the_body() -> None:
    def serve(connection: PeerConnection) -> None:
        head = connection.request()
        assert head is not None
        connection.answer(head)
        head = connection.head()
        assert head is not None
        connection.wait(lambda: len(head.body) == 10)
        grant_slowly(connection, head)
        connection.answer(head, body=b"%s %r" % (head.body, head.trailers))
        connection.drain()

    async def test() -> None:
        with Http2Peer(serve, {WINDOW: 10}, credit=False) as peer:
            hcm = "http_protocol_options: {enable_trailers: true}"
            async with proxied(config(peer, hcm=hcm)) as one:
                await call(one)
                data = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                data += b"14\r\n01234567890123456789\r\n0\r\nx-t: 1\r\n\r\n"
                assert (await call(one, data)).body == b"01234567890123456789 [(b'x-t', b'1')]"

    run(test())


def test_an_answer_before_the_end_of_the_request() -> None:
    """The rest of the request is given up (RFC 9113, 8.1), and the connection lives on."""

    def serve(connection: PeerConnection) -> None:
        while (head := connection.head()) is not None:
            connection.answer(head, b"enough", 413)
            if not head.ended:
                connection.wait(lambda head=head: head.reset is not None)  # type: ignore[misc]
                codes.append(head.reset)

    codes: list[int | None] = []

    async def test() -> None:
        with Http2Peer(serve, credit=False) as peer:
            async with proxied(config(peer)) as one:
                for _ in range(3):
                    answer = await call(one, request("/", "POST", MEGABYTE))
                    assert (answer.status, answer.body) == (413, b"enough")
                await until(lambda: len(codes) == 3)
                assert codes == [8, 8, 8]
                assert peer.accepted == 1

    run(test())


def test_a_caller_that_leaves_resets_its_request() -> None:
    def serve(connection: PeerConnection) -> None:
        head = connection.request()
        assert head is not None
        connection.wait(lambda: head.reset is not None)
        codes.append(head.reset)
        answering()(connection)

    codes: list[int | None] = []

    async def test() -> None:
        with Http2Peer(serve) as peer:
            async with proxied(config(peer)) as one:
                _, writer = await one.connect("web")
                writer.write(request())
                await settled(one, "upstream_rq_active", 1)
                writer.close()
                await until(lambda: bool(codes))
                assert codes == [8]
                assert one.stat("cluster.a.", "upstream_rq_tx_reset") == 1
                assert (await call(one)).status == 200
                assert peer.accepted == 1

    run(test())


def test_an_endpoint_that_takes_nothing_from_its_socket() -> None:
    """The send buffer fills up: output stays here within its marks, and goes on when the endpoint reads."""
    read_on = threading.Event()

    def serve(connection: PeerConnection) -> None:
        connection.h2.increment_flow_control_window(1 << 24)
        connection.flush()
        head = connection.head()
        assert head is not None
        connection.h2.increment_flow_control_window((1 << 24), head.stream_id)
        connection.flush()
        while not read_on.wait(0.05):
            connection.h2.ping(b"12345678")
            connection.flush()
        connection.wait(lambda: head.ended)
        connection.answer(head, b"%d" % len(head.body))
        connection.drain()

    async def test() -> None:
        body = MEGABYTE * 10
        with Http2Peer(serve, receive_buffer=4096) as peer:
            async with proxied(config(peer)) as one:
                reader, writer = await one.connect("web")
                writer.write(request("/", "POST", body))
                await settled(one, "upstream_flow_control_backed_up_total", 1)
                await until(lambda: one.stat("cluster.a.http2.", "outbound_control_frames_active") >= 2)
                assert one.stat("cluster.a.http2.", "outbound_frames_active") >= 2
                read_on.set()
                assert (await read_answer(reader)).body == b"%d" % len(body)
                await settled(one, "outbound_frames_active", 0, "cluster.a.http2.")
                await settled(one, "outbound_control_frames_active", 0, "cluster.a.http2.")
                writer.close()
            assert peer.faults == []

    run(test())
