"""Health checks of a sidecar with several workers: one of them asks, all of them act on the answers, also when it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable

import pytest
from e2e_support import Peer, Sidecar, head_of, one_listener, until

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
CHECK = """
common_lb_config: {healthy_panic_threshold: {value: 0}}
health_checks:
- timeout: 5s
  interval: 0.05s
  no_traffic_interval: 0.05s
  healthy_threshold: 1
  unhealthy_threshold: 2
  http_health_check: {path: /hc}
"""
WAIT_S = 30.0


class Patient:
    """An upstream that is well or not."""

    def __init__(self) -> None:
        self.well = True
        self.checks = 0

    def __call__(self, sock: socket.socket) -> None:
        while request := head_of(sock):
            if request.startswith(b"GET /hc"):
                self.checks += 1
                status = b"200 OK" if self.well else b"500 No"
            else:
                status = b"200 OK"
            sock.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")


def flags(sidecar: Sidecar) -> str:
    for line in sidecar.admin("/clusters").body.decode().splitlines():
        if "::health_flags::" in line:
            return line.rpartition("::")[2]
    return ""


def agrees(sidecar: Sidecar, status: int) -> bool:
    """Ten new connections, which the kernel spreads over the workers, are all answered so."""
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", sidecar.port("in")), timeout=WAIT_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            if not head_of(sock).startswith(b"HTTP/1.1 %d" % status):
                return False
    return True


def test_all_workers_follow_the_one_that_checks(start: Start) -> None:
    patient = Patient()
    with Peer(patient) as peer:
        sidecar = start(one_listener(peer.port, cluster_extra=CHECK), concurrency=2)
        assert agrees(sidecar, 200)
        assert flags(sidecar) == "healthy"
        patient.well = False
        until("every worker refuses", lambda: agrees(sidecar, 503), WAIT_S)
        until("the admin interface says so", lambda: flags(sidecar) == "/failed_active_hc", WAIT_S)
        host = json.loads(sidecar.admin("/clusters?format=json").body)["cluster_statuses"][0]["host_statuses"][0]
        assert host["health_status"]["failed_active_health_check"] is True
        # Whichever worker checks: after the death of each in turn, checks go on and verdicts stand.
        for victim in sidecar.workers():
            os.kill(victim, signal.SIGKILL)
            until("a replacement", lambda victim=victim: len(set(sidecar.workers()) - {victim}) == 2, WAIT_S)  # type: ignore[misc]
            until("every worker refuses again", lambda: agrees(sidecar, 503), WAIT_S)
        seen = patient.checks
        until("checks go on", lambda: patient.checks > seen + 2, WAIT_S)
        patient.well = True
        until("every worker forwards again", lambda: agrees(sidecar, 200), WAIT_S)
