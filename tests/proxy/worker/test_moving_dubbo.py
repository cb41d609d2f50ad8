"""Dubbo connections that go to another process with calls in flight: every answer arrives, under its own id and in one piece."""

from __future__ import annotations

import asyncio

import pytest
from dubbo_support import wire
from dubbo_support.plane import Provider, bootstrap, id_of, read_frame, served
from moving_support import Handing, planes, run
from plane_support import until


def echo(frame: bytes) -> bytes | None:
    """An OK answer to two-way calls."""
    if frame[2] & 0x20:
        return wire.heartbeat_answer(id_of(frame))
    return wire.answer(id_of(frame), "hi") if frame[2] & 0x40 else None


def test_between_calls() -> None:
    async def test() -> None:
        async with served(Provider(echo)) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as both:
                reader, writer = await both[0].connect("dubbo")
                for request_id in range(1, 9):
                    writer.write(wire.call(request_id=request_id))
                    assert await read_frame(reader) == wire.answer(request_id, "hi")
                    handing = await Handing(*both).begin().done()
                    assert (handing.mover.moved, handing.late) == (1, 0)
                    both[0].data.resume()
                    both.reverse()
                assert sum(one.stat("dubbo.d.", "cx_total") for one in both) == 1
                assert [one.stat("dubbo.d.", "cx_active") for one in both] == [1, 0]
                assert sum(one.stat("dubbo.d.", "request_twoway") for one in both) == 8

    run(test())


def test_answers_to_calls_in_flight_follow() -> None:
    """Slow calls across the switch: new calls do not wait for them, and each gets its own answer."""

    async def test() -> None:
        provider = Provider()
        async with served(provider) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                slow = {}
                for request_id in (1, 2, 3):
                    writer.write(wire.call(method=f"slow{request_id}", request_id=request_id))
                    frame, upstream = await provider.next()
                    slow[request_id] = (id_of(frame), upstream)
                handing = Handing(old, new).begin()
                await until(lambda: handing.mover.moved == 1)
                writer.write(wire.call(method="quick", request_id=4))
                frame, upstream = await provider.next()
                upstream.write(wire.answer(id_of(frame), "quick"))
                assert await read_frame(reader) == wire.answer(4, "quick")
                assert old.data.active_connections == 1, "it still owes answers"
                for request_id in (2, 3, 1):
                    number, upstream = slow[request_id]
                    upstream.write(wire.answer(number, f"slow{request_id}"))
                    assert await read_frame(reader) == wire.answer(request_id, f"slow{request_id}")
                await handing.done()
                assert handing.late == 3
                assert old.stat("dubbo.d.", "response_success") == 3
                assert new.stat("dubbo.d.", "response_success") == 1
                assert old.stat("dubbo.d.", "request_active") == 0
                assert old.stat("dubbo.d.", "cx_active") == 0

    run(test())


def test_answers_that_come_while_nobody_owns_the_connection() -> None:
    async def test() -> None:
        provider = Provider()
        async with served(provider) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                for request_id in (1, 2):
                    writer.write(wire.call(request_id=request_id))
                frames = [await provider.next() for _ in range(2)]
                handing = Handing(old, new).begin(hold=True)
                await until(lambda: handing.held)
                frame, upstream = frames[0]
                upstream.write(wire.answer(id_of(frame), "one"))
                await until(lambda: old.stat("dubbo.d.", "response_success") == 1)
                handing.release()
                assert await read_frame(reader) == wire.answer(1, "one")
                frame, upstream = frames[1]
                upstream.write(wire.answer(id_of(frame), "two"))
                assert await read_frame(reader) == wire.answer(2, "two")
                await handing.done()

    run(test())


def test_the_same_when_the_new_process_dies() -> None:
    async def test() -> None:
        provider = Provider()
        async with served(provider) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                writer.write(wire.call(request_id=1))
                frame, upstream = await provider.next()
                handing = Handing(old, new).begin(hold=True)
                await until(lambda: handing.held)
                upstream.write(wire.answer(id_of(frame), "one"))
                writer.write(wire.call(request_id=2))
                await until(lambda: old.stat("dubbo.d.", "response_success") == 1)
                handing.fail()
                assert await read_frame(reader) == wire.answer(1, "one")
                frame, upstream = await provider.next()
                upstream.write(wire.answer(id_of(frame), "two"))
                assert await read_frame(reader) == wire.answer(2, "two")

    run(test())


@pytest.mark.parametrize("cut", [1, 2, 15, 16, 17, 60])
def test_in_the_middle_of_a_frame(cut: int) -> None:
    async def test() -> None:
        async with served(Provider(echo)) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                data = wire.call(request_id=7) + wire.call(request_id=8)
                writer.write(data[:cut])
                await until(lambda: old.stat("dubbo.d.", "cx_rx_bytes_total") == cut)
                await Handing(old, new).begin().done()
                writer.write(data[cut:])
                assert await read_frame(reader) == wire.answer(7, "hi")
                assert await read_frame(reader) == wire.answer(8, "hi")

    run(test())


def test_in_the_middle_of_a_body_over_the_limit() -> None:
    async def test() -> None:
        async with served(Provider(echo)) as addresses:
            text = bootstrap({"a": addresses}, manager="max_body_bytes: 1000")
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                data = wire.frame(0xC2, 0, 5, bytes(5000))
                writer.write(data[:2000])
                assert id_of(await read_frame(reader)) == 5
                await Handing(old, new).begin().done()
                writer.write(data[2000:] + wire.call(request_id=6))
                assert await read_frame(reader) == wire.answer(6, "hi")

    run(test())


def test_a_consumer_who_leaves_costs_nothing() -> None:
    """His slow call is still answered, to nobody."""

    async def test() -> None:
        provider = Provider()
        async with served(provider) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                _, writer = await old.connect("dubbo")
                writer.write(wire.call(request_id=1))
                frame, upstream = await provider.next()
                handing = Handing(old, new).begin()
                await until(lambda: handing.mover.moved == 1)
                writer.transport.abort()
                await until(lambda: new.data.active_connections == 0)
                upstream.write(wire.answer(id_of(frame), "late"))
                await handing.done()

    run(test())


def test_the_deadline_answers_who_still_waits() -> None:
    async def test() -> None:
        provider = Provider()
        async with served(provider) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                writer.write(wire.call(request_id=1))
                await provider.next()
                handing = Handing(old, new).begin()
                await until(lambda: handing.mover.moved == 1)
                old.data.close()
                frame = await read_frame(reader)
                assert (id_of(frame), frame[3]) == (1, 80)
                await handing.done()
                writer.write(wire.heartbeat(2))
                assert await read_frame(reader) == wire.heartbeat_answer(2)

    run(test())


def test_heartbeats_are_answered_on_both_sides_of_the_switch() -> None:
    async def test() -> None:
        async with served(Provider(echo)) as addresses:
            text = bootstrap({"a": addresses})
            async with planes(text, text) as (old, new):
                reader, writer = await old.connect("dubbo")
                writer.write(wire.heartbeat(1))
                assert await read_frame(reader) == wire.heartbeat_answer(1)
                await Handing(old, new).begin().done()
                writer.write(wire.heartbeat(2))
                assert await read_frame(reader) == wire.heartbeat_answer(2)
                await asyncio.sleep(0)

    run(test())
