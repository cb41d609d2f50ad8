"""Route chains: what each dimension wants, how the chain narrows and falls back, and what the log says of it."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bootstraps import web
from label_support import STRUCT, chain, named
from plane_support import Plane, head, plane, run

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.route_chain import REMEMBERED, configure
from mesh_filters.route_dimensions import configure_unit, unit_by_share
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import AddressConfig

NODE = "node: {id: here, cluster: c, locality: {region: eu, zone: eu-1}, metadata: {LABELS: {env: daily}}}\n"
SAYS = (
    'response_headers_to_add: [{header: {key: x-way, value: "%FILTER_STATE(mesh_proxy.route_chain:PLAIN)%"}}, '
    '{header: {key: x-region, value: "%DYNAMIC_METADATA(mesh_proxy.route_chain:region)%"}}]'
)
HOST = f"routes: [{{match: {{prefix: /}}, route: {{cluster: a}}, {SAYS}}}]"


def route_chain(dimensions: str) -> str:
    return f"{{name: chain, typed_config: {{{STRUCT}RouteChain, value: {{dimensions: [{dimensions}]}}}}}}"


def end(address: AddressConfig, labels: str, health: str = "UNKNOWN") -> str:
    where = f"endpoint: {{address: {{socket_address: {{address: {address.host}, port_value: {address.port}}}}}}}"
    return f"{{metadata: {{filter_metadata: {{envoy.lb: {{{labels}}}}}}}, health_status: {health}, {where}}}"


async def running(stack: AsyncExitStack, dimensions: str, sick: tuple[str, ...] = ()) -> Plane:
    """Regions eu and us; in each a trunk, a gray, and in us also a beta. Names are `<region>-<version>`."""
    regions = []
    for region, versions in (("eu", ("trunk", "gray")), ("us", ("trunk", "gray", "beta"))):
        ends = []
        for version in versions:
            name = f"{region}-{version}"
            labels = ("" if version == "trunk" else f"version: {version}, ") + f"unit: u{1 if region == 'eu' else 2}"
            ends.append(end(await named(stack, name.encode()), labels, "UNHEALTHY" if name in sick else "UNKNOWN"))
        regions.append(f"{{locality: {{region: {region}, zone: {region}-1}}, lb_endpoints: [{', '.join(ends)}]}}")
    cluster = f"load_assignment: {{cluster_name: a, endpoints: [{', '.join(regions)}]}}"
    text = NODE + web(hcm=chain(route_chain(dimensions)), host=HOST, cluster=cluster)
    return await stack.enter_async_context(plane(text))


async def ask(proxy: Plane, *headers: str) -> tuple[str, str]:
    """(who answered or the status, what the log would say)."""
    reader, writer = await proxy.connect("web")
    writer.write("\r\n".join(["GET / HTTP/1.1", "host: a", *headers, "", ""]).encode())
    answered = (await head(reader)).decode()
    writer.close()
    who = re.search(r"x-who: (\S+)", answered)
    way = re.search(r"x-way: (.*)\r\n", answered)
    return who[1] if who else answered.split()[1], way[1] if way else ""


REGION = "{name: region, sources: [{header: x-region}, {own: true}]}"
VERSION = "{name: version, sources: [{header: x-version}, {constant: trunk}], fallback: [{to: ''}]}"


def test_narrows_in_order() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{REGION}, {VERSION}")
            none = "(no_instances)"
            assert await ask(proxy) == ("eu-trunk", f'region=eu version=trunk>""{none}')
            assert await ask(proxy, "x-version: gray") == ("eu-gray", "region=eu version=gray")
            assert await ask(proxy, "x-region: us", "x-version: gray") == ("us-gray", "region=us version=gray")
            # The region goes first: there is a beta elsewhere, and it does not count.
            assert await ask(proxy, "x-version: beta") == ("eu-trunk", f'region=eu version=beta>""{none}')
            assert await ask(proxy, "x-region: us", "x-version: beta") == ("us-beta", "region=us version=beta")
            # Nobody is in asia, and a permissive dimension is left out then.
            who, way = await ask(proxy, "x-region: asia", "x-version: beta")
            assert (who, way) == ("us-beta", f"region=asia>*{none} version=beta")
            assert proxy.stat("http.web.route_chain.", "narrowed") == 6
            assert proxy.stat("http.web.route_chain.", "fallback") == 3

    run(test())


def test_the_order_decides() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{VERSION}, {REGION}")
            assert (await ask(proxy, "x-version: beta"))[0] == "us-beta"
            assert (await ask(proxy, "x-version: gray"))[0] == "eu-gray"

    run(test())


def test_cases_of_fallback() -> None:
    version = (
        "{name: version, sources: [{header: x-version}], mode: strict, fallback: ["
        "{from: gray, to: beta, case: no_healthy}, {from: gray, to: '', case: no_instances}, {from: blue, to: gray}]}"
    )

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{REGION}, {version}", sick=("us-gray", "eu-trunk"))
            assert await ask(proxy, "x-region: us", "x-version: gray") == ("us-beta", "region=us version=gray>beta(no_healthy)")
            assert (await ask(proxy, "x-version: blue"))[0] == "eu-gray"
            way = "region=us version=blue>gray(no_instances)>beta(no_healthy)"
            assert await ask(proxy, "x-region: us", "x-version: blue") == ("us-beta", way)
            # Strict, and nothing leads away from beta.
            assert await ask(proxy, "x-version: beta") == ("503", "region=eu version=beta>none(no_instances)")
            assert proxy.stat("http.web.route_chain.", "refused") == 1

    run(test())


def test_rules_go_first_and_region_fails_over() -> None:
    rules = "rules: [{when: 'header user-id % 2 == 1', to: us}]"
    region = f"{{name: region, {rules}, sources: [{{own: true}}], fallback: [{{from: eu, to: us, case: no_healthy}}]}}"

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{region}, {VERSION}", sick=("eu-trunk", "eu-gray"))
            assert await ask(proxy, "user-id: 7", "x-version: gray") == ("us-gray", "region=us version=gray")
            assert await ask(proxy, "user-id: 8", "x-version: gray") == ("us-gray", "region=eu>us(no_healthy) version=gray")

    run(test())


def test_units() -> None:
    unit = (
        "{name: unit, sources: [{header: user-id}], modulo: {divisor: 100, units: {u1: [[0, 49]], u2: [[50, 98]]}}, "
        "table: {vip: u2}, mode: strict}"
    )

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{unit}, {VERSION}")
            for user, where in (("100", "eu"), ("149", "eu"), ("150", "us"), ("1298", "us"), ("vip", "us")):
                assert (await ask(proxy, f"user-id: {user}"))[0] == f"{where}-trunk", user
            seen = {(await ask(proxy, "user-id: 99"))[0] for _ in range(4)}
            assert seen == {"eu-trunk", "us-trunk"}, "nobody's: the dimension says nothing"

    run(test())


def test_a_decision_is_made_anew_when_endpoints_change() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{REGION}, {VERSION}")
            assert (await ask(proxy, "x-version: gray"))[0] == "eu-gray"
            cluster = proxy.data._context.clusters.get("a")
            assert cluster is not None
            gray = next(one for one in cluster.endpoints if one.locality.region == "eu" and "version" in one.metadata["envoy.lb"])
            gray.ejected = True
            cluster.refresh()
            assert await ask(proxy, "x-version: gray") == ("eu-trunk", 'region=eu version=gray>""(no_healthy)')

    run(test())


def test_values_of_requests_do_not_fill_the_memory() -> None:
    asked: list[tuple[tuple[str, str], ...]] = []
    index = SimpleNamespace(health=lambda labels: (asked.append(labels), (1, 1))[1])
    context = SimpleNamespace(
        stat_prefix="", stats=lambda *a, **k: SimpleNamespace(narrowed=0, passed=0), endpoint_labels=lambda name: index
    )
    filter_: Any = configure({"dimensions": [{"name": "version", "sources": [{"header": "v"}]}]}).factory(context)  # type: ignore[arg-type]
    for i in range(REMEMBERED + 10):
        filter_.on_request_headers(stream := stream_with(v=b"%d" % i), stream.request)
    assert len(asked) == REMEMBERED + 10
    assert len(filter_._decisions["a"][1]) <= REMEMBERED
    filter_.on_request_headers(stream := stream_with(v=b"%d" % (REMEMBERED + 9)), stream.request)
    assert len(asked) == REMEMBERED + 10, "known"
    filter_.on_request_headers(stream := stream_with(v=b"x" * 129), stream.request)
    assert stream.labels is None, "too long to be a value"


def stream_with(**headers: bytes) -> Any:
    fields = Headers([(name.encode(), value) for name, value in headers.items()])
    request = RequestHeaders(0, b"GET", b"http", b"a", b"/", fields, True)
    return SimpleNamespace(
        request=request, target_cluster=lambda: "a", labels=None, dynamic_metadata=None, filter_state=None, flags=0
    )


def test_functions_of_a_user() -> None:
    context: Any = SimpleNamespace()

    def unit_of(user: str, **values: Any) -> str | None:
        config = configure_unit({"sources": [{"header": "user"}], **values}, "d")
        return config.compile(context, "unit")(stream_with(user=user.encode()))

    ranges = {"u1": [[1, 10], [100, 199]], "u2": [[11.0, 99.0]]}
    for user, unit in (("1", "u1"), ("10", "u1"), ("11", "u2"), ("99", "u2"), ("199", "u1"), ("200", None), ("0", None)):
        assert unit_of(user, ranges=ranges) == unit
    assert unit_of("none", ranges=ranges, default="u9") == "u9"
    assert unit_of("-1", modulo={"divisor": 10, "units": {"u1": [[0, 8]], "u2": [[9, 9]]}}) == "u2"
    assert unit_of("alice", table={"alice": "u3"}) == "u3"
    assert unit_of("", table={"alice": "u3"}, default="u1") == "u1"
    assert unit_of("bob", table={"alice": "u3"}, rules=[{"when": "header user == bob", "to": "u7"}]) == "u7"


def test_shares_of_users() -> None:
    """Each unit has its share, everybody stays, and who moves when a share grows moves to the unit that grew."""
    users = [b"user-%d" % i for i in range(4000)]
    before = [unit_by_share(user, [("u1", 1.0), ("u2", 1.0), ("u3", 2.0)]) for user in users]
    counts = Counter(before)
    assert all(abs(counts[unit] - share) < 150 for unit, share in (("u1", 1000), ("u2", 1000), ("u3", 2000)))
    after = [unit_by_share(user, [("u1", 1.0), ("u2", 1.0), ("u3", 3.0)]) for user in users]
    assert {(a, b) for a, b in zip(before, after, strict=True) if a != b} == {("u1", "u3"), ("u2", "u3")}


@pytest.mark.parametrize(
    ("dimensions", "path", "why"),
    [
        ("", "dimensions", "at least one"),
        ("{sources: [{own: true}]}", "dimensions[0].name", "must be a text"),
        ("{name: colour, sources: [{own: true}]}", "dimensions[0].kind", "no kind 'colour'"),
        ("{name: path, kind: label, sources: [{own: true}]}", "dimensions[0].name", "a word"),
        ("{name: region}", "dimensions[0].sources", "at least one source"),
        ("{name: region, sources: [{own: 1}]}", "dimensions[0].sources[0].own", "true or"),
        ("{name: region, sources: [{own: true, header: a}]}", "dimensions[0].sources[0]", "exactly one"),
        ("{name: region, sources: [{headr: a}]}", "dimensions[0].sources[0]", "exactly one"),
        ("{name: region, rules: [{when: 'header a', to: b}]}", "dimensions[0].rules[0].when", "ends where"),
        ("{name: region, rules: [{to: b}]}", "dimensions[0].rules[0]", "when and to"),
        ("{name: region, sources: [{own: true}], units: 1}", "dimensions[0].units", "unknown"),
        ("{name: region, sources: [{own: true}], mode: x}", "dimensions[0].mode", "permissive or strict"),
        ("{name: region, sources: [{own: true}], fallback: [{from: a}]}", "dimensions[0].fallback[0]", "needs to"),
        (
            "{name: region, sources: [{own: true}], fallback: [{to: a, case: x}]}",
            "dimensions[0].fallback[0].case",
            "no_instances",
        ),
        ("{name: region, sources: [{own: true}]}, {name: region, sources: [{own: true}]}", "dimensions[1].name", "already"),
        ("{name: unit, sources: [{header: a}]}", "dimensions[0]", "one of modulo"),
        ("{name: unit, modulo: {divisor: 1, units: {a: [[0, 0]]}}}", "dimensions[0].sources", "the user's id"),
        ("{name: unit, sources: [{header: a}], modulo: {divisor: 0, units: {}}}", "dimensions[0].modulo.divisor", "at least 1"),
        (
            "{name: unit, sources: [{header: a}], modulo: {divisor: 10, units: {u: [[0, 10]]}}}",
            "dimensions[0].modulo.units",
            "not within",
        ),
        ("{name: unit, sources: [{header: a}], ranges: {u: [[0, 5]], v: [[5, 9]]}}", "dimensions[0].ranges", "both have 5"),
        ("{name: unit, sources: [{header: a}], ranges: {u: [[5, 0]]}}", "dimensions[0].ranges.u[0]", "ends before"),
        ("{name: unit, sources: [{header: a}], ranges: {u: [5]}}", "dimensions[0].ranges.u", "list of"),
        ("{name: unit, sources: [{header: a}], ranges: {u: [[a, 5]]}}", "dimensions[0].ranges.u[0]", "whole number"),
        ("{name: unit, sources: [{header: a}], hash: {u: 0}}", "dimensions[0].hash.u", "share"),
        ("{name: unit, sources: [{header: a}], table: [1]}", "dimensions[0].table", "map users"),
    ],
)
def test_wrong_chains_are_refused(dimensions: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(route_chain(dimensions))))
    assert caught.value.path.endswith(f"http_filters[0].typed_config.value.{path}")
    assert why in caught.value.why


DIMENSION = """
from dataclasses import dataclass
from mesh_filters.route_dimensions import DimensionDefinition

@dataclass(frozen=True)
class Weekday:
    header: str
    def compile(self, context, key):
        name = self.header.encode()
        return lambda stream: "gray" if stream.request.headers.first.get(name) == b"sunday" else None

definition = DimensionDefinition(
    key="version", fields=("header",), configure=lambda values, path: Weekday(header=values["header"]))
"""


@pytest.fixture
def weekday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A dimension of another distribution, installed."""
    (tmp_path / "weekday_dimension.py").write_text(DIMENSION)
    info = tmp_path / "weekday_dimension-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weekday-dimension\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mesh_proxy.route_dimensions]\nweekday = weekday_dimension:definition\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("weekday_dimension", None)
    shutil.rmtree(info)


def test_a_dimension_of_another_distribution(weekday: None) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await running(stack, f"{REGION}, {{name: weekday, header: x-day}}")
            assert await ask(proxy, "x-day: sunday") == ("eu-gray", "region=eu weekday=gray")
            assert (await ask(proxy, "x-day: monday"))[1] == "region=eu"

    run(test())
