"""The demo's Dubbo consumer against the demo's provider, in one loop and without a sidecar."""

from __future__ import annotations

import asyncio
from collections import Counter

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, heartbeat_request, heartbeat_response
from mesh_proxy.demo.dubbo_service import Provider
from mesh_proxy.demo.dubbo_traffic import call_frame, send_calls
from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import DUBBO_RULES, plan


def test_what_it_sends() -> None:
    (one,) = DubboCodec(HeadMemo()).receive_data(call_frame(7, DUBBO_RULES[0]))
    assert isinstance(one, DubboMessage)
    assert (one.request_id, one.service, one.method, one.attachment(b"dubbo.tag")) == (7, b"demo.Shop", b"cart", b"v2")
    assert one.arguments() == ["cart"]


def test_answers_are_counted_by_who_gave_them() -> None:
    async def test() -> None:
        memo = HeadMemo()
        server = await asyncio.get_running_loop().create_server(lambda: Provider("v1", memo), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        results = await send_calls(plan(100, 1, DUBBO_RULES), Door(port), 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(heartbeat_request(5))
        assert await reader.readexactly(17) == heartbeat_response(5)
        writer.close()
        server.close()
        first, second, third = (results[rule.name] for rule in DUBBO_RULES)
        assert (first.sent, second.sent, third.sent) == (40, 55, 5)
        assert first.answered == Counter(v1=40)
        assert first.problems() == [
            "dubbo.tag: v2 -> v2: v1 answered 40 of 40, expected 0%",
            "dubbo.tag: v2 -> v2: v2 answered 0 of 40, expected 100%",
        ]
        assert second.problems() == []
        assert third.failures == Counter({"status 20 instead of 60": 5})

    asyncio.run(test())


def test_nobody_there() -> None:
    async def test() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        results = await send_calls([DUBBO_RULES[0]] * 3, Door(port), 2)
        assert results[DUBBO_RULES[0].name].failures == Counter({"not sent": 3})

    asyncio.run(test())
