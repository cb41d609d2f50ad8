"""The demo's gRPC caller against the demo's service, in one loop and without a sidecar."""

from __future__ import annotations

import asyncio
from collections import Counter

from mesh_proxy.demo.grpc_service import GrpcService
from mesh_proxy.demo.grpc_traffic import send_grpc
from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import GRPC_RULES, plan


def test_answers_are_counted_by_who_gave_them() -> None:
    async def test() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: GrpcService("v1"), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        results = await send_grpc(plan(100, 1, GRPC_RULES), Door(port), 3)
        server.close()
        first, second, third = (results[rule.name] for rule in GRPC_RULES)
        assert (first.sent, second.sent, third.sent) == (40, 55, 5)
        assert first.answered == Counter(v1=40)
        assert len(first.problems()) == 2
        assert second.problems() == []
        assert third.failures == Counter({"status 0 instead of 7": 5})

    asyncio.run(test())


def test_a_service_that_is_none() -> None:
    class Closing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    async def test() -> None:
        server = await asyncio.get_running_loop().create_server(Closing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        rule = GRPC_RULES[0]
        results = await send_grpc([rule] * 3, Door(port), 1)
        assert results[rule.name].failures.total() == 3
        server.close()
        await server.wait_closed()
        results = await send_grpc([rule] * 3, Door(port), 2)
        assert results[rule.name].failures == Counter({"not sent": 3})

    asyncio.run(test())
