"""Operators that print what is known about the stream, its connection and its upstream."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from mesh_proxy.formatting.operator import (
    CONNECTION_ID,
    DOWNSTREAM_DIRECT,
    DOWNSTREAM_LOCAL,
    DOWNSTREAM_REMOTE,
    EACH,
    REQUEST_ID,
    SAME,
    UPSTREAM_HOST,
    UPSTREAM_LOCAL,
    Operator,
    Syntax,
    Text,
    register,
    register_number,
    register_text,
    string_operator,
)
from mesh_proxy.stream.flags import long_names, short_names
from mesh_proxy.stream.info import StreamInfo

_BLANKS: Final = str.maketrans(" \t\f\v\n\r", "______")


def _unique_id() -> bytes:
    import uuid  # costs memory, and seldom needed

    return str(uuid.uuid4()).encode()


def strip_port(address: bytes) -> bytes:
    """`10.0.0.1:80` -> `10.0.0.1`, `[::1]:80` -> `::1`; the path of a unix socket stays."""
    if address.startswith(b"["):
        return address[1 : address.rfind(b"]")]
    host, colon, port = address.rpartition(b":")
    return host if colon and port.isdigit() else address


def port_of(address: bytes) -> int | None:
    """The port of an address; None for a unix socket."""
    _, colon, port = address.rpartition(b":")
    return int(port) if colon and port.isdigit() else None


def _register_address(name: str, address: Callable[[StreamInfo], bytes], place: int, raw: str = "") -> None:
    """An address, and the same without its port and the port alone. `raw` is the attribute if it is one."""

    def whole(info: StreamInfo) -> bytes | None:
        return address(info) or None

    def without_port(info: StreamInfo) -> bytes | None:
        return strip_port(address(info)) or None

    def port(info: StreamInfo) -> int | None:
        return port_of(address(info))

    register_text(f"{name}_ADDRESS", whole, place, raw=raw)
    register_text(f"{name}_ADDRESS_WITHOUT_PORT", without_port, EACH)
    register_number(f"{name}_PORT", port, EACH)


_register_address("DOWNSTREAM_REMOTE", lambda info: info.remote_address, DOWNSTREAM_REMOTE, "remote_address")
_register_address(
    "DOWNSTREAM_DIRECT_REMOTE",
    lambda info: info.connection.direct_remote_address,
    DOWNSTREAM_DIRECT,
    "connection.direct_remote_address",
)
_register_address("DOWNSTREAM_LOCAL", lambda info: info.connection.local_address, DOWNSTREAM_LOCAL, "connection.local_address")
_register_address(
    "DOWNSTREAM_DIRECT_LOCAL", lambda info: info.connection.local_address, DOWNSTREAM_LOCAL, "connection.local_address"
)
_register_address("UPSTREAM_LOCAL", lambda info: info.upstream_local_address, UPSTREAM_LOCAL, "upstream_local_address")
_register_address(
    "UPSTREAM_REMOTE",
    # Only once connected; UPSTREAM_HOST is there before.
    lambda info: info.upstream.address_bytes if info.upstream is not None and info.upstream_local_address else b"",
    UPSTREAM_HOST,
)


# Strings


def _from_text(text: Callable[[StreamInfo], str]) -> Text:
    return lambda info: text(info).encode() or None


def _from_words(text: Callable[[StreamInfo], str]) -> Text:
    """As one word: blanks become underscores."""
    return lambda info: text(info).translate(_BLANKS).encode() or None


def _protocol(info: StreamInfo) -> bytes | None:
    return info.protocol or None


def _upstream_host(info: StreamInfo) -> bytes | None:
    return info.upstream.address_bytes if info.upstream is not None else None


def _upstream_host_name(info: StreamInfo) -> bytes | None:
    endpoint = info.upstream
    return None if endpoint is None else endpoint.hostname.encode() or endpoint.address_bytes


def _upstream_host_name_without_port(info: StreamInfo) -> bytes | None:
    name = _upstream_host_name(info)
    return None if name is None else strip_port(name)


def _cluster(info: StreamInfo) -> bytes | None:
    """The name in statistics."""
    alternative = info.cluster.config.alt_stat_name if info.cluster is not None else ""
    return (alternative or info.cluster_name).encode() or None


def _cluster_name(info: StreamInfo) -> bytes | None:
    return info.cluster_name.encode() or None


def _route_name(info: StreamInfo) -> bytes | None:
    return info.route_name.encode() or None


def _termination(info: StreamInfo) -> bytes | None:
    return info.connection.termination_details.encode() or None


def _upstream_failure(info: StreamInfo) -> bytes | None:
    failure = info.upstream_transport_failure
    return failure.translate(_BLANKS).encode() if failure else None


_FLAGS: Final[dict[int, bytes]] = {}


def _flags(info: StreamInfo) -> bytes:
    flags = info.flags
    text = _FLAGS.get(flags)
    if text is None:
        text = _FLAGS[flags] = short_names(flags).encode()
    return text


def _access_log_type(info: StreamInfo) -> bytes:
    if not info.protocol:
        return b"TcpConnectionEnd"
    return b"DownstreamEnd" if info.end_time else b"DownstreamStart"


def _unknown(info: StreamInfo) -> bytes | None:
    return None


def _stream_id(info: StreamInfo) -> bytes | None:
    """Envoy's stream id is the request id where there is one."""
    return info.request.headers.first.get(b"x-request-id") if info.request is not None else None


register_text("PROTOCOL", _protocol, SAME, fact="protocol")
register_text("UPSTREAM_PROTOCOL", lambda info: info.upstream_protocol or None, SAME, fact="upstream_protocol")
register_text("RESPONSE_FLAGS", _flags, SAME, fact="flags")
register_text("RESPONSE_FLAGS_LONG", lambda info: long_names(info.flags).encode(), SAME)
register_text("CONNECTION_TERMINATION_DETAILS", _termination, SAME, fact="connection.termination_details")
register_text("ROUTE_NAME", _route_name, SAME, fact="route_name")
register_text("VIRTUAL_HOST_NAME", _from_text(lambda info: info.virtual_host_name), SAME, fact="virtual_host_name")
register_text("UPSTREAM_HOST", _upstream_host, UPSTREAM_HOST)
register_text("UPSTREAM_HOST_NAME", _upstream_host_name, EACH)
register_text("UPSTREAM_HOST_NAME_WITHOUT_PORT", _upstream_host_name_without_port, EACH)
register_text("UPSTREAM_CLUSTER", _cluster, SAME)
register_text("UPSTREAM_CLUSTER_RAW", _cluster_name, SAME, fact="cluster_name")
register_text("UPSTREAM_TRANSPORT_FAILURE_REASON", _upstream_failure, SAME, fact="upstream_transport_failure")
register_text("DOWNSTREAM_TRANSPORT_FAILURE_REASON", _from_words(lambda info: info.connection.transport_failure), SAME)
register_text(
    "FILTER_CHAIN_NAME", _from_text(lambda info: info.connection.filter_chain_name), SAME, fact="connection.filter_chain_name"
)
register_text("ACCESS_LOG_TYPE", _access_log_type, SAME)
register_text("LOCAL_REPLY_BODY", lambda info: info.local_reply_body, SAME)
register_text("UNIQUE_ID", lambda info: _unique_id(), EACH)
register_text("STREAM_ID", _stream_id, REQUEST_ID)
# Until there is tracing.
register_text("TRACE_ID", _unknown, SAME)
register_text("SPAN_ID", _unknown, SAME)


def _details(parameter: str, length: int | None) -> Operator:
    if parameter == "ALLOW_WHITESPACES":
        return string_operator(_from_text(lambda info: info.details), None, SAME)
    if parameter:
        raise ValueError(f"{parameter!r}: only ALLOW_WHITESPACES is allowed")
    return string_operator(_details_word, None, SAME, fact="details")


_WORDS: Final[dict[str, bytes | None]] = {"": None}


def _details_word(info: StreamInfo) -> bytes | None:
    details = info.details
    try:
        return _WORDS[details]
    except KeyError:
        word = details.translate(_BLANKS).encode()
        if len(_WORDS) < 256:
            _WORDS[details] = word
        return word


register("RESPONSE_CODE_DETAILS", _details, Syntax.PARAMETER_OPTIONAL)


# Numbers

register_number("RESPONSE_CODE", lambda info: info.response_code, SAME, fact="response_code")
register_number("BYTES_RECEIVED", lambda info: info.bytes_received, SAME, raw="bytes_received")
register_number("BYTES_SENT", lambda info: info.bytes_sent, SAME, raw="bytes_sent")
register_number("UPSTREAM_WIRE_BYTES_SENT", lambda info: info.upstream_wire_bytes_sent, raw="upstream_wire_bytes_sent")
register_number(
    "UPSTREAM_WIRE_BYTES_RECEIVED", lambda info: info.upstream_wire_bytes_received, raw="upstream_wire_bytes_received"
)
register_number("DOWNSTREAM_WIRE_BYTES_SENT", lambda info: info.wire_bytes_sent, raw="wire_bytes_sent")
register_number("DOWNSTREAM_WIRE_BYTES_RECEIVED", lambda info: info.wire_bytes_received, raw="wire_bytes_received")
register_number("DOWNSTREAM_HEADER_BYTES_SENT", lambda info: info.response_header_bytes, raw="response_header_bytes")
register_number("DOWNSTREAM_HEADER_BYTES_RECEIVED", lambda info: info.request_header_bytes, raw="request_header_bytes")
register_number("UPSTREAM_REQUEST_ATTEMPT_COUNT", lambda info: info.attempts, SAME, fact="attempts")
register_number("CONNECTION_ID", lambda info: info.connection.connection_id, CONNECTION_ID, raw="connection.connection_id")


# Server name


def _server_name(info: StreamInfo) -> bytes | None:
    return info.connection.requested_server_name or None


def _host(info: StreamInfo) -> bytes | None:
    return info.request.authority or None if info.request is not None else None


def _original_host(info: StreamInfo) -> bytes | None:
    return info.request.headers.first.get(b"x-envoy-original-host") if info.request is not None else None


def _requested_server_name(parameter: str, length: int | None) -> Operator:
    """`REQUESTED_SERVER_NAME(SNI_ONLY|SNI_FIRST|HOST_FIRST:ORIG|HOST|ORIG_OR_HOST)`."""
    order, _, which = parameter.partition(":")
    hosts: dict[str, Text] = {
        "": lambda info: _original_host(info) or _host(info),
        "ORIG_OR_HOST": lambda info: _original_host(info) or _host(info),
        "ORIG": _original_host,
        "HOST": _host,
    }
    host = hosts.get(which)
    if host is None or order not in ("", "SNI_ONLY", "SNI_FIRST", "HOST_FIRST"):
        raise ValueError(f"{parameter!r}: SNI_ONLY, SNI_FIRST or HOST_FIRST, then ORIG, HOST or ORIG_OR_HOST")
    if order == "SNI_FIRST":
        return string_operator(lambda info: _server_name(info) or host(info), length, SAME)
    if order == "HOST_FIRST":
        return string_operator(lambda info: host(info) or _server_name(info), length, SAME)
    return string_operator(_server_name, length, SAME, fact="connection.requested_server_name")


register("REQUESTED_SERVER_NAME", _requested_server_name, Syntax.PARAMETER_OPTIONAL | Syntax.LENGTH)


# What is fixed when the format is compiled


def _hostname(parameter: str, length: int | None) -> Operator:
    name = socket.gethostname().encode() or None
    return string_operator(lambda info: name, None, SAME)


def _environment(parameter: str, length: int | None) -> Operator:
    # A missing variable is a dash even in JSON, as in Envoy.
    value = os.environb.get(parameter.encode(), b"-")
    return string_operator(lambda info: value, length, SAME)


register("HOSTNAME", _hostname, Syntax.PARAMETER_OPTIONAL)
register("ENVIRONMENT", _environment, Syntax.PARAMETER_REQUIRED | Syntax.LENGTH)
