"""Dubbo callbacks: a consumer pinned to an upstream connection of its own."""

from __future__ import annotations

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import closed_endpoint, echo, status_of
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import plane, run, until

from mesh_codecs.dubbo.frame import SERVER_ERROR

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
        with closed_endpoint() as dead:
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
