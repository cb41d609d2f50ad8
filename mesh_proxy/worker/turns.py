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

    def replace(self, numbers: memoryview[float], place: int, old: float, new: float, byte: int) -> bool:
        """Write `new` unless the number is no longer `old`; whether it was written. `byte` of the file stands for the number.

        Not written either while another worker has its turn. Where the kernel refuses locks at all there are no turns: better two
        changes that count as one now and then than none."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows both
            return False
        except OSError:
            return replace_alone(numbers, place, old, new)
        try:
            return replace_alone(numbers, place, old, new)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)

    def __del__(self) -> None:
        _files.discard(self._file)
        os.close(self._file)


def replace_alone(numbers: memoryview[float], place: int, old: float, new: float) -> bool:
    """The same without turns, for a number that nobody shares."""
    fresh = numbers[place] == old
    if fresh:
        numbers[place] = new
    return fresh
