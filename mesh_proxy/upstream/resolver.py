"""Looking up names: the system's `getaddrinfo` on a few threads of our own.

The threads are daemons and made when they are first needed, so that a name server that hangs neither holds up the end of the
process nor any other thread pool. No more look-ups run at once than there are threads; the others wait in line. A look-up that
takes longer than its deadline is reported as failed, and what it brings later is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

_log = logging.getLogger("dns")

LOOKUP_THREADS = 4
LOOKUP_DEADLINE_S = 20.0
"""c-ares as Envoy sets it up gives up after 4 tries of 5 s"""

Done = Callable[[list[str] | None], None]
"""takes the addresses; none are an answer too (there is no such name, or no address of that family), None is a failure"""

_EMPTY_ANSWERS = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME), socket.EAI_ADDRFAMILY}


class Query:
    """One look-up that was asked for."""

    __slots__ = ("deadline", "done", "family", "finished", "name")

    def __init__(self, name: str, family: str, done: Done) -> None:
        self.name = name
        self.family = family
        self.done = done
        self.finished = False
        self.deadline: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        self.finished = True
        if self.deadline is not None:
            self.deadline.cancel()

    def finish(self, addresses: list[str] | None) -> None:
        """Report once."""
        if not self.finished:
            self.cancel()
            self.done(addresses)


class Resolver(Protocol):
    """What a DNS cluster needs."""

    def resolve(self, name: str, family: str, done: Done) -> Query:
        """Look a name up; `done` is called on the loop, never from within this call."""

    def close(self) -> None:
        """No further answers."""


def lookup(name: str, family: str) -> list[str]:
    """Addresses of a name by `dns_lookup_family`, in the order of the answer, each once. Blocks. Raises OSError."""
    if family in ("V4_ONLY", "V6_ONLY"):
        return _addresses(name, socket.AF_INET if family == "V4_ONLY" else socket.AF_INET6)
    if family == "ALL":
        return _both(name)
    first, second = (socket.AF_INET, socket.AF_INET6) if family == "V4_PREFERRED" else (socket.AF_INET6, socket.AF_INET)
    try:
        found = _addresses(name, first)
    except OSError:  # some name servers fail for a family instead of answering that there is nothing
        found = []
    return found or _addresses(name, second)


def _both(name: str) -> list[str]:
    try:
        found = _addresses(name, socket.AF_INET6)
    except OSError:
        return _addresses(name, socket.AF_INET)
    try:
        return found + _addresses(name, socket.AF_INET)
    except OSError:
        if found:
            return found
        raise


def _addresses(name: str, family: socket.AddressFamily) -> list[str]:
    try:
        answers = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _EMPTY_ANSWERS:
            return []
        raise
    except UnicodeError as error:  # a label that is too long for IDNA
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class ThreadResolver:
    """The resolver of a worker."""

    __slots__ = ("_closed", "_deadline_s", "_idle", "_jobs", "_lookup", "_loop", "_most_threads", "_threads", "_waiting")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: int = LOOKUP_THREADS,
        deadline_s: float = LOOKUP_DEADLINE_S,
        look_up: Callable[[str, str], list[str]] = lookup,
    ) -> None:
        self._loop = loop
        self._lookup = look_up
        self._deadline_s = deadline_s
        self._most_threads = threads
        self._threads = 0
        self._idle = 0
        """threads that wait for a job"""
        self._jobs: SimpleQueue[Query | None] = SimpleQueue()
        self._waiting: deque[Query] = deque()
        """look-ups for which there is no thread yet; their deadline does not run"""
        self._closed = False

    def resolve(self, name: str, family: str, done: Done) -> Query:
        """See `Resolver.resolve`."""
        query = Query(name, family, done)
        self._waiting.append(query)
        self._feed()
        return query

    def _feed(self) -> None:
        waiting = self._waiting
        while waiting and not self._closed:
            if waiting[0].finished:
                waiting.popleft()
                continue
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most_threads:
                self._threads += 1
                threading.Thread(target=self._work, name=f"dns-{self._threads}", daemon=True).start()
            else:
                return
            query = waiting.popleft()
            query.deadline = self._loop.call_later(self._deadline_s, query.finish, None)
            self._jobs.put(query)

    def _work(self) -> None:
        while (query := self._jobs.get()) is not None:
            addresses: list[str] | None
            try:
                addresses = self._lookup(query.name, query.family)
            except OSError as error:
                _log.debug("look-up of %s: %s", query.name, error)
                addresses = None
            except Exception:
                _log.exception("look-up of %s", query.name)
                addresses = None
            try:
                self._loop.call_soon_threadsafe(self._answered, query, addresses)
            except RuntimeError:  # the loop is closed
                return

    def _answered(self, query: Query, addresses: list[str] | None) -> None:
        self._idle += 1
        query.finish(addresses)
        self._feed()

    def close(self) -> None:
        """Send the threads home. Those in a look-up end after it."""
        self._closed = True
        self._waiting.clear()
        for _ in range(self._threads):
            self._jobs.put(None)
