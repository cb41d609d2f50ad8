"""Triple, Dubbo 3's protocol over HTTP/2: unary calls and streams through the sidecar end as they end without it."""

from __future__ import annotations

import pytest
from interop_support.config import triple_in_front_of
from peer_programs import EVERYTHING

from .conftest import Cast

pytestmark = pytest.mark.slow

VERSIONS = ("v32", "v33")
ALL = [(consumer, provider) for consumer in VERSIONS for provider in VERSIONS]
PAIRS = ALL if EVERYTHING else [("v33", "v32")]
CALLS = "triple,values,failures,async,oneway,generic,echo,attachments,big,concurrent"


@pytest.mark.parametrize(("consumer", "provider"), PAIRS)
def test_every_call(cast: Cast, consumer: str, provider: str) -> None:
    server, client = cast.provider(provider, protocol="tri"), cast.consumer(consumer)
    sidecar = cast.sidecar(triple_in_front_of(server.port))
    for name, (scenarios, options) in {
        "plain": (CALLS, {}),
        "blue": ("who,attachments", {"group": "blue", "version": "1.0.0"}),
        "green": ("who", {"group": "green", "version": "2.0.0"}),
        "no such group": ("who", {"group": "red"}),
    }.items():
        direct = client.run(scenarios, server.port, "tri", **options)
        through = client.run(scenarios, sidecar.port("tri"), "tri", **options)
        assert direct == through, name
        print(name, len(direct), "alike", [case for case, result in direct if result.startswith("threw")])


@pytest.mark.parametrize("provider", VERSIONS if PAIRS is ALL else ["v33"])
def test_both_protocols_on_one_port_of_the_provider(cast: Cast, provider: str) -> None:
    server, new, old = cast.provider(provider, protocol="tri"), cast.consumer("v33"), cast.consumer("v27")
    sidecar = cast.sidecar(triple_in_front_of(server.port))
    direct = old.run("values,failures,attachments", server.port)
    assert old.run("values,failures,attachments", sidecar.port("dubbo")) == direct
    assert new.run("who", sidecar.port("tri"), "tri") == [("who", '"provider"')]
