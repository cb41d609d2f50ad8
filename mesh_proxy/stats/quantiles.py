"""Quantiles of a bucketed histogram, as `/stats` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mesh_proxy.stats.group import BUCKETS_MS

SUPPORTED: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
"""Envoy's (source/common/stats/histogram_impl.cc)"""
SUPPORTED_PERCENT: Final = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)


def quantiles(counts: Sequence[int]) -> list[float] | None:
    """The supported quantiles by linear interpolation within a bucket; None when nothing was recorded.

    Envoy keeps finer bins (two decimal digits), so its figures are nearer the truth than ours can be.
    """
    total = sum(counts)
    if not total:
        return None
    found = []
    for quantile in SUPPORTED:
        target = quantile * total
        before = 0
        value = 0.0
        for index, count in enumerate(counts):
            if count and before + count >= target:
                lower = BUCKETS_MS[index - 1] if index else 0.0
                upper = BUCKETS_MS[index] if index < len(BUCKETS_MS) else lower
                value = lower + (upper - lower) * max(0.0, target - before) / count
                break
            before += count
        found.append(value)
    return found


def cumulative(counts: Sequence[int]) -> list[int]:
    """Number of values up to each bound of BUCKETS_MS; the bucket beyond the last bound is left out, as Envoy does."""
    found, so_far = [], 0
    for count in counts[:-1]:
        so_far += count
        found.append(so_far)
    return found
