"""The interop programs of grpc-go: client, server, and the client for misbehaving HTTP/2 servers. Go fetches and builds them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from peer_programs import REQUIRED, program

from .tools import build

VERSION = "v1.76.0"
PACKAGES = ("client", "server", "http2")
BUILD_S = 900
RUN_S = 300.0
"""a case that takes longer hangs"""

CASES = (
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob",
    "rpc_soak", "channel_soak",
)  # fmt: skip
"""all that grpc-go's own interop_test.sh runs; the others need credentials of Google's cloud, or a caching proxy"""
NEGATIVE_CASES = ("goaway", "rst_after_header", "rst_during_data", "rst_after_data", "ping", "max_streams")
_ORCA = '-service_config_json={"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'


def build_programs(directory: Path) -> Path:
    """Build all three into the directory, or skip. Building takes minutes the first time, so only `make interop` does it."""
    if not REQUIRED:
        pytest.skip("grpc-go's programs take minutes to build: make interop does it")
    go = program("go")
    packages = [f"google.golang.org/grpc/interop/{name}@{VERSION}" for name in PACKAGES]
    build([go, "install", *packages], "grpc-go's interop programs", env={"GOBIN": str(directory)}, timeout=BUILD_S)
    return directory


class GoServer:
    """grpc-go's interop server on a port of the loopback."""

    def __init__(self, programs: Path, port: int) -> None:
        self.port = port
        self._process = subprocess.Popen(
            [programs / "server", "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def run_case(programs: Path, case: str, port: int, *flags: str, program: str = "client") -> subprocess.CompletedProcess[str]:
    """One case against the port. The exit code says whether it passed."""
    command = [str(programs / program), "-server_host", "127.0.0.1", "-server_port", str(port), "-test_case", case, *flags]
    if case.startswith("orca"):
        command.append(_ORCA)
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
