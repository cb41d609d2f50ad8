"""What filters need of a worker, in virtual time: a clock that the test moves, timers that it fires, numbers shared by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from mesh_filters.token_bucket import LocalCell
from mesh_proxy.worker.value_table import ValueTable


class Clock:
    """Monotonic seconds."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time


class Context:
    """A `FilterContext` of one worker; several may share `cells` and `table`."""

    name = "limits"
    stat_prefix = "http.test."

    def __init__(self, clock: Clock, *, workers: int = 1, worker_index: int = 0, sibling: Context | None = None) -> None:
        self.now = clock
        self.workers = workers
        self.worker_index = worker_index
        self.cells: dict[str, LocalCell] = {} if sibling is None else sibling.cells
        self.table = ValueTable(None) if sibling is None else sibling.table
        self.runtime: Mapping[str, Any] = {}
        self.random: Callable[[], float] = lambda: 0.5
        self.groups: dict[str, Any] = {}

    def stats(self, prefix: str, *, counters: tuple[str, ...] = (), gauges: tuple[str, ...] = (), histograms: Any = ()) -> Any:
        return self.groups.setdefault(prefix, SimpleNamespace(**dict.fromkeys((*counters, *gauges), 0)))

    def shared_cell(self, name: str) -> LocalCell:
        return self.cells.setdefault(name, LocalCell())

    def value_table(self) -> ValueTable:
        return self.table


def counts(*names: str) -> Any:
    """Statistics that stand at zero."""
    return SimpleNamespace(**dict.fromkeys(names, 0))
