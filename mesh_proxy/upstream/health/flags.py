"""What active health checks say of an endpoint, as bits (Envoy: `Host::HealthFlag`). 0: it is not checked, or it is well."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""not to be called"""
PENDING: Final = 2
"""not checked yet, and left out of the percentages until then (`ignore_new_hosts_until_first_hc`)"""
DEGRADED: Final = 4
"""it answered with `x-envoy-degraded`"""
TIMED_OUT: Final = 8
"""the last failure was silence"""
EXCLUDED: Final = 16
"""it asked not to be called (`x-envoy-immediate-health-check-fail`), which is no sign that the cluster is ill"""
REMOVAL: Final = 32
"""discovery dropped it, but it is well: it goes once a check fails"""

NAMES: Final = (
    (FAILED, "failed_active_hc"),
    (DEGRADED, "degraded_active_hc"),
    (REMOVAL, "pending_dynamic_removal"),
    (PENDING, "pending_active_hc"),
    (EXCLUDED, "excluded_via_immediate_hc_fail"),
    (TIMED_OUT, "active_hc_timeout"),
)
"""in Envoy's order and words"""
