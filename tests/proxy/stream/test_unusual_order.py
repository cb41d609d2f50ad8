"""Requests whose events come in an unusual order, over real sockets in one process: none is lost, none counts twice."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from bootstraps import web
from plane_support import GET, answer, at, head, plane, run, until, upstream

from mesh_proxy.upstream import pool
from mesh_proxy.upstream.tunnel import TunnelPool

# -- what cannot be written


def test_a_response_that_cannot_be_written_ends_the_stream() -> None:
    added = "response_headers_to_add: [{header: {key: content-length, value: x1}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]"

    async def test() -> None:
        async with upstream(answer) as address:
            route = f"match: {{prefix: /}}, route: {{cluster: a}}, {added}"
            async with plane(web(endpoint=at(address), route=route)) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                # The route adds its header to our own answer as well: nothing can be said, but nobody hangs.
                assert await reader.read() == b""
                assert one.stat("http.web.", "downstream_rq_active") == 0
                assert one.stat("cluster.a.", "upstream_rq_active") == 0
                writer.close()

    run(test())


def test_a_body_that_outgrows_the_head_resets_the_stream() -> None:
    added = "response_headers_to_add: [{header: {key: content-length, value: '1'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]"

    async def test() -> None:
        async with upstream(answer) as address:
            route = f"match: {{prefix: /}}, route: {{cluster: a}}, {added}"
            async with plane(web(endpoint=at(address), route=route)) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                assert b"ok" not in await reader.read()
                assert one.stat("http.web.", "downstream_rq_tx_reset") == 1
                assert one.stat("http.web.", "downstream_rq_active") == 0
                writer.close()

    run(test())


def test_a_request_that_cannot_be_written_is_answered_with_500() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            route = 'match: {prefix: /}, route: {cluster: a, host_rewrite_literal: "a b"}'
            async with plane(web(endpoint=at(address), route=route)) as one:
                reader, writer = await one.connect("web")
                for _ in range(2):  # the first waits for the connection, and neither breaks the caller's
                    writer.write(GET)
                    said = await head(reader)
                    assert said.startswith(b"HTTP/1.1 500 ")
                assert one.stat("cluster.a.", "upstream_rq_active") == 0
                assert one.stat("cluster.a.", "upstream_rq_pending_active") == 0
                writer.close()

    run(test())


# -- time


def test_the_route_timeout_counts_when_a_request_with_trailers_waits_for_its_connection(monkeypatch: Any) -> None:
    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("mesh_proxy.upstream.pool.dial", never)

    async def test() -> None:
        action = "timeout: 0.05s"
        trailers = "http_protocol_options: {enable_trailers: true}"
        async with plane(web(action=action, hcm=trailers, cluster="connect_timeout: 60s")) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n")
            assert (await head(reader)).startswith(b"HTTP/1.1 504 ")
            assert one.stat("cluster.a.", "upstream_rq_pending_active") == 0
            writer.close()

    run(test())


def test_a_stream_leaves_no_deadline_behind() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            action = "timeout: 60s, max_stream_duration: {max_stream_duration: 60s}"
            config = web(
                endpoint=at(address),
                action=action,
                hcm="common_http_protocol_options: {max_stream_duration: 30s}, request_timeout: 9s",
            )
            async with plane(config) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                await head(reader)
                await reader.readexactly(2)
                queues = one.data._context.deadlines._queues
                assert {key for key, queue in queues.items() if queue.entries} <= {("idle", 3600.0), ("stream idle", 300.0)}
                writer.close()

    run(test())


def test_the_request_timeout_ends_when_the_response_begins() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await reader.readexactly(2)
        writer.write(b"k")

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address), hcm="request_timeout: 2s")) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
            await head(reader)
            await asyncio.sleep(2.6)  # the time-out itself is what must not happen
            writer.write(b"xx")
            assert await reader.readexactly(2) == b"ok"
            writer.close()

    run(test())


# -- tunnels


CONNECT = "match: {connect_matcher: {}}, route: {cluster: a, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}"

UPGRADES = "upgrade_configs: [{upgrade_type: CONNECT}]"


def test_an_endpoint_that_speaks_first_is_heard_through_a_tunnel() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"banner")
        writer.write((await reader.readexactly(4)).upper())

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address), route=CONNECT, hcm=UPGRADES)) as one:
            for _ in range(20):
                reader, writer = await one.connect("web")
                writer.write(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")
                assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(6) == b"banner"
                writer.write(b"quit")
                assert await reader.read() == b"QUIT"
                writer.close()

    run(test())


def test_a_tunnel_opens_while_draining() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(4)).upper())

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address), route=CONNECT, hcm=UPGRADES)) as one:
            reader, writer = await one.connect("web")
            one.data.start_drain()
            writer.write(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nquit")  # the tunnel's first bytes come early
            assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
            assert await reader.read() == b"QUIT"
            assert one.stat("http.web.", "downstream_cx_upgrades_total") == 1
            assert one.stat("http.web.", "downstream_cx_upgrades_active") == 0
            writer.close()

    run(test())


def test_a_tunnel_given_up_at_once_gives_its_permit_back() -> None:
    async def test() -> None:
        async with plane(web(route=CONNECT, hcm=UPGRADES)) as one:
            cluster = one.data._context.clusters.get("a")
            assert cluster is not None
            pool = TunnelPool(one.data._context, cluster, cluster.endpoints[0])
            pool.acquire(None)  # type: ignore[arg-type]
            pool.cancel(None)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert cluster.default.connections == 0
            assert one.stat("cluster.a.", "upstream_cx_active") == 0

    run(test())


# -- connecting


def test_a_connection_given_up_as_it_comes_up_is_counted_once(monkeypatch: Any) -> None:
    really = pool.dial

    async def late(loop: Any, endpoint: Any, bind: Any, factory: Any, *rest: Any) -> Any:
        protocol = await really(loop, endpoint, bind, factory, *rest)
        protocol.transport.close()  # what the loop does with a connect that is cancelled after connection_made
        raise TimeoutError

    monkeypatch.setattr(pool, "dial", late)

    async def test() -> None:
        async with upstream(answer) as address, plane(web(endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            writer.write(GET)
            assert (await head(reader)).startswith(b"HTTP/1.1 503 ")
            await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
            assert one.stat("cluster.a.", "upstream_cx_destroy") == 1
            assert one.data._context.upstream_connections == 0
            writer.close()

    run(test())


def test_an_endpoint_that_answers_early_and_takes_nothing_more_is_let_go(monkeypatch: Any) -> None:
    monkeypatch.setattr("mesh_proxy.upstream.http1_connection.CLOSE_FLUSH_S", 0.05)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await asyncio.sleep(0.1)  # meanwhile the body fills every buffer on the way
        writer.write(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n" + bytes(20_000_000))
            assert (await head(reader)).startswith(b"HTTP/1.1 413 ")
            await until(lambda: not one.stat("cluster.a.", "upstream_cx_active"))
            writer.transport.abort()

    run(test())


def test_an_old_upstream_connection_takes_no_further_request() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            duration = "common_http_protocol_options: {max_connection_duration: 1s}"
            async with plane(web(endpoint=at(address), cluster=duration)) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                await head(reader)
                assert one.stat("cluster.a.", "upstream_cx_active") == 1
                await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
                assert one.stat("cluster.a.", "upstream_cx_max_duration_reached") == 1
                assert one.stat("cluster.a.", "upstream_cx_destroy_local") == 1
                writer.close()

    run(test())


def test_upstream_connections_are_kept_alive_as_the_cluster_says() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            keepalive = "upstream_connection_options: {tcp_keepalive: {keepalive_time: 33, keepalive_probes: 4}}"
            async with plane(web(endpoint=at(address), cluster=keepalive)) as one:
                reader, writer = await one.connect("web")
                writer.write(GET)
                await head(reader)
                cluster = one.data._context.clusters.get("a")
                assert cluster is not None
                (connection,) = cluster.endpoints[0].pools["http1"].connections
                sock = connection.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
                writer.close()

    run(test())


def test_a_cluster_without_endpoints_counts_its_503() -> None:
    async def test() -> None:
        async with plane(web(action="cluster: b")) as one:
            reader, writer = await one.connect("web")
            writer.write(GET)
            assert (await head(reader)).startswith(b"HTTP/1.1 503 ")
            assert one.stat("cluster.b.", "codes") == {503: 1}
            writer.close()

    run(test())


def test_a_broken_body_counts_as_the_400_that_it_gets() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
            assert (await head(reader)).startswith(b"HTTP/1.1 400 ")
            # As Envoy 1.40 counts it.
            assert one.stat("http.web.", "codes") == {400: 1}
            assert one.stat("http.web.", "downstream_rq_completed") == 1
            assert one.stat("http.web.", "downstream_rq_rx_reset") == 1
            assert one.stat("http.web.", "downstream_cx_protocol_error") == 1
            writer.close()

    run(test())


def test_timeouts_that_callers_ask_for_do_not_pile_up() -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(endpoint=at(address))) as one:
            reader, writer = await one.connect("web")
            for i in range(300):
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-upstream-rq-timeout-ms: %d\r\n\r\n" % (100_000 + i))
                await head(reader)
                await reader.readexactly(2)
            assert len(one.data._context.deadlines._all()) < 100
            writer.close()

    run(test())


def test_a_response_that_began_before_the_request_ended_has_no_time_per_try() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await reader.readexactly(2)
        await asyncio.sleep(2.6)  # the time-out itself is what must not happen
        writer.write(b"k")

    async def test() -> None:
        action = "retry_policy: {retry_on: 5xx, per_try_timeout: 2s}"
        async with upstream(serve) as address, plane(web(endpoint=at(address), action=action)) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
            await head(reader)
            writer.write(b"xx")
            assert await reader.readexactly(2) == b"ok"
            writer.close()

    run(test())


def test_a_body_too_large_to_keep_is_sent_once_and_counted() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await reader.readexactly(100_000)
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async def test() -> None:
        listener = "per_connection_buffer_limit_bytes: 20000"
        action = "retry_policy: {retry_on: 5xx}"
        async with upstream(serve) as address, plane(web(endpoint=at(address), action=action, listener=listener)) as one:
            reader, writer = await one.connect("web")
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
            writer.write(bytes(30_000))
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 1)
            writer.write(bytes(70_000))
            assert (await head(reader)).startswith(b"HTTP/1.1 503 ")
            assert one.stat("cluster.a.", "upstream_rq_retry") == 0
            assert one.stat("cluster.a.", "retry_or_shadow_abandoned") == 1
            writer.close()

    run(test())
