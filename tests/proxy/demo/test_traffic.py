"""The demo's caller against the demo's service, in one loop and without a sidecar."""

import asyncio
from collections import Counter

import pytest

from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import RULES, WEIGHTED, Rule
from mesh_proxy.demo.service import Service, ServiceProtocol
from mesh_proxy.demo.traffic import Answer, judge, send

FIRST = (("x-envoy-attempt-count", "1"),)


async def with_service(service: Service, rules: list[Rule], connections: int = 3) -> dict[str, Counter[str]]:
    """Send straight to the service; the right answers and the failures by rule name, for the rules that were sent."""
    server = await asyncio.get_running_loop().create_server(lambda: ServiceProtocol(service), "127.0.0.1", 0)
    seen: list[int] = []
    try:
        results = await send(rules, Door(server.sockets[0].getsockname()[1]), connections, seen.append)
    finally:
        server.close()
    assert seen == list(range(1, len(rules) + 1))
    assert sum(result.sent for result in results.values()) == len(rules)
    return {name: result.answered + result.failures for name, result in results.items() if result.sent}


def test_answers_are_counted_by_who_gave_them() -> None:
    assert asyncio.run(with_service(Service("v1"), [WEIGHTED] * 50)) == {WEIGHTED.name: Counter(v1=50)}


def test_every_third_first_attempt_fails_at_the_flaky_service() -> None:
    rule = Rule(RULES[0].name, "/flaky", {"flaky": 1.0}, 100, headers=FIRST)
    found = asyncio.run(with_service(Service("flaky", 3), [rule] * 9))
    assert found == {rule.name: Counter({"flaky": 6, "status 503 instead of 200": 3})}


def test_later_attempts_never_fail() -> None:
    assert Service("flaky", 1).answer(b"GET / HTTP/1.1\r\nx-envoy-attempt-count: 2\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert Service("flaky", 1).answer(b"GET / HTTP/1.1\r\nx-envoy-attempt-count: 1\r\n\r\n").startswith(b"HTTP/1.1 503 ")


def test_a_head_request_gets_no_body() -> None:
    assert Service("v1").answer(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


async def talk(*pieces: bytes) -> bytes:
    """Raw bytes to a service, in several writes; all that it says until it has nothing more to say or closes."""
    server = await asyncio.get_running_loop().create_server(lambda: ServiceProtocol(Service("v1")), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    finally:
        server.close()
    return answer


def test_pipelined_requests_and_bodies_cut_anywhere() -> None:
    post = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    answer = asyncio.run(talk(post[:10], post[10:40], post[40:] + b"GET /b HTTP/1.1\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"POST /a answered by v1\n" in answer
    assert b"GET /b answered by v1\n" in answer


def test_a_request_without_end_is_refused() -> None:
    assert asyncio.run(talk(b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000)).startswith(b"HTTP/1.1 413 ")


def test_nobody_listens() -> None:
    async def run() -> dict[str, Counter[str]]:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return {name: result.failures for name, result in (await send([WEIGHTED], Door(port), 1)).items() if result.sent}

    assert asyncio.run(run()) == {WEIGHTED.name: Counter({"no answer: ConnectionRefusedError": 1})}


@pytest.mark.parametrize(
    ("status", "location", "wrong"),
    [
        (301, "http://shop.demo/new/cart", ""),
        (302, "http://shop.demo/new/cart", "status 302 instead of 301"),
        (301, "http://shop.demo/old/cart", "location 'http://shop.demo/old/cart' instead of …/new/cart"),
    ],
)
def test_a_redirect_must_lead_somewhere(status: int, location: str, wrong: str) -> None:
    rule = next(rule for rule in RULES if rule.location)
    assert judge(rule, Answer(status, {"location": location}, b"")) == wrong
