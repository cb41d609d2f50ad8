"""The Prometheus text format with Envoy's metric names and labels.

It is written here and not by a library, because Prometheus' own would rename every counter (`…_total`), and dashboards made for
Envoy ask for Envoy's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mesh_proxy.stats.aggregate import GroupSum
from mesh_proxy.stats.group import BUCKETS_MS
from mesh_proxy.stats.names import COUNTER, histograms, scalars
from mesh_proxy.stats.tags import Tags, label_text, metric_name, name_tags, prefix_tags


def prometheus_text(groups: Iterable[GroupSum], keep: Callable[[str, bool], bool], stats_tags: Tags = ()) -> Iterator[str]:
    """Counters, then gauges, then histograms, each family together under its TYPE line.

    Families can only be written when every group was seen; the empty strings meanwhile let the caller turn to other things.
    """
    counters: dict[str, list[str]] = {}
    gauges: dict[str, list[str]] = {}
    distributions: dict[str, list[str]] = {}
    for group in groups:
        rest, tags = prefix_tags(group.prefix)
        for stat in scalars(group):
            if keep(stat.prefix + stat.name, stat.used):
                name, more = name_tags(stat.name)
                metric = metric_name(rest, name)
                families = counters if stat.kind == COUNTER else gauges
                families.setdefault(metric, []).append(f"{{{label_text((*more, *tags, *stats_tags))}}} {stat.value}\n")
        for histogram in histograms(group):
            if keep(histogram.prefix + histogram.name, any(histogram.counts)):
                metric = metric_name(rest, histogram.name)
                labels = label_text((*tags, *stats_tags))
                distributions.setdefault(metric, []).append(_distribution(metric, labels, histogram.counts, histogram.total))
        yield ""
    for kind, families in (("counter", counters), ("gauge", gauges)):
        for metric in sorted(families):
            yield f"# TYPE {metric} {kind}\n"
            for line in families[metric]:
                yield metric + line
    for metric in sorted(distributions):
        yield f"# TYPE {metric} histogram\n"
        yield from distributions[metric]


def _distribution(metric: str, labels: str, counts: list[int], total: float) -> str:
    comma = "," if labels else ""
    lines = []
    so_far = 0
    for bound, count in zip(BUCKETS_MS, counts, strict=False):
        so_far += count
        lines.append(f'{metric}_bucket{{{labels}{comma}le="{_bound(bound)}"}} {so_far}\n')
    everything = sum(counts)
    lines.append(f'{metric}_bucket{{{labels}{comma}le="+Inf"}} {everything}\n')
    lines.append(f"{metric}_sum{{{labels}}} {total:.17g}\n")
    lines.append(f"{metric}_count{{{labels}}} {everything}\n")
    return "".join(lines)


def _bound(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
