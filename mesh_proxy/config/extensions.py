"""Extensions: from a type url to the protobuf module that knows the type, imported only when the url occurs.

Every generated module costs memory, hence this one table instead of importing them all. A type that is not listed is unknown
to us, whatever Envoy does with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

_EXT = "envoy.extensions"
MODULES: dict[str, str] = {
    # Network filters.
    f"{_EXT}.filters.network.http_connection_manager.v3.HttpConnectionManager": (
        f"{_EXT}.filters.network.http_connection_manager.v3.http_connection_manager_pb2"
    ),
    f"{_EXT}.filters.network.tcp_proxy.v3.TcpProxy": f"{_EXT}.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    f"{_EXT}.filters.network.connection_limit.v3.ConnectionLimit": (
        f"{_EXT}.filters.network.connection_limit.v3.connection_limit_pb2"
    ),
    f"{_EXT}.filters.network.local_ratelimit.v3.LocalRateLimit": (
        f"{_EXT}.filters.network.local_ratelimit.v3.local_rate_limit_pb2"
    ),
    f"{_EXT}.filters.network.dubbo_proxy.v3.DubboProxy": f"{_EXT}.filters.network.dubbo_proxy.v3.dubbo_proxy_pb2",
    f"{_EXT}.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration": f"{_EXT}.filters.network.dubbo_proxy.v3.route_pb2",
    f"{_EXT}.filters.network.dubbo_proxy.router.v3.Router": f"{_EXT}.filters.network.dubbo_proxy.router.v3.router_pb2",
    # Ours.
    "mesh_proxy.dubbo.v1.RouteOptions": "mesh_proxy.config.dubbo_protos",
    "mesh_proxy.dubbo.v1.ManagerOptions": "mesh_proxy.config.dubbo_protos",
    "mesh_proxy.dubbo.v1.ClusterOptions": "mesh_proxy.config.dubbo_protos",
    # Istio's.
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig": "mesh_proxy.config.istio_protos",
    "envoy.tcp.metadataexchange.config.MetadataExchange": "mesh_proxy.config.istio_protos",
    f"{_EXT}.filters.http.wasm.v3.Wasm": f"{_EXT}.filters.http.wasm.v3.wasm_pb2",
    f"{_EXT}.filters.network.wasm.v3.Wasm": f"{_EXT}.filters.network.wasm.v3.wasm_pb2",
    # HTTP filters.
    f"{_EXT}.filters.http.router.v3.Router": f"{_EXT}.filters.http.router.v3.router_pb2",
    "envoy.config.route.v3.FilterConfig": "envoy.config.route.v3.route_components_pb2",
    **{
        f"{_EXT}.filters.http.{name}.v3.{message}": f"{_EXT}.filters.http.{name}.v3.{module}_pb2"
        for name, module, messages in (
            ("adaptive_concurrency", "adaptive_concurrency", ("AdaptiveConcurrency",)),
            ("admission_control", "admission_control", ("AdmissionControl",)),
            ("buffer", "buffer", ("Buffer", "BufferPerRoute")),
            ("cors", "cors", ("Cors", "CorsPolicy")),
            ("fault", "fault", ("HTTPFault",)),
            ("grpc_stats", "config", ("FilterConfig",)),
            ("grpc_web", "grpc_web", ("GrpcWeb",)),
            ("header_mutation", "header_mutation", ("HeaderMutation", "HeaderMutationPerRoute")),
            ("health_check", "health_check", ("HealthCheck",)),
            ("ip_tagging", "ip_tagging", ("IPTagging",)),
            ("local_ratelimit", "local_rate_limit", ("LocalRateLimit",)),
            ("jwt_authn", "config", ("JwtAuthentication", "PerRouteConfig")),
            ("ext_authz", "ext_authz", ("ExtAuthz", "ExtAuthzPerRoute")),
            ("ratelimit", "rate_limit", ("RateLimit", "RateLimitPerRoute")),
            ("rbac", "rbac", ("RBAC", "RBACPerRoute")),
        )
        for message in messages
    },
    f"{_EXT}.filters.network.rbac.v3.RBAC": f"{_EXT}.filters.network.rbac.v3.rbac_pb2",
    f"{_EXT}.path.match.uri_template.v3.UriTemplateMatchConfig": f"{_EXT}.path.match.uri_template.v3.uri_template_match_pb2",
    # Listener filters.
    f"{_EXT}.filters.listener.original_dst.v3.OriginalDst": f"{_EXT}.filters.listener.original_dst.v3.original_dst_pb2",
    f"{_EXT}.filters.listener.original_src.v3.OriginalSrc": f"{_EXT}.filters.listener.original_src.v3.original_src_pb2",
    f"{_EXT}.filters.listener.tls_inspector.v3.TlsInspector": f"{_EXT}.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    f"{_EXT}.filters.listener.http_inspector.v3.HttpInspector": (f"{_EXT}.filters.listener.http_inspector.v3.http_inspector_pb2"),
    f"{_EXT}.filters.listener.proxy_protocol.v3.ProxyProtocol": (f"{_EXT}.filters.listener.proxy_protocol.v3.proxy_protocol_pb2"),
    # Access loggers.
    f"{_EXT}.access_loggers.file.v3.FileAccessLog": f"{_EXT}.access_loggers.file.v3.file_pb2",
    f"{_EXT}.access_loggers.stream.v3.StdoutAccessLog": f"{_EXT}.access_loggers.stream.v3.stream_pb2",
    f"{_EXT}.access_loggers.stream.v3.StderrAccessLog": f"{_EXT}.access_loggers.stream.v3.stream_pb2",
    # Transport sockets.
    f"{_EXT}.transport_sockets.raw_buffer.v3.RawBuffer": f"{_EXT}.transport_sockets.raw_buffer.v3.raw_buffer_pb2",
    f"{_EXT}.transport_sockets.tls.v3.DownstreamTlsContext": f"{_EXT}.transport_sockets.tls.v3.tls_pb2",
    f"{_EXT}.transport_sockets.tls.v3.UpstreamTlsContext": f"{_EXT}.transport_sockets.tls.v3.tls_pb2",
    f"{_EXT}.transport_sockets.tls.v3.Secret": f"{_EXT}.transport_sockets.tls.v3.secret_pb2",
    f"{_EXT}.transport_sockets.tls.v3.SPIFFECertValidatorConfig": (
        f"{_EXT}.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2"
    ),
    # Upstreams and retries.
    f"{_EXT}.upstreams.http.v3.HttpProtocolOptions": f"{_EXT}.upstreams.http.v3.http_protocol_options_pb2",
    f"{_EXT}.retry.host.previous_hosts.v3.PreviousHostsPredicate": f"{_EXT}.retry.host.previous_hosts.v3.previous_hosts_pb2",
    f"{_EXT}.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate": (
        f"{_EXT}.retry.host.omit_canary_hosts.v3.omit_canary_hosts_pb2"
    ),
    f"{_EXT}.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig": (
        f"{_EXT}.retry.host.omit_host_metadata.v3.omit_host_metadata_config_pb2"
    ),
    # Odds and ends.
    f"{_EXT}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig": (
        f"{_EXT}.resource_monitors.downstream_connections.v3.downstream_connections_pb2"
    ),
    f"{_EXT}.request_id.uuid.v3.UuidRequestIdConfig": f"{_EXT}.request_id.uuid.v3.uuid_pb2",
    f"{_EXT}.http.original_ip_detection.xff.v3.XffConfig": f"{_EXT}.http.original_ip_detection.xff.v3.xff_pb2",
    f"{_EXT}.regex_engines.v3.GoogleRE2": f"{_EXT}.regex_engines.v3.google_re2_pb2",
    f"{_EXT}.network.dns_resolver.cares.v3.CaresDnsResolverConfig": (
        f"{_EXT}.network.dns_resolver.cares.v3.cares_dns_resolver_pb2"
    ),
    f"{_EXT}.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig": (
        f"{_EXT}.network.dns_resolver.getaddrinfo.v3.getaddrinfo_dns_resolver_pb2"
    ),
    "xds.type.v3.TypedStruct": "xds.type.v3.typed_struct_pb2",
    "udpa.type.v1.TypedStruct": "udpa.type.v1.typed_struct_pb2",
    "google.protobuf.Struct": "google.protobuf.struct_pb2",
    "google.protobuf.Empty": "google.protobuf.empty_pb2",
    "google.protobuf.StringValue": "google.protobuf.wrappers_pb2",
}
"""full name of the message → module; a filter's own loader adds its types by `register`"""

discover: Callable[[str], None] | None = None
"""asked for a type that is not in the table: may register it (`mesh_proxy.config.registry` looks among installed filters)"""

TYPED_STRUCTS = frozenset({"xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"})


def register(full_name: str, module: str) -> None:
    """Make a message type known that a filter's loader understands."""
    MODULES[full_name] = module


def type_name(url: str) -> str:
    """`type.googleapis.com/envoy.a.B` → `envoy.a.B`."""
    return url.rpartition("/")[2]


def new_message(url: str) -> Message | None:
    """An empty message of the type that `url` names, its module imported on the way; None if the type is not in the table."""
    name = type_name(url)
    module = MODULES.get(name)
    if module is None and discover is not None:
        discover(name)
        module = MODULES.get(name)
    if module is None:
        return None
    importlib.import_module(module)
    descriptor: Any = descriptor_pool.Default().FindMessageTypeByName(name)
    message: Message = message_factory.GetMessageClass(descriptor)()
    return message
