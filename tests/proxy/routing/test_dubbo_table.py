"""The compiled Dubbo table against a plain one that tries every route in order; and what the compiled one keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dubbo_support.wire import GENERIC, STRING, call, call_body, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_codecs.errors import RemoteProtocolError
from mesh_proxy.config.model import (
    DubboParameterMatchConfig,
    DubboRoute,
    DubboRouteConfig,
    DubboRouteOptions,
    HeaderMatcherConfig,
    HeaderMatchKind,
    StringMatcherConfig,
    StringMatchKind,
    WeightedClusterConfig,
)
from mesh_proxy.routing import dubbo, dubbo_decision, dubbo_route
from mesh_proxy.routing.dubbo import DubboRouteTable, Plan
from mesh_proxy.routing.dubbo_decision import Branch
from mesh_proxy.routing.dubbo_route import ENVOY_LB
from mesh_proxy.routing.regex import compile_full_match
from mesh_proxy.stats.dubbo_group import DubboStats

WORDS = ("a", "ab", "b", "aB", "")
INTERFACES = ("x.A", "x.B", "x.*", "*.A", "*", "", "*A*", "x.A*")
SERVICES = ("x.A", "x.B", "y.A", "x.", "A", "")
TAGS = ("t", "u", "group")


def message(data: bytes, memo: HeadMemo | None = None) -> DubboMessage:
    (one,) = DubboCodec(memo or HeadMemo()).receive_data(data)
    assert isinstance(one, DubboMessage)
    return one


def header(name: str, wanted: str) -> HeaderMatcherConfig:
    string = StringMatcherConfig(kind=StringMatchKind.EXACT, value=wanted)
    return HeaderMatcherConfig(name=name, kind=HeaderMatchKind.STRING, string=string)


def route(cluster: str, *headers: HeaderMatcherConfig, method: str = "") -> DubboRoute:
    matcher = StringMatcherConfig(kind=StringMatchKind.EXACT, value=method) if method else None
    return DubboRoute(name=cluster, method=matcher, headers=headers, clusters=(WeightedClusterConfig(name=cluster),))


# -- the plain table


def text_matches(config: StringMatcherConfig, text: str) -> bool:
    wanted = config.value
    if config.kind is StringMatchKind.REGEX:
        return compile_full_match(wanted)(text.encode())
    if config.ignore_case:
        wanted, text = wanted.lower(), text.lower()
    return {
        StringMatchKind.EXACT: text == wanted,
        StringMatchKind.PREFIX: text.startswith(wanted),
        StringMatchKind.SUFFIX: text.endswith(wanted),
        StringMatchKind.CONTAINS: wanted in text,
    }[config.kind]


def header_matches(config: HeaderMatcherConfig, attachments: dict[str, str]) -> bool:
    found = attachments.get(config.name)
    if config.treat_missing_as_empty and found is None:
        found = ""
    if config.kind is HeaderMatchKind.PRESENT:
        return ((found is not None) == config.present) != config.invert
    if found is None:
        return False
    assert config.string is not None
    return text_matches(config.string, found) != config.invert


def interface_matches(pattern: str, service: str) -> bool:
    if pattern == "*":
        return service != ""
    if pattern.startswith("*"):
        return service.endswith(pattern[1:]) and len(service) >= len(pattern)
    if pattern.endswith("*"):
        return service.startswith(pattern[:-1]) and len(service) >= len(pattern)
    return service == pattern


def plain(
    configs: list[DubboRouteConfig], service: str, version: str, method: str, tags: dict[str, str], first: str
) -> str | None:
    for config in configs:
        if not interface_matches(config.interface, service) or config.version not in ("", version):
            continue
        if config.group and tags.get("group") != config.group:
            continue
        for one in config.routes:
            if one.method is not None and not text_matches(one.method, method):
                continue
            if any(p.exact not in ("", first) or not first for p in one.parameters):
                continue
            if all(header_matches(wanted, tags) for wanted in one.headers):
                return one.clusters[0].name
    return None


texts = st.builds(
    StringMatcherConfig,
    kind=st.sampled_from([kind for kind in StringMatchKind if kind is not StringMatchKind.REGEX]),
    value=st.sampled_from(WORDS[:-1]),
    ignore_case=st.booleans(),
) | st.sampled_from([StringMatcherConfig(kind=StringMatchKind.REGEX, value=pattern) for pattern in (".*", "a.*", "b")])
exact_headers = st.builds(header, st.sampled_from(TAGS), st.sampled_from(WORDS))
other_headers = st.builds(
    HeaderMatcherConfig,
    name=st.sampled_from(TAGS),
    kind=st.just(HeaderMatchKind.STRING),
    string=texts,
    invert=st.booleans(),
    treat_missing_as_empty=st.booleans(),
) | st.builds(HeaderMatcherConfig, name=st.sampled_from(TAGS), kind=st.just(HeaderMatchKind.PRESENT), present=st.booleans())
parameters = st.builds(DubboParameterMatchConfig, index=st.just(0), exact=st.sampled_from(WORDS))
routes = st.builds(
    DubboRoute,
    method=st.none() | texts,
    headers=st.lists(exact_headers | other_headers, max_size=3).map(tuple),
    parameters=st.just(()) | st.tuples(parameters),
)
configs = st.builds(
    DubboRouteConfig,
    interface=st.sampled_from(INTERFACES),
    version=st.sampled_from(("", "", "1.0.0", "2.0.0")),
    group=st.sampled_from(("", "", "a")),
    routes=st.lists(routes, max_size=8).map(tuple),
)
attachments = st.dictionaries(st.sampled_from(TAGS), st.sampled_from(WORDS))
requests = st.tuples(
    st.sampled_from(SERVICES),
    st.sampled_from(("1.0.0", "2.0.0", "0.0.0")),
    st.sampled_from(WORDS),
    attachments,
    st.sampled_from(WORDS),
    st.booleans(),
)


def numbered(table: list[DubboRouteConfig]) -> list[DubboRouteConfig]:
    """Every route leads to a cluster of its own."""
    return [
        replace(
            config,
            routes=tuple(replace(one, clusters=(WeightedClusterConfig(name=f"{i}.{j}"),)) for j, one in enumerate(config.routes)),
        )
        for i, config in enumerate(table)
    ]


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(configs, max_size=5).map(numbered),
    calls=st.lists(requests, min_size=1, max_size=8),
    unbound=st.sampled_from((0, 1, 64)),
)
def test_the_same_route_as_by_trying_each(
    table: list[DubboRouteConfig], calls: list[tuple[str, str, str, dict[str, str], str, bool]], unbound: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dubbo_decision, "MAX_UNBOUND", unbound)
        patch.setattr(dubbo_decision, "GROW_FROM", unbound)
        patch.setattr(dubbo, "MAX_KEPT", unbound + 1)
        memo, compiled = HeadMemo(), DubboRouteTable(table)
        for service, version, method, tags, first, generic in calls:
            name, types = ("$invoke", GENERIC) if generic else (method, STRING)
            arguments = (method, None, None) if generic else (first,)
            data = call(service, name, version=version, types=types, arguments=arguments, attachments=tags)
            target = compiled.find(message(data, memo))
            expected = plain(table, service, version, method, tags, method if generic else first)
            assert (target.cluster if target is not None else None) == expected


# -- what is kept


def tagged(count: int) -> DubboRouteTable:
    entries = [route(f"c{i}", header("tag", f"t{i}")) for i in range(count)]
    return DubboRouteTable([DubboRouteConfig(interface="*", routes=(*entries, route("rest")))])


def plan_of(table: DubboRouteTable, one: DubboMessage) -> Plan:
    table.find(one)
    assert one.head is not None
    assert isinstance(one.head.plan, Plan)
    return one.head.plan


def test_ten_thousand_tags_are_one_look_up() -> None:
    table = tagged(10_000)
    memo = HeadMemo()
    for tag, cluster in (("t0", "c0"), ("t9999", "c9999"), ("other", "rest")):
        target = table.find(message(call(attachments={"tag": tag}), memo))
        assert target is not None
        assert target.cluster == cluster
    target = table.find(message(call(), memo))
    assert target is not None
    assert target.cluster == "rest"
    decision = plan_of(table, message(call(), memo)).decision
    assert decision is not None
    tree = decision.tree
    assert isinstance(tree, Branch)
    assert tree.name == b"tag"
    # Behind the look-up nothing is left to test.
    assert all(isinstance(leaf, tuple) and len(leaf) == 1 and leaf[0][1] == () for leaf in tree.by_value.values())


def test_ten_thousand_methods_and_interfaces_leave_nothing_to_decide() -> None:
    methods = DubboRouteConfig(interface="x.A", routes=tuple(route(f"m{i}", method=f"m{i}") for i in range(10_000)))
    interfaces = [DubboRouteConfig(interface=f"y.I{i}", routes=(route(f"i{i}"),)) for i in range(10_000)]
    table = DubboRouteTable([methods, *interfaces, DubboRouteConfig(interface="*", routes=(route("rest"),))])
    for service, method, cluster in (("x.A", "m9999", "m9999"), ("y.I9999", "any", "i9999"), ("x.A", "other", "rest")):
        plan = plan_of(table, message(call(service, method)))
        assert plan.target is not None
        assert plan.target.cluster == cluster


@pytest.mark.parametrize("grow_from", [0, 12])
def test_two_tags_are_two_look_ups(grow_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo_decision, "GROW_FROM", grow_from)
    entries = [route(f"{a}{b}", header("a", a), header("b", b)) for a in "xyz" for b in "uvw"]
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(*entries, route("rest")))])
    for a in "xyzq":
        for b in "uvwq":
            target = table.find(message(call(attachments={"a": a, "b": b})))
            assert target is not None
            assert target.cluster == (f"{a}{b}" if "q" not in a + b else "rest")


def test_what_callers_can_make_it_remember_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo, "MAX_KEPT", 10)
    monkeypatch.setattr(dubbo_route, "MAX_NAMED_TARGETS", 10)
    by_header = DubboRoute(clusters=(WeightedClusterConfig(name="", cluster_header="to"),))
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("m", method="m"), by_header))])
    memo = HeadMemo()
    for i in range(100):
        target = table.find(message(call(f"s{i % 7}", f"m{i}", attachments={"to": f"c{i}"}), memo))
        assert target is not None
        assert target.cluster == f"c{i}"
    assert len(table.services) <= 10
    assert all(len(service.kept) <= 10 for service in table.services.values())
    assert all(len(one) <= 12 for compiled in table.compiled for one in compiled.named_targets)


def test_a_cluster_that_the_call_names() -> None:
    by_header = DubboRoute(clusters=(WeightedClusterConfig(name="", cluster_header="to"),))
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(by_header,))])
    found = [table.find(message(call(attachments=tags))) for tags in ({"to": "c"}, {"To": "c"}, {})]
    assert [target.cluster for target in found if target is not None] == ["c", "c", ""]


def test_weighted_clusters_narrow_the_metadata_of_the_route() -> None:
    clusters = (
        WeightedClusterConfig(name="a", metadata_match={ENVOY_LB: {"version": "1"}}),
        WeightedClusterConfig(name="b", metadata_match={"other": {"x": 1}}),
    )
    options = DubboRouteOptions(timeout_s=3.0)
    one = DubboRoute(name="r", clusters=clusters, metadata_match={ENVOY_LB: {"version": "0", "zone": "z"}}, options=options)
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(one,))])
    first, second = (table.find(message(call()), pick) for pick in (0, 1))
    assert first is not None
    assert second is not None
    assert (first.cluster, first.metadata_match) == ("a", {"version": "1", "zone": "z"})
    assert (second.cluster, second.metadata_match) == ("b", {"version": "0", "zone": "z"})
    assert first.options is options
    assert first.route_name == "r"


# -- attachments that many calls have


def cluster_of(table: DubboRouteTable, data: bytes, memo: HeadMemo) -> str:
    target = table.find(message(data, memo))
    assert target is not None
    return target.cluster


def test_known_attachments_lead_to_the_route_without_a_look_into_them() -> None:
    table = DubboRouteTable(
        [
            DubboRouteConfig(interface="*", routes=(route("m", header("tag", "t"), method="m"),)),
            DubboRouteConfig(interface="*", routes=(route("t", header("tag", "t")), route("rest"))),
        ]
    )
    memo = HeadMemo()
    calls = {
        cluster: call(method=method, types=STRING, arguments=("x",), attachments=attachments)
        for cluster, method, attachments in (("m", "m", {"tag": "t"}), ("t", "n", {"tag": "t"}), ("rest", "n", {"tag": "u"}))
    }
    for _ in range(3):
        assert [cluster_of(table, data, memo) for data in calls.values()] == list(calls)
    decoded = memo.counters.attachment_decodes
    for _ in range(3):
        assert [cluster_of(table, data, memo) for data in calls.values()] == list(calls)
    assert memo.counters.attachment_decodes == decoded
    # Arguments may be others, and a new table knows nothing.
    other = call(method="m", types=STRING, arguments=("another",), attachments={"tag": "t"})
    assert cluster_of(table, other, memo) == "m"
    assert memo.counters.attachment_decodes == decoded
    empty = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("all", header("tag", "t")), route("new")))])
    assert cluster_of(empty, calls["rest"], memo) == "new"


def test_arguments_and_weights_are_looked_at_for_each_call() -> None:
    by_parameter = replace(route("p", header("tag", "t")), parameters=(DubboParameterMatchConfig(index=0, exact="x"),))
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(by_parameter, route("rest", header("tag", "t"))))])
    memo = HeadMemo()
    for _ in range(4):
        for argument, cluster in (("x", "p"), ("y", "rest")):
            assert cluster_of(table, call(types=STRING, arguments=(argument,), attachments={"tag": "t"}), memo) == cluster
    clusters = tuple(WeightedClusterConfig(name=name, weight=1) for name in "ab")
    split = DubboRouteTable(
        [DubboRouteConfig(interface="*", routes=(replace(route("s", header("tag", "t")), clusters=clusters),))]
    )
    data = call(types=STRING, arguments=("x",), attachments={"tag": "t"})
    for _ in range(4):
        found = [split.find(message(data, memo), pick) for pick in (0, 1)]
        assert [target.cluster for target in found if target is not None] == ["a", "b"]


def test_a_bounded_number_of_attachments_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dubbo, "MAX_TAILS", 4)
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("t", header("tag", "t")), route("rest")))])
    memo = HeadMemo()
    for _ in range(3):
        for number in range(10):
            data = call(types=STRING, arguments=("x",), attachments={"tag": "t", "n": str(number)})
            assert cluster_of(table, data, memo) == "t"
            assert len(table.known_tails) <= dubbo.MAX_TAILS


# -- what cannot be read


def test_attachments_that_cannot_be_had_count_as_absent() -> None:
    stats = DubboStats("dubbo.x.")
    table = DubboRouteTable(
        [DubboRouteConfig(interface="*", routes=(route("tagged", header("tag", "t")), route("rest")))], counter=stats
    )
    whole = call(types=STRING, arguments=("x",), attachments={"tag": "t"})
    cut = call_body(types=STRING, arguments=("x",), attachments={"tag": "t"})[:-3]
    broken = frame(0xC2, 0, 1, cut)
    far = call(types=STRING, arguments=([[]] * 100,), attachments={"tag": "t"})
    hidden = call(types="?", attachments={"tag": "t"})
    found = [table.find(message(one, HeadMemo(max_values=50))) for one in (whole, broken, far, hidden)]
    assert [target.cluster for target in found if target is not None] == ["tagged", "rest", "rest", "rest"]
    assert stats.request_attachments_unreadable == 3


def test_a_malformed_head_is_no_call_to_route() -> None:
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("rest"),))])
    with pytest.raises(RemoteProtocolError):
        table.find(message(frame(0xC2, 0, 1, b"\x40\x40")))


def test_a_generic_call_without_a_readable_method_is_routed_as_such() -> None:
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("m", method="m"), route("rest")))])
    for first in (None, 5, ["m"]):
        target = table.find(message(call(method="$invoke", types=GENERIC, arguments=(first, None, None))))
        assert target is not None
        assert target.cluster == "rest"
    # Where methods are not told apart, not even the first argument is looked at.
    memo = HeadMemo()
    plain_table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(route("all"),))])
    assert plain_table.find(message(call(method="$invoke", types=GENERIC, arguments=("m", None, None)), memo)) is not None
    assert memo.counters.argument_reads == 0


def test_an_argument_is_read_without_its_neighbours() -> None:
    wanted = DubboParameterMatchConfig(index=1, exact="x")
    by_parameter = replace(route("p"), parameters=(wanted,))
    table = DubboRouteTable([DubboRouteConfig(interface="*", routes=(by_parameter, route("rest")))])
    memo = HeadMemo()
    data = call(types="Ljava/util/List;" + STRING, arguments=([1, 2, 3], "x"))
    target = table.find(message(data, memo))
    assert target is not None
    assert target.cluster == "p"
    assert (memo.counters.argument_reads, memo.counters.attachment_decodes) == (1, 0)
