"""Java Dubbo over time: idle connections, providers that stop or die, versions told apart by tags, bodies beyond the limit."""

from __future__ import annotations

import os
from typing import Any

import pytest
from e2e_support import until
from interop_support.config import bootstrap, dubbo_listener, in_front_of, provider_cluster, route
from interop_support.dubbo_java import VERSIONS, Consumer
from peer_programs import EVERYTHING

from .conftest import Cast

pytestmark = pytest.mark.slow

IDLE_MS = 1000 * int(os.environ.get("DUBBO_IDLE_SECONDS", 60 if EVERYTHING else 10))
"""A provider with a heartbeat of a second closes connections that were silent for three."""


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ["v33"])
def test_heartbeats_keep_idle_connections(cast: Cast, version: str) -> None:
    server, client = cast.provider(version, heartbeat=1000), cast.consumer(version)
    options = {"heartbeat_interval": "1s", "heartbeat_timeout": "3s"}
    sidecar = cast.sidecar(in_front_of(server.port, cluster_options=options))
    kinds = ["hessian2", "java", "nativejava", "compactedjava"] + ["fastjson2"] * (version != "v27")
    idle = {"heartbeat": 1000, "idle": IDLE_MS, "kinds": ",".join(kinds)}
    expected = [(f"{kind} before", '"provider greets idle"') for kind in kinds]
    for kind in kinds:
        expected += [(f"{kind} after", '"provider greets idle"'), (f"{kind} same connection", "true")]
    if EVERYTHING:
        assert client.run("idle", server.port, **idle) == expected
    assert client.run("idle", sidecar.port("dubbo"), **idle) == expected
    stats = sidecar.stats()
    assert stats["dubbo.dubbo.cx_total"] == len(kinds)
    assert stats["dubbo.dubbo.request_event"] > len(kinds)
    assert stats["cluster.providers.upstream_cx_total"] == 1


def result_of(client: Consumer) -> dict[str, int]:
    """How often each result of the traffic came."""
    ((_, text),) = client.run("traffic-stop", ())
    return {name: int(count) for name, _, count in (part.rpartition("=") for part in text.strip("{}").split(", "))}


def calls(client: Consumer) -> int:
    ((_, count),) = client.run("traffic-count", ())
    return int(count)


def more(client: Consumer, count: int = 300) -> None:
    """Wait for so many calls."""
    begin = calls(client)
    until("more calls", lambda: calls(client) >= begin + count, timeout=60, interval=0.1)


MIXES = [("v27", "v33"), ("v33", "v32"), ("v32", "v27")]


@pytest.mark.parametrize("how", ["stop", "kill"] if EVERYTHING else ["stop"])
@pytest.mark.parametrize(("consumer", "provider"), MIXES if EVERYTHING else MIXES[:1])
def test_provider_leaves_under_traffic(cast: Cast, consumer: str, provider: str, how: str) -> None:
    """One of two providers stops: no call fails, without a retry of the consumer's.

    For a graceful stop trying other endpoints when no connection can be had is enough. Calls that a killed provider had taken are
    lost unless the route says that they may be sent twice.
    """
    first, second = cast.provider(provider, name="a"), cast.provider(provider, name="b")
    retry_on = ["connect-failure"] + ["reset"] * (how == "kill")
    config = in_front_of(
        first.port,
        second.port,
        route_options={"retry_policy": {"retry_on": retry_on, "num_retries": 3}},
        # All eight callers may have to try again at once: more than the three of the default.
        cluster_fields={"circuit_breakers": {"thresholds": [{"max_retries": 100}]}},
    )
    sidecar = cast.sidecar(config)
    client = cast.consumer(consumer)
    client.run("traffic", sidecar.port("dubbo"), threads=8, retries=0)
    more(client)
    if how == "stop":
        first.ask_to_stop()
        first.program.process.wait(60)
    else:
        first.kill()
    more(client)
    results = result_of(client)
    assert results.keys() == {"a after 5", "b after 5"}, results


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ["v27"])
def test_provider_is_gone_and_comes_back(cast: Cast, version: str) -> None:
    """Calls without a provider fail at once and say why; the same address works again when somebody is there."""
    first, client = cast.provider(version), cast.consumer(version)
    sidecar = cast.sidecar(in_front_of(first.port))
    good = [("who", '"provider"')]
    assert client.run("who", sidecar.port("dubbo")) == good
    first.kill()
    ((_, result),) = client.run("who", sidecar.port("dubbo"))
    assert result.startswith("threw RpcException code 1"), result
    assert "mesh-proxy: connection failure, cluster providers" in client.program.said()
    second = cast.provider(version, port=first.port)
    assert second.port == first.port
    assert client.run("who", sidecar.port("dubbo")) == good


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ["v32"])
def test_tags(cast: Cast, version: str) -> None:
    """The attachment dubbo.tag, as consumers set it, chooses the version."""
    base, gray = cast.provider(version, name="base"), cast.provider(version, name="gray", tag="gray")
    tagged = route("gray", {"headers": [{"name": "dubbo.tag", "string_match": {"exact": "gray"}}]})
    config = bootstrap(
        [dubbo_listener("dubbo", tagged, route("base"))],
        [provider_cluster("base", base.port), provider_cluster("gray", gray.port)],
    )
    sidecar = cast.sidecar(config)
    results = cast.consumer(version).run("tags", sidecar.port("dubbo"))
    expected = {"tag ''": '"base"', "tag 'gray'": '"gray"', "tag 'unknown'": '"base"'}
    assert len(results) == 16
    assert [pair for pair in results if expected[pair[0]] != pair[1]] == []


MUCH = 20 * 1024 * 1024


@pytest.mark.parametrize("version", VERSIONS if EVERYTHING else ["v27"])
def test_bodies_beyond_the_limit(cast: Cast, version: str) -> None:
    """A consumer and a provider without a limit: the sidecar's own is answered for, and can be raised."""
    server, client = cast.provider(version, payload=MUCH), cast.consumer(version)
    limit: dict[str, Any] = {"max_body_bytes": MUCH}
    narrow = cast.sidecar(in_front_of(server.port))
    wide = cast.sidecar(in_front_of(server.port, cluster_options=limit, manager=limit))
    direct = client.run("toobig", server.port, payload=MUCH)
    # A provider of 3.2 does not apply the raised limit to its answers.
    good = ["too big there", *(["too big back"] if version != "v32" else []), "then hello"]
    assert [name for name, result in direct if not result.startswith("threw")] == good
    assert client.run("toobig", wide.port("dubbo"), payload=MUCH) == direct
    there, back, hello = client.run("toobig", narrow.port("dubbo"), payload=MUCH)
    assert there[1].startswith("threw RpcException"), there
    assert back[1].startswith("threw RpcException"), back
    assert hello == direct[2]
    stats = narrow.stats()
    assert (stats["dubbo.dubbo.request_too_large"], stats["dubbo.dubbo.response_too_large"]) == (1, len(good) - 2)
