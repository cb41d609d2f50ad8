"""The programs compared, each started with an equivalent configuration and stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
START_DEADLINE_S = 20.0


class Missing(Exception):
    """A program that the benchmark needs is not installed; the text says how to get it."""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(name: str, package: str) -> str:
    """The path of a program. Raises Missing."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed (Debian package {package})")
    return path


def envoy_binary() -> str:
    """Envoy, from MESH_PROXY_ENVOY or the environment that `make envoy` makes. Raises Missing."""
    path = os.environ.get("MESH_PROXY_ENVOY", str(ROOT / ".venv-envoy/bin/envoy"))
    if not os.access(path, os.X_OK):
        raise Missing("Envoy is not installed: `make envoy`, or name a binary in MESH_PROXY_ENVOY")
    return path


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens. Raises RuntimeError with the program's log when it ends or the deadline passes."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not listen on {port}:\n{log.read_text()}")


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens on a port, for as long as the context lasts."""
    log = folder / f"{Path(command[0]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for_port(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def nginx_upstream(port: int, folder: Path, *, http2: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """nginx that answers every request with a few bytes."""
    options = "http2 " if http2 else ""
    text = (
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "events { worker_connections 16384; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 64m;\n"
        "http2_max_concurrent_streams 1024;\n"
        f"  server {{ listen 127.0.0.1:{port} {options}backlog=4096; location / {{ return 200 'hello world\\n'; }} }} }}\n"
    )
    path = folder / "nginx.conf"
    path.write_text(text)
    with running([find("nginx", "nginx-light"), "-c", str(path), "-p", str(folder)], port, folder) as process:
        yield process


def ours(config: Path, workers: int = 1) -> list[str]:
    """Our command line."""
    return [
        sys.executable,
        "-m",
        "mesh_proxy",
        "-c",
        str(config),
        "--concurrency",
        str(workers),
        "-l",
        "warning",
        "--disable-hot-restart",
    ]


def envoy(config: Path, workers: int = 1) -> list[str]:
    """Envoy's command line."""
    return [envoy_binary(), "-c", str(config), "--concurrency", str(workers), "-l", "error", "--disable-hot-restart"]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for configurations and logs."""
    with tempfile.TemporaryDirectory(prefix="mesh-proxy-bench-") as name:
        yield Path(name)
