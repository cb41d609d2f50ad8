"""Limits and breakers in a running data plane: requests that really wait, breakers that open and close, rules of routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from bootstraps import ROUTER, web
from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import ANSWER, Plane, answer, at, head, plane, run, until, upstream

from mesh_filters import waiting_line

STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.'
HTTP = "type.googleapis.com/envoy.extensions.filters.http."


def ours(kind: str, rules: str, more: str = "") -> str:
    return f"{STRUCT}{kind}, value: {{rules: [{rules}]{more}}}"


def chain(*filters: str) -> str:
    named = [f"{{name: f{i}, typed_config: {{{one}}}}}" for i, one in enumerate(filters)]
    return f"http_filters: [{', '.join((*named, ROUTER))}]"


async def ask(proxy: Plane, path: str = "/", *headers: str) -> int:
    """The status of one request on a connection of its own."""
    reader, writer = await proxy.connect("web")
    more = "".join(f"{one}\r\n" for one in headers)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode())
    status = int((await head(reader)).split()[1])
    writer.close()
    return status


class Switch:
    """An endpoint that answers with a status of the test's choice."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            self.asked += 1
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)


async def until_status(proxy: Plane, wanted: int, path: str = "/") -> int:
    """Ask until that is the answer; how often it was another one."""
    others = 0
    while await ask(proxy, path) != wanted:
        others += 1
        await asyncio.sleep(0.01)
    return others


def test_requests_wait_for_their_moment() -> None:
    async def test() -> None:
        rules = ours("Pacing", "{rate: 20, max_wait: 30s}")
        async with upstream(answer) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            loop = asyncio.get_running_loop()
            started = loop.time()
            assert await asyncio.gather(*(ask(proxy) for _ in range(6))) == [200] * 6
            assert loop.time() - started >= 4 / 20, "five of them one after the other, or later"
            assert proxy.stat("http.web.pacing.", "passed") + proxy.stat("http.web.pacing.", "waited") == 6
            assert proxy.stat("http.web.pacing.", "waiting") == 0

    run(test())


@pytest.mark.parametrize(("kind", "name"), [("Pacing", "pacing"), ("HotParameters", "hot_parameters")])
def test_a_full_line_refuses_only_those_who_would_wait(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_line, "MAX_WAITING", 1)
    group = f"http.web.{name}."

    async def test() -> None:
        rules = ours(kind, "{by: [{header: user}], rate: 0.02, max_wait: 60s}")
        async with upstream(answer) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            assert await ask(proxy, "/", "user: a") == 200
            _, waiting = await proxy.connect("web")
            waiting.write(b"GET / HTTP/1.1\r\nhost: a\r\nuser: a\r\n\r\n")
            await until(lambda: proxy.stat(group, "waiting") == 1)
            assert await ask(proxy, "/", "user: b") == 200
            assert await ask(proxy, "/", "user: b") == 429
            assert proxy.stat(group, "refused") == 1
            waiting.close()
            await until(lambda: proxy.stat(group, "waiting") == 0)

    run(test())


def test_a_caller_that_leaves_waits_no_more() -> None:
    async def test() -> None:
        rules = ours("Pacing", "{rate: 0.02, max_wait: 60s}")
        async with upstream(answer) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            assert await ask(proxy) == 200
            _, writer = await proxy.connect("web")
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await until(lambda: proxy.stat("http.web.pacing.", "waiting") == 1)
            assert await ask(proxy) == 429, "its moment is still taken"
            writer.close()
            await until(lambda: proxy.stat("http.web.pacing.", "waiting") == 0)

    run(test())


def test_dubbo_calls_wait_too() -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(id_of(frame)) if frame[2] & 0xE0 == 0xC0 else None)
        filters = f"{{name: pace, config: {{{ours('Pacing', '{by: [call], rate: 20, max_wait: 30s}')}}}}}"
        async with proxied(provider, dubbo_filters=filters) as (one, [(reader, writer)]):
            writer.write(b"".join(wire.call(request_id=number) for number in range(5)))
            assert [id_of(await read_frame(reader)) for _ in range(5)] == list(range(5))
            assert one.stat("dubbo.d.pacing.", "waited") >= 1

    run(test())


@pytest.mark.parametrize("kind", ["kind: error_count, threshold: 1", "kind: error_ratio, threshold: 0.5"])
def test_a_breaker_opens_and_closes_with_its_service(kind: str) -> None:
    async def test() -> None:
        switch = Switch()
        rules = ours("CircuitBreaker", f"{{by: [call], {kind}, min_requests: 2, window: 60s, open_for: 0.2s}}")
        async with upstream(switch.serve) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            assert await ask(proxy, "/good") == 200
            switch.status = 500
            assert await ask(proxy, "/bad?a=1") == 500
            assert await ask(proxy, "/bad?a=2") == 500
            asked = switch.asked
            assert proxy.stat("http.web.circuit_breaker.", "opened") == 1
            assert await ask(proxy, "/good") == 500, "each has its own"
            assert switch.asked == asked + 1
            assert await until_status(proxy, 500, "/bad") >= 0, "a probe that fails"
            assert proxy.stat("http.web.circuit_breaker.", "half_opened") >= 1
            switch.status = 200
            await until_status(proxy, 200, "/bad")
            assert proxy.stat("http.web.circuit_breaker.", "closed") == 1
            assert [await ask(proxy, "/bad") for _ in range(3)] == [200, 200, 200]

    run(test())


def test_grpc_statuses_open_a_breaker() -> None:
    async def test() -> None:
        statuses = [b"14", b"0"]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: %b\r\ncontent-length: 0\r\n\r\n"
                    % statuses.pop(0)
                )

        rules = ours("CircuitBreaker", "{kind: error_count, threshold: 0, min_requests: 1, open_for: 60s}")
        async with upstream(serve) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            assert await ask(proxy) == 200
            assert await ask(proxy) == 503

    run(test())


def test_what_other_filters_refuse_opens_nothing() -> None:
    async def test() -> None:
        bucket = "token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 1000s}"
        on = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"
        limit = f'"@type": {HTTP}local_ratelimit.v3.LocalRateLimit, stat_prefix: rl, {bucket}, {on}, status: {{code: 503}}'
        rules = ours("CircuitBreaker", "{kind: error_count, threshold: 0, min_requests: 1, open_for: 60s}")
        async with upstream(answer) as address, plane(web(hcm=chain(rules, limit), endpoint=at(address))) as proxy:
            assert [await ask(proxy) for _ in range(4)] == [200, 503, 503, 503]
            assert proxy.stat("http.web.circuit_breaker.", "opened") == 0
            assert proxy.stat("http.web.circuit_breaker.", "passed") == 4

    run(test())


def test_a_route_has_breakers_of_its_own() -> None:
    async def test() -> None:
        switch = Switch()
        switch.status = 503
        never = ours("CircuitBreaker", "{kind: error_count, threshold: 1000}")
        quick = ours("CircuitBreaker", "{kind: error_count, threshold: 0, min_requests: 1, open_for: 60s}", ", status: 599")
        routes = (
            f"match: {{prefix: /quick}}, route: {{cluster: a}}, typed_per_filter_config: {{f0: {{{quick}}}}}}}, "
            "{match: {prefix: /}, route: {cluster: a}"
        )
        async with upstream(switch.serve) as address, plane(web(hcm=chain(never), endpoint=at(address), route=routes)) as proxy:
            assert [await ask(proxy, "/quick"), await ask(proxy, "/quick")] == [503, 599]
            assert [await ask(proxy) for _ in range(3)] == [503, 503, 503]

    run(test())


async def hold(proxy: Plane, ready: Callable[[], bool], *headers: str) -> asyncio.StreamWriter:
    """A request that stays under way."""
    _, writer = await proxy.connect("web")
    writer.write(f"GET /held HTTP/1.1\r\nhost: a\r\n{''.join(f'{one}' + chr(13) + chr(10) for one in headers)}\r\n".encode())
    await until(ready)
    return writer


def test_requests_under_way_are_counted_until_they_end() -> None:
    async def test() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while b"/held" not in await head(reader):
                writer.write(ANSWER)
            await reader.read()

        rules = ours("ConcurrencyLimit", "{max: 3}, {by: [{header: x-user}], max: 1}")
        async with upstream(serve) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            prefix = "http.web.concurrency_limit."
            first = await hold(proxy, lambda: proxy.stat(prefix, "active") == 1, "x-user: u1")
            assert await ask(proxy, "/", "x-user: u1") == 503
            assert await ask(proxy, "/", "x-user: u2") == 200
            second = await hold(proxy, lambda: proxy.stat(prefix, "active") == 2, "x-user: u2")
            third = await hold(proxy, lambda: proxy.stat(prefix, "active") == 3, "x-user: u3")
            assert await ask(proxy, "/", "x-user: u4") == 503
            for writer in (first, second, third):
                writer.close()
            await until(lambda: proxy.stat(prefix, "active") == 0)
            assert await ask(proxy, "/", "x-user: u1") == 200
            assert proxy.stat(prefix, "refused") == 2

    run(test())


def test_values_have_limits_of_their_own() -> None:
    async def test() -> None:
        rules = ours("HotParameters", "{by: [{header: x-user}], rate: 0.001, burst: 2, values: {vip: 1000}}")
        async with upstream(answer) as address, plane(web(hcm=chain(rules), endpoint=at(address))) as proxy:
            assert [await ask(proxy, "/", "x-user: u1") for _ in range(3)] == [200, 200, 429]
            assert [await ask(proxy, "/", "x-user: u2") for _ in range(3)] == [200, 200, 429]
            assert [await ask(proxy, "/", "x-user: vip") for _ in range(5)] == [200] * 5
            assert [await ask(proxy) for _ in range(5)] == [200] * 5, "without the value"

    run(test())


def test_bbr_looks_at_the_machine() -> None:
    async def test() -> None:
        calm = f"{STRUCT}AdaptiveConcurrency, value: {{algorithm: bbr, load: 100000}}"
        async with upstream(answer) as address, plane(web(hcm=chain(calm), endpoint=at(address))) as proxy:
            assert await asyncio.gather(*(ask(proxy) for _ in range(10))) == [200] * 10
            assert proxy.stat("http.web.adaptive_concurrency.bbr.", "overloaded") == 0

    run(test())
