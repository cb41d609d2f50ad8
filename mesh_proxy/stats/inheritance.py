"""Statistics of the process before us: counters go on where it stopped, and what is active there is active as long as it lives.

Groups travel as JSON with names, not positions, because the other version of the program may have other statistics. Of the gauges
only those that count something active (`…_active`) are taken: all others describe a process or a configuration, and ours are
already the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mesh_proxy.stats.aggregate import GroupKey, GroupSum
from mesh_proxy.stats.group import BUCKETS_MS
from mesh_proxy.worker.messages import GroupShape

_BUCKETS = len(BUCKETS_MS) + 1


def export_sums(sums: Iterable[GroupSum]) -> list[dict[str, Any]]:
    """What is not zero, as JSON."""
    found = []
    for one in sums:
        shape = one.shape
        counters = len(shape.counters)
        group: dict[str, Any] = {"prefix": one.prefix, "class": shape.name}
        values = {name: value for name, value in zip(shape.counters, one.ints, strict=False) if value}
        gauges = {
            name: value for name, value in zip(shape.gauges, one.ints[counters:], strict=True) if value and _is_activity(name)
        }
        histograms = {
            name: [counts, total] for name, (counts, total) in zip(shape.histograms, one.histograms, strict=True) if any(counts)
        }
        codes = {name: table for name, table in zip(shape.code_tables, one.codes, strict=True) if table}
        for name, part in (("counters", values), ("gauges", gauges), ("histograms", histograms), ("codes", codes)):
            if part:
                group[name] = part
        if len(group) > 2:
            group["base"] = shape.codes
            group["detail"] = shape.code_detail
            found.append(group)
    return found


def import_sums(groups: Iterable[dict[str, Any]], *, gauges: bool) -> dict[GroupKey, GroupSum]:
    """The sums that were described; without gauges when the process that counted them is gone.

    Raises:
        ValueError: this is no such description.
    """
    try:
        return {(str(group["prefix"]), str(group["class"])): _import(group, gauges) for group in groups}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"these are no statistics: {error!r}") from None


def _import(group: dict[str, Any], with_gauges: bool) -> GroupSum:
    counters: dict[str, int] = group.get("counters", {})
    gauges: dict[str, int] = group.get("gauges", {}) if with_gauges else {}
    histograms: dict[str, Any] = group.get("histograms", {})
    codes: dict[str, dict[str, int]] = group.get("codes", {})
    shape = GroupShape(
        shape_id=-1,
        name=str(group["class"]),
        counters=tuple(counters),
        gauges=tuple(gauges),
        histograms=tuple(histograms),
        shared=(),
        codes=str(group.get("base", "")),
        code_detail=bool(group.get("detail", True)),
        code_tables=tuple(codes),
    )
    found = GroupSum(shape, str(group["prefix"]))
    found.ints = [int(value) for value in (*counters.values(), *gauges.values())]
    found.histograms = [([int(count) for count in counts], float(total)) for counts, total in histograms.values()]
    if any(len(counts) != _BUCKETS for counts, _ in found.histograms):
        raise ValueError("a histogram has other buckets")
    found.codes = [{int(code): int(count) for code, count in table.items()} for table in codes.values()]
    return found


def _is_activity(name: str) -> bool:
    return name == "active" or name.endswith("_active")
