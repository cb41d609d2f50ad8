"""Accepting: the sockets of a listener, watched, paused, shared and given away.

Connections are accepted by our own loop over `accept` and not by the event loop's server, because only so accepting can pause:
at the connection limit, and before file descriptors run out (then new connections wait in the kernel's queue instead of being
accepted and thrown away).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.listener.refuse import refuse_new, wait_for_handshakes

if TYPE_CHECKING:
    from mesh_proxy.config.model import ListenerConfig
    from mesh_proxy.context import WorkerContext

_log = logging.getLogger("conn_handler")

ACCEPTS_PER_WAKEUP: Final = 32
"""A burst of connections must not starve those that are open."""
ACCEPT_PAUSE_S: Final = 0.1
"""After an error of the system (out of descriptors or memory) accepting rests that long."""
WARN_INTERVAL_S: Final = 10.0
"""Who lives at the edge pauses many times a second; it is said that often."""
VANISHED: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)
"""What accept(2) says about a connection that ended in the queue; it is out of the queue then."""
PAUSE_AT: Final = 0.9
RESUME_AT: Final = 0.8
"""Shares of the descriptor budget at which accepting stops and goes on."""


class Accepting:
    """Abstract: `Listener` adds what becomes of the connections."""

    __slots__ = ("_paused", "_resume", "_sockets", "_warned_at", "config", "context")

    def __init__(self, config: ListenerConfig, context: WorkerContext) -> None:
        self.config = config
        self.context = context
        self._sockets: list[tuple[socket.socket, Any, str]] = []
        """(listening socket, its fixed local name or None when it listens on a wildcard, its configured address)"""
        self._paused = False
        self._warned_at = float("-inf")
        self._resume: asyncio.TimerHandle | None = None

    def _accepted(self, accepted: socket.socket, peer: Any, name: Any, listening: socket.socket) -> None:
        """Begin with a connection; `name` is the local end of the listening socket unless that is a wildcard."""
        raise NotImplementedError

    def add_socket(self, listening: socket.socket, address: str) -> None:
        """Accept from a bound and listening socket; `address` is the configured one, by which the supervisor knows it."""
        listening.setblocking(False)
        name = listening.getsockname()
        fixed = not (isinstance(name, tuple) and (name[0] in ("0.0.0.0", "::") or self.config.transparent))
        self._sockets.append((listening, name if fixed else None, address))
        if not self._paused:
            self._watch(listening, name if fixed else None)

    def _watch(self, listening: socket.socket, name: Any) -> None:
        self.context.loop.add_reader(listening.fileno(), self._accept, listening, name)

    def stop_listening(self) -> None:
        """Give the sockets up; connections go on. Who is in the kernel's queue is connected already and may have sent a request:
        he is still accepted, as closing the last copy of the socket would reset him."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        sockets = self._sockets
        self._sockets = []
        for listening, name, _ in sockets:
            self.context.loop.remove_reader(listening.fileno())
            closed = not self.context.sockets_shared and refuse_new(listening)
            while not self._paused and (self._accept(listening, name) or (closed and wait_for_handshakes(listening))):
                pass
            listening.close()

    def give_away(self, passed: frozenset[tuple[str, str]]) -> None:
        """Another process accepts from the sockets of these (listener, address) from now on, and has copies of its own."""
        for listening, _, address in self._sockets:
            if (self.config.name, address) in passed:
                self.context.loop.remove_reader(listening.fileno())
                listening.close()
        self._sockets = [entry for entry in self._sockets if (self.config.name, entry[2]) not in passed]

    def hand_over(self, successor: Accepting) -> None:
        """Another version of this listener accepts from the sockets from now on, so that nobody in their queues is lost. Those of
        addresses that it does not have stay here."""
        config = successor.config
        wanted = {str(address) for address in (config.address, *config.additional_addresses)} if config.bind_to_port else set()
        for listening, _, address in self._sockets:
            if address in wanted:
                self.context.loop.remove_reader(listening.fileno())
                successor.add_socket(listening, address)
        self._sockets = [entry for entry in self._sockets if entry[2] not in wanted]

    def _pause(self, why: str) -> None:
        now = self.context.loop.time()
        if now - self._warned_at > WARN_INTERVAL_S:
            self._warned_at = now
            _log.warning("listener %s: %s, accepting pauses", self.config.name, why)
        if not self._paused:
            self._paused = True
            for listening, _, _ in self._sockets:
                self.context.loop.remove_reader(listening.fileno())
        if self._resume is None:
            self._resume = self.context.loop.call_later(ACCEPT_PAUSE_S, self._try_resume)

    def _try_resume(self) -> None:
        self._resume = None
        context = self.context
        if not context.descriptors(RESUME_AT):
            self._resume = context.loop.call_later(ACCEPT_PAUSE_S, self._try_resume)
            return
        self._paused = False
        for listening, name, _ in self._sockets:
            self._watch(listening, name)

    def _accept(self, listening: socket.socket, name: Any) -> bool:
        """Accept some of those who wait; True when there may be more."""
        context = self.context
        for _ in range(ACCEPTS_PER_WAKEUP):
            if not context.descriptors(PAUSE_AT):
                self._pause("descriptors are running out")
                return False
            try:
                accepted, peer = listening.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in VANISHED:
                    continue
                self._pause(str(error))
                return False
            self._accepted(accepted, peer, name, listening)
        return True
