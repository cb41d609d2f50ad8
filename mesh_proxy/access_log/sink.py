"""One log file of a worker: lines that wait, and what the writer does with them (`sinks.py` is how the two get on)."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from mesh_proxy.access_log.output import Output

if TYPE_CHECKING:
    from mesh_proxy.access_log.sinks import SinkSet

FLUSH_BYTES: Final = 64 * 1024
"""a sink that holds this much is written at once (Envoy's MIN_FLUSH_SIZE)"""
BUFFER_BYTES: Final = 1024 * 1024
"""most that waits in one sink: some seconds of lines at full load"""

_log = logging.getLogger("file")


class Sink:
    """One destination. `write` belongs to the event loop, all else to the writer thread."""

    __slots__ = (
        "_access_stats",
        "_armed",
        "_kept",
        "_lines",
        "_output",
        "_queued",
        "_set",
        "_stats",
        "_taken",
        "due",
        "interval_s",
        "path",
        "reopen_wanted",
        "urgent",
    )

    def __init__(self, path: str, interval_s: float, owner: SinkSet) -> None:
        self.path = path
        self.interval_s = interval_s
        self._set = owner
        self._stats = owner.stats
        self._access_stats = owner.access_stats
        self._lines: deque[bytes] = deque()
        self._queued = 0
        """bytes ever accepted, counted by the event loop"""
        self._taken = 0
        """bytes ever disposed of, counted by the writer"""
        self._kept = 0
        """bytes that the output has, but could not write yet"""
        self._armed = False
        self.urgent = False
        """write without waiting for `due`"""
        self.due = 0.0
        """when the lines are to be written, monotonic; meaningful while armed"""
        self.reopen_wanted = False
        self._output: Output | None = None

    def write(self, line: bytes) -> None:
        """Take a line, newline included; drop it when the buffer is full."""
        size = len(line)
        waiting = self._queued - self._taken + size
        if waiting > BUFFER_BYTES:
            self._access_stats.dropped_buffer_full += 1
            return
        self._lines.append(line)
        self._queued += size
        self._stats.write_buffered += 1
        if not self._armed:
            self.due = time.monotonic() + self.interval_s
            self._armed = True
            self._set.wake()
        if waiting >= FLUSH_BYTES and not self.urgent:
            self.urgent = True
            self._set.wake()

    # Of the writer

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._queued - self._taken

    @property
    def empty(self) -> bool:
        """Nothing waits."""
        return not self._lines and not self.blocked

    @property
    def blocked(self) -> bool:
        """The output takes no more for now."""
        return self._output is not None and self._output.blocked

    @property
    def blocked_fd(self) -> int | None:
        """What to wait for until the output takes more."""
        return self._output.fd if self._output is not None and self._output.blocked else None

    def wait_s(self, now: float) -> float | None:
        """Seconds until this sink is to be written; None when nothing waits."""
        if self.urgent or self.reopen_wanted:
            return 0.0
        return max(0.0, self.due - now) if self._armed else None

    def service(self, now: float) -> None:
        """Do what is due."""
        if self.reopen_wanted:
            self._reopen()
        if self.blocked:
            self._attempt([])
            if self.blocked:
                return
        if self.urgent or (self._armed and now >= self.due):
            if not self.urgent:
                self._stats.flushed_by_timer += 1
            self.flush()

    def flush(self) -> None:
        """Write all lines that are there."""
        self._armed = False
        self.urgent = False
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        self._kept += sum(map(len, lines))
        self._attempt(lines)

    def _attempt(self, lines: list[bytes]) -> None:
        """Hand lines to the output; without lines, let it go on with what it kept."""
        try:
            if self._output is None:
                self._output = Output(self.path)
            if lines:
                self._output.write(lines)
            else:
                self._output.resume()
        except OSError as error:
            self._failed(error, lines)
        else:
            if self._output.blocked:
                return
            self._stats.write_completed += 1
        self._taken += self._kept
        self._kept = 0

    def _failed(self, error: OSError, lines: list[bytes]) -> None:
        first = self._stats.write_failed == 0
        self._stats.write_failed += 1
        self._access_stats.dropped_write_failed += self._output.give_up() if self._output is not None else len(lines)
        if first:
            _log.warning("access log %s cannot be written, lines are lost: %s", self.path, error.strerror)

    def _reopen(self) -> None:
        self.reopen_wanted = False
        if self._output is None or self._output.path in ("/dev/stdout", "/dev/stderr"):
            return
        self.flush()
        old = self._output
        try:
            self._output = Output(self.path)
        except OSError as error:
            self._stats.reopen_failed += 1
            _log.warning("access log %s cannot be reopened, the old file stays: %s", self.path, error.strerror)
            return
        if old is not None:
            old.close()

    def forget(self) -> None:
        """In a forked child: the lines and the descriptor are the parent's."""
        self._lines.clear()
        self._taken = self._queued
        self._kept = 0
        self._armed = self.urgent = self.reopen_wanted = False
        if self._output is not None:
            self._output.close()
            self._output = None

    def close(self) -> None:
        """Close the output; what is still there is lost and counted."""
        if self._lines or self.blocked:
            self._access_stats.dropped_write_failed += len(self._lines)
            if self._output is not None:
                self._access_stats.dropped_write_failed += self._output.give_up()
            self._lines.clear()
        if self._output is not None:
            self._output.close()
            self._output = None

    def __repr__(self) -> str:
        return f"<Sink {self.path} waiting={self.waiting}>"
