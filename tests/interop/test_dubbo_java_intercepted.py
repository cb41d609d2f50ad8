"""Apache Dubbo in Java with neither side knowing of the sidecar: consumer on one host, provider and sidecar on another."""

from __future__ import annotations

import pytest
from e2e_support.pod import PORTS, Pod, configuration
from interop_support.dubbo_java import JavaPeers
from netns_support import Cable, cable

pytestmark = pytest.mark.slow
SCENARIOS = "values,failures,async,oneway,generic,echo,attachments,big,concurrent"


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_every_call(java: JavaPeers, mode: str) -> None:
    """What is said through the sidecar is what is said without it."""
    with cable() as joined:
        transparent = mode == "TPROXY"
        pod = Pod(joined, configuration(transparent=transparent), capabilities="+net_admin" if transparent else "")
        try:
            java.inside = joined.here.command
            provider = java.provider("v32", host=Cable.HERE, port=PORTS["dubbo"])
            java.inside = joined.there.command
            consumer = java.consumer("v33")
            try:
                assert provider.port == PORTS["dubbo"]
                direct = consumer.run(SCENARIOS, provider.port, host=Cable.HERE)
                assert pod.accepted("0.0.0.0_15006") == 0
                pod.iptables("apply", "-m", mode, "-b", "*", "-d", "15020,15021", "-i", "*")
                through = consumer.run(SCENARIOS + ",who", provider.port, host=Cable.HERE, reconnect="fresh")
                assert through[: len(direct)] == direct
                assert len(direct) > 50
                calls = pod.stats()
                assert pod.accepted("0.0.0.0_15006") > 0, "the connection of the second run was intercepted"
                assert calls["dubbo.inbound.request"] > len(direct) / 2
            finally:
                consumer.kill()
                provider.kill()
        finally:
            java.inside = None
            pod.close()
