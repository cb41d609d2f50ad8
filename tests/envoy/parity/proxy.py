"""Start one proxy (Envoy or mesh-proxy) on a rendered configuration, wait until it is ready, and always stop it."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_support import of_this_build

from .config import render
from .providers import Providers
from .upstream import Upstream

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
FLAGS = (
    "--concurrency", "1",
    "--disable-hot-restart",
    "--log-level", "warning",
    "--file-flush-interval-msec", "10",
    "--service-cluster", "parity-cluster",
    "--service-node", "parity-node",
)  # fmt: skip


TAKEN: set[int] = set()
"""Ports given out by `free_port` in this process."""


class StartError(Exception):
    """The proxy did not become ready; the message holds its output."""

    @property
    def refused(self) -> bool:
        """Whether it said that it does not know something in its configuration."""
        return re.search("not supported|unknown operator", str(self)) is not None


def envoy_binary() -> str | None:
    """`MESH_PROXY_ENVOY`, else what `make envoy` installed."""
    named = os.environ.get("MESH_PROXY_ENVOY")
    if named:
        return named
    installed = ROOT / ".venv-envoy" / "bin" / "envoy"
    return str(installed) if installed.exists() else None


def command(kind: str) -> list[str]:
    if kind == "envoy":
        binary = envoy_binary()
        assert binary is not None
        return [binary]
    return [sys.executable, "-m", "mesh_proxy"]


def has_ipv6() -> bool:
    """Whether ::1 can be bound here; containers often cannot."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port that nobody listens on, from below the range of outgoing connections so that none of them takes it meanwhile."""
    families = [(socket.AF_INET, "127.0.0.1"), *([(socket.AF_INET6, "::1")] if has_ipv6() else [])]
    while True:
        port = random.randrange(20000, 32000)
        if port in TAKEN:
            continue
        try:
            for family, host in families:
                with socket.socket(family) as sock:
                    sock.bind((host, port))
        except OSError:
            continue
        TAKEN.add(port)
        return port


@dataclass(slots=True)
class AdminAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Side:
    """One proxy with its upstream, its directory and its ports."""

    def __init__(self, kind: str, label: str, config: dict[str, Any]) -> None:
        self.kind = kind
        self.label = label
        self.dir = Path(tempfile.mkdtemp(prefix=f"parity-{label}-"))
        self.upstream = Upstream()
        self.providers = Providers()
        """of Dubbo, the endpoints `$(dubbo.NAME)`"""
        self.ports: dict[str, int] = {}
        """Every port in the configuration by name: `port.<listener>`, `up.<endpoint>`, …"""
        self.dead: list[socket.socket] = []
        self._offsets: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.config = render(config, self._resolve)
        self.config_file = self.dir / "proxy.yaml"
        # JSON is YAML with every string quoted: Envoy's YAML 1.1 reads a plain `y` or `n` as a boolean, PyYAML writes them plain.
        self.config_file.write_text(json.dumps(self.config, indent=1))

    # Placeholders of the configuration

    def _resolve(self, name: str) -> str | int:
        room, _, rest = name.partition(".")
        if name == "dir":
            return str(self.dir)
        if room == "uds":
            path = self.dir / f"{rest}.sock"
            if rest.startswith("up") and not path.exists():
                self.upstream.http(rest, path=path)
            return str(path)
        if name not in self.ports:
            self.ports[name] = self._port(room, rest)
        return self.ports[name]

    def _port(self, room: str, rest: str) -> int:
        if room == "up":
            self.upstream.http(rest)
            return self.upstream.ports[rest]
        if room == "up2":
            self.upstream.http2(rest)
            return self.upstream.ports[rest]
        if room == "up6":
            self.upstream.http(rest, socket.AF_INET6)
            return self.upstream.ports[rest]
        if room == "tcp":
            self.upstream.raw(rest)
            return self.upstream.ports[rest]
        if room == "dubbo":
            self.upstream.listen(rest, self.providers.serve)
            return self.upstream.ports[rest]
        if room == "refused":
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            self.dead.append(sock)
            return int(sock.getsockname()[1])
        if room == "blackhole":
            return self._blackhole()
        assert room == "port", f"unknown placeholder {room}.{rest}"
        return free_port()

    def _blackhole(self) -> int:
        """A listening socket whose queue is full: further connections get no answer to their SYN."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        self.dead.append(listener)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self.dead.append(filler)
        return int(listener.getsockname()[1])

    # Life

    def arguments(self) -> list[str]:
        """The command line."""
        return [*command(self.kind), "-c", str(self.config_file), *FLAGS]

    def start(self) -> None:
        output = (self.dir / "output.log").open("wb")
        with output:
            self._process = subprocess.Popen(
                self.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise StartError(f"{self.label} ended with {self._process.returncode} at the start:\n{self.output()}")
            try:
                if self.admin("/ready").status == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                raise StartError(f"{self.label} was not ready in {START_SECONDS} s:\n{self.output()}")
            time.sleep(0.02)
        if self.kind != "envoy":
            of_this_build(self._process.pid)

    def stop(self, keep: bool = False) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)  # a worker that outlived its supervisor, or the process itself
            except ProcessLookupError:
                pass
            process.wait()
        self.upstream.stop()
        for sock in self.dead:
            sock.close()
        if not keep:
            self.remove()

    def remove(self) -> None:
        """Delete its directory."""
        shutil.rmtree(self.dir, ignore_errors=True)

    def output(self) -> str:
        lines = (self.dir / "output.log").read_text(errors="replace").splitlines()[-40:]
        return "\n".join(line if len(line) < 800 else f"{line[:500]} … {line[-300:]}" for line in lines)

    # Looking at it

    def admin(self, path: str, method: str = "GET", timeout: float = 20.0) -> AdminAnswer:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["port.admin"], timeout=timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return AdminAnswer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def stats(self) -> dict[str, int]:
        """Counters and gauges by name."""
        found: dict[str, int] = {}
        for line in self.admin("/stats").body.decode().splitlines():
            name, _, value = line.rpartition(": ")
            if value.isdecimal():
                found[name] = int(value)
        return found

    def new_lines(self, log: str, count: int, timeout: float = 15.0) -> list[str]:
        """The lines written to `log` since the last call; waits until there are `count`, at most `timeout` s."""
        path = self.dir / log
        deadline = time.monotonic() + timeout
        while True:
            data = path.read_bytes()[self._offsets.get(log, 0) :] if path.exists() else b""
            complete = data[: data.rfind(b"\n") + 1]
            if complete.count(b"\n") >= count or time.monotonic() > deadline:
                self._offsets[log] = self._offsets.get(log, 0) + len(complete)
                return complete.decode("utf-8", "backslashreplace").splitlines()
            time.sleep(0.01)
