"""`mesh-proxy migrate`, the postStart hook of a SidecarSet (`mesh_proxy.cli.sidecarset`).

It blocks until the new container's process has taken over, because OpenKruise empties the old container as soon as the hook has
ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from mesh_proxy.cli.sidecarset import VERSION, VERSION_ALT, role_of
from mesh_proxy.interception.admin_client import DEFAULT_ADMIN, AdminError, address, ask

DEFAULT_TIMEOUT_S: Final = 300.0
POLL_S: Final = 0.1
FAILED: Final = 1
"""exit code of the hook when the new process does not serve: the kubelet then restarts the container"""


def migrate(arguments: Sequence[str], prog: str) -> int:
    """The hook; its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} migrate",
        allow_abbrev=False,
        description="The postStart hook: wait until the process of this container has taken over from the other container's.",
    )
    parser.add_argument("--admin", metavar="HOST:PORT", default="", help=f"admin interface of the proxy [{DEFAULT_ADMIN}]")
    parser.add_argument("--admin-address-path", metavar="FILE", default="", help="file with that address")
    parser.add_argument("--timeout", metavar="S", type=float, default=DEFAULT_TIMEOUT_S, help=f"[{DEFAULT_TIMEOUT_S:.0f}]")
    given = parser.parse_args(arguments)
    try:
        role = role_of(os.environ)
    except ValueError as error:
        print(f"{prog} migrate: {VERSION}, {VERSION_ALT}: {error}", file=sys.stderr)
        return FAILED
    if role.idle:
        print(role.value)
        return 0
    deadline = time.monotonic() + given.timeout
    ours = os.environ.get(VERSION, "")
    problem = "it does not answer"
    while True:
        info = _server_info(given.admin, given.admin_address_path)
        if info is not None:
            serving = info.get("sidecarset_version", "")
            if serving != ours:
                problem = f"version {serving or '?'} still serves, not {ours}"
            elif info.get("state") != "LIVE":
                problem = f"it is {info.get('state')}"
            elif info.get("predecessor_connections") is None:
                print(f"version {ours or '?'} serves alone")
                return 0
            elif time.monotonic() >= deadline:
                print(f"version {ours} serves; {info['predecessor_connections']} connections are left in the old container")
                return 0
            else:
                problem = ""
        if time.monotonic() >= deadline:
            print(f"{prog} migrate: not done after {given.timeout:g} s: {problem}", file=sys.stderr)
            return FAILED
        time.sleep(POLL_S)


def _server_info(admin: str, path: str) -> dict[str, Any] | None:
    """What the serving process says of itself; None when it does not answer (yet)."""
    try:
        found = json.loads(ask(address(admin, path), "GET", "/server_info")[1])
    except (AdminError, ValueError):
        return None
    return found if isinstance(found, dict) else None
