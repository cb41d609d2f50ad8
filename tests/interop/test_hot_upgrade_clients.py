"""Programs that others wrote stay connected while the sidecar before them is upgraded, and see nothing of it."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e_support import until
from e2e_support.backends import Backends
from e2e_support.gate import configuration
from e2e_support.upgrades import Chain, Upgrades
from interop_support.config import in_front_of
from interop_support.grpc_config import in_front_of_grpc
from interop_support.grpc_python import Server
from peer_programs import program

from .conftest import Cast
from .test_dubbo_java_life import calls, more, result_of

pytestmark = pytest.mark.slow

WAIT_S = 60.0


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as one:
        yield one


def total(proxy: Upgrades, name: str) -> int:
    return proxy.stats().get(name, 0)


def wait_for_more(proxy: Upgrades, name: str, count: int) -> None:
    """A counter grows by so much: it goes on over upgrades."""
    goal = total(proxy, name) + count
    until(f"{count} more of {name}", lambda: total(proxy, name) >= goal, WAIT_S)


def connected(proxy: Upgrades, count: int) -> None:
    """All connections of a program are there."""
    until(f"{count} connections", lambda: total(proxy, "http.http.downstream_cx_active") == count, WAIT_S)


def upgrade_twice(proxy: Upgrades, name: str, count: int = 50) -> None:
    """Under traffic, which the counter shows; workers 1 → 2 → 1."""
    wait_for_more(proxy, name, count)
    for workers in (2, 1):
        proxy.upgrade(concurrency=workers)
        wait_for_more(proxy, name, count)


def test_a_java_consumer_with_one_provider_address(cast: Cast, chain: Chain) -> None:
    """It would not reconnect by itself without an error: READONLY means nothing to who knows one address only."""
    provider = cast.provider("v33")
    proxy = chain(in_front_of(provider.port))
    client = cast.consumer("v27")
    client.run("traffic", proxy.port("dubbo"), threads=8, retries=0)
    more(client)
    connections = total(proxy, "dubbo.dubbo.cx_total")
    for workers in (2, 1):
        proxy.upgrade(concurrency=workers)
        more(client)
    print(f"{calls(client)} calls over {connections} connection(s)")
    assert total(proxy, "dubbo.dubbo.cx_total") == connections
    until("both upgrades are counted", lambda: proxy.settled({"hot_restart.connections_moved": 2 * connections}), WAIT_S)
    results = result_of(client)
    assert results.keys() == {"provider after 5"}, results


def test_curl_with_keep_alive(backends: Backends, chain: Chain, tmp_path: Path) -> None:
    curl = program("curl")
    proxy = chain(configuration(backends.ports))
    url = f"http://127.0.0.1:{proxy.port('http')}/10/[1-1000000]"
    said = tmp_path / "said"
    with said.open("wb") as errors:
        command = [curl, "-s", "-o", "/dev/null", "-w", "%{stderr}%{http_code} %{num_connects}\n", url]
        running = subprocess.Popen(command, stderr=errors)
    try:
        upgrade_twice(proxy, "http.http.downstream_rq_completed")
    finally:
        running.terminate()
        running.wait(WAIT_S)
    lines = said.read_text().splitlines()[:-1]  # the last may be cut
    assert len(lines) > 100
    assert lines[0] == "200 1"
    assert set(lines[1:]) == {"200 0"}


def test_wrk(backends: Backends, chain: Chain) -> None:
    wrk = program("wrk")
    proxy = chain(configuration(backends.ports))
    url = f"http://127.0.0.1:{proxy.port('http')}/5/word"
    running = subprocess.Popen([wrk, "-t", "1", "-c", "20", "-d", "3600", url], stdout=subprocess.PIPE, text=True)
    try:
        connected(proxy, 20)
        connections = total(proxy, "http.http.downstream_cx_total")  # one more: wrk tries the address first
        upgrade_twice(proxy, "http.http.downstream_rq_completed")
        assert total(proxy, "http.http.downstream_cx_total") == connections
    finally:
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=WAIT_S)
    print(said)
    assert re.search(r"\d+ requests in", said)
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


def test_h2load(backends: Backends, chain: Chain) -> None:
    h2load = program("h2load")
    proxy = chain(configuration(backends.ports))
    url = f"http://127.0.0.1:{proxy.port('http')}/40/word"
    running = subprocess.Popen([h2load, "-n", "6000", "-c", "4", "-m", "10", url], stdout=subprocess.PIPE, text=True)
    upgrades = 0
    try:
        connected(proxy, 4)
        while running.poll() is None:
            proxy.upgrade(concurrency=2 - upgrades % 2)
            upgrades += running.poll() is None
    finally:
        said, _ = running.communicate(timeout=WAIT_S)
    print(f"{upgrades} upgrades\n{said}")
    assert upgrades
    assert "6000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert total(proxy, "http.http.downstream_cx_total") == 4


class Unary:
    """One channel; a call after the other from some threads. gRPC's own retries are off."""

    def __init__(self, port: int, threads: int = 4) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
        self.errors: list[str] = []
        self._echo = self.channel.unary_unary("/mesh.Test/unary_echo")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(b"%d" % number,)) for number in range(threads)]

    def __enter__(self) -> Unary:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)
        self.channel.close()

    def _run(self, word: bytes) -> None:
        while not self._stop.wait(0.005):
            try:
                answer = self._echo(word, timeout=WAIT_S)
            except grpc.RpcError as error:
                self.errors.append(str(error))
            else:
                if answer != word:
                    self.errors.append(f"{answer!r} instead of {word!r}")


def test_a_grpcio_channel(chain: Chain) -> None:
    """Unary calls stay on their connection; a stream in both directions ends where it began, complete."""
    server = Server()
    try:
        proxy = chain(in_front_of_grpc(server.port))
        with Unary(proxy.port("in")) as unary, grpc.insecure_channel(f"127.0.0.1:{proxy.port('in')}") as channel:
            wait_for_more(proxy, "http.in.downstream_rq_completed", 50)
            go_on = threading.Event()

            def words() -> Iterator[bytes]:
                yield b"before"
                assert go_on.wait(WAIT_S * 3)
                yield b"after"

            stream = channel.stream_stream("/mesh.Test/both_echo")(words(), timeout=WAIT_S * 4)
            assert next(stream) == b"before"
            connections = total(proxy, "http.in.downstream_cx_total")
            first = proxy.newest
            for workers in (2, 1):
                proxy.launch(concurrency=workers).wait_live()
                wait_for_more(proxy, "http.in.downstream_rq_completed", 50)
            go_on.set()
            assert list(stream) == [b"after"]
            assert total(proxy, "http.in.downstream_cx_total") == connections
            channel.close()
            assert first.wait_exit() == 0
        assert not unary.errors
    finally:
        server.close()
