"""Filters that look at every request: what they leave as it was goes on as planned, and what they change does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from bootstraps import web
from http1_support import forget_heads
from label_support import chain, endpoints, lb
from plane_support import Plane, head, plane, run, upstream

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_filters.async_filter import AsyncFilter
from mesh_filters.definition import FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_proxy.config import registry
from mesh_proxy.stream.http_stream import HttpStream
from mesh_proxy.stream.request_plan import RequestPlans

STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/tests.'
_ID = re.compile(rb"x-request-id: [0-9a-f-]{36}\r\n")
NOTHING = "nothing"
ACTIONS: dict[str, Callable[[Any, RequestHeaders], object]] = {
    NOTHING: lambda stream, event: None,
    "set": lambda stream, event: event.headers.set(b"x-new", b"1"),
    "replace": lambda stream, event: event.headers.set(b"user-id", b"7"),
    "remove": lambda stream, event: event.headers.remove(b"user-id"),
    "repeat": lambda stream, event: event.headers.add(b"user-id", b"8"),
    "id": lambda stream, event: event.headers.set(b"x-request-id", b"mine"),
    "no id": lambda stream, event: event.headers.remove(b"x-request-id"),
    "path": lambda stream, event: setattr(event, "path", b"/other?x=1"),
    "authority": lambda stream, event: setattr(event, "authority", b"elsewhere"),
    "method": lambda stream, event: setattr(event, "method", b"PUT"),
    "time-out": lambda stream, event: event.headers.set(b"x-envoy-upstream-rq-timeout-ms", b"9000"),
    "retry": lambda stream, event: event.headers.set(b"x-envoy-retry-on", b"5xx"),
    "grpc": lambda stream, event: event.headers.set(b"content-type", b"application/grpc"),
    "route": lambda stream, event: (event.headers.set(b"x-to", b"b"), stream.clear_route()),
    "route again": lambda stream, event: stream.clear_route(),
    "cluster": lambda stream, event: stream.use_cluster("b"),
    "same cluster": lambda stream, event: stream.target_cluster(),
    "labels": lambda stream, event: setattr(stream, "labels", (("version", "gray"),)),
    "answer": lambda stream, event: stream.send_local_reply(403, b"no", details="no"),
}


@dataclass(frozen=True)
class Changes(Filter):
    """Does to each request what comes next in the script."""

    script: ClassVar[Iterator[str]] = iter(())

    def factory(self, context: FilterContext) -> Filter:
        return Changes()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        name = next(self.script)
        ACTIONS[name](stream, event)
        return FilterStatus.STOP if name == "answer" else FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        event.headers.set(b"x-seen", b"response")
        return FilterStatus.CONTINUE


@dataclass(frozen=True)
class Waits:
    """The same, after a while."""

    def factory(self, context: FilterContext) -> Any:
        return Waiter


class Waiter(AsyncFilter):
    async def before_request(self, stream: Stream, event: RequestHeaders) -> None:
        await asyncio.sleep(0)
        name = next(Changes.script)
        ACTIONS[name](stream, event)


@pytest.fixture(autouse=True)
def filters() -> Iterator[None]:
    made = [
        FilterDefinition(type_url="tests.Changes", configure=lambda _: Changes()),
        FilterDefinition(type_url="tests.Waits", configure=lambda _: Waits()),
    ]
    for one in made:
        registry.register_definition(one)
    yield
    for one in made:
        registry.unregister_http_filter(one.type_url)


async def outcome(name: str, body: bytes, script: list[str]) -> list[tuple[str, bytes, bytes]]:
    """For each request of the script: who got it and what, and the answer's head."""
    got: list[tuple[str, bytes]] = []

    def serve(who: str) -> Any:
        async def endpoint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):
                while True:
                    raw = await head(reader)
                    assert await reader.readexactly(len(body)) == body
                    got.append((who, _ID.sub(b"x-request-id: new\r\n", raw)))
                    writer.write(b"HTTP/1.1 200 OK\r\nserver: s\r\ncontent-length: 0\r\n\r\n")

        return endpoint

    routes = (
        "routes: [{match: {prefix: /, headers: [{name: x-to, string_match: {exact: b}}]}, route: {cluster: b}}, "
        "{match: {prefix: /}, route: {cluster: a}}]"
    )
    answers: list[tuple[str, bytes, bytes]] = []
    async with AsyncExitStack() as stack:
        made = {who: await stack.enter_async_context(upstream(serve(who))) for who in ("trunk", "gray", "b")}
        b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{lb(made['b'])}]}}]}}"
        chained = chain(f"{{name: c, typed_config: {{{STRUCT}{name}}}}}")
        text = web(hcm=chained, host=routes, cluster=endpoints(lb(made["trunk"], health="UNHEALTHY"), lb(made["gray"], "gray")))
        proxy: Plane = await stack.enter_async_context(plane(text.replace("{name: b}", f"{{name: b, {b}}}")))
        Changes.script = iter(script)
        reader, writer = await proxy.connect("web")
        for _ in script:
            writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\nuser-id: 20\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            answered = await head(reader)
            size = re.search(rb"content-length: (\d+)", answered)
            await reader.readexactly(int(size[1]) if size else 0)
            answered = re.sub(rb"date: .*?\r\n|x-envoy-upstream-service-time: \d+\r\n", b"", answered)
            answers.append((*(got.pop() if got else ("", b"")), answered))
        writer.close()
        assert proxy.stat("http.web.", "rq_total") == len(script) - script.count("answer")
    return answers


@pytest.mark.parametrize("body", [b"", b"hi"], ids=["no body", "body"])
@pytest.mark.parametrize("name", ["Changes", "Waits"])
def test_with_plans_and_without_all_is_the_same(name: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that does something else to each of many equal requests."""
    forget_heads()
    # An answer before the end of the request ends the connection.
    actions = [one for one in ACTIONS if one != "answer" or (name == "Changes" and not body)]
    script = [NOTHING] * 4 + [step for one in (*actions, *actions) for step in (one, one, NOTHING)]
    went: list[bool] = []
    whole = HttpStream._go_through

    def counted(*arguments: Any) -> bool:
        went.append(whole(*arguments))
        return went[-1]

    monkeypatch.setattr(HttpStream, "_go_through", counted)
    found: list[list[tuple[str, bytes, bytes]]] = []

    async def test() -> None:
        found.append(await outcome(name, body, script))
        planned = len(went)
        # All but the first go as planned, also with labels, a choice that stays, and another id.
        same = [step for step in script if step in (NOTHING, "same cluster", "labels", "id")]
        assert all(went)
        assert planned == len(same) - 3
        monkeypatch.setattr(RequestPlans, "_plain", lambda *_: False)
        found.append(await outcome(name, body, script))
        assert len(went) == planned

    run(test())
    for step, one, other in zip(script, *found, strict=True):
        assert one == other, step
    assert {who for who, _, _ in found[0]} >= {"gray", "b"}
