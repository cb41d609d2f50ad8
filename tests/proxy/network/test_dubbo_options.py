"""Options of Dubbo routes: time-outs, retries, mirrors, fallback."""

from __future__ import annotations

import socket

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import named
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import plane, run, until

from mesh_proxy.config.model import AddressConfig

SERVER_TIMEOUT = 31


def closed_port(sockets: list[socket.socket]) -> AddressConfig:
    """An address that refuses, for as long as the socket is kept."""
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    sockets.append(one)
    return AddressConfig(host="127.0.0.1", port=one.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "attachments"),
    [
        ("timeout: 1s", {}),
        ("use_request_timeout: true", {"timeout": "1000"}),
        ("use_request_timeout: true", {"_TO": 1000, "timeout": "100000"}),
        ("use_request_timeout: true, timeout: 600s", {"timeout": "1000"}),
        ("use_request_timeout: true, timeout: 1s", {"timeout": "600000"}),
    ],
)
def test_time_out(options: str, attachments: dict[str, object]) -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, routes=route(route_options=options)) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1, attachments=attachments))
            frame = await read_frame(reader)
            assert (id_of(frame), frame[3]) == (1, SERVER_TIMEOUT)
            assert b"mesh-proxy: timeout, cluster a" in frame
            late, upstream = await provider.next()
            upstream.write(wire.answer(id_of(late)))
            await until(lambda: one.stat("dubbo.d.", "response_unexpected") == 1)
            assert one.stat("dubbo.d.", "request_timeout") == 1
            assert one.stat("cluster.a.", "upstream_rq_timeout") == 1
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            provider.answer = named("hi")
            writer.write(wire.call(request_id=2, attachments={"timeout": "0"}))
            assert await read_frame(reader) == wire.answer(2)

    run(test())


def test_connect_failures_are_tried_elsewhere() -> None:
    async def test() -> None:
        sockets: list[socket.socket] = []
        provider = Provider(named("good"))
        options = "retry_policy: {retry_on: [connect-failure], num_retries: 3}"
        async with served(provider) as (good,):
            text = bootstrap({"a": [closed_port(sockets), good]}, routes=route(route_options=options))
            async with plane(text) as one:
                reader, writer = await one.connect("dubbo")
                for number in range(6):
                    writer.write(wire.call(request_id=number))
                    assert await read_frame(reader) == wire.answer(number, "good")
                assert one.stat("cluster.a.", "upstream_rq_retry") > 0
                assert one.data._context.clusters.get("a").default.retries == 0  # type: ignore[union-attr]
                writer.close()
        sockets[0].close()

    run(test())


def test_retries_end() -> None:
    async def test() -> None:
        sockets: list[socket.socket] = []
        options = "retry_policy: {retry_on: [connect-failure], num_retries: 2}"
        async with plane(bootstrap({"a": [closed_port(sockets)]}, routes=route(route_options=options))) as one:
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            frame = await read_frame(reader)
            assert (id_of(frame), frame[3]) == (1, 80)
            assert one.stat("cluster.a.", "upstream_cx_total") == 3
            assert one.stat("cluster.a.", "upstream_rq_retry_limit_exceeded") == 1
            assert one.data._context.clusters.get("a").default.retries == 0  # type: ignore[union-attr]
            writer.close()
        sockets[0].close()

    run(test())


def test_chosen_statuses_are_tried_again() -> None:
    async def test() -> None:
        busy = Provider(lambda frame: wire.error(id_of(frame), 100, "busy"))
        good = Provider(named("good"))
        options = "retry_policy: {retriable_statuses: [100], num_retries: 1}"
        async with proxied(busy, good, routes=route(route_options=options)) as (one, [(reader, writer)]):
            for number in range(4):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number, "good")
            assert len(busy.frames) == one.stat("dubbo.d.", "request_retry") > 0
            assert {frame[16:] for frame in busy.frames} == {wire.call()[16:]}

    run(test())


@pytest.mark.parametrize(("words", "retried"), [("[connect-failure]", False), ("[connect-failure, reset]", True)])
def test_a_call_that_was_sent_is_tried_again_only_if_that_is_wanted(words: str, retried: bool) -> None:
    async def test() -> None:
        dies, good = Provider(), Provider(named("good"))
        options = f"retry_policy: {{retry_on: {words}, num_retries: 1}}"
        async with proxied(dies, good, routes=route(route_options=options)) as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=2))
            _, upstream = await dies.next()
            upstream.close()
            answers = [await read_frame(reader), await read_frame(reader)]
            assert sorted(map(id_of, answers)) == [1, 2]
            assert sorted(frame[3] for frame in answers) == ([20, 20] if retried else [20, 80])

    run(test())


def test_an_attempt_that_takes_too_long_is_tried_elsewhere() -> None:
    async def test() -> None:
        silent, good = Provider(), Provider(named("good"))
        options = "timeout: 60s, retry_policy: {retry_on: [reset], num_retries: 2, per_try_timeout: 1s}"
        async with proxied(silent, good, routes=route(route_options=options)) as (one, [(reader, writer)]):
            for number in range(2):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number, "good")
            assert one.stat("cluster.a.", "upstream_rq_per_try_timeout") >= 1
            assert one.stat("cluster.a.", "upstream_rq_active") == 0

    run(test())


@pytest.mark.parametrize("one_way", [False, True])
def test_mirrors_get_a_copy_that_nobody_waits_for(one_way: bool) -> None:
    async def test() -> None:
        main, shadow = Provider(named("main")), Provider()
        options = "request_mirror_policies: [{cluster: b}, {cluster: nowhere}]"
        async with (
            served(main, shadow) as (first, second),
            plane(bootstrap({"a": [first], "b": [second]}, routes=route(route_options=options))) as one,
        ):
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1, one_way=one_way) + wire.call(request_id=2))
            if not one_way:
                assert await read_frame(reader) == wire.answer(1, "main")
            assert await read_frame(reader) == wire.answer(2, "main")
            copy, upstream = await shadow.next()
            assert copy[16:] == wire.call()[16:]
            upstream.write(wire.answer(id_of(copy), "shadow"))
            _, _ = await shadow.next()
            writer.write(wire.heartbeat(3))
            assert await read_frame(reader) == wire.heartbeat_answer(3)
            assert one.stat("dubbo.d.", "request_mirrored") == 2
            writer.close()

    run(test())


@pytest.mark.parametrize("cluster", ["nowhere", "empty"])
def test_fallback(cluster: str) -> None:
    async def test() -> None:
        provider = Provider(named("fallback"))
        async with (
            served(provider) as (address,),
            plane(bootstrap({"b": [address], "empty": []}, routes=route(cluster, route_options="fallback_cluster: b"))) as one,
        ):
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1, "fallback")
            assert one.stat("dubbo.d.", "request_fallback") == 1
            writer.close()

    run(test())


def test_outlier_detection_ejects_a_provider_that_fails() -> None:
    async def test() -> None:
        bad, good = Provider(lambda frame: wire.error(id_of(frame), 80, "broken")), Provider(named("good"))
        fields = "outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 50}"
        async with proxied(bad, good, cluster_fields=fields) as (one, [(reader, writer)]):
            for number in range(40):
                writer.write(wire.call(request_id=number))
                await read_frame(reader)
            assert len(bad.frames) == 3
            assert len(good.frames) == 37
            assert one.stat("cluster.a.outlier_detection.", "ejections_active") == 1

    run(test())
