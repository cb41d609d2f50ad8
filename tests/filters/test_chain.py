"""Filters in a running data plane: which of them a route gets, filters that wait, bodies that are held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from bootstraps import ROUTER, web
from plane_support import ANSWER, GET, answer, at, head, plane, run, until, upstream

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_filters.async_filter import AsyncFilter
from mesh_filters.definition import FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_proxy.config import registry

TYPE = "tests.Marks"
STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/tests.'


@dataclass(frozen=True)
class Marks(Filter):
    """Adds what it is configured with to the response."""

    values: tuple[str, ...]
    name: str = ""

    def factory(self, context: FilterContext) -> Filter:
        return Marks(self.values, context.name)

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        words = stream.per_route_config(self.name) or self.values
        event.headers.add(b"x-marks", f"{self.name}:{'+'.join(words)}".encode())
        levels = stream.per_route_configs(self.name)
        if levels:
            event.headers.add(b"x-levels", str(levels).encode())
        return FilterStatus.CONTINUE


@dataclass(frozen=True)
class Sleeps:
    """Waits on the way in; the path says what then."""

    def factory(self, context: FilterContext) -> Any:
        return Sleeper


class Sleeper(AsyncFilter):
    async def before_request(self, stream: Stream, event: RequestHeaders) -> None:
        await asyncio.sleep(0.01)
        if event.path == b"/fail":
            raise RuntimeError("nothing works today")
        if event.path == b"/deny":
            stream.send_local_reply(401, b"no", details="denied")
        event.headers.set(b"x-slept", b"1")


@dataclass(frozen=True)
class Holds:
    """Holds responses until told."""

    def factory(self, context: FilterContext) -> Any:
        return Holder


class Holder(Filter):
    waiting: ClassVar[list[tuple[Holder, Stream]]] = []

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        self.waiting.append((self, stream))
        return FilterStatus.STOP

    def on_request_data(self, stream: Stream, event: Data) -> FilterStatus:
        return FilterStatus.CONTINUE


def words(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(values.get("words", ()))


@pytest.fixture(autouse=True)
def filters() -> Iterator[None]:
    made = [
        FilterDefinition(type_url="tests.Marks", configure=lambda v: Marks(words(v)), configure_route=words),
        FilterDefinition(type_url="tests.Sleeps", configure=lambda _: Sleeps()),
        FilterDefinition(type_url="tests.Holds", configure=lambda _: Holds()),
    ]
    for one in made:
        registry.register_definition(one)
    Holder.waiting.clear()
    yield
    for one in made:
        registry.unregister_http_filter(one.type_url)


def marks(name: str, *says: str, more: str = "") -> str:
    return f"{{name: {name}, typed_config: {{{STRUCT}Marks, value: {{words: [{', '.join(says)}]}}}}{more}}}"


def says(*what: str) -> str:
    return f"{{{STRUCT}Marks, value: {{words: [{', '.join(what)}]}}}}"


def per_filter(**filters: str) -> str:
    return f"typed_per_filter_config: {{{', '.join(f'{name}: {value}' for name, value in filters.items())}}}"


WRAPPER = '"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig'
OFF = f"{{{WRAPPER}, disabled: true}}"
ON = f"{{{WRAPPER}, config: {{}}}}"


def routes() -> str:
    def route(path: str, *more: str, cluster: str = "cluster: a") -> str:
        return ", ".join([f"{{match: {{prefix: {path}}}, route: {{{cluster}}}", *more]) + "}"

    weighted = f"weighted_clusters: {{clusters: [{{name: a, weight: 1, {per_filter(a=says('weighted'), b=OFF)}}}]}}"
    return ", ".join(
        [
            route("/off", per_filter(a=OFF, b=OFF)),
            route("/on", per_filter(c=ON)),
            route("/c", per_filter(c=says("c"))),
            route("/mine", per_filter(a=says("route"), b=ON)),
            route("/weighted", cluster=weighted),
            route("/"),
        ]
    )


def test_routes_choose_their_filters() -> None:
    chain = f"http_filters: [{marks('a', 'one')}, {marks('b', 'two')}, {marks('c', 'three', more=', disabled: true')}, {ROUTER}]"
    host = f"routes: [{routes()}], {per_filter(b=says('host'))}"

    async def test() -> None:
        async with upstream(answer) as address, plane(web(hcm=chain, endpoint=at(address), host=host)) as proxy:
            reader, writer = await proxy.connect("web")
            got: dict[str, tuple[list[bytes], list[bytes]]] = {}
            for path in ("/off", "/on", "/c", "/mine", "/weighted", "/", "/mine"):
                writer.write(GET.replace(b"GET /", b"GET " + path.encode()))
                lines = (await head(reader)).split(b"\r\n")
                await reader.readexactly(2)
                got[path] = (
                    [line[9:] for line in lines if line.startswith(b"x-marks: ")],
                    [line[10:] for line in lines if line.startswith(b"x-levels: ")],
                )
            writer.close()
            assert got == {
                "/off": ([], []),
                "/on": ([b"c:three", b"b:host", b"a:one"], [b"[('host',)]"]),
                "/c": ([b"c:c", b"b:host", b"a:one"], [b"[('c',)]", b"[('host',)]"]),
                "/mine": ([b"b:host", b"a:route"], [b"[('host',)]", b"[('route',)]"]),
                "/weighted": ([b"a:weighted"], [b"[('weighted',)]"]),
                "/": ([b"b:host", b"a:one"], [b"[('host',)]"]),
            }

    run(test())


def chain_of(name: str) -> str:
    return f"http_filters: [{{name: x, typed_config: {{{STRUCT}{name}}}}}, {ROUTER}]"


def test_a_filter_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        seen: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                seen.append(await head(reader))
                writer.write(ANSWER)

        async with upstream(serve) as address, plane(web(hcm=chain_of("Sleeps"), endpoint=at(address))) as proxy:
            reader, writer = await proxy.connect("web")
            for path, status in ((b"/", b"200"), (b"/deny", b"401"), (b"/fail", b"500"), (b"/", b"200")):
                writer.write(GET.replace(b"GET /", b"GET " + path))
                answered = await head(reader)
                assert answered.split()[1] == status
                await reader.readexactly(0 if status == b"500" else 2)
            assert [b"x-slept: 1" in one for one in seen] == [True, True]
            # The caller leaves while the filter waits: its task ends with the stream.
            writer.write(GET)
            writer.close()
            await until(lambda: proxy.data.active_connections == 0)

    run(test())
    assert "nothing works today" in caplog.text


def test_a_held_response_holds_the_upstream_and_can_be_let_go() -> None:
    size = 8_000_000

    async def test() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            writer.write(b"x" * size)

        listener = "per_connection_buffer_limit_bytes: 20000"
        bootstrap = web(hcm=chain_of("Holds"), listener=listener)
        async with (
            upstream(serve) as address,
            plane(bootstrap.replace("port_value: 1}", f"port_value: {address.port}}}")) as proxy,
        ):
            reader, writer = await proxy.connect("web")
            writer.write(GET)
            await until(lambda: proxy.stat("cluster.a.", "upstream_flow_control_paused_reading_total") == 1)
            one, stream = Holder.waiting[0]
            assert stream.response is not None
            stream.continue_response(one)
            assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
            assert len(await reader.readexactly(size)) == size
            # The second is answered by us, in place of the response that is held.
            writer.write(GET)
            await until(lambda: len(Holder.waiting) == 2)
            Holder.waiting[1][1].send_local_reply(503, b"never", details="test")
            proxy.data._context.flush()
            assert (await head(reader)).startswith(b"HTTP/1.1 503 ")
            assert await reader.readexactly(5) == b"never"
            writer.close()

    run(test())
