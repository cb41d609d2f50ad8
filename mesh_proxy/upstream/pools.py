"""Which pool carries a request: by the protocol of the cluster, or of the request if the cluster says so, and the priority."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh_codecs.errors import ResetReason
from mesh_codecs.http1 import Http1Settings
from mesh_codecs.http2 import Http2Settings
from mesh_proxy.upstream.http1_pool import Http1Pool
from mesh_proxy.upstream.http2_pool import Http2Pool
from mesh_proxy.upstream.pool import ConnectionPool
from mesh_proxy.upstream.source_pools import make_room

if TYPE_CHECKING:
    from mesh_proxy.config.model import ClusterConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.network.original_source import OriginalSource
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamCallbacks

LEAST_HEADER_BLOCK: int = 65_536
"""compressed bytes of a header block that are always accepted"""


class FullPool(ConnectionPool[Any]):
    """Stands for the pool of a caller's address when the endpoint has too many of them."""

    __slots__ = ()

    def acquire(self, callbacks: UpstreamCallbacks) -> None:
        """There is none."""
        self.cluster.stats.upstream_cx_pool_overflow += 1
        callbacks.on_pool_failure(ResetReason.OVERFLOW, "", self.endpoint)

    def drain(self) -> None:
        """It has nothing."""


def pool_for(
    context: WorkerContext,
    cluster: Cluster,
    endpoint: Endpoint,
    *,
    high_priority: bool,
    http_version: bytes,
    alpn: Mapping[str, tuple[str, ...]] | None = None,
    source: OriginalSource | None = None,
) -> ConnectionPool[Any]:
    """The pool of an endpoint for a priority and protocol, made at the first request. `http_version` is that of the request:
    it decides for a cluster with `use_downstream_protocol_config`. `alpn`: what TLS offers instead of what the cluster says.
    `source`: what the connections are bound to instead of what the cluster says."""
    protocol = cluster.config.upstream_protocol
    if protocol == "HTTP2" or (protocol == "DOWNSTREAM" and http_version == b"HTTP/2"):
        key = "http2 high" if high_priority else "http2"
    else:
        key = "http1 high" if high_priority else "http1"
    offered: tuple[str, ...] = ()
    if alpn is not None and endpoint.tls is not None and cluster.alpn_may_change:
        offered = alpn[key[:5]]
        key = f"{key} {','.join(offered)}"
    if source is not None:
        key = f"{key} {source.key}"
    pool: ConnectionPool[Any] | None = endpoint.pools.get(key)
    if pool is None:
        resources = cluster.high if high_priority else cluster.default
        if source is not None and not make_room(context, endpoint):
            return FullPool(context, cluster, endpoint, resources)
        if key.startswith("http2"):
            pool = Http2Pool(context, cluster, endpoint, resources, http2_settings(cluster.config))
        else:
            pool = Http1Pool(context, cluster, endpoint, resources, http1_settings(cluster.config))
        pool.alpn = offered
        if source is not None:
            pool.belongs_to(source, key)
        endpoint.pools[key] = pool
    return pool


def http1_settings(config: ClusterConfig) -> Http1Settings:
    """What a cluster says about HTTP/1."""
    return Http1Settings(
        max_head_bytes=config.max_response_headers_kb * 1024,
        max_header_count=config.max_response_headers_count,
        enable_trailers=config.http1_enable_trailers,
    )


def http2_settings(config: ClusterConfig) -> Http2Settings:
    """What a cluster says about HTTP/2."""
    options = config.http2
    return Http2Settings(
        hpack_table_size=options.hpack_table_size,
        max_concurrent_streams=options.max_concurrent_streams,
        initial_stream_window_size=options.initial_stream_window_size,
        initial_connection_window_size=options.initial_connection_window_size,
        stream_error_on_invalid_http_message=options.bad_message_ends_stream_only,
        max_header_list_size=config.max_response_headers_kb * 1024,
        max_headers_count=config.max_response_headers_count,
        max_header_block_size=max(config.max_response_headers_kb * 1024, LEAST_HEADER_BLOCK),
        max_outbound_frames=options.max_outbound_frames,
        max_outbound_control_frames=options.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload=options.max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream=options.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent=options.max_inbound_window_update_frames_per_data_frame_sent,
        keepalive_interval=options.keepalive_interval_s,
        keepalive_timeout=options.keepalive_timeout_s or Http2Settings().keepalive_timeout,
    )
