"""Consumers and providers of Apache Dubbo in Java: what they say to each other through the sidecar is what they say without it.

MESH_PROXY_INTEROP=all tries every mix of versions (make interop-all), else three in which each is once on each side.
"""

from __future__ import annotations

import pytest
from interop_support.config import in_front_of
from interop_support.dubbo_java import VERSIONS
from peer_programs import EVERYTHING

from .conftest import Cast

pytestmark = pytest.mark.slow

ALL = [(consumer, provider) for consumer in VERSIONS for provider in VERSIONS]
FEW = [("v27", "v32"), ("v32", "v33"), ("v33", "v27")]
PAIRS = ALL if EVERYTHING else FEW
CALLS = "values,failures,async,oneway,generic,echo,attachments,callback,big,toobig,concurrent"


def runs(consumer: str, provider: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Scenarios and options of each run."""
    found: dict[str, tuple[str, dict[str, str]]] = {
        "as it comes": ("values,failures", {}),
        "hessian2": (CALLS, {"serialization": "hessian2"}),
        "java": ("values,failures,attachments,generic,callback,big", {"serialization": "java"}),
        "nativejava": ("values,failures,attachments,generic,callback", {"serialization": "nativejava"}),
        "compactedjava": ("values,failures,attachments,generic,callback", {"serialization": "compactedjava"}),
        "blue": ("who,attachments", {"group": "blue", "version": "1.0.0"}),
        "green": ("who", {"group": "green", "version": "2.0.0"}),
        "no such group": ("who", {"group": "red"}),
    }
    if "v27" not in (consumer, provider):
        found["fastjson2"] = (
            "values,failures,async,generic,echo,attachments,callback,big,concurrent",
            {"serialization": "fastjson2"},
        )
    return found


@pytest.mark.parametrize(("consumer", "provider"), PAIRS)
def test_every_call(cast: Cast, consumer: str, provider: str) -> None:
    server, client = cast.provider(provider), cast.consumer(consumer)
    sidecar = cast.sidecar(in_front_of(server.port))
    count = threw = 0
    for name, (scenarios, options) in runs(consumer, provider).items():
        direct = client.run(scenarios, server.port, **options)
        through = client.run(scenarios, sidecar.port("dubbo"), **options)
        assert direct == through, name
        count += len(direct)
        threw += sum(result.startswith("threw") for _, result in direct)
    print(f"{consumer} to {provider}: {count} calls alike, {threw} of them failures")
    # The calls of this test are good ones, but for those that are meant to fail.
    assert count > 150
    assert threw < count / 3
