"""Intercepted connections between two hosts, in network namespaces of the test's own: REDIRECT and TPROXY, IPv4 and IPv6."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from dubbo_support import wire
from e2e_support.backends import checksum
from e2e_support.peers import read_answer
from e2e_support.pod import PORTS, SERVER_FIRST, Host, Pod, configuration
from netns_support import Cable, Namespace, cable

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec

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


def get(host: Namespace, address: str, port: int = PORTS["http"]) -> dict[str, str]:
    """The headers of an answer to a GET."""
    with host.connect(address, port) as sock:
        sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = read_answer(sock)
        assert (answer.status, answer.body) == (200, b"word")
        return {name.lower(): value for name, value in answer.headers}


def receive(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := sock.recv(size - len(found))):
        found += data
    return found


def echoed(host: Namespace, address: str, port: int) -> None:
    with host.connect(address, port) as sock:
        sock.sendall(b"hello" * 1000)
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 6000) == b"hello" * 1000


def greeted(host: Namespace, address: str) -> None:
    with host.connect(address, PORTS["first"]) as sock:
        assert receive(sock, len(SERVER_FIRST)) == SERVER_FIRST
        sock.sendall(b"me")
        assert receive(sock, 2) == b"me"


def called(host: Namespace, address: str) -> None:
    with host.connect(address, PORTS["dubbo"]) as sock:
        for number in (7, 8):
            call = wire.call(method="after0", request_id=number)
            sock.sendall(call)
            head = receive(sock, 16)
            flags, status, answered, size = wire.header(head)
            assert (flags & 0x80, status, answered) == (0, 20, number)
            assert checksum(call).encode() in receive(sock, size)


def streamed(host: Namespace, address: str) -> None:
    """A gRPC call with one message."""
    codec = Http2Codec(downstream=False)
    with host.connect(address, PORTS["grpc"]) as sock:
        number = codec.open_stream()
        assert number is not None
        fields = Headers([(b"content-type", b"application/grpc"), (b"te", b"trailers")])
        codec.send(RequestHeaders(number, b"POST", b"http", b"a", b"/a.B/C", fields, False))
        codec.send(Data(number, b"\0\0\0\0\2hi", True))
        events: list[object] = []
        while not any(isinstance(event, Trailers) for event in events):
            sock.sendall(b"".join(codec.data_to_send()))
            data = sock.recv(65536)
            assert data
            events += codec.receive_data(data)
        assert [event.status for event in events if isinstance(event, ResponseHeaders)] == [200]
        assert b"".join(event.data for event in events if isinstance(event, Data)) == b"\0\0\0\0\2hi"


ADDRESSES = [(Cable.HERE, Cable.THERE), (Cable.HERE6, Cable.THERE6)]
BOTH = pytest.mark.parametrize(("here", "there"), ADDRESSES, ids=["ipv4", "ipv6"])
OWN_SOURCE = {"ipv4": "127.0.0.6", "ipv6": "::6"}


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
