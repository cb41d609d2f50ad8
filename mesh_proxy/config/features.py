"""What the data path can do already, where the translation can do more: one table to flip when a feature lands."""

from __future__ import annotations

from typing import Final

LISTENER_FILTERS: Final[set[str]] = set()
"""listener filters that run, of `original_dst`, `tls_inspector`, `http_inspector`, `proxy_protocol`"""

UPSTREAM_PROTOCOLS: Final[set[str]] = {"HTTP1"}
"""of `HTTP1`, `HTTP2`, `DOWNSTREAM`, `AUTO`"""

DOWNSTREAM_CODECS: Final[set[str]] = {"AUTO", "HTTP1"}
"""of `AUTO`, `HTTP1`, `HTTP2`; AUTO is HTTP/1 alone as long as HTTP2 is missing"""

LB_POLICIES: Final[set[str]] = {"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "CLUSTER_PROVIDED"}
"""of `ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `RING_HASH`, `MAGLEV`, `CLUSTER_PROVIDED`"""

CLUSTER_TYPES: Final[set[str]] = {"STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST"}
"""of these and `EDS`"""

OTHER: Final[set[str]] = {"outlier_detection"}
"""of `local_reply`, `mirror`, `outlier_detection`, `rds`"""
