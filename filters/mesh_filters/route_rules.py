"""A filter's configuration and those that routes give it (`typed_per_filter_config`), each compiled once.

A route's configuration is known by its identity. Route tables may come and go, so what is remembered is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from mesh_filters.filter import Stream

C = TypeVar("C")
R = TypeVar("R")
REMEMBERED: Final = 10_000
"""compiled configurations; beyond it the memory starts anew"""


class Compiled(Generic[C, R]):
    """Compiles each configuration at its first use."""

    __slots__ = ("_compile", "known")

    def __init__(self, compile_one: Callable[[C], R]) -> None:
        self._compile = compile_one
        self.known: dict[int, tuple[C, R]] = {}
        """by identity of the configuration"""

    def of(self, config: C) -> R:
        """The compiled form, the same one for the same object."""
        found = self.known.get(id(config))
        if found is None:  # what is known is kept alive here, so that no other object can have its id
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            found = self.known[id(config)] = (config, self._compile(config))
        return found[1]


class RouteRules(Generic[C, R]):
    """The filter's own rules, and those of routes."""

    __slots__ = ("_compiled", "_known", "_name", "own")

    def __init__(self, config: C, name: str, compile_one: Callable[[C], R]) -> None:
        """`name` is the filter's in the configuration."""
        self._name = name
        self.own = compile_one(config)
        self._compiled: Compiled[C, R] = Compiled(compile_one)
        self._known = self._compiled.known

    def of(self, stream: Stream) -> R:
        """The rules for a request: of its route, or our own."""
        config: Any = stream.per_route_config(self._name)
        if config is None:
            return self.own
        found = self._known.get(id(config))
        return self._compiled.of(config) if found is None else found[1]
