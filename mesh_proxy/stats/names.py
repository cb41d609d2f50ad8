"""From sums of groups to single statistics with Envoy's names, kinds and the mark "used"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from mesh_proxy.stats.aggregate import GroupSum
from mesh_proxy.worker.messages import GroupShape

COUNTER = "Counters"
GAUGE = "Gauges"
"""the words of `/stats?type=`"""


class Stat(NamedTuple):
    """A counter or a gauge."""

    prefix: str
    """of its group, with the last dot"""
    name: str
    """the rest of its name"""
    value: int
    kind: str
    used: bool
    """written since the start (`/stats?usedonly`)"""


class HistogramStat(NamedTuple):
    """A histogram since the start."""

    prefix: str
    name: str
    counts: list[int]
    """per bucket, see BUCKETS_MS"""
    total: float
    """sum of the values"""


ALWAYS_USED = frozenset(
    {
        "membership_degraded",
        "membership_excluded",
        "membership_healthy",
        "membership_total",
        "active_clusters",
        "warming_clusters",
        "total_listeners_active",
        "total_listeners_warming",
        "concurrency",
        "days_until_first_cert_expiring",
        "hot_restart_epoch",
        "live",
        "memory_allocated",
        "memory_heap_size",
        "memory_physical_size",
        "state",
        "total_connections",
        "uptime",
        "workers_started",
    }
)
"""gauges that Envoy sets at the start; a zero of them is still a written value"""


@cache
def _partners(shape: GroupShape) -> tuple[tuple[str, int, int], ...]:
    """(name, index of its value, index of the counter that shows whether it was ever written, or -1) per gauge.

    Nothing records whether a gauge that is 0 now was ever set. But what is active now was counted when it began:
    `downstream_cx_active` goes with `downstream_cx_total`, `…_bytes_buffered` with `…_bytes_total`.
    """
    found = []
    for index, name in enumerate(shape.gauges, len(shape.counters)):
        partner = -1
        for ending, other in (("_active", "_total"), ("_buffered", "_total"), ("_pre_cx_active", "_cx_total")):
            candidate = name.removesuffix(ending) + other
            if name.endswith(ending) and candidate in shape.counters:
                partner = shape.counters.index(candidate)
        found.append((name, index, partner))
    return tuple(found)


def scalars(group: GroupSum) -> list[Stat]:
    """Counters and gauges of a group in the order of their names."""
    shape, prefix, ints = group.shape, group.prefix, group.ints
    found = [Stat(prefix, name, ints[index], COUNTER, ints[index] != 0) for index, name in enumerate(shape.counters)]
    for name, index, partner in _partners(shape):
        used = ints[index] != 0 or name in ALWAYS_USED or (partner >= 0 and ints[partner] != 0)
        found.append(Stat(prefix, name, ints[index], GAUGE, used))
    if shape.codes:
        for table_name, table in zip(shape.code_tables, group.codes, strict=True):
            found += _codes(shape, prefix, table_name, table)
    if shape.name == "ListenerStats":
        found += _per_worker(group)
    found.sort()
    return found


def _codes(shape: GroupShape, prefix: str, table_name: str, table: dict[int, int]) -> Iterator[Stat]:
    """`upstream_rq_503`, `upstream_rq_5xx`; those of `retry_codes` under `retry.`, with their sum."""
    scope = table_name.removesuffix("codes").replace("_", ".")
    base = f"{scope}{shape.codes}"
    classes: dict[int, int] = {} if shape.code_detail else dict.fromkeys(range(1, 6), 0)
    for code, count in table.items():
        if 100 <= code < 600:
            classes[code // 100] = classes.get(code // 100, 0) + count
        if shape.code_detail:
            yield Stat(prefix, f"{base}_{code}", count, COUNTER, True)
    for digit, count in classes.items():
        yield Stat(prefix, f"{base}_{digit}xx", count, COUNTER, count != 0)
    if scope and table:
        yield Stat(prefix, f"{base}_completed", sum(table.values()), COUNTER, True)


def _per_worker(group: GroupSum) -> Iterator[Stat]:
    """Envoy shows which worker has how many connections of a listener."""
    shape = group.shape
    names = (*shape.counters, *shape.gauges)
    total, active = names.index("downstream_cx_total"), names.index("downstream_cx_active")
    for worker, ints in group.by_worker.items():
        used = ints[total] != 0
        yield Stat(group.prefix, f"worker_{worker}.downstream_cx_active", ints[active], GAUGE, used)
        yield Stat(group.prefix, f"worker_{worker}.downstream_cx_total", ints[total], COUNTER, used)


def histograms(group: GroupSum) -> list[HistogramStat]:
    """The histograms of a group in the order of their names."""
    found = [
        HistogramStat(group.prefix, name, counts, total)
        for name, (counts, total) in zip(group.shape.histograms, group.histograms, strict=True)
    ]
    found.sort(key=lambda stat: stat.name)
    return found


def value_of(groups: Iterable[GroupSum], full_name: str) -> int | None:
    """One counter or gauge by its full name; for tests and the few places that want a single figure."""
    for group in groups:
        if full_name.startswith(group.prefix):
            for stat in scalars(group):
                if stat.prefix + stat.name == full_name:
                    return stat.value
    return None
