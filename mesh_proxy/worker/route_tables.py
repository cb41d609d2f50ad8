"""Route tables that come apart from their listeners: who uses them, and how they change under open connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from mesh_proxy.config.errors import ConfigError

if TYPE_CHECKING:
    from mesh_proxy.config.model.dubbo import DubboRoutesConfig
    from mesh_proxy.config.model.route import RouteTableConfig
    from mesh_proxy.config.model.source import Reference


class Manager(Protocol):
    """Of HTTP or Dubbo."""

    def compile_routes(self, config: Any) -> Any:
        """A table for `take_routes`. Raises ValueError."""

    def take_routes(self, table: Any) -> None:
        """Requests that begin from now on are routed by it."""


class RouteUser:
    """Belongs to a manager and knows it, so that the manager is found as long as it lives: a compiled one cannot be referred to
    weakly itself."""

    __slots__ = ("__weakref__", "manager")

    def __init__(self, manager: Manager) -> None:
        self.manager = manager


Staged = list[tuple["Manager", Any]]
"""manager and compiled table"""


class RouteTables:
    """The newest table under each reference, and the managers that route by it: also those of listeners that drain."""

    __slots__ = ("_managers", "configs")

    def __init__(self) -> None:
        self.configs: Mapping[Reference, RouteTableConfig | DubboRoutesConfig] = {}
        self._managers: dict[Reference, WeakSet[RouteUser]] = {}

    def enter(self, user: RouteUser, reference: Reference) -> Any:
        """The manager's table; None if it did not come in time. It will be given every later one."""
        self._managers.setdefault(reference, WeakSet()).add(user)
        return self.configs.get(reference)

    def stage(self, configs: Mapping[Reference, RouteTableConfig | DubboRoutesConfig]) -> Staged:
        """Compile what changes; nothing is live yet. Raises ConfigError."""
        staged: Staged = []
        for reference, config in configs.items():
            old = self.configs.get(reference)
            if config is old or config == old:
                continue
            for user in self._managers.get(reference, ()):
                manager = user.manager
                try:
                    staged.append((manager, manager.compile_routes(config)))
                except ValueError as error:
                    raise ConfigError(f"{reference.source.path} {reference.name}", str(error)) from error
        return staged

    def prune(self) -> None:
        """Forget references that no manager has any more."""
        for reference in [reference for reference, managers in self._managers.items() if not managers]:
            del self._managers[reference]


def commit(staged: Staged) -> None:
    """Requests that begin from now on are routed by the new tables."""
    for manager, table in staged:
        manager.take_routes(table)
