"""Operators that read headers, the path and the gRPC status."""

from __future__ import annotations

from mesh_proxy.formatting.operator import Operator, Syntax, Text, register, string_operator
from mesh_proxy.stream.info import StreamInfo

_HEADER = Syntax.PARAMETER_REQUIRED | Syntax.LENGTH


def _names(parameter: str) -> list[bytes]:
    """`NAME?ALTERNATIVE` as lower-case names."""
    names = [name.strip().lower().encode() for name in parameter.split("?")]
    if len(names) > 2:
        raise ValueError(f"more than one alternative header in {parameter!r}")
    if not names[0]:
        raise ValueError("the header's name is empty")
    return [name for name in names if name]


def _first_of(texts: list[Text]) -> Text:
    if len(texts) == 1:
        return texts[0]
    main, alternative = texts

    def text(info: StreamInfo) -> bytes | None:
        value = main(info)
        return alternative(info) if value is None else value

    return text


def _method(info: StreamInfo) -> bytes | None:
    return info.request.method or None if info.request is not None else None


def _path(info: StreamInfo) -> bytes | None:
    return info.request.path or None if info.request is not None else None


def _authority(info: StreamInfo) -> bytes | None:
    return info.request.authority or None if info.request is not None else None


def _scheme(info: StreamInfo) -> bytes | None:
    return info.request.scheme or None if info.request is not None else None


def _status(info: StreamInfo) -> bytes | None:
    return b"%d" % info.response.status if info.response is not None else None


_REQUEST_FIELDS = {b":method": _method, b":path": _path, b":authority": _authority, b"host": _authority, b":scheme": _scheme}


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


def _request_header(parameter: str, length: int | None) -> Operator:
    return string_operator(_first_of([_request_text(name) for name in _names(parameter)]), length)


def _response_header(parameter: str, length: int | None) -> Operator:
    return string_operator(_first_of([_response_text(name) for name in _names(parameter)]), length)


for _name in ("REQ", "REQUEST_HEADER"):
    register(_name, _request_header, _HEADER)
for _name in ("RESP", "RESPONSE_HEADER"):
    register(_name, _response_header, _HEADER)
