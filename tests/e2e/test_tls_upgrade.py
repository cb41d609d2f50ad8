"""A hot upgrade, a drain, and TLS: a session lives in the old process until it is told to end; new ones are the new process's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from dubbo_support import wire
from e2e_support import until
from e2e_support.backends import Backends
from e2e_support.gate import LISTENERS, configuration
from e2e_support.mixed_load import MixedLoad
from e2e_support.upgrades import Chain, Upgrades
from tls_support import client

from mesh_codecs.events import Data, Event, GoAway, RequestHeaders, ResponseHeaders, StreamReset
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings
from mesh_proxy.tls.authority import Authority

pytestmark = pytest.mark.slow

MESH = Authority("mesh.local")
OWN = MESH.workload("web")
CALLER = MESH.workload("shop")
TIMEOUT_S = 60.0
UPGRADES = int(os.environ.get("MESH_PROXY_TLS_UPGRADES", "1"))
READONLY = 0x20
"""the flag of an event"""


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as one:
        yield one


def secured(ports: Mapping[str, int]) -> dict[str, Any]:
    """The listeners of the gate, over mutual TLS."""
    config = configuration(ports)
    pair = {"certificate_chain": {"inline_string": OWN.chain.decode()}, "private_key": {"inline_string": OWN.key.decode()}}
    common = {
        "tls_certificates": [pair],
        "validation_context": {"trusted_ca": {"inline_string": MESH.pem.decode()}},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    socket_config = {"@type": kind, "common_tls_context": common, "require_client_certificate": True}
    for listener in config["static_resources"]["listeners"]:
        listener["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": socket_config}
    return config


def connect(port: int) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    return client(MESH.pem, pair=CALLER).wrap_socket(raw, server_hostname="mesh")


def head(connection: ssl.SSLSocket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    return received


def exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        assert piece, received
        received += piece
    return received


class Held:
    """An endpoint for HTTP/1 and Dubbo that has every request before it answers the first."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while piece := connection.recv(65536):
                data += piece
                if data[:2] == b"\xda\xbb" and len(data) >= 16 + wire.header(data[:16])[3]:
                    flags, _, number, size = wire.header(data[:16])
                    self.go.wait(TIMEOUT_S)
                    connection.sendall(wire.answer(number) if not flags & READONLY else b"")
                    data = data[16 + size :]
                elif data.endswith(b"\r\n\r\n"):
                    self.go.wait(TIMEOUT_S)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    data = b""

    def stop(self) -> None:
        self.go.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


@pytest.fixture
def held() -> Iterator[Held]:
    one = Held()
    yield one
    one.stop()


class Begun:
    """A request of each protocol that is under way, each on a connection of its own over TLS."""

    def __init__(self, proxy: Upgrades, stack: contextlib.ExitStack) -> None:
        self.http1, self.http2, self.dubbo = (
            stack.enter_context(connect(proxy.port(name))) for name in ("http", "http", "dubbo")
        )
        self.http1.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        self.codec = Http2Codec(downstream=False, settings=Http2Settings())
        stream = self.codec.open_stream()
        assert stream is not None
        self.codec.send(RequestHeaders(stream, b"GET", b"https", b"shop", b"/", Headers([]), True))
        self._flush()
        self.dubbo.sendall(wire.call(method="after", request_id=7))
        self.seen: list[Event] = []

    def are_told(self) -> None:
        """READONLY and GOAWAY come while the requests are still under way. HTTP/1 has no such word before its answer."""
        flags, _, _, size = wire.header(exactly(self.dubbo, 16))
        assert flags & READONLY
        assert exactly(self.dubbo, size) == b"\x01R"
        while not any(isinstance(event, GoAway) for event in self.seen):
            data = self.http2.recv(65536)
            assert data
            self.seen += self.codec.receive_data(data)
            self._flush()

    def are_answered(self) -> None:
        """All of them; and then the connections end."""
        flags, status, number, size = wire.header(exactly(self.dubbo, 16))
        assert (flags & READONLY, status, number) == (0, 20, 7)
        exactly(self.dubbo, size)
        while data := self.http2.recv(65536):
            self.seen += self.codec.receive_data(data)
            self._flush()
        assert [event.status for event in self.seen if isinstance(event, ResponseHeaders)] == [200]
        assert b"".join(event.data for event in self.seen if isinstance(event, Data)) == b"ok"
        assert not any(isinstance(event, StreamReset) for event in self.seen)
        answer = head(self.http1)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert self.dubbo.recv(1) == b""

    def _flush(self) -> None:
        if pieces := self.codec.data_to_send():
            with contextlib.suppress(OSError):  # a PING's answer may meet the end
                self.http2.sendall(b"".join(pieces))


def under_way(proxy: Upgrades) -> bool:
    stats = proxy.stats()
    found = [stats.get(f"cluster.{name}.upstream_rq_active") for name in ("web", "dubbo")]
    return found == [2, 1]


@pytest.mark.parametrize("what", ["upgrade", "drain"])
def test_sessions_end_in_their_own_words(held: Held, chain: Chain, what: str) -> None:
    proxy = chain(secured(dict.fromkeys(("http1", "grpc", "dubbo", "bytes"), held.port)), flags=("--drain-time-s", "60"))
    old = proxy.newest
    with contextlib.ExitStack() as stack:
        begun = Begun(proxy, stack)
        until("all are under way", lambda: under_way(proxy), TIMEOUT_S)
        if what == "upgrade":
            proxy.launch().wait_live()
        else:
            old.process.send_signal(signal.SIGTERM)
        begun.are_told()
        held.go.set()
        if what == "upgrade":
            # The new process takes new sessions while the old one still has its own.
            with connect(proxy.port("http")) as fresh:
                fresh.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert b"connection: close" not in head(fresh).lower()
        begun.are_answered()
    assert old.wait_exit() == 0, old.log()


def test_nothing_is_lost_over_tls(backends: Backends, chain: Chain) -> None:
    """Eight kinds of load over mutual TLS: connections are made anew, as sessions cannot move, but no request fails."""
    proxy = chain(secured(backends.ports))
    with MixedLoad({name: proxy.port(name) for name in LISTENERS}, tls=client(MESH.pem, pair=CALLER)) as load:
        load.wait_for(300, 60)
        for _ in range(UPGRADES):
            before = proxy.newest
            connections = sum(kind.connections for kind in load.kinds.values())
            proxy.launch().wait_live()
            assert before.wait_exit() == 0
            load.wait_for(300, 60)
            # The control: sessions did end.
            assert sum(kind.connections for kind in load.kinds.values()) - connections > 50
        load.stop()
    print(f"{UPGRADES} upgrades, {load.done} requests over TLS")
    print(load.report())
    assert not load.failures()
    assert proxy.stats()["hot_restart.connections_cut"] == 0
