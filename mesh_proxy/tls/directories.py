"""Directories in which something was written, moved or made, told of once for what belongs together.

Whoever is told decides himself what is new and whether it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from mesh_proxy.notifier import CHANGED, Notifier

SETTLE_S: Final = 0.02
"""a rotation touches several files: what follows within this time counts as one"""
LOOK_AGAIN_S: Final = 5.0
"""how often is looked without being told: for links inside of what is watched, and file systems that tell nothing"""


class DirectoryWatch:
    """Calls `changed` soon after something happened, and now and then without a cause."""

    def __init__(self, loop: asyncio.AbstractEventLoop, notifier: Notifier, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._interest = notifier.interest(CHANGED, self._happened)
        self._settle: asyncio.TimerHandle | None = None
        self._again = loop.call_later(LOOK_AGAIN_S, self._look_again)

    def watch(self, directories: Iterable[str]) -> None:
        """Exactly these from now on."""
        self._interest.watch(directories)

    def _happened(self, directory: str, name: str) -> None:
        if self._settle is None:
            self._settle = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settle = None
        self._changed()

    def _look_again(self) -> None:
        self._again = self._loop.call_later(LOOK_AGAIN_S, self._look_again)
        self._changed()

    def close(self) -> None:
        """Watch nothing any more."""
        self._again.cancel()
        if self._settle is not None:
            self._settle.cancel()
        self._interest.close()
