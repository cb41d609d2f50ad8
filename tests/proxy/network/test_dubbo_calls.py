"""Calls through the Dubbo manager: routed, multiplexed, answered under their own ids."""

from __future__ import annotations

from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame, route
from plane_support import run

from mesh_codecs.dubbo import Counters


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


def test_nothing_is_decoded_that_nobody_asks_for() -> None:
    """By service and method: no argument and no attachment is touched. By attachment: arguments are stepped over."""

    async def calls(routes: str, count: int) -> Counters:
        async with proxied(Provider(echo), routes=routes, interface="demo.HelloService") as (one, [(reader, writer)]):
            for number in range(count):
                tag = {"dubbo.tag": "gray", "n": str(number)}
                writer.write(wire.call(request_id=number, types=wire.STRING, arguments=("x",), attachments=tag))
                await read_frame(reader)
            (connection,) = one.data._listeners["dubbo"].connections
            counters = connection.manager.memo.counters  # type: ignore[attr-defined]
            assert isinstance(counters, Counters)
            return counters

    async def test() -> None:
        found = await calls(route(match="{method: {name: {exact: sayHello}}}"), 20)
        assert (found.heads_parsed, found.heads_from_memo) == (1, 19)
        assert (found.argument_skips, found.argument_reads, found.attachment_decodes) == (0, 0, 0)
        found = await calls(route(match="{headers: [{name: dubbo.tag, string_match: {exact: gray}}]}"), 20)
        assert (found.heads_parsed, found.argument_skips, found.attachment_decodes) == (1, 20, 20)
        assert found.argument_reads == 0

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
