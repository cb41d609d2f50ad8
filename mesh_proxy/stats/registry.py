"""Where a worker finds every group it must publish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from mesh_proxy.stats.group import StatGroup

G = TypeVar("G", bound=StatGroup)


class StatRegistry:
    """Groups by full prefix. Asking twice for one prefix and class gives the same group, as Envoy's scopes do."""

    __slots__ = ("generation", "groups")

    def __init__(self) -> None:
        self.groups: dict[tuple[type[StatGroup], str], StatGroup] = {}
        self.generation = 0
        """changes whenever a group is added or removed"""

    def get(self, kind: type[G], prefix: str) -> G:
        """The group of that class and prefix (`cluster.backend.`), made at the first call."""
        key = (kind, prefix)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = kind(prefix)
            self.generation += 1
        assert isinstance(group, kind)
        return group

    def add(self, group: StatGroup) -> None:
        """Publish a group that was made before, if there is none of its class and prefix."""
        if self.groups.setdefault((type(group), group.prefix), group) is group:
            self.generation += 1

    def remove(self, group: StatGroup) -> None:
        """Forget a group; its counts stay in what was published."""
        if self.groups.pop((type(group), group.prefix), None) is not None:
            self.generation += 1

    def __iter__(self) -> Iterator[StatGroup]:
        return iter(self.groups.values())

    def __len__(self) -> int:
        return len(self.groups)
