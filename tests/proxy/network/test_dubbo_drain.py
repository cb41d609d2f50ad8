"""Draining: READONLY, service goes on, the connection ends when it is idle at a frame boundary, or at the deadline."""

from __future__ import annotations

import asyncio

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import echo
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, served
from plane_support import plane, run, until

from mesh_proxy.network import dubbo_connection


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_connection, "DRAIN_QUIET_S", 0.2)


def is_readonly(frame: bytes) -> bool:
    return frame[:4] + frame[12:] == b"\xda\xbb\xa2\x00\x00\x00\x00\x02\x01R"


def test_idle_connections_are_told_and_closed() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), consumers=2) as (one, consumers):
            reader, writer = consumers[0]
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 2)
            one.data.start_drain()
            for each, _ in consumers:
                assert is_readonly(await read_frame(each))
                assert await each.read() == b""
            assert one.stat("dubbo.d.", "cx_drain_readonly") == 2

    run(test())


def test_calls_in_flight_and_later_ones_are_served() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            one.data.start_drain()
            assert is_readonly(await read_frame(reader))
            # A consumer with one provider cannot do as it is told.
            writer.write(wire.call(request_id=2) + wire.call()[:40])
            later, _ = await provider.next()
            upstream.write(wire.answer(id_of(later), "later"))
            assert await read_frame(reader) == wire.answer(2, "later")
            await asyncio.sleep(0.3)  # longer than the quiet time: a call is in flight, a frame is half read
            upstream.write(wire.answer(id_of(frame), "first"))
            assert await read_frame(reader) == wire.answer(1, "first")
            await asyncio.sleep(0.3)
            writer.write(wire.call(request_id=1)[40:])
            last, _ = await provider.next()
            upstream.write(wire.answer(id_of(last), "last"))
            assert await read_frame(reader) == wire.answer(1, "last")
            assert await reader.read() == b""

    run(test())


def test_a_connection_that_comes_during_a_drain_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_connection, "DRAIN_QUIET_S", 60.0)

    async def test() -> None:
        async with proxied(Provider(echo), consumers=0) as (one, _):
            one.data.start_drain()
            reader, writer = await one.connect("dubbo")
            assert is_readonly(await read_frame(reader))
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1)
            writer.close()

    run(test())


def test_a_removed_listener_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_connection, "DRAIN_QUIET_S", 60.0)

    async def test() -> None:
        provider = Provider(echo)
        async with served(provider) as (address,), plane(bootstrap({"a": [address]})) as one:
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            await one.apply(bootstrap({"a": [address]}, listener=False))
            assert is_readonly(await read_frame(reader))
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            writer.close()

    run(test())


def test_the_deadline_answers_whoever_still_waits() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=2))
            await provider.next()
            await provider.next()
            one.data.start_drain()
            assert is_readonly(await read_frame(reader))
            one.data.close()
            for number in (1, 2):
                frame = await read_frame(reader)
                assert (id_of(frame), frame[3]) == (number, 80)
                assert b"the proxy is stopping" in frame
            assert await reader.read() == b""
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_an_idle_consumer_is_closed_after_the_idle_timeout() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), manager="idle_timeout: 1s") as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1)
            assert await reader.read() == b""
            assert one.stat("dubbo.d.", "cx_idle_timeout") == 1

    run(test())


def test_a_waiting_consumer_is_not_idle_and_hears_heartbeats() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, manager="idle_timeout: 1s, heartbeat_interval: 0.3s") as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            for _ in range(4):
                beat = await read_frame(reader)
                assert beat[:4] + beat[12:] == wire.heartbeat()[:4] + wire.heartbeat()[12:]
            upstream.write(wire.answer(id_of(frame)))
            while (answer := await read_frame(reader))[2] & 0x20:
                pass
            assert answer == wire.answer(1)
            assert one.stat("dubbo.d.", "cx_active") == 1

    run(test())
