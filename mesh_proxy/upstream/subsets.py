"""Subset load balancing: endpoints by their `envoy.lb` metadata (Envoy: `load_balancing_policies/subset/subset_lb.cc`).

Each selector is a set of keys. All endpoints that have these keys are sorted into a dict by the values, once per change of the
cluster, so that finding the subset of a request is one look-up. A subset gets its balancer when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.config.model.cluster import SubsetConfig, SubsetSelectorConfig
from mesh_proxy.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from mesh_proxy.stats.cluster_group import ClusterStats
    from mesh_proxy.upstream.balancers import Choose

LB: Final = "envoy.lb"
FALLBACK_LIST: Final = "fallback_list"
_REMEMBERED: Final = 4096
"""criteria of routes that are known by their identity; then it starts anew"""

Criteria = tuple[tuple[str, Any], ...]
"""(key, value) sorted by key, values hashable"""


def freeze(value: Any) -> Any:
    """A metadata value as a key of a dict: equal only where the types are equal too."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, (int, float)):
        return ("number", float(value))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(freeze(one) for one in value))
    if isinstance(value, Mapping):
        return ("struct", tuple(sorted((key, freeze(one)) for key, one in value.items())))
    return ("null",)


def criteria_of(match: Mapping[str, Any]) -> Criteria:
    """What a route asks for, sorted."""
    return tuple(sorted((key, freeze(value)) for key, value in match.items()))


class _Subset:
    """Endpoints with the same values, and their balancer once somebody asked."""

    __slots__ = ("choose", "endpoints")

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self.choose: Choose | None = None


class _Selector:
    """One `LbSubsetSelector` with its subsets by values, which stand in the order of the sorted keys."""

    __slots__ = ("config", "keys", "subsets")

    def __init__(self, config: SubsetSelectorConfig) -> None:
        self.config = config
        self.keys = tuple(sorted(config.keys))
        self.subsets: dict[tuple[Any, ...], _Subset] = {}

    def fill(self, endpoints: Iterable[Endpoint], list_as_any: bool) -> int:
        """Sort the endpoints in. Returns how many were left out because their subset takes a single one."""
        found: dict[tuple[Any, ...], list[Endpoint]] = {}
        duplicates = 0
        for endpoint in endpoints:
            metadata = endpoint.metadata.get(LB) or {}
            if any(key not in metadata for key in self.keys):
                continue
            choices = [
                [freeze(one) for one in metadata[key]]
                if list_as_any and isinstance(metadata[key], (list, tuple))
                else [freeze(metadata[key])]
                for key in self.keys
            ]
            for values in product(*choices):
                here = found.setdefault(values, [])
                if here and self.config.single_host_per_subset:
                    duplicates += 1
                    continue
                here.append(endpoint)
        self.subsets = {values: _Subset(members) for values, members in found.items()}
        return duplicates


class SubsetIndex:
    """The subsets of one cluster.

    Args:
        config: the cluster's `lb_subset_config`.
        make: a balancer over some of the cluster's endpoints, with its own health, priorities and panic.
        choose_all: the balancer over all endpoints.
    """

    __slots__ = (
        "_all",
        "_by_keys",
        "_default",
        "_everybody",
        "_fallback",
        "_make",
        "_memo",
        "_panic",
        "_selectors",
        "_stats",
        "config",
    )

    def __init__(
        self,
        config: SubsetConfig,
        make: Callable[[Sequence[Endpoint]], Choose],
        choose_all: Choose,
        stats: ClusterStats,
    ) -> None:
        self.config = config
        self._make = make
        self._all = choose_all
        self._stats = stats
        self._selectors = [_Selector(one) for one in config.selectors]
        self._by_keys: dict[tuple[str, ...], _Selector] = {}
        for selector in self._selectors:
            self._by_keys.setdefault(selector.keys, selector)
        self._default = _Subset([])
        self._everybody: Sequence[Endpoint] = ()
        self._fallback: Choose | None = None
        self._panic: Choose | None = choose_all if config.panic_mode_any else None
        self._memo: dict[int, tuple[Mapping[str, Any], Criteria]] = {}

    def rebuild(self, endpoints: Sequence[Endpoint]) -> None:
        """Members, health or weights changed."""
        stats = self._stats
        self._everybody = endpoints
        old = {(selector.keys, values) for selector in self._selectors for values in selector.subsets}
        for selector in self._selectors:
            selector.fill(endpoints, self.config.list_as_any)
        new = {(selector.keys, values) for selector in self._selectors for values in selector.subsets}
        stats.lb_subsets_created += len(new - old)
        stats.lb_subsets_removed += len(old - new)
        stats.lb_subsets_active = len(new)
        wanted = criteria_of(self.config.default_subset)
        self._default = _Subset([endpoint for endpoint in endpoints if _has(endpoint, wanted, self.config.list_as_any)])
        policy = self.config.fallback_policy
        if policy == "ANY_ENDPOINT":
            self._fallback = self._all
        elif policy == "DEFAULT_SUBSET":
            self._fallback = self._chooser(self._default)
        else:
            self._fallback = None

    def _chooser(self, subset: _Subset) -> Choose:
        choose = subset.choose
        if choose is None:
            choose = subset.choose = self._make(subset.endpoints)
        return choose

    # -- choosing

    def choose(self, match: Mapping[str, Any] | None) -> Endpoint | None:
        """An endpoint for a request whose route asks for this metadata."""
        if match and self.config.metadata_fallback_list and FALLBACK_LIST in match:
            rest = {key: value for key, value in match.items() if key != FALLBACK_LIST}
            for other in match[FALLBACK_LIST]:
                endpoint = self._choose(criteria_of({**rest, **other}))
                if endpoint is not None:
                    return endpoint
            return None
        return self._choose(self.criteria(match) if match else ())

    def criteria(self, match: Mapping[str, Any]) -> Criteria:
        """The same, sorted; remembered for mappings that belong to routes."""
        found = self._memo.get(id(match))
        if found is not None and found[0] is match:
            return found[1]
        made = criteria_of(match)
        if len(self._memo) >= _REMEMBERED:
            self._memo.clear()
        self._memo[id(match)] = (match, made)
        return made

    def _choose(self, criteria: Criteria) -> Endpoint | None:
        stats = self._stats
        if criteria:
            selector = self._by_keys.get(tuple([key for key, _ in criteria]))
            if selector is not None:
                subset = selector.subsets.get(tuple([value for _, value in criteria]))
                if subset is not None:
                    stats.lb_subsets_selected += 1
                    return self._chooser(subset)()
                policy = selector.config.fallback_policy
                if policy != "NOT_DEFINED":
                    return self._selector_fallback(selector, policy, criteria)
        if self._fallback is None:
            return None
        endpoint = self._fallback()
        if endpoint is not None:
            stats.lb_subsets_fallback += 1
        elif self._panic is not None:
            endpoint = self._panic()
            if endpoint is not None:
                stats.lb_subsets_fallback_panic += 1
        return endpoint

    def _selector_fallback(self, selector: _Selector, policy: str, criteria: Criteria) -> Endpoint | None:
        if policy == "ANY_ENDPOINT":
            return self._all()
        if policy == "DEFAULT_SUBSET":
            return self._chooser(self._default)()
        if policy == "KEYS_SUBSET":
            keys = selector.config.fallback_keys
            return self._choose(tuple(pair for pair in criteria if pair[0] in keys))
        return None

    def members(self, match: Mapping[str, Any] | None) -> tuple[Sequence[Endpoint], str]:
        """The endpoints of the subset that `choose` would take, and what it is called."""
        criteria = criteria_of(match) if match else ()
        while criteria:
            selector = self._by_keys.get(tuple([key for key, _ in criteria]))
            if selector is None:
                break
            subset = selector.subsets.get(tuple([value for _, value in criteria]))
            if subset is not None:
                return subset.endpoints, "subset"
            policy = selector.config.fallback_policy
            if policy == "NOT_DEFINED":
                break
            if policy == "ANY_ENDPOINT":
                return self._everybody, "fallback of the selector: any endpoint"
            if policy == "DEFAULT_SUBSET":
                return self._default.endpoints, "fallback of the selector: default subset"
            if policy != "KEYS_SUBSET":
                return (), "fallback of the selector: none"
            criteria = tuple(pair for pair in criteria if pair[0] in selector.config.fallback_keys)
        if self.config.fallback_policy == "ANY_ENDPOINT":
            return self._everybody, "fallback: any endpoint"
        if self.config.fallback_policy == "DEFAULT_SUBSET":
            return self._default.endpoints, "fallback: default subset"
        return (), "fallback: none"

    def health(self, match: Mapping[str, Any]) -> tuple[int, int]:
        """Endpoints of exactly that subset that may be called, and all of them."""
        criteria = criteria_of(match)
        selector = self._by_keys.get(tuple([key for key, _ in criteria]))
        subset = selector.subsets.get(tuple([value for _, value in criteria])) if selector is not None else None
        if subset is None:
            return 0, 0
        return sum(one.healthy and not one.ejected for one in subset.endpoints), len(subset.endpoints)


def _has(endpoint: Endpoint, wanted: Criteria, list_as_any: bool) -> bool:
    metadata = endpoint.metadata.get(LB) or {}
    for key, value in wanted:
        if key not in metadata:
            return False
        own = metadata[key]
        if list_as_any and isinstance(own, (list, tuple)):
            if value not in [freeze(one) for one in own]:
                return False
        elif freeze(own) != value:
            return False
    return True
