"""The same rules and the same configuration around Envoy and around us: who reaches whom, from where, through which listener."""

from __future__ import annotations

import pytest
from e2e_support.pod import PORTS, UID, Host, Pod, configuration
from e2e_support.pod_calls import called, echoed, get, greeted, streamed
from netns_support import Cable, cable
from parity import envoy_binary

pytestmark = pytest.mark.envoy
FLAGS = ("-b", "*", "-d", "15020,15021", "-i", "*", "--ipv6", "on")


def observed(kind: str, mode: str, *, original_src: bool = False) -> dict[str, object]:
    """What is seen of all calls, in both directions, over both IP versions."""
    transparent = mode == "TPROXY"
    with cable() as one:
        here, there = Host(one.here), Host(one.there)
        try:
            config = configuration(transparent=transparent, original_src=original_src)
            # Istio's rules for TPROXY know the proxy by its group when connections are made in the callers' names.
            user, rights = ("0", "-all,+net_admin") if original_src else (UID, "+net_admin" if transparent else "")
            pod = Pod(one, config, user=user, capabilities=rights, kind=kind)
            try:
                pod.iptables("apply", "-m", mode, *FLAGS)
                for host, addresses in ((one.there, (Cable.HERE, Cable.HERE6)), (one.here, (Cable.THERE, Cable.THERE6))):
                    for address in addresses:
                        get(host, address)
                        streamed(host, address)
                        called(host, address)
                        echoed(host, address, PORTS["bytes"])
                        greeted(host, address)
                for port in (15001, 15006):
                    assert nothing_from(pod, port)
                stats = pod.stats()
                return {
                    "application": {name: sorted(set(peers)) for name, peers in here.peers.items()},
                    "other host": {name: sorted(set(peers)) for name, peers in there.peers.items()},
                    **{name: count for name, count in stats.items() if counts(name)},
                }
            finally:
                pod.close()
        finally:
            here.close()
            there.close()


def counts(name: str) -> bool:
    """Connections by listener, and connections to endpoints by cluster."""
    if name.startswith("listener.") and name.endswith(".downstream_cx_total"):
        return "worker_" not in name and "admin" not in name
    return name.startswith("cluster.") and name.endswith(("upstream_cx_total", "upstream_cx_none_healthy"))


def nothing_from(pod: Pod, port: int) -> bool:
    """A connection to the proxy's own port is closed, sooner or later and one way or the other."""
    with pod.host.connect("127.0.0.1", port) as sock:
        try:
            sock.sendall(b"hello")
            return sock.recv(100) == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_as_envoy(mode: str) -> None:
    if envoy_binary() is None:
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    assert observed("mesh-proxy", mode) == observed("envoy", mode)


def test_original_src_as_envoy() -> None:
    """In the callers' names: the application sees the other host, through as many connections as behind Envoy."""
    if envoy_binary() is None:
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    ours = observed("mesh-proxy", "TPROXY", original_src=True)
    assert ours == observed("envoy", "TPROXY", original_src=True)
    seen = ours["application"]
    assert isinstance(seen, dict)
    assert {kind: peers for kind, peers in seen.items() if kind != "excluded"} == {
        kind: sorted((Cable.THERE, Cable.THERE6)) for kind in ("http", "grpc", "dubbo", "bytes", "first")
    }
