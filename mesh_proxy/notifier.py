"""What happens in directories, by the one inotify(7) instance of a supervisor.

Kubernetes and atomic writers move a file or a link into place, simple scripts write over a file. Who watches says which of these
he wants to hear of, and decides himself what is new and whether it is whole.

Two things that inotify does not do: a directory that was deleted, or moved away, is looked for again by its path, and counts as
changed when it is there; and when the kernel's queue has overflowed everything counts as changed.

The four calls go to libc directly: `inotify_simple` looks for libc by running programs (`ctypes.util.find_library`), which blocks
the supervisor and needs what a small image does not have.
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
IN_MOVE_SELF: Final = 0x800
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x1000000
"""linux/inotify.h"""
MOVED: Final = IN_MOVED_TO
"""something was moved into the directory"""
CHANGED: Final = IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE
"""the same, or something in it was written or made"""
_ALWAYS: Final = IN_MOVE_SELF | IN_ONLYDIR
_EVENT: Final = struct.Struct("iIII")
RETRY_S: Final = 1.0
"""how often we look for a directory that is not there"""

Happened = Callable[[str, str], None]
"""directory, and the name of what is in it; no name: anything in it may be new"""


class Interest:
    """What one watcher wants to know."""

    __slots__ = ("_notifier", "directories", "happened", "mask")

    def __init__(self, notifier: Notifier, mask: int, happened: Happened) -> None:
        self._notifier = notifier
        self.mask = mask
        self.happened = happened
        self.directories: frozenset[str] = frozenset()

    def watch(self, directories: Iterable[str]) -> None:
        """Exactly these from now on."""
        wanted = frozenset(directories)
        if wanted != self.directories:
            self.directories = wanted
            self._notifier.renew()

    def close(self) -> None:
        """Nothing any more."""
        self.directories = frozenset()
        self._notifier.forget(self)


class Notifier:
    """Costs nothing until somebody watches something."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._interests: list[Interest] = []
        self._libc: ctypes.CDLL | None = None
        self._fd = -1
        self._watched: dict[str, tuple[int, int]] = {}
        """directory -> (watch descriptor, mask)"""
        self._missing: set[str] = set()
        self._retry: asyncio.TimerHandle | None = None

    def interest(self, mask: int, happened: Happened) -> Interest:
        """Somebody who wants to hear of these events in directories that he will name."""
        found = Interest(self, mask, happened)
        self._interests.append(found)
        return found

    def forget(self, interest: Interest) -> None:
        """He does not any more."""
        if interest in self._interests:
            self._interests.remove(interest)
            self.renew()

    def renew(self) -> None:
        """The directories that anybody wants have changed."""
        wanted: dict[str, int] = {}
        for one in self._interests:
            for directory in one.directories:
                wanted[directory] = wanted.get(directory, 0) | one.mask
        for directory in self._watched.keys() - wanted.keys():
            self._remove(directory)
        self._missing &= wanted.keys()
        for directory, mask in wanted.items():
            if self._watched.get(directory, (0, 0))[1] != mask:
                self._add(directory, mask)
        self._arm()

    def close(self) -> None:
        """Watch nothing any more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._interests.clear()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    # With the kernel.

    def _start(self) -> ctypes.CDLL:
        if self._libc is None:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if self._fd < 0:
                _log.error("changes of files are not noticed at once: inotify: %s", os.strerror(ctypes.get_errno()))
            else:
                self._loop.add_reader(self._fd, self._readable)
        return self._libc

    def _add(self, directory: str, mask: int) -> bool:
        libc = self._start()
        if self._fd < 0:
            return False
        number = libc.inotify_add_watch(self._fd, os.fsencode(directory), mask | _ALWAYS)
        if number < 0:
            if directory not in self._missing:
                _log.error("cannot watch %s: %s", directory, os.strerror(ctypes.get_errno()))
            self._watched.pop(directory, None)
            self._missing.add(directory)
            return False
        self._missing.discard(directory)
        self._watched[directory] = (number, mask)
        together = 0  # another path may lead to the same directory: then the kernel has one watch for both
        for watch, wanted in self._watched.values():
            together |= wanted if watch == number else 0
        if together != mask:
            libc.inotify_add_watch(self._fd, os.fsencode(directory), together | _ALWAYS)
        return True

    def _remove(self, directory: str) -> None:
        number, _ = self._watched.pop(directory)
        if not self._paths(number):
            assert self._libc is not None
            self._libc.inotify_rm_watch(self._fd, number)  # fails when the directory is gone, and the watch with it

    def _arm(self) -> None:
        if self._missing and self._retry is None and self._fd >= 0:
            self._retry = self._loop.call_later(RETRY_S, self._look_again)

    def _look_again(self) -> None:
        """Directories that were lost: when one is there again, what is in it may be new."""
        self._retry = None
        for directory in tuple(self._missing):
            mask = 0
            for one in self._interests:
                mask |= one.mask if directory in one.directories else 0
            if self._add(directory, mask):
                self._tell(directory, "", mask)
        self._arm()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            name = os.fsdecode(data[position - length : position].rstrip(b"\0"))
            if mask & IN_Q_OVERFLOW:
                for directory in tuple(self._watched):
                    self._tell(directory, "", CHANGED)
            elif mask & (IN_IGNORED | IN_MOVE_SELF):
                self._lost(number, still_watched=not mask & IN_IGNORED)
            else:
                for directory in self._paths(number):
                    self._tell(directory, name, mask)

    def _paths(self, number: int) -> list[str]:
        return [directory for directory, (watch, _) in self._watched.items() if watch == number]

    def _lost(self, number: int, *, still_watched: bool) -> None:
        """A directory was deleted, or is elsewhere now."""
        paths = self._paths(number)
        for directory in paths:
            del self._watched[directory]
            self._missing.add(directory)
        if still_watched and paths:
            assert self._libc is not None
            self._libc.inotify_rm_watch(self._fd, number)
        self._arm()

    def _tell(self, directory: str, name: str, mask: int) -> None:
        for one in tuple(self._interests):
            if directory in one.directories and one.mask & mask:
                one.happened(directory, name)
