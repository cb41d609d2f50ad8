"""The HTTP connection manager and the chain of HTTP filters, whose last one is the router."""

from __future__ import annotations

from mesh_proxy.config import features, registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.istio_protos import ALPN
from mesh_proxy.config.model.http import (
    Http1Config,
    HttpFilterConfig,
    HttpManagerConfig,
    LocalReplyConfig,
    LocalReplyMapperConfig,
    RouterFilterConfig,
)
from mesh_proxy.config.model.http2 import Http2Config
from mesh_proxy.config.model.route import RouteTableConfig, UpgradeConfig
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.access_log import access_log, access_log_filter, body_format
from mesh_proxy.config.translate.common import cidr, header_value_option, required, text_of
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.istio import alpn_overrides, left_out, without_exchange
from mesh_proxy.config.translate.protocol import http2_options
from mesh_proxy.config.translate.route import route_table
from mesh_proxy.config.translate.source import reference
from mesh_proxy.stats.group import sanitize

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_UUID = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
_XFF = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"
_SLASHES = {"IMPLEMENTATION_SPECIFIC_DEFAULT": "KEEP_UNCHANGED"}


def http_manager(reader: Reader, context: Context) -> HttpManagerConfig:
    """`HttpConnectionManager`."""
    codec = reader.enum("codec_type")
    if codec not in features.DOWNSTREAM_CODECS:
        raise reader.error(f"{codec} is not supported", "codec_type")
    http2 = reader.sub("http2_protocol_options")
    if http2 is not None and "HTTP2" not in features.DOWNSTREAM_CODECS:
        raise reader.error("HTTP/2 is not supported", "http2_protocol_options")
    table, rds = _routes(reader, context)
    alpn: dict[str, tuple[str, ...]] = {}
    filters, router = _filters(reader, context, alpn)
    log = reader.sub("access_log_options")
    interval = reader.seconds("access_log_flush_interval")
    on_new = reader.flag("flush_access_log_on_new_request")
    if log is not None:
        interval = log.seconds("access_log_flush_interval", interval)
        on_new = log.flag("flush_access_log_on_new_request") or on_new
    internal = reader.sub("internal_address_config")
    scheme = reader.sub("scheme_header_transformation")
    http1 = reader.sub("http_protocol_options")
    pack, sampling = _request_id(reader)
    common = reader.sub("common_http_protocol_options")
    use_remote_address = reader.flag("use_remote_address")
    stripped = reader.flag("strip_matching_host_port"), reader.flag("strip_any_host_port")
    if all(stripped):
        raise reader.error("cannot be given together with strip_matching_host_port", "strip_any_host_port")
    local_reply = reader.sub("local_reply_config")
    http2_config = http2_options(http2) if http2 is not None else Http2Config()
    slashes = reader.enum("path_with_escaped_slashes_action")
    return HttpManagerConfig(
        stat_prefix=reader.text("stat_prefix"),
        codec_type=codec,
        route_table=table,
        rds=rds,
        filters=filters,
        router=router,
        alpn_overrides=tuple(alpn.items()),
        access_logs=reader.each("access_log", access_log),
        access_log_flush_interval_s=interval,
        access_log_on_new_request=on_new,
        server_name=reader.text("server_name", "envoy"),
        server_header_transformation=reader.enum("server_header_transformation"),
        scheme_to_overwrite=scheme.text("scheme_to_overwrite") if scheme is not None else "",
        use_remote_address=use_remote_address,
        xff_num_trusted_hops=_trusted_hops(reader, use_remote_address),
        skip_xff_append=reader.flag("skip_xff_append"),
        append_x_forwarded_port=reader.flag("append_x_forwarded_port"),
        internal_cidr_ranges=internal.each("cidr_ranges", cidr) if internal is not None else (),
        unix_sockets_internal=internal.flag("unix_sockets") if internal is not None else False,
        via=reader.text("via"),
        generate_request_id=reader.flag("generate_request_id", True),
        request_id_pack_trace_reason=pack,
        request_id_for_trace_sampling=sampling,
        preserve_external_request_id=reader.flag("preserve_external_request_id"),
        always_set_request_id_in_response=reader.flag("always_set_request_id_in_response"),
        add_user_agent=reader.flag("add_user_agent"),
        http1=http1_options(http1) if http1 is not None else Http1Config(),
        http2=http2_config,
        max_request_headers_kb=reader.number("max_request_headers_kb", 60),
        max_headers_count=common.number("max_headers_count", 100) if common is not None else 100,
        max_requests_per_connection=common.number("max_requests_per_connection") if common is not None else 0,
        max_connection_duration_s=common.timeout("max_connection_duration") if common is not None else None,
        max_stream_duration_s=common.timeout("max_stream_duration") if common is not None else None,
        headers_with_underscores_action=common.enum("headers_with_underscores_action") if common is not None else "ALLOW",
        idle_timeout_s=common.timeout("idle_timeout", 3600.0) if common is not None else 3600.0,
        stream_idle_timeout_s=reader.timeout("stream_idle_timeout", 300.0),
        request_timeout_s=reader.timeout("request_timeout"),
        request_headers_timeout_s=reader.timeout("request_headers_timeout"),
        drain_timeout_s=reader.seconds("drain_timeout", 5.0) or 0.0,
        delayed_close_timeout_s=reader.seconds("delayed_close_timeout", 1.0) or 0.0,
        normalize_path=reader.flag("normalize_path"),
        merge_slashes=reader.flag("merge_slashes"),
        path_with_escaped_slashes_action=_SLASHES.get(slashes, slashes),
        strip_matching_host_port=stripped[0],
        strip_any_host_port=stripped[1],
        strip_trailing_host_dot=reader.flag("strip_trailing_host_dot"),
        upgrades=_upgrades(reader),
        stream_error_on_invalid_http_message=reader.flag("stream_error_on_invalid_http_message"),
        proxy_100_continue=reader.flag("proxy_100_continue"),
        forward_client_cert_details=reader.enum("forward_client_cert_details"),
        set_current_client_cert_details=cert_details(reader),
        local_reply=_local_reply(local_reply) if local_reply is not None else None,
    )


def _routes(reader: Reader, context: Context) -> tuple[RouteTableConfig | None, Reference | None]:
    kind = reader.oneof("route_specifier")
    if kind == "route_config":
        return route_table(required(reader, kind), context, inline=True), None
    if kind == "rds":
        rds = required(reader, kind)
        name = rds.text("route_config_name")
        if not name:
            raise rds.error("is required", "route_config_name")
        prefix = f"http.{sanitize(reader.text('stat_prefix'))}.rds.{sanitize(name)}."
        return None, reference(rds, context, "rds", name, stat_prefix=prefix, field="config_source")
    raise reader.error("scoped route tables are not supported", kind)


def http1_options(reader: Reader) -> Http1Config:
    """`Http1ProtocolOptions`."""
    return Http1Config(
        accept_http_10=reader.flag("accept_http_10"),
        default_host_for_http_10=reader.text("default_host_for_http_10"),
        allow_absolute_url=reader.flag("allow_absolute_url", True),
        enable_trailers=reader.flag("enable_trailers"),
        override_stream_error_on_invalid_http_message=reader.flag("override_stream_error_on_invalid_http_message"),
    )


def _request_id(reader: Reader) -> tuple[bool, bool]:
    extension_field = reader.sub("request_id_extension")
    extension = extension_field.extension() if extension_field is not None else None
    if extension is None:
        return True, True
    if extension.type != _UUID:
        raise extension.unsupported("request id extension")
    uuid = extension.reader
    return uuid.flag("pack_trace_reason", True), uuid.flag("use_request_id_for_trace_sampling", True)


def _trusted_hops(reader: Reader, use_remote_address: bool) -> int:
    hops = reader.number("xff_num_trusted_hops")
    detectors = reader.subs("original_ip_detection_extensions")
    if not detectors:
        return hops
    if use_remote_address:
        raise reader.error("cannot be given together with use_remote_address", "original_ip_detection_extensions")
    if hops:
        raise reader.error("cannot be given together with original_ip_detection_extensions", "xff_num_trusted_hops")
    if len(detectors) > 1:
        raise reader.error("only one is supported", "original_ip_detection_extensions[1]")
    detectors[0].text("name")
    extension = detectors[0].extension()
    if extension is None:
        raise detectors[0].error("needs typed_config")
    if extension.type != _XFF:
        raise extension.unsupported("original IP detection")
    xff = extension.reader
    xff.flag("skip_xff_append", True)  # without use_remote_address nothing is appended anyway
    return xff.number("xff_num_trusted_hops")


def _upgrades(reader: Reader) -> tuple[UpgradeConfig, ...]:
    upgrades = reader.each(
        "upgrade_configs",
        lambda r: UpgradeConfig(upgrade_type=r.lower("upgrade_type"), enabled=r.flag("enabled", True)),
    )
    seen: set[str] = set()
    for i, upgrade in enumerate(upgrades):
        if upgrade.upgrade_type in seen:
            raise reader.error(f"another entry has the type {upgrade.upgrade_type} too", f"upgrade_configs[{i}].upgrade_type")
        seen.add(upgrade.upgrade_type)
    return upgrades


def _local_reply(reader: Reader) -> LocalReplyConfig:
    if "local_reply" not in features.OTHER:
        raise reader.error("mapping local replies is not supported")
    body = reader.sub("body_format")
    return LocalReplyConfig(mappers=reader.each("mappers", _mapper), body_format=body_format(body) if body is not None else None)


def _mapper(reader: Reader) -> LocalReplyMapperConfig:
    body, override = reader.sub("body"), reader.sub("body_format_override")
    return LocalReplyMapperConfig(
        filter=access_log_filter(required(reader, "filter")),
        status=reader.optional_number("status_code"),
        body=text_of(body) if body is not None else None,
        body_format=body_format(override) if override is not None else None,
        headers_to_add=reader.each("headers_to_add", header_value_option),
    )


def cert_details(reader: Reader) -> tuple[str, ...]:
    """`set_current_client_cert_details`, of a connection manager or of Dubbo's ManagerOptions."""
    details = reader.sub("set_current_client_cert_details")
    if details is None:
        return ()
    return tuple(name for name in ("subject", "cert", "chain", "dns", "uri") if details.flag(name))


def _filters(
    reader: Reader, context: Context, alpn: dict[str, tuple[str, ...]]
) -> tuple[tuple[HttpFilterConfig, ...], RouterFilterConfig]:
    entries = reader.subs("http_filters")
    if not entries:
        raise reader.error("needs at least the router, envoy.filters.http.router", "http_filters")
    filters: list[HttpFilterConfig] = []
    router: RouterFilterConfig | None = None
    for i, entry in enumerate(entries):
        try:
            config = _filter(entry, context, alpn)
        except ConfigError as error:
            reader.problems.extend(error)
            entry.abandon()
            if i == len(entries) - 1:
                router = RouterFilterConfig()  # one fault is enough
            continue
        if isinstance(config, RouterFilterConfig):
            if i != len(entries) - 1:
                reader.problems.extend(entry.error("the router must be the last HTTP filter"))
            router = config
        elif config is not None:
            filters.append(config)
    if router is None:
        raise entries[-1].error("the last HTTP filter must be the router, envoy.filters.http.router")
    return tuple(filters), router


def _filter(reader: Reader, context: Context, alpn: dict[str, tuple[str, ...]]) -> HttpFilterConfig | RouterFilterConfig | None:
    name = reader.text("name")
    optional, disabled = reader.flag("is_optional"), reader.flag("disabled")
    try:
        extension = reader.extension()
    except ConfigError as error:
        if optional and "unknown or unsupported type" in error.why:
            reader.problems.warn(error.path, f"optional filter {name} left out: {error.why}")
            return None
        raise
    if extension is None:
        if reader.oneof("config_type") == "config_discovery":
            raise reader.error("filters by discovery are not supported", "config_discovery")
        raise reader.error(f"{name} needs typed_config")
    if extension.type == ROUTER:
        if disabled:
            raise reader.error("the router cannot be disabled", "disabled")
        return _router(extension.reader)
    if extension.type == ALPN:
        overrides = dict(alpn_overrides(extension.reader))
        if not disabled:
            alpn.update(overrides)
        return None
    entry = registry.http_filter(extension.type)
    if entry is None:
        why = left_out(extension)
        if why:
            reader.problems.warn(extension.path, f"ignored: {name}: {why}")
            instead = without_exchange(extension)
            return HttpFilterConfig(name=name, type_url=extension.type, config=instead) if instead is not None else None
        refused = extension.unsupported("HTTP filter")
        if not optional:
            raise refused
        reader.abandon()
        reader.problems.warn(refused.path, f"optional filter {name} left out: {refused.why}")
        return None
    return HttpFilterConfig(
        name=name,
        type_url=extension.type,
        config=entry.translate(extension, context),
        disabled=disabled,
        is_optional=optional,
    )


def _router(reader: Reader) -> RouterFilterConfig:
    return RouterFilterConfig(
        dynamic_stats=reader.flag("dynamic_stats", True),
        suppress_envoy_headers=reader.flag("suppress_envoy_headers"),
        respect_expected_rq_timeout=reader.flag("respect_expected_rq_timeout"),
        strict_check_headers=tuple(name.lower() for name in reader.strings("strict_check_headers")),
        upstream_logs=reader.each("upstream_log", access_log),
    )
