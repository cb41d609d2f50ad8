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


class SharedResources(Resources):
    """Resources whose limits hold for all workers together; the plain counts are this worker's share."""

    __slots__ = ("_connection_index", "_others", "_own", "_pending_index", "_request_index", "_retry_index", "_tag")

    def enter(self, tag: int, *, high: bool) -> None:
        """Say which part of a cluster's place is ours. We have no place yet."""
        offset = _HIGH_OFFSET if high else _DEFAULT_OFFSET
        self._connection_index = offset
        self._pending_index = offset + 1
        self._request_index = offset + 2
        self._retry_index = offset + 3
        self._tag = tag
        self.vacate()

    def sit(self, own: memoryview, others: tuple[memoryview, ...]) -> None:
        """Count in our place from now on, and add up what stands in the places of the other workers."""
        self._own = own
        self._others = others
        own[self._connection_index] = self.connections
        own[self._pending_index] = self.pending_requests
        own[self._request_index] = self.requests
        own[self._retry_index] = self.retries

    def vacate(self) -> None:
        """Count for ourselves."""
        self._own = _nowhere()
        self._others = ()

    def _elsewhere(self, index: int) -> int:
        tag = self._tag
        total: int = 0
        for place in self._others:
            if place[0] == tag:
                total += place[index]
        return total

    def can_create_connection(self) -> bool:
        """See Resources."""
        return self.connections + self._elsewhere(self._connection_index) < self.max_connections

    def can_create_pending(self) -> bool:
        """See Resources."""
        return self.pending_requests + self._elsewhere(self._pending_index) < self.max_pending_requests

    def can_create_request(self) -> bool:
        """See Resources. Asked for every request, hence written out."""
        total, tag, index = self.requests, self._tag, self._request_index
        for place in self._others:
            if place[0] == tag:
                total += place[index]
        return total < self.max_requests

    def can_retry(self) -> bool:
        """See Resources."""
        return self.retries + self._elsewhere(self._retry_index) < self.retry_limit()

    def retry_limit(self) -> int:
        """See Resources."""
        if self.budget_percent is None:
            return self.max_retries
        _, pending, requests, _ = self.totals()
        return max(int(self.budget_percent / 100.0 * (requests + pending)), self.budget_min)

    def totals(self) -> tuple[int, int, int, int]:
        """See Resources."""
        return (
            self.connections + self._elsewhere(self._connection_index),
            self.pending_requests + self._elsewhere(self._pending_index),
            self.requests + self._elsewhere(self._request_index),
            self.retries + self._elsewhere(self._retry_index),
        )

    def add_connection(self) -> None:
        """See Resources."""
        self.connections = self._own[self._connection_index] = self.connections + 1

    def add_pending(self) -> None:
        """See Resources."""
        self.pending_requests = self._own[self._pending_index] = self.pending_requests + 1

    def add_request(self) -> None:
        """See Resources."""
        self.requests = self._own[self._request_index] = self.requests + 1

    def add_retry(self) -> None:
        """See Resources."""
        self.retries = self._own[self._retry_index] = self.retries + 1

    def remove_connection(self) -> None:
        """See Resources."""
        self.connections = self._own[self._connection_index] = self.connections - 1

    def remove_pending(self) -> None:
        """See Resources."""
        self.pending_requests = self._own[self._pending_index] = self.pending_requests - 1

    def remove_request(self) -> None:
        """See Resources."""
        self.requests = self._own[self._request_index] = self.requests - 1

    def remove_retry(self) -> None:
        """See Resources."""
        self.retries = self._own[self._retry_index] = self.retries - 1


def _nowhere() -> memoryview:
    """A place that nobody else sees."""
    return memoryview(bytearray(_PLACE_BYTES)).cast("q")


_Pair = tuple[int, SharedResources, SharedResources]
"""tag, default and high priority of one cluster"""


class ResourceTable:
    """The table as one worker sees it."""

    __slots__ = ("_complained", "_index", "_places", "_rows", "_seated")

    def __init__(self, memory: memoryview, worker_index: int, worker_count: int) -> None:
        row = PLACES * _PLACE_BYTES
        self._rows = [memory[i * row : (i + 1) * row].cast("q") for i in range(worker_count)]
        self._index = worker_index
        self._places: dict[str, int] = {}
        self._seated: dict[str, _Pair] = {}
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
        moving = [(name, pair) for name, pair in self._seated.items() if places.get(name) != old.get(name)]
        for name, _ in moving:
            self._clear(old.get(name))
        for name, pair in moving:
            self._seat(name, pair)

    def enter(self, name: str, default: SharedResources, high: SharedResources) -> None:
        """A cluster begins to count."""
        before = self._seated.get(name)
        if before is not None:  # another instance takes the place
            before[1].vacate()
            before[2].vacate()
        tag = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big") + 1
        default.enter(tag, high=False)
        high.enter(tag, high=True)
        self._seated[name] = (tag, default, high)
        self._seat(name, self._seated[name])

    def _seat(self, name: str, pair: _Pair) -> None:
        tag, default, high = pair
        place = self._places.get(name, PLACES)
        if place >= PLACES:
            default.vacate()
            high.vacate()
            return
        views = [row[place * _PLACE_INTS : (place + 1) * _PLACE_INTS] for row in self._rows]
        own = views.pop(self._index)
        others = tuple(views)
        default.sit(own, others)
        high.sit(own, others)
        own[0] = tag  # last, so that nobody adds up what is not there yet

    def _clear(self, place: int | None) -> None:
        if place is not None and place < PLACES:
            row = self._rows[self._index]
            for i in range(place * _PLACE_INTS, (place + 1) * _PLACE_INTS):
                row[i] = 0

    def leave(self, name: str, default: Resources) -> None:
        """The cluster is gone, unless another one with its name has come since."""
        pair = self._seated.get(name)
        if pair is not None and pair[1] is default:
            del self._seated[name]
            _, shared, high = pair
            shared.vacate()
            high.vacate()
            self._clear(self._places.get(name))


def clear_row(memory: memoryview, worker_index: int) -> None:
    """Forget what a dead worker had counted."""
    row = PLACES * _PLACE_BYTES
    start = worker_index * row
    tags = memory[start : start + row].cast("q")[::_PLACE_INTS]
    for place, tag in enumerate(tags.tolist()):
        if tag:
            offset = start + place * _PLACE_BYTES
            memory[offset : offset + _PLACE_BYTES] = bytes(_PLACE_BYTES)
