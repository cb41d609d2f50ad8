"""What a described request may touch instead of the worker's own things.

It reads what real requests read (clusters, route tables, remembered traces) and writes nowhere: its statistics, token buckets and
time-outs are its own, thrown away with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mesh_codecs.events import RequestHeaders
from mesh_filters.async_filter import AsyncFilter
from mesh_filters.definition import FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_proxy.deadlines import Deadlines
from mesh_proxy.network.filter_context import WorkerFilterContext
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.worker.shared_cells import SharedCells
from mesh_proxy.worker.trace_memory import TraceMemory
from mesh_proxy.worker.value_table import ValueTable

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext

T = TypeVar("T")
_Pairs = tuple[tuple[str, str], ...]


class _Timer:
    def cancel(self) -> None:
        """It never fires."""

    def when(self) -> float:
        """As if it were far away."""
        return float("inf")


class _StillLoop:
    """A loop on which nothing ever happens."""

    def call_later(self, *arguments: Any, **more: Any) -> _Timer:
        return _Timer()

    call_at = call_soon = call_later

    def time(self) -> float:
        return monotonic()


class _KnownTraces(TraceMemory):
    """The sidecar's memory, read only."""

    __slots__ = ()

    def __init__(self, memory: TraceMemory) -> None:
        self._memory, self._secret, self._names = memory._memory, memory._secret, memory._names

    def remember(self, name: bytes, trace_id: bytes, label: bytes, now: float, ttl_s: float) -> bool:
        """A request that nobody sends has no trace."""
        return True


def copied(thing: T) -> T:
    """What `copy.copy` gives, of compiled classes too: their attributes are descriptors of the class, as slots are."""
    made = type(thing).__new__(type(thing))
    for kind in type(thing).__mro__:
        for name, found in vars(kind).items():
            if (
                isinstance(found, (GetSetDescriptorType, MemberDescriptorType))
                and not name.startswith("__")
                and hasattr(thing, name)
            ):
                setattr(made, name, getattr(thing, name))
    return made


def scratch_context(context: WorkerContext) -> WorkerContext:
    """A copy that shares what is read."""
    made = copied(context)
    loop: Any = _StillLoop()
    made.loop = loop
    made.registry = StatRegistry()
    made.dirty = []
    made.dirty_later = []
    made.deadlines = Deadlines(loop, lambda: None)
    made.shared_cells = SharedCells(None)
    made.value_table = ValueTable(None)
    made.trace_memory = _KnownTraces(context.trace_memory)
    return made


class QuietFilterContext(WorkerFilterContext):
    """What filters get: nothing that they begin goes on, and nobody is asked anything."""

    __slots__ = ()

    def call_service(
        self, cluster: str, request: RequestHeaders, body: bytes, *, timeout_s: float | None, max_bytes: int
    ) -> Awaitable[Any]:
        """No answer will come."""
        return asyncio.get_running_loop().create_future()

    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """It is not begun."""
        return cast("asyncio.Task[Any]", dismiss(work))


def dismiss(work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
    """Nobody is asked anything: the work is not begun."""
    work.close()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.cancel()
    return done


class Watched(Filter):
    """A filter of the chain, and the notes of what it did to the described request."""

    __slots__ = ("_inner", "_name", "_notes")

    def __init__(self, name: str, inner: Filter, notes: list[dict[str, Any]]) -> None:
        self._name = name
        self._inner = inner
        self._notes = notes

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Let the filter act, and look."""
        note: dict[str, Any] = {"name": self._name, "type": type(self._inner).__name__}
        self._notes.append(note)
        if isinstance(self._inner, AsyncFilter):
            note["status"] = "not asked: it would wait for somebody else"
            return FilterStatus.CONTINUE
        before = _snapshot(stream, event)
        status = self._inner.on_request_headers(stream, event)
        after = _snapshot(stream, event)
        note["status"] = "continue"
        for name in after:
            if after[name] != before[name]:
                note[name] = after[name] if name != "headers" else _changes(before[name], after[name])
        if stream.details and stream.details != before["details"]:
            note["status"] = "answered"
            return status
        if status is not FilterStatus.CONTINUE:
            note["status"] = "would hold the request"
        return FilterStatus.CONTINUE


def _snapshot(stream: Stream, event: RequestHeaders) -> dict[str, Any]:
    return {
        "headers": tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers),
        "path": event.path.decode("latin-1"),
        "authority": event.authority.decode("latin-1"),
        "labels": [list(one) for one in stream.labels or ()],
        "metadata": {name: _plain(value) for name, value in (stream.dynamic_metadata or {}).items()},
        "cluster": _cluster(stream),
        "details": stream.details,
    }


def _cluster(stream: Any) -> str:
    """What a filter has chosen. `target_cluster` would make the choice, perhaps before a filter that it depends on."""
    choice = getattr(stream, "choice", None)
    return choice.name if choice is not None else getattr(stream, "forced_cluster", "")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _changes(before: _Pairs, after: _Pairs) -> dict[str, str | None]:
    old, new = dict(before), dict(after)
    changed: dict[str, str | None] = {name: value for name, value in new.items() if old.get(name) != value}
    changed.update({name: None for name in old if name not in new})
    return changed


def watch(notes: list[dict[str, Any]]) -> Callable[[str, FilterFactory], FilterFactory]:
    """For `compile_filters`: every filter is looked at."""

    def wrap(name: str, factory: FilterFactory) -> FilterFactory:
        if isinstance(factory, Filter):
            return Watched(name, factory, notes)
        return lambda: Watched(name, factory(), notes)

    return wrap
