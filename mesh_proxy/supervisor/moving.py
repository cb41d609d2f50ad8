"""Connections on their way between two process trees, as the supervisors relay them: old worker, old supervisor, new supervisor,
new worker, and the answer back.

A number is unique among all workers of the old tree: the token of the worker in the upper half, its own count in the lower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import Message
from mesh_hotrestart import messages as hr
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.supervisor.pool import WorkerPool
    from mesh_proxy.supervisor.worker_handle import WorkerHandle

_WORKER_BITS: Final = 32


def number_of(handle: WorkerHandle, number: int) -> int:
    """Unique among all workers."""
    return handle.token << _WORKER_BITS | number


class Departures:
    """In the old supervisor: from its workers to the link, and the answers back."""

    def __init__(self, pool: WorkerPool, send: Callable[[Message, list[int]], None]) -> None:
        self._pool = pool
        self._send = send
        self._open: set[int] = set()
        """numbers that have not been answered"""

    def leave(self, handle: WorkerHandle, offer: m.Offer, descriptors: list[int]) -> None:
        """A worker offers a connection."""
        moved = offer.moved
        self._open.add(number_of(handle, offer.number))
        self._send(
            hr.Connection(
                number=number_of(handle, offer.number),
                protocol=moved.protocol,
                listener=offer.listener,
                facts=moved.facts,
                data=moved.state,
            ),
            descriptors,
        )

    def late(self, handle: WorkerHandle, late: m.Late) -> None:
        """A worker owes something to the caller of a connection that has left."""
        self._send(hr.Late(number=number_of(handle, late.number), data=late.data), [])

    def answer(self, message: hr.Adopted | hr.NotAdopted) -> None:
        """The new process says whether it takes a connection."""
        self._open.discard(message.number)
        handle = self._pool.by_token(message.number >> _WORKER_BITS)
        if handle is not None:
            adopted = isinstance(message, hr.Adopted)
            why = message.why if isinstance(message, hr.NotAdopted) else ""
            handle.channel.send(m.Settled(message.number & (1 << _WORKER_BITS) - 1, adopted, why))

    def give_up(self) -> None:
        """The new process is gone, and we do not come back: connections end where they are."""
        for number in tuple(self._open):
            self.answer(hr.NotAdopted(number=number, why="the new process is gone"))


class Arrivals:
    """In the new supervisor: from the link to its workers in turn, and the answers back."""

    def __init__(self, pool: WorkerPool, send: Callable[[Message, list[int]], None]) -> None:
        self._pool = pool
        self._send = send
        self._places: dict[int, int] = {}
        """number -> token of the worker that was asked; kept for what is still owed to its caller"""
        self._open: set[int] = set()
        """numbers that no worker has answered yet"""
        self._turn = 0

    def arrive(self, message: hr.Connection, descriptors: list[int]) -> None:
        """A connection of the old process. While we give way ourselves a worker passes it on, as long as it has others."""
        workers = [handle for handle in self._pool.workers if handle.applied_version and not handle.handed_over]
        if not workers or len(descriptors) != 1:
            self._send(hr.NotAdopted(number=message.number, why="no worker can take it now"), [])
            return
        self._turn += 1
        handle = workers[self._turn % len(workers)]
        self._open.add(message.number)
        self._places[message.number] = handle.token
        moved = MovingState(message.protocol, message.data, message.facts)
        handle.channel.send(m.Adopt(message.number, message.listener, moved), descriptors)

    def late(self, message: hr.Late) -> None:
        """Something that the old process owed to the caller of a connection."""
        handle = self._pool.by_token(self._places.get(message.number, 0))
        if handle is not None:
            handle.channel.send(m.Late(message.number, message.data))

    def answered(self, answer: m.Adopted) -> None:
        """A worker has said whether it takes a connection."""
        self._open.discard(answer.number)
        if answer.adopted:
            self._send(hr.Adopted(number=answer.number), [])
        else:
            self._send(hr.NotAdopted(number=answer.number, why=answer.why), [])

    def worker_lost(self, token: int) -> None:
        """A worker died: what it had not answered is still the old process's."""
        for number in [number for number in self._open if self._places[number] == token]:
            self.answered(m.Adopted(number, False, "the worker died"))
