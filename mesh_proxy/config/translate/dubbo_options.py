"""Our own options for Dubbo: of a manager, of a route, of a cluster.

They stand where Envoy carries them without looking inside: those of routes and clusters in the `typed_filter_metadata` of
metadata fields, under the key `mesh_proxy.dubbo`, so that Envoy loads the same file; those of a manager as an entry of
`dubbo_filters`.
"""

from __future__ import annotations

from typing import Any, Final

from mesh_proxy.config.model.dubbo import DubboClusterConfig, DubboPinning, DubboRouteOptions
from mesh_proxy.config.model.route import MirrorPolicyConfig
from mesh_proxy.config.reader import Reader, struct_to_dict
from mesh_proxy.config.translate.common import runtime_fraction

KEY: Final = "mesh_proxy.dubbo"
"""in `typed_filter_metadata`"""
_RETRY_ON: Final = ("connect-failure", "reset")
_MOST_BODY: Final = 0x7FFFFFFF
"""what the length field of a frame can say"""


def metadata_with_options(reader: Reader, name: str, type_name: str) -> tuple[dict[str, Any], Reader | None]:
    """The `filter_metadata` of a Metadata field, and our options beside it, if it has them."""
    inner = reader.sub(name)
    if inner is None:
        return {}, None
    extension, others = inner.extension_of("typed_filter_metadata", KEY)
    for key in others:
        reader.problems.warn(inner.at(f"typed_filter_metadata[{key}]"), "ignored: no filter here reads it")
    if extension is not None and extension.type != type_name:
        raise extension.unsupported(f"set of options here; it must be {type_name}")
    found = extension.reader if extension is not None else None
    values = inner.raw("filter_metadata")
    return {key: struct_to_dict(values[key]) for key in sorted(values)}, found


def route_options(reader: Reader) -> DubboRouteOptions:
    """`mesh_proxy.dubbo.v1.RouteOptions`."""
    retry = reader.sub("retry_policy")
    words: tuple[str, ...] = ()
    retries = 0
    statuses: tuple[int, ...] = ()
    per_try: float | None = None
    if retry is not None:
        words = retry.strings("retry_on")
        statuses = retry.numbers("retriable_statuses")
        retries = retry.number("num_retries", 1)
        per_try = retry.timeout("per_try_timeout")
        for i, word in enumerate(words):
            if word not in _RETRY_ON:
                raise retry.error(f"must be one of {', '.join(_RETRY_ON)}, not {word!r}", f"retry_on[{i}]")
        for i, status in enumerate(statuses):
            if not 0 < status < 256 or status == 20:
                raise retry.error("must be a response status other than 20 (OK), at most 255", f"retriable_statuses[{i}]")
        if not words and not statuses:
            raise retry.error("needs one of retry_on, retriable_statuses")
    return DubboRouteOptions(
        timeout_s=reader.timeout("timeout"),
        use_request_timeout=reader.flag("use_request_timeout"),
        per_try_timeout_s=per_try,
        retries=retries,
        retry_on_connect_failure="connect-failure" in words,
        retry_on_reset="reset" in words,
        retry_on_statuses=statuses,
        mirrors=reader.each("request_mirror_policies", _mirror),
        fallback_cluster=reader.text("fallback_cluster"),
    )


def _mirror(reader: Reader) -> MirrorPolicyConfig:
    cluster = reader.text("cluster")
    if not cluster:
        raise reader.error("is required", "cluster")
    return MirrorPolicyConfig(cluster=cluster, fraction=runtime_fraction(reader.sub("runtime_fraction")))


def body_limit(reader: Reader) -> int:
    """`max_body_bytes` of a manager or a cluster."""
    limit = reader.number("max_body_bytes", 8 * 1024 * 1024)
    if not 0 < limit <= _MOST_BODY:
        raise reader.error(f"must be between 1 and {_MOST_BODY}", "max_body_bytes")
    return limit


def cluster_options(reader: Reader) -> DubboClusterConfig:
    """`mesh_proxy.dubbo.v1.ClusterOptions`."""
    connections = reader.number("connections_per_endpoint", 1)
    if not 0 < connections <= 1024:
        raise reader.error("must be between 1 and 1024", "connections_per_endpoint")
    pinning = reader.text("pinning", "AUTO")
    if pinning not in DubboPinning.__members__:
        raise reader.error(f"must be one of {', '.join(DubboPinning.__members__)}", "pinning")
    interval = reader.timeout("heartbeat_interval", 60.0)
    timeout = reader.seconds("heartbeat_timeout", 180.0) or 0.0
    if interval is not None and timeout < interval:
        raise reader.error("must be at least heartbeat_interval", "heartbeat_timeout")
    return DubboClusterConfig(
        connections_per_endpoint=connections,
        heartbeat_interval_s=interval,
        heartbeat_timeout_s=timeout,
        idle_timeout_s=reader.timeout("idle_timeout"),
        pinning=DubboPinning[pinning],
        max_body_bytes=body_limit(reader),
    )
