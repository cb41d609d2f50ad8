"""OpenKruise's SidecarSet with `upgradeType: HotUpgrade`: two containers of one pod, of which one works and the other is empty.

Each container is told two numbers when it starts (downward API): its own version and the other's. They say what it is to be
(OpenKruise, proposal 20210305). The containers share the network namespace, and with it our meeting point when that is abstract.
"""

from __future__ import annotations

import enum
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

VERSION: Final = "SIDECARSET_VERSION"
VERSION_ALT: Final = "SIDECARSET_VERSION_ALT"


class Role(enum.Enum):
    """What this container is to be."""

    UNTOLD = "not in a SidecarSet with hot upgrades"
    ALONE = "the only one"
    NEWER = "takes over from the other container"
    OLDER = "was replaced, and has been restarted: nothing to do"
    EMPTY = "the empty one: nothing to do"

    @property
    def idle(self) -> bool:
        """Listens on nothing, and waits to be stopped."""
        return self in (Role.OLDER, Role.EMPTY)


def role_of(environment: Mapping[str, str]) -> Role:
    """The table of the contract. Raises ValueError for what is no number."""
    if VERSION not in environment:
        return Role.UNTOLD
    version, other = int(environment[VERSION] or 0), int(environment.get(VERSION_ALT) or 0)
    if version <= 0:
        return Role.EMPTY
    if other <= 0:
        return Role.ALONE
    return Role.NEWER if version > other else Role.OLDER


def idle(role: Role) -> int:
    """Wait for SIGTERM or SIGINT; the exit code."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print(f"mesh-proxy: {VERSION} {os.environ.get(VERSION)}: {role.value}", file=sys.stderr, flush=True)
    signal.sigwait(signals)
    return 0
