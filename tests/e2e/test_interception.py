"""Intercepted connections between two hosts, in network namespaces of the test's own: REDIRECT and TPROXY, IPv4 and IPv6."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from e2e_support.pod import PORTS, Host, Pod, configuration
from e2e_support.pod_calls import called, echoed, get, greeted, streamed
from netns_support import Cable, cable

pytestmark = pytest.mark.slow

FLAGS = ("-b", "*", "-d", f"15090,15021,15020,{PORTS['excluded']}", "-i", "*", "-o", str(PORTS["excluded"]), "--ipv6", "on")
MODES = ("REDIRECT", "TPROXY")


class Scene:
    """The pod, the application in it, and the other host."""

    def __init__(self, joined: Cable, mode: str) -> None:
        self.cable = joined
        self.mode = mode
        self.here = Host(joined.here)
        self.there = Host(joined.there)
        transparent = mode == "TPROXY"
        self.pod = Pod(joined, configuration(transparent=transparent), capabilities="+net_admin" if transparent else "")

    def close(self) -> None:
        try:
            self.pod.close()
        finally:
            self.here.close()
            self.there.close()


@pytest.fixture(scope="module", params=MODES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with cable() as joined:
        one = Scene(joined, request.param)
        try:
            one.pod.iptables("apply", "-m", request.param, *FLAGS)
            yield one
        finally:
            one.close()


ADDRESSES = [(Cable.HERE, Cable.THERE), (Cable.HERE6, Cable.THERE6)]
BOTH = pytest.mark.parametrize(("here", "there"), ADDRESSES, ids=["ipv4", "ipv6"])


@BOTH
def test_inbound(scene: Scene, here: str, there: str) -> None:
    """Every protocol reaches the application, from the proxy's own source address."""
    caller = scene.cable.there
    before = scene.pod.accepted("0.0.0.0_15006")
    assert get(caller, here)["server"] == "envoy"
    streamed(caller, here)
    called(caller, here)
    echoed(caller, here, PORTS["bytes"])
    greeted(caller, here)
    assert scene.pod.accepted("0.0.0.0_15006") - before == 5
    own = "::6" if ":" in here else "127.0.0.6"
    for kind in ("http", "grpc", "dubbo", "bytes", "first"):
        assert scene.here.peers[kind][-1] == own, kind


@BOTH
def test_outbound(scene: Scene, here: str, there: str) -> None:
    """What the application sends goes through the listener of its destination, else through the one that took it."""
    application = scene.cable.here
    before = scene.pod.stats()
    assert get(application, there)["server"] == "envoy"
    called(application, there)
    echoed(application, there, PORTS["bytes"])
    greeted(application, there)
    streamed(application, there)
    after = scene.pod.stats()
    took = {
        name: after[f"listener.{name}.downstream_cx_total"] - before[f"listener.{name}.downstream_cx_total"]
        for name in ("0.0.0.0_8080", "0.0.0.0_20880", "10.77.0.2_9000", "0.0.0.0_15001")
    }
    exact = 0 if ":" in there else 1
    assert took == {"0.0.0.0_8080": 1, "0.0.0.0_20880": 1, "10.77.0.2_9000": exact, "0.0.0.0_15001": 3 - exact}
    for kind in ("http", "grpc", "dubbo", "bytes", "first"):
        assert scene.there.peers[kind][-1] == here, kind


@BOTH
def test_excluded_ports_are_not_intercepted(scene: Scene, here: str, there: str) -> None:
    before = scene.pod.stats()
    echoed(scene.cable.there, here, PORTS["excluded"])
    assert scene.here.peers["excluded"][-1] == there, "the application sees its caller"
    echoed(scene.cable.here, there, PORTS["excluded"])
    after = scene.pod.stats()
    for name in ("0.0.0.0_15006", "0.0.0.0_15001"):
        key = f"listener.{name}.downstream_cx_total"
        assert after[key] == before[key]


@pytest.mark.parametrize("port", [15001, 15006])
def test_nothing_loops(scene: Scene, port: int) -> None:
    """A call to the proxy's own port goes nowhere, and does not come back to it."""
    key = f"listener.0.0.0.0_{port}.downstream_cx_total"
    before = scene.pod.stats()[key]
    with scene.cable.here.connect("127.0.0.1", port) as sock:
        sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
        assert not _answer(sock)
    assert scene.pod.stats()[key] == before + 1


def _answer(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


def test_the_rules_are_there_and_stay_the_same(scene: Scene) -> None:
    flags = ("-m", scene.mode, *FLAGS)
    assert scene.pod.iptables("apply", *flags) == "the rules are there already\n"
    assert scene.pod.iptables("show", "--check", *flags) == "the rules are as they should be\n"
    assert "ISTIO_OUTPUT" in scene.pod.iptables("show")


def test_clean_leaves_nothing(scene: Scene) -> None:
    """New connections go straight to the application."""
    scene.pod.iptables("clean")
    assert "server" not in get(scene.cable.there, Cable.HERE)
    assert scene.here.peers["http"][-1] == Cable.THERE
    for version in ("", "6"):
        for kind in ("nft", "legacy"):
            saved = scene.cable.here.run(f"ip{version}tables-{kind}-save")
            assert not [line for line in saved.splitlines() if line.startswith("-A") or "ISTIO" in line]
        rules = scene.cable.here.run("ip", f"-{version or 4}", "rule")
        assert "fwmark" not in rules
    assert "::6" not in scene.cable.here.run("ip", "-6", "addr", "show", "dev", "lo")
