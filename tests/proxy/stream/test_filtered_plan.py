"""Filters that look at a head once and repeat what they did to it: nobody can tell, and nothing of yesterday is repeated."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from bootstraps import web
from build_support import COMPILED
from http1_support import forget_heads
from http2_support.caller import Caller
from label_support import ask, chain, endpoints, label, lb, named, one_label, router
from plane_support import Plane, head, plane, run
from tls_support import certificate, client, downstream, inline

from mesh_filters.tag_router import TagRouterFilter
from mesh_filters.traffic_label import TrafficLabelFilter
from mesh_proxy.network.http_manager import HttpManager
from mesh_proxy.stream import request_plan
from mesh_proxy.stream.filtered_stream import FilteredStream
from mesh_proxy.tls.authority import Authority
from mesh_proxy.worker import data_plane

TIMES = 8
"""the caller's encoder says a head in the same bytes from the third time on"""
GRAY = '{expression: "header user-id % 100 == 20", value: gray}'
USER = ("user-id: 120",)
_ID = re.compile(rb"x-request-id: ([0-9a-f-]{36})\r\n")


@pytest.fixture
def managers(monkeypatch: pytest.MonkeyPatch) -> list[HttpManager]:
    """Those that the test's proxies make, in their order."""
    made: list[HttpManager] = []

    class Kept(HttpManager):
        __slots__ = ()

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(data_plane, "HttpManager", Kept)
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often filters looked at a head, by name, and how often they repeated what they did (`repeated`).
    Compiled code does not tell."""
    forget_heads()
    seen: Counter[str] = Counter()
    if COMPILED:
        return seen
    for kind in (TrafficLabelFilter, TagRouterFilter):
        hook: Any = kind.on_request_headers

        def counted(*arguments: Any, name: str = kind.__name__, hook: Any = hook) -> Any:
            seen[name] += 1
            return hook(*arguments)

        monkeypatch.setattr(kind, "on_request_headers", counted)
    whole = FilteredStream._filter_as_planned

    def planned(*arguments: Any) -> bool:
        done = whole(*arguments)
        seen["repeated"] += done
        return done

    monkeypatch.setattr(FilteredStream, "_filter_as_planned", planned)
    return seen


async def both(stack: AsyncExitStack, filters: str, seen: list[bytes] | None = None, **parts: str) -> tuple[Plane, str]:
    """A plane with a trunk and a gray endpoint, and its configuration."""
    trunk, gray = await named(stack, b"trunk", seen), await named(stack, b"gray", seen)
    text = web(hcm=filters, cluster=endpoints(lb(trunk), lb(gray, "gray")), **parts)
    return await stack.enter_async_context(plane(text)), text


def test_filters_repeat_what_they_did(looks: Counter[str]) -> None:
    """The head arrives, statistics count, later filters and logs find the labels: as if each filter had looked."""

    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            told = "%DYNAMIC_METADATA(mesh_proxy.traffic_label:x-mesh-tag)% %DYNAMIC_METADATA(mesh_proxy.tag_router:why)%"
            answered = f"response_headers_to_add: [{{header: {{key: x-told, value: '{told}'}}}}]"
            filters = chain(one_label(f"{{header: x-mesh-tag}}, {{trace: true}}, {GRAY}"), router(""))
            proxy, _ = await both(stack, filters, seen, host=answered)
            reader, writer = await proxy.connect("web")
            for _ in range(TIMES):
                writer.write(b"GET /repeated HTTP/1.1\r\nhost: a\r\nuser-id: 120\r\n\r\n")
                got = await head(reader)
                assert b"x-who: gray\r\n" in got
                assert b"x-told: gray exact\r\n" in got
            writer.close()
            for prefix, name in (
                ("http.web.traffic_label.", "labelled"),
                ("http.web.tag_router.", "tagged"),
                ("http.web.tag_router.", "exact"),
                ("http.web.", "rq_total"),
                ("cluster.a.", "upstream_rq_total"),
            ):
                assert proxy.stat(prefix, name) == TIMES, name
        assert len({_ID.sub(b"", one) for one in seen}) == 1
        assert b"x-mesh-tag: gray\r\n" in seen[0]
        assert len({found[1] for one in seen if (found := _ID.search(one)) is not None}) == TIMES

    run(test())
    # Not known, known, learnt: then it goes by itself.
    assert COMPILED or looks == {"TrafficLabelFilter": 3, "TagRouterFilter": 3, "repeated": TIMES - 3}


@pytest.mark.parametrize(
    ("sources", "repeats"),
    [
        ("{header: user-id}", True),
        ("{header: x-mesh-tag}, {cookie: tag}, {query: tag}", True),
        (f"{{baggage: x-mesh-tag}}, {GRAY}], attach_to: [header, baggage, tracestate", False),  # tracestate is written apart
        (f"{{baggage: x-mesh-tag}}, {GRAY}], attach_to: [header, baggage", True),
        ("{percentage: 50, hash: {header: user-id}, value: gray}, {constant: base}", True),
        ("{percentage: 50, value: gray}, {constant: base}", False),
        ("{percentage: 50, hash: {header: x-request-id}, value: gray}, {constant: base}", False),
        ("{header: x-request-id}", False),
        ("{constant: gray}, {percentage: 50, value: base}", True),  # no lot is drawn
        ("{source: namespace}, {source_ip: true}", True),
        ("{expression: 'source_ip == 127.0.0.1', value: gray}", True),
        ("{expression: 'source_ip == 127.0.0.1 and header user-id exists', value: gray}", False),
        ("{expression: 'header user-id exists and path startswith /', value: gray}", True),
        ("{trace: true}, {own_label: version}, {jwt: a.b}", True),
        ("{constant: 'not, a label'}", True),
        (f"{GRAY}], remember: true, member: [", None),
    ],
)
@pytest.mark.parametrize("fields", [(), ((b"x-request-id", b"mine"),)], ids=["", "own id"])
def test_an_endpoint_sees_no_difference(
    sources: str, repeats: bool | None, fields: tuple[tuple[bytes, bytes], ...], looks: Counter[str]
) -> None:
    if repeats is None:
        sources, repeats = GRAY, True
        more = ", remember: true"
    else:
        more = ""

    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(one_label(sources, more), router("")), seen)
            for _ in range(2):  # connections share what was learnt
                caller = Caller(*await proxy.connect("web"))
                for _ in range(TIMES):
                    got = await caller.answer(caller.request(b"/x?tag=gray", headers=((b"user-id", b"120"), *fields)))
                    assert got.status == 200
                caller.writer.close()
            stats = "http.web.traffic_label."
            counted = [proxy.stat(stats, name) for name in ("labelled", "unlabelled", "invalid")]
            assert sum(counted) == 2 * TIMES
            if more:
                assert proxy.stat(stats, "remembered") == 2 * TIMES
        plain = {re.sub(rb"x-mesh-tag: .*?\r\n", b"" if varies else rb"\g<0>", _ID.sub(b"", one)) for one in seen}
        assert len(plain) == 1

    varies = "x-request-id" in sources or ("percentage" in sources and not repeats)
    run(test())
    assert COMPILED or bool(looks["repeated"]) == repeats


def test_lots_are_drawn_each_time() -> None:
    async def test() -> None:
        for sources in ("{percentage: 50, value: gray}", "{percentage: 50, hash: {header: x-request-id}, value: gray}"):
            async with AsyncExitStack() as stack:
                proxy, _ = await both(stack, chain(one_label(sources), router("")))
                met: Counter[str] = Counter()
                while min(met["gray"], met["trunk"]) < 5:  # until both have come again and again
                    met[await ask(proxy)] += 1

    run(test())


def test_another_value_is_another_head(looks: Counter[str]) -> None:
    """In turns on one connection, and with a field of which no rule speaks."""

    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(one_label(GRAY), router("")), seen)
            caller = Caller(*await proxy.connect("web"))
            for i in range(6 * TIMES):
                user = b"%d" % (120 + i % 3)
                got = await caller.answer(caller.request(headers=((b"user-id", user), (b"x-other", b"%d" % (i % 2)))))
                assert got.headers.first[b"x-who"] == (b"trunk" if i % 3 else b"gray")
                assert b"user-id: %b\r\n" % user in seen[-1]
                assert b"x-other: %d\r\n" % (i % 2) in seen[-1]
            caller.writer.close()

    run(test())
    assert COMPILED or looks["repeated"]


def test_a_new_configuration_counts_at_once(looks: Counter[str]) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy, text = await both(stack, chain(one_label(GRAY), router("")))
            for _ in range(2):
                assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"gray"}
                await proxy.apply(text.replace("== 20", "== 21"))
                assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"trunk"}
                await proxy.apply(text.replace("value: gray", "value: none"))
                assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"trunk"}
                await proxy.apply(text)

    run(test())
    assert COMPILED or looks["repeated"] > 2 * TIMES


def test_new_endpoints_count_at_once(looks: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the label go, fall ill, change their label, come back; the connection manager stays the same."""
    monkeypatch.setattr(request_plan, "REST", 2)
    monkeypatch.setattr("mesh_proxy.stream.filtered_stream.REST", 2)

    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk, gray = await named(stack, b"trunk"), await named(stack, b"gray")
            filters = chain(one_label(GRAY), router(""))
            proxy = await stack.enter_async_context(plane(web(hcm=filters, cluster=endpoints(lb(trunk), lb(gray, "gray")))))
            reader, writer = await proxy.connect("web")

            async def who() -> set[bytes]:
                found = set()
                for _ in range(TIMES):
                    writer.write(b"GET /endpoints HTTP/1.1\r\nhost: a\r\nuser-id: 20\r\n\r\n")
                    found.add((await head(reader)).partition(b"x-who: ")[2].partition(b"\r\n")[0])
                return found

            for _ in range(2):
                assert await who() == {b"gray"}
                before = looks["repeated"]
                assert await who() == {b"gray"}
                assert COMPILED or looks["repeated"] > before
                for cluster, expected in (
                    (endpoints(lb(trunk)), b"trunk"),
                    (endpoints(lb(trunk), lb(gray, "gray", "UNHEALTHY")), b"trunk"),
                    (endpoints(lb(trunk), lb(gray, "blue")), b"trunk"),
                    (endpoints(lb(trunk, "gray"), lb(gray, "blue")), b"trunk"),
                    (endpoints(lb(trunk), lb(gray, "gray")), b"gray"),
                ):
                    await proxy.apply(web(hcm=filters, cluster=cluster))
                    assert await who() == {expected}
            writer.close()

    run(test())


def test_a_refusal_is_no_plan(looks: Counter[str]) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk = await named(stack, b"trunk")
            filters = chain(one_label(GRAY), router("mode: strict"))
            proxy = await stack.enter_async_context(plane(web(hcm=filters, cluster=endpoints(lb(trunk)))))
            assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"503"}
            assert proxy.stat("http.web.tag_router.", "refused") == TIMES
            await proxy.apply(web(hcm=filters, cluster=endpoints(lb(trunk, "gray"))))
            assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"trunk"}

    run(test())


def test_what_a_trace_has_learnt_counts_at_once(looks: Counter[str]) -> None:
    """Equal heads with equal trace ids, before the label is known, while it is, and when its time is over."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            filters = chain(
                label("labels: [{name: x-mesh-tag, sources: [{trace: true}]}], trace_ids: [my-trace, my-other]"), router("")
            )
            proxy, _ = await both(stack, filters)
            traces, now = proxy.data._context.trace_memory, asyncio.get_running_loop().time()
            for names in (("my-trace: 1234",), ("my-other: 77",), ("my-trace: 0", "my-other: 78")):
                trace_id = names[-1].split()[1].encode()
                for _ in range(2):
                    assert {await ask(proxy, *names) for _ in range(TIMES)} == {"trunk"}
                    traces.remember(b"x-mesh-tag", trace_id, b"gray", now, 10_000.0)
                    assert {await ask(proxy, *names) for _ in range(TIMES)} == {"gray"}
                    traces.remember(b"x-mesh-tag", trace_id, b"blue", now, 10_000.0)
                    assert {await ask(proxy, *names) for _ in range(TIMES)} == {"trunk"}
                    traces.remember(b"x-mesh-tag", trace_id, b"gray", now, -10_000.0)
            assert proxy.stat("http.web.traffic_label.", "restored") == 3 * 2 * TIMES + 3 * 2 * TIMES

    run(test())
    assert COMPILED or looks["repeated"]


def test_what_is_restored_is_repeated_and_counted(looks: Counter[str]) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(one_label("{trace: true}"), router("")))
            traces, now = proxy.data._context.trace_memory, asyncio.get_running_loop().time()
            traces.remember(b"x-mesh-tag", b"79", b"gray", now, 10_000.0)
            caller = Caller(*await proxy.connect("web"))
            for _ in range(TIMES):
                got = await caller.answer(caller.request(headers=((b"x-request-id", b"79"),)))
                assert got.headers.first[b"x-who"] == b"gray"
            caller.writer.close()
            assert proxy.stat("http.web.traffic_label.", "restored") == TIMES

    run(test())
    assert COMPILED or looks["repeated"]


def test_every_request_is_remembered_by_its_own_id(looks: Counter[str]) -> None:
    async def test() -> None:
        seen: list[bytes] = []
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(one_label(GRAY, ", remember: true"), router("")), seen)
            assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"gray"}
            traces, now = proxy.data._context.trace_memory, asyncio.get_running_loop().time()
            ids = [found[1] for one in seen if (found := _ID.search(one)) is not None]
            assert len(set(ids)) == TIMES
            assert {traces.recall(b"x-mesh-tag", one, now) for one in ids} == {b"gray"}

    run(test())
    assert COMPILED or looks["repeated"] == TIMES - 3


async def from_address(proxy: Plane, address: str, *fields: bytes) -> list[bytes]:
    """What the answers to some equal requests of this caller say, in order."""
    port = next(port for (name, _), port in proxy.ports.items() if name == "web")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    found = []
    for _ in range(TIMES):
        writer.write(b"\r\n".join([b"GET /who HTTP/1.1", b"host: a", *fields, b"", b""]))
        found.append((await head(reader)).partition(b"x-who: ")[2].partition(b"\r\n")[0])
    writer.close()
    return found


@pytest.mark.parametrize(
    ("filters", "fields"),
    [
        (one_label("{expression: 'source_ip == 127.0.0.2', value: gray}"), ()),
        # What a rule says of the head must not be asked of the head that goes on.
        (one_label("{expression: 'source_ip == 127.0.0.2 and not header x-mesh-tag exists', value: gray}, {constant: base}"), ()),
        (
            label(
                "labels: [{name: x-mesh-tag, sources: [{header: x-mesh-tag}, {constant: base}]}], trust: {addresses: [127.0.0.2]}"
            ),
            (b"x-mesh-tag: gray",),
        ),
    ],
)
@pytest.mark.parametrize("manager", ["", ", use_remote_address: true"])
def test_callers_with_equal_heads_keep_their_own_labels(
    filters: str, fields: tuple[bytes, ...], manager: str, looks: Counter[str]
) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(filters, router("")) + manager)
            for _ in range(2):
                assert set(await from_address(proxy, "127.0.0.1", *fields)) == {b"trunk"}
                assert set(await from_address(proxy, "127.0.0.2", *fields)) == {b"gray"}

    run(test())


def test_certificates_with_equal_heads_keep_their_own_labels(looks: Counter[str]) -> None:
    mesh = Authority("mesh.local")
    socket = downstream(
        f"tls_certificates: [{certificate(mesh.workload('web'))}], validation_context: {{trusted_ca: {inline(mesh.pem)}}}"
    )
    pairs = {name: mesh.issue(uris=[f"spiffe://mesh.local/ns/{name}/sa/s"], subject=name) for name in ("gray", "base")}

    async def test() -> None:
        async with AsyncExitStack() as stack:
            filters = chain(one_label("{source: namespace}"), router(""))
            proxy, _ = await both(stack, filters, chain=f"transport_socket: {socket}")
            port = next(port for (name, _), port in proxy.ports.items() if name == "web")
            for name in ("gray", "base", "gray", None, "base"):
                context = client(mesh.pem, pair=pairs[name] if name is not None else None)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="web")
                for _ in range(TIMES):
                    writer.write(b"GET /own HTTP/1.1\r\nhost: a\r\n\r\n")
                    assert (b"x-who: gray\r\n" in await head(reader)) == (name == "gray")
                writer.transport.abort()

    run(test())
    assert COMPILED or looks["repeated"] > TIMES


def test_new_routes_count_at_once_and_are_planned_again(looks: Counter[str], managers: list[HttpManager]) -> None:
    """As they come by RDS, on a connection that stays; the label decides about the route."""

    def routes(value: str) -> str:
        return (
            f"routes: [{{match: {{prefix: /, headers: [{{name: x-mesh-tag, string_match: {{exact: {value}}}}}]}}, "
            "route: {cluster: b}}, {match: {prefix: /}, route: {cluster: a}}]"
        )

    async def test() -> None:
        async with AsyncExitStack() as stack:
            trunk, gray = await named(stack, b"trunk"), await named(stack, b"gray")
            b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{lb(gray)}]}}]}}"
            texts = [
                web(hcm=chain(one_label(GRAY)), host=routes(value), cluster=endpoints(lb(trunk))) for value in ("gray", "none")
            ]
            proxy = await stack.enter_async_context(plane(texts[0].replace("{name: b}", f"{{name: b, {b}}}")))
            await stack.enter_async_context(plane(texts[1]))
            ours, other = managers
            tables = [one.config.route_table for one in (ours, other)]
            reader, writer = await proxy.connect("web")

            async def who() -> set[bytes]:
                found = set()
                for _ in range(TIMES):
                    writer.write(b"GET /routes HTTP/1.1\r\nhost: a\r\nuser-id: 20\r\n\r\n")
                    found.add((await head(reader)).partition(b"x-who: ")[2].partition(b"\r\n")[0])
                return found

            assert await who() == {b"gray"}
            for table, name in zip((*tables, *tables), (b"gray", b"trunk") * 2, strict=True):
                assert table is not None
                ours.take_routes(ours.compile_routes(table))
                before = looks["repeated"]
                assert await who() == {name}
                assert COMPILED or looks["repeated"] - before == TIMES - 2  # the first makes the plan, the second is learnt
            writer.close()

    run(test())


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch, looks: Counter[str]) -> None:
    monkeypatch.setattr(request_plan, "PLANS", 4)

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(one_label(GRAY), router("")))
            for i in range(12):
                user = f"user-id: {100 + 10 * (i % 4)}"
                assert {await ask(proxy, user, f"x-n: {i}") for _ in range(4)} == {"gray" if i % 4 == 2 else "trunk"}

    run(test())
    assert COMPILED or looks["repeated"] == 12


CORS = "{name: cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}"
FAULT = "{name: fault, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}"
POLICY = (
    "typed_per_filter_config: {cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, "
    "allow_origin_string_match: [{exact: 'http://o'}]}}"
)


@pytest.mark.parametrize("part", ["table", "host", "route", "weighted"])
def test_filters_that_no_route_configures_are_left_out(part: str, looks: Counter[str], managers: list[HttpManager]) -> None:
    """As Istio puts them into every chain; a table that says something to them brings them back."""
    match = "match: {prefix: /}"
    parts = {
        "table": {"table": POLICY},
        "host": {"host": POLICY},
        "route": {"route": f"{match}, route: {{cluster: a}}, {POLICY}"},
        "weighted": {"route": f"{match}, route: {{weighted_clusters: {{clusters: [{{name: a, weight: 1, {POLICY}}}]}}}}"},
    }[part]

    async def test() -> None:
        async with AsyncExitStack() as stack:
            filters = chain(CORS, FAULT, one_label(GRAY), router(""))
            proxy, _ = await both(stack, filters)
            await both(stack, filters, **parts)
            ours, other = managers
            reader, writer = await proxy.connect("web")
            for source, allowed in ((ours, False), (other, True), (ours, False), (other, True)):
                table = source.config.route_table
                assert table is not None
                ours.take_routes(ours.compile_routes(table))
                for _ in range(TIMES):
                    writer.write(b"GET /cors HTTP/1.1\r\nhost: a\r\nuser-id: 120\r\norigin: http://o\r\n\r\n")
                    got = await head(reader)
                    assert b"x-who: gray\r\n" in got
                    assert (b"access-control-allow-origin: http://o\r\n" in got) == allowed
                if source is ours:
                    assert COMPILED or looks["repeated"] >= TIMES - 3
                    looks["repeated"] = 0
                else:
                    assert COMPILED or not looks["repeated"]
            writer.close()

    run(test())


def test_routes_that_differ_in_their_filters(looks: Counter[str]) -> None:
    """A filter of our own chain that cannot repeat what it does: all look at every head."""
    mutation = "{name: m, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3."
    mutation += "HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-a, value: b}}}]}}}"

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy, _ = await both(stack, chain(mutation, one_label(GRAY), router("")))
            assert {await ask(proxy, *USER) for _ in range(TIMES)} == {"gray"}

    run(test())
    assert COMPILED or looks == {"TrafficLabelFilter": TIMES, "TagRouterFilter": TIMES, "repeated": 0}
