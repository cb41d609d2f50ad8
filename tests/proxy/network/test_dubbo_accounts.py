"""Counts of Dubbo calls and connections are right at the end, however a call ended; and no call is run twice unasked."""

from __future__ import annotations

import asyncio

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import full_endpoint, named
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import Plane, plane, run, until

from mesh_proxy.network.dubbo_connection import DubboConnection
from mesh_proxy.stream import dubbo_mirror


def totals(one: Plane, cluster: str = "a") -> tuple[int, int, int, int]:
    """What the circuit breaker has counted: connections, pending requests, requests, retries."""
    found = one.data._context.clusters.get(cluster)
    assert found is not None
    return found.default.totals()


@pytest.mark.parametrize("words", ["connect-failure", "connect-failure, reset"])
def test_answers_behind_too_many_events_release_nothing_twice(words: str) -> None:
    """The events end the connection and its calls; what follows in the same read is nobody's."""

    async def test() -> None:
        provider = Provider()
        options = f"retry_policy: {{retry_on: [{words}], num_retries: 1}}"
        async with proxied(provider, routes=route(route_options=options)) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            provider.answer = named("again")
            upstream.write(wire.heartbeat(7) * 101 + wire.answer(id_of(frame), "late"))
            got = await read_frame(reader)
            assert id_of(got) == 1
            if "reset" in words:
                assert got == wire.answer(1, "again")
            else:
                assert got[3] == 80
            # Behind it nothing else comes for this call.
            writer.write(wire.heartbeat(3))
            assert await read_frame(reader) == wire.heartbeat_answer(3)
            assert totals(one)[2] == 0
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_a_retry_that_ends_in_the_fallback_cluster_is_given_back_where_it_was_taken() -> None:
    async def test() -> None:
        broken, good = Provider(lambda frame: wire.error(id_of(frame), 80, "broken")), Provider(named("fallback"))
        fields = (
            "common_lb_config: {healthy_panic_threshold: {value: 0}}, "
            "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100, enforcing_consecutive_5xx: 100}"
        )
        options = "fallback_cluster: b, retry_policy: {retriable_statuses: [80], num_retries: 1}"
        async with (
            served(broken, good) as (first, second),
            plane(bootstrap({"a": [first], "b": [second]}, routes=route(route_options=options), cluster_fields=fields)) as one,
        ):
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1, "fallback")
            assert one.stat("dubbo.d.", "request_retry") == 1
            assert totals(one, "a")[1:] == (0, 0, 0)
            assert totals(one, "b")[1:] == (0, 0, 0)
            writer.close()

    run(test())


def test_a_connection_that_only_one_way_calls_used_up_is_closed() -> None:
    async def test() -> None:
        provider = Provider(named("hi"))
        async with proxied(provider, cluster_fields="max_requests_per_connection: 1") as (one, [(_, writer)]):
            for number in range(3):
                writer.write(wire.call(request_id=number, one_way=True))
                await provider.next()
            await until(lambda: provider.closed == 3)
            assert len(provider.frames) == 3
            await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)

    run(test())


def test_a_one_way_call_that_waits_for_a_pinned_connection_when_its_consumer_leaves() -> None:
    async def test() -> None:
        with full_endpoint() as address:
            options = "retry_policy: {retry_on: [connect-failure], num_retries: 2}"
            text = bootstrap({"a": [address]}, routes=route(route_options=options), cluster_options="pinning: ALWAYS")
            async with plane(text) as one:
                _, writer = await one.connect("dubbo")
                writer.write(wire.call(request_id=1, one_way=True) + wire.call(request_id=2))
                await until(lambda: one.stat("cluster.a.", "upstream_rq_pending_active") == 2)
                writer.close()
                await until(lambda: one.stat("dubbo.d.", "cx_active") == 0)
                await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
                assert one.stat("cluster.a.", "upstream_rq_pending_active") == 0
                assert one.stat("dubbo.d.", "request_active") == 0
                assert totals(one) == (0, 0, 0, 0)
                (endpoint,) = one.data._context.clusters.get("a").endpoints  # type: ignore[union-attr]
                assert not any(name.startswith("dubbo pinned") for name in endpoint.pools)

    run(test())


def test_a_slow_attempt_is_not_tried_again_if_only_calls_that_were_never_sent_are() -> None:
    """The provider may be running it: `per_try_timeout` bounds the attempt, `reset` allows a second one."""

    async def test() -> None:
        silent, other = Provider(), Provider()
        options = "retry_policy: {retry_on: [connect-failure], num_retries: 2, per_try_timeout: 1s}"
        async with proxied(silent, other, routes=route(route_options=options)) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            frame = await read_frame(reader)
            assert (id_of(frame), frame[3]) == (1, 31)
            assert one.stat("cluster.a.", "upstream_rq_per_try_timeout") == 1
            assert one.stat("cluster.a.", "upstream_rq_retry") == 0
            assert len(silent.frames) + len(other.frames) == 1
            assert totals(one)[1:] == (0, 0, 0)

    run(test())


def test_words_on_a_later_connection_are_answered_too() -> None:
    async def test() -> None:
        async with proxied(Provider(named("hi")), consumers=2) as (_, [(reader, writer), (typed, typist)]):
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1)
            typist.write(b"status\r\n")
            assert await typed.read() == b"mesh-proxy: telnet commands are not served here\r\n"
            # Not behind frames, though: that is a peer which lost its place.
            writer.write(b"status\r\n")
            assert await reader.read() == b""

    run(test())


def test_nothing_is_left_when_a_provider_goes_with_a_hundred_calls() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=2) as (one, consumers):
            for _, writer in consumers:
                writer.write(b"".join(wire.call(request_id=-number) for number in range(50)))
            upstream: asyncio.StreamWriter | None = None
            for _ in range(100):
                _, upstream = await provider.next()
            assert upstream is not None
            upstream.transport.abort()
            for reader, writer in consumers:
                ids = [id_of(await read_frame(reader)) for _ in range(50)]
                assert sorted(ids) == list(range(-49, 1))
                writer.write(wire.heartbeat(3))
                assert await read_frame(reader) == wire.heartbeat_answer(3)
            assert totals(one)[1:] == (0, 0, 0)
            await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
            assert one.stat("cluster.a.", "upstream_rq_active") == 0
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


HELD = (
    "{name: fault, config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, "
    "delay: {fixed_delay: 0.2s, percentage: {numerator: 100}}}}"
)


def test_a_held_one_way_call_whose_consumer_left_pins_nothing() -> None:
    """Nobody would ever close a connection that belongs to a consumer who is gone."""

    async def test() -> None:
        provider = Provider(named("hi"))
        async with proxied(provider, dubbo_filters=HELD, cluster_options="pinning: ALWAYS") as (one, [(_, writer)]):
            writer.write(wire.call(request_id=1, one_way=True))
            await until(lambda: one.stat("dubbo.d.", "request_active") == 1)
            writer.close()
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 0)
            await provider.next()
            (endpoint,) = one.data._context.clusters.get("a").endpoints  # type: ignore[union-attr]
            assert not any(name.startswith("dubbo pinned") for name in endpoint.pools)
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


@pytest.mark.parametrize("timeout", ["timeout: 1s, ", ""])
def test_copies_that_nobody_answers_give_their_slots_back(timeout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a silent shadow would use up the circuit breaker of its cluster, also where the route has no time-out."""
    monkeypatch.setattr(dubbo_mirror, "TIMEOUT_S", 0.1)

    async def test() -> None:
        main, shadow = Provider(named("main")), Provider()
        options = f"{timeout}request_mirror_policies: [{{cluster: b}}]"
        async with (
            served(main, shadow) as (first, second),
            plane(bootstrap({"a": [first], "b": [second]}, routes=route(route_options=options))) as one,
        ):
            reader, writer = await one.connect("dubbo")
            for number in range(3):
                writer.write(wire.call(request_id=number))
                assert await read_frame(reader) == wire.answer(number, "main")
                copy, upstream = await shadow.next()
            await until(lambda: totals(one, "b") == (1, 0, 0, 0))
            assert one.stat("cluster.b.", "upstream_rq_active") == 0
            assert one.stat("dubbo.d.", "request_timeout") == 0
            upstream.write(wire.answer(id_of(copy)))
            await until(lambda: one.stat("dubbo.d.", "response_unexpected") == 1)
            writer.close()

    run(test())


def test_a_line_longer_than_a_connection_may_carry_waits_for_nobodys_answer() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, cluster_fields="max_requests_per_connection: 2") as (one, [(_, writer)]):
            writer.write(b"".join(wire.call(request_id=number) for number in range(5)))
            for _ in range(5):
                await provider.next()  # none is answered
            assert len(provider.connections) == 3
            assert one.stat("cluster.a.", "upstream_rq_pending_active") == 0

    run(test())


def test_a_second_pinned_connection_goes_with_the_first() -> None:
    """It was opened behind one that was used up; when that one ends, the consumer is told to start anew."""

    async def test() -> None:
        provider = Provider()
        options = {"cluster_options": "pinning: ALWAYS", "cluster_fields": "max_requests_per_connection: 2"}
        async with proxied(provider, **options) as (one, [(reader, writer)]):
            sent = []
            for number in range(3):
                writer.write(wire.call(request_id=number))
                sent.append(await provider.next())
            assert len(provider.connections) == 2
            for frame, upstream in reversed(sent):
                upstream.write(wire.answer(id_of(frame)))
                await read_frame(reader)
            assert await reader.read() == b""
            writer.close()
            await until(lambda: provider.closed == 2)
            await until(lambda: one.stat("cluster.a.", "upstream_cx_active") == 0)
            assert totals(one) == (0, 0, 0, 0)

    run(test())


def test_a_consumer_that_leaves_in_the_turn_in_which_it_pinned() -> None:
    """The task that was to connect is cancelled before its first step, so that nothing in it counts down."""

    async def test() -> None:
        provider = Provider(named("hi"))
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            (connection,) = (c for listener in one.data._listeners.values() for c in listener.connections)
            assert isinstance(connection, DubboConnection)
            cluster = one.data._context.clusters.get("a")
            assert cluster is not None
            pool = connection.pin(cluster, cluster.endpoints[0])
            pool._open_missing()
            assert totals(one)[0] == 2
            pool.close()
            await until(lambda: totals(one)[0] == 1)
            assert one.stat("cluster.a.", "upstream_cx_active") == 1
            assert not pool.connecting

    run(test())
