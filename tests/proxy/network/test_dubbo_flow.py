"""Slow and stalled peers: who reads slowly waits alone, and memory stays bounded."""

from __future__ import annotations

import asyncio
import socket

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import full_endpoint
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame
from plane_support import plane, run, until

from mesh_proxy.network import dubbo_shell
from mesh_proxy.upstream import dubbo_connection

MIB = 1024 * 1024
BIG = wire.frame(0x02, 20, 0, b"\x94" + wire.value(["x" * 32768] * 32) + wire.value({}))
"""an answer of a little more than 1 MiB"""


def big(frame: bytes) -> bytes | None:
    """To calls of `big`; small to others."""
    if frame[2] & 0xE0 != 0xC0:
        return None
    return BIG[:4] + frame[4:12] + BIG[12:] if b"\x03big" in frame else wire.answer(id_of(frame))


def small_buffers(writer: asyncio.StreamWriter) -> None:
    """So that little is in the kernel."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


def test_a_consumer_that_does_not_read_stops_nobody_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_shell, "MAX_UNSENT", 8 * MIB)

    async def test() -> None:
        provider = Provider(big)
        async with proxied(provider, consumers=2) as (one, [(stalled, writer), (reader, other)]):
            small_buffers(writer)
            stalled._transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(24):
                writer.write(wire.call(method="big", request_id=number))
            for number in range(50):
                other.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number)
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            assert len(provider.connections) == 1
            assert one.stat("dubbo.d.", "response_error_caused_connection_close") == 1
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 0)
            other.write(wire.call(request_id=99))
            assert await read_frame(reader) == wire.answer(99)

    run(test())


def test_all_stalled_consumers_together_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_shell, "MAX_UNSENT_ALL", 3 * MIB)

    async def test() -> None:
        async with proxied(Provider(big), consumers=4) as (one, consumers):
            for reader, writer in consumers:
                small_buffers(writer)
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(b"".join(wire.call(method="big", request_id=number) for number in range(8)))
            await until(lambda: one.stat("dubbo.d.", "response_error_caused_connection_close") >= 1)
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 0)

    run(test())


def test_a_slow_consumer_gets_all_of_it() -> None:
    async def test() -> None:
        async with proxied(Provider(big), consumers=2) as (one, [(slow, writer), (reader, other)]):
            small_buffers(writer)
            slow._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"".join(wire.call(method="big", request_id=number) for number in range(12)))
            other.write(wire.call(request_id=5))
            assert await read_frame(reader) == wire.answer(5)
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 0)
            slow._transport.resume_reading()  # type: ignore[attr-defined]
            received = [await read_frame(slow) for _ in range(12)]
            assert sorted(map(id_of, received)) == list(range(12))
            assert {frame[12:] for frame in received} == {BIG[12:]}
            writer.write(wire.call(request_id=1000))  # reading goes on again
            assert await read_frame(slow) == wire.answer(1000)

    run(test())


def test_a_consumer_with_its_own_connection_holds_back_its_provider() -> None:
    async def test() -> None:
        provider = Provider(big)
        async with proxied(provider, cluster_options="pinning: ALWAYS") as (one, [(stalled, writer)]):
            small_buffers(writer)
            stalled._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"".join(wire.call(method="big", request_id=number) for number in range(40)))
            await until(lambda: one.stat("cluster.a.", "upstream_flow_control_paused_reading_total") >= 1)
            (connection,) = one.data._listeners["dubbo"].connections
            held = connection.transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert held < 4 * MIB
            stalled._transport.resume_reading()  # type: ignore[attr-defined]
            assert sorted([id_of(await read_frame(stalled)) for _ in range(40)]) == list(range(40))
            await until(lambda: one.stat("cluster.a.", "upstream_rq_active") == 0)
            paused = one.stat("cluster.a.", "upstream_flow_control_paused_reading_total")
            assert one.stat("cluster.a.", "upstream_flow_control_resumed_reading_total") == paused

    run(test())


def test_a_consumer_that_takes_nothing_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh_proxy.network.dubbo_manager.WRITE_STALL_S", 0.05)

    async def test() -> None:
        async with proxied(Provider(big)) as (one, [(stalled, writer)]):
            small_buffers(writer)
            stalled._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"".join(wire.call(method="big", request_id=number) for number in range(8)))
            await until(lambda: one.stat("dubbo.d.", "cx_total") == 1 and one.stat("dubbo.d.", "cx_active") == 0)

    run(test())


class Stalled(Provider):
    """Reads nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.there = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        self.there.set()
        await self.go.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        await super().serve(reader, writer)


def large_call(request_id: int) -> bytes:
    """A call of a little less than 1 MiB."""
    body = wire.call_body(types=wire.STRING * 30, arguments=("x" * 32768,) * 30)
    return wire.frame(0xC2, 0, request_id, body)


def test_a_provider_that_reads_slowly_holds_back_its_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_connection, "STALL_S", 600.0)
    monkeypatch.setattr("mesh_proxy.upstream.dubbo_pool.STALL_S", 600.0)

    async def test() -> None:
        provider = Stalled()
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.transport.set_write_buffer_limits(65536)
            calls = [large_call(number) for number in range(24)]
            sent = 0
            for call in calls:
                writer.write(call)
                sent += 1
                try:
                    await asyncio.wait_for(writer.drain(), 2.0)
                except TimeoutError:
                    break
            (connection,) = one.data._listeners["dubbo"].connections
            assert sent < len(calls), "nothing held the consumer back"
            assert connection._read_pauses == 1  # type: ignore[attr-defined]
            provider.answer = lambda frame: wire.answer(id_of(frame))
            provider.go.set()
            for call in calls[sent:]:
                writer.write(call)
            received = [await read_frame(reader) for _ in calls]
            assert sorted(map(id_of, received)) == list(range(24))
            assert all(frame[16:] == calls[0][16:] for frame in provider.frames)

    run(test())


def test_a_provider_that_takes_nothing_is_avoided_and_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh_proxy.upstream.dubbo_pool.STALL_S", 0.3)

    async def test() -> None:
        stalled, good = Stalled(), Provider(lambda frame: wire.answer(id_of(frame)))
        async with proxied(stalled, good) as (one, [(reader, writer)]):
            number = 0
            answered = 0
            ends = one.data._context.clusters.get("a").endpoints  # type: ignore[union-attr]

            def is_avoided() -> bool:
                return any(pool.avoid for end in ends for pool in end.pools.values())

            async def count() -> None:
                nonlocal answered
                while True:
                    assert (await read_frame(reader))[3] == 20
                    answered += 1

            counting = asyncio.create_task(count())  # noqa: TID251
            while not is_avoided():
                writer.write(large_call(number))
                number += 1
                await writer.drain()
                await asyncio.sleep(0.005)
            before, already = len(good.frames), answered
            for _ in range(10):
                writer.write(wire.call(request_id=number))
                number += 1
            await until(lambda: len(good.frames) >= before + 10 and answered >= already + 10)
            counting.cancel()

    run(test())


def test_what_waits_for_the_only_provider_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh_proxy.upstream.dubbo_pool.STALL_S", 0.05)
    monkeypatch.setattr("mesh_proxy.upstream.dubbo_pool.MAX_UNSENT", 20 * MIB)

    async def test() -> None:
        provider = Stalled()
        async with proxied(provider) as (_, [(reader, writer)]):
            first = asyncio.create_task(read_frame(reader))  # noqa: TID251
            number = 0
            while not first.done():
                writer.write(large_call(number))
                number += 1
                await writer.drain()
            refused = first.result()
            assert refused[3] == 80
            assert b"overflow" in refused
            assert 20 <= id_of(refused) < 60
            provider.answer = lambda frame: wire.answer(id_of(frame))
            provider.go.set()
            statuses = [(await read_frame(reader))[3] for _ in range(number - 1)]
            assert set(statuses) <= {20, 80}
            assert statuses.count(20) >= 20

    run(test())


def test_calls_that_wait_for_a_connection_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh_proxy.upstream.dubbo_pool.MAX_PENDING_BYTES", 3 * MIB)

    async def test() -> None:
        with full_endpoint() as full:
            yaml = bootstrap({"a": [full]})
            async with plane(yaml) as proxy:
                reader, writer = await proxy.connect("dubbo")
                for number in range(4):
                    writer.write(large_call(number))
                refused = await read_frame(reader)
                assert (id_of(refused), refused[3]) == (3, 80)
                assert b"overflow" in refused
                assert proxy.stat("cluster.a.", "upstream_rq_pending_active") == 3
                writer.close()

    run(test())
