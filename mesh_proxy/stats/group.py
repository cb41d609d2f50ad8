"""A group of statistics that live and die together, as plain attributes that the data path increments.

`group.rq_total += 1` is all that counting costs. Who collects the groups (the worker's flush into its shared page, tests) reads
the class tables: COUNTERS and GAUGES are ints, HISTOGRAMS are `Histogram` objects, and a class with CODES has one dict from
response code to count, from which `<CODES>_2xx` and `<CODES>_200` are derived as Envoy does.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, ClassVar

from mesh_codecs.native import mypyc_attr

BUCKETS_MS: tuple[float, ...] = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
)  # fmt: skip
"""Upper bounds of Envoy's default histogram buckets (source/common/stats/histogram_impl.cc); a last one holds the rest."""


class Histogram:
    """Counts per bucket plus the sum, in the unit of what is recorded (milliseconds unless the name says otherwise)."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BUCKETS_MS) + 1)
        self.total = 0.0

    def record(self, value: float) -> None:
        """Count one value."""
        if value <= 0.5:  # the first buckets, where most are, without a search
            self.counts[0] += 1
        elif value <= 1.0:
            self.counts[1] += 1
        elif value <= 5.0:
            self.counts[2] += 1
        else:
            self.counts[bisect_left(BUCKETS_MS, value)] += 1
        self.total += value


@mypyc_attr(allow_interpreted_subclasses=True)
class StatGroup:
    """Base of all groups; subclasses name their statistics in the class tables and repeat them in `__slots__`."""

    __slots__ = ("prefix",)

    COUNTERS: ClassVar[tuple[str, ...]] = ()
    GAUGES: ClassVar[tuple[str, ...]] = ()
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ()
    SHARED: ClassVar[frozenset[str]] = frozenset()
    """those that say the same in every worker (the members of a cluster, say): over workers the largest counts, not the sum"""
    CODES: ClassVar[str] = ""
    """base name of the per-code counters, e.g. `upstream_rq`; empty for none. They live in the attribute `codes`."""
    CODE_DETAIL: ClassVar[bool] = True
    """also `<CODES>_<code>`, not only the classes `<CODES>_<n>xx`"""
    CODE_TABLES: ClassVar[tuple[str, ...]] = ()
    """the attributes that are such dicts"""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        """full name up to and with the last dot, e.g. `cluster.backend.`; `:` in names is already `_`"""
        for name in self.COUNTERS:
            setattr(self, name, 0)
        for name in self.GAUGES:
            setattr(self, name, 0)
        for name in self.HISTOGRAMS:
            setattr(self, name, Histogram())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix}>"


_Names = tuple[str, ...]
_kinds: dict[tuple[_Names, _Names, _Names], type[StatGroup]] = {}


def stat_kind(counters: _Names, gauges: _Names = (), histograms: _Names = ()) -> type[StatGroup]:
    """A class of statistics with these names, the same one for the same names."""
    key = (counters, gauges, histograms)
    kind = _kinds.get(key)
    if kind is None:
        tables: dict[str, Any] = {"COUNTERS": counters, "GAUGES": gauges, "HISTOGRAMS": histograms}
        names = (*counters, *gauges, *histograms)
        if all(name.isidentifier() for name in names):  # a gRPC status is none
            tables["__slots__"] = names
        # Among processes a group is known by its prefix and the name of its class: each class has one of its own.
        kind = _kinds[key] = type(f"FilterStats({','.join(names)})", (StatGroup,), tables)
    return kind


def sanitize(name: str) -> str:
    """A name as it stands in statistics: Envoy replaces `:` (and the null byte) by `_`."""
    return name.replace("://", "_").replace(":", "_").replace("\0", "_")


def reset_group(group: StatGroup) -> None:
    """Set the counters of a group to zero; gauges and histograms stay, as with Envoy."""
    for name in group.COUNTERS:
        setattr(group, name, 0)
    for name in group.CODE_TABLES:
        table = getattr(group, name)
        table.update(dict.fromkeys(table, 0))
