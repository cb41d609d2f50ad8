"""What the weights of localities make of the load (`locality_weighted_lb_config`; docs: load_balancing/locality_weight.rst)."""

from __future__ import annotations

from collections.abc import Sequence

from mesh_proxy.config.model import LocalityEndpointsConfig
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.host_sets import HostSet


def shares(
    localities: Sequence[LocalityEndpointsConfig], host_set: HostSet, usable: Sequence[Endpoint], overprovisioning_factor: int
) -> list[tuple[list[Endpoint], float]]:
    """The usable endpoints of each locality that has a weight, and its share: weight times availability.

    A locality is wholly available as long as its usable endpoints, times the overprovisioning factor, are as many as it has.
    """
    if not host_set.all:
        return []
    priority = host_set.all[0].priority
    found: list[tuple[list[Endpoint], float]] = []
    for locality in localities:
        if locality.priority != priority or not locality.weight:
            continue
        here = [endpoint for endpoint in usable if endpoint.locality == locality.locality]
        if here:
            total = sum(1 for one in host_set.all if one.locality == locality.locality and not one.draining)
            found.append((here, locality.weight * min(1.0, overprovisioning_factor / 100.0 * len(here) / total)))
    return found


def endpoint_shares(localities: Sequence[LocalityEndpointsConfig], endpoints: Sequence[Endpoint]) -> list[tuple[Endpoint, float]]:
    """The part of a hash table that is each endpoint's; they add up to 1.

    It is the endpoint's weight within its locality times the locality's, if any locality has one, else the endpoint's alone.
    """
    groups: list[tuple[int, list[Endpoint]]] = []
    for locality in localities:
        here = [one for one in endpoints if one.locality == locality.locality and one.priority == locality.priority]
        if locality.weight and here:
            groups.append((locality.weight, here))
    if not groups:
        groups = [(1, list(endpoints))]
    total = sum(weight for weight, _ in groups)
    found: list[tuple[Endpoint, float]] = []
    for weight, here in groups:
        here_total = sum(endpoint.weight for endpoint in here)
        found += [(endpoint, endpoint.weight / here_total * weight / total) for endpoint in here]
    return found
