"""Telling a service manager how far we are: one datagram to the socket that it named (sd_notify(3), systemd's `Type=notify`).

Only the process that the manager started speaks. Its successors in hot upgrades do not: the first process stays as their
guardian, and is the service's main process all the time.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"

_log = logging.getLogger("main")


def notify(state: str) -> None:
    """Say it if somebody wants to know."""
    name = os.environ.get(VARIABLE, "")
    if not name.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + name[1:] if name.startswith("@") else name)
            sock.send(state.encode())
    except OSError as error:
        _log.warning("cannot tell the service manager %s: %s", state, error.strerror)
