"""Tags of a statistic for Prometheus: parts of the name that become labels (Envoy: source/common/config/well_known_names.cc).

Envoy applies regular expressions to the whole name and ends a cluster's name at the first dot, so that
`cluster.a.example.upstream_rq_total` becomes `envoy_cluster_example_upstream_rq_total{envoy_cluster_name="a"}`. Here the
prefix of the group says where the name ends, and the label holds all of it: this is the one difference that is meant.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

Tags = tuple[tuple[str, str], ...]

_CLUSTER: Final = re.compile(
    r"cluster\.(.+?)\.((?:circuit_breakers\.(?:default|high)|outlier_detection|health_check|ssl|retry|external|internal"
    r"|http1|http2|http3|default|zone\.[^.]+\.[^.]+|canary)\.)?\Z"
)
_LISTENER: Final = re.compile(r"listener\.((?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[a-fA-F_\d]+\])_\d+)\.(.*)\Z")
_LISTENER_HTTP: Final = re.compile(r"(listener\..*?)?\bhttp\.([^.]+)\.(.*)\Z")
_SIMPLE: Final = (
    ("tcp", "envoy_tcp_prefix"),
    ("udp", "envoy_udp_prefix"),
    ("ratelimit", "envoy_ratelimit_prefix"),
    ("vhost", "envoy_virtual_host"),
    ("dubbo", "envoy_dubbo_prefix"),
)
_RESPONSE_CODE: Final = re.compile(r"(.*_rq)_(\d{3})\Z")
_RESPONSE_CLASS: Final = re.compile(r"(.*_rq)_(\d)xx\Z")
_WORKER: Final = re.compile(r"worker_(\d+)\.(.*)\Z")
_NOT_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=1024)
def prefix_tags(prefix: str) -> tuple[str, Tags]:
    """What is left of a group's prefix, and its tags."""
    if found := _CLUSTER.match(prefix):
        return f"cluster.{found[2] or ''}", (("envoy_cluster_name", found[1]),)
    tags: Tags = ()
    if prefix.startswith(("http.", "listener.")) and (found := _LISTENER_HTTP.match(prefix)):
        tags = (("envoy_http_conn_manager_prefix", found[2]),)
        prefix = f"{found[1] or ''}http.{found[3]}"
    if found := _LISTENER.match(prefix):
        tags = (*tags, ("envoy_listener_address", found[1]))
        prefix = f"listener.{found[2]}"
    for first, tag in _SIMPLE:
        if prefix.startswith(f"{first}."):
            value, _, rest = prefix[len(first) + 1 :].partition(".")
            return f"{first}.{rest}", (*tags, (tag, value))
    return prefix, tags


@lru_cache(maxsize=4096)
def name_tags(name: str) -> tuple[str, Tags]:
    """What is left of the name within a group, and its tags."""
    if found := _RESPONSE_CODE.match(name):
        return found[1], (("envoy_response_code", found[2]),)
    if found := _RESPONSE_CLASS.match(name):
        return f"{found[1]}_xx", (("envoy_response_code_class", found[2]),)
    if found := _WORKER.match(name):
        return f"worker.{found[2]}", (("envoy_worker_id", found[1]),)
    return name, ()


@lru_cache(maxsize=4096)
def metric_name(rest_of_prefix: str, rest_of_name: str) -> str:
    """`envoy_` and what is left of prefix and name, with underscores for what Prometheus does not take."""
    return "envoy_" + _NOT_A_NAME.sub("_", rest_of_prefix + rest_of_name)


def label_text(tags: Tags) -> str:
    """`a="b",c="d"`, escaped by the text format's rules."""
    return ",".join(f'{_NOT_A_NAME.sub("_", name)}="{escape(value)}"' for name, value in tags)


def escape(value: str) -> str:
    """A label value (Prometheus text format)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
