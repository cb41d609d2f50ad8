"""Circuit-breaker counts that all workers of a sidecar see: a fixed table in shared memory, one row per worker.

A worker writes only its own row, plain 64-bit integers, and compares the sum over all rows with the limit. There is no lock:

* Two workers may each take the last place at the same moment: n workers exceed a limit by at most n - 1, for as long as those
  requests take.
* A cluster's place in a row is its position in the configuration. While a new configuration spreads over the workers, places
  differ between them for some milliseconds. Each place carries a tag made from the cluster's name, and what has another tag is
  not added up: in that time a limit holds per worker only.
* The counts of a worker that died stay until its replacement clears the row when it starts, or somebody calls `clear_row`:
  until then the others see less room than there is, never more.

With one worker there is no table and nothing to pay. Clusters beyond the table's size are counted per worker, which is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from mesh_proxy.upstream.resources import Resources
from mesh_proxy.worker.shared import SharedTables

_log = logging.getLogger("upstream")

TABLE_NAME: Final = "circuit_breakers"
PLACES: Final = 4096
"""clusters in the table; pages that nobody writes take no memory"""
_PLACE_INTS: Final = 16
"""tag, four counts of the default priority, four of the high one, the rest unused: two cache lines"""
_PLACE_BYTES: Final = _PLACE_INTS * 8
_DEFAULT_OFFSET: Final = 1
_HIGH_OFFSET: Final = 5


def table_size(worker_count: int) -> int:
    """Bytes for so many workers; 0 when one worker needs no table."""
    return PLACES * _PLACE_BYTES * worker_count if worker_count > 1 else 0


class Seat:
    """Where the counts of one cluster stand."""

    __slots__ = ("others", "own", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.own: memoryview | None = None
        """our place; None when there is none for this cluster"""
        self.others: tuple[memoryview, ...] = ()
        """the places of the other workers"""

    def vacate(self) -> None:
        """Give the place up."""
        if self.own is not None:
            self.own[0] = 0
            for i in range(1, _PLACE_INTS):
                self.own[i] = 0
        self.own = None
        self.others = ()


class SharedResources(Resources):
    """Resources whose limits hold for all workers together; the plain counts are this worker's share."""

    __slots__ = ("_offset", "_seat")

    def take_seat(self, seat: Seat, *, high: bool) -> None:
        """Publish the counts there from now on."""
        self._seat = seat
        self._offset = _HIGH_OFFSET if high else _DEFAULT_OFFSET

    def publish(self) -> None:
        """Write all counts, after the seat has moved."""
        own = self._seat.own
        if own is not None:
            counts = (self.connections, self.pending_requests, self.requests, self.retries)
            for i, count in enumerate(counts, self._offset):
                own[i] = count

    def _elsewhere(self, index: int) -> int:
        seat = self._seat
        tag = seat.tag
        index += self._offset
        total: int = 0
        for place in seat.others:
            if place[0] == tag:
                total += place[index]
        return total

    def _write(self, index: int, count: int) -> None:
        own = self._seat.own
        if own is not None:
            own[self._offset + index] = count

    def can_create_connection(self) -> bool:
        """See Resources."""
        return self.connections + self._elsewhere(0) < self.max_connections

    def can_create_pending(self) -> bool:
        """See Resources."""
        return self.pending_requests + self._elsewhere(1) < self.max_pending_requests

    def can_create_request(self) -> bool:
        """See Resources."""
        return self.requests + self._elsewhere(2) < self.max_requests

    def can_retry(self) -> bool:
        """See Resources."""
        return self.retries + self._elsewhere(3) < self.retry_limit()

    def retry_limit(self) -> int:
        """See Resources."""
        if self.budget_percent is None:
            return self.max_retries
        _, pending, requests, _ = self.totals()
        return max(int(self.budget_percent / 100.0 * (requests + pending)), self.budget_min)

    def totals(self) -> tuple[int, int, int, int]:
        """See Resources."""
        return (
            self.connections + self._elsewhere(0),
            self.pending_requests + self._elsewhere(1),
            self.requests + self._elsewhere(2),
            self.retries + self._elsewhere(3),
        )

    def add_connection(self) -> None:
        """See Resources."""
        self.connections += 1
        self._write(0, self.connections)

    def remove_connection(self) -> None:
        """See Resources."""
        self.connections -= 1
        self._write(0, self.connections)

    def add_pending(self) -> None:
        """See Resources."""
        self.pending_requests += 1
        self._write(1, self.pending_requests)

    def remove_pending(self) -> None:
        """See Resources."""
        self.pending_requests -= 1
        self._write(1, self.pending_requests)

    def add_request(self) -> None:
        """See Resources."""
        self.requests += 1
        self._write(2, self.requests)

    def remove_request(self) -> None:
        """See Resources."""
        self.requests -= 1
        self._write(2, self.requests)

    def add_retry(self) -> None:
        """See Resources."""
        self.retries += 1
        self._write(3, self.retries)

    def remove_retry(self) -> None:
        """See Resources."""
        self.retries -= 1
        self._write(3, self.retries)


class ResourceTable:
    """The table as one worker sees it."""

    __slots__ = ("_complained", "_index", "_places", "_rows", "_seats")

    def __init__(self, memory: memoryview, worker_index: int, worker_count: int) -> None:
        row = PLACES * _PLACE_BYTES
        self._rows = [memory[i * row : (i + 1) * row].cast("q") for i in range(worker_count)]
        self._index = worker_index
        self._places: dict[str, int] = {}
        self._seats: dict[str, tuple[Seat, SharedResources, SharedResources]] = {}
        self._complained = False
        clear_row(memory, worker_index)  # what the predecessor left

    @classmethod
    def of(cls, shared: SharedTables | None, worker_index: int) -> ResourceTable | None:
        """The table in a worker's shared memory; None when there is but one worker."""
        if shared is None or shared.worker_count < 2:
            return None
        return cls(shared.table(TABLE_NAME), worker_index, shared.worker_count)

    def assign(self, names: Iterable[str]) -> None:
        """Places for these clusters, in this order, which is the same in all workers. Clusters that have one may move."""
        old = self._places
        places = {name: i for i, name in enumerate(names)}
        if len(places) > PLACES and not self._complained:
            self._complained = True
            _log.warning("circuit breakers of all clusters but the first %d are counted for each worker by itself", PLACES)
        self._places = places
        moving = [(name, *seated) for name, seated in self._seats.items() if places.get(name) != old.get(name)]
        for _, seat, _, _ in moving:
            seat.vacate()
        for name, seat, default, high in moving:
            self._sit(name, seat, default, high)

    def enter(self, name: str, default: SharedResources, high: SharedResources) -> None:
        """A cluster begins to count."""
        seat = Seat(int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big") + 1)
        default.take_seat(seat, high=False)
        high.take_seat(seat, high=True)
        self._seats[name] = (seat, default, high)
        self._sit(name, seat, default, high)

    def _sit(self, name: str, seat: Seat, default: SharedResources, high: SharedResources) -> None:
        place = self._places.get(name, PLACES)
        if place >= PLACES:
            return
        views = [row[place * _PLACE_INTS : (place + 1) * _PLACE_INTS] for row in self._rows]
        seat.own = views.pop(self._index)
        seat.others = tuple(views)
        default.publish()
        high.publish()
        seat.own[0] = seat.tag  # last, so that nobody adds up what is not there yet

    def leave(self, name: str, default: Resources) -> None:
        """The cluster is gone, unless another one with its name has come since."""
        seated = self._seats.get(name)
        if seated is not None and seated[1] is default:
            del self._seats[name]
            seated[0].vacate()


def clear_row(memory: memoryview, worker_index: int) -> None:
    """Forget what a dead worker had counted."""
    row = PLACES * _PLACE_BYTES
    start = worker_index * row
    tags = memory[start : start + row].cast("q")[::_PLACE_INTS]
    for place, tag in enumerate(tags.tolist()):
        if tag:
            offset = start + place * _PLACE_BYTES
            memory[offset : offset + _PLACE_BYTES] = bytes(_PLACE_BYTES)
