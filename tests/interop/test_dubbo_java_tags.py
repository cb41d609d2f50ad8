"""Stock tag settings of Apache Dubbo in Java: whom a consumer reaches directly, with its own tag router among tagged providers of
a registry, and through a sidecar in front of the same providers."""

from __future__ import annotations

import os
from typing import Any

import pytest
from e2e_support import at
from interop_support.config import TYPE, dubbo_listener, provider_cluster, route
from interop_support.dubbo_java import VERSIONS
from parity.config import bootstrap

from .conftest import Cast

pytestmark = pytest.mark.slow

EVERYTHING = os.environ.get("MESH_PROXY_INTEROP") == "all"
PROVIDERS = (("v27", ""), ("v33", ""), ("v32", "gray"), ("v33", "gray|team"))
"""version of Dubbo, and `dubbo.provider.tag`"""
TAGS = "-,gray,none,gray|team,gray|other,gray|team|x"
"""`dubbo.tag` of calls, each of them not forced, `dubbo.force.tag=false` and `true`; `-`: without"""


def tagged_listener(name: str, levels: bool) -> dict[str, Any]:
    """Everything to the cluster of the same name, by Dubbo's tag rules."""
    made = dubbo_listener(name, route(name))
    filters = made["filter_chains"][0]["filters"][0]["typed_config"]["dubbo_filters"]
    tags = {
        "@type": TYPE + "xds.type.v3.TypedStruct",
        "type_url": TYPE + "mesh_proxy.filters.TagRouter",
        "value": {"mode": "dubbo", "levels": levels},
    }
    filters.insert(0, {"name": "tags", "config": tags})
    return made


def tagged_cluster(name: str, providers: list[tuple[int, str]]) -> dict[str, Any]:
    """The tags are labels of the endpoints."""
    ends = []
    for port, tag in providers:
        end: dict[str, Any] = {"endpoint": {"address": at(port)}}
        if tag:
            end["metadata"] = {"filter_metadata": {"envoy.lb": {"dubbo.tag": tag}}}
        ends.append(end)
    return provider_cluster(name) | {"load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": ends}]}}


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ["v32"])
def test_tags_choose_alike(cast: Cast, version: str) -> None:
    peers = [(cast.provider(one, name=f"p{i}", **({"tag": tag} if tag else {})), tag) for i, (one, tag) in enumerate(PROVIDERS)]
    client = cast.consumer(version)
    found = [(peer.port, tag) for peer, tag in peers]
    rooms = {"all": found, "tagged": found[2:], "untagged": found[:2]}
    sidecar = cast.sidecar(
        bootstrap(
            [tagged_listener(name, levels=False) for name in rooms], [tagged_cluster(name, room) for name, room in rooms.items()]
        )
    )
    options = {"loadbalance": "roundrobin", "tags": TAGS}
    for name, room in rooms.items():
        ports, tags = tuple(port for port, _ in room), tuple(tag for _, tag in room)
        direct = client.run("tagged", ports, provider_tags=tags, registry="fixed", **options)
        through = client.run("tagged", sidecar.port(name), **options)
        assert len(direct) == 18
        assert direct == through, name
        if name == "all":
            who = dict(direct)
            assert who["tag - force ''"] == '"p0+p1"'
            assert who["tag gray force ''"] == '"p2"'
            assert who["tag none force 'true'"] == '"nobody"'
            assert who["tag gray|team force ''"] == '"p3"'
