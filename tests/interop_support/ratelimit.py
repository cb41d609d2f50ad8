"""envoyproxy/ratelimit, the rate limit service in Go, with a Redis of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parity.proxy import free_port
from peer_programs import REQUIRED, program, unavailable

from .tools import build

MODULE = "github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36"
BUILD_S = 900.0
START_S = 60.0
CONFIG = """
domain: shop
descriptors:
- {key: generic_key, value: once, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: user, rate_limit: {unit: day, requests_per_unit: 2}}
- key: generic_key
  value: tiers
  descriptors:
  - {key: tier, value: gold, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: tier, value: free, unlimited: false, rate_limit: {unit: day, requests_per_unit: 0}}
"""


def service_binary(out: Path) -> str:
    """`MESH_PROXY_RATELIMIT`, else built, which takes minutes and the network: `make interop` does it."""
    named = os.environ.get("MESH_PROXY_RATELIMIT")
    if named:
        return named
    if not REQUIRED:
        unavailable("the rate limit service takes minutes to build: make interop does it, or MESH_PROXY_RATELIMIT names a binary")
    go = program("go")
    build([go, "install", MODULE], "envoyproxy/ratelimit", cwd=out, env={"GOBIN": str(out)}, timeout=BUILD_S)
    return str(out / "service_cmd")


@contextmanager
def rate_limit_service(out: Path) -> Iterator[int]:
    """Both processes; the port of the service."""
    binary, redis = service_binary(out), program("redis-server")
    config = out / "runtime" / "ratelimit" / "config"
    config.mkdir(parents=True)
    (config / "shop.yaml").write_text(CONFIG)
    redis_port, port, web, debug = (free_port() for _ in range(4))
    environment = {
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"127.0.0.1:{redis_port}",
        "USE_STATSD": "false",
        "LOG_LEVEL": "warn",
        "RUNTIME_ROOT": str(out / "runtime"),
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
        "HOST": "127.0.0.1",
        "PORT": str(web),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(debug),
    }
    redis_command = [redis, "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (out / "processes.log").open("wb") as log:
        processes = [subprocess.Popen(redis_command, cwd=out, stdout=log, stderr=log, stdin=subprocess.DEVNULL)]
        try:
            wait_for(redis_port, processes[0], out)
            everything = {**os.environ, **environment}
            processes.append(
                subprocess.Popen([binary], env=everything, cwd=out, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )
            wait_for(port, processes[1], out)
            yield port
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], out: Path) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, (out / "processes.log").read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}: {(out / 'processes.log').read_text()[-2000:]}")
