"""The upstream side of Dubbo: connections, heartbeats, READONLY, circuit breakers, callbacks."""

from __future__ import annotations

import asyncio
import socket

import pytest
from dubbo_support import wire
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import plane, run, until

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.stream import dubbo_events

READONLY = wire.frame(0xA2, 0, 9, b"\x01R")
WRITEABLE = wire.frame(0xA2, 0, 9, b"\x01W")
SERVER_ERROR = 80


REQUESTS_PER_CONNECTION = (
    "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: "
    '{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, '
    "common_http_protocol_options: {max_requests_per_connection: 2}, "
    "explicit_http_config: {http_protocol_options: {}}}}"
)


def echo(frame: bytes) -> bytes | None:
    if not frame[2] & 0x40:
        return None
    return wire.answer(id_of(frame)) if not frame[2] & 0x20 else wire.heartbeat_answer(id_of(frame))


def named(name: str):  # type: ignore[no-untyped-def]
    """Answers with its name."""
    return lambda frame: wire.answer(id_of(frame), name) if frame[2] & 0xE0 == 0xC0 else None


def status_of(frame: bytes) -> int:
    return frame[3]


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


def test_readonly_sends_new_calls_elsewhere() -> None:
    async def test() -> None:
        stopping, other = Provider(), Provider(named("other"))
        async with proxied(stopping, other) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=2))  # one to each
            frame, upstream = await stopping.next()
            assert (await read_frame(reader))[16:] == wire.answer(2, "other")[16:]
            upstream.write(READONLY)
            pools = [pool for end in one.data._context.clusters.get("a").endpoints for pool in end.pools.values()]  # type: ignore[union-attr]
            await until(lambda: any(pool.avoid for pool in pools))
            for number in range(10, 16):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number, "other")
            # What was under way is still answered, and after WRITEABLE calls come again.
            upstream.write(wire.answer(id_of(frame), "old") + WRITEABLE)
            assert wire.answer(0, "old")[16:] in await read_frame(reader)
            stopping.answer = named("back")
            await until(lambda: not any(pool.avoid for pool in pools))
            answers = set()
            for number in range(20, 24):
                writer.write(wire.call(request_id=number))
                answers.add((await read_frame(reader))[16:])
            assert len(answers) == 2

    run(test())


def test_readonly_of_the_only_endpoint_is_no_reason_to_fail() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            (pool,) = one.data._context.clusters.get("a").endpoints[0].pools.values()  # type: ignore[union-attr]
            provider.connections[0][1].write(READONLY)
            await until(lambda: pool.avoid)
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            assert len(provider.connections) == 1

    run(test())


def test_heartbeats_of_both_sides_are_answered_byte_by_byte() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            for flags, body in ((0xE2, "4e"), (0xE3, "aced0005770100"), (0xE7, "aced000570"), (0xF7, "00000001af"), (0xE8, "00")):
                writer.write(wire.frame(flags, 0, -5, bytes.fromhex(body)))
                assert await read_frame(reader) == wire.frame(flags & 0x3F, 20, -5, bytes.fromhex(body))
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            # One-way events and READONLY want no answer; a provider's own heartbeat (Dubbo 2.6, dubbo-go) gets one.
            provider.frames.clear()
            provider.connections[0][1].write(wire.frame(0xA2, 0, 4, b"N") + wire.heartbeat(77))
            await until(lambda: bool(provider.frames))
            assert provider.frames == [wire.heartbeat_answer(77)]
            assert one.stat("dubbo.d.", "request_event") == 5
            assert one.stat("dubbo.d.", "request") == 1

    run(test())


def test_an_idle_upstream_connection_gets_heartbeats() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, cluster_options="heartbeat_interval: 0.04s") as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            await until(lambda: len(provider.frames) >= 4)
            assert all(frame[:4] + frame[12:] == wire.heartbeat()[:4] + wire.heartbeat()[12:] for frame in provider.frames[1:])
            assert len(provider.connections) == 1

    run(test())


def test_an_endpoint_that_answers_no_heartbeat_is_dead() -> None:
    async def test() -> None:
        provider = Provider()
        options = "heartbeat_interval: 0.04s, heartbeat_timeout: 0.1s"
        async with proxied(provider, cluster_options=options) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=2))
            refused = await read_frame(reader)
            assert (id_of(refused), status_of(refused)) == (2, SERVER_ERROR)
            await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
            assert one.stat("cluster.a.", "upstream_cx_destroy_local") == 1

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
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            yaml = bootstrap({"a": [AddressConfig(host="127.0.0.1", port=closed.getsockname()[1])]})
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
        # A full accept queue: the kernel answers no further SYN.
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            taken = [socket.socket() for _ in range(4)]
            for one in taken:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            yaml = bootstrap({"a": [AddressConfig(host="127.0.0.1", port=full.getsockname()[1])]})
            async with plane(yaml.replace("connect_timeout: 5s", "connect_timeout: 0.1s")) as proxy:
                reader, writer = await proxy.connect("dubbo")
                writer.write(wire.call(request_id=1))
                refused = await read_frame(reader)
                assert (id_of(refused), status_of(refused)) == (1, SERVER_ERROR)
                assert proxy.stat("cluster.a.", "upstream_cx_connect_timeout") == 1
                writer.close()
            for one in taken:
                one.close()

    run(test())


CALLBACK = {"sys_callback_arg-1": "com.Listener"}


def test_callbacks_have_an_upstream_connection_of_their_own() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, consumers=2) as (one, [(reader, writer), (other_reader, other_writer)]):
            other_writer.write(wire.call(request_id=1))
            await read_frame(other_reader)
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            assert len(provider.connections) == 1
            writer.write(wire.call(request_id=2, attachments=CALLBACK))
            assert await read_frame(reader) == wire.answer(2)
            assert len(provider.connections) == 2
            # What follows goes there too: the provider knows the callback by its connection.
            writer.write(wire.call(request_id=3))
            assert await read_frame(reader) == wire.answer(3)
            _, pinned = provider.connections[1]
            provider.answer = None
            provider.frames.clear()
            for number in (1, -9):
                pinned.write(wire.call("com.Listener", "changed", request_id=number))
                called = await read_frame(reader)
                assert called[16:] == wire.call("com.Listener", "changed")[16:]
                writer.write(wire.answer(id_of(called), f"done{number}"))
                await until(lambda: bool(provider.frames))
                assert provider.frames.pop() == wire.answer(number, f"done{number}")
            pinned.write(wire.call("com.Listener", "changed", request_id=5, one_way=True))
            assert (await read_frame(reader))[2] == 0x82
            assert one.stat("dubbo.d.", "request_upstream") == 3
            # The consumer leaves: so does its connection, and only that.
            writer.close()
            await until(lambda: provider.closed == 1)
            provider.answer = echo
            other_writer.write(wire.call(request_id=4))
            assert await read_frame(other_reader) == wire.answer(4)

    run(test())


def test_a_lost_callback_connection_ends_the_consumers_too() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=2, attachments=CALLBACK))
            assert await read_frame(reader) == wire.answer(2)
            provider.answer = None
            writer.write(wire.call(request_id=3))
            _, pinned = [await provider.next() for _ in range(2)][1]
            pinned.close()
            refused = await read_frame(reader)
            assert (id_of(refused), status_of(refused)) == (3, SERVER_ERROR)
            assert await reader.read() == b""
            assert one.stat("cluster.a.", "upstream_cx_active") == 0

    run(test())


def test_a_pinned_connection_that_cannot_be_made_is_tried_elsewhere() -> None:
    async def test() -> None:
        provider = Provider(echo)
        options = "retry_policy: {retry_on: [connect-failure], num_retries: 3}"
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            dead = AddressConfig(host="127.0.0.1", port=closed.getsockname()[1])
            async with served(provider) as (good,):
                routes = route(route_options=options)
                text = bootstrap({"a": [dead, good]}, routes=routes, cluster_options="pinning: ALWAYS")
                async with plane(text) as one:
                    for _ in range(4):
                        reader, writer = await one.connect("dubbo")
                        for number in range(2):
                            writer.write(wire.call(request_id=number))
                            assert await read_frame(reader) == wire.answer(number)
                        writer.close()
                    await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
                    assert one.stat("cluster.a.", "upstream_cx_connect_fail") >= 1
                    ends = one.data._context.clusters.get("a").endpoints  # type: ignore[union-attr]
                    assert not any(name.startswith("dubbo pinned") for end in ends for name in end.pools)

    run(test())


@pytest.mark.parametrize(("pinning", "connections"), [("ALWAYS", 2), ("NEVER", 1)])
def test_pinning_by_configuration(pinning: str, connections: int) -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, consumers=2, cluster_options=f"pinning: {pinning}") as (_, consumers):
            for reader, writer in consumers:
                for number in (1, 2):
                    writer.write(wire.call(request_id=number, attachments=CALLBACK))
                    assert await read_frame(reader) == wire.answer(number)
            assert len(provider.connections) == connections
            if pinning == "NEVER":
                provider.frames.clear()
                provider.connections[0][1].write(wire.call("com.Listener", "changed", request_id=8))
                await until(lambda: bool(provider.frames))
                assert id_of(provider.frames[0]) == 8
                assert provider.frames[0][2:4] == bytes((0x02, 70))

    run(test())


def test_a_flood_of_heartbeats_ends_the_connection() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, consumers=2) as (one, [(reader, writer), (other_reader, other_writer)]):
            for number in range(dubbo_events.EVENTS_PER_WINDOW + 10):
                writer.write(wire.heartbeat(number))
            answers = await reader.read()
            while more := await reader.read():
                answers += more
            assert len(answers) == dubbo_events.EVENTS_PER_WINDOW * len(wire.heartbeat_answer())
            assert one.stat("dubbo.d.", "cx_protocol_error") == 1
            other_writer.write(wire.call(request_id=1))
            assert await read_frame(other_reader) == wire.answer(1)

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
