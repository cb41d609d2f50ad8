"""The application sees who calls it: `original_src` behind TPROXY, in network namespaces of the test's own.

The sidecar runs as Istio's injector has it run in this mode: user 0, group 1337, and no right but CAP_NET_ADMIN.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from dubbo_support import wire
from e2e_support.peers import read_answer
from e2e_support.pod import PORTS, Host, Pod, configuration
from e2e_support.pod_calls import called, echoed, get, greeted, receive, streamed
from netns_support import Cable, Namespace, cable

pytestmark = pytest.mark.slow

FLAGS = ("-m", "TPROXY", "-b", "*", "-d", "15090,15021,15020", "-i", "*", "--ipv6", "on")
RIGHTS = "-all,+net_admin"
OTHER, OTHER6 = "10.77.0.3", "fd77::3"
"""a second caller on the other host"""
ADDRESSES = [(Cable.HERE, Cable.THERE, OTHER), (Cable.HERE6, Cable.THERE6, OTHER6)]
BOTH = pytest.mark.parametrize(("here", "caller", "other"), ADDRESSES, ids=["ipv4", "ipv6"])
INBOUND = "0.0.0.0_15006"


class Scene:
    """The pod with its application, and a host with two addresses."""

    def __init__(self, joined: Cable) -> None:
        self.cable = joined
        joined.there.run("ip", "addr", "add", f"{OTHER}/24", "dev", "eth0")
        joined.there.run("ip", "addr", "add", f"{OTHER6}/64", "dev", "eth0", "nodad")
        self.here = Host(joined.here)
        self.pod = Pod(joined, configuration(transparent=True, original_src=True), user="0", capabilities=RIGHTS)

    def close(self) -> None:
        try:
            self.pod.close()
        finally:
            self.here.close()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with cable() as joined:
        one = Scene(joined)
        try:
            one.pod.iptables("apply", *FLAGS)
            yield one
        finally:
            one.close()


class From:
    """The other host, whose connections come from one of its addresses."""

    def __init__(self, host: Namespace, address: str) -> None:
        self.host = host
        self.address = address

    def connect(self, address: str, port: int, timeout: float = 20.0) -> socket.socket:
        with self.host.inside():
            return socket.create_connection((address, port), timeout, source_address=(self.address, 0))


def echo(host: Namespace, address: str) -> None:
    echoed(host, address, PORTS["bytes"])


CALLS: dict[str, Callable[[Namespace, str], object]] = {
    "http": get,
    "grpc": streamed,
    "dubbo": called,
    "bytes": echo,
    "first": greeted,
}


@BOTH
def test_the_application_sees_its_caller(scene: Scene, here: str, caller: str, other: str) -> None:
    """Over every protocol; one connection through the proxy for each, so nothing came back to it."""
    before = scene.pod.accepted(INBOUND)
    for kind, call in CALLS.items():
        for address in (caller, other, caller):
            call(From(scene.cable.there, address), here)  # type: ignore[arg-type]
        assert set(scene.here.peers[kind][-2:]) == {caller, other}, kind
        assert not {"127.0.0.6", "::6", here} & set(scene.here.peers[kind]), kind
    assert scene.pod.accepted(INBOUND) - before == 3 * len(CALLS)


@BOTH
def test_callers_share_no_connection(scene: Scene, here: str, caller: str, other: str) -> None:
    """Requests of two callers in turn: two connections to the application in all, one of each, used again."""
    for kind in ("http", "dubbo"):
        seen = scene.here.peers[kind]
        two = {address: From(scene.cable.there, address).connect(here, PORTS[kind]) for address in (caller, other)}
        try:
            for number in range(6):
                for sock in two.values():
                    ask(kind, sock, number)
        finally:
            for sock in two.values():
                sock.close()
        assert sorted(address for address in seen if address in two) == sorted(two), kind


def ask(kind: str, sock: socket.socket, number: int) -> None:
    if kind == "http":
        sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
        assert read_answer(sock).body == b"word"
    else:
        sock.sendall(wire.call(method="after0", request_id=number))
        _, status, answered, size = wire.header(receive(sock, 16))
        assert (status, answered) == (20, number)
        receive(sock, size)


def test_outbound_is_as_ever(scene: Scene) -> None:
    """The filter stands on virtualInbound only: what the application sends comes from the pod."""
    there = Host(scene.cable.there)
    try:
        for address, own in ((Cable.THERE, Cable.HERE), (Cable.THERE6, Cable.HERE6)):
            for kind, call in CALLS.items():
                call(scene.cable.here, address)
                assert there.peers[kind][-1] == own, kind
    finally:
        there.close()


def test_without_the_right() -> None:
    """It says so once at the start; requests fail as Envoy's do."""
    with cable() as joined:
        host = Host(joined.here)
        pod = Pod(joined, configuration(original_src=True))
        try:
            pod.iptables("apply", "-m", "REDIRECT", *FLAGS[2:])
            for _ in range(2):
                with joined.there.connect(Cable.HERE, PORTS["http"]) as sock:
                    sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
                    answer = read_answer(sock)
                assert answer.status == 503
                assert answer.body.endswith(b"reset reason: local connection failure")
            assert not host.peers["http"]
            said = [line for line in pod.log.read_text().splitlines() if "original_src" in line]
            assert len(said) == 1
            assert "SO_MARK cannot be set (Operation not permitted): the proxy needs CAP_NET_ADMIN" in said[0]
        finally:
            pod.close()
            host.close()
