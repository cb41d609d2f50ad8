"""What is served, what warms, and which objects stay the same."""

import dataclasses
from typing import Any

import pytest

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model import AddressConfig, ClusterConfig, EndpointSetConfig, ListenerConfig
from mesh_proxy.config.model.route import RouteTableConfig
from mesh_proxy.config.model.source import ConfigSource, Reference
from mesh_proxy.config.resource import ResourceDump
from mesh_proxy.xds.assembly import Assembly, Static, assemble
from mesh_proxy.xds.feeds import NOTHING, Content, FeedKey, merge
from mesh_proxy.xds.resources import Resource, Response

LDS: FeedKey = ("lds", ConfigSource(path="/lds"))
CDS: FeedKey = ("cds", ConfigSource(path="/cds"))
EDS: FeedKey = ("eds", ConfigSource(path="/eds"))
RDS: FeedKey = ("rds", ConfigSource(path="/rds"))
STATIC = Static(lds=LDS, cds=CDS)
Contents = dict[FeedKey, Content]


def resource(config: Any, name: str = "", digest: str = "") -> Resource:
    name = name or config.name
    return Resource(
        name=name, config=config, dump=ResourceDump(type_url="t", name=name, digest=digest or repr(config), compressed=b"")
    )


def take(contents: Contents, key: FeedKey, *resources: Resource, version: str = "1") -> Contents:
    response = Response(version=version, resources=resources)
    return {**contents, key: merge(contents.get(key, NOTHING), response, 7.0, complete=key[0] in ("lds", "cds"))}


def cluster(name: str, eds: bool = False, **more: Any) -> Resource:
    references = (Reference(kind="eds", name=name, source=EDS[1]),) if eds else ()
    return resource(ClusterConfig(name=name, kind="EDS" if eds else "STATIC", references=references, **more))


def listener(name: str, port: int, rds: str = "", **more: Any) -> Resource:
    references = (Reference(kind="rds", name=rds, source=RDS[1]),) if rds else ()
    return resource(ListenerConfig(name=name, address=AddressConfig(host="127.0.0.1", port=port), references=references, **more))


def served(assembly: Assembly) -> tuple[list[str], list[str]]:
    return list(assembly.clusters), list(assembly.listeners)


def test_a_cluster_warms_until_its_endpoints_are_there() -> None:
    contents = take({}, CDS, cluster("a", eds=True), cluster("b"))
    first = assemble(STATIC, contents, Assembly(), ())
    assert (served(first), list(first.warming_clusters)) == ((["b"], []), ["a"])
    (missing,) = first.missing
    expired = assemble(STATIC, contents, first, {missing})
    assert expired.clusters["a"].config.endpoints == EndpointSetConfig(cluster_name="a")
    endpoints = EndpointSetConfig(cluster_name="a", overprovisioning_factor=200)
    later = assemble(STATIC, take(contents, EDS, resource(endpoints, "a")), first, ())
    assert later.clusters["a"].config.endpoints is endpoints
    assert later.clusters["b"] is first.clusters["b"]
    assert not later.warming


def test_the_version_before_serves_with_new_endpoints_while_the_next_one_warms() -> None:
    endpoints = [EndpointSetConfig(cluster_name="a", overprovisioning_factor=factor) for factor in (100, 200)]
    contents = take(take({}, CDS, cluster("a", eds=True)), EDS, resource(endpoints[0], "a"))
    first = assemble(STATIC, contents, Assembly(), ())
    other = Reference(kind="eds", name="elsewhere", source=EDS[1])
    changed = resource(ClusterConfig(name="a", kind="EDS", connect_timeout_s=9.0, references=(other,)))
    contents = take(take(contents, CDS, changed), EDS, resource(endpoints[1], "a"))
    second = assemble(STATIC, contents, first, ())
    assert list(second.warming_clusters) == ["a"]
    assert (second.clusters["a"].config.connect_timeout_s, second.clusters["a"].config.endpoints) == (5.0, endpoints[1])
    third = assemble(STATIC, take(contents, EDS, resource(endpoints[0], "elsewhere")), second, ())
    assert (third.clusters["a"].config.connect_timeout_s, third.warming) == (9.0, False)


def test_a_listener_warms_until_its_routes_are_there_and_goes_when_it_is_gone() -> None:
    contents = take({}, LDS, listener("in", 1, "r"), listener("out", 2))
    first = assemble(STATIC, contents, Assembly(), ())
    assert (served(first), list(first.warming_listeners)) == (([], ["out"]), ["in"])
    routes = RouteTableConfig(name="r")
    second = assemble(STATIC, take(contents, RDS, resource(routes)), first, ())
    assert sorted(second.listeners) == ["in", "out"]
    assert list(second.route_tables.values()) == [routes]
    assert second.listeners["out"] is first.listeners["out"]
    third = assemble(STATIC, take(contents, LDS, listener("out", 2), version="2"), second, ())
    assert (served(third), third.wanted) == (([], ["out"]), frozenset())
    assert third.listeners["out"].held is first.listeners["out"].held, "what did not change keeps its version"


def test_the_bootstrap_goes_first_and_addresses_are_taken_once() -> None:
    fixed = listener("in", 1).config
    static = dataclasses.replace(STATIC, listeners=(fixed,))
    contents = take({}, LDS, listener("in", 9))
    assert assemble(static, contents, Assembly(), ()).listeners["in"].config is fixed
    with pytest.raises(ConfigError) as caught:
        assemble(static, take({}, LDS, listener("x", 5), listener("other", 1)), Assembly(), ())
    assert caught.value.path == "/lds resources[1].address"
    assert assemble(static, take({}, LDS, listener("x", 0), listener("y", 0)), Assembly(), ()).listeners.keys() == {
        "in",
        "x",
        "y",
    }
