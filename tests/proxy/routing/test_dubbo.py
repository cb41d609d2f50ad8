"""The Dubbo route table: what matches, and what is looked at to find out."""

from __future__ import annotations

import pytest
from dubbo_support.messages import receive
from dubbo_support.wire import STRING, call, generic_call

from mesh_codecs.dubbo import HeadMemo
from mesh_proxy.config.model import (
    DubboProxyConfig,
    DubboRoute,
    DubboRouteConfig,
    HeaderMatcherConfig,
    HeaderMatchKind,
    StringMatcherConfig,
    StringMatchKind,
    WeightedClusterConfig,
)
from mesh_proxy.routing.dubbo import DubboRouteTable


def exact(value: str, kind: StringMatchKind = StringMatchKind.EXACT, **more: bool) -> StringMatcherConfig:
    return StringMatcherConfig(kind=kind, value=value, **more)


def attachment(name: str, value: str, **more: bool) -> HeaderMatcherConfig:
    return HeaderMatcherConfig(name=name, kind=HeaderMatchKind.STRING, string=exact(value), **more)


def to(cluster: str, **match: object) -> DubboRoute:
    return DubboRoute(clusters=(WeightedClusterConfig(name=cluster),), **match)  # type: ignore[arg-type]


def routes(interface: str, *entries: DubboRoute, **more: str) -> DubboRouteConfig:
    return DubboRouteConfig(interface=interface, routes=entries, **more)


def goes(table: DubboRouteTable, frame: bytes, pick: int | None = None) -> str | None:
    target = table.find(receive(frame), pick)
    return target.cluster if target is not None else None


@pytest.mark.parametrize(
    ("pattern", "service", "matches"),
    [
        ("demo.A", "demo.A", True),
        ("demo.A", "demo.AB", False),
        ("demo.*", "demo.A", True),
        ("demo.*", "demi.A", False),
        ("*Service", "demo.HelloService", True),
        ("*Service", "demo.Service2", False),
        ("*", "anything", True),
    ],
)
def test_interfaces(pattern: str, service: str, matches: bool) -> None:
    table = DubboRouteTable([routes(pattern, to("c"))])
    assert goes(table, call(service)) == ("c" if matches else None)


def test_the_first_match_in_configured_order_wins() -> None:
    table = DubboRouteTable(
        [
            routes("demo.A", to("methods", method=exact("m"))),
            routes("demo.*", to("prefix", method=exact("n", StringMatchKind.PREFIX))),
            routes("*.A", to("suffix")),
            routes("*", to("rest")),
        ]
    )
    assert goes(table, call("demo.A", "m")) == "methods"
    assert goes(table, call("demo.A", "nice")) == "prefix"
    assert goes(table, call("demo.A", "other")) == "suffix"
    assert goes(table, call("demo.B", "m")) == "rest"


def test_group_version_and_attachments() -> None:
    table = DubboRouteTable(
        [
            routes("demo.A", to("tagged", headers=(attachment("dubbo.tag", "gray"),)), to("v2"), version="2.0.0"),
            routes("demo.A", to("group"), group="g1"),
            routes("demo.A", to("base")),
        ]
    )
    assert goes(table, call("demo.A", version="2.0.0", attachments={"dubbo.tag": "gray"})) == "tagged"
    assert goes(table, call("demo.A", version="2.0.0")) == "v2"
    assert goes(table, call("demo.A", attachments={"dubbo.tag": "gray"})) == "base"
    assert goes(table, call("demo.A", attachments={"group": "g1"})) == "group"


def test_generic_calls_are_routed_by_the_method_they_really_call() -> None:
    table = DubboRouteTable([routes("*", to("hello", method=exact("sayHello")), to("rest"))])
    assert goes(table, generic_call("sayHello")) == "hello"
    assert goes(table, generic_call("sayHello", name="$invokeAsync")) == "hello"
    assert goes(table, generic_call("other")) == "rest"
    # A method that happens to have the name, with other parameters, is no generic call.
    assert goes(table, call(method="$invoke", types=STRING, arguments=("sayHello",))) == "rest"


def test_weighted_clusters() -> None:
    clusters = (WeightedClusterConfig(name="a", weight=90), WeightedClusterConfig(name="b", weight=10))
    table = DubboRouteTable([routes("*", DubboRoute(clusters=clusters))])
    assert [goes(table, call(), pick) for pick in (0, 89, 90, 99, 100)] == ["a", "a", "b", "b", "a"]


def test_a_new_table_makes_the_plans_of_the_old_one_void() -> None:
    memo = HeadMemo()
    old = DubboRouteTable([routes("*", to("old"))])
    new = DubboRouteTable.of(DubboProxyConfig(stat_prefix="x", routes=(routes("*", to("new")),)))
    found = [table.find(receive(call(), memo)) for table in (old, new, old)]
    assert [target.cluster for target in found if target is not None] == ["old", "new", "old"]


def test_a_serialization_that_nobody_can_read_goes_the_default_way() -> None:
    opaque = bytes([*call()[:2], 0xC8, *call()[3:]])
    assert goes(DubboRouteTable([routes("demo.*", to("a")), routes("*", to("b"))]), opaque) == "b"
    assert goes(DubboRouteTable([routes("demo.*", to("a"))]), opaque) is None
    config = DubboProxyConfig(stat_prefix="x", routes=(routes("*", to("b")),), opaque_cluster="o")
    assert goes(DubboRouteTable.of(config), opaque) == "o"
    shares = DubboRoute(clusters=(WeightedClusterConfig(name="a"), WeightedClusterConfig(name="b")))
    assert [goes(DubboRouteTable([routes("*", shares)]), opaque, pick) for pick in (0, 1, 2)] == ["a", "b", "a"]


def test_service_and_method_are_routed_without_a_look_at_anything_else() -> None:
    memo = HeadMemo()
    table = DubboRouteTable([routes("demo.*", to("m", method=exact("sayHello")), to("n")), routes("*", to("rest"))])
    for _ in range(3):
        assert table.find(receive(call(types=STRING, arguments=("world",)), memo)) is not None
    counters = memo.counters
    assert (counters.argument_skips, counters.argument_reads, counters.attachment_decodes) == (0, 0, 0)
    assert (counters.heads_parsed, counters.heads_from_memo) == (1, 2)


def test_routing_by_attachment_makes_no_argument() -> None:
    memo = HeadMemo()
    table = DubboRouteTable([routes("*", to("gray", headers=(attachment("dubbo.tag", "gray"),)), to("base"))])
    frame = call(types=STRING, arguments=("world",), attachments={"dubbo.tag": "gray"})
    target = table.find(receive(frame, memo))
    assert target is not None
    assert target.cluster == "gray"
    counters = memo.counters
    assert (counters.argument_skips, counters.argument_reads, counters.attachment_decodes) == (1, 0, 1)
