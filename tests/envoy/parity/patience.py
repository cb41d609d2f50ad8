"""Waiting for what a busy machine delays: bytes that the other end has yet to read, an end that the other side has seen."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

LATE = 30.0
"""Seconds after which an endpoint answers that is to be too late. The limits that it misses are about a second: long enough that
what has to happen before them does happen, and far from this."""
TAKEN_S = 1.0
"""A proxy that does not read for so long does not want to, or only peeks."""
FOLLOW_S = 10.0
"""Longest wait for what the other side has seen happen already."""


def taken(sock: socket.socket) -> None:
    """Wait until the other end has read what was sent. Whether it has thought about it nothing tells: a little later it has."""
    deadline = time.monotonic() + TAKEN_S
    while (_unsent(sock) or _unread(sock)) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)


def _unsent(sock: socket.socket) -> int:
    """Bytes that the other end's kernel has not acknowledged (TCP), or its process not read (unix)."""
    waiting = array.array("i", [0])
    fcntl.ioctl(sock, termios.TIOCOUTQ, waiting)
    return waiting[0]


def _unread(sock: socket.socket) -> bool:
    """Whether something waits in the receive queue of the other end, which is on this machine (proc(5), /proc/net/tcp)."""
    if sock.family == socket.AF_UNIX:
        return False
    try:
        ends = f":{sock.getpeername()[1]:04X} ", f":{sock.getsockname()[1]:04X} "
    except OSError:
        return False  # closed
    for line in Path("/proc/self/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/self/net/tcp").read_text().splitlines():
        if ends[0] in line and ends[1] in line:
            words = line.split()
            if words[1].endswith(ends[0].strip()) and words[2].endswith(ends[1].strip()):
                return words[4].partition(":")[2] != "00000000"
    return False


class Meeting:
    """How the connections of one case stand, told by each side to the other.

    A connection that one proxy has ended while the other one's is still open is a difference only if it stays so.
    """

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}
        self._left: set[str] = set()
        self._changed = threading.Condition()

    def left(self, label: str) -> bool:
        """Whether that side is through with the case."""
        return label in self._left

    def leave(self, label: str) -> None:
        with self._changed:
            self._left.add(label)
            self._changed.notify_all()

    def stand(self, label: str, look: Callable[[float], str], quiet: float) -> str:
        """What `look(seconds)` says of a connection that has `quiet` seconds to end; it says `open` if nothing happened."""
        state = look(quiet)
        with self._changed:
            mine = self._told.setdefault(label, [])
            index = len(mine)
            mine.append(state)
            self._changed.notify_all()
            if state != "open":
                return state
            self._changed.wait_for(lambda: self._other(label, index) is not None or self._left - {label}, FOLLOW_S)
            other = self._other(label, index)
        return look(FOLLOW_S) if other not in (None, "open") else state

    def _other(self, label: str, index: int) -> str | None:
        for name, states in self._told.items():
            if name != label and len(states) > index:
                return states[index]
        return None
