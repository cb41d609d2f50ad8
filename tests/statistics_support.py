"""All that a data plane has counted, to be compared with what another has."""

from __future__ import annotations

from collections.abc import Iterator

from plane_support import Plane

LATE = {"downstream_cx_destroy_remote", "downstream_cx_destroy", "downstream_cx_active", "downstream_cx_destroy_local"}
"""what the ends of connections count: they come when the loop comes to it"""


def counted(proxy: Plane) -> Iterator[tuple[str, str, object]]:
    """All statistics; of times how many there are."""
    for group in proxy.data.registry:
        for name in (*group.COUNTERS, *group.GAUGES):
            if name not in LATE and "cx_length" not in name and "tx_bytes" not in name:
                yield group.prefix, name, getattr(group, name)
        for name in group.HISTOGRAMS:
            if "length" not in name:
                yield group.prefix, name, sum(getattr(group, name).counts)
        if group.CODES:
            yield group.prefix, "codes", dict(group.codes)  # type: ignore[attr-defined]
        for name in ("internal_codes", "external_codes"):
            if hasattr(group, name):
                yield group.prefix, name, dict(getattr(group, name))
