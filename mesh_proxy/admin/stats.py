"""`/stats` and `/stats/prometheus`: text, JSON and the Prometheus text format, as Envoy writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.admin.exchange import JSON, TEXT, AdminRequest, AdminResponse, text
from mesh_proxy.admin.prometheus import prometheus_text
from mesh_proxy.admin.regex import BadRegex, compile_regex
from mesh_proxy.stats.aggregate import GroupSum
from mesh_proxy.stats.group import BUCKETS_MS
from mesh_proxy.stats.names import HistogramStat, Stat, histograms, scalars
from mesh_proxy.stats.quantiles import SUPPORTED_PERCENT, cumulative, quantiles

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

TYPES: Final = ("All", "Counters", "Histograms", "Gauges", "TextReadouts")
BUCKET_MODES: Final = ("cumulative", "disjoint", "detailed", "summary")
_LINES_PER_PIECE: Final = 200
"""some milliseconds of work, after which the loop turns"""

Keep = Callable[[str, bool], bool]
"""(full name, used) -> shown"""
Intervals = Callable[[HistogramStat], list[int]]
"""Counts of the current interval"""


async def stats(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """All statistics, filtered."""
    format_ = request.query.get("format", "text")
    if format_ == "prometheus":
        return await prometheus(supervisor, request)
    if format_ not in ("text", "json"):
        return text("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n", 400)
    kind = {name.lower(): name for name in TYPES}.get(request.query.get("type", "All").lower())
    if kind is None:
        return text("invalid &type= param", 400)
    mode = request.query.get("histogram_buckets") or "summary"
    if mode not in BUCKET_MODES:
        return text(f"usage: /stats?histogram_buckets=({'|'.join(BUCKET_MODES)})\n", 400)
    try:
        keep = name_filter(request)
    except BadRegex as error:
        return text(f"Invalid re2 regex: {error}\n", 400)
    groups = await supervisor.statistics.fresh()
    render = as_json if format_ == "json" else as_text
    body = render(groups, keep, kind, mode, supervisor.statistics.histogram_intervals())
    return AdminResponse(body=pieces(body), content_type=JSON if format_ == "json" else TEXT)


async def prometheus(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """For a scraper."""
    try:
        keep = name_filter(request)
    except BadRegex as error:
        return text(f"Invalid re2 regex: {error}\n", 400)
    groups = await supervisor.statistics.fresh()
    return AdminResponse(body=pieces(prometheus_text(groups, keep, supervisor.options.stats_tags)))


def name_filter(request: AdminRequest) -> Keep:
    """From `filter`, `invert_filter` and `usedonly`."""
    used_only = request.flag("usedonly")
    pattern = request.query.get("filter", "")
    if not pattern:
        return lambda name, used: used or not used_only
    search = compile_regex(pattern).search
    if request.flag("invert_filter"):
        return lambda name, used: (used or not used_only) and search(name) is None
    return lambda name, used: (used or not used_only) and search(name) is not None


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines gathered to pieces of a few kilobytes; a piece may be empty."""
    gathered: list[str] = []
    for line in lines:
        gathered.append(line)
        if len(gathered) >= _LINES_PER_PIECE:
            yield "".join(gathered).encode()
            gathered.clear()
    if gathered:
        yield "".join(gathered).encode()


def _select(groups: Iterable[GroupSum], keep: Keep, kind: str, found_histograms: list[HistogramStat]) -> Iterator[Stat]:
    """Scalars as they come; histograms are put aside, they are printed last."""
    for group in groups:
        if kind in ("All", "Counters", "Gauges"):
            for stat in scalars(group):
                if (kind == "All" or stat.kind == kind) and keep(stat.prefix + stat.name, stat.used):
                    yield stat
        if kind in ("All", "Histograms"):
            for histogram in histograms(group):
                if keep(histogram.prefix + histogram.name, any(histogram.counts)):
                    found_histograms.append(histogram)


def as_text(groups: Iterable[GroupSum], keep: Keep, kind: str, mode: str, intervals: Intervals) -> Iterator[str]:
    """`name: value` lines."""
    found: list[HistogramStat] = []
    for stat in _select(groups, keep, kind, found):
        yield f"{stat.prefix}{stat.name}: {stat.value}\n"
    for histogram in found:
        yield f"{histogram.prefix}{histogram.name}: {_histogram_text(histogram, intervals(histogram), mode)}\n"


def _histogram_text(histogram: HistogramStat, interval: Sequence[int], mode: str) -> str:
    if not any(histogram.counts) and mode == "summary":
        return "No recorded values"
    if mode in ("cumulative", "disjoint"):
        shown = cumulative if mode == "cumulative" else lambda counts: list(counts[:-1])
        pairs = zip(BUCKETS_MS, shown(interval), shown(histogram.counts), strict=True)
        return " ".join(f"B{bound:g}({now},{ever})" for bound, now, ever in pairs)
    ever_values = quantiles(histogram.counts)
    now_values = quantiles(interval)
    summary = " ".join(
        f"P{percent:g}({_number(now_values[i] if now_values else None)},{_number(ever_values[i] if ever_values else None)})"
        for i, percent in enumerate(SUPPORTED_PERCENT)
    )
    if mode == "summary":
        return summary
    return f"\n  totals={_bins_text(histogram.counts)}\n  intervals={_bins_text(interval)}\n  summary={summary}"


def _bins(counts: Sequence[int]) -> Iterator[tuple[float, float, int]]:
    """(lower bound, width, count) of the bins that hold something."""
    lower = 0.0
    for index, count in enumerate(counts):
        upper = BUCKETS_MS[index] if index < len(BUCKETS_MS) else lower
        if count:
            yield lower, upper - lower, count
        lower = upper


def _bins_text(counts: Sequence[int]) -> str:
    return ", ".join(f"{lower:g},{width:g}:{count}" for lower, width, count in _bins(counts))


def _number(value: float | None) -> str:
    if value is None:
        return "nan"
    return str(int(value)) if value == int(value) else repr(value)


def as_json(groups: Iterable[GroupSum], keep: Keep, kind: str, mode: str, intervals: Intervals) -> Iterator[str]:
    """`{"stats":[…]}`; the histograms are its last element."""
    found: list[HistogramStat] = []
    separator = '{"stats":['
    for stat in _select(groups, keep, kind, found):
        yield f'{separator}{{"name":{json.dumps(stat.prefix + stat.name)},"value":{stat.value}}}'
        separator = ","
    if found:
        last = json.dumps({"histograms": _histograms_json(found, mode, intervals)}, separators=(",", ":"))
        yield f"{separator}{last}]}}"
    else:
        yield "]}" if separator == "," else '{"stats":[]}'


def _histograms_json(found: Sequence[HistogramStat], mode: str, intervals: Intervals) -> Any:
    if mode == "summary":
        computed = [{"name": h.prefix + h.name, "values": _values(h.counts, intervals(h))} for h in found]
        return {"supported_quantiles": SUPPORTED_PERCENT, "computed_quantiles": computed}
    if mode == "detailed":
        details = [
            {
                "name": h.prefix + h.name,
                "totals": _bins_json(h.counts),
                "intervals": _bins_json(intervals(h)),
                "percentiles": _values(h.counts, intervals(h)),
            }
            for h in found
        ]
        return {"supported_percentiles": SUPPORTED_PERCENT, "details": details}
    shown = cumulative if mode == "cumulative" else lambda counts: list(counts[:-1])
    return [
        {
            "name": h.prefix + h.name,
            "buckets": [
                {"upper_bound": bound, "interval": now, "cumulative": ever}
                for bound, now, ever in zip(BUCKETS_MS, shown(intervals(h)), shown(h.counts), strict=True)
            ],
        }
        for h in found
    ]


def _values(ever: Sequence[int], now: Sequence[int]) -> list[dict[str, float | None]]:
    nothing: list[float | None] = [None] * len(SUPPORTED_PERCENT)
    pairs = zip(quantiles(ever) or nothing, quantiles(now) or nothing, strict=True)
    return [{"cumulative": one, "interval": other} for one, other in pairs]


def _bins_json(counts: Sequence[int]) -> list[dict[str, float]]:
    return [{"lower_bound": lower, "width": width, "count": count} for lower, width, count in _bins(counts)]
