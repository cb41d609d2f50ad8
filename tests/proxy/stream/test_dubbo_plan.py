"""Filters that look at a Dubbo call once and repeat what they did to it: nobody can tell, and nothing old is repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from build_support import COMPILED
from dubbo_support import plane as dubbo
from dubbo_support import wire
from label_support import STRUCT, endpoints, lb
from plane_support import Plane, plane, run, upstream

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_filters.tag_router import TagRouterFilter
from mesh_filters.traffic_label import TrafficLabelFilter
from mesh_proxy.config.model import AddressConfig
from mesh_proxy.stream import dubbo_plan
from mesh_proxy.stream.dubbo_stream import DubboStream

TIMES = 8
ODD = "{expression: 'header user % 2 == 1', value: gray}"
ROUTER = f"{{name: t, config: {{{STRUCT}TagRouter, value: {{mode: dubbo}}}}}}"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often filters looked at a call, by name, and how many calls had a stream of their own. Compiled code
    does not tell."""
    seen: Counter[str] = Counter()
    if COMPILED:
        return seen
    for kind, name in (
        (TrafficLabelFilter, "on_request_headers"),
        (TagRouterFilter, "on_request_headers"),
        (DubboStream, "__init__"),
    ):
        hook: Any = getattr(kind, name)

        def counted(*arguments: Any, name: str = kind.__name__, hook: Any = hook) -> Any:
            seen[name] += 1
            return hook(*arguments)

        monkeypatch.setattr(kind, name, counted)
    return seen


def label(sources: str, more: str = "") -> str:
    value = f"labels: [{{name: dubbo.tag, sources: [{sources}]{more}}}], trace_ids: [my-trace, x-request-id]"
    return f"{{name: l, config: {{{STRUCT}TrafficLabel, value: {{{value}}}}}}}"


class Providers:
    """One without a tag and one that is gray. Each says its name, what it was called with, and its attachments."""

    def __init__(self, filters: str, *, log: str = "") -> None:
        self.filters = filters
        self.log = log
        self.trunk = self.gray = AddressConfig()
        self.got: list[bytes] = []

    async def enter(self, stack: AsyncExitStack) -> Plane:
        self.trunk = await stack.enter_async_context(upstream(self._serve("trunk")))
        self.gray = await stack.enter_async_context(upstream(self._serve("gray")))
        return await stack.enter_async_context(plane(self.configuration()))

    def configuration(self, cluster: str = "") -> str:
        text = dubbo.bootstrap({"a": [self.trunk]}, dubbo_filters=self.filters)
        if self.log:
            text = text.replace("          stat_prefix: d\n", f"          stat_prefix: d\n          {self.log}\n")
        start = text.index("load_assignment")
        return text[:start] + (cluster or endpoints(lb(self.trunk), lb(self.gray, "gray", key="dubbo.tag"))) + "}\n"

    def _serve(self, name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            codec = DubboCodec(HeadMemo())
            while True:
                try:
                    frame = await dubbo.read_frame(reader)
                except asyncio.IncompleteReadError:
                    return
                (one,) = codec.receive_data(frame)
                assert isinstance(one, DubboMessage)
                self.got.append(frame[16:])
                said = " ".join(str(value) for value in one.arguments())
                tag = (one.attachment(b"dubbo.tag") or b"-").decode()
                user = (one.attachment(b"user") or b"-").decode()
                writer.write(wire.answer(dubbo.id_of(frame), f"{name}/{tag}/{user}/{said}"))

        return serve


class Consumer:
    """A connection of a consumer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.id = 0

    @classmethod
    async def of(cls, proxy: Plane, address: str = "127.0.0.1") -> Consumer:
        port = next(port for (name, _), port in proxy.ports.items() if name == "dubbo")
        return cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))

    async def ask(self, attachments: Mapping[str, object], *arguments: str, method: str = "sayHello") -> str:
        """What the provider says, or `status N`."""
        self.id += 1
        types = "Ljava/lang/String;" * len(arguments)
        self.writer.write(
            wire.call(request_id=self.id, method=method, types=types, arguments=arguments, attachments=dict(attachments))
        )
        (one,) = DubboCodec(HeadMemo()).receive_data(await dubbo.read_frame(self.reader))
        assert isinstance(one, DubboMessage)
        assert one.request_id == self.id
        if one.status != 20:
            return f"status {one.status}"
        text = one.frame[18:]
        return text[: text.index(b"H")].lstrip(bytes(range(0x40))).decode()

    async def always(self, attachments: Mapping[str, object], *arguments: str) -> str:
        """The same of several equal calls."""
        (only,) = {await self.ask(attachments, *arguments) for _ in range(TIMES)}
        return only


def test_filters_repeat_what_they_did(looks: Counter[str]) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            providers = Providers(f"{label(ODD)}, {ROUTER}")
            proxy = await providers.enter(stack)
            consumer = await Consumer.of(proxy)
            assert await consumer.always({"user": "7"}) == "gray/gray/7/"
            assert len(set(providers.got)) == 1
            for prefix, name in (
                ("dubbo.d.traffic_label.", "labelled"),
                ("dubbo.d.tag_router.", "exact"),
                ("dubbo.d.tag_router.", "tagged"),
                ("dubbo.d.", "request_decoding_success"),
                ("dubbo.d.", "response_success"),
            ):
                assert proxy.stat(prefix, name) == TIMES, name
            assert proxy.stat("dubbo.d.", "request_active") == 0
            consumer.writer.close()

    run(test())
    # The first reads head and attachments, the next finds both known and looks again to learn.
    assert COMPILED or looks["TrafficLabelFilter"] == looks["TagRouterFilter"] == looks["DubboStream"] <= 3


def test_arguments_are_their_own(looks: Counter[str]) -> None:
    """Of any length, with equal attachments, and other attachments in between; methods apart."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await Providers(f"{label(ODD)}, {ROUTER}").enter(stack)
            consumer = await Consumer.of(proxy)
            for i in range(4 * TIMES):
                user, text = i % 3, f"{i:0{2 + i * 37 % 50}}"
                name = "gray/gray" if user % 2 else "trunk/-"
                assert await consumer.ask({"user": str(user)}, text) == f"{name}/{user}/{text}"
                assert await consumer.ask({"user": str(user)}, method=f"m{i % 2}") == f"{name}/{user}/"
            consumer.writer.close()

    run(test())
    assert COMPILED or looks["DubboStream"] < 3 * TIMES


def test_what_is_in_an_argument_is_read_each_time() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await Providers(f"{label('{argument: 0}')}, {ROUTER}").enter(stack)
            consumer = await Consumer.of(proxy)
            for _ in range(3):
                assert await consumer.always({}, "gray") == "gray/gray/-/gray"
                assert await consumer.always({}, "blue") == "trunk/blue/-/blue"
            consumer.writer.close()

    run(test())


def test_endpoints_configuration_and_traces_count_at_once(looks: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_plan, "REST", 2)

    async def test() -> None:
        async with AsyncExitStack() as stack:
            providers = Providers(f"{label('{trace: true}, ' + ODD)}, {ROUTER}")
            proxy = await providers.enter(stack)
            consumer = await Consumer.of(proxy)
            gone = endpoints(lb(providers.trunk), lb(providers.gray, "blue", key="dubbo.tag"))
            for _ in range(2):
                assert await consumer.always({"user": "7"}) == "gray/gray/7/"
                await proxy.apply(providers.configuration(gone))
                assert await consumer.always({"user": "7"}) == "trunk/gray/7/"
                await proxy.apply(providers.configuration())
            before = looks["DubboStream"]
            assert await consumer.always({"user": "7"}) == "gray/gray/7/"
            assert await consumer.always({"user": "7"}) == "gray/gray/7/"
            assert COMPILED or looks["DubboStream"] < before + TIMES
            traces, now = proxy.data._context.trace_memory, asyncio.get_running_loop().time()
            for key in ("my-trace", "x-request-id"):
                mine = {"user": "8", key: f"of {key}"}
                for _ in range(2):
                    assert await consumer.always(mine) == "trunk/-/8/"
                    traces.remember(b"dubbo.tag", mine[key].encode(), b"gray", now, 10_000.0)
                    assert await consumer.always(mine) == "gray/gray/8/"
                    traces.remember(b"dubbo.tag", mine[key].encode(), b"gray", now, -10_000.0)
            providers.filters = providers.filters.replace("== 1", "== 0")
            await proxy.apply(providers.configuration())
            consumer.writer.close()
            consumer = await Consumer.of(proxy)
            assert await consumer.always({"user": "7"}) == "trunk/-/7/"
            assert await consumer.always({"user": "8"}) == "gray/gray/8/"
            consumer.writer.close()

    run(test())


def test_callers_keep_their_own_labels() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            source = "{expression: 'source_ip == 127.0.0.2', value: gray}"
            proxy = await Providers(f"{label(source)}, {ROUTER}").enter(stack)
            for _ in range(2):
                for address, expected in (("127.0.0.1", "trunk/-/-/"), ("127.0.0.2", "gray/gray/-/")):
                    consumer = await Consumer.of(proxy, address)
                    assert await consumer.always({}) == expected
                    consumer.writer.close()

    run(test())


def test_a_refusal_is_no_plan() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await Providers(ROUTER).enter(stack)
            consumer = await Consumer.of(proxy)
            forced = {"dubbo.tag": "none", "dubbo.force.tag": "true"}
            assert (await consumer.always(forced)).startswith("status ")
            assert await consumer.always({"dubbo.tag": "none"}) == "trunk/none/-/"
            assert proxy.stat("dubbo.d.tag_router.", "refused") == TIMES
            consumer.writer.close()

    run(test())


@pytest.mark.parametrize("remember", ["", ", remember: true"])
def test_every_call_is_remembered(remember: str) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await Providers(f"{label(ODD, remember)}, {ROUTER}").enter(stack)
            consumer = await Consumer.of(proxy)
            assert await consumer.always({"user": "7", "my-trace": "t"}) == "gray/gray/7/"
            assert proxy.stat("dubbo.d.traffic_label.", "remembered") == (TIMES if remember else 0)
            now = asyncio.get_running_loop().time()
            found = proxy.data._context.trace_memory.recall(b"dubbo.tag", b"t", now)
            assert found == (b"gray" if remember else None)
            consumer.writer.close()

    run(test())


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_plan, "PLANS", 3)

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await Providers(f"{label(ODD)}, {ROUTER}").enter(stack)
            consumer = await Consumer.of(proxy)
            for i in range(2 * TIMES):
                expected = f"gray/gray/{i}/" if i % 2 else f"trunk/-/{i}/"
                assert await consumer.always({"user": str(i)}) == expected
            consumer.writer.close()

    run(test())
