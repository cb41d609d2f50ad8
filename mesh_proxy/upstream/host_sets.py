"""Which share of the traffic goes to which priority, by the health of its endpoints.

The arithmetic is Envoy's, integers and roundings included (docs: load_balancing/{priority,degraded,panic_threshold}.rst,
source/extensions/load_balancing_policies/common/load_balancer_impl.cc). Its steps:

1. The availability of a priority is the percentage of its endpoints that are healthy, times the overprovisioning factor (1.4),
   at most 100; the same for degraded ones. Endpoints that drain do not count as there.
2. Load goes to the priorities in order, as much as each is available; first to the healthy, what is left to the degraded, and
   what roundings leave over to the first that got any. Availabilities that do not reach 100 together are scaled up.
3. While they do not reach 100 together, a priority with fewer usable endpoints than the panic threshold is in panic: its load
   goes to all of its endpoints. If all priorities are, load is shared by their number of endpoints alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh_proxy.upstream.endpoint import Endpoint


@dataclass(slots=True)
class HostSet:
    """The endpoints of one priority."""

    all: list[Endpoint] = field(default_factory=list)
    healthy: list[Endpoint] = field(default_factory=list)
    degraded: list[Endpoint] = field(default_factory=list)
    excluded: int = 0
    """those that drain: called in panic only, and left out of the percentages"""


@dataclass(slots=True)
class Loads:
    """Percentages per priority; `healthy` and `degraded` add up to 100 together."""

    healthy: list[int]
    degraded: list[int]
    panic: list[bool]


def split(endpoints: Iterable[Endpoint]) -> list[HostSet]:
    """Host sets by priority, without gaps; at least one."""
    sets = [HostSet()]
    for endpoint in endpoints:
        while len(sets) <= endpoint.priority:
            sets.append(HostSet())
        host_set = sets[endpoint.priority]
        host_set.all.append(endpoint)
        if endpoint.draining:
            host_set.excluded += 1
        if endpoint.healthy and not endpoint.ejected:
            (host_set.degraded if endpoint.degraded else host_set.healthy).append(endpoint)
    return sets


def distribute(sizes: list[tuple[int, int, int, int]], overprovisioning_factor: int, panic_threshold_percent: int) -> Loads:
    """The loads for (endpoints, excluded ones among them, healthy ones, degraded ones) per priority."""
    factor = overprovisioning_factor
    counted = [total - excluded for total, excluded, _, _ in sizes]
    healthy = [min(100, factor * size[2] // total) if total else 0 for total, size in zip(counted, sizes, strict=True)]
    degraded = [min(100, factor * size[3] // total) if total else 0 for total, size in zip(counted, sizes, strict=True)]
    available = min(100, sum(healthy) + sum(degraded))
    loads = Loads([0] * len(sizes), [0] * len(sizes), [False] * len(sizes))
    if available:
        left = _share(loads.healthy, healthy, 100, available)
        left = _share(loads.degraded, degraded, left, available)
        if left:
            first = next((i for i, percent in enumerate(healthy) if percent), None)
            if first is not None:
                loads.healthy[first] += left
            else:
                loads.degraded[next(i for i, percent in enumerate(degraded) if percent)] += left
    elif not panic_threshold_percent:
        loads.healthy[0] = 100  # nobody is there, and nobody will be found
        return loads
    if available < 100:
        for i, (total, (_, _, good, poor)) in enumerate(zip(counted, sizes, strict=True)):
            usable = 100.0 * (good + poor) / total if total else 0.0
            loads.panic[i] = usable < panic_threshold_percent
    if all(loads.panic):
        _share_by_size(loads, [size[0] for size in sizes])
    return loads


def _share(loads: list[int], availability: list[int], left: int, available: int) -> int:
    for i, percent in enumerate(availability):
        loads[i] = min(left, percent * 100 // available)
        left -= loads[i]
    return left


def _share_by_size(loads: Loads, totals: list[int]) -> None:
    everything = sum(totals)
    loads.degraded = [0] * len(totals)
    if not everything:
        loads.healthy = [100] + [0] * (len(totals) - 1)
        return
    loads.healthy = [100 * total // everything for total in totals]
    first = next(i for i, total in enumerate(totals) if total)
    loads.healthy[first] += 100 - sum(loads.healthy)
