"""`envoy.filters.http.buffer`."""

from __future__ import annotations

from mesh_filters.buffer import BufferConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context

_PACKAGE = "envoy.extensions.filters.http.buffer.v3"


def _buffer(reader: Reader) -> BufferConfig:
    return BufferConfig(max_request_bytes=reader.number("max_request_bytes"))


def _route(extension: Extension, context: Context) -> BufferConfig:
    reader = extension.reader
    if reader.oneof("override") == "disabled":
        reader.flag("disabled")
        return BufferConfig(max_request_bytes=0)
    return _buffer(required(reader, "buffer"))


register_http_filter(
    f"{_PACKAGE}.Buffer",
    lambda extension, context: _buffer(extension.reader),
    route_type_url=f"{_PACKAGE}.BufferPerRoute",
    translate_route=_route,
)
