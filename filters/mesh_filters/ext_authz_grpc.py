"""ext_authz over gRPC: `envoy.service.auth.v3.Authorization/Check`. Imported, with protobuf, when it is configured."""

from __future__ import annotations

import time
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from mesh_filters.definition import FilterContext
from mesh_filters.ext_authz import PARTIAL, ExtAuthzConfig, Question, name_test
from mesh_filters.ext_authz_verdict import Verdict
from mesh_filters.filter import Stream
from mesh_filters.rbac_rules import peer_names
from mesh_filters.service import Failure, GrpcServiceConfig, ServiceError, call_grpc

PATH: Final = b"/envoy.service.auth.v3.Authorization/Check"
_ACTIONS: Final = {
    base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD: "add",
    base_pb2.HeaderValueOption.ADD_IF_ABSENT: "absent",
    base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD: "set",
    base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS: "replace",
}
_DENIED: Final = 403


class GrpcClient:
    """See `ext_authz.Client`."""

    __slots__ = ("_allowed", "_config", "_context", "_disallowed", "_labels", "_service", "_timeout")

    def __init__(self, config: ExtAuthzConfig, service: GrpcServiceConfig, context: FilterContext) -> None:
        self._config = config
        self._service = service
        self._context = context
        self._timeout = service.timeout_s or config.timeout_s
        self._allowed = name_test(config.allowed_headers, context)
        self._disallowed = name_test(config.disallowed_headers, context)
        labels = context.node_metadata.get(config.labels_key) if config.labels_key else None
        self._labels = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}

    async def ask(self, question: Question) -> Verdict:
        """Raises ServiceError."""
        message = self.request_of(question).SerializeToString()
        answer = await call_grpc(self._context, self._service, PATH, message, self._timeout)
        response = external_auth_pb2.CheckResponse()
        try:
            response.ParseFromString(answer)
        except DecodeError:
            raise ServiceError(Failure.MALFORMED) from None
        return verdict_of(response)

    def request_of(self, question: Question) -> Any:
        """The `CheckRequest`."""
        stream, request = question.stream, question.request
        config, connection = self._config, stream.connection
        message = external_auth_pb2.CheckRequest()
        attributes = message.attributes
        source, destination = attributes.source, attributes.destination
        _set_address(source, connection.remote_ip, connection.remote_port)
        _set_address(destination, connection.local_ip, connection.local_port)
        first = request.headers.first
        source.service = _text(first.get(b"x-envoy-downstream-service-cluster", b""))
        tls = connection.tls
        if tls is not None:
            source.principal = _principal(tls)
            destination.principal = _local_principal(tls)
            if config.include_certificate:
                source.certificate = _text(getattr(tls, "peer_certificate", None) or b"")
        destination.labels.update(self._labels)
        now = time.time()
        attributes.request.time.seconds = int(now)
        attributes.request.time.nanos = int(now % 1 * 1e9)
        self._set_http(attributes.request.http, question)
        attributes.context_extensions.update(question.extensions)
        _set_metadata(attributes.metadata_context, stream.dynamic_metadata or {}, config.metadata_namespaces)
        _set_metadata(attributes.route_metadata_context, _route_metadata(stream, config), config.route_metadata_namespaces)
        if config.include_tls_session and connection.requested_server_name:
            attributes.tls_session.sni = _text(connection.requested_server_name)
        return message

    def _set_http(self, http: Any, question: Question) -> None:
        stream, request = question.stream, question.request
        http.id = str(getattr(stream, "stream_id", 0))
        http.method = _text(request.method)
        http.path = _text(request.path)
        http.host = _text(request.authority)
        scheme = request.scheme or request.headers.first.get(b"x-forwarded-proto", b"")
        http.scheme = _text(scheme)
        http.protocol = _text(request.http_version)
        pseudo = [(b":authority", request.authority), (b":path", request.path), (b":method", request.method)]
        if scheme:
            pseudo.append((b":scheme", scheme))
        allowed, disallowed = self._allowed, self._disallowed

        def passes(name: bytes) -> bool:
            if disallowed is not None and disallowed(name):
                return False
            return allowed is None or allowed(name)

        pairs = [(name, value) for name, value in (*pseudo, *request.headers.items()) if passes(name)]
        http.size = question.size
        if question.body is not None:
            if question.body_as_bytes:
                http.raw_body = question.body
            else:
                http.body = question.body.decode("utf-8", "replace")
            pairs.append((PARTIAL, b"true" if question.partial else b"false"))
        if self._config.raw_headers:
            for name, value in pairs:
                http.header_map.headers.add(key=_text(name), raw_value=value)
            return
        joined: dict[str, bytes] = {}
        for name, value in pairs:
            key = _text(name)
            joined[key] = joined[key] + b"," + value if key in joined else value
        for key, value in joined.items():
            http.headers[key] = value.decode("utf-8", "replace")


def verdict_of(response: Any) -> Verdict:
    """What a `CheckResponse` means.

    Raises:
        ServiceError: the service says that it failed.
    """
    metadata: dict[str, Any] = {}
    if response.HasField("dynamic_metadata"):
        metadata = json_format.MessageToDict(response.dynamic_metadata)
    if response.status.code == 0:
        ok = response.ok_response
        if not metadata and ok.HasField("dynamic_metadata"):
            metadata = json_format.MessageToDict(ok.dynamic_metadata)
        return Verdict(
            True,
            200,
            headers=[_request_change(one) for one in ok.headers],
            remove=[name.lower().encode() for name in ok.headers_to_remove],
            response_headers=[_response_change(one) for one in ok.response_headers_to_add],
            parameters=[(one.key, one.value) for one in ok.query_parameters_to_set],
            remove_parameters=list(ok.query_parameters_to_remove),
            metadata=metadata,
        )
    if response.WhichOneof("http_response") == "error_response":
        raise ServiceError(Failure.STATUS)
    denied = response.denied_response
    return Verdict(
        False,
        denied.status.code or _DENIED,
        denied.body.encode(),
        response_headers=[_denial_change(one) for one in denied.headers],
        metadata=metadata,
    )


def _request_change(option: Any) -> tuple[str, bytes, bytes]:
    """For a request only `append` counts, as with Envoy: a value is appended to one that is there, or the header is set."""
    name, value = _header(option)
    return ("append" if option.append.value else "set"), name, value


def _response_change(option: Any) -> tuple[str, bytes, bytes]:
    """For a response `append`, or without it the action."""
    name, value = _header(option)
    if option.HasField("append"):
        return ("add" if option.append.value else "set"), name, value
    return _ACTIONS.get(option.append_action, "add"), name, value


def _denial_change(option: Any) -> tuple[str, bytes, bytes]:
    """For a denial `append` again; what the answer has anyway, such as its type, is replaced."""
    name, value = _header(option)
    return ("add" if option.append.value else "set"), name, value


def _header(option: Any) -> tuple[bytes, bytes]:
    header = option.header
    return header.key.lower().encode(), header.raw_value or header.value.encode()


def _set_address(peer: Any, ip: bytes, port: int) -> None:
    socket = peer.address.socket_address
    socket.address = _text(ip)
    socket.port_value = port


def _principal(tls: Any) -> str:
    return next((name for name in peer_names(tls) if name), "")


def _local_principal(tls: Any) -> str:
    for attribute in ("local_uri_san", "local_dns_san", "local_subject"):
        value = getattr(tls, attribute, None)
        if value:
            first = value if isinstance(value, (str, bytes)) else next(iter(value))
            return _text(first) if isinstance(first, bytes) else first
    return ""


def _route_metadata(stream: Stream, config: ExtAuthzConfig) -> Any:
    return stream.route_metadata() if config.route_metadata_namespaces else {}


def _set_metadata(target: Any, metadata: Any, namespaces: tuple[str, ...]) -> None:
    target.SetInParent()
    for name in namespaces:
        values = metadata.get(name)
        if isinstance(values, dict):
            target.filter_metadata[name].update(values)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
