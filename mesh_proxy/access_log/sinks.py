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
from typing import Final

from mesh_proxy.access_log.sink import Sink
from mesh_proxy.access_log.stats import AccessLogStats, FilesystemStats
from mesh_proxy.stats.registry import StatRegistry

STREAM_INTERVAL_S: Final = 1.0
"""standard output and error are followed by people: written at least this often"""
CLOSE_TIMEOUT_S: Final = 1.0
"""how long the last lines may take when the worker ends"""

_log = logging.getLogger("file")


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
            self.stats.write_total_buffered = sum(sink.waiting for sink in self._sinks.values())

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
