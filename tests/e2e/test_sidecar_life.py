"""The sidecar as a pod sees it: ready, probing its application, draining, ending; and the ports of `mesh-proxy localhost`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dubbo_support import wire
from dubbo_support.provider import ProviderProcess
from e2e_support.config import one_listener
from e2e_support.sidecar import until
from parity.proxy import command, free_port

pytestmark = pytest.mark.slow


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for the processes that are started."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def web() -> dict[str, Any]:
    return one_listener("up.a", extra="traffic_direction: INBOUND")


def wait_for(*words: str) -> int:
    return subprocess.run([*command("mesh-proxy"), "wait", *words], timeout=120, check=False).returncode


def test_readiness_and_probes(start: Any) -> None:
    port, app = free_port(), free_port()
    probers = {
        "/app-health/app/livez": {"httpGet": {"path": "/", "port": app}, "timeoutSeconds": 20},
        "/app-health/app/readyz": {"tcpSocket": {"port": app}, "timeoutSeconds": 20},
    }
    assert wait_for("--url", f"http://127.0.0.1:{port}/healthz/ready", "--timeout", "0.1", "--period", "0.05") == 1
    with environment(ISTIO_KUBE_APP_PROBERS=json.dumps(probers)):
        sidecar = start(web(), flags=("--status-port", str(port)))
    assert wait_for("--url", f"http://127.0.0.1:{port}/healthz/ready") == 0
    assert ask(port, "/healthz/ready") == (200, b"ready\n")
    assert ask(port, "/stats/prometheus")[0] == 200
    assert ask(port, "/app-health/app/startupz")[0] == 404
    assert ask(port, "/clusters")[0] == 404, "this is not the admin interface"
    assert ask(port, "/app-health/app/readyz")[0] == 500
    with socket.create_server(("127.0.0.1", app)) as server:
        assert ask(port, "/app-health/app/readyz")[0] == 200
        server.accept()[0].close()
    assert ask(port, "/quitquitquit")[0] == 405
    sidecar.admin("/healthcheck/fail", "POST")
    assert ask(port, "/healthz/ready") == (503, b"DRAINING\n")
    sidecar.admin("/healthcheck/ok", "POST")
    assert ask(port, "/healthz/ready")[0] == 200
    assert ask(port, "/quitquitquit", "POST")[0] == 200
    assert sidecar.wait_exit(60) == 0


def test_not_ready_without_a_worker(start: Any) -> None:
    port = free_port()
    sidecar = start(web(), flags=("--status-port", str(port)))
    (worker,) = sidecar.workers()
    os.kill(worker, signal.SIGKILL)
    until(
        "it is ready again with another worker",
        lambda: ask(port, "/healthz/ready")[0] == 200 and sidecar.workers() != [worker],
        60,
    )


def test_sigterm_goes_on_accepting_until_nobody_is_left(start: Any) -> None:
    """With Istio's variables: new callers are still served, and asked to leave."""
    with environment(EXIT_ON_ZERO_ACTIVE_CONNECTIONS="true", MINIMUM_DRAIN_DURATION="1s"):
        sidecar = start(web())
    port = sidecar.port("in")
    with socket.create_connection(("127.0.0.1", port), 30) as held:
        held.sendall(b"GET / HTTP/1.1\r\n")
        until("it is accepted", lambda: sidecar.stats()["server.total_connections"] >= 1, 30)
        sidecar.signal(signal.SIGTERM)
        until("it drains", lambda: b"DRAINING" in sidecar.admin("/ready").body, 30)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
        connection.close()
        held.sendall(b"host: a\r\n\r\n")
        assert held.recv(65536).startswith(b"HTTP/1.1 200")
    assert sidecar.wait_exit(60) == 0


def test_sigterm_with_a_duration(start: Any) -> None:
    """A connection that stays does not hold it up for longer."""
    with environment(TERMINATION_DRAIN_DURATION_SECONDS="1"):
        sidecar = start(web())
    with socket.create_connection(("127.0.0.1", sidecar.port("in")), 30) as held:
        held.sendall(b"GET / HTTP/1.1\r\n")
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait_exit(60) == 0


def test_a_duration_that_is_none(tmp_path: Path) -> None:
    config = tmp_path / "empty.yaml"
    config.write_text("static_resources: {}\n")
    with environment(TERMINATION_DRAIN_DURATION_SECONDS="soon"):
        done = subprocess.run(
            [*command("mesh-proxy"), "-c", str(config)], capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 1
    assert "TERMINATION_DRAIN_DURATION_SECONDS: 'soon' is no duration such as 5s" in done.stderr


def test_localhost_ports_and_unix_sockets(tmp_path: Path) -> None:
    """A consumer calls a port and a unix socket of its sidecar; the provider's sidecar reaches it on 20880."""
    listen, local, admin = free_port(), free_port(), free_port()
    path = tmp_path / "consumer.sock"
    config = tmp_path / "bootstrap.yaml"
    with ProviderProcess("p") as provider:
        description = {
            "admin": f"127.0.0.1:{admin}",
            "providers": [{"listen": f"127.0.0.1:{listen}", "application": provider.port}],
            "consumers": [
                {"listen": local, "endpoints": [f"127.0.0.1:{listen}"]},
                {"listen": str(path), "endpoints": [f"127.0.0.1:{listen}"]},
            ],
        }
        short = tmp_path / "short.yaml"
        short.write_text(yaml.safe_dump(description))
        made = subprocess.run(
            [*command("mesh-proxy"), "localhost", "--file", str(short), "-o", str(config)], timeout=120, check=False
        )
        assert made.returncode == 0
        log = tmp_path / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "mesh_proxy", "-c", str(config), "--concurrency", "1", "--disable-hot-restart"],
                stdout=sink,
                stderr=sink,
            )
        try:
            assert wait_for("--admin", f"127.0.0.1:{admin}", "--timeout", "60") == 0, log.read_text()
            with socket.create_connection(("127.0.0.1", local), 30) as sock:
                assert called(sock) == 20
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(30)
                sock.connect(str(path))
                assert called(sock) == 20
        finally:
            process.terminate()
            process.wait(60)
    assert not path.exists()


def called(sock: socket.socket) -> int:
    """The status of a Dubbo call's answer."""
    sock.sendall(wire.call(request_id=5))
    head = b""
    while len(head) < 16:
        data = sock.recv(16 - len(head))
        assert data
        head += data
    _, status, number, _ = wire.header(head)
    assert number == 5
    return status
