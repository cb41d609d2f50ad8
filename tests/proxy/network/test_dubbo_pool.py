"""The upstream side of Dubbo: how connections are shared, replaced and lost, and circuit breakers."""

from __future__ import annotations

import asyncio

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import closed_endpoint, echo, full_endpoint, named, status_of
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import plane, run, until

from mesh_codecs.dubbo.frame import SERVER_ERROR

REQUESTS_PER_CONNECTION = (
    "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: "
    '{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, '
    "common_http_protocol_options: {max_requests_per_connection: 2}, "
    "explicit_http_config: {http_protocol_options: {}}}}"
)


def test_several_connections_share_the_calls() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, cluster_options="connections_per_endpoint: 3") as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=0))
            frame, upstream = await provider.next()
            upstream.write(wire.answer(id_of(frame)))
            await read_frame(reader)
            await until(lambda: len(provider.connections) == 3)
            await asyncio.sleep(0)
            for number in range(1, 7):
                writer.write(wire.call(request_id=number))
            writers = [upstream for _, upstream in [await provider.next() for _ in range(6)]]
            assert {writers.count(one) for one in writers} == {2}

    run(test())


def test_a_consumer_that_leaves_frees_its_slots() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=2) as (one, [(_, gone), (reader, writer)]):
            for number in range(5):
                gone.write(wire.call(request_id=number))
            late = [await provider.next() for _ in range(5)]
            gone.close()
            await until(lambda: one.stat("dubbo.d.", "request_active") == 0)
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            for frame, upstream in late:
                upstream.write(wire.answer(id_of(frame)))
            writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            upstream.write(wire.answer(id_of(frame)))
            assert await read_frame(reader) == wire.answer(1)
            assert one.stat("dubbo.d.", "response_unexpected") == 5
            assert one.stat("dubbo.d.", "cx_destroy_remote_with_active_rq") == 1

    run(test())


def test_an_endpoint_that_goes_is_answered_for_at_once() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=2) as (one, consumers):
            for _, writer in consumers:
                writer.write(wire.call(request_id=1) + wire.call(request_id=2))
            for _ in range(4):
                _, upstream = await provider.next()
            upstream.close()
            for reader, _ in consumers:
                answers = [await read_frame(reader), await read_frame(reader)]
                assert sorted((id_of(frame), status_of(frame)) for frame in answers) == [(1, SERVER_ERROR), (2, SERVER_ERROR)]
                assert b"upstream connection termination" in answers[0]
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            # The next call opens a new connection.
            provider.answer = echo
            reader, writer = consumers[0]
            writer.write(wire.call(request_id=3))
            assert await read_frame(reader) == wire.answer(3)
            assert one.stat("cluster.a.", "upstream_cx_total") == 2

    run(test())


def test_an_idle_timeout_closes_connections_without_calls() -> None:
    async def test() -> None:
        provider = Provider(echo)
        options = "heartbeat_interval: 0s, idle_timeout: 0.05s"
        async with proxied(provider, cluster_options=options) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            await until(lambda: one.stat("cluster.a.", "upstream_cx_idle_timeout") == 1)
            await until(lambda: provider.closed == 1)

    run(test())


def test_one_way_calls_leave_nothing_behind() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            for _ in range(3):
                writer.write(wire.call(request_id=5, one_way=True))
            writer.write(wire.call(request_id=6))
            assert await read_frame(reader) == wire.answer(6)
            assert [frame[2] for frame in provider.frames] == [0x82, 0x82, 0x82, 0xC2]
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            assert one.stat("dubbo.d.", "request_oneway") == 3
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_a_connection_that_closes_takes_no_calls_and_is_replaced_at_once() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1)
            (endpoint,) = one.data._context.clusters.get("a").endpoints  # type: ignore[union-attr]
            (pool,) = endpoint.pools.values()
            (closing,) = pool.connections
            closing.closed = True  # what it has to write keeps it from ending
            pool.choose()
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            assert len(provider.connections) == 2
            closing.abort()
            await until(lambda: provider.closed == 1)

    run(test())


def test_a_duplicate_id_ends_the_connection_after_the_answers() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=1) + wire.call(request_id=2))
            frame, upstream = await provider.next()
            upstream.write(wire.answer(id_of(frame)))
            assert await read_frame(reader) == wire.answer(1)
            assert await reader.read() == b""
            assert len(provider.frames) == 1
            assert one.stat("dubbo.d.", "cx_protocol_error") == 1
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_answers_that_nobody_waits_for_are_dropped() -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(999) + wire.answer(id_of(frame)) + wire.answer(id_of(frame)))
        async with proxied(provider) as (one, [(reader, writer)]):
            for number in range(3):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number)
            await until(lambda: one.stat("dubbo.d.", "response_unexpected") == 6)
            writer.write(wire.answer(3))  # a response from a consumer that nobody asked
            writer.write(wire.call(request_id=4))
            assert await read_frame(reader) == wire.answer(4)

    run(test())


@pytest.mark.parametrize(
    ("limits", "statistic"),
    [("max_pending_requests: 2", "upstream_rq_pending_overflow"), ("max_requests: 2", "upstream_rq_active_overflow")],
)
def test_circuit_breakers(limits: str, statistic: str) -> None:
    async def test() -> None:
        provider = Provider()
        fields = f"circuit_breakers: {{thresholds: [{{{limits}}}]}}"
        async with proxied(provider, cluster_fields=fields) as (one, [(reader, writer)]):
            writer.write(b"".join(wire.call(request_id=number) for number in range(4)))
            refused = {id_of(frame): frame for frame in (await read_frame(reader), await read_frame(reader))}
            assert all(status_of(frame) == SERVER_ERROR and b"overflow, cluster a" in frame for frame in refused.values())
            assert sorted(refused) == [2, 3]
            for _ in range(2):
                frame, upstream = await provider.next()
                upstream.write(wire.answer(id_of(frame)))
            assert {id_of(await read_frame(reader)), id_of(await read_frame(reader))} == {0, 1}
            assert one.stat("cluster.a.", statistic) == 2
            assert one.stat("cluster.a.", "upstream_rq_pending_active") == 0

    run(test())


def test_a_connection_that_cannot_be_made() -> None:
    async def test() -> None:
        with closed_endpoint() as dead:
            yaml = bootstrap({"a": [dead]})
            async with plane(yaml) as one:
                reader, writer = await one.connect("dubbo")
                writer.write(wire.call(request_id=1) + wire.call(request_id=2, one_way=True))
                refused = await read_frame(reader)
                assert (id_of(refused), status_of(refused)) == (1, SERVER_ERROR)
                assert b"connection failure, cluster a" in refused
                assert one.stat("cluster.a.", "upstream_cx_connect_fail") == 1
                assert one.stat("dubbo.d.", "request_active") == 0
                writer.close()

    run(test())


def test_a_connect_timeout() -> None:
    async def test() -> None:
        with full_endpoint() as full:
            yaml = bootstrap({"a": [full]})
            async with plane(yaml.replace("connect_timeout: 5s", "connect_timeout: 0.1s")) as proxy:
                reader, writer = await proxy.connect("dubbo")
                writer.write(wire.call(request_id=1))
                refused = await read_frame(reader)
                assert (id_of(refused), status_of(refused)) == (1, SERVER_ERROR)
                assert proxy.stat("cluster.a.", "upstream_cx_connect_timeout") == 1
                writer.close()

    run(test())


def test_a_removed_endpoint_finishes_what_it_has() -> None:
    async def test() -> None:
        old, new = Provider(), Provider(named("new"))
        async with served(old, new) as (first, second), plane(bootstrap({"a": [first]})) as one:
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            frame, upstream = await old.next()
            await one.apply(bootstrap({"a": [second]}))
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2, "new")
            upstream.write(wire.answer(id_of(frame), "old"))
            assert await read_frame(reader) == wire.answer(1, "old")
            await until(lambda: old.closed == 1)
            writer.close()

    run(test())


def test_connections_are_replaced_after_so_many_calls() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, cluster_fields=REQUESTS_PER_CONNECTION) as (one, [(reader, writer)]):
            for number in range(6):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number)
            await until(lambda: provider.closed == 3)
            assert one.stat("cluster.a.", "upstream_cx_max_requests") == 3

    run(test())


def test_a_connection_is_replaced_after_one_way_calls_too() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, cluster_fields=REQUESTS_PER_CONNECTION) as (one, [(reader, writer)]):
            writer.write(b"".join(wire.call(request_id=number, one_way=True) for number in range(4)))
            for _ in range(4):
                await provider.next()
            await until(lambda: provider.closed == 2)
            writer.write(wire.call(request_id=5))
            assert await read_frame(reader) == wire.answer(5)
            assert one.stat("cluster.a.", "upstream_cx_active") == 1

    run(test())


def test_routes_to_a_cluster_that_is_not_there() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, routes=route("nowhere")) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            refused = await read_frame(reader)
            assert (id_of(refused), status_of(refused)) == (1, SERVER_ERROR)
            assert one.stat("dubbo.d.", "request_no_cluster") == 1

    run(test())
