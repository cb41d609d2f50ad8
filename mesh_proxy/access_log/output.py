"""Where lines end up: a file, a pipe or a terminal, written without ever tearing a line that could stay whole.

Several workers append to the same file. A regular file is opened with O_APPEND and takes all lines in one `write`, which the
kernel does not mix with another. A pipe only keeps writes of up to PIPE_BUF bytes whole, so it gets portions of that size, and
it must not block, because then nothing else would be written either.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Final

PORTION_BYTES: Final = select.PIPE_BUF
"""most bytes that go to a pipe, terminal or socket at once"""
FILE_MODE: Final = 0o644
"""permissions of a file that did not exist, as Envoy makes it"""

_STREAMS: Final = {"/dev/stdout": 1, "/dev/stderr": 2}
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Output:
    """An open destination. Used by the writer thread only."""

    __slots__ = ("_regular", "_rest", "_torn", "fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd, self._regular = _open(path)
        self._rest: list[bytes] = []
        """portions that the destination would not take yet"""
        self._torn = False
        """the last line is incomplete: the next one starts with a newline"""

    @property
    def blocked(self) -> bool:
        """Something waits until the destination is writable."""
        return bool(self._rest)

    def write(self, lines: list[bytes]) -> None:
        """Write lines, or keep what a slow reader does not take.

        Raises:
            OSError: the destination is broken or full; `give_up` says what is lost.
        """
        if self._regular:
            self._rest = lines
            self._write_whole(b"".join(lines))
            self._rest = []
        else:
            self._rest += _portions(lines)
            self.resume()

    def _write_whole(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        written = os.write(self.fd, data)
        while written < len(data):  # the disk is nearly full
            self._torn = not data[:written].endswith(b"\n")
            data = data[written:]
            written = os.write(self.fd, data)
        self._torn = False

    def resume(self) -> None:
        """Write what was kept, as far as it goes.

        Raises:
            OSError: the destination is broken; `give_up` says what is lost.
        """
        rest = self._rest
        done = 0
        try:
            # A descriptor that others share cannot be made non-blocking: ask before each write.
            while done < len(rest) and (not os.get_blocking(self.fd) or _writable(self.fd)):
                written = os.write(self.fd, rest[done])
                if written < len(rest[done]):
                    rest[done] = rest[done][written:]
                    break
                done += 1
        except BlockingIOError:
            pass
        finally:
            del rest[:done]

    def give_up(self) -> int:
        """Forget what could not be written, and say how many lines that was."""
        lost = sum(portion.count(b"\n") for portion in self._rest)
        self._rest = []
        return lost

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)

    def __repr__(self) -> str:
        return f"<Output {self.path} {'blocked' if self._rest else 'open'}>"


def _open(path: str) -> tuple[int, bool]:
    """(descriptor, whether it is a regular file)."""
    standard = _STREAMS.get(path)
    if standard is None:
        fd = os.open(path, _FLAGS | os.O_NONBLOCK, FILE_MODE)
        return fd, stat.S_ISREG(os.fstat(fd).st_mode)
    if stat.S_ISREG(os.fstat(standard).st_mode):
        # The same open file as the process's own output: both move one position, neither overwrites the other.
        return os.dup(standard), True
    try:
        # A new open file for the same pipe: non-blocking for us alone.
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK), False
    except OSError:  # a socket, or another user's terminal
        return os.dup(standard), False


def _writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _portions(lines: list[bytes]) -> list[bytes]:
    """Whole lines, as many as fit a portion; a longer line is a portion of its own."""
    portions: list[bytes] = []
    current: list[bytes] = []
    size = 0
    for line in lines:
        if current and size + len(line) > PORTION_BYTES:
            portions.append(b"".join(current))
            current, size = [], 0
        current.append(line)
        size += len(line)
    if current:
        portions.append(b"".join(current))
    return portions
