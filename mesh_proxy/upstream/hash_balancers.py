"""RING_HASH and MAGLEV: the same request hash finds the same endpoint, also when others come or go.

Both tables are laid out exactly as Envoy lays them out (source/extensions/load_balancing_policies/{ring_hash,maglev}), so that
a fleet of both kinds of proxy agrees on where a hash belongs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

from mesh_proxy.upstream.balancers import Random
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.xxhash64 import xxhash64

HASH_POLICIES = frozenset({"RING_HASH", "MAGLEV"})
_ALL_ONES = 0xFFFFFFFFFFFFFFFF


class HashInput:
    """The hash of the request for which a choice is made: written before, read by every balancer of the cluster."""

    __slots__ = ("_random", "attempt", "value")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.value: int | None = None
        """None: the request has none, any endpoint will do"""
        self.attempt = 0
        """how many choices for this request were to be avoided"""

    def get(self) -> int:
        """The hash, or a random one."""
        value = self.value
        return value if value is not None else int(self._random() * (1 << 53)) << 11


class RingHashBalancer:
    """Each endpoint stands at many places of a ring of 64-bit numbers; a hash belongs to the next place."""

    __slots__ = ("_endpoints", "_input", "_places")

    def __init__(
        self,
        weighted: Sequence[tuple[Endpoint, float]],
        source: HashInput,
        least_size: int,
        most_size: int,
        by_hostname: bool,
    ) -> None:
        least_weight = min(weight for _, weight in weighted)
        # The lightest endpoint gets a whole number of places.
        scale = min(ceil(least_weight * least_size) / least_weight, float(most_size))
        ring: list[tuple[int, int]] = []
        target = 0.0
        for index, (endpoint, weight) in enumerate(weighted):
            key = hash_key(endpoint, by_hostname) + b"_"
            target += scale * weight
            i = 0
            while len(ring) < target:
                ring.append((xxhash64(key + b"%d" % i), index))
                i += 1
        ring.sort()
        self._places = [place for place, _ in ring]
        self._endpoints = [weighted[index][0] for _, index in ring]
        self._input = source

    def choose(self) -> Endpoint:
        """The endpoint for the current hash; for a further attempt the one after."""
        index = bisect_left(self._places, self._input.get()) + self._input.attempt
        return self._endpoints[index % len(self._endpoints)]


class MaglevBalancer:
    """Each endpoint has its own order of preference over the rows of a table, and they take turns (Maglev, NSDI 2016, 3.4)."""

    __slots__ = ("_input", "_table")

    def __init__(self, weighted: Sequence[tuple[Endpoint, float]], source: HashInput, size: int, by_hostname: bool) -> None:
        self._input = source
        most = max(weight for _, weight in weighted)
        keyed = sorted(
            ((hash_key(endpoint, by_hostname), endpoint, weight) for endpoint, weight in weighted), key=lambda one: one[0]
        )
        places = [xxhash64(key) % size for key, _, _ in keyed]
        skips = [xxhash64(key, 1) % (size - 1) + 1 for key, _, _ in keyed]
        due = [0.0] * len(keyed)
        owners = [-1] * size
        left = size
        turn = 0
        while left:
            turn += 1
            for i, (_, _, weight) in enumerate(keyed):
                if turn * weight < due[i]:  # the lighter ones sit out some turns
                    continue
                due[i] += most
                place, skip = places[i], skips[i]
                while owners[place] >= 0:
                    place += skip
                    if place >= size:
                        place -= size
                owners[place] = i
                place += skip
                places[i] = place if place < size else place - size
                left -= 1
                if not left:
                    break
        endpoints = [endpoint for _, endpoint, _ in keyed]
        self._table = [endpoints[owner] for owner in owners]

    def choose(self) -> Endpoint:
        """The endpoint for the current hash; a further attempt looks somewhere else."""
        value, attempt = self._input.get(), self._input.attempt
        if attempt:
            value ^= (_ALL_ONES - attempt + 1) & _ALL_ONES
        return self._table[value % len(self._table)]


def hash_key(endpoint: Endpoint, by_hostname: bool) -> bytes:
    """What an endpoint is known by: `hash_key` in its `envoy.lb` metadata, else its name if so configured, else its address."""
    metadata = endpoint.metadata.get("envoy.lb")
    if isinstance(metadata, dict) and isinstance(key := metadata.get("hash_key"), str) and key:
        return key.encode()
    return endpoint.hostname.encode() if by_hostname else endpoint.address_bytes
