"""What a worker gives to the filters of a chain (`mesh_filters.definition.FilterContext`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh_proxy.stats.group import StatGroup
from mesh_proxy.stream.filter_chain import FilterChains

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from mesh_filters.definition import FilterFactory
    from mesh_proxy.config.model import HttpFilterConfig
    from mesh_proxy.context import WorkerContext

_Names = tuple[str, ...]
_kinds: dict[tuple[_Names, _Names, _Names], type[StatGroup]] = {}


def stat_kind(counters: _Names, gauges: _Names, histograms: _Names) -> type[StatGroup]:
    """A class of statistics with these names, the same one for the same names."""
    key = (counters, gauges, histograms)
    kind = _kinds.get(key)
    if kind is None:
        tables = {"COUNTERS": counters, "GAUGES": gauges, "HISTOGRAMS": histograms}
        kind = _kinds[key] = type("FilterStats", (StatGroup,), {**tables, "__slots__": (*counters, *gauges, *histograms)})
    return kind


class WorkerFilterContext:
    """One filter of one connection manager in this worker."""

    __slots__ = ("_worker", "name", "now", "random", "runtime", "stat_prefix", "workers")

    def __init__(self, worker: WorkerContext, name: str, stat_prefix: str) -> None:
        self._worker = worker
        self.name = name
        self.stat_prefix = stat_prefix
        self.runtime: Mapping[str, Any] = worker.runtime
        self.workers = worker.workers
        self.now: Callable[[], float] = monotonic
        self.random: Callable[[], float] = random

    def stats(self, prefix: str, *, counters: _Names = (), gauges: _Names = (), histograms: _Names = ()) -> Any:
        """See the interface."""
        return self._worker.registry.get(stat_kind(counters, gauges, histograms), prefix)

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> TimerHandle:
        """See the interface."""
        return self._worker.loop.call_later(seconds, self._called, callback, arguments)

    def _called(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            callback(*arguments)
        finally:
            self._worker.flush()


def compile_filters(filters: tuple[HttpFilterConfig, ...], worker: WorkerContext, stat_prefix: str) -> FilterChains | None:
    """The chains of a connection manager; None without filters.

    Raises:
        ValueError: a filter cannot be made; the text names it.
    """
    made: list[tuple[str, FilterFactory, bool]] = []
    for index, config in enumerate(filters):
        try:
            factory = config.config.factory(WorkerFilterContext(worker, config.name, stat_prefix))
        except ValueError as error:
            raise ValueError(f"http_filters[{index}] ({config.name}): {error}") from error
        made.append((config.name, factory, config.disabled))
    return FilterChains(made) if made else None
