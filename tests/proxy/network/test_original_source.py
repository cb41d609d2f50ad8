"""Upstream connections in the names of callers, without the rights that foreign addresses take: from 127.0.0.x to 127.0.0.1."""

from __future__ import annotations

from bootstraps import options, web
from dubbo_support import wire
from dubbo_support.plane import read_frame
from e2e_support.backends import Grpc
from moving_support import Handing, planes
from original_source_support import (
    FILTER,
    FIRST,
    SECOND,
    Dubbo,
    Echo,
    Endpoints,
    Http1,
    Telling,
    all_left,
    asked,
    connect,
    dubbo_yaml,
    endpoint_of,
    plane,
)
from plane_support import head, run


def test_http1_connections_are_of_one_caller_each(no_rights_needed: None) -> None:
    """Keep-alive connections are used again, for connections from the same address only."""

    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            first, second = [await connect(one, "web", host) for host in (FIRST, SECOND)]
            for _ in range(3):
                for caller in (first, second):
                    assert (await asked(caller)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]
            again = await connect(one, "web", FIRST)
            await asked(again)
            assert there.hosts == [FIRST, SECOND]
            assert one.stat("cluster.a.", "upstream_cx_active") == 2

    run(test())


def test_http2_connections_are_of_one_caller_each(no_rights_needed: None) -> None:
    async def test() -> None:
        http2 = options("explicit_http_config: {http2_protocol_options: {}}")
        async with (
            Endpoints().serving(Grpc) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=http2)) as one,
        ):
            callers = [await connect(one, "web", host) for host in (FIRST, SECOND, FIRST, SECOND)]
            for reader, writer in callers:
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok")
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]

    run(test())


def test_dubbo_connections_are_of_one_consumer_each(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there, plane(dubbo_yaml(there)) as one:
            consumers = [await connect(one, "dubbo", host) for host in (FIRST, SECOND, FIRST)]
            for number in range(3):
                for reader, writer in consumers:
                    writer.write(wire.call(request_id=number))
                    assert await read_frame(reader) == wire.answer(number)
            assert there.hosts == [FIRST, SECOND]

    run(test())


def test_tcp(no_rights_needed: None) -> None:
    async def test() -> None:
        text = web(endpoint="<endpoint>").replace("- name: tcp\n", f"- name: tcp\n    {FILTER}\n")
        async with Endpoints().serving(Echo) as there, plane(text.replace("<endpoint>", there.address())) as one:
            for host in (FIRST, SECOND):
                reader, writer = await connect(one, "tcp", host)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            assert there.hosts == [FIRST, SECOND]

    run(test())


def test_without_the_filter_everybody_shares(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(endpoint=there.address())) as one:
            for host in (FIRST, SECOND):
                caller = await connect(one, "web", host)
                await asked(caller)
            assert there.hosts == ["127.0.0.1"]

    run(test())


def test_two_listeners_with_and_without_the_filter(no_rights_needed: None) -> None:
    """The pools of a cluster that both use are not mixed up, whoever comes first, also where requests go by their plans."""

    async def test() -> None:
        text = web(listener=FILTER, endpoint="<endpoint>")
        plain = text[text.index("  - name: web") : text.index("  - name: tcp")].replace("name: web", "name: plain")
        text = text.replace("  - name: tcp", plain.replace(FILTER, "") + "  - name: tcp", 1)
        async with Endpoints().serving(Telling) as there, plane(text.replace("<endpoint>", there.address())) as one:
            for listener in ("plain", "web", "plain", "web"):
                caller = await connect(one, listener, FIRST)
                for _ in range(6):  # so that its head becomes a known one
                    answer = await asked(caller)
                    assert answer.endswith(b"127.0.0.1" if listener == "plain" else FIRST.encode())
            assert there.hosts == ["127.0.0.1", FIRST]

    run(test())


def test_bind_port(no_rights_needed: None) -> None:
    """The caller's port, too."""

    async def test() -> None:
        listener = FILTER.replace("OriginalSrc}", "OriginalSrc, bind_port: true}")
        async with Endpoints().serving(Http1) as there, plane(web(listener=listener, endpoint=there.address())) as one:
            callers = [await connect(one, "web", FIRST) for _ in range(2)]
            for caller in callers:
                await asked(caller)
            assert there.peers == [writer.get_extra_info("sockname") for _, writer in callers]

    run(test())


def test_a_moved_connection_keeps_its_source(no_rights_needed: None) -> None:
    """Hot upgrade: the new process calls in the caller's name too."""

    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there:
            text = dubbo_yaml(there)
            async with planes(text, text) as [old, new]:
                reader, writer = await connect(old, "dubbo", FIRST)
                writer.write(wire.call(request_id=1))
                await read_frame(reader)
                await Handing(old, new).begin().done()
                writer.write(wire.call(request_id=2))
                assert await read_frame(reader) == wire.answer(2)
                assert there.hosts == [FIRST, FIRST]
                assert endpoint_of(new).pools
                await all_left(old, new)

    run(test())
