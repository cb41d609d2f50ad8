"""The log files of a worker and the thread that writes them.

The event loop only appends a line to a deque and adds up its size. One thread, started with the first line, writes a sink when
64 KiB have gathered or its interval is over. A sink holds at most 1 MiB; what comes on top is dropped and counted, so that a full
disk or a reader that stands still costs log lines and nothing else.

Between the two threads nothing is locked: appending to a deque and taking from it are atomic, and every number is changed by one
side only. A sink is *armed* while the writer knows that there is something to write; the writer disarms it before it takes the
lines, so that a line that comes meanwhile arms it again.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from typing import Final

from mesh_proxy.access_log.output import Output
from mesh_proxy.access_log.stats import AccessLogStats, FilesystemStats
from mesh_proxy.stats.registry import StatRegistry

FLUSH_BYTES: Final = 64 * 1024
"""a sink that holds this much is written at once (Envoy's MIN_FLUSH_SIZE)"""
BUFFER_BYTES: Final = 1024 * 1024
"""most that waits in one sink: some seconds of lines at full load"""
STREAM_INTERVAL_S: Final = 1.0
"""standard output and error are followed by people: written at least this often"""
CLOSE_TIMEOUT_S: Final = 1.0
"""how long the last lines may take when the worker ends"""

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
        return f"<Sink {self.path} waiting={self._queued - self._taken}>"


class SinkSet:
    """All sinks of a worker, one per path, with their writer thread.

    Args:
        registry: where `filesystem.*` and `access_log.*` are counted.
        flush_interval_s: how long a line may wait (`--file-flush-interval-msec`); standard streams wait at most a second.
    """

    def __init__(self, registry: StatRegistry, *, flush_interval_s: float = 10.0) -> None:
        self.stats = registry.get(FilesystemStats, "filesystem.")
        self.access_stats = registry.get(AccessLogStats, "access_log.")
        self._interval_s = flush_interval_s
        self._sinks: dict[str, Sink] = {}
        self._thread: threading.Thread | None = None
        self._wake_fd = -1
        self._flushed: list[threading.Event] = []
        """of callers that wait until all is written"""
        self._stopping = False
        _all.add(self)

    def get(self, path: str) -> Sink:
        """The sink of a path. The file is opened with the first lines."""
        sink = self._sinks.get(path)
        if sink is None:
            interval_s = self._interval_s
            if path in ("/dev/stdout", "/dev/stderr"):
                interval_s = min(interval_s, STREAM_INTERVAL_S)
            # A new dict, because the writer may be iterating over the old one.
            sink = Sink(path, interval_s, self)
            self._sinks = {**self._sinks, path: sink}
        return sink

    def wake(self) -> None:
        """Make the writer look at the sinks; starts it if need be."""
        if self._thread is None:
            if self._stopping:
                return
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        os.eventfd_write(self._wake_fd, 1)

    def reopen(self) -> None:
        """Open all files anew (after a rotation); a file that cannot be opened stays as it is."""
        for sink in self._sinks.values():
            sink.reopen_wanted = True
        if self._thread is not None:
            self.wake()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all lines are written, at most so long; whether they are."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._flushed.append(done)
        for sink in self._sinks.values():
            sink.urgent = True
        self.wake()
        return done.wait(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is there, as far as the time allows, and end the writer."""
        if self._thread is None:
            self._stopping = True
            return
        written = self.flush(timeout_s)
        self._stopping = True
        self.wake()
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # stuck in a write; the process ends without it
            return
        self._thread = None
        os.close(self._wake_fd)
        self._wake_fd = -1
        if not written:
            _log.warning("access logs: not all lines could be written in time")
        for sink in self._sinks.values():
            sink.close()

    # The writer thread

    def _run(self) -> None:
        while not self._stopping:
            self._wait()
            now = time.monotonic()
            for sink in self._sinks.values():
                sink.service(now)
            if self._flushed and all(sink.empty for sink in self._sinks.values()):
                waiting, self._flushed = self._flushed, []
                for done in waiting:
                    done.set()
            self.stats.write_total_buffered = sum(sink._queued - sink._taken for sink in self._sinks.values())

    def _wait(self) -> None:
        """Sleep until something is due, an output is writable again or the event loop calls."""
        now = time.monotonic()
        waits: list[float] = []
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        for sink in self._sinks.values():
            fd = sink.blocked_fd
            if fd is not None:
                poll.register(fd, select.POLLOUT)
            elif (wait := sink.wait_s(now)) is not None:
                waits.append(wait)
        timeout_ms = None if not waits else int(min(waits) * 1000) + (min(waits) > 0)
        if any(fd == self._wake_fd for fd, _ in poll.poll(timeout_ms)):
            os.eventfd_read(self._wake_fd)

    def _forget_after_fork(self) -> None:
        """In a forked child there is no writer, and what waits is the parent's."""
        self._thread = None
        self._flushed = []
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1
        for sink in self._sinks.values():
            sink.forget()

    def __repr__(self) -> str:
        return f"<SinkSet {', '.join(self._sinks)}>"


_all: weakref.WeakSet[SinkSet] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for sinks in _all:
        sinks._forget_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
