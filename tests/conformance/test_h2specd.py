"""The client suite of h2spec against the proxy's upstream side: h2specd plays 57 endpoints that break a rule each.

h2specd (github.com/summerwind/h2spec/cmd/h2specd) is looked for in MESH_PROXY_H2SPECD, on the PATH and in the Go folder;
`make conformance` installs it where Go is there.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_support import Sidecar, forward
from parity.config import bootstrap, http
from peer_programs import program

pytestmark = pytest.mark.slow
CASES = 57
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
CLUSTER = {
    "name": "anywhere",
    "type": "ORIGINAL_DST",
    "lb_policy": "CLUSTER_PROVIDED",
    "connect_timeout": "20s",
    "original_dst_lb_config": {"use_http_header": True},
    "typed_extension_protocol_options": {
        OPTIONS: {"@type": "type.googleapis.com/" + OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    },
}


@pytest.fixture(scope="session")
def h2specd() -> str:
    return program("h2specd", named_by="MESH_PROXY_H2SPECD", how="`make conformance` installs it where Go is there")


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    one = Sidecar(bootstrap([http("in", [forward("anywhere", timeout="20s")])], [CLUSTER]))
    try:
        one.start()
        yield one
    finally:
        one.stop(keep=True)
        log = one.log()
        one.remove()
    assert "Traceback" not in log, log[-4000:]


def free_block(count: int) -> int:
    """The first of `count` free ports in a row, below those that the system gives out: h2specd wants one per case."""
    for base in range(20_000, 30_000, count):
        probes: list[socket.socket] = []
        try:
            for port in range(base, base + count):
                probes.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return base
    raise AssertionError("no free ports")


def test_client_suite(h2specd: str, sidecar: Sidecar) -> None:
    script = Path(__file__).with_name("h2specd_call.py")
    client = f"{sys.executable} {script} {sidecar.port('in')}"
    command = [h2specd, "--strict", "-e", client, "-f", str(free_block(CASES)), "-o", "10"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False).stdout
    summary = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", out)
    assert summary is not None, out[-2000:]
    total, passed, skipped, failed = map(int, summary.groups())
    assert (skipped, failed) == (0, 0), out[-6000:]
    assert total == passed >= CASES
