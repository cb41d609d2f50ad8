"""Active health checks."""

from __future__ import annotations

from mesh_proxy.config.model.common import HeaderMutationConfig
from mesh_proxy.config.model.health import (
    EndpointCheckConfig,
    GrpcCheckConfig,
    HealthCheckConfig,
    HttpCheckConfig,
    StatusRange,
    TcpCheckConfig,
)
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import address, header_changes, header_value_option, required
from mesh_proxy.config.translate.matchers import string_matcher

_BODILESS = ("GET", "HEAD", "DELETE", "TRACE")


def health_check(reader: Reader) -> HealthCheckConfig:
    """`HealthCheck`."""
    kind = reader.oneof("health_checker")
    check: HttpCheckConfig | TcpCheckConfig | GrpcCheckConfig
    if kind == "http_health_check":
        check = _http(required(reader, kind))
    elif kind == "tcp_health_check":
        check = _tcp(required(reader, kind))
    elif kind == "grpc_health_check":
        check = _grpc(required(reader, kind))
    else:
        raise reader.error("is not supported", kind)
    for name in ("unhealthy_threshold", "healthy_threshold"):
        if not reader.has(name):
            raise reader.error("is required", name)
    interval = reader.seconds("interval") or 0.0
    unhealthy = reader.seconds("unhealthy_interval", interval) or 0.0
    quiet = reader.seconds("no_traffic_interval", 60.0) or 0.0
    return HealthCheckConfig(
        check=check,
        timeout_s=reader.seconds("timeout") or 0.0,
        interval_s=interval,
        unhealthy_threshold=reader.number("unhealthy_threshold"),
        healthy_threshold=reader.number("healthy_threshold"),
        initial_jitter_s=reader.seconds("initial_jitter", 0.0) or 0.0,
        interval_jitter_s=reader.seconds("interval_jitter", 0.0) or 0.0,
        interval_jitter_percent=reader.number("interval_jitter_percent"),
        no_traffic_interval_s=quiet,
        no_traffic_healthy_interval_s=reader.seconds("no_traffic_healthy_interval", quiet) or 0.0,
        unhealthy_interval_s=unhealthy,
        unhealthy_edge_interval_s=reader.seconds("unhealthy_edge_interval", unhealthy) or 0.0,
        healthy_edge_interval_s=reader.seconds("healthy_edge_interval", interval) or 0.0,
        reuse_connection=reader.flag("reuse_connection", True),
    )


def endpoint_check(reader: Reader | None) -> EndpointCheckConfig:
    """`Endpoint.HealthCheckConfig`."""
    if reader is None:
        return EndpointCheckConfig()
    where = reader.sub("address")
    return EndpointCheckConfig(
        port=reader.number("port_value"),
        hostname=reader.text("hostname"),
        address=address(where, names_allowed=False) if where is not None else None,
        disabled=reader.flag("disable_active_health_check"),
    )


def _http(reader: Reader) -> HttpCheckConfig:
    method = reader.enum("method")
    if method == "METHOD_UNSPECIFIED":
        method = "GET"
    send = reader.sub("send")
    if send is not None and method in _BODILESS:
        raise reader.error(f"a {method} request has no body", "send")
    if reader.enum("codec_client_type") == "HTTP3":
        raise reader.error("HTTP3 is not supported", "codec_client_type")
    receive = reader.each("receive", _payload)
    size = reader.number("response_buffer_size", 1024)
    if size and sum(map(len, receive)) > size:
        raise reader.error("is longer than response_buffer_size", "receive")
    expected = reader.each("expected_statuses", _statuses)
    service = reader.sub("service_name_matcher")
    return HttpCheckConfig(
        host=reader.text("host"),
        path=reader.text("path"),
        method=method,
        send=_payload(send) if send is not None else b"",
        receive=receive,
        response_buffer_size=size,
        request_headers=header_changes(reader, "request"),
        expected=expected or ((200, 201),),
        retriable=reader.each("retriable_statuses", _statuses),
        http2=reader.enum("codec_client_type") == "HTTP2",
        service_name=string_matcher(service) if service is not None else None,
    )


def _statuses(reader: Reader) -> StatusRange:
    start, end = reader.number("start"), reader.number("end")
    if not 100 <= start < end <= 600:
        raise reader.error(f"must be 100 <= start < end <= 600, is {start} and {end}")
    return start, end


def _tcp(reader: Reader) -> TcpCheckConfig:
    send = reader.sub("send")
    return TcpCheckConfig(send=_payload(send) if send is not None else b"", receive=reader.each("receive", _payload))


def _grpc(reader: Reader) -> GrpcCheckConfig:
    metadata = reader.each("initial_metadata", header_value_option)
    return GrpcCheckConfig(
        service_name=reader.text("service_name"),
        authority=reader.text("authority"),
        initial_metadata=HeaderMutationConfig(add=metadata),
    )


def _payload(reader: Reader) -> bytes:
    """`Payload`: hexadecimal digits, or the bytes themselves."""
    if reader.oneof("payload") == "binary":
        return bytes(reader.raw("binary"))
    try:
        return bytes.fromhex(reader.text("text"))
    except ValueError:
        raise reader.error("must be pairs of hexadecimal digits", "text") from None
