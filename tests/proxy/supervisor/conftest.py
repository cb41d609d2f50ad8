"""Real process trees with the echoing data plane."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build_support import of_this_build
from parity.proxy import free_port

ECHO_PROXY = Path(__file__).with_name("echo_proxy.py")
DEADLINE_S = 60.0


def tcp_listener(name: str, address: dict[str, Any], **extra: Any) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": "back",
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}], **extra}


def socket_address(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


class Connection:
    """A line-wise client of the echo data plane."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(DEADLINE_S)
        try:
            self.socket.connect(address)
            self.file = self.socket.makefile("rb")
            greeting = self.file.readline().split()
            if len(greeting) != 2:
                self.file.close()
                raise ConnectionResetError("no greeting")
        except OSError:
            self.socket.close()
            raise
        self.worker, self.pid = int(greeting[0]), int(greeting[1])

    def ask(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\n")
        return self.file.readline().decode().rstrip("\n")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class ProxyProcess:
    """One supervisor and its tree."""

    def __init__(self, directory: Path, config: dict[str, Any] | str, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.directory = directory
        path = directory / "bootstrap.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        self.log_path = directory / "log"
        self.log_file = self.log_path.open("wb")
        self.admin_path = directory / "admin"
        command = [sys.executable, str(ECHO_PROXY), "-c", str(path), "--admin-address-path", str(self.admin_path)]
        hot_restart = any("--socket-path" in argument for argument in arguments)
        command += [*([] if hot_restart else ["--disable-hot-restart"]), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file, env={**os.environ, **env}
        )
        self.connections: list[Connection] = []

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def until(self, what: str, check: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """Poll something that has no event for us outside the processes."""
        end = time.monotonic() + deadline_s
        while True:
            with contextlib.suppress(OSError):
                if found := check():
                    return found
            assert time.monotonic() < end, f"not in {deadline_s} s: {what}\n{self.log}"
            time.sleep(0.01)

    def wait_live(self) -> ProxyProcess:
        self.until("live", lambda: "all workers are live" in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        of_this_build(self.process.pid)
        return self

    def wait_exit(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)

    def connect(self, address: tuple[str, int] | str) -> Connection:
        connection = Connection(address)
        self.connections.append(connection)
        return connection

    def connect_to_worker(self, address: tuple[str, int], worker: int) -> Connection:
        """The kernel chooses the worker; try until it is the right one."""

        def attempt() -> Connection | None:
            connection = self.connect(address)
            return connection if connection.worker == worker else None

        found: Connection = self.until(f"a connection to worker {worker}", attempt)
        return found

    def admin(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
        host, port = self.admin_path.read_text().rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def stat(self, name: str) -> int | None:
        for line in self.admin("/stats")[1].splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return None

    def children(self) -> list[int]:
        """Every living process below the supervisor."""
        found: list[int] = []
        frontier = [self.process.pid]
        while frontier:
            pid = frontier.pop()
            try:
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            below = [int(child) for child in text.split()]
            found += below
            frontier += below
        return found

    def close(self) -> None:
        below = self.children()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for connection in self.connections:
            connection.close()
        self.log_file.close()


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., ProxyProcess]]:
    started: list[ProxyProcess] = []

    def start(
        listeners: list[dict[str, Any]] | None = None,
        *arguments: str,
        config: dict[str, Any] | str | None = None,
        env: dict[str, str] | None = None,
        admin: bool = True,
    ) -> ProxyProcess:
        if config is None:
            back = {"name": "back", "load_assignment": {"cluster_name": "back"}}
            config = {"static_resources": {"listeners": listeners or [], "clusters": [back]}}
            if admin:
                config["admin"] = {"address": socket_address(0)}
        directory = tmp_path / str(len(started))
        directory.mkdir()
        process = ProxyProcess(directory, config, arguments, env or {})
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


@pytest.fixture
def port() -> int:
    return free_port()
