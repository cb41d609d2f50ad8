"""How a cluster speaks HTTP to its endpoints: `HttpProtocolOptions`, or the older fields of the cluster itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh_proxy.config import features
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.http2 import Http2Config
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PROTOCOLS = {"http_protocol_options": "HTTP1", "http2_protocol_options": "HTTP2"}


@dataclass(slots=True)
class UpstreamOptions:
    """The fields of ClusterConfig that protocol options decide."""

    protocol: str = "HTTP1"
    idle_timeout_s: float | None = 3600.0
    max_connection_duration_s: float | None = None
    max_requests_per_connection: int = 0
    max_stream_duration_s: float | None = None
    max_response_headers_kb: int = 60
    max_response_headers_count: int = 100
    http1_enable_trailers: bool = False
    http2: Http2Config = field(default_factory=Http2Config)


def upstream_options(cluster: Reader) -> UpstreamOptions:
    """The protocol options of a cluster."""
    options = UpstreamOptions()
    given = cluster.extensions("typed_extension_protocol_options")
    for name, extension in given:
        if extension.type != OPTIONS:
            raise ConfigError(extension.path, f"{extension.type} is not supported as protocol options")
        if name != OPTIONS:
            raise cluster.error(f"the key must be {OPTIONS}", f"typed_extension_protocol_options[{name}]")
        _typed(extension.reader, options)
    if not given:
        _old(cluster, options)
    return options


def _typed(reader: Reader, options: UpstreamOptions) -> None:
    common = reader.sub("common_http_protocol_options")
    if common is not None:
        _common(common, options)
    kind = reader.oneof("upstream_protocol_options")
    inner = required(reader, kind)
    if kind == "explicit_http_config":
        which = inner.oneof("protocol_config")
        _choose(inner, which, _PROTOCOLS.get(which, "HTTP3"), options)
        _details(inner, options)
    elif kind == "use_downstream_protocol_config":
        _choose(reader, kind, "DOWNSTREAM", options)
        _details(inner, options)
    else:
        _choose(reader, kind, "AUTO", options)
        _details(inner, options)


def _choose(reader: Reader, field: str, protocol: str, options: UpstreamOptions) -> None:
    if protocol not in features.UPSTREAM_PROTOCOLS:
        if protocol == "AUTO":
            raise reader.error("choosing the protocol by ALPN is not supported", field)
        raise reader.error(f"{_NAMES[protocol]} is not supported for clusters", field)
    options.protocol = protocol


_NAMES = {
    "HTTP1": "HTTP/1",
    "HTTP2": "HTTP/2",
    "HTTP3": "HTTP/3",
    "DOWNSTREAM": "using the protocol of the request",
}


def _details(reader: Reader, options: UpstreamOptions) -> None:
    """The options of the single protocols, which stand side by side in every form."""
    http1, http2 = reader.sub("http_protocol_options"), reader.sub("http2_protocol_options")
    if http1 is not None:
        options.http1_enable_trailers = http1.flag("enable_trailers")
    if http2 is not None:
        options.http2 = http2_options(http2)


def http2_options(reader: Reader) -> Http2Config:
    """`Http2ProtocolOptions`, of a cluster or of a listener."""
    keepalive = reader.sub("connection_keepalive")
    return Http2Config(
        hpack_table_size=reader.number("hpack_table_size", 4096),
        max_concurrent_streams=reader.number("max_concurrent_streams", 1024),
        initial_stream_window_size=reader.number("initial_stream_window_size", 16 * 1024 * 1024),
        initial_connection_window_size=reader.number("initial_connection_window_size", 24 * 1024 * 1024),
        allow_connect=reader.flag("allow_connect"),
        max_outbound_frames=reader.number("max_outbound_frames", 10_000),
        max_outbound_control_frames=reader.number("max_outbound_control_frames", 1000),
        max_consecutive_inbound_frames_with_empty_payload=reader.number("max_consecutive_inbound_frames_with_empty_payload", 1),
        max_inbound_priority_frames_per_stream=reader.number("max_inbound_priority_frames_per_stream", 100),
        max_inbound_window_update_frames_per_data_frame_sent=reader.number(
            "max_inbound_window_update_frames_per_data_frame_sent", 10
        ),
        bad_message_ends_stream_only=reader.flag(
            "override_stream_error_on_invalid_http_message", reader.flag("stream_error_on_invalid_http_messaging")
        ),
        keepalive_interval_s=keepalive.seconds("interval") if keepalive is not None else None,
        keepalive_timeout_s=keepalive.seconds("timeout") if keepalive is not None else None,
        keepalive_jitter_percent=keepalive.percent("interval_jitter", 15.0) if keepalive is not None else 15.0,
        connection_idle_interval_s=keepalive.seconds("connection_idle_interval") if keepalive is not None else None,
    )


def _common(reader: Reader, options: UpstreamOptions) -> None:
    options.idle_timeout_s = reader.timeout("idle_timeout", 3600.0)
    options.max_connection_duration_s = reader.timeout("max_connection_duration")
    options.max_requests_per_connection = reader.number("max_requests_per_connection")
    options.max_stream_duration_s = reader.timeout("max_stream_duration")
    reader.enum("headers_with_underscores_action")  # about callers' headers: without effect here, as Envoy documents
    options.max_response_headers_kb = reader.number("max_response_headers_kb", 60)
    options.max_response_headers_count = reader.number("max_headers_count", 100)


def _old(cluster: Reader, options: UpstreamOptions) -> None:
    """The deprecated fields of the cluster, which Envoy reads only without HttpProtocolOptions."""
    common = cluster.sub("common_http_protocol_options")
    if common is not None:
        _common(common, options)
    requests = cluster.optional_number("max_requests_per_connection")
    if requests is not None:
        options.max_requests_per_connection = requests
    if cluster.enum("protocol_selection") == "USE_DOWNSTREAM_PROTOCOL":
        _choose(cluster, "protocol_selection", "DOWNSTREAM", options)
    elif cluster.has("http2_protocol_options"):
        _choose(cluster, "http2_protocol_options", "HTTP2", options)
    _details(cluster, options)
