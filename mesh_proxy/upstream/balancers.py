"""Choosing among the endpoints of one host set: a balancer is a function without arguments, made anew when the set changes.

ROUND_ROBIN is a cycle that is laid out once, so that choosing is one C call: the endpoints in order when the weights are equal,
else the order that an earliest-deadline-first scheduler would give (as Envoy's), which repeats after as many picks as the
weights add up to. A cycle that would be too long is scheduled as it goes. Both begin at a random place, so that many workers
and sidecars do not call the same endpoint first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import cycle
from math import gcd
from typing import Generic, TypeVar

from mesh_proxy.upstream.endpoint import Endpoint

T = TypeVar("T")
Choose = Callable[[], Endpoint | None]
Random = Callable[[], float]
"""uniform in [0, 1)"""

LONGEST_CYCLE = 4096
"""picks that are laid out in advance; 32 KB"""


def make_chooser(policy: str, endpoints: Sequence[Endpoint], random: Random, choice_count: int) -> Choose:
    """The balancer of a policy over a set that is not empty."""
    weights = [endpoint.weight for endpoint in endpoints]
    equal = min(weights) == max(weights)
    if len(endpoints) == 1 or policy == "RANDOM":  # RANDOM knows no weights, in Envoy neither
        return RandomBalancer(endpoints, random).choose if len(endpoints) > 1 else cycle(endpoints).__next__
    if policy == "LEAST_REQUEST":
        if equal:
            return LeastRequestBalancer(endpoints, random, choice_count).choose
        return WeightedLeastRequestBalancer(endpoints, random).choose
    return round_robin(endpoints, weights, random)


def round_robin(items: Sequence[T], weights: Sequence[float], random: Random) -> Callable[[], T]:
    """Every item as often as its weight says, spread evenly; integer weights give a cycle."""
    if min(weights) == max(weights):
        order = list(items)
    else:
        whole = [int(weight) for weight in weights]
        divisor = gcd(*whole)
        if whole != list(weights) or sum(whole) // divisor > LONGEST_CYCLE:
            return Schedule(items, weights, random).choose
        order = lay_out(items, [weight // divisor for weight in whole])
    start = int(random() * len(order))
    return cycle(order[start:] + order[:start]).__next__


def lay_out(items: Sequence[T], weights: Sequence[int]) -> list[T]:
    """One period of earliest deadline first.

    The k-th turn of an item is due at k/weight. Of two that are due at once the one comes first that was queued first, that is
    whose turn before was earlier.
    """
    turns = sorted(((k + 1) / weight, k / weight, i) for i, weight in enumerate(weights) for k in range(weight))
    return [items[i] for _, _, i in turns]


class Schedule(Generic[T]):
    """Earliest deadline first as it goes, for weights that make no short cycle."""

    __slots__ = ("_heap", "_order")

    def __init__(self, items: Sequence[T], weights: Sequence[float], random: Random) -> None:
        # A random first deadline within each item's period is a random place in the sequence.
        self._heap = [
            ((1.0 - random()) / weight, i, 1.0 / weight, item)
            for i, (item, weight) in enumerate(zip(items, weights, strict=True))
        ]
        self._order = len(items)
        heapify(self._heap)

    def choose(self) -> T:
        """The next item."""
        deadline, _, period, item = self._heap[0]
        self._order += 1
        heapreplace(self._heap, (deadline + period, self._order, period, item))
        return item


class RandomBalancer:
    """RANDOM."""

    __slots__ = ("_endpoints", "_random", "_size")

    def __init__(self, endpoints: Sequence[Endpoint], random: Random) -> None:
        self._endpoints = tuple(endpoints)
        self._size = len(endpoints)
        self._random = random

    def choose(self) -> Endpoint:
        """Any endpoint."""
        return self._endpoints[int(self._random() * self._size)]


class LeastRequestBalancer:
    """LEAST_REQUEST with equal weights: of `choice_count` random endpoints, the same one perhaps twice, the least busy."""

    __slots__ = ("_choices", "_endpoints", "_random", "_size")

    def __init__(self, endpoints: Sequence[Endpoint], random: Random, choice_count: int) -> None:
        self._endpoints = tuple(endpoints)
        self._size = len(endpoints)
        self._random = random
        self._choices = range(max(choice_count, 2) - 1)

    def choose(self) -> Endpoint:
        """The least busy of a few; the first drawn of equals."""
        endpoints, random, size = self._endpoints, self._random, self._size
        best = endpoints[int(random() * size)]
        for _ in self._choices:
            other = endpoints[int(random() * size)]
            if other.stats.rq_active < best.stats.rq_active:
                best = other
        return best


class WeightedLeastRequestBalancer:
    """LEAST_REQUEST with different weights: a schedule in which an endpoint weighs weight / (active requests + 1)."""

    __slots__ = ("_heap", "_order")

    def __init__(self, endpoints: Sequence[Endpoint], random: Random) -> None:
        self._heap = [((1.0 - random()) / endpoint.weight, i, endpoint) for i, endpoint in enumerate(endpoints)]
        self._order = len(endpoints)
        heapify(self._heap)

    def choose(self) -> Endpoint:
        """The endpoint that is due; its next turn depends on how busy it is now."""
        deadline, _, endpoint = self._heap[0]
        self._order += 1
        heapreplace(self._heap, (deadline + (endpoint.stats.rq_active + 1) / endpoint.weight, self._order, endpoint))
        return endpoint
