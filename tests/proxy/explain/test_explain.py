"""`/route_explain` in a data plane: it says what the same request, sent, then does, and leaves no trace."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from bootstraps import ROUTER, web
from dubbo_support import plane as dubbo
from dubbo_support import wire
from label_support import STRUCT, ask, endpoints, lb, named, one_label, router
from plane_support import Plane, plane, run, upstream

from mesh_proxy.explain.question import BadQuestion, from_json, from_query

CHAIN = (
    f"{{name: chain, typed_config: {{{STRUCT}RouteChain, value: {{dimensions: ["
    "{name: version, sources: [{header: x-mesh-tag}, {constant: trunk}], fallback: [{from: gray, to: beta}]}]}}}"
)
LABEL = one_label(
    "{header: x-mesh-tag}, {trace: true}, {expression: 'header user-id % 10 == 1', value: gray}", ", remember: true"
)
LIMIT = (
    '{name: limit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, '
    "stat_prefix: l, token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}, "
    "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}"
)


def explain(proxy: Plane, **description: Any) -> dict[str, Any]:
    return proxy.data.explain(from_json(description))


def hcm(*filters: str) -> str:
    return f"http_filters: [{', '.join((*filters, ROUTER))}]"


def candidates(answer: dict[str, Any]) -> list[str]:
    return [one["address"] for one in answer["cluster"]["endpoints"] if one["candidate"]]


def test_it_tells_the_way_that_requests_go() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            made = {name: await named(stack, name.encode()) for name in ("trunk", "gray", "beta")}
            text = web(
                hcm=hcm(LABEL, CHAIN),
                host="routes: [{name: main, match: {prefix: /}, route: {cluster: a}}]",
                cluster=endpoints(lb(made["trunk"], "trunk"), lb(made["gray"], "gray", "UNHEALTHY"), lb(made["beta"], "beta")),
            )
            proxy = await stack.enter_async_context(plane(text))
            for headers, who in (({}, "trunk"), ({"user-id": "11"}, "beta"), ({"x-mesh-tag": "beta"}, "beta")):
                answer = explain(proxy, headers=headers)
                assert candidates(answer) == [str(made[who])], headers
                assert await ask(proxy, *(f"{name}: {value}" for name, value in headers.items())) == who
            answer = explain(proxy, headers={"user-id": "11"})
            assert answer["listener"] == "web"
            assert answer["route"] == {"name": "main", "match": ["prefix /"], "action": "forward"}
            assert [one["name"] for one in answer["filters"]] == ["label", "chain"]
            assert answer["filters"][0]["headers"] == {"x-mesh-tag": "gray"}
            assert answer["labels"] == [["version", "beta"]]
            assert answer["narrowings"]["mesh_proxy.route_chain"]["version"] == "gray>beta(no_healthy)"
            why = {one["address"]: one.get("why") for one in answer["cluster"]["endpoints"]}
            assert why[str(made["trunk"])] == "version is trunk, beta is wanted"
            assert why[str(made["beta"])] is None
            assert "route main" in answer["way"]
            assert f"1 of 3 endpoints: {made['beta']}" in answer["way"]

    run(test())


def test_nobody_notices() -> None:
    """No token is taken, nothing counted, no trace remembered."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def test() -> None:
        async with AsyncExitStack() as stack:
            here = await named(stack, b"here")
            proxy = await stack.enter_async_context(plane(web(hcm=hcm(LABEL, LIMIT), cluster=endpoints(lb(here)))))
            for _ in range(3):
                answer = explain(proxy, headers={"x-mesh-tag": "gray", "traceparent": trace})
                assert answer["result"] == "forwarded"
            assert proxy.stat("http.web.", "rq_total") == 0
            assert proxy.stat("http.web.traffic_label.", "labelled") == 0
            assert "x-mesh-tag" not in dict(explain(proxy, headers={"traceparent": trace})["request"]["headers"])
            assert await ask(proxy, f"traceparent: {trace}", "x-mesh-tag: gray") == "here", "the one token is still there"
            assert dict(explain(proxy, headers={"traceparent": trace})["request"]["headers"])["x-mesh-tag"] == "gray"
            assert await ask(proxy) == "429"

    run(test())


def test_answers_of_our_own() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            here = await named(stack, b"here")
            host = (
                "routes: [{match: {path: /old}, redirect: {path_redirect: /new}}, "
                "{match: {prefix: /none}, route: {cluster: zz}}, {match: {prefix: /a}, route: {cluster: a}}]"
            )
            filters = hcm(router("mode: strict"))
            proxy = await stack.enter_async_context(
                plane(web(hcm=filters, host=host, table="validate_clusters: false", cluster=endpoints(lb(here, "gray"))))
            )
            moved = explain(proxy, path="/old")
            assert (moved["result"], moved["answer"]["status"]) == ("answered", 301)
            assert explain(proxy, path="/other")["answer"]["details"] == "route_not_found"
            assert explain(proxy, path="/none")["answer"]["details"] == "cluster_not_found"
            strict = explain(proxy, path="/a")
            assert (strict["answer"]["status"], strict["answer"]["details"]) == (503, "tag_router_no_endpoint")
            assert strict["filters"][0]["status"] == "answered"
            grpc = explain(proxy, protocol="grpc", service="a", method="b")
            assert grpc["answer"] == {"status": 200, "details": "tag_router_no_endpoint", "body": "no endpoint for label (none)",
                                      "cluster": "a"}  # fmt: skip
            assert explain(proxy, listener="tcp")["network_filter"] == "tcp_proxy"
            assert explain(proxy, listener="none")["result"] == "no listener"
            assert explain(proxy, protocol="dubbo", service="a", method="b")["result"] in ("no listener", "bytes")

    run(test())


def test_priorities_and_health() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            first, second = await named(stack, b"first"), await named(stack, b"second")
            cluster = (
                "load_assignment: {cluster_name: a, endpoints: "
                f"[{{priority: 0, lb_endpoints: [{lb(first)}]}}, {{priority: 1, lb_endpoints: [{lb(second)}]}}]}}"
            )
            proxy = await stack.enter_async_context(plane(web(cluster=cluster)))
            answer = explain(proxy)
            assert candidates(answer) == [str(first)]
            assert answer["cluster"]["endpoints"][1]["why"] == "priority 1 gets nothing while those before it suffice"
            found = proxy.data._context.clusters.get("a")
            assert found is not None
            found.endpoints[0].ejected = True
            found.refresh()
            answer = explain(proxy)
            assert candidates(answer) == [str(second)]
            assert answer["cluster"]["endpoints"][1]["why"] == "ejected by outlier detection"

    run(test())


def test_subsets() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            one, two = await named(stack, b"one"), await named(stack, b"two")
            route = "match: {prefix: /}, route: {cluster: a, metadata_match: {filter_metadata: {envoy.lb: {version: v2}}}}"
            cluster = "lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [version]}]}, "
            for versions, expected, by in (
                (("v1", "v2"), [two], "subset"),
                (("v1", "v3"), [one, two], "fallback: any endpoint"),
            ):
                text = web(route=route, cluster=cluster + endpoints(lb(one, versions[0]), lb(two, versions[1])))
                proxy = await stack.enter_async_context(plane(text))
                answer = explain(proxy)
                assert candidates(answer) == [str(address) for address in expected]
                assert answer["cluster"]["narrowed_by"] == by

    run(test())


def test_dubbo_calls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await dubbo.read_frame(reader)
            port = writer.get_extra_info("sockname")[1]
            writer.write(wire.answer(dubbo.id_of(frame), str(port)))

    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk = await stack.enter_async_context(upstream(serve))
            gray = await stack.enter_async_context(upstream(serve))
            tags = f"{{name: t, config: {{{STRUCT}TagRouter, value: {{mode: dubbo}}}}}}"
            text = dubbo.bootstrap({"a": [trunk]}, routes=dubbo.route(match="{method: {name: {exact: sayHello}}}"))
            text = text.replace("dubbo_filters: [", f"dubbo_filters: [{tags}, ")
            start = text.index("load_assignment")
            text = text[:start] + endpoints(lb(trunk), lb(gray, "gray", key="dubbo.tag")) + "}\n"
            proxy = await stack.enter_async_context(plane(text))
            reader, writer = await proxy.connect("dubbo")
            for attachments, where in (({}, trunk), ({"dubbo.tag": "gray"}, gray), ({"dubbo.tag": "x"}, trunk)):
                answer = explain(
                    proxy,
                    protocol="dubbo",
                    service="demo.HelloService",
                    method="sayHello",
                    version="1.0.0",
                    attachments=attachments,
                )
                assert candidates(answer) == [str(where)], attachments
                writer.write(wire.call(attachments=attachments))
                assert str(where.port).encode() in await dubbo.read_frame(reader)
            writer.close()
            forced = {"dubbo.tag": "x", "dubbo.force.tag": "true"}
            refused = explain(proxy, protocol="dubbo", service="demo.HelloService", method="sayHello", attachments=forced)
            assert refused["result"] == "answered"
            assert refused["answer"]["details"] == "tag_router_no_endpoint"
            other = explain(proxy, protocol="dubbo", service="demo.HelloService", method="other")
            assert other["answer"]["refused"] == "no_route"
            assert proxy.stat("dubbo.d.", "request_no_route") == 0

    run(test())


def test_the_caller_counts() -> None:
    """Identity and address of the described caller decide whom a label filter trusts."""
    trusting = LABEL.replace("labels:", 'trust: {identities: ["spiffe://mesh/edge/*"], addresses: [10.0.0.0/8]}, labels:')

    async def test() -> None:
        async with AsyncExitStack() as stack:
            here = await named(stack, b"here")
            proxy = await stack.enter_async_context(plane(web(hcm=hcm(trusting), cluster=endpoints(lb(here)))))
            for source, kept in (
                ({}, False),
                ({"address": "10.1.2.3"}, True),
                ({"identity": "spiffe://mesh/edge/gateway"}, True),
                ({"identity": "spiffe://mesh/shop"}, False),
            ):
                answer = explain(proxy, headers={"x-mesh-tag": "gray"}, source=source)
                assert ("x-mesh-tag" in dict(answer["request"]["headers"])) is kept, source

    run(test())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "an object"),
        ({"pth": "/"}, "pth: unknown"),
        ({"path": 1}, "path: must be a text"),
        ({"path": "/\n"}, "end of line"),
        ({"path": "/€"}, "Latin-1"),
        ({"protocol": "smtp"}, "one of http"),
        ({"protocol": "dubbo"}, "needs service and method"),
        ({"protocol": "grpc", "service": "a"}, "or a path"),
        ({"source": {"port": 70000}}, "source.port"),
        ({"source": {"address": "here"}}, "source.address"),
        ({"source": {"name": "x"}}, "source: may have"),
        ({"headers": "x"}, "list of pairs"),
        ({"headers": [["a"]]}, "list of pairs"),
        ({"headers": {str(i): "" for i in range(300)}}, "more than 256"),
    ],
)
def test_bad_descriptions(given: Any, why: str) -> None:
    with pytest.raises(BadQuestion, match=why):
        from_json(given)


def test_from_a_query() -> None:
    query = {"protocol": "triple", "service": "a.B", "method": "c", "version": "1", "header.x": "y", "source.port": "5"}
    question = from_query({**query, "attachment.dubbo.tag": "gray", "source.identity": "spiffe://a"})
    assert question.request_path == "/a.B/c"
    assert question.headers == (("x", "y"), ("dubbo.tag", "gray"))
    assert (question.source_port, question.source_identity) == (5, "spiffe://a")
