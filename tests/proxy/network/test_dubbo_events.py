"""Dubbo events on both sides: heartbeats, READONLY and WRITEABLE, and a flood of them."""

from __future__ import annotations

from dubbo_support import wire
from dubbo_support.endpoints import echo, named, status_of
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import run, until

from mesh_codecs.dubbo.frame import SERVER_ERROR
from mesh_proxy.stream import dubbo_events

READONLY = wire.frame(0xA2, 0, 9, b"\x01R")
WRITEABLE = wire.frame(0xA2, 0, 9, b"\x01W")


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
