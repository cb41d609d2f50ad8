"""`mesh-proxy wait`: for start scripts and postStart hooks, until the sidecar takes traffic (as `pilot-agent wait`)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

from mesh_proxy.interception.admin_client import AdminError, address, ask

DEFAULT_URL: Final = "http://localhost:15021/healthz/ready"


def wait(arguments: Sequence[str], prog: str) -> int:
    """The command; exit code 0 when it is ready, 1 when the time is over."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} wait",
        allow_abbrev=False,
        description="Wait until the proxy is ready: its readiness port answers 200, or /ready.",
    )
    parser.add_argument("--url", default="", help=f"of the readiness port [{DEFAULT_URL}]")
    parser.add_argument("--admin", metavar="HOST:PORT", default="", help="ask /ready of the admin interface instead")
    parser.add_argument("--admin-address-path", metavar="FILE", default="", help="file with that address")
    parser.add_argument("--timeout", "--timeoutSeconds", dest="timeout", type=float, default=60.0, metavar="S", help="[60]")
    parser.add_argument("--period", type=float, default=None, metavar="S", help="between two attempts [0.5]")
    parser.add_argument("--periodMillis", type=float, default=500.0, help=argparse.SUPPRESS)
    parser.add_argument("--requestTimeoutMillis", type=float, default=500.0, metavar="MS", help="for one attempt [500]")
    given = parser.parse_args(arguments)
    period = given.period if given.period is not None else given.periodMillis / 1000
    deadline = time.monotonic() + given.timeout
    while True:
        try:
            where, path = _target(given)
            status, body = ask(where, "GET", path, given.requestTimeoutMillis / 1000)
            if status == 200:
                return 0
            problem = f"{status} {body[:200].decode(errors='replace').strip()}"
        except AdminError as error:
            problem = str(error)
        except ValueError as error:
            print(f"{prog} wait: {error}", file=sys.stderr)
            return 1
        if time.monotonic() + period >= deadline:
            print(f"{prog} wait: not ready after {given.timeout:g} s: {problem}", file=sys.stderr)
            return 1
        time.sleep(period)


def _target(given: argparse.Namespace) -> tuple[str, str]:
    if given.admin or given.admin_address_path:
        return address(given.admin, given.admin_address_path), "/ready"
    url = given.url or DEFAULT_URL
    if not url.startswith("http://"):
        raise ValueError(f"--url: http://HOST:PORT/PATH, not {url!r}")
    where, slash, path = url.removeprefix("http://").partition("/")
    return where if where.rpartition(":")[2].isdecimal() else f"{where}:80", slash + path or "/"
