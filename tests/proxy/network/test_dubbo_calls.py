"""Calls through the Dubbo manager: routed, multiplexed, answered under their own ids."""

from __future__ import annotations

from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import run


def echo(frame: bytes) -> bytes | None:
    """An OK answer with the method's name, to two-way calls."""
    if not frame[2] & 0x40:
        return None
    if frame[2] & 0x20:
        return wire.heartbeat_answer(id_of(frame))
    return wire.answer(id_of(frame), "hi")


def test_a_call_is_answered_under_its_own_id() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            for request_id in (7, -7, 0, 2**63 - 1, -(2**63)):
                writer.write(wire.call(request_id=request_id))
                assert await read_frame(reader) == wire.answer(request_id, "hi")
            # The same bytes but for the id, which is ours.
            assert [frame[:4] + frame[12:] for frame in provider.frames] == [wire.call()[:4] + wire.call()[12:]] * 5
            assert len({id_of(frame) for frame in provider.frames}) == 5
            assert len(provider.connections) == 1
            assert one.stat("dubbo.d.", "request_twoway") == 5
            assert one.stat("dubbo.d.", "response_success") == 5
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_many_consumers_with_the_same_ids_share_one_connection() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=3) as (_, consumers):
            for _, writer in consumers:
                for request_id in (1, 2):
                    writer.write(wire.call(method=f"m{request_id}", request_id=request_id))
            arrived = [await provider.next() for _ in range(6)]
            assert len(provider.connections) == 1
            for frame, upstream in reversed(arrived):
                upstream.write(wire.answer(id_of(frame), "m1" if b"\x02m1" in frame else "m2"))
            for reader, _ in consumers:
                answers = {await read_frame(reader), await read_frame(reader)}
                assert answers == {wire.answer(1, "m1"), wire.answer(2, "m2")}

    run(test())
