"""Directories under watch, by inotify(7): something in one of them was written, moved, made or removed.

Kubernetes and atomic writers move a file or a link into place, simple scripts write over a file; both are noticed. Whoever is
told decides himself what is new and whether it is whole.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable, Iterable
from typing import Final

_log = logging.getLogger("file")

IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE_SELF: Final = 0x400
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x1000000
"""linux/inotify.h"""
_MASK: Final = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_ONLYDIR
_EVENT: Final = struct.Struct("iIII")
SETTLE_S: Final = 0.02
"""a rotation touches several files: what follows within this time counts as one"""
LOOK_AGAIN_S: Final = 5.0
"""how often is looked without being told: for directories that were replaced, and file systems that tell nothing"""


class DirectoryWatch:
    """Calls `changed` soon after something happened, and now and then without a cause."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watched: dict[str, int] = {}
        self._directories: frozenset[str] = frozenset()
        self._settle: asyncio.TimerHandle | None = None
        self._again = loop.call_later(LOOK_AGAIN_S, self._look_again)
        if self._fd < 0:
            _log.error(
                "inotify is not available (%s): changes are noticed every %g s", os.strerror(ctypes.get_errno()), LOOK_AGAIN_S
            )
        else:
            loop.add_reader(self._fd, self._readable)

    def watch(self, directories: Iterable[str]) -> None:
        """Exactly these from now on."""
        self._directories = frozenset(directories)
        for path in self._watched.keys() - self._directories:
            self._libc.inotify_rm_watch(self._fd, self._watched.pop(path))
        self._add_missing()

    def _add_missing(self) -> None:
        for path in self._directories - self._watched.keys():
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(path), _MASK) if self._fd >= 0 else -1
            if number >= 0:
                self._watched[path] = number

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & IN_IGNORED:
                self._watched = {path: watch for path, watch in self._watched.items() if watch != number}
        if self._settle is None:
            self._settle = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settle = None
        self._add_missing()
        self._changed()

    def _look_again(self) -> None:
        self._again = self._loop.call_later(LOOK_AGAIN_S, self._look_again)
        self._add_missing()
        self._changed()

    def close(self) -> None:
        """Watch nothing any more."""
        self._again.cancel()
        if self._settle is not None:
            self._settle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
