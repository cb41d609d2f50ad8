"""`envoy.filters.http.ext_authz`."""

from __future__ import annotations

from typing import Any

from mesh_filters.ext_authz import BodyConfig, ExtAuthzConfig, ExtAuthzRouteConfig, HttpServiceConfig
from mesh_filters.service import GrpcServiceConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import required, runtime_fraction
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import string_matcher
from mesh_proxy.config.translate.metadata_match import metadata_matcher
from mesh_proxy.config.translate.services import grpc_service, http_uri

_PACKAGE = "envoy.extensions.filters.http.ext_authz.v3"


def _translate(extension: Extension, context: Context) -> ExtAuthzConfig:
    reader = extension.reader
    kind = reader.oneof("services")
    grpc: GrpcServiceConfig | None = None
    http: HttpServiceConfig | None = None
    if kind == "grpc_service":
        grpc = grpc_service(required(reader, kind), context)
    elif kind == "http_service":
        http = _http_service(required(reader, kind), context)
    else:
        raise reader.error("needs grpc_service or http_service")
    reader.enum("transport_api_version")
    body, status, deny = reader.sub("with_request_body"), reader.sub("status_on_error"), reader.sub("deny_at_disable")
    enabled_by = reader.sub("filter_enabled_metadata")
    deny_default = deny.sub("default_value") if deny is not None else None
    return ExtAuthzConfig(
        grpc=grpc,
        http=http,
        failure_mode_allow=reader.flag("failure_mode_allow"),
        failure_mode_header=reader.flag("failure_mode_allow_header_add"),
        body=_body(body),
        clear_route=reader.flag("clear_route_cache"),
        status_on_error=int(status.raw("code")) if status is not None else 403,
        validate=reader.flag("validate_mutations"),
        metadata_namespaces=reader.strings("metadata_context_namespaces"),
        route_metadata_namespaces=reader.strings("route_metadata_context_namespaces"),
        enabled=runtime_fraction(reader.sub("filter_enabled")),
        enabled_metadata=metadata_matcher(enabled_by) if enabled_by is not None else None,
        deny_at_disable=deny_default.flag("value") if deny_default is not None else False,
        deny_at_disable_key=deny.text("runtime_key") if deny is not None else "",
        include_certificate=reader.flag("include_peer_certificate"),
        include_tls_session=reader.flag("include_tls_session"),
        stat_prefix=reader.text("stat_prefix"),
        labels_key=reader.text("bootstrap_metadata_labels_key"),
        allowed_headers=_names(reader, "allowed_headers"),
        disallowed_headers=_names(reader, "disallowed_headers"),
        charge_cluster=reader.flag("charge_cluster_response_stats", True),
        raw_headers=reader.flag("encode_raw_headers"),
        take_metadata=reader.flag("enable_dynamic_metadata_ingestion", True),
        max_denied_body=reader.number("max_denied_response_body_bytes"),
    )


def _body(reader: Reader | None) -> BodyConfig | None:
    if reader is None:
        return None
    return BodyConfig(
        max_bytes=reader.number("max_request_bytes"),
        allow_partial=reader.flag("allow_partial_message"),
        as_bytes=reader.flag("pack_as_bytes"),
    )


def _names(reader: Reader | None, field: str) -> tuple[Any, ...] | None:
    inner = reader.sub(field) if reader is not None else None
    return inner.each("patterns", string_matcher) if inner is not None else None


def _http_service(reader: Reader, context: Context) -> HttpServiceConfig:
    cluster, scheme, authority, _, timeout = http_uri(required(reader, "server_uri"), context)
    asked, answered = reader.sub("authorization_request"), reader.sub("authorization_response")
    prefix = reader.text("path_prefix")
    if prefix and not prefix.startswith("/"):
        raise reader.error("must start with /", "path_prefix")
    return HttpServiceConfig(
        cluster=cluster,
        scheme=scheme,
        authority=authority,
        timeout_s=timeout,
        path_prefix=prefix,
        allowed_headers=_names(asked, "allowed_headers"),
        headers_to_add=asked.each("headers_to_add", lambda r: (r.lower("key"), r.text("value"))) if asked is not None else (),
        upstream_headers=_names(answered, "allowed_upstream_headers"),
        upstream_headers_to_append=_names(answered, "allowed_upstream_headers_to_append"),
        client_headers=_names(answered, "allowed_client_headers"),
        client_headers_on_success=_names(answered, "allowed_client_headers_on_success"),
        metadata_headers=_names(answered, "dynamic_metadata_from_headers"),
    )


def _translate_route(extension: Extension, context: Context) -> ExtAuthzRouteConfig:
    reader = extension.reader
    if reader.oneof("override") == "disabled":
        return ExtAuthzRouteConfig(disabled=reader.flag("disabled"))
    settings = required(reader, "check_settings")
    extensions = settings.raw("context_extensions")
    return ExtAuthzRouteConfig(
        extensions=tuple((key, extensions[key]) for key in sorted(extensions)),
        disable_body=settings.flag("disable_request_body_buffering"),
        body=_body(settings.sub("with_request_body")),
    )


register_http_filter(
    f"{_PACKAGE}.ExtAuthz", _translate, route_type_url=f"{_PACKAGE}.ExtAuthzPerRoute", translate_route=_translate_route
)
