"""The programs compared, each started with an equivalent configuration and stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
START_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the proxy runs on and which the load and the upstreams: apart, where the machine has enough of them."""

    proxy: frozenset[int] | None
    load: frozenset[int] | None

    @classmethod
    def of_machine(cls, workers: int) -> Cores:
        """The first cores for the proxy, as many as it has workers; None where that would leave none for the load."""
        ours = sorted(os.sched_getaffinity(0))
        if len(ours) <= workers:
            return cls(None, None)
        return cls(frozenset(ours[:workers]), frozenset(ours[workers:]))


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
def pinned(cores: frozenset[int] | None) -> Iterator[None]:
    """What is started within runs on these cores (None: on any)."""
    before = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: list[str], port: int, folder: Path, cores: frozenset[int] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens on a port, for as long as the context lasts; on the cores named."""
    log = folder / f"{Path(command[0]).name}-{port}.log"
    with log.open("wb") as output, pinned(cores):
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
    """nginx that answers every request with a few bytes, and GET /large with 1 MiB."""
    options = "http2 " if http2 else ""
    (folder / "large").write_bytes(bytes(1 << 20))
    text = (
        f"{'user root; ' if os.geteuid() == 0 else ''}worker_processes 1; daemon off; pid {folder}/nginx.pid;\n"
        f"error_log {folder}/nginx.err;\n"
        "events { worker_connections 16384; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 64m;\n"
        "http2_max_concurrent_streams 1024; sendfile on; open_file_cache max=10;\n"
        f"  server {{ listen 127.0.0.1:{port} {options}backlog=4096; location / {{ return 200 'hello world\\n'; }}\n"
        f"    location = /large {{ root {folder}; }} }} }}\n"
    )
    path = folder / "nginx.conf"
    path.write_text(text)
    with running(nginx(path), port, folder) as process:
        yield process


def nginx(config: Path, workers: int = 1) -> list[str]:
    """nginx's command line; the number of workers is in the file."""
    return [find("nginx", "nginx-light"), "-c", str(config), "-p", str(config.parent)]


def nghttpx(config: Path, workers: int = 1) -> list[str]:
    """nghttpx's command line."""
    return [find("nghttpx", "nghttp2-proxy"), f"--conf={config}", f"--workers={workers}"]


def ours(config: Path, workers: int = 1, python: str = sys.executable, options: tuple[str, ...] = ()) -> list[str]:
    """Our command line; `options` are Python's."""
    command = [python, *options, "-m", "mesh_proxy", "-c", str(config), "--concurrency", str(workers), "-l", "warning"]
    return [*command, "--disable-hot-restart"]


def compiled(config: Path, workers: int = 1) -> list[str]:
    """Our command line where the compiled wheel is installed. Raises Missing."""
    python = Path(os.environ.get("MESH_PROXY_COMPILED", str(ROOT / ".venv-compiled/bin/python")))
    if not os.access(python, os.X_OK):
        raise Missing("the compiled build is not installed: `make venv-compiled`, or name its Python in MESH_PROXY_COMPILED")
    return ours(config, workers, str(python), ("-P",))  # never the sources in the current directory


def envoy(config: Path, workers: int = 1) -> list[str]:
    """Envoy's command line."""
    return [envoy_binary(), "-c", str(config), "--concurrency", str(workers), "-l", "error", "--disable-hot-restart"]


PROGRAMS: dict[str, Callable[[Path, int], list[str]]] = {
    "mesh-proxy": ours,
    "mesh-proxy compiled": compiled,
    "envoy": envoy,
    "nginx": nginx,
    "nghttpx": nghttpx,
}


def command(name: str, config: Path, workers: int) -> list[str]:
    """How to start a program. Raises Missing."""
    return PROGRAMS[name](config, workers)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for configurations and logs."""
    with tempfile.TemporaryDirectory(prefix="mesh-proxy-bench-") as name:
        yield Path(name)
