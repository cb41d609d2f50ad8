"""Traffic labels and tag routing through running data planes, over HTTP and Dubbo."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from bootstraps import web
from dubbo_support import plane as dubbo
from dubbo_support import wire
from label_support import STRUCT, ask, chain, endpoints, label, lb, named, one_label, router
from plane_support import plane, run, upstream

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

GRAY = '{expression: "header user-id % 100 == 20", value: gray}'


def test_a_user_id_makes_the_label_and_the_label_the_endpoint() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk, gray = await named(stack, b"trunk"), await named(stack, b"gray")
            text = web(
                hcm=chain(one_label(f"{{header: x-mesh-tag}}, {GRAY}"), router("")),
                cluster=endpoints(lb(trunk), lb(gray, "gray")),
            )
            proxy = await stack.enter_async_context(plane(text))
            assert await ask(proxy) == "trunk"
            assert await ask(proxy, "user-id: 120") == "gray"
            assert await ask(proxy, "user-id: 121") == "trunk"
            assert await ask(proxy, "user-id: none") == "trunk"
            assert await ask(proxy, "x-mesh-tag: gray") == "gray"
            assert await ask(proxy, "x-mesh-tag: unknown") == "trunk"
            assert proxy.stat("http.web.tag_router.", "exact") == 2
            assert proxy.stat("http.web.tag_router.", "base") == 4
            assert proxy.stat("http.web.traffic_label.", "labelled") == 3

    run(test())


@pytest.mark.parametrize(
    ("mode", "tag", "to"),
    [
        ("mode: permissive", "gray", "gray"),
        ("mode: permissive", "sick", "trunk"),
        ("mode: permissive, fallback: [{from: sick, to: gray, case: no_healthy}]", "sick", "gray"),
        ("mode: permissive, fallback: [{from: sick, to: gray, case: no_instances}]", "sick", "trunk"),
        ("mode: strict, fallback: [{from: none, to: sick}, {from: sick, to: gray}]", "none", "gray"),
        ("mode: strict, fallback: [{from: none, to: sick}, {from: sick, to: none}]", "none", "503"),
        ("mode: strict", "none", "503"),
        ("mode: strict", "sick", "503"),
        ("mode: strict", "", "trunk"),
        ("mode: strict, clusters: {mock: b}", "mock", "mock"),
        ("mode: strict, clusters: {mock: missing}", "mock", "503"),
        ("mode: strict, fallback: [{from: none, to: mock}], clusters: {mock: b}", "none", "mock"),
        ("mode: dubbo, key: version", "gray", "gray"),
        ("mode: dubbo, key: version", "none", "trunk"),
        ("mode: dubbo, key: version", "", "trunk"),
        ("mode: dubbo, key: version", "gray|team", "gray"),
        ("mode: dubbo, key: version, levels: false", "gray|team", "trunk"),
        ("mode: dubbo, key: version, label: x-mesh-tag", "sick", "sick"),
    ],
)
def test_where_labels_lead(mode: str, tag: str, to: str) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            made = {name: await named(stack, name.encode()) for name in ("trunk", "gray", "sick", "mock")}
            cluster = endpoints(lb(made["trunk"]), lb(made["gray"], "gray"), lb(made["sick"], "sick", "UNHEALTHY"))
            b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{lb(made['mock'])}]}}]}}"
            text = web(hcm=chain(router(mode)), cluster=cluster).replace("{name: b}", f"{{name: b, {b}}}")
            proxy = await stack.enter_async_context(plane(text))
            header = "dubbo.tag" if "dubbo" in mode and "label:" not in mode else "x-mesh-tag"
            assert {await ask(proxy, *([f"{header}: {tag}"] if tag else [])) for _ in range(3)} == {to}

    run(test())


def test_dubbo_force() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk = await named(stack, b"trunk")
            proxy = await stack.enter_async_context(plane(web(hcm=chain(router("mode: dubbo")), cluster=endpoints(lb(trunk)))))
            assert await ask(proxy, "dubbo.tag: gray") == "trunk"
            assert await ask(proxy, "dubbo.tag: gray", "dubbo.force.tag: true") == "503"

    run(test())


def test_an_untagged_call_never_reaches_a_tagged_provider_of_dubbo() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            gray = await named(stack, b"gray")
            text = web(hcm=chain(router("mode: dubbo, key: version")), cluster=endpoints(lb(gray, "gray")))
            proxy = await stack.enter_async_context(plane(text))
            assert await ask(proxy) == "503"
            assert await ask(proxy, "dubbo.tag: gray") == "gray"

    run(test())


def test_labels_route_by_ordinary_routes_too() -> None:
    """The route is looked up again when the label's header has changed."""
    routes = (
        "routes: [{match: {prefix: /, headers: [{name: x-mesh-tag, string_match: {exact: gray}}]}, route: {cluster: b}}, "
        "{match: {prefix: /}, route: {cluster: a}}]"
    )

    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk, gray = await named(stack, b"trunk"), await named(stack, b"gray")
            b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{lb(gray)}]}}]}}"
            text = web(hcm=chain(one_label(GRAY)), host=routes, cluster=endpoints(lb(trunk)))
            proxy = await stack.enter_async_context(plane(text.replace("{name: b}", f"{{name: b, {b}}}")))
            assert await ask(proxy, "user-id: 20") == "gray"
            assert await ask(proxy, "user-id: 21") == "trunk"

    run(test())


TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "trace", [TRACE, "b3: 80f198ee56343ba8-e457b5a2e4d86bd1-1", "x-b3-traceid: 80f198ee56343ba8", "my-trace: 17"]
)
def test_a_trace_carries_the_label_through_the_service(trace: str) -> None:
    """Inbound knows the label; the service calls on with nothing but its trace id; outbound restores it."""
    ids = "trace_ids: [traceparent, b3, x-b3-traceid, my-trace]"
    inbound = label(f"labels: [{{name: x-mesh-tag, sources: [{{header: x-mesh-tag}}], remember: true}}], {ids}")
    outbound = label(
        f"labels: [{{name: x-mesh-tag, sources: [{{header: x-mesh-tag}}, {{trace: true}}], attach_to: [header, baggage]}}], {ids}"
    )

    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            here = await named(stack, b"service", seen)
            came_in = await stack.enter_async_context(plane(web(hcm=chain(inbound), cluster=endpoints(lb(here)))))
            going_out = await stack.enter_async_context(plane(web(hcm=chain(outbound), cluster=endpoints(lb(here)))))
            going_out.data._context.trace_memory = came_in.data._context.trace_memory  # as workers of one sidecar share it
            await ask(came_in, trace, "x-mesh-tag: gray")
            await ask(going_out, trace)
            await ask(going_out, trace, "x-mesh-tag: blue")
            await ask(going_out, trace[:-1] + "7" if trace.startswith("my") is False else "my-trace: 18", "other: 1")
        tags = [[line for line in one.split(b"\r\n") if line.startswith((b"x-mesh-tag", b"baggage"))] for one in seen]
        assert tags[:3] == [
            [b"x-mesh-tag: gray"],
            [b"x-mesh-tag: gray", b"baggage: x-mesh-tag=gray"],
            [b"x-mesh-tag: blue", b"baggage: x-mesh-tag=blue"],
        ]
        if trace != TRACE and not trace.startswith("b3"):  # those two end in what is no part of the id
            assert tags[3] == []

    run(test())


def test_labels_of_strangers_are_stripped() -> None:
    trusting = 'trust: {addresses: ["10.0.0.0/8"]}'
    sources = "{header: x-mesh-tag}, {baggage: x-mesh-tag}, {constant: base}"
    filters = label(f"labels: [{{name: x-mesh-tag, sources: [{sources}]}}], {trusting}")

    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            here = await named(stack, b"service", seen)
            for networks in ('["10.0.0.0/8"]', '["127.0.0.0/8"]'):
                text = web(hcm=chain(filters.replace('["10.0.0.0/8"]', networks)), cluster=endpoints(lb(here)))
                proxy = await stack.enter_async_context(plane(text))
                await ask(proxy, "x-mesh-tag: gray", "baggage: a=1,x-mesh-tag=gray")
        assert b"x-mesh-tag: base\r\n" in seen[0]
        assert b"baggage: a=1\r\n" in seen[0]
        assert b"x-mesh-tag: gray\r\n" in seen[1]

    run(test())


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ("labels: []", "labels", "at least one"),
        ("labels: [{name: X, sources: [{trace: true}]}]", "labels[0].name", "lower case"),
        ("labels: [{name: x, sources: []}]", "labels[0].sources", "at least one"),
        ("labels: [{name: x, sources: [{headr: x}]}]", "labels[0].sources[0]", "exactly one of"),
        ("labels: [{name: x, sources: [{header: x, value: y}]}]", "labels[0].sources[0].value", "unknown"),
        (
            "labels: [{name: x, sources: [{expression: 'header a', value: y}]}]",
            "labels[0].sources[0].expression",
            "ends where an operator",
        ),
        ("labels: [{name: x, sources: [{expression: 'header a == b'}]}]", "labels[0].sources[0].value", "required"),
        ("labels: [{name: x, sources: [{percentage: 101, value: y}]}]", "labels[0].sources[0].percentage", "between 0 and 100"),
        ("labels: [{name: x, sources: [{trace: true}], attach_to: [cookie]}]", "labels[0].attach_to", "none of"),
        ("labels: [{name: x, sources: [{trace: true}]}], ttl: 0", "ttl", "seconds"),
        ("labels: [{name: x, sources: [{trace: true}]}], trust: {addresses: [x]}", "trust.addresses[0]", "an address"),
        ("labels: [{name: x, sources: [{trace: true}], sorces: 1}]", "labels[0].sorces", "unknown"),
    ],
)
def test_wrong_labels_are_refused(value: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(label(value))))
    assert caught.value.path.endswith(f"http_filters[0].typed_config.value.{path}")
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("mode: fast", "mode"),
        ("fallback: [{from: a}]", "fallback[0]"),
        ("fallback: [{from: a, to: b, case: x}]", "fallback[0].case"),
        ("clusters: [a]", "clusters"),
        ("levels: true", "levels"),
        ("mode: dubbo, levels: 1", "levels"),
    ],
)
def test_wrong_routers_are_refused(value: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(router(value))))
    assert caught.value.path.endswith(f"http_filters[0].typed_config.value.{path}")


def test_dubbo_calls_are_labelled_and_routed_alike() -> None:
    def provider(name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                frame = await dubbo.read_frame(reader)
                (one,) = DubboCodec(HeadMemo()).receive_data(frame)
                assert isinstance(one, DubboMessage)
                tag = one.attachment(b"dubbo.tag") or b"-"
                writer.write(wire.answer(dubbo.id_of(frame), f"{name}/{tag.decode()}"))

        return serve

    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk = await stack.enter_async_context(upstream(provider("trunk")))
            gray = await stack.enter_async_context(upstream(provider("gray")))
            odd = "{expression: 'header user % 2 == 1', value: gray}"
            label_config = f"labels: [{{name: dubbo.tag, sources: [{{attachment: dubbo.tag}}, {odd}]}}]"
            filters = [
                f"{{name: l, config: {{{STRUCT}TrafficLabel, value: {{{label_config}}}}}}}",
                f"{{name: t, config: {{{STRUCT}TagRouter, value: {{mode: dubbo}}}}}}",
            ]
            text = dubbo.bootstrap({"a": [trunk]}).replace("dubbo_filters: [", f"dubbo_filters: [{', '.join(filters)}, ")
            start = text.index("load_assignment")
            text = text[:start] + endpoints(lb(trunk), lb(gray, "gray", key="dubbo.tag")) + "}\n"
            proxy = await stack.enter_async_context(plane(text))
            reader, writer = await proxy.connect("dubbo")
            for attachments, who, tag in (
                ({}, "trunk", "-"),
                ({"user": "7"}, "gray", "gray"),
                ({"user": "8"}, "trunk", "-"),
                ({"dubbo.tag": "gray"}, "gray", "gray"),
                ({"dubbo.tag": "other"}, "trunk", "other"),
            ):
                writer.write(wire.call(attachments=attachments))
                assert f"{who}/{tag}".encode() in await dubbo.read_frame(reader), attachments
            writer.write(wire.call(attachments={"dubbo.tag": "other", "dubbo.force.tag": "true"}))
            (refused,) = DubboCodec(HeadMemo()).receive_data(await dubbo.read_frame(reader))
            assert isinstance(refused, DubboMessage)
            assert refused.status != 20
            writer.close()

    run(test())


def test_triple_calls_are_routed_by_group_and_version() -> None:
    """Routes go by the headers of the Triple protocol, rules of filters by the names that Dubbo has for them."""
    version = "{name: tri-service-version, string_match: {exact: 2.0.0}}"
    group = "{name: tri-service-group, string_match: {exact: red}}"
    host = (
        f"routes: [{{match: {{prefix: /demo.Hello/, headers: [{version}, {group}]}}, route: {{cluster: b}}}}, "
        "{match: {prefix: /}, route: {cluster: a}}]"
    )
    rule = "{name: version, rules: [{when: 'service == demo.Hello and version == 2.0.0 and not group exists', to: two}]}"
    chained = f"{{name: chain, typed_config: {{{STRUCT}RouteChain, value: {{dimensions: [{rule}]}}}}}}"

    async def test() -> None:
        async with AsyncExitStack() as stack:
            made = {name: await named(stack, name.encode()) for name in ("one", "two", "red")}
            b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{lb(made['red'])}]}}]}}"
            text = web(hcm=chain(chained), host=host, cluster=endpoints(lb(made["one"], "one"), lb(made["two"], "two")))
            proxy = await stack.enter_async_context(plane(text.replace("{name: b}", f"{{name: b, {b}}}")))
            call = ("content-type: application/grpc", "te: trailers")
            two, red = "tri-service-version: 2.0.0", "tri-service-group: red"
            for headers, path, who in (
                ((two, red), "/demo.Hello/Say", {"red"}),
                ((two,), "/demo.Hello/Say", {"two"}),
                ((two,), "/demo.Other/Say", {"one", "two"}),
                ((red,), "/demo.Hello/Say", {"one", "two"}),
            ):
                assert {await ask(proxy, *call, *headers, path=path) for _ in range(6)} == who, headers

    run(test())
