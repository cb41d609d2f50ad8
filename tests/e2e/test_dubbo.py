"""Dubbo with real processes: providers and workers that die under load, large and slow peers, garbage, connections, drain."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any

import pytest
from dubbo_support import wire
from dubbo_support.provider import ProviderProcess, answer
from e2e_support import Sidecar, until
from e2e_support.config import at
from e2e_support.sidecar import memory_kb
from parity.config import bootstrap
from parity.dubbo import dubbo

from mesh_proxy.tasks import create_task

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
MIB = 1024 * 1024
DEADLINE_S = 180.0
_ID = Struct(">q").unpack_from


def config(*ports: int, extra: str = "") -> dict[str, Any]:
    """A Dubbo listener `in` over a cluster of these providers."""
    cluster = {
        "name": "back",
        "type": "STATIC",
        "connect_timeout": "20s",
        "load_assignment": {
            "cluster_name": "back",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}} for port in ports]}],
        },
        "circuit_breakers": {"thresholds": [{"max_requests": 100000, "max_pending_requests": 100000, "max_retries": 100}]},
    }
    options = "{typed_filter_metadata: {mesh_proxy.dubbo: {'@type': type.googleapis.com/xds.type.v3.TypedStruct, "
    options += f"type_url: type.googleapis.com/mesh_proxy.dubbo.v1.RouteOptions, value: {{{extra}}}}}}}}}"
    action = f"{{cluster: back, metadata_match: {options}}}" if extra else "{cluster: back}"
    return bootstrap([dubbo("in", f"[{{name: r, interface: '*', routes: [{{match: {{}}, route: {action}}}]}}]")], [cluster])


class Consumer:
    """One connection with a call in flight all the time; keeps count of every answer."""

    def __init__(self, outcomes: Counter[str], request: bytes = b"") -> None:
        self.outcomes = outcomes
        self.request = request or wire.call()
        self.next_id = random.getrandbits(62)
        self.stopping = False

    async def run(self, port: int) -> None:
        """Call until told to stop; a connection that ends is made anew, and counts as `cut` if a call was in flight."""
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.outcomes["refused"] += 1
                await asyncio.sleep(0.01)
                continue
            try:
                while not self.stopping:
                    await self.call(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                self.outcomes["cut"] += 1
            finally:
                writer.close()

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call. A wrong answer is an AssertionError."""
        self.next_id += 1
        writer.write(self.request[:4] + self.next_id.to_bytes(8, "big") + self.request[12:])
        while True:
            head = await reader.readexactly(16)
            body = await reader.readexactly(int.from_bytes(head[12:], "big"))
            if head[2] & 0xA0:
                self.outcomes["readonly"] += body == b"\x01R"
                continue
            break
        assert _ID(head, 4)[0] == self.next_id
        self.outcomes["ok" if head[3] == 20 else body[1:].decode(errors="replace")] += 1


async def load(port: int, connections: int, during: Callable[[Counter[str]], Any]) -> Counter[str]:
    """Load while `during` runs in a thread."""
    outcomes: Counter[str] = Counter()
    consumers = [Consumer(outcomes) for _ in range(connections)]
    tasks = [create_task(one.run(port), name="consumer") for one in consumers]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.to_thread(during, outcomes)
        for one in consumers:
            one.stopping = True
        await asyncio.gather(*tasks)
    return outcomes


def more(outcomes: Counter[str], count: int = 300) -> None:
    """Wait until so many more calls were answered well."""
    goal = outcomes["ok"] + count
    until("more answers", lambda: outcomes["ok"] >= goal, DEADLINE_S)


def settle(sidecar: Sidecar) -> None:
    """Nothing is left in progress."""
    until(
        "no call in flight",
        lambda: sidecar.settled({"dubbo.in.request_active": 0, "cluster.back.upstream_rq_active": 0}),
        DEADLINE_S,
    )


def test_a_provider_dies_under_load(start: Start) -> None:
    """Its calls in flight get an answer; with retries elsewhere nobody notices more than that."""
    with ProviderProcess("one") as one, ProviderProcess("two") as two:
        extra = "retry_policy: {retry_on: [connect-failure, reset], num_retries: 2}"
        sidecar = start(config(one.port, two.port, extra=extra))

        def during(outcomes: Counter[str]) -> None:
            more(outcomes)
            one.kill()
            more(outcomes)

        outcomes = asyncio.run(load(sidecar.port("in"), 16, during))
        print(outcomes)
        assert set(outcomes) == {"ok"}
        settle(sidecar)


def test_without_retries_every_call_in_flight_is_answered(start: Start) -> None:
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))

        async def test() -> list[int]:
            reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port("in"))
            for number in range(50):
                writer.write(wire.call(method="silent", request_id=number))
            await asyncio.to_thread(
                until, "calls in flight", lambda: sidecar.stats().get("cluster.back.upstream_rq_active") == 50, 20
            )
            one.kill()
            found = []
            for _ in range(50):
                head = await reader.readexactly(16)
                await reader.readexactly(int.from_bytes(head[12:], "big"))
                assert head[3] == 80
                found.append(_ID(head, 4)[0])
            writer.close()
            return found

        assert sorted(asyncio.run(asyncio.wait_for(test(), DEADLINE_S))) == list(range(50))
        settle(sidecar)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_dies_under_load(start: Start, workers: int) -> None:
    """Its connections are cut; the others do not notice, and all are served again."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port), concurrency=workers)

        def during(outcomes: Counter[str]) -> None:
            more(outcomes)
            os.kill(sidecar.workers()[0], signal.SIGKILL)
            until("a new worker", lambda: len(sidecar.workers()) == workers, DEADLINE_S)
            more(outcomes)

        outcomes = asyncio.run(load(sidecar.port("in"), 16, during))
        print(outcomes)
        assert set(outcomes) <= {"ok", "cut"}
        assert outcomes["cut"] <= 16
        settle(sidecar)


def test_terminated_under_load(start: Start) -> None:
    """SIGTERM: READONLY for everybody, answers for what is asked, then the end; exit code 0."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port), flags=("--drain-time-s", "30"))

        def during(outcomes: Counter[str]) -> None:
            more(outcomes)
            sidecar.signal(signal.SIGTERM)
            until("READONLY for all", lambda: outcomes["readonly"] >= 8, DEADLINE_S)
            for consumer in consumers:
                consumer.stopping = True
            assert sidecar.wait_exit(DEADLINE_S) == 0

        outcomes: Counter[str] = Counter()
        consumers = [Consumer(outcomes) for _ in range(8)]

        async def test() -> None:
            tasks = [create_task(one.run(sidecar.port("in")), name="consumer") for one in consumers]
            await asyncio.to_thread(during, outcomes)
            await asyncio.gather(*tasks)

        asyncio.run(asyncio.wait_for(test(), DEADLINE_S))
        print(outcomes)
        assert set(outcomes) <= {"ok", "readonly"}


def test_eight_megabytes_under_load(start: Start) -> None:
    """Large payloads both ways beside small calls; memory goes back."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))
        big = wire.call(method="big", types=wire.STRING * 240, arguments=(f"#{7 * MIB}$", *(("y" * 32768,) * 239)))
        assert 7 * MIB < len(big) < 8 * MIB
        expected = answer(0, b"x" * (7 * MIB))

        async def large(times: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port("in"), limit=MIB)
            for number in range(times):
                writer.write(big[:4] + number.to_bytes(8, "big") + big[12:])
                await writer.drain()
                received = await reader.readexactly(len(expected))
                assert received[:4] + received[12:] == expected[:4] + expected[12:]
                assert _ID(received, 4)[0] == number
            writer.close()

        async def test() -> Counter[str]:
            outcomes: Counter[str] = Counter()
            small = Consumer(outcomes)
            task = create_task(small.run(sidecar.port("in")), name="small")
            await asyncio.gather(*(large(3) for _ in range(4)))
            small.stopping = True
            await task
            return outcomes

        before = memory_kb(sidecar.workers()[0])
        outcomes = asyncio.run(asyncio.wait_for(test(), DEADLINE_S))
        settle(sidecar)
        grown = memory_kb(sidecar.workers()[0]) - before
        print(f"{outcomes}, the worker has {grown} kB more")
        assert set(outcomes) == {"ok"}
        assert grown < 64 * 1024


def test_too_large_again_and_again(start: Start) -> None:
    """Bodies over the limit are stepped over without being kept, and the connection goes on."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))

        async def test() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port("in"))
            small = Consumer(Counter())
            for number in range(4):
                size = 32 * MIB
                writer.write(wire.frame(0xC2, 0, number, b"")[:12] + size.to_bytes(4, "big"))
                for _ in range(32):
                    writer.write(bytes(MIB))
                    await writer.drain()
                head = await reader.readexactly(16)
                await reader.readexactly(int.from_bytes(head[12:], "big"))
                assert (_ID(head, 4)[0], head[3]) == (number, 40)
                await small.call(reader, writer)
            assert small.outcomes == {"ok": 4}
            writer.close()

        before = memory_kb(sidecar.workers()[0])
        asyncio.run(asyncio.wait_for(test(), DEADLINE_S))
        assert memory_kb(sidecar.workers()[0]) - before < 16 * 1024
        settle(sidecar)


def test_garbage_beside_load(start: Start) -> None:
    """Connections that send anything disturb nobody."""
    seed = 1 if os.environ.get("MESH_PROXY_SAME_EXAMPLES") else random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))
        port = sidecar.port("in")

        def rubbish() -> bytes:
            kind = dice.randrange(5)
            if kind == 0:
                return dice.randbytes(dice.randrange(1, 5000))
            whole = wire.call(request_id=dice.getrandbits(31))
            if kind == 1:
                return whole[: dice.randrange(1, len(whole))]
            if kind == 2:
                return wire.frame(
                    dice.randrange(256), dice.randrange(256), dice.getrandbits(40), dice.randbytes(dice.randrange(200))
                )
            if kind == 3:
                spoiled = bytearray(whole)
                spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
                return bytes(spoiled)
            return wire.frame(0xC2, 0, 1, b"\x05" + dice.randbytes(300)) * dice.randrange(1, 20)

        def during(outcomes: Counter[str]) -> None:
            for _ in range(300):
                with socket.create_connection(("127.0.0.1", port)) as one:
                    one.sendall(rubbish())
                    if dice.random() < 0.5:
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            more(outcomes)

        outcomes = asyncio.run(load(port, 4, during))
        print(outcomes)
        assert set(outcomes) == {"ok"}
        until(
            "the end of all others", lambda: sidecar.settled({"dubbo.in.cx_active": 0, "dubbo.in.request_active": 0}), DEADLINE_S
        )


def test_a_thousand_connections(start: Start) -> None:
    """Each with a call in flight, all over few connections to the provider."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))

        async def test() -> Counter[str]:
            outcomes: Counter[str] = Counter()
            pairs = []
            for _ in range(1000):
                pairs.append(await asyncio.open_connection("127.0.0.1", sidecar.port("in")))
            slow = wire.call(method="slow")
            for _ in range(3):
                consumers = [Consumer(outcomes, slow) for _ in pairs]
                await asyncio.gather(*(one.call(*pair) for one, pair in zip(consumers, pairs, strict=True)))
            for _, writer in pairs:
                writer.close()
            return outcomes

        assert asyncio.run(asyncio.wait_for(test(), DEADLINE_S)) == {"ok": 3000}
        stats = sidecar.stats()
        assert stats["cluster.back.upstream_cx_total"] == 1
        until("the end of all connections", lambda: sidecar.settled({"dubbo.in.cx_active": 0}), DEADLINE_S)


def test_a_consumer_that_stops_reading(start: Start) -> None:
    """It is cut off when too much waits for it; the others on the same upstream connection go on, and memory goes back."""
    with ProviderProcess("one") as one:
        sidecar = start(config(one.port))
        port = sidecar.port("in")

        def during(outcomes: Counter[str]) -> None:
            more(outcomes, 50)
            with socket.create_connection(("127.0.0.1", port)) as stalled:
                stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                for number in range(12):
                    stalled.sendall(wire.call(method="big", request_id=number, types=wire.STRING, arguments=(f"#{6 * MIB}$",)))
                more(outcomes, 50)
                until("the cut", lambda: sidecar.stats().get("dubbo.in.response_error_caused_connection_close") == 1, DEADLINE_S)
            more(outcomes, 50)

        before = memory_kb(sidecar.workers()[0])
        outcomes = asyncio.run(load(port, 4, during))
        settle(sidecar)
        grown = memory_kb(sidecar.workers()[0]) - before
        print(f"{outcomes}, the worker has {grown} kB more")
        assert set(outcomes) == {"ok"}
        assert grown < 64 * 1024
        assert sidecar.stats()["cluster.back.upstream_cx_total"] == 1
