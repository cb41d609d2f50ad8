"""Operators that read headers, the path, the query and the gRPC status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from mesh_codecs.grpc import STATUS_NAMES, is_grpc_content_type, status_of_http
from mesh_codecs.grpc.status import INVALID
from mesh_codecs.headers import Headers
from mesh_codecs.http1.grammar import OWN
from mesh_proxy.formatting.operator import (
    EACH,
    REQUEST_ID,
    SAME,
    SERVICE_TIME,
    Operator,
    Syntax,
    Text,
    number_operator,
    register,
    register_number,
    string_operator,
)
from mesh_proxy.stream.info import StreamInfo

_HEADER: Final = Syntax.PARAMETER_REQUIRED | Syntax.LENGTH
_OPTIONAL: Final = Syntax.PARAMETER_OPTIONAL | Syntax.LENGTH


def _names(parameter: str) -> list[bytes]:
    """`NAME?ALTERNATIVE` as lower-case names."""
    names = [name.strip().lower().encode() for name in parameter.split("?")]
    if len(names) > 2:
        raise ValueError(f"more than one alternative header in {parameter!r}")
    if not names[0]:
        raise ValueError("the header's name is empty")
    return [name for name in names if name]


# Pseudo headers


def _method(info: StreamInfo) -> bytes | None:
    return info.request.method or None if info.request is not None else None


def _path(info: StreamInfo) -> bytes | None:
    return info.request.path or None if info.request is not None else None


def _authority(info: StreamInfo) -> bytes | None:
    return info.request.authority or None if info.request is not None else None


def _scheme(info: StreamInfo) -> bytes | None:
    return info.request.scheme or None if info.request is not None else None


def _protocol(info: StreamInfo) -> bytes | None:
    return info.request.protocol or None if info.request is not None else None


def _status(info: StreamInfo) -> bytes | None:
    return b"%d" % info.response.status if info.response is not None else None


_REQUEST_FIELDS: Final[dict[bytes, Text]] = {
    b":method": _method,
    b":path": _path,
    b":authority": _authority,
    b"host": _authority,
    b":scheme": _scheme,
    b":protocol": _protocol,
}

_FACTS: Final = {b":method": "request.method", b":authority": "request.authority", b"host": "request.authority"}


# Headers; of a repeated one the first value, as Envoy prints it


def _request_text(name: bytes) -> Text:
    field = _REQUEST_FIELDS.get(name)
    if field is not None:
        return field

    def text(info: StreamInfo) -> bytes | None:
        request = info.request
        return None if request is None else request.headers.first.get(name)

    return text


def _response_text(name: bytes) -> Text:
    if name == b":status":
        return _status

    def text(info: StreamInfo) -> bytes | None:
        response = info.response
        return None if response is None else response.headers.first.get(name)

    return text


def _trailer_text(name: bytes) -> Text:
    def text(info: StreamInfo) -> bytes | None:
        trailers = info.response_trailers
        return None if trailers is None else trailers.first.get(name)

    return text


def _first_of(texts: list[Text]) -> Text:
    if len(texts) == 1:
        return texts[0]
    main, alternative = texts

    def text(info: StreamInfo) -> bytes | None:
        value = main(info)
        return alternative(info) if value is None else value

    return text


def _register_headers(names: tuple[str, ...], source: Callable[[bytes], Text], special: dict[bytes, int]) -> None:
    def factory(parameter: str, length: int | None) -> Operator:
        headers = _names(parameter)
        places = {special.get(name, SAME) for name in headers}
        # A choice between two of which one is special is not foreseen.
        place = places.pop() if len(places) == 1 else EACH
        text = _first_of([source(name) for name in headers])
        if source is not _request_text or len(headers) > 1:
            return string_operator(text, length, place)
        fact = _FACTS.get(headers[0], "")
        field = b"" if headers[0] in _REQUEST_FIELDS else headers[0]
        return string_operator(text, length, place, fact=fact, field=field)

    for name in names:
        register(name, factory, _HEADER)


_register_headers(
    ("REQ", "REQUEST_HEADER", "STREAM_INFO_REQ"), _request_text, dict.fromkeys(OWN, EACH) | {b"x-request-id": REQUEST_ID}
)
_register_headers(("RESP", "RESPONSE_HEADER"), _response_text, {b"x-envoy-upstream-service-time": SERVICE_TIME, b"date": EACH})
_register_headers(("TRAILER", "RESPONSE_TRAILER"), _trailer_text, {})


# Path and query


def _path_operator(parameter: str, length: int | None) -> Operator:
    """`PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)`: with or without query, before or after a rewrite."""
    query, _, which = parameter.partition(":")
    if query not in ("", "WQ", "NQ"):
        raise ValueError(f"{query!r}: only WQ and NQ are allowed")
    sources: dict[str, Text] = {
        "": _original_or_path,
        "ORIG_OR_PATH": _original_or_path,
        "ORIG": _request_text(b"x-envoy-original-path"),
        "PATH": _path,
    }
    source = sources.get(which)
    if source is None:
        raise ValueError(f"{which!r}: only ORIG, PATH and ORIG_OR_PATH are allowed")
    if query != "NQ":
        return string_operator(source, length, SAME)

    def without_query(info: StreamInfo) -> bytes | None:
        path = source(info)
        return None if path is None else path.partition(b"?")[0]

    return string_operator(without_query, length, SAME)


_original_or_path: Final = _first_of([_request_text(b"x-envoy-original-path"), _path])


def _query(info: StreamInfo) -> bytes | None:
    path = _path(info)
    return path.partition(b"?")[2] or None if path is not None else None


def _query_parameter(parameter: str, length: int | None) -> Operator:
    name = parameter.encode()

    def text(info: StreamInfo) -> bytes | None:
        for pair in (_query(info) or b"").split(b"&"):
            key, _, value = pair.partition(b"=")
            if unquote_to_bytes(key) == name:
                return unquote_to_bytes(value)
        return None

    return string_operator(text, length, SAME)


def _query_parameters(parameter: str, length: int | None) -> Operator:
    if parameter not in ("", "ORIG", "DECODED"):
        raise ValueError(f"{parameter!r}: only ORIG and DECODED are allowed")
    if parameter != "DECODED":
        return string_operator(_query, length, SAME)

    def decoded(info: StreamInfo) -> bytes | None:
        query = _query(info)
        return None if query is None else unquote_to_bytes(query)

    return string_operator(decoded, length, SAME)


register("PATH", _path_operator, _OPTIONAL)
register("QUERY_PARAM", _query_parameter, _HEADER)
register("QUERY_PARAMS", _query_parameters, _OPTIONAL)


# gRPC

GRPC_STATUS: Final = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
    "Unauthenticated",
)  # fmt: skip
"""names by number, as `%GRPC_STATUS%` prints them"""


def grpc_status(info: StreamInfo) -> int | None:
    """The gRPC status of a gRPC request; None for other requests."""
    request = info.request
    if request is None:
        return None
    if not is_grpc_content_type(request.headers.first.get(b"content-type")):
        return None
    return response_grpc_status(info)


def response_grpc_status(info: StreamInfo) -> int | None:
    """The gRPC status of any response: from its trailers, its headers or its HTTP status; None without a response."""
    value: bytes | None = None
    if info.response_trailers is not None:
        value = info.response_trailers.first.get(b"grpc-status")
    if value is None and info.response is not None:
        value = info.response.headers.first.get(b"grpc-status")
    if value is not None:
        return int(value) if value.isdigit() and len(value) < 10 else INVALID
    return status_of_http(info.response_code) if info.response_code else None


def _grpc_status(parameter: str, length: int | None) -> Operator:
    if parameter == "NUMBER":
        return _NUMBER
    names = {"": GRPC_STATUS, "CAMEL_STRING": GRPC_STATUS, "SNAKE_STRING": STATUS_NAMES}.get(parameter)
    if names is None:
        raise ValueError(f"{parameter!r}: only CAMEL_STRING, SNAKE_STRING and NUMBER are allowed")

    def text(info: StreamInfo) -> bytes | None:
        status = grpc_status(info)
        if status is None:
            return None
        return names[status].encode() if 0 <= status < len(names) else b"%d" % status

    return string_operator(text, None, SAME)


register_number("GRPC_STATUS_NUMBER", grpc_status, SAME)
_NUMBER: Final = number_operator(grpc_status, SAME)
register("GRPC_STATUS", _grpc_status, Syntax.PARAMETER_OPTIONAL)


# Sizes of header blocks: names and values, without separators


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _request_headers_bytes(info: StreamInfo) -> int:
    request = info.request
    if request is None:
        return 0
    fields = ((7, request.method), (5, request.path), (10, request.authority), (7, request.scheme))
    return _size(request.headers) + sum(size + len(value) for size, value in fields if value)


def _response_headers_bytes(info: StreamInfo) -> int:
    return _size(info.response.headers) + len(b":status200") if info.response is not None else 0


def _response_trailers_bytes(info: StreamInfo) -> int:
    return _size(info.response_trailers) if info.response_trailers is not None else 0


register_number("REQUEST_HEADERS_BYTES", _request_headers_bytes, EACH)
register_number("RESPONSE_HEADERS_BYTES", _response_headers_bytes, EACH)
register_number("RESPONSE_TRAILERS_BYTES", _response_trailers_bytes, SAME)
