"""Pools of one caller each: they go when they are idle, and there is a limit to their number."""

from __future__ import annotations

from typing import Any

import pytest
from bootstraps import options, web
from dubbo_support import wire
from dubbo_support.plane import id_of, read_frame
from e2e_support.backends import Grpc
from original_source_support import (
    FILTER,
    FIRST,
    SECOND,
    Dubbo,
    Endpoints,
    Http1,
    asked,
    connect,
    dubbo_yaml,
    endpoint_of,
    plane,
    pools_of,
)
from plane_support import ANSWER, GET, head, run, until

from mesh_proxy.network.original_source import OriginalSource
from mesh_proxy.upstream import source_pools

FAST_IDLE = "common_http_protocol_options: {idle_timeout: 0.2s}"


@pytest.mark.parametrize("http2", [False, True])
def test_pools_go_when_they_are_idle(no_rights_needed: None, http2: bool) -> None:
    async def test() -> None:
        http = "http2_protocol_options: {}" if http2 else "http_protocol_options: {}"
        cluster = options(f"{FAST_IDLE}, explicit_http_config: {{{http}}}")
        kind = Grpc if http2 else Http1
        async with (
            Endpoints().serving(kind) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=cluster)) as one,
        ):
            callers = [await connect(one, "web", f"127.0.0.{number}") for number in range(21, 26)]
            for reader, writer in callers:
                writer.write(GET)
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
            assert len(set(there.hosts)) == 5
            await until(lambda: pools_of(one) == 0 and there.open == 0)
            assert one.stat("cluster.a.", "upstream_cx_idle_timeout") == 5

    run(test())


def test_a_dubbo_pool_goes_with_its_connection(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there, plane(dubbo_yaml(there)) as one:
            reader, writer = await connect(one, "dubbo", FIRST)
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            [pool] = endpoint_of(one).pools.values()
            pool.drain()
            await until(lambda: pools_of(one) == 0)
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            assert there.hosts == [FIRST, FIRST]

    run(test())


def test_too_many_callers(no_rights_needed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle pool makes room for another caller; where all are busy the request is refused."""
    monkeypatch.setattr(source_pools.make_room, "__defaults__", (3,))
    waiting: list[Any] = []

    class Holding(Http1):
        def data_received(self, data: bytes) -> None:
            if b"/hold" in data:
                waiting.append(self.transport)
            else:
                super().data_received(data)

    async def test() -> None:
        async with Endpoints().serving(Holding) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            callers = [await connect(one, "web", f"127.0.0.{number}") for number in range(21, 31)]
            for caller in callers:
                assert (await asked(caller)).startswith(b"HTTP/1.1 200")
                assert pools_of(one) <= 3
            await until(lambda: there.open == 3)
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 0
            for _, writer in callers[:3]:
                writer.write(GET.replace(b"GET /", b"GET /hold"))
            await until(lambda: len(waiting) == 3)
            answer = await asked(callers[3])
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"reset reason: overflow" in answer
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 1
            for transport in waiting:
                transport.write(ANSWER)
            for reader, _ in callers[:3]:
                assert (await head(reader)).startswith(b"HTTP/1.1 200")

    run(test())


def test_too_many_consumers(no_rights_needed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_pools.make_room, "__defaults__", (1,))

    class Holding(Dubbo):
        def data_received(self, data: bytes) -> None:
            pass

    async def test() -> None:
        async with Endpoints().serving(Holding) as there, plane(dubbo_yaml(there)) as one:
            first, second = [await connect(one, "dubbo", host) for host in (FIRST, SECOND)]
            first[1].write(wire.call(request_id=1))
            await until(lambda: there.open == 1)
            second[1].write(wire.call(request_id=2))
            frame = await read_frame(second[0])
            assert (id_of(frame), frame[3] == 20) == (2, False)
            assert there.hosts == [FIRST]
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 1

    run(test())


def test_the_circuit_breaker_counts_the_connections_of_all_callers(no_rights_needed: None) -> None:
    """Beyond it each caller still gets one connection, as with Envoy, whose pools are as many."""

    async def test() -> None:
        cluster = "circuit_breakers: {thresholds: [{max_connections: 1}]}"
        async with (
            Endpoints().serving(Http1) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=cluster)) as one,
        ):
            for host in (FIRST, SECOND):
                caller = await connect(one, "web", host)
                assert (await asked(caller)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]
            assert one.stat("cluster.a.", "upstream_cx_overflow") == 1
            assert one.stat("cluster.a.", "upstream_cx_active") == 2

    run(test())


def test_pools_are_told_apart_by_address_port_and_mark() -> None:
    sources = [OriginalSource(host, port, mark) for host in ("10.0.0.1", "::1") for port in (0, 1) for mark in (0, 1)]
    assert len({one.key for one in sources}) == len(sources)
