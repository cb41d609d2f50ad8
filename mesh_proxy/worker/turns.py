"""Whose turn it is to change a number that all workers share, where two changes at once would be one too few.

Record locks on a file in memory, one byte for each number: the kernel takes them back when a worker dies, and nobody waits for
one. They are asked for only when a number is to be changed, about 1.5 us; looking needs none.
"""

from __future__ import annotations

import fcntl
import os

_files: set[int] = set()


def files() -> frozenset[int]:
    """The descriptors that every worker has from birth and must not close."""
    return frozenset(_files)


class Turns:
    """Made before the first worker is forked, so that all have the file."""

    __slots__ = ("_file",)

    def __init__(self) -> None:
        self._file = os.memfd_create("mesh-proxy-turns")
        _files.add(self._file)

    def take(self, place: int) -> bool:
        """Begin a turn; False when another worker has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:  # EAGAIN or EACCES; ENOLCK is no reason to wait either
            return False
        return True

    def end(self, place: int) -> None:
        """End it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def __del__(self) -> None:
        _files.discard(self._file)
        os.close(self._file)
